"""What a site has answered, so that a repeated instruction is never worked on twice."""

from __future__ import annotations

import hashlib
import threading
from dataclasses import replace
from pathlib import Path

from fedft.errors import Code
from fedft.sqlite import Schema, open_sqlite, transaction, translated
from fedft.wire import Instruction, encode_instruction

_ROUNDS_KEPT, _RUNS_KEPT = 4, 4
_TABLES = (
    """
    CREATE TABLE IF NOT EXISTS replies (
        sequence INTEGER PRIMARY KEY, run TEXT NOT NULL, round INTEGER NOT NULL, kind TEXT NOT NULL,
        fingerprint TEXT NOT NULL, reply BLOB NOT NULL, UNIQUE (run, round, kind, fingerprint)) STRICT
    """,
)
SCHEMA = Schema(
    "a journal of replies",
    (_TABLES,),
    unusable=Code.SITE_DISK_UNWRITABLE,
    unknown=Code.SITE_DISK_UNWRITABLE,
)


def instruction_fingerprint(instruction: Instruction) -> str:
    """Name what an instruction asks for, however it is packed; SHA-256 in hex.

    The state is in it by its digest, so that the whole state and the difference to an earlier one are the
    same instruction; setup, deadline and acknowledgements are left out.
    """
    bare = replace(
        instruction,
        setup=None,
        global_state=(),
        delta_base_digest="",
        deadline_seconds=1.0,
        acknowledgements=(),
    )
    return hashlib.sha256(encode_instruction(bare)).hexdigest()


class ReplyJournal:
    """Signed replies by run, round, kind and instruction; durable before they leave the site."""

    def __init__(self, path: Path) -> None:
        self._path, self._lock = path, threading.Lock()
        self._database = open_sqlite(path, SCHEMA)

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def find(self, instruction: Instruction) -> bytes | None:
        """Return the reply that this instruction was answered with, or None."""
        query = "SELECT reply FROM replies WHERE run = ? AND round = ? AND kind = ? AND fingerprint = ?"
        with self._lock, translated(self._path, SCHEMA):
            row = self._database.execute(query, _key(instruction)).fetchone()
        return None if row is None else bytes(row[0])

    def keep(self, instruction: Instruction, reply: bytes) -> None:
        """Write a reply down; the last rounds of the last runs are kept.

        Raises:
            FedftError: FEDFT-7055 when the disk refuses.

        """
        key = _key(instruction)
        with self._lock, translated(self._path, SCHEMA), transaction(self._database) as database:
            insert = "INSERT OR REPLACE INTO replies (run, round, kind, fingerprint, reply)"
            database.execute(f"{insert} VALUES (?, ?, ?, ?, ?)", (*key, reply))
            self._prune(key[0], key[1])

    def _prune(self, run: str, number: int) -> None:
        old = number - _ROUNDS_KEPT
        self._database.execute("DELETE FROM replies WHERE run = ? AND round <= ?", (run, old))
        runs = "SELECT run FROM replies GROUP BY run ORDER BY max(sequence) DESC LIMIT ?"
        self._database.execute(f"DELETE FROM replies WHERE run NOT IN ({runs})", (_RUNS_KEPT,))


def _key(instruction: Instruction) -> tuple[str, int, str, str]:
    at = instruction.round
    return at.run_id, at.round, str(instruction.kind), instruction_fingerprint(instruction)
