"""What a kind of privacy is: whose presence is hidden, where the noise is added, what a run may not do."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

from fedft.config.rules import Contradiction
from fedft.errors import Code, FedftError
from fedft.registries import PRIVACY_MODELS
from fedft.statements import PrivacyUnit

if TYPE_CHECKING:
    from fedft.config import RunConfig


@dataclass(frozen=True)
class PrivacyModel:
    """One kind of privacy, as ``privacy.mechanism`` names it.

    Attributes:
        unit: what the accounting counts and a plan shows; without privacy, what a plan of it would.
        private: whether anybody adds noise.
        charged_at_client: whether clients make the private releases: each is in the client's ledger before
            it leaves, and everything else that is computed from the data stays.
        forbids: yields what contradicts it in a configuration.
        client: reference ``module:attribute`` to its part at the client, a
            `fedft.client.worker.local_privacy.LocalPrivacy`.
        server: reference to its part at the server, which makes a
            `fedft.coordinator.central_mechanism.CentralMechanism`.

    """

    unit: PrivacyUnit
    private: bool
    charged_at_client: bool
    forbids: Callable[[RunConfig], Iterable[Contradiction]]
    client: str
    server: str


def model_part(reference: str) -> Any:
    """Import a model's part at one side; FEDFT-1013 where there is none: no other's takes its place."""
    try:
        return resolve_name(reference)
    except (ImportError, AttributeError) as error:
        raise FedftError(
            Code.PRIVACY_PART_MISSING,
            f"the run's kind of privacy needs {reference}: {error}",
            hint="another privacy.mechanism, or repair the package that provides this one",
        ) from error


def privacy_model(config: RunConfig) -> PrivacyModel:
    """Return the privacy of a run; FEDFT-1010 where there is no such kind."""
    return PRIVACY_MODELS.get(config.privacy.mechanism)
