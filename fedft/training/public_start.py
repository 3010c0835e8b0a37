"""What public records teach before the first round; it costs no privacy."""

from __future__ import annotations

from fedft.training import seeds
from fedft.training.iterate_mean import IterateMean
from fedft.training.model_runtime import ModelRuntime
from fedft.training.schedule import local_steps


def train_on_public(runtime: ModelRuntime) -> None:
    """Train the attached adapters and the head on the public records, to the mean of the later iterates.

    A head that pooled states go to is then fitted to them again, center included: the body has moved.
    """
    config, samples = runtime.config, runtime.data.public()
    head, matrices = runtime.trainable()
    mean = IterateMean([*matrices, *head], local_steps(config.public, len(samples)) // 2)
    random = seeds.generator(config.seed, "public training")
    runtime.fit(samples, section=config.public, generator=random, mean=mean)
    mean.write()
    if config.adapter.train_head:
        runtime.start_from_public()
