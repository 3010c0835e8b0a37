"""``fedft doctor``."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from fedft.quant import select
from tests.cli.run import fedft, output_json, words


@pytest.fixture(autouse=True)
def chosen_anew() -> Iterator[None]:
    select.forget()
    yield
    select.forget()


def test_every_fact_is_shown() -> None:
    facts = output_json(fedft("doctor", "--json"))["facts"]
    text = words(fedft("doctor").stdout)

    assert facts["torch"] == torch.__version__
    assert {"CPU kernels", "CUDA kernels", "processor", "compilers"} <= set(facts)
    assert all(name in text for name in facts)


def test_the_reason_is_told() -> None:
    facts = output_json(fedft("doctor", "--json", FEDFT_KERNELS="torch"))["facts"]

    assert facts["CPU kernels"] == "plain torch (FEDFT_KERNELS=torch)"


def test_a_mistake_in_the_environment_is_an_error() -> None:
    result = fedft("doctor", FEDFT_KERNELS="fast")

    assert result.exit_code == 1
    assert "FEDFT-9001" in result.stderr
