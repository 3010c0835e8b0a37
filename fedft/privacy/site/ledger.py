"""What a site has spent on each of its data sets, written down before anything leaves.

One ledger per site. A data set has a name, the fingerprint of its records and a number of examples; its
spending follows the name, so that editing a few records does not open a new budget. A charge is checked
against the budget and appended in one transaction, and is on disk when `charge` returns: charge first, then
train and release. What was charged stays charged, released or not.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fedft import clock
from fedft.errors import Code, FedftError
from fedft.privacy.accounting.accountants import claim
from fedft.privacy.accounting.events import Budget, Claim, PrivacyEvent, check_delta, merge
from fedft.statements import LedgerWitness
from fedft.store.hash_chain import GENESIS, Body, Entry, HashChain, canonical, link

FORMAT = 2
"""Format 1 had no nonce, and did not say what kind of release a charge was for."""

_READABLE = (1, FORMAT)


@dataclass(frozen=True)
class Receipt:
    """Proof that a charge is on disk; a release needs one.

    Attributes:
        entry: the ledger's entry.
        claim: what the data set has spent in all, with this charge.
        hidden: whether a random number in the ledger keeps the entry's digest from telling of records.

    """

    entry: LedgerWitness
    claim: Claim
    hidden: bool

    @property
    def witness(self) -> LedgerWitness | None:
        """The entry, if others may know it."""
        return self.entry if self.hidden else None


@dataclass
class _DatasetState:
    fingerprint: str
    examples: int
    events: list[PrivacyEvent] = field(default_factory=list)
    by_run: dict[str, list[PrivacyEvent]] = field(default_factory=dict)
    fixed: dict[tuple[str, str], PrivacyEvent] = field(default_factory=dict)


def fingerprint(records: Iterable[bytes]) -> str:
    """Return a digest of the multiset of records, whatever their order; hex SHA-256."""
    digests = sorted(hashlib.sha256(record).digest() for record in records)
    return hashlib.sha256(len(digests).to_bytes(8, "big") + b"".join(digests)).hexdigest()


class Ledger:
    """The privacy ledger of one site, at `path` and `path`.head; concurrent processes may share it.

    Raises:
        FedftError: FEDFT-8201 (missing), FEDFT-8203 (altered), FEDFT-8204 (cut off or rolled back),
            FEDFT-8208 (cannot be read or written), from here and from every method.

    """

    def __init__(self, path: Path) -> None:
        self._chain = HashChain(path)
        self._datasets: dict[str, _DatasetState] = {}
        self._hidden = False
        self.refresh()

    @classmethod
    def create(cls, path: Path) -> Ledger:
        """Make an empty ledger; the parent folder must exist.

        Its first entry holds a random number, so that no later digest tells of the data that it covers.

        Raises:
            FedftError: FEDFT-8202 if there is one, FEDFT-8208 if it cannot be written.

        """
        chain = HashChain(path)
        chain.create()
        chain.append(lambda _: _body("ledger", format=FORMAT, nonce=secrets.token_hex(32)))
        return cls(path)

    def check_writable(self) -> None:
        """Try a charge's disk writes and take them back; FEDFT-8208 when one is refused."""
        self._chain.check_writable()

    def enrol(self, dataset: str, fingerprint: str, examples: int) -> None:
        """Bind the name `dataset` to its fingerprint; once bound to the same, does nothing.

        Raises:
            FedftError: FEDFT-8206 if the name is bound to another fingerprint, FEDFT-8209 if the records are
                bound to another name.

        """

        def decide(new: list[Entry]) -> Body | None:
            self._absorb(new)
            if dataset in self._datasets:
                self._bound(dataset, fingerprint)
                return None
            self._refuse_known(dataset, fingerprint)
            return _body("dataset", dataset=dataset, fingerprint=fingerprint, examples=examples)

        self._append(decide)

    def rebind(self, dataset: str, fingerprint: str, examples: int) -> None:
        """Bind an enrolled name to changed data; what was spent stays spent. For the operator alone.

        Raises:
            FedftError: FEDFT-8205 if the name was never enrolled, FEDFT-8209 if the records are bound to
                another name.

        """

        def decide(new: list[Entry]) -> Body:
            self._absorb(new)
            self._known(dataset)
            self._refuse_known(dataset, fingerprint)
            return _body("rebind", dataset=dataset, fingerprint=fingerprint, examples=examples)

        self._append(decide)

    def charge(
        self,
        dataset: str,
        event: PrivacyEvent,
        budget: Budget,
        *,
        run: str,
        round_number: int,
        release: str = "train",
    ) -> Receipt:
        """Check `event` against the budget and write it down, in one transaction; no record is looked at.

        Args:
            dataset: an enrolled name.
            event: everything this round will release.
            budget: (ε, δ) for the data set, over all runs and for ever.
            run: the run's id.
            round_number: the round, for the record.
            release: what kind of release it is; within a run all of one kind cost the same, since
                composition is claimed for events that are fixed beforehand.

        Raises:
            FedftError: FEDFT-8205 (never enrolled), FEDFT-8207 (the budget does not cover it), FEDFT-8210
                (another event than the run's before), FEDFT-8001 (δ ≥ 1/n); nothing is written then.

        """
        spent = Claim(0.0, budget.delta, 0.0)

        def decide(new: list[Entry]) -> Body:
            nonlocal spent
            self._absorb(new)
            state = self._known(dataset)
            _refuse_change(state.fixed.get((run, release), event), event, run)
            spent = self._afford(state, dataset, event, budget)
            facts = {"dataset": dataset, "run": run, "round": round_number, "release": release}
            return _body("charge", **facts, event=event.as_dict())

        self._append(decide)
        return Receipt(LedgerWitness(*self._chain.head), spent, self._hidden)

    def require_entry(self, seen: LedgerWitness) -> None:
        """Refuse to go on without an entry that others have seen of this ledger.

        A ledger that was put back with its head file to an older state tells nothing of it by itself.

        Raises:
            FedftError: FEDFT-8211.

        """
        self.refresh()
        if not self._chain.holds(seen.sequence, seen.digest):
            raise FedftError(
                Code.LEDGER_FORKED,
                f"the server has seen entry {seen.sequence} of this site's ledger, which {self._chain.path} "
                "lacks: it was put back to an older state",
                hint="put the newest copy back; without it nobody can say what was spent",
            )

    def require(self, dataset: str, fingerprint: str) -> None:
        """Raise FEDFT-8206 unless these are the records that the name is bound to; FEDFT-8205."""
        self.refresh()
        self._bound(dataset, fingerprint)

    def claim(self, dataset: str, delta: float) -> Claim:
        """Return what the data set has spent so far, over all runs.

        Raises:
            FedftError: FEDFT-8205 (never enrolled), FEDFT-8001 (δ ≥ 1/n).

        """
        self.refresh()
        state = self._known(dataset)
        check_delta(delta, state.examples)
        return claim(state.events, delta)

    def events(self, dataset: str) -> list[PrivacyEvent]:
        """Return what was released from the data set, equal releases joined."""
        self.refresh()
        return merge(self._known(dataset).events)

    def events_of_run(self, dataset: str, run: str) -> list[PrivacyEvent]:
        """Return what one run has released from the data set, repeated and lost rounds included."""
        self.refresh()
        return merge(self._known(dataset).by_run.get(run, []))

    def bindings(self) -> dict[str, tuple[str, int]]:
        """Return fingerprint and number of records of each enrolled name."""
        self.refresh()
        return {name: (state.fingerprint, state.examples) for name, state in self._datasets.items()}

    def datasets(self) -> list[str]:
        """Return the enrolled names, in order of enrolment."""
        self.refresh()
        return list(self._datasets)

    def refresh(self) -> None:
        """Verify the chain and the head file, and take in what other processes have added."""
        self._absorb(self._chain.read())

    def entries(self) -> list[Entry]:
        """Verify the whole chain from the start and return it."""
        chain = HashChain(self._chain.path)
        return chain.read()

    def export(self) -> dict[str, Any]:
        """Return the whole ledger as plain data that `verify_export` can check elsewhere."""
        entries = self.entries()
        return {
            "format": FORMAT,
            "head": entries[-1].digest,
            "entries": [{"body": entry.body, "digest": entry.digest} for entry in entries],
        }

    def _append(self, decide: Callable[[list[Entry]], Body | None]) -> None:
        entry = self._chain.append(decide)
        self._absorb([entry] if entry else [])

    def _afford(self, state: _DatasetState, dataset: str, event: PrivacyEvent, budget: Budget) -> Claim:
        check_delta(budget.delta, state.examples)
        after = claim([*state.events, event], budget.delta, enough=budget.epsilon)
        if after.epsilon > budget.epsilon:
            raise FedftError(
                Code.BUDGET_SPENT,
                f"the privacy budget of {dataset!r} does not cover this round: epsilon would be "
                f"{after.epsilon:.4g} and at most {budget.epsilon:g} is allowed at delta {budget.delta:g}",
                hint="the site takes part no more unless its operator raises the budget",
            )
        return after

    def _known(self, dataset: str) -> _DatasetState:
        if dataset not in self._datasets:
            known = ", ".join(sorted(self._datasets)) or "none"
            raise FedftError(
                Code.DATASET_NOT_ENROLLED,
                f"the ledger knows no data set {dataset!r} (enrolled: {known})",
                hint="enrol it once; a changed data set keeps its name and is rebound",
            )
        return self._datasets[dataset]

    def _bound(self, dataset: str, fingerprint: str) -> _DatasetState:
        state = self._known(dataset)
        if state.fingerprint != fingerprint:
            raise FedftError(
                Code.DATASET_CHANGED,
                f"the data of {dataset!r} has fingerprint {fingerprint[:12]}, the ledger is bound to "
                f"{state.fingerprint[:12]}",
                hint="use the data that was enrolled, or rebind the name (its spending stays)",
            )
        return state

    def _refuse_known(self, dataset: str, fingerprint: str) -> None:
        for name, state in self._datasets.items():
            if name != dataset and state.fingerprint == fingerprint:
                raise FedftError(
                    Code.DATASET_KNOWN,
                    f"the records of {dataset!r} are enrolled as {name!r}, whose spending counts for them",
                    hint=f"use the name {name!r}",
                )

    def _absorb(self, entries: list[Entry]) -> None:
        for entry in entries:
            body = entry.body
            self._hidden |= "nonce" in body
            if body["kind"] == "dataset" and body["dataset"] not in self._datasets:
                self._datasets[body["dataset"]] = _DatasetState(body["fingerprint"], body["examples"])
            elif body["kind"] == "rebind":
                state = self._datasets[body["dataset"]]
                state.fingerprint, state.examples = body["fingerprint"], body["examples"]
            elif body["kind"] == "charge":
                event = PrivacyEvent(**body["event"])
                state = self._datasets[body["dataset"]]
                state.events.append(event)
                state.by_run.setdefault(body["run"], []).append(event)
                if "release" in body:
                    state.fixed.setdefault((body["run"], body["release"]), event)
            elif body.get("format") not in _READABLE:
                raise FedftError(
                    Code.LEDGER_ALTERED,
                    f"entry {entry.sequence} of the ledger has the unknown kind {body['kind']!r}",
                    hint="a newer version wrote it; use that version",
                )


def open_or_enrol(path: Path, dataset: str, fingerprint: str, examples: int) -> Ledger:
    """Open a ledger that a run keeps for itself; made with its data set, as a whole or not at all.

    It has a folder of its own, which is missing before the first charge alone: a folder without its ledger is
    an error (FEDFT-8201). A site's ledger is never made so, but by its operator.
    """
    if not path.parent.exists():
        begun = path.parent.with_name(f".{path.parent.name}.{os.getpid()}")
        shutil.rmtree(begun, ignore_errors=True)
        begun.mkdir(parents=True)
        Ledger.create(begun / path.name).enrol(dataset, fingerprint, examples)
        begun.rename(path.parent)
    return Ledger(path)


def verify_export(exported: dict[str, Any]) -> int:
    """Recompute an export's chain and return the number of entries.

    Raises:
        FedftError: FEDFT-8203 where an entry does not follow from the ones before it.

    """
    digest = GENESIS
    for sequence, entry in enumerate(exported["entries"], start=1):
        digest = link(digest, sequence, canonical(entry["body"]))
        if digest.hex() != entry["digest"]:
            raise FedftError(
                Code.LEDGER_ALTERED, f"entry {sequence} of the export does not follow from those before it"
            )
    if digest.hex() != exported["head"]:
        raise FedftError(Code.LEDGER_ALTERED, "the export ends before its head")
    return len(exported["entries"])


def _refuse_change(fixed: PrivacyEvent, event: PrivacyEvent, run: str) -> None:
    if event != fixed:
        raise FedftError(
            Code.EVENT_CHANGED,
            f"a round of run {run} would release {event}, its rounds before it {fixed}",
            hint="noise, sampling and steps are fixed within a run; start another run",
        )


def _body(kind: str, **fields: Any) -> Body:
    # The time is for people who read the ledger; nothing depends on it.
    return {"kind": kind, "time": int(clock.timestamp()), **fields}
