"""The tables of the run store as queries see them; ``migrations`` makes them."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from sqlalchemy import (
    JSON,
    Column,
    Dialect,
    Float,
    ForeignKey,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
)

from fedft.statements import PrivacyStatement
from fedft.store.records import SecaggRecord

metadata = MetaData()


class Statement(TypeDecorator[PrivacyStatement | None]):
    """A privacy statement as JSON; ``null`` where nothing is stated."""

    impl = JSON
    cache_ok = True

    def process_bind_param(self, value: PrivacyStatement | None, dialect: Dialect) -> Any:
        """Return what JSON takes."""
        return None if value is None else asdict(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> PrivacyStatement | None:
        """Return the statement."""
        return PrivacyStatement.of(value)


class Masking(TypeDecorator[SecaggRecord | None]):
    """What masking a round took as JSON; ``null`` for a round without."""

    impl = JSON
    cache_ok = True

    def process_bind_param(self, value: SecaggRecord | None, dialect: Dialect) -> Any:
        """Return what JSON takes."""
        return None if value is None else asdict(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> SecaggRecord | None:
        """Return the record."""
        return None if value is None else SecaggRecord(**{**value, "sizes": tuple(value["sizes"])})


runs = Table(
    "runs",
    metadata,
    Column("id", String, primary_key=True),
    Column("name", String, nullable=False),
    Column("config", Text, nullable=False),
    Column("status", String, nullable=False),
    Column("created_at", String, nullable=False),
    Column("version", String, nullable=False),
    Column("base_digest", String, nullable=False, default=""),
    Column("frame_digest", String, nullable=False, default=""),
    Column("manifest_digest", String, nullable=False, default=""),
    Column("final_digest", String, nullable=False, default=""),
    Column("error", Text, nullable=False, default=""),
)

rounds = Table(
    "rounds",
    metadata,
    Column("run_id", ForeignKey("runs.id"), primary_key=True),
    Column("round", Integer, primary_key=True),
    Column("state_digest", String, nullable=False),
    Column("residual_digest", String, nullable=False),
    Column("seconds", Float, nullable=False),
    Column("phases", JSON, nullable=False),
    Column("privacy", Statement, nullable=False),
    Column("next_max_norm", Float, nullable=False),
    Column("averaging_error", Float, nullable=True),
    Column("secagg", Masking, nullable=False),
    Column("committed_at", String, nullable=False),
)

updates = Table(
    "updates",
    metadata,
    Column("run_id", ForeignKey("runs.id"), primary_key=True),
    Column("round", Integer, primary_key=True),
    Column("client", String, primary_key=True),
    Column("status", String, nullable=False),
    Column("code", String, nullable=False),
    Column("message", Text, nullable=False),
    Column("weight", Integer, nullable=False),
    Column("num_examples", Integer, nullable=False),
    Column("digest", String, nullable=False),
    Column("bytes_up", Integer, nullable=False),
    Column("bytes_down", Integer, nullable=False),
    Column("bytes_setup", Integer, nullable=False),
    Column("seconds", Float, nullable=False),
    Column("metrics", JSON, nullable=False),
    Column("privacy", Statement, nullable=False),
    Column("kept", Float, nullable=True),
    Column("distance", Float, nullable=True),
)

evaluations = Table(
    "evaluations",
    metadata,
    Column("run_id", ForeignKey("runs.id"), primary_key=True),
    Column("round", Integer, primary_key=True),
    Column("scope", String, primary_key=True),
    Column("group", String, primary_key=True),
    Column("num_examples", Integer, nullable=False),
    Column("metrics", JSON, nullable=False),
)

deliveries = Table(
    "deliveries",
    metadata,
    Column("run_id", ForeignKey("runs.id"), primary_key=True),
    Column("client", String, primary_key=True),
    Column("setup_digest", String, primary_key=True),
)

events = Table(
    "events",
    metadata,
    Column("sequence", Integer, primary_key=True, autoincrement=True),
    Column("run_id", ForeignKey("runs.id"), nullable=False),
    Column("time", String, nullable=False),
    Column("kind", String, nullable=False),
    Column("message", Text, nullable=False),
)
