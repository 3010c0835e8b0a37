"""Client-level privacy of a run: who is drawn, what is charged, what is released."""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Iterable, Sequence

import torch

from fedft.aggregation import Aggregator
from fedft.codecs import Manifest
from fedft.config import RunConfig
from fedft.errors import Code, FedftError
from fedft.privacy.accounting.accountants import ACCOUNTANT
from fedft.privacy.accounting.events import Budget
from fedft.privacy.mechanisms.client_level import AdaptiveClip, ClientLevelMechanism
from fedft.privacy.site.ledger import Ledger, open_or_enrol
from fedft.statements import PrivacyMechanism, PrivacyStatement, PrivacyUnit
from fedft.store import RoundRecord, RunStore, UpdateRecord
from fedft.store.files import write_file
from fedft.store.records import UNCLIPPED
from fedft.tensors import Arrays
from fedft.training.private_schedule import client_event, expected_clients
from fedft.wire import Update

_CLIENTS, _SECRET = "clients", "draw.key"


class CentralPrivacy:
    """The mechanism of a run whose unit is a client, as the last committed round left it.

    Guarantee: everything that leaves the server's round loop (states, frames apart) costs what the run's
    ledger says, at most (`privacy.epsilon`, `privacy.delta`), for adding or removing one client. It assumes
    a server that is trusted with the single updates, a draw that stays secret where `client_rate` is below
    1, and a frame that is made without the clients' data. Nothing that clients do or leave undone decides
    whether a round is released or who is in it: the draw is fixed before anyone is asked, and kept.

    Args:
        config: with the mechanism "client".
        run_id: whose ledger it is.
        store: where the ledger lies, beside the run's rounds.
        manifest: of what is exchanged.

    Raises:
        FedftError: FEDFT-8001 (δ ≥ 1/clients), FEDFT-8004, FEDFT-8005 (noise), FEDFT-8504 (count noise).

    """

    always_released = True

    def __init__(self, config: RunConfig, run_id: str, store: RunStore, manifest: Manifest) -> None:
        privacy, event = config.privacy, client_event(config)
        expected = expected_clients(config)
        rounds = store.rounds(run_id)
        self._config, self._run_id, self._manifest = config, run_id, manifest
        self._folder = store.folder / "privacy" / run_id
        self._mechanism = ClientLevelMechanism(
            manifest.total_elements,
            max_norm=_bound_after(rounds) or privacy.client_max_norm,
            noise_multiplier=event.noise_multiplier,
            cohort=expected,
            sample_rate=privacy.client_rate,
            adaptive=_adaptive(config, event.noise_multiplier, expected),
        )

    @property
    def max_norm(self) -> float:
        """What clients must clip their updates to in this round."""
        return self._mechanism.max_norm

    @property
    def limit(self) -> float:
        """The largest norm of a decoded update that counts."""
        return self._mechanism.limit

    def draw(self, number: int, clients: Iterable[str]) -> list[str]:
        """Draw the clients of a round, each by itself and in secret; there may be none.

        Until something is released every draw is the same, after a restart too; the next release has a draw
        of its own.
        """
        releases, rate = len(self._ledger().entries()), self._config.privacy.client_rate
        secret = self._secret()
        return sorted(client for client in clients if _coin(secret, releases, client) < rate)

    def stated(self, update: Update) -> None:
        """Require what the bound follows; the server alone states anything of the noise.

        Raises:
            FedftError: FEDFT-5017 where the bound follows the norms and the update does not say whether it
                was clipped.

        """
        if self._config.privacy.clip_quantile and update.metrics.get(UNCLIPPED) not in (0.0, 1.0):
            raise FedftError(
                Code.PRIVACY_STATEMENT_MISMATCH,
                "the update does not say whether it was clipped",
                hint=f'its site must let the metric "{UNCLIPPED}" out',
            )

    def release(
        self, number: int, aggregator: Aggregator, updates: Sequence[UpdateRecord]
    ) -> tuple[Arrays, PrivacyStatement]:
        """Charge the round, and return the noised mean and what the server states of it.

        Raises:
            FedftError: FEDFT-8207 when the run's ε does not cover the round; FEDFT-8203 to 8208 (the ledger).

        """
        privacy, event = self._config.privacy, self._mechanism.event()
        used = self.max_norm
        epsilon = self._charge(number)
        for update in updates:
            if update.status == "accepted" and UNCLIPPED in update.metrics:
                self._mechanism.note(update.metrics[UNCLIPPED] == 1.0)
        mean = self._mechanism.release(torch.from_numpy(aggregator.total()))
        statement = PrivacyStatement(
            mechanism=PrivacyMechanism.GAUSSIAN,
            unit=PrivacyUnit.CLIENT,
            noise_multiplier=event.noise_multiplier,
            max_norm=used,
            sample_rate=event.sample_rate,
            steps=event.steps,
            epsilon=epsilon,
            delta=privacy.delta,
            accountant=ACCOUNTANT,
        )
        return self._manifest.unflatten(mean.numpy()), statement

    def _charge(self, number: int) -> float:
        privacy, event = self._config.privacy, self._mechanism.event()
        budget = Budget(privacy.epsilon, privacy.delta)
        receipt = self._ledger().charge(_CLIENTS, event, budget, run=self._run_id, round_number=number)
        return receipt.claim.epsilon

    def _ledger(self) -> Ledger:
        fingerprint = hashlib.sha256(self._run_id.encode()).hexdigest()
        clients = self._config.data.partition.clients
        return open_or_enrol(self._folder / "ledger.sqlite", _CLIENTS, fingerprint, clients)

    def _secret(self) -> bytes:
        path = self._folder / _SECRET
        if not path.exists():
            write_file(path, os.urandom(32))
            path.chmod(0o600)
        return path.read_bytes()


def _coin(secret: bytes, releases: int, client: str) -> float:
    """Return a uniform number in [0, 1) of 53 bits; unknown to whoever lacks the secret."""
    digest = hmac.digest(secret, f"{releases}\0{client}".encode(), "sha256")
    return float(int.from_bytes(digest[:8], "big") >> 11) * 2.0**-53


def _bound_after(rounds: Sequence[RoundRecord]) -> float:
    return rounds[-1].next_max_norm if rounds else 0.0


def _adaptive(config: RunConfig, noise_multiplier: float, expected: float) -> AdaptiveClip | None:
    privacy = config.privacy
    if not privacy.clip_quantile:
        return None
    count_noise = privacy.count_noise or max(expected / 20, noise_multiplier)
    return AdaptiveClip(privacy.clip_quantile, privacy.clip_rate, count_noise)
