"""Deleting a simulated run, and the runs that a mistake ended before they began."""

from __future__ import annotations

import shutil
from pathlib import Path

from fedft.client.site.folders import checked_name
from fedft.codes import Kind
from fedft.errors import FedftError
from fedft.store import RunStore


def remove_run(store: RunStore, run_id: str) -> None:
    """Delete a run from its store, and the residuals that its simulated clients kept beside it.

    Raises:
        FedftError: FEDFT-6007 a process is carrying the run out.

    """
    store.remove_run(run_id)
    shutil.rmtree(clients_folder(store) / "residuals" / checked_name(run_id), ignore_errors=True)


def discard_if_pointless(store: RunStore, run_id: str, error: FedftError) -> None:
    """Delete a run without a committed round whose error resuming it would meet again."""
    if error.code.kind in (Kind.FINAL, Kind.USAGE) and store.last_round(run_id) is None:
        remove_run(store, run_id)


def clients_folder(store: RunStore) -> Path:
    """Return where the simulated clients of a store's runs keep their files."""
    return store.folder.absolute() / "clients"
