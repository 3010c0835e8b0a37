"""CPU time and bytes of a securely aggregated round, beside Flower's SecAgg+ on the same vectors.

    python benchmarks/secagg.py
    python benchmarks/secagg.py --clients 10 --dropouts 2 --elements 1000000 --rounds 4

CPU time of this process on one thread: of a client the median over the survivors of everything it does in a
session, of the server everything. Keys and shares are for `--rounds` rounds; their cost stands apart from a
round's. Vectors are ternary. Flower's client functions are called as its mod calls them, on the complete
graph, with its masks from numpy's Mersenne Twister under 32-bit seeds; of its server, the unmasking alone is
counted, as the number of masks and secrets that it must restore times the time of one.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import statistics
import time
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from numpy.typing import NDArray

from fedft.secagg.client import Client
from fedft.secagg.encode import encode
from fedft.secagg.identities import Identities
from fedft.secagg.journal import MemoryJournal
from fedft.secagg.key_exchange import KeyExchange
from fedft.secagg.masked_sum import MaskedSum
from fedft.secagg.messages import CohortRequest, Payload
from fedft.secagg.session import Session, smallest_threshold

Result = TypeVar("Result")
LARGEST = 2  # digits 0 to 2: ternary
FIRST_ROUND = 1
FLOWER_MOD_RANGE = 1 << 32


class Meter:
    """CPU seconds and bytes by party and phase."""

    def __init__(self) -> None:
        self.seconds: dict[tuple[str, int], float] = {}
        self.bytes: dict[tuple[str, int], int] = {}

    def run(self, phase: str, party: int, work: Callable[[], Result]) -> Result:
        start = time.process_time()
        result = work()
        spent = time.process_time() - start
        self.seconds[phase, party] = self.seconds.get((phase, party), 0.0) + spent
        return result

    def send(self, phase: str, party: int, message: object) -> None:
        self.bytes[phase, party] = self.bytes.get((phase, party), 0) + len(encode(message))

    def milliseconds(self, phase: str, parties: list[int]) -> float:
        return 1e3 * statistics.median(self.seconds[phase, party] for party in parties)


SERVER = -1


def measure(clients: int, dropouts: int, elements: int, rounds: int) -> dict[str, float]:
    """Run one session and one of its rounds; figures of a round, and of the keys for all rounds."""
    signing = sorted(
        (Ed25519PrivateKey.generate() for _ in range(clients)),
        key=lambda key: key.public_key().public_bytes_raw(),
    )
    members = tuple(key.public_key().public_bytes_raw() for key in signing)
    session = Session("run", FIRST_ROUND, rounds, bytes(32), members, smallest_threshold(clients))
    identities = Identities(frozenset(members))
    parties = [Client(session, key, identities, MemoryJournal()) for key in signing]
    meter = Meter()
    exchange = exchange_keys(parties, session, meter)
    vectors = np.random.default_rng(0).integers(0, LARGEST, (clients, elements), np.uint8, endpoint=True)
    survivors = list(range(dropouts, clients))
    total = one_round(parties, exchange, vectors, survivors, meter)
    if not np.array_equal(total, vectors[survivors].sum(axis=0, dtype=np.int64)):
        raise SystemExit("the sum is not the plain sum")
    upload = meter.bytes["round", survivors[0]]
    words = meter.bytes["words", survivors[0]]
    keys = meter.bytes["keys", survivors[0]]
    return {
        "clients": clients,
        "dropouts": dropouts,
        "elements": elements,
        "rounds_per_key_exchange": rounds,
        "client_round_ms": meter.milliseconds("round", survivors),
        "client_keys_ms": meter.milliseconds("keys", survivors),
        "server_round_ms": meter.milliseconds("round", [SERVER]),
        "server_keys_ms": meter.milliseconds("keys", [SERVER]),
        "bits_per_parameter": 8 * words / elements,
        "limit_bits": float(np.log2(clients * LARGEST + 1) + 0.5),
        "fixed_bytes_per_neighbour": (upload - words + keys / rounds) / (clients - 1),
        "upload_bytes": upload + keys / rounds,
    }


def exchange_keys(parties: list[Client], session: Session, meter: Meter) -> KeyExchange:
    exchange = KeyExchange(session)
    for number, client in enumerate(parties):
        message = meter.run("keys", number, client.advertise)
        meter.send("keys", number, message)
        meter.run("keys", SERVER, lambda n=number, m=message: exchange.take_advertisement(n, m))
    roster = meter.run("keys", SERVER, exchange.close_advertisements)
    for number, client in enumerate(parties):
        shares = meter.run("keys", number, lambda c=client: c.share(roster))
        meter.send("keys", number, shares)
        meter.run("keys", SERVER, lambda n=number, s=shares: exchange.take_shares(n, s))
    meter.run("keys", SERVER, exchange.close_shares)
    for number, client in enumerate(parties):
        delivery = meter.run("keys", SERVER, lambda n=number: exchange.delivery(n))
        meter.run("keys", number, lambda c=client, d=delivery: c.receive(d))
    return exchange


def one_round(
    parties: list[Client],
    exchange: KeyExchange,
    vectors: NDArray[np.uint8],
    survivors: list[int],
    meter: Meter,
) -> NDArray[np.int64]:
    payload = Payload(vectors.shape[1], LARGEST, bytes(32))
    server = meter.run("round", SERVER, lambda: MaskedSum(exchange, FIRST_ROUND, payload))
    for number in survivors:
        client = parties[number]
        masked = meter.run("round", number, lambda c=client, n=number: c.mask(server.request(), vectors[n]))
        meter.send("round", number, masked)
        meter.bytes["words", number] = len(masked.words)
        meter.run("round", SERVER, lambda n=number, m=masked: server.take_masked(n, m))
    request = meter.run("round", SERVER, server.close_masked)
    if isinstance(request, CohortRequest):
        for number in survivors:
            cohort = request
            signed = meter.run("round", number, lambda n=number, r=cohort: parties[n].attest(r))
            meter.send("round", number, signed)
            meter.run("round", SERVER, lambda n=number, s=signed: server.take_attestation(n, s))
        request = meter.run("round", SERVER, server.close_attestations)
    for number in survivors:
        unmask = request
        reply = meter.run("round", number, lambda n=number, r=unmask: parties[n].unmask(r))
        meter.send("round", number, reply)
        meter.run("round", SERVER, lambda n=number, r=reply: server.take_shares(n, r))
    return meter.run("round", SERVER, server.finish).digits


def measure_flower(clients: int, dropouts: int, elements: int) -> dict[str, float] | None:
    """Flower's SecAgg+ on the complete graph; None where it is not installed."""
    try:
        mod: Any = importlib.import_module("flwr.client.mod.secure_aggregation.secaggplus_mod")
        from flwr.common import ndarray_to_bytes, ndarrays_to_parameters
        from flwr.common.secure_aggregation.crypto.shamir import combine_shares
        from flwr.common.secure_aggregation.secaggplus_constants import Key
        from flwr.common.secure_aggregation.secaggplus_utils import pseudo_rand_gen
    except ImportError:
        return None
    states = [mod.SecAggPlusState() for _ in range(clients)]
    settings: dict[str, Any] = {
        Key.SAMPLE_NUMBER: clients,
        Key.SHARE_NUMBER: clients,
        Key.THRESHOLD: smallest_threshold(clients),
        Key.CLIPPING_RANGE: 8.0,
        Key.TARGET_RANGE: 1 << 22,
        Key.MOD_RANGE: FLOWER_MOD_RANGE,
        Key.MAX_WEIGHT: 1000.0,
    }
    for number, state in enumerate(states):
        state.nid = number
    start = time.process_time()
    public = {number: mod._setup(state, dict(settings)) for number, state in enumerate(states)}
    keys_each = (time.process_time() - start) / clients
    keys = {str(n): (p[Key.PUBLIC_KEY_1], p[Key.PUBLIC_KEY_2]) for n, p in public.items()}
    start = time.process_time()
    mod._share_keys(states[0], dict(keys))
    keys_each += time.process_time() - start
    parameters = ndarrays_to_parameters([np.random.default_rng(0).normal(0, 1e-3, elements)])
    start = time.process_time()
    flower_masks(mod, states[0], parameters, clients, elements)
    round_each = time.process_time() - start
    seed = os.urandom(32)
    start = time.process_time()
    mask = pseudo_rand_gen(seed, FLOWER_MOD_RANGE, [(elements,)])[0]
    one_mask = time.process_time() - start
    shares = mod.create_shares(seed, smallest_threshold(clients), clients)[: smallest_threshold(clients)]
    start = time.process_time()
    combine_shares(shares)
    one_secret = time.process_time() - start
    masks = (clients - dropouts) * (1 + dropouts)
    return {
        "client_round_ms": 1e3 * round_each,
        "client_keys_ms": 1e3 * keys_each,
        "server_unmask_ms": 1e3 * (masks * one_mask + clients * one_secret),
        "bits_per_parameter": 8 * len(ndarray_to_bytes(mask)) / elements,
        "mask_seed_bits": 32,
    }


def flower_masks(mod: Any, client: Any, parameters: Any, clients: int, elements: int) -> None:
    """The mod's own masking, then the pairwise masks by the loop that it has for them.

    Without the others' ciphertexts, which only n runs of its key sharing would give: so their decryption is
    not counted.
    """
    client.threshold = 0
    nothing: dict[str, Any] = {mod.Key.CIPHERTEXT_LIST: [], mod.Key.SOURCE_LIST: []}
    mod._collect_masked_vectors(client, nothing, 100, parameters)
    vector = [np.zeros(elements, dtype=np.int64)]
    for other in range(1, clients):
        secret = mod.generate_shared_key(
            mod.bytes_to_private_key(client.sk1),
            mod.bytes_to_public_key(client.public_keys_dict[other][0]),
        )
        mask = mod.pseudo_rand_gen(secret, FLOWER_MOD_RANGE, [(elements,)])
        vector = mod.parameters_subtraction(vector, mask)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--clients", type=int, nargs="*", default=[10, 100])
    parser.add_argument("--dropouts", type=int, nargs="*", default=[2, 20])
    parser.add_argument("--elements", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3, help="the least time of several runs counts")
    args = parser.parse_args()
    for clients, dropouts in zip(args.clients, args.dropouts, strict=True):
        runs = [measure(clients, dropouts, args.elements, args.rounds) for _ in range(args.repeats)]
        print(json.dumps({"fedft": least(runs)}))
        flower = [measure_flower(clients, dropouts, args.elements) for _ in range(args.repeats)]
        print(json.dumps({"flower_secaggplus": least([run for run in flower if run])}))


def least(runs: list[dict[str, float]]) -> dict[str, float]:
    return {name: round(min(run[name] for run in runs), 3) for name in (runs[0] if runs else ())}


if __name__ == "__main__":
    main()
