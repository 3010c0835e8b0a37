"""The last thing that is done to an update of a masked run: digits on the round's grid, under masks."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fedft.client.worker.context import InstructionContext
from fedft.client.worker.residual_store import ResidualStore
from fedft.client.worker.secagg_member import membership
from fedft.client.worker.update_pipeline import OutgoingUpdate, residual_owner
from fedft.errors import Code, FedftError
from fedft.secagg.decode import decode_round_request
from fedft.secagg.encode import encode
from fedft.secagg.grid import grid_kind
from fedft.secagg.messages import MaskRequest
from fedft.secagg.sized_grid import SizedGrid
from fedft.tensors import Arrays
from fedft.training.seeds import derive_seed


@dataclass(frozen=True)
class RoundMask:
    """What an instruction asks to be masked, compared with what the run's configuration says."""

    request: MaskRequest
    grid: SizedGrid

    @classmethod
    def of(cls, context: InstructionContext) -> RoundMask:
        """Read the instruction before anything is trained or charged.

        Raises:
            FedftError: FEDFT-8829 when it asks for an update without masks, FEDFT-8827 (another grid),
                FEDFT-8809 (another round), FEDFT-8815 (masked before), and what opening the session raises.

        """
        config, instruction = context.runtime.config, context.instruction
        if not instruction.secagg:
            raise FedftError(
                Code.SECAGG_STEP_UNEXPECTED, "an update without masks is asked for, and the run requires them"
            )
        asked = decode_round_request(instruction.secagg)
        manifest = context.runtime.manifest
        if len(asked.sizes) != len(manifest.tensors):
            raise FedftError(
                Code.GRID_MISMATCH, f"{len(asked.sizes)} sizes for {len(manifest.tensors)} tensors"
            )
        max_weight = config.rounds.max_weight if config.rounds.weighting == "examples" else 1
        sizes = np.array(asked.sizes, dtype=np.float32)
        grid = SizedGrid(grid_kind(config.secagg.grid), manifest, sizes, max_weight)
        if asked.mask.payload != grid.payload:
            raise FedftError(Code.GRID_MISMATCH, "the request is for another grid than the round's")
        if asked.mask.round != instruction.round.round:
            raise FedftError(Code.SESSION_MISMATCH, f"a mask of round {asked.mask.round} is asked for")
        with membership(context) as client:
            client.expect_maskable(asked.mask)
        return cls(asked.mask, grid)


class Mask:
    """Puts the update and its weight on the round's grid and masks the digits; nothing else leaves.

    Guarantee: that of `fedft.secagg.client.Client`: the update enters at most one sum, of at least the
    threshold's clients, and nothing else is learned of it. The server's inverse is the unmasking of the sum.

    Args:
        mask: of the round.
        residuals: what the grid leaves out is kept there for the next update.
        weight: of the update.

    """

    def __init__(self, mask: RoundMask, residuals: ResidualStore, weight: int) -> None:
        self._mask, self._residuals, self._weight = mask, residuals, weight

    def apply(self, update: OutgoingUpdate, context: InstructionContext) -> OutgoingUpdate:
        """Return the masked update and nothing that was told of it."""
        digits = self._digits(update.arrays, context)
        with membership(context) as client:
            masked = client.mask(self._mask.request, digits)
        return replace(update, masked=encode(masked), metrics={})

    def _digits(self, change: Arrays, context: InstructionContext) -> NDArray[np.int64]:
        config, instruction, client = context.runtime.config, context.instruction, context.identity.client
        if config.codec.error_feedback:
            owner = residual_owner(config, client)
            return self._residuals.on_grid(change, self._mask.grid, self._weight, instruction, owner)
        seed = derive_seed(config.seed, "rounding", instruction.round.round, client)
        return self._mask.grid.digits(change, self._weight, np.random.default_rng(seed))
