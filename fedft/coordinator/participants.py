"""Who is there: waiting for nodes and asking each who it is."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from flwr.serverapp import Grid

from fedft import clock
from fedft.errors import Code, FedftError

_PAUSE = 0.1


@dataclass(frozen=True)
class Participant:
    """A client that has said hello; ``identity`` is what it signs with in secure aggregation, or empty."""

    client: str
    node_id: int
    num_examples: int
    identity: bytes = b""


Participants = dict[str, Participant]


def wait_for_nodes(
    grid: Grid, wanted: int, *, timeout: float, stopped: Callable[[], bool] = lambda: False
) -> list[int]:
    """Wait until ``wanted`` nodes are connected; return all that are, sorted.

    Raises:
        FedftError: FEDFT-6101 when they are too few after ``timeout`` seconds.
        KeyboardInterrupt: when ``stopped`` says so.

    """
    start = clock.monotonic()
    while True:
        nodes = sorted(grid.get_node_ids())
        if len(nodes) >= wanted:
            return nodes
        if stopped():
            raise KeyboardInterrupt
        if clock.monotonic() - start > timeout:
            raise FedftError(
                Code.TOO_FEW_CLIENTS,
                f"{len(nodes)} of {wanted} clients connected within {timeout:g} s",
                hint="start more clients, or lower rounds.min_clients",
            )
        time.sleep(_PAUSE)
