"""Measured memory."""

from __future__ import annotations

import os
import sys

import pytest
import torch

from fedft.training.memory import MemoryWatch

MIB = 1 << 20


@pytest.mark.skipif(sys.platform != "linux", reason="the resident set is read from /proc")
def test_the_peak_since_the_restart_above_the_start() -> None:
    watch = MemoryWatch("cpu")
    kept = torch.ones(64 * MIB, dtype=torch.uint8)
    large = torch.ones(256 * MIB, dtype=torch.uint8)
    del large
    highest = watch.peak()
    watch.restart()
    after = watch.peak()
    del kept

    assert highest is not None
    assert after is not None
    assert highest >= 310 * MIB
    assert 50 * MIB <= after <= 200 * MIB


def test_nothing_is_claimed_where_it_cannot_be_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    watch = MemoryWatch("cpu")
    watch.restart()

    assert watch.peak() is None
