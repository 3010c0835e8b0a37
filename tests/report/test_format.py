from __future__ import annotations

import math

import pytest

from fedft.report.format import clean, duration, metric_change, metric_value, size


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.00 kB"),
        (9_994, "9.99 kB"),
        (65_536, "65.5 kB"),
        (99_960, "100 kB"),
        (999_499, "999 kB"),
        (999_600, "1.00 MB"),
        (5_200_000, "5.20 MB"),
        (3e9, "3.00 GB"),
        (7e15, "7000 TB"),
    ],
)
def test_sizes_have_three_digits(count: float, text: str) -> None:
    assert size(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.00 s"),
        (9.994, "9.99 s"),
        (12.34, "12.3 s"),
        (59.96, "1 min 00 s"),
        (245, "4 min 05 s"),
        (3599.7, "1 h 00 min"),
        (7380, "2 h 03 min"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_metrics_are_written_in_their_unit() -> None:
    assert metric_value("exact_match", 0.3456) == "34.6 %"
    assert metric_value("loss", 0.87654) == "0.8765"
    assert metric_value("loss", 2.44) == "2.440"
    assert metric_value("perplexity", 1234.5) == "1234"
    assert metric_value("loss", None) == "–"
    assert metric_value("loss", math.inf) == "∞"
    assert metric_value("loss", math.nan) == "not a number"
    assert metric_change("accuracy", 0.1, 0.7051) == "+60.5 points"
    assert metric_change("loss", 2.0, 1.5) == "−0.5"
    assert metric_change("loss", None, 1.5) == "–"
    assert metric_change("loss", math.nan, 1.5) == "–"


@pytest.mark.parametrize("text", ["\x1b[31mred", "a\x07b", "\u202etxt", "a\x00b"])
def test_clean_text_cannot_steer_a_terminal(text: str) -> None:
    assert all(char.isprintable() for char in clean(text))


def test_clean_text_stays_on_its_line_and_keeps_letters() -> None:
    assert clean("ünï 漢 a\nb\tc") == "ünï 漢 a b c"
