"""The versions of the run store's file, each as what leads to it from the one before."""

from __future__ import annotations

import sqlite3

from fedft.errors import Code
from fedft.sqlite import Schema

_TABLES = (
    """
    CREATE TABLE runs (
        id VARCHAR NOT NULL, name VARCHAR NOT NULL, config TEXT NOT NULL,
        status VARCHAR NOT NULL, created_at VARCHAR NOT NULL, version VARCHAR NOT NULL,
        base_digest VARCHAR NOT NULL, frame_digest VARCHAR NOT NULL,
        manifest_digest VARCHAR NOT NULL, final_digest VARCHAR NOT NULL, error TEXT NOT NULL,
        PRIMARY KEY (id))
    """,
    """
    CREATE TABLE rounds (
        run_id VARCHAR NOT NULL, round INTEGER NOT NULL, state_digest VARCHAR NOT NULL,
        residual_digest VARCHAR NOT NULL, seconds FLOAT NOT NULL, phases JSON NOT NULL,
        committed_at VARCHAR NOT NULL, PRIMARY KEY (run_id, round),
        FOREIGN KEY(run_id) REFERENCES runs (id))
    """,
    """
    CREATE TABLE updates (
        run_id VARCHAR NOT NULL, round INTEGER NOT NULL, client VARCHAR NOT NULL,
        status VARCHAR NOT NULL, code VARCHAR NOT NULL, message TEXT NOT NULL,
        weight INTEGER NOT NULL, num_examples INTEGER NOT NULL, digest VARCHAR NOT NULL,
        bytes_up INTEGER NOT NULL, bytes_down INTEGER NOT NULL, bytes_setup INTEGER NOT NULL,
        seconds FLOAT NOT NULL, metrics JSON NOT NULL, PRIMARY KEY (run_id, round, client),
        FOREIGN KEY(run_id) REFERENCES runs (id))
    """,
    """
    CREATE TABLE evaluations (
        run_id VARCHAR NOT NULL, round INTEGER NOT NULL, scope VARCHAR NOT NULL,
        "group" VARCHAR NOT NULL, num_examples INTEGER NOT NULL, metrics JSON NOT NULL,
        PRIMARY KEY (run_id, round, scope, "group"), FOREIGN KEY(run_id) REFERENCES runs (id))
    """,
    """
    CREATE TABLE deliveries (
        run_id VARCHAR NOT NULL, client VARCHAR NOT NULL, setup_digest VARCHAR NOT NULL,
        PRIMARY KEY (run_id, client, setup_digest), FOREIGN KEY(run_id) REFERENCES runs (id))
    """,
    """
    CREATE TABLE events (
        sequence INTEGER NOT NULL, run_id VARCHAR NOT NULL, time VARCHAR NOT NULL,
        kind VARCHAR NOT NULL, message TEXT NOT NULL, PRIMARY KEY (sequence),
        FOREIGN KEY(run_id) REFERENCES runs (id))
    """,
)
_PRIVACY_OF_ROUNDS = ("ALTER TABLE rounds ADD COLUMN privacy JSON NOT NULL DEFAULT '{}'",)
_NUMBERED_BY_SQLITE = ("DROP TABLE IF EXISTS meta",)

_STATEMENTS = (
    "ALTER TABLE rounds ADD COLUMN next_max_norm FLOAT NOT NULL DEFAULT 0",
    "ALTER TABLE updates ADD COLUMN privacy JSON NOT NULL DEFAULT 'null'",
    """
    UPDATE rounds SET next_max_norm = json_extract(privacy, '$.next_max_norm'), privacy = json_object(
        'mechanism', 'gaussian', 'unit', 'client',
        'noise_multiplier', json_extract(privacy, '$.noise_multiplier'),
        'max_norm', json_extract(privacy, '$.max_norm'),
        'sample_rate', json_extract(privacy, '$.sample_rate'), 'steps', 1,
        'epsilon', json_extract(privacy, '$.epsilon'), 'delta', json_extract(privacy, '$.delta'),
        'accountant', '') WHERE privacy != '{}'
    """,
    "UPDATE rounds SET privacy = 'null' WHERE privacy = '{}'",
    """
    UPDATE updates SET privacy = json_object(
        'mechanism', 'dp-sgd', 'unit', 'example',
        'noise_multiplier', json_extract(metrics, '$."privacy.noise_multiplier"'), 'max_norm', 0.0,
        'sample_rate', json_extract(metrics, '$."privacy.sample_rate"'),
        'steps', CAST(json_extract(metrics, '$."privacy.steps"') AS INTEGER),
        'epsilon', json_extract(metrics, '$."privacy.epsilon"'),
        'delta', json_extract(metrics, '$."privacy.delta"'), 'accountant', '')
        WHERE instr(metrics, '"privacy.epsilon"')
    """,
    """
    UPDATE updates SET metrics = json_remove(metrics, '$."privacy.noise_multiplier"',
        '$."privacy.sample_rate"', '$."privacy.steps"', '$."privacy.epsilon"', '$."privacy.delta"')
        WHERE instr(metrics, '"privacy.epsilon"')
    """,
)
"""Statements as values of their own; what earlier versions did not keep of them is 0 or empty."""

_AVERAGING_ERROR = ("ALTER TABLE rounds ADD COLUMN averaging_error FLOAT",)
_VERDICTS = (
    "ALTER TABLE updates ADD COLUMN kept FLOAT",
    "ALTER TABLE updates ADD COLUMN distance FLOAT",
)
_MASKING = ("ALTER TABLE rounds ADD COLUMN secagg JSON NOT NULL DEFAULT 'null'",)


def _unnumbered(connection: sqlite3.Connection) -> int:
    """Return the version that versions 1 and 2 kept in a table of their own; 0 for a new file."""
    if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'meta'").fetchone():
        return 0
    return int(connection.execute("SELECT schema_version FROM meta").fetchone()[0])


RUN_STORE = Schema(
    "a run store",
    (_TABLES, _PRIVACY_OF_ROUNDS, _NUMBERED_BY_SQLITE, _STATEMENTS, _AVERAGING_ERROR, _VERDICTS, _MASKING),
    unusable=Code.STORE_UNUSABLE,
    unknown=Code.STORE_FORMAT_UNKNOWN,
    unnumbered=_unnumbered,
)
