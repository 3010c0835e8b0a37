"""Coverage-guided fuzzing of everything that reads bytes from others.

    python -m tests.fuzz.harness -runs=1000000 -rss_limit_mb=1024 found/ tests/wire/golden/v1/

Arguments are libFuzzer's; new inputs go to the first folder, the golden files are the seeds.
"""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["fedft.wire", "fedft.codecs", "fedft.aggregation"]):
    from tests.fuzz.target import check_content, check_envelope


def test_one_input(data: bytes) -> None:
    check_envelope(data)
    check_content(data)


if __name__ == "__main__":
    atheris.Setup(sys.argv, test_one_input)
    atheris.Fuzz()
