"""One configuration's model in memory: base, adapters, task and data."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fedft.adapters import AdapterHandle, Frames, SampleGradients, attach, resolve_targets
from fedft.adapters.frozen import shape_of
from fedft.codecs import Manifest, state_digest
from fedft.config import RunConfig
from fedft.config.rules import reads_public
from fedft.config.schema import TrainingSection
from fedft.errors import Code, FedftError
from fedft.methods import Method
from fedft.models.digest import tokenizer_digest
from fedft.models.load import BaseModel, load_base
from fedft.models.pooled import PooledClassifier, PooledHead
from fedft.privacy.models.interface import privacy_model
from fedft.registries import METHODS
from fedft.tensors import Arrays
from fedft.training.features import FeatureCache, labels_of, pooled_features, start_head
from fedft.training.iterate_mean import IterateMean
from fedft.training.loop import TrainReport, train_local
from fedft.training.memory import MemoryWatch
from fedft.training.metrics import Metrics
from fedft.training.run_data import RunData
from fedft.training.task import Task, make_task, to_device


class ModelRuntime:
    """A base model with adapters, loaded once and used for many rounds and clients.

    Everything it computes is a function of the configuration, the state and the arguments: torch runs
    with ``simulation.threads`` threads and the global random state is never used.
    """

    def __init__(self, config: RunConfig) -> None:
        torch.set_num_threads(config.simulation.threads)
        self.config = config
        self.method: Method = METHODS.get(config.method)
        self.memory = MemoryWatch(config.model.device)
        self.base: BaseModel = load_base(config.model, config.task, config.seed)
        self.task: Task[Any] = make_task(config, self.base.tokenizer)
        self._handle: AdapterHandle | None = None
        self._frame_digest = ""
        self._features = FeatureCache()
        self.data = RunData(config, self.task, self.base)

    # -- model ---------------------------------------------------------------------------------------

    @property
    def base_digest(self) -> str:
        """SHA-256 of the base weights without the head."""
        return self.base.digest

    @cached_property
    def tokenizer_digest(self) -> str:
        """SHA-256 of the rules by which text becomes tokens."""
        return tokenizer_digest(self.base.tokenizer)

    @property
    def frame_is_reproducible(self) -> bool:
        """Whether every machine computes the same frame bit for bit, so that it need not be shipped."""
        return self.method.frame_facts(self.config).reproducible

    @property
    def adapters(self) -> AdapterHandle:
        """The attached adapters; FEDFT-2115 before ``attach``."""
        if self._handle is None:
            raise FedftError(Code.ATTACHMENT_STATE, "no adapters are attached to the model")
        return self._handle

    @property
    def manifest(self) -> Manifest:
        """Names and shapes of what is exchanged."""
        return Manifest.of(self.adapters.named_trainable_parameters())

    def target_shapes(self) -> dict[str, tuple[int, int]]:
        """Return (out, in) of every layer to be adapted; the model is left without adapters."""
        self._detach()
        return {name: shape_of(self.base.model.get_submodule(name)) for name in self._targets()}

    def build_frames(self) -> Frames:
        """Make the run's frames from the configuration; the model is left without adapters.

        Raises:
            FedftError: FEDFT-2106 for a frame that the clients make; what building raises.

        """
        self._detach()
        self.start_from_public()
        return self.method.build_frames(self.base.model, self._targets(), self.config, self._public_gradients)

    def start_from_public(self) -> None:
        """Fit a pooled head to the public records, where a run's start is made of them.

        A head at zero hands no gradient on; what public records teach it costs no privacy.
        """
        model = self.base.model
        if isinstance(model, PooledClassifier) and reads_public(self.config):
            samples = self.data.public()
            pooled = pooled_features(model, self.task, samples, self.config.evaluation.batch_size)
            start_head(model.head, pooled, labels_of(samples))

    def attach(self, frames: Frames) -> None:
        """Put adapters on the model, the head's parameters among them if they are trained."""
        self._detach()
        head = self.base.head if self.config.adapter.train_head else ()
        self._handle = attach(self.base.model, frames, extra_trainable=head)
        self._frame_digest = frames.digest()

    def attach_once(self, frame: bytes, digest: str) -> None:
        """Attach the run's frame unless it is attached already; an empty one is computed here.

        Raises:
            FedftError: FEDFT-2103 when the frame has another digest than the run's.

        """
        if self._frame_digest == digest:
            return
        frames = self.method.read_frames(frame) if frame else self.build_frames()
        frames.require_digest(digest)
        self.attach(frames)

    def state(self) -> Arrays:
        """Return a copy of what is exchanged, the head included, float32."""
        return {name: value.numpy() for name, value in self.adapters.state().items()}

    def base_state(self) -> Arrays:
        """Return the state in which the model computes exactly what the base does."""
        plain = {name: value.numpy() for name, value in self.adapters.frames.base_state().items()}
        return self.state() | plain

    def load(self, state: Arrays) -> None:
        """Set what is exchanged."""
        self.adapters.load({name: torch.from_numpy(np.ascontiguousarray(v)) for name, v in state.items()})

    # -- training ------------------------------------------------------------------------------------

    def head_data(self, client: int, samples: Sequence[Any]) -> tuple[PooledHead, Tensor, Tensor]:
        """Return the head, a client's pooled states (n, k, d) under the adapters as they stand, and labels.

        ``samples`` are what came of the client's records, the same in every call.

        Raises:
            FedftError: FEDFT-3033 where the model has another head, FEDFT-3031 for a client without samples
                in a run without privacy.

        """
        model = self.pooled_classifier()
        if not samples and not privacy_model(self.config).private:
            raise FedftError(Code.NOTHING_TO_TRAIN, "nothing to train: 0 samples")
        extra = set(self.adapters.extra_names)
        digest = state_digest({name: value for name, value in self.state().items() if name not in extra})
        pooled = self._features.of(
            client,
            digest,
            lambda: pooled_features(model, self.task, samples, self.config.evaluation.batch_size),
        )
        return model.head, pooled, labels_of(samples)

    def pooled_classifier(self) -> PooledClassifier:
        """Return the model, if its head can be trained alone; FEDFT-3033 where it has another head."""
        model = self.base.model
        if not isinstance(model, PooledClassifier):
            raise FedftError(
                Code.HEAD_NOT_POOLED,
                f"the head of this {type(model).__name__} reads no pooled states: it cannot be trained alone",
                hint='set task.pooling to "mean", "first" or "last", or head.rounds to 0',
            )
        return model

    def fit(
        self,
        samples: Sequence[Any],
        *,
        generator: torch.Generator,
        section: TrainingSection | None = None,
        first_step: int = 0,
        total_steps: int = 0,
        head_only: bool = False,
        mean: IterateMean | None = None,
    ) -> TrainReport:
        """Train the adapters (and the head) on samples; see ``train_local``."""
        head, matrices = self.trainable(head_only=head_only)
        return train_local(
            self.base.model,
            self.task,
            samples,
            section or self.config.training,
            adapters=[] if head_only else matrices,
            head=head,
            generator=generator,
            first_step=first_step,
            total_steps=total_steps,
            mean=mean,
        )

    def trainable(self, *, head_only: bool = False) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        """Return the head's parameters and the adapters'; the latter rest if only a head is trained."""
        parameters = self.adapters.named_trainable_parameters()
        extra = self.adapters.extra_names
        head = [parameters[name] for name in extra if name not in self.base.measured]
        matrices = [value for name, value in parameters.items() if name not in extra]
        for name in self.base.measured:
            self.base.model.get_parameter(name).requires_grad_(False)
        for matrix in matrices:
            matrix.requires_grad_(not head_only)
        return head, matrices

    # -- evaluation ----------------------------------------------------------------------------------

    def evaluate(self, samples: Sequence[Any]) -> Metrics:
        """Measure the model as it stands on samples."""
        settings = self.config.evaluation
        return self.task.evaluate(
            self.base.model, samples, batch_size=settings.batch_size, generate=settings.exact_match
        )

    def evaluate_client(self, client: int) -> Metrics:
        """Measure the model as it stands on what the client holds out.

        Raises:
            FedftError: FEDFT-3040 when the client holds nothing out.

        """
        held_out = self.data.of(client).held_out
        if not held_out:
            raise FedftError(
                Code.NO_HOLDOUT, "this client holds no samples out", hint="raise evaluation.holdout"
            )
        return self.evaluate(held_out)

    def _public_gradients(self) -> SampleGradients:
        adapter = self.config.adapter
        samples = self.data.public(adapter.samples)
        size = self.config.evaluation.batch_size
        device = next(self.base.model.parameters()).device
        batches = [
            to_device(self.task.collate(samples[start : start + size]), device)
            for start in range(0, len(samples), size)
        ]
        return SampleGradients(batches, self.task.per_sample_loss, adapter.layers_at_once)

    def count_trainable(self) -> int:
        """Return how many parameters a run of this configuration trains; needs no frame."""
        head = self.base.head if self.config.adapter.train_head else ()
        rank, shapes = self.config.adapter.rank, self.target_shapes().values()
        adapters = sum(self.method.trained_elements(shape, rank) for shape in shapes)
        return adapters + sum(self.base.model.get_parameter(name).numel() for name in head)

    def _targets(self) -> list[str]:
        patterns = self.config.adapter.targets
        return resolve_targets(self.base.model, "auto" if patterns == ("auto",) else list(patterns))

    def _detach(self) -> None:
        if self._handle is not None:
            self._handle.detach()
            self._handle, self._frame_digest = None, ""
