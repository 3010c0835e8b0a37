"""The residuals that this machine's clients keep between rounds, on disk."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Collection
from pathlib import Path

from fedft.client.site.folders import checked_name
from fedft.codecs import Codec, CodecContext, Manifest, Shard
from fedft.codecs.error_feedback import ErrorFeedback, Pending, ResidualIdentity
from fedft.errors import FedftError
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

        The residual of a round that the server repeats is the one from before that round, so that a
        resumed run gives the same update again. Of a run that was taken back further, what was left out
        since then belongs to rounds that no longer count: it is dropped.
        """
        model, at = instruction.model, instruction.round
        identity = ResidualIdentity(at.run_id, model.frame_digest, model.manifest_digest)
        path = self._path(at.run_id, client)
        feedback = self._load(path, identity, manifest)
        if feedback.pending is not None and feedback.pending.round > at.round:
            print(
                f"run {at.run_id} is back at round {at.round}; beginning with an empty residual",
                file=sys.stderr,
            )
            feedback = ErrorFeedback(identity, manifest)
        elif feedback.pending is not None and feedback.pending.round == at.round:
            feedback.discard()
        feedback.settle(_accepted(instruction))
        residual = feedback.residual
        shards = feedback.prepare(
            delta,
            codec,
            context,
            round=at.round,
            update_seq=at.round,
            max_norm=instruction.max_update_norm,
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        feedback.save(path)
        return shards, {name: residual[name] + delta[name] for name in delta}

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


def _accepted(instruction: Instruction) -> Collection[Pending]:
    return [Pending(a.round, a.update_seq) for a in instruction.acknowledgements if a.accepted]
