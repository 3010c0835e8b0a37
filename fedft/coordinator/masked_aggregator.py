"""The sum of a round whose updates are masked: what comes in tells nothing before it is unmasked."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from fedft.aggregation import UpdateAccepted, UpdateRejected
from fedft.aggregation.reference import UpdateReference
from fedft.aggregation.rules import Verdict
from fedft.errors import Code, FedftError
from fedft.secagg.decode import decode_masked_input
from fedft.secagg.masked_sum import MaskedSum
from fedft.secagg.sized_grid import RoundMean, SizedGrid
from fedft.tensors import Arrays
from fedft.wire import Update
from fedft.wire.peer_error import as_peer_error


class MaskedAggregator:
    """Adds masked updates and, once the sum is unmasked, gives the weighted mean that it stands for.

    The mean is a function of the integer sums alone: it has the bits of the mean of the same integers
    without masks.

    Args:
        masked_sum: of the round.
        grid: what the integers stand on.
        reference: what the updates must name.
        numbers: the clients' numbers in the session.

    """

    def __init__(
        self,
        masked_sum: MaskedSum,
        grid: SizedGrid,
        reference: UpdateReference,
        numbers: Mapping[str, int],
    ) -> None:
        self._sum, self._grid, self._reference, self._numbers = masked_sum, grid, reference, numbers
        self._counted: set[str] = set()
        self._mean: RoundMean | None = None
        self.verdicts: Mapping[str, Verdict] = {}

    def offer(self, client_key: str, update: Update) -> UpdateAccepted | UpdateRejected:
        """Add a masked update, or refuse it without any effect."""
        try:
            self._reference.check(client_key, update, self._counted)
            if update.shards or not update.masked:
                raise FedftError(Code.SECAGG_STEP_UNEXPECTED, "the update is not masked, and the run is")
            masked = decode_masked_input(update.masked, self._sum.packing.nbytes)
            self._sum.take_masked(self._numbers[client_key], masked)
        except Exception as problem:
            error = as_peer_error(problem)
            return UpdateRejected(error.code, error.message)
        self._counted.add(client_key)
        return UpdateAccepted(0, 0.0)

    def unmask(self) -> RoundMean:
        """Take the masks off the sum, which enough clients have given their shares for.

        Raises:
            FedftError: FEDFT-8822 to 8824, FEDFT-8826 (a sum that no clients' digits add up to).

        """
        secure = self._sum.finish()
        self._mean = self._grid.mean(secure.digits, len(secure.survivors))
        return self._mean

    def result(self) -> Arrays:
        """Return the weighted mean; FEDFT-5014 before it is unmasked."""
        return self._unmasked().arrays

    def total(self) -> NDArray[np.float64]:
        """Return the weighted sum, (d,); FEDFT-5014 before it is unmasked."""
        mean = self._unmasked()
        return self._grid.manifest.flatten(mean.arrays).astype(np.float64) * mean.weight

    def _unmasked(self) -> RoundMean:
        if self._mean is None:
            raise FedftError(Code.NO_UPDATES, "the sum is masked still")
        return self._mean
