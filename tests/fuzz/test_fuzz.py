"""Bounded runs of the fuzzers; the scripts run longer by flag."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedft.codecs import CodecContext, codec_names, make_codec
from tests.fuzz.mutate import GOLDEN, mutants
from tests.fuzz.target import MANIFEST, SEED, check_content, check_envelope, check_shards

ROOT = Path(__file__).resolve().parents[2]
SEEDS = [path.read_bytes() for path in sorted(GOLDEN.glob("*.bin"))]
ACCEPTED_BY_CHANCE = 0.02
"""Share of mutants that may open all the same: their change hits only the unread signature."""


def state() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {t.name: rng.normal(0, 1e-2, t.shape).astype(np.float32) for t in MANIFEST.tensors}


def run_module(*args: str) -> subprocess.CompletedProcess[str]:
    # A child's peak memory begins with that of the process it was forked from, which may be large here; a
    # shell in between makes it the shell's.
    command = ["/bin/sh", "-c", '"$@"; exit $?', "sh", sys.executable, "-m", *args]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)


@given(st.binary(max_size=400))
@settings(max_examples=300, deadline=None)
def test_random_bytes(data: bytes) -> None:
    check_envelope(data)
    check_content(data)


@given(st.sampled_from(codec_names()), st.data())
@settings(max_examples=300, deadline=None)
def test_a_few_changed_bytes_of_a_shard(name: str, data: st.DataObject) -> None:
    context = CodecContext(seed=SEED, generator=np.random.default_rng(0))
    (shard,) = make_codec(name).encode(state(), MANIFEST, context)
    assert check_shards((shard,))
    field = data.draw(st.sampled_from(["blob", "scales"] if shard.scales else ["blob"]))
    content = bytearray(getattr(shard, field))
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    changes: dict[str, Any] = {field: bytes(content)}
    check_shards((dataclasses.replace(shard, **changes),))


def test_the_oracle_notices_an_unchecked_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the comparison switched off the same mutants make the target fail."""
    fake = SimpleNamespace(sha256=lambda data: _AlwaysEqual())
    monkeypatch.setattr("fedft.wire.envelope.hashlib", fake)
    with pytest.raises(AssertionError, match="wrong hash"):
        [check_envelope(data) for data in mutants(SEEDS, 200, seed=1)]


class _AlwaysEqual(bytes):
    def digest(self) -> _AlwaysEqual:
        return self

    def __eq__(self, other: object) -> bool:
        return True

    def __ne__(self, other: object) -> bool:
        return False

    __hash__ = bytes.__hash__


def test_mutated_envelopes_under_a_memory_cap() -> None:
    done = run_module("tests.fuzz.mutate", "--count", "6000", "--seed", "3", "--extra-mib", "64")
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads(done.stdout)
    assert result["mutants"] == 6000
    assert result["accepted_envelopes"] < 6000 * ACCEPTED_BY_CHANCE + 50
    assert result["summed_updates"] > 100, "mutants must reach the accumulator, or the test sees nothing"
    assert result["peak_rss_growth_mib"] < 32


@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="atheris is not installed")
def test_coverage_guided_fuzzing(tmp_path: Path) -> None:
    done = run_module(
        "tests.fuzz.harness", "-runs=4000", "-seed=1", "-rss_limit_mb=1024", str(tmp_path), str(GOLDEN)
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Done 4000 runs" in done.stderr
