"""What a site enforces: a policy checked on every instruction, a ledger charged before every release."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fedft.client.site.config import SiteConfig
from fedft.client.site.folders import checked_name
from fedft.client.site.identity import ClientIdentity
from fedft.client.site.pinned import Pinned
from fedft.codecs import codec_from_spec
from fedft.config import RunConfig
from fedft.errors import Code, FedftError
from fedft.privacy.accounting.accountants import COARSE, pld_epsilon
from fedft.privacy.accounting.events import PrivacyEvent
from fedft.privacy.models.interface import privacy_model
from fedft.privacy.site.ledger import Ledger, open_or_enrol
from fedft.privacy.site.policy import (
    ANY,
    DatasetRule,
    MessageRule,
    ModelRule,
    PolicyRequest,
    ServerRule,
    SitePolicy,
    load_policy,
)
from fedft.registries import METHODS
from fedft.statements import LedgerWitness
from fedft.training.model_runtime import ModelRuntime
from fedft.wire import Instruction, InstructionKind

MEANS_OVER_SAMPLES = ("loss", "accuracy", "exact_match")
"""Metrics of an evaluation on a client's own data that the server can average."""

_SIMULATED = "train"


@dataclass(frozen=True)
class PolicyEnforcer:
    """A client's own policy and ledger; nothing that a server sends changes them.

    A site has the policy and the ledger that its ``site.toml`` names. A simulated client has a ledger of its
    own for each run, which is made when it is first needed, and the run's (ε, δ) as its budget.

    Attributes:
        policy: None at a site without one, which takes part in no private run.
        dataset: name of the data in policy and ledger.
        server: the identity that the client has authenticated.
        ledger: None at a site whose ``site.toml`` names none.
        simulated: whether the ledger may be made here.
        pinned: how the site's records are read; None if it has not agreed to any way.

    """

    policy: SitePolicy | None
    dataset: str
    server: str
    ledger: Path | None
    simulated: bool
    pinned: Pinned | None = None

    @classmethod
    def of(cls, identity: ClientIdentity, config: RunConfig, run_id: str) -> PolicyEnforcer:
        """Read a client's policy; FEDFT-8301 when its policy cannot be used."""
        if identity.site is not None:
            return cls._of_site(identity.site, identity.server)
        ledgers = identity.folders.state / "ledgers"
        folder = ledgers / checked_name(run_id) / checked_name(identity.client)
        return cls(_simulated_policy(config), _SIMULATED, "simulation", folder / "ledger.sqlite", True)

    @classmethod
    def _of_site(cls, site: SiteConfig, server: str) -> PolicyEnforcer:
        files = site.privacy
        policy = load_policy(site.path(files.policy)) if files.policy else None
        return cls(policy, files.dataset, server, site.ledger, False, site.pinned)

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the metrics that may leave a round that is not private."""
        return (ANY,) if self.policy is None else self.policy.messages.metrics

    def check(self, runtime: ModelRuntime, instruction: Instruction) -> None:
        """Refuse an instruction that asks for more than this identity agrees to.

        Raises:
            PolicyViolationError: FEDFT-8300, 8302 to 8312.
            FedftError: FEDFT-8313 (a private run and no policy), FEDFT-8321 (metrics of private data),
                FEDFT-8326 and 8327 (records would be read as the site has not agreed to).

        """
        private = privacy_model(runtime.config).charged_at_client
        evaluation = instruction.kind is InstructionKind.EVALUATE
        if private and evaluation:
            raise FedftError(
                Code.UNACCOUNTED_RELEASE,
                "an evaluation on private data would leave without being accounted for",
            )
        if self.policy is not None:
            metrics = MEANS_OVER_SAMPLES if evaluation else ()
            self.policy.check(self._asked(runtime, instruction, metrics))
        elif private:
            raise FedftError(
                Code.POLICY_MISSING,
                "this site has no policy and takes part in no private run",
                hint="name a policy and a ledger in the [privacy] section of site.toml",
            )
        self._check_pins(runtime)

    def _check_pins(self, runtime: ModelRuntime) -> None:
        if self.pinned is not None:
            self.pinned.require(Pinned.of(runtime.config, runtime.tokenizer_digest))
        elif privacy_model(runtime.config).charged_at_client and not self.simulated:
            raise FedftError(
                Code.NOT_PINNED,
                "this site has not agreed to how its records are read, and the run is private",
                hint="at the site: fedft client pin RUN.toml",
            )

    def examples(self, runtime: ModelRuntime, client: int) -> int:
        """Return how many records a round draws from; at a site as enrolled, without a look at them.

        Raises:
            FedftError: FEDFT-8201 to 8205, 8208 (the ledger).

        """
        if self.simulated:
            return runtime.data.records.count(client)
        bound = self._ledger().bindings()
        if self.dataset not in bound:
            raise FedftError(
                Code.DATASET_NOT_ENROLLED,
                f"the ledger knows no data set {self.dataset!r}",
                hint="at the site: fedft privacy ledger init",
            )
        _, examples = bound[self.dataset]
        own = runtime.config.data.partition.clients == 1
        return min(examples, runtime.config.data.max_train or examples) if own else examples

    def require_data(self, runtime: ModelRuntime, client: int) -> None:
        """Refuse records other than those that the ledger is bound to.

        Raises:
            FedftError: FEDFT-8206, and what reading raises; nothing of it may leave the site.

        """
        if not self.simulated:
            fingerprint, _ = runtime.data.records.fingerprint(client)
            self._ledger().require(self.dataset, fingerprint)

    def charge(
        self,
        runtime: ModelRuntime,
        client: int,
        instruction: Instruction,
        event: PrivacyEvent,
        release: str,
    ) -> tuple[float, LedgerWitness | None]:
        """Write a release's cost down; return the run's ε so far at the run's δ, and the ledger's entry.

        What was charged stays charged, whatever becomes of the round. At a site no record is read.

        Raises:
            FedftError: FEDFT-8201 to 8210 (the ledger, or the budget does not cover the round).

        """
        if self.policy is None:
            raise FedftError(Code.POLICY_MISSING, "this site has no policy")
        if self.simulated and self.ledger is not None:
            open_or_enrol(self.ledger, self.dataset, *runtime.data.records.fingerprint(client))
        ledger, run = self._ledger(), instruction.round.run_id
        budget, number = self.policy.budget(self.dataset), instruction.round.round
        receipt = ledger.charge(self.dataset, event, budget, run=run, round_number=number, release=release)
        spent = ledger.events_of_run(self.dataset, run)
        return pld_epsilon(spent, runtime.config.privacy.delta, interval=COARSE), receipt.witness

    def _ledger(self) -> Ledger:
        if self.ledger is None:
            raise FedftError(
                Code.LEDGER_NOT_FOUND, "site.toml names no privacy ledger", hint="fedft privacy ledger init"
            )
        return Ledger(self.ledger)

    def _asked(
        self, runtime: ModelRuntime, instruction: Instruction, metrics: tuple[str, ...]
    ) -> PolicyRequest:
        config = runtime.config
        return PolicyRequest(
            server=self.server,
            dataset=self.dataset,
            base_digest=runtime.base_digest,
            frame_digest=instruction.model.frame_digest,
            initialiser=runtime.method.frame_facts(config).name,
            codec=config.secagg.grid if config.secagg.required else _codec(config, instruction),
            private=privacy_model(config).charged_at_client,
            epsilon=config.privacy.epsilon,
            delta=config.privacy.delta,
            secure_aggregation=config.secagg.required,
            metrics=metrics,
        )


def _codec(config: RunConfig, instruction: Instruction) -> str:
    codecs = instruction.accepted_codecs
    return codec_from_spec(codecs[0]).name if codecs else config.codec.name


def refuse_private_frame(config: RunConfig, frame: bytes, *, deployed: bool) -> None:
    """Refuse to compute a frame from gradients here: its digest would leave, unaccounted for (FEDFT-8322).

    A deployed site never does: the records would be read from where the server says.
    """
    facts = METHODS.get(config.method).frame_facts(config)
    if (deployed or privacy_model(config).charged_at_client) and not frame and facts.reads_data:
        raise FedftError(
            Code.PRIVATE_FRAME,
            f"the server sends no {facts.name} frame; one from gradients here would leak",
            hint="the server builds it from public records and ships it",
        )


def _simulated_policy(config: RunConfig) -> SitePolicy:
    rule = DatasetRule(epsilon=config.privacy.epsilon, delta=config.privacy.delta, private=False)
    return SitePolicy(
        datasets={_SIMULATED: rule},
        models=ModelRule(bases=(ANY,), frames=(ANY,), initialisers=(ANY,)),
        messages=MessageRule(codecs=(ANY,), metrics=(ANY,), secure_aggregation=False),
        server=ServerRule(identities=(ANY,)),
    )
