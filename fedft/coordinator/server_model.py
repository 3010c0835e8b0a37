"""What the server knows of the model: base, frame, manifest, and the state that rounds change."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from fedft.adapters import Frames
from fedft.config import RunConfig
from fedft.config.load import to_json
from fedft.store import RunStore
from fedft.tensors import Arrays
from fedft.training.model_runtime import ModelRuntime
from fedft.wire import Setup
from fedft.wire.setups import setup_digest


@dataclass(frozen=True)
class ServerModel:
    """The server's own copy of the model, adapters attached, and the setup that clients need.

    ``setup`` carries the frame unless clients can recompute it bit for bit; what it carries is counted
    in the run's bytes.
    """

    runtime: ModelRuntime
    frame_digest: str
    setup: Setup
    initial_state: Arrays

    @property
    def setup_digest(self) -> str:
        """SHA-256 over the setup's parts; a client that holds it is not sent it again."""
        return setup_digest(self.setup)


def prepare_model(
    config: RunConfig,
    store: RunStore,
    frame_digest: str = "",
    build: Callable[[ModelRuntime], Frames] = ModelRuntime.build_frames,
) -> ServerModel:
    """Load the base model and build its frame, or read the frame that the run has used so far.

    Args:
        config: the run's configuration.
        store: keeps the frame under its digest.
        frame_digest: of the run to resume; empty for a new run.
        build: makes a new run's frame.

    """
    runtime = ModelRuntime(config)
    if frame_digest:
        frames = runtime.method.read_frames(store.read_frame(frame_digest))
        frames.require_digest(frame_digest)
        runtime.start_from_public()
    else:
        frames = build(runtime)
        store.write_frame(frames.digest(), frames.to_bytes())
    runtime.attach(frames)
    shipped = b"" if runtime.frame_is_reproducible else frames.to_bytes()
    return ServerModel(runtime, frames.digest(), Setup(to_json(config), shipped), runtime.state())
