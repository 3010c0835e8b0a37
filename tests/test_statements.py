"""A privacy statement stays what it is on its way through JSON and the store."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from fedft.report.spending import EVERY_CLIENT, spending
from fedft.statements import PrivacyMechanism, PrivacyStatement, PrivacyUnit
from fedft.store import RoundRecord, RunStore, UpdateRecord

OF_A_CLIENT = PrivacyStatement(
    PrivacyMechanism.DP_SGD, PrivacyUnit.EXAMPLE, 1.1, 0.5, 0.01, 4, 2.75, 1e-5, "pld 1"
)
OF_THE_SERVER = replace(OF_A_CLIENT, mechanism=PrivacyMechanism.GAUSSIAN, unit=PrivacyUnit.CLIENT, steps=1)


def test_a_statement_comes_back_from_json() -> None:
    assert PrivacyStatement.of(json.loads(json.dumps(asdict(OF_A_CLIENT)))) == OF_A_CLIENT
    assert PrivacyStatement.of(None) is None


def test_an_epsilon_that_json_cannot_hold_is_infinite() -> None:
    infinite = PrivacyStatement.of({**asdict(OF_A_CLIENT), "epsilon": None})
    assert infinite == replace(OF_A_CLIENT, epsilon=math.inf)


@pytest.mark.parametrize("epsilon", [2.75, math.inf])
def test_the_store_returns_what_was_stated(tmp_path: Path, epsilon: float) -> None:
    stated = replace(OF_A_CLIENT, epsilon=epsilon)
    updates = (UpdateRecord("a", "accepted", privacy=stated), UpdateRecord("b", "failed"))
    store = RunStore(tmp_path)
    run = store.create_run("tiny", "{}")
    record = RoundRecord(1, "ab" * 32, updates=updates, privacy=OF_THE_SERVER, next_max_norm=0.25)
    store.commit_round(run.id, record, {"r": np.zeros(1, np.float32)})

    (found,) = store.rounds(run.id)
    assert found.updates == updates
    assert (found.privacy, found.next_max_norm) == (OF_THE_SERVER, 0.25)


def test_spending_is_the_last_statement_of_each() -> None:
    later = replace(OF_A_CLIENT, epsilon=3.5)
    rounds = [
        RoundRecord(1, "", updates=(UpdateRecord("a", "accepted", privacy=OF_A_CLIENT),)),
        RoundRecord(2, "", updates=(UpdateRecord("a", "accepted", privacy=later),), privacy=OF_THE_SERVER),
        RoundRecord(3, "", updates=(UpdateRecord("a", "refused", code="FEDFT-8207"),)),
    ]
    of_a, of_all = spending(rounds)
    assert (of_a.client, of_a.statement, of_a.steps, of_a.rounds, of_a.spent_in) == ("a", later, 8, 2, 3)
    assert (of_all.client, of_all.statement, of_all.steps) == (EVERY_CLIENT, OF_THE_SERVER, 1)
