"""Trying a run's configuration against what this machine has, before any work starts."""

from __future__ import annotations

from typing import Any

from fedft.config import RunConfig
from fedft.registries import METHODS


def dry_run(config: RunConfig) -> dict[str, Any]:
    """Find the model, read the records that the server needs, and say what is there.

    Raises:
        FedftError: FEDFT-2001 no such model, FEDFT-30xx records that cannot be read or used.

    """
    from fedft.models.sources import resolve_source
    from fedft.training.client_records import load_records_of

    found: dict[str, Any] = {"name": config.name, "model": resolve_source(config.model.source)}
    if config.evaluation.every:
        found["test_records"] = len(load_records_of(config, "test"))
    if METHODS.get(config.method).frame_facts(config).needs == "gradients":
        found["public_records"] = len(load_records_of(config, "public"))
    return found
