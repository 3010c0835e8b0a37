"""The site policy: what this site agrees to, whatever a server asks.

A TOML file that lives at the site and is read from there alone. Every field must be given: what is absent
is not allowed, and "*" in a list allows anything. An instruction that asks for more is refused; it cannot
change the policy.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fedft.errors import Code, FedftError
from fedft.privacy.accounting.events import Budget

ANY = "*"
Names = Annotated[tuple[str, ...], Field(strict=False)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class DatasetRule(_Section):
    """What one data set may be used for: its total budget, for ever, and whether DP is required."""

    epsilon: float = Field(gt=0, allow_inf_nan=False)
    delta: float = Field(gt=0, lt=1)
    private: bool


class ModelRule(_Section):
    """Digests of base models and frames, and names of initialisers, that may be trained on."""

    bases: Names
    frames: Names
    initialisers: Names


class MessageRule(_Section):
    """What may leave and how: codecs, metric names, and whether secure aggregation is required."""

    codecs: Names
    metrics: Names
    secure_aggregation: bool


class ServerRule(_Section):
    """Identities of the servers that may give instructions."""

    identities: Names


@dataclass(frozen=True)
class PolicyRequest:
    """What a server asks of this site, in the policy's terms.

    Attributes:
        server: the authenticated identity of the server.
        dataset: the site's name of the data set.
        base_digest: digest of the base model.
        frame_digest: digest of the frame.
        initialiser: how the frame is made.
        codec: what encodes the update.
        private: whether the update is differentially private.
        epsilon: the run's target; not looked at without privacy.
        delta: the run's δ; not looked at without privacy.
        secure_aggregation: whether the server sees the sum alone.
        metrics: names of the metrics that would leave with the update.

    """

    server: str
    dataset: str
    base_digest: str
    frame_digest: str
    initialiser: str
    codec: str
    private: bool
    epsilon: float
    delta: float
    secure_aggregation: bool
    metrics: Sequence[str] = ()


class PolicyViolationError(FedftError):
    """An instruction was refused; `violations` has one error, with its own code, for each reason.

    The code is that of the only violation, or FEDFT-8300 where there are several.
    """

    def __init__(self, violations: Sequence[FedftError]) -> None:
        self.violations = tuple(violations)
        if len(violations) == 1:
            (only,) = violations
            super().__init__(only.code, only.message, hint=only.hint)
        else:
            listed = "\n  ".join(f"{one.code} {one.message}" for one in violations)
            super().__init__(
                Code.POLICY_VIOLATIONS,
                f"the site policy refuses this for {len(violations)} reasons:\n  {listed}",
            )

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.violations,)


class SitePolicy(_Section):
    """A site's policy; see `load_policy`."""

    datasets: dict[str, DatasetRule]
    models: ModelRule
    messages: MessageRule
    server: ServerRule

    def budget(self, dataset: str) -> Budget:
        """Return the data set's total budget, for the ledger.

        Raises:
            FedftError: FEDFT-8312 for a data set that the policy does not name.

        """
        if dataset not in self.datasets:
            raise _unknown_dataset(dataset)
        rule = self.datasets[dataset]
        return Budget(rule.epsilon, rule.delta)

    def check(self, instruction: PolicyRequest) -> None:
        """Refuse an instruction that asks for more than the policy allows.

        Raises:
            PolicyViolationError: with every reason at once, FEDFT-8302 to FEDFT-8312.

        """
        violations = [*self._about_data(instruction), *self._about_names(instruction)]
        if self.messages.secure_aggregation and not instruction.secure_aggregation:
            violations.append(
                _violation(
                    Code.SECURE_AGGREGATION_REQUIRED, "secure aggregation is off and the site requires it"
                )
            )
        if violations:
            raise PolicyViolationError(violations)

    def _about_data(self, asked: PolicyRequest) -> Iterator[FedftError]:
        if asked.dataset not in self.datasets:
            yield _unknown_dataset(asked.dataset)
            return
        rule = self.datasets[asked.dataset]
        if rule.private and not asked.private:
            yield _violation(
                Code.PRIVACY_REQUIRED, f"the run is not private and {asked.dataset!r} may not be used so"
            )
        if asked.private and not asked.epsilon <= rule.epsilon:
            yield _violation(
                Code.EPSILON_ABOVE_POLICY, f"epsilon {asked.epsilon:g} is asked, {rule.epsilon:g} is allowed"
            )
        if asked.private and not asked.delta <= rule.delta:
            yield _violation(
                Code.DELTA_ABOVE_POLICY, f"delta {asked.delta:g} is asked, {rule.delta:g} is allowed"
            )

    def _about_names(self, asked: PolicyRequest) -> Iterator[FedftError]:
        models, messages = self.models, self.messages
        checks = [
            (Code.BASE_MODEL_NOT_ALLOWED, "base model", [asked.base_digest], models.bases),
            (Code.FRAME_NOT_ALLOWED, "frame", [asked.frame_digest], models.frames),
            (Code.INITIALISER_NOT_ALLOWED, "initialiser", [asked.initialiser], models.initialisers),
            (Code.CODEC_NOT_ALLOWED, "codec", [asked.codec], messages.codecs),
            (Code.METRIC_NOT_ALLOWED, "metric", asked.metrics, messages.metrics),
            (Code.SERVER_NOT_ALLOWED, "server", [asked.server], self.server.identities),
        ]
        for code, what, names, allowed in checks:
            refused = [name for name in names if ANY not in allowed and name not in allowed]
            if refused:
                shown = ", ".join(allowed) or "none"
                yield _violation(code, f"{what} {', '.join(refused)} is not allowed (allowed: {shown})")


def load_policy(path: Path) -> SitePolicy:
    """Read a site policy.

    Raises:
        FedftError: FEDFT-8301 where the file is missing, not TOML, or has wrong or missing fields; all of
            them are listed.

    """
    try:
        return SitePolicy.model_validate(tomllib.loads(path.read_text("utf-8")))
    except ValidationError as error:
        mistakes = [f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()]
        problem = "\n  ".join(["", *mistakes])
    except (OSError, ValueError) as error:
        problem = str(error)
    raise FedftError(
        Code.POLICY_INVALID,
        f"the site policy {path} cannot be used: {problem}",
        hint="nothing is allowed without a policy; every field must be given",
    )


def _violation(code: str, message: str) -> FedftError:
    return FedftError(code, message, hint="only the site's operator can change its policy")


def _unknown_dataset(dataset: str) -> FedftError:
    return _violation(Code.DATASET_NOT_ALLOWED, f"the policy has no data set {dataset!r}")
