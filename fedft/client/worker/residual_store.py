"""The residuals that this machine's clients keep between rounds, on disk."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedft.client.site.folders import checked_name
from fedft.codecs import Codec, CodecContext, Manifest, Shard
from fedft.codecs.error_feedback import ErrorFeedback, Pending, ResidualIdentity
from fedft.errors import FedftError
from fedft.secagg.sized_grid import SizedGrid
from fedft.tensors import Arrays
from fedft.wire import Instruction

_RUNS_KEPT = 8


class ResidualStore:
    """Error feedback for every client that keeps its state in ``folder``: one file per run and client."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "residuals"

    def encode(
        self,
        delta: Arrays,
        codec: Codec,
        context: CodecContext,
        manifest: Manifest,
        instruction: Instruction,
        client: str,
    ) -> tuple[tuple[Shard, ...], Arrays]:
        """Code an update with the client's residual added, and keep what is left out as pending.

        Returns the shards and what they code: the residual plus the update.
        """
        with self._feedback(manifest, instruction, client) as feedback:
            residual = feedback.residual
            shards = feedback.prepare(
                delta,
                codec,
                context,
                round=instruction.round.round,
                update_seq=instruction.round.round,
                max_norm=instruction.max_update_norm,
            )
        return shards, {name: residual[name] + delta[name] for name in delta}

    def on_grid(
        self, delta: Arrays, grid: SizedGrid, weight: int, instruction: Instruction, client: str
    ) -> NDArray[np.int64]:
        """Put an update with the client's residual added on a grid, and keep what is left out as pending."""
        manifest, at = grid.manifest, instruction.round.round

        def code(corrected: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
            whole = manifest.unflatten(corrected)
            digits = grid.digits(whole, weight)
            return digits, manifest.flatten(grid.remainder(whole, digits))

        with self._feedback(manifest, instruction, client) as feedback:
            state = instruction.model.global_state_digest
            return feedback.hold(delta, code, Pending(at, at, state))

    @contextmanager
    def _feedback(self, manifest: Manifest, instruction: Instruction, client: str) -> Iterator[ErrorFeedback]:
        """Open a client's residual, settled, and keep what the block makes of it.

        The residual of a round that the server repeats is the one from before that round, so that a
        resumed run gives the same update again; so is that of a masked round that was lost, for the next
        one starts from the same state. Of a run that was taken back further, what was left out since then
        belongs to rounds that no longer count: it is dropped.
        """
        model, at = instruction.model, instruction.round
        identity = ResidualIdentity(at.run_id, model.frame_digest, model.manifest_digest)
        path = self._path(at.run_id, client)
        feedback, accepted = self._load(path, identity, manifest), _accepted(instruction)
        pending = feedback.pending
        if pending is not None and pending.round > at.round:
            print(
                f"run {at.run_id} is back at round {at.round}; beginning with an empty residual",
                file=sys.stderr,
            )
            feedback = ErrorFeedback(identity, manifest)
        elif pending is not None and pending not in accepted and _repeated(pending, instruction):
            feedback.discard()
        feedback.settle(accepted)
        yield feedback
        path.parent.mkdir(parents=True, exist_ok=True)
        feedback.save(path)

    def _load(self, path: Path, identity: ResidualIdentity, manifest: Manifest) -> ErrorFeedback:
        if not path.exists():
            self._prune()
            return ErrorFeedback(identity, manifest)
        try:
            return ErrorFeedback.load(path, identity, manifest)
        except FedftError as error:
            print(f"{error}; beginning with an empty residual", file=sys.stderr)
            return ErrorFeedback(identity, manifest)

    def _path(self, run_id: str, client: str) -> Path:
        return self._folder / checked_name(run_id) / f"{checked_name(client)}.safetensors"

    def _prune(self) -> None:
        if not self._folder.exists():
            return
        runs = sorted(self._folder.iterdir(), key=lambda path: path.stat().st_mtime, reverse=True)
        for old in runs[_RUNS_KEPT:]:
            shutil.rmtree(old, ignore_errors=True)


def _repeated(pending: Pending, instruction: Instruction) -> bool:
    """Whether training starts once more from where the pending update started."""
    same_state = pending.state == instruction.model.global_state_digest
    return pending.round == instruction.round.round or same_state


def _accepted(instruction: Instruction) -> Collection[Pending]:
    return [Pending(a.round, a.update_seq) for a in instruction.acknowledgements if a.accepted]
