"""Contradictions between keys."""

from __future__ import annotations

import pytest

from fedft.config.load import check
from fedft.errors import FedftError


def test_a_frame_that_changes_the_base_needs_one_that_is_not_quantised() -> None:
    check({"adapter": {"initialiser": "pissa"}})

    with pytest.raises(FedftError, match=r"adapter\.initialiser.*nf4 cannot take"):
        check({"adapter": {"initialiser": "pissa"}, "model": {"quant": "nf4"}})


def test_a_task_that_nobody_knows_is_an_error_and_not_another_s_behaviour() -> None:
    with pytest.raises(FedftError, match=r"FEDFT-1003 .*\n.*task.kind: .*'causal-lm' or 'sequence-class"):
        check({"task": {"kind": "regression"}})
