"""What the server knows of the model: frame, manifest, start, and the base itself where it is needed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import NoReturn

from torch import nn

from fedft.adapters import Frames, resolve_targets
from fedft.adapters.frozen import shape_of
from fedft.codecs import Manifest
from fedft.config import RunConfig
from fedft.errors import Code, FedftError
from fedft.models.skeleton import load_skeleton
from fedft.registries import METHODS, TASKS
from fedft.store import RunRecord, RunStore
from fedft.tensors import Arrays
from fedft.training.model_runtime import ModelRuntime
from fedft.training.public_start import train_on_public
from fedft.wire import Setup
from fedft.wire.setups import setup_digest

Shapes = dict[str, tuple[int, int]]


@dataclass(frozen=True)
class ServerModel:
    """What a run's instructions are about, and the setup that clients need.

    ``setup`` carries the frame unless clients can recompute it bit for bit; what it carries is counted
    in the run's bytes. ``runtime`` is the server's own copy of the model, None where it needs none.
    """

    base_digest: str
    frame_digest: str
    frames: Frames
    setup: Setup
    initial_state: Arrays
    runtime: ModelRuntime | None = None

    @cached_property
    def manifest(self) -> Manifest:
        """Names and shapes of what is exchanged."""
        return Manifest.of(self.initial_state)

    @cached_property
    def setup_digest(self) -> str:
        """SHA-256 over the setup's parts; a client that holds it is not sent it again."""
        return setup_digest(self.setup)

    def require_runtime(self) -> ModelRuntime:
        """Return the server's copy of the model; FEDFT-2115 where it was not loaded."""
        if self.runtime is None:
            raise FedftError(Code.ATTACHMENT_STATE, "the server has not loaded the base model")
        return self.runtime


class ServerBase:
    """The base model as the server has it: loaded where the run needs that, else its layers' shapes.

    It is loaded to evaluate, and for a new run's frame of weights or gradients or the start of a head that is
    trained; not otherwise.

    Args:
        config: of the run.
        new: whether no round of the run is committed, its start among them.
        pinned: the digest that the run's base has, empty while nobody has said it.

    Raises:
        FedftError: FEDFT-2010 when the server's base is not the run's; what loading raises.

    """

    def __init__(self, config: RunConfig, *, new: bool, pinned: str = "") -> None:
        self.config = config
        self.method = METHODS.get(config.method)
        self._skeleton: nn.Module | None = None
        self.runtime: ModelRuntime | None = None
        trains_head = config.adapter.train_head and TASKS.get(config.task.kind).has_head
        reads_base = self.method.frame_facts(config).needs != "nothing" or config.public.trains
        if config.evaluation.every or (new and (reads_base or trains_head)):
            self.runtime = ModelRuntime(config)
        self.digest = pinned if self.runtime is None else self.runtime.base_digest
        if pinned and self.digest != pinned:
            raise FedftError(
                Code.BASE_MODEL_MISMATCH,
                f"base model digest {self.digest[:16]}…, the run's is {pinned[:16]}…",
                hint="the weights at model.source have changed since the run began",
            )

    def target_shapes(self) -> Shapes:
        """Return (out, in) of every layer to be adapted."""
        if self.runtime is not None:
            return self.runtime.target_shapes()
        model = self._layers()
        return {name: shape_of(model.get_submodule(name)) for name in self._targets(model)}

    def build_frames(self) -> Frames:
        """Make a new run's frame; raises as ``Method.build_frames``."""
        if self.runtime is not None:
            return self.runtime.build_frames()
        model = self._layers()
        return self.method.build_frames(model, self._targets(model), self.config, _no_gradients)

    def attach(self, frames: Frames) -> None:
        """Put the run's adapters on the base, where it is loaded."""
        if self.runtime is not None:
            self.runtime.attach(frames)

    def start(self, frames: Frames) -> Arrays:
        """Return the state that training starts from, with what public records teach beforehand."""
        if self.runtime is None:
            return {name: value.numpy() for name, value in frames.base_state().items()}
        if self.config.public.trains:
            train_on_public(self.runtime)
        return self.runtime.state()

    def _layers(self) -> nn.Module:
        if self._skeleton is None:
            self._skeleton = load_skeleton(self.config.model, self.config.task)
        return self._skeleton

    def _targets(self, model: nn.Module) -> list[str]:
        patterns = self.config.adapter.targets
        return resolve_targets(model, "auto" if patterns == ("auto",) else list(patterns))


def prepare_model(
    base: ServerBase, store: RunStore, run: RunRecord, make: Callable[[], Frames]
) -> ServerModel:
    """Return what a run's instructions are about; its base digest may be the sites' to say.

    Args:
        base: of the run.
        store: keeps the frame under its digest, and the state of round 0.
        run: new or interrupted.
        make: makes a new run's frame.

    """
    if run.frame_digest:
        frames = base.method.read_frames(store.read_frame(run.frame_digest))
        frames.require_digest(run.frame_digest)
        if base.runtime is not None:
            base.runtime.start_from_public()
    else:
        frames = make()
        store.write_frame(frames.digest(), frames.to_bytes())
    shipped = b"" if base.method.frame_facts(base.config).reproducible else frames.to_bytes()
    base.attach(frames)
    begun = store.last_round(run.id) is not None
    start = store.state(run.id, 0) if begun else base.start(frames)
    setup = Setup(run.config, shipped)
    runtime = base.runtime if base.config.evaluation.every else None
    return ServerModel(base.digest, frames.digest(), frames, setup, start, runtime)


def _no_gradients() -> NoReturn:
    raise FedftError(Code.ATTACHMENT_STATE, "gradients need a base model that is loaded")
