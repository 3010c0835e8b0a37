"""What compression leaves out of an update, kept by the client and added to the next one."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from fedft.codecs.bounded import encode_bounded
from fedft.codecs.checks import squared_norm
from fedft.codecs.interface import Codec, CodecContext
from fedft.codecs.manifest import Manifest
from fedft.codecs.spec import Shard
from fedft.codecs.update import decode_flat
from fedft.errors import Code, FedftError
from fedft.files import write_atomically
from fedft.tensors import Arrays

_FORMAT = "fedft residual 1"
Coded = TypeVar("Coded")


@dataclass(frozen=True)
class ResidualIdentity:
    """What a residual belongs to; with another run or frame its coordinates mean something else."""

    run_id: str
    frame_digest: str
    manifest_digest: str


@dataclass(frozen=True)
class Pending:
    """An update that was sent and not yet acknowledged; ``state`` is the digest of what it changes."""

    round: int
    update_seq: int
    state: str = field(default="", compare=False)


class ErrorFeedback:
    """The residual of one client in one run (EF-SGD, arXiv 1901.09847, algorithm 2, with the client's delta).

    ``prepare`` adds the residual to a delta and codes the sum; what the code leaves out is the next
    residual, but only once the server has accepted the update (``commit``). If the server did not, the
    whole sum is the next residual (``abort``), so nothing is lost. If the same round is trained again from
    the same state, the attempt must be forgotten (``discard``), or its delta would count twice.
    ``settle`` chooses between the first two. Everything up to the last ``save`` survives a kill.

    Args:
        identity: run, frame and manifest.
        manifest: names and shapes of the exchanged tensors.

    """

    def __init__(self, identity: ResidualIdentity, manifest: Manifest) -> None:
        if identity.manifest_digest != manifest.digest():
            raise FedftError(Code.RESIDUAL_MISMATCH, "the residual's identity names another manifest")
        self.identity = identity
        self.pending: Pending | None = None
        self._manifest = manifest
        self._residual = np.zeros(manifest.total_elements, dtype=np.float32)
        self._corrected = self._residual
        self._remainder = self._residual

    @property
    def residual(self) -> dict[str, NDArray[np.float32]]:
        """A copy of the residual, without what is pending."""
        return self._manifest.unflatten(self._residual.copy())

    def prepare(
        self,
        delta: Arrays,
        codec: Codec,
        context: CodecContext,
        *,
        round: int,
        update_seq: int,
        max_norm: float = 0.0,
    ) -> tuple[Shard, ...]:
        """Code ``residual + delta`` and hold the outcome as pending; nothing changes when this raises.

        What is decoded has an L2 norm of at most ``max_norm`` (0: any); the rest stays in the residual.

        Raises:
            FedftError: FEDFT-4018 when the code is no contraction, FEDFT-4020 when an update is pending
                already, FEDFT-4015, FEDFT-4016 and FEDFT-4023 as the codec does.

        """

        def code(corrected: NDArray[np.float32]) -> tuple[tuple[Shard, ...], NDArray[np.float32]]:
            whole, keeping = self._manifest.unflatten(corrected), replace(context, error_feedback=True)
            shards = tuple(encode_bounded(whole, codec, self._manifest, keeping, max_norm))
            remainder = corrected - decode_flat(shards, self._manifest, context)
            _require_contraction(corrected, remainder, codec)
            return shards, remainder

        return self.hold(delta, code, Pending(round, update_seq))

    def hold(
        self,
        delta: Arrays,
        code: Callable[[NDArray[np.float32]], tuple[Coded, NDArray[np.float32]]],
        pending: Pending,
    ) -> Coded:
        """Code ``residual + delta`` with a function of the flat sum and hold the outcome as pending.

        Args:
            delta: the change by name.
            code: returns what travels, and what that leaves out of (elements,) float32: a contraction.
            pending: what the update will be acknowledged as.

        Raises:
            FedftError: FEDFT-4020 when an update is pending already, and what the code raises.

        """
        if self.pending is not None:
            raise FedftError(
                Code.PENDING_UPDATE, f"the update of round {self.pending.round} is not settled yet"
            )
        corrected = self._manifest.flatten(delta)
        corrected += self._residual
        coded, remainder = code(corrected)
        self._corrected, self._remainder, self.pending = corrected, remainder, pending
        return coded

    def settle(self, accepted_updates: Collection[Pending]) -> bool:
        """Commit the pending update if it is among those that the server has accepted, else abort it.

        Returns whether it was committed; without a pending update nothing happens.
        """
        if self.pending is None:
            return False
        accepted = self.pending in accepted_updates
        self.commit() if accepted else self.abort()
        return accepted

    def commit(self) -> None:
        """The server has the update; the residual is what it left out. Raises FEDFT-4020 without one."""
        self._close(self._remainder)

    def abort(self) -> None:
        """The server has not got the update; all of it goes back into the residual."""
        self._close(self._corrected)

    def discard(self) -> None:
        """The round is trained again from the same state; the residual is as before ``prepare``."""
        self._close(self._residual)

    def save(self, path: Path) -> None:
        """Write everything to a safetensors file, atomically and durably."""
        vectors = {"residual": self._residual}
        if self.pending is not None:
            vectors |= {"corrected": self._corrected, "remainder": self._remainder}
        pending = None if self.pending is None else asdict(self.pending)
        facts = {"format": _FORMAT, "identity": asdict(self.identity), "pending": pending}
        write_atomically(path, save(vectors, {"fedft": json.dumps(facts)}))

    @classmethod
    def load(cls, path: Path, identity: ResidualIdentity, manifest: Manifest) -> ErrorFeedback:
        """Read what ``save`` wrote.

        Raises:
            FedftError: FEDFT-4021 when it belongs to another run, frame or manifest (the caller says so
                and begins with an empty residual), FEDFT-4022 when the file is damaged.

        """
        facts, vectors = _read(path)
        if facts["identity"] != asdict(identity):
            theirs = facts["identity"]
            raise FedftError(
                Code.RESIDUAL_MISMATCH,
                f"the residual in {path.name} is of run {theirs.get('run_id')} and frame "
                f"{str(theirs.get('frame_digest'))[:12]}, this is run {identity.run_id} and frame "
                f"{identity.frame_digest[:12]}",
                hint="it is dropped: what compression left out there has no meaning here",
            )
        feedback = cls(identity, manifest)
        expected = {"residual", "corrected", "remainder"} if facts["pending"] else {"residual"}
        if set(vectors) != expected or any(
            vector.dtype != np.float32 or vector.shape != (manifest.total_elements,)
            for vector in vectors.values()
        ):
            raise FedftError(Code.RESIDUAL_DAMAGED, f"{path.name} does not hold the vectors that it should")
        feedback._residual = vectors["residual"]
        if facts["pending"]:
            feedback._corrected, feedback._remainder = vectors["corrected"], vectors["remainder"]
            feedback.pending = Pending(**facts["pending"])
        return feedback

    def _close(self, residual: NDArray[np.float32]) -> None:
        if self.pending is None:
            raise FedftError(Code.PENDING_UPDATE, "no update is pending")
        self._residual = residual
        self._corrected = self._remainder = residual
        self.pending = None


def _require_contraction(
    corrected: NDArray[np.float32], remainder: NDArray[np.float32], codec: Codec
) -> None:
    """Error feedback converges only if ``‖v - C(v)‖ < ‖v‖`` (arXiv 1901.09847, assumption A)."""
    before, after = np.sqrt(squared_norm(corrected)), np.sqrt(squared_norm(remainder))
    if after >= before > 0:
        raise FedftError(
            Code.NOT_A_CONTRACTION,
            f"codec {codec.name} leaves {after:.3g} of an update of norm {before:.3g}; "
            f"error feedback would diverge",
            hint="use a codec with a smaller error, or this one without error feedback",
        )


def _read(path: Path) -> tuple[dict[str, Any], dict[str, NDArray[np.float32]]]:
    try:
        with safe_open(path, framework="np") as file:
            facts = json.loads((file.metadata() or {})["fedft"])
            vectors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if facts["format"] != _FORMAT or not isinstance(facts["identity"], dict):
            raise KeyError("format")
        return facts, vectors
    except (SafetensorError, KeyError, ValueError, TypeError) as error:
        raise FedftError(
            Code.RESIDUAL_DAMAGED,
            f"{path.name} is not a residual: {error}",
            hint="delete it; the client goes on with an empty residual",
        ) from None
