"""The tables of the run store as queries see them; ``migrations`` makes them."""

from __future__ import annotations

from sqlalchemy import JSON, Column, Float, ForeignKey, Integer, MetaData, String, Table, Text

metadata = MetaData()

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
    Column("privacy", JSON, nullable=False),
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
