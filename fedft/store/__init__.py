"""The run store: SQLite for facts, safetensors for arrays, one transaction a round."""

from fedft.store.records import (
    Delivery,
    EvaluationRecord,
    RoundRecord,
    RunRecord,
    SecaggRecord,
    UpdateRecord,
)
from fedft.store.runs import RunStore

__all__ = [
    "Delivery",
    "EvaluationRecord",
    "RoundRecord",
    "RunRecord",
    "RunStore",
    "SecaggRecord",
    "UpdateRecord",
]
