"""From flat sketches to named arrays and back to frames."""

from __future__ import annotations

import torch

from fedft.config.load import check
from fedft.privacy.mechanisms.sketch import frames_from_sketch
from fedft.training.sketch import _named, sketch_manifest, sketch_plan, sketched_frames

SHAPES = {"b.up": (12, 8), "a.down": (8, 12)}
CONFIG = check(
    {
        "adapter": {"initialiser": "dp-sketch", "rank": 3, "oversampling": 2},
        "privacy": {"mechanism": "example"},
        "rounds": {"weighting": "uniform"},
    }
)


def test_the_names_of_a_sketch_lead_back_to_the_same_frames() -> None:
    plan = sketch_plan(CONFIG, SHAPES)
    flat = torch.randn(plan.dimension, generator=torch.Generator().manual_seed(1))
    frames = sketched_frames(plan, _named(plan, flat), rank=3, scale=2.0)

    for name, (b, a) in frames_from_sketch(plan, flat, 3).items():
        assert torch.equal(frames[name].b, b)
        assert torch.equal(frames[name].a, a)
        assert frames[name].scale == 2.0
        assert not frames[name].r0.any()
    assert sketch_manifest(plan).total_elements == plan.dimension


def test_a_sketch_is_as_wide_as_the_smallest_layer_allows() -> None:
    wide = CONFIG.model_copy(update={"adapter": CONFIG.adapter.model_copy(update={"oversampling": 100})})

    assert sketch_plan(CONFIG, SHAPES).probes["b.up"].right.shape == (8, 5)
    assert sketch_plan(wide, SHAPES).probes["b.up"].right.shape == (8, 8)
