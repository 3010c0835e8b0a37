"""The identity that a client signs with in secure aggregation, and whose it takes for real."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fedft.client.site.config import SiteConfig
from fedft.client.site.identity import ClientIdentity, simulated_name
from fedft.config.rules import MIN_MEMBERS
from fedft.identity.keys import load_signing_key
from fedft.secagg.identities import Identities


@dataclass(frozen=True)
class SecaggParty:
    """Who takes part here: the signing key, the pinned identities, and the fewest clients of a sum."""

    key: Ed25519PrivateKey
    identities: Identities
    smallest_cohort: int = MIN_MEMBERS


def secagg_party(identity: ClientIdentity) -> SecaggParty:
    """Return a site's own key and pins; a simulated client's are made of the clients' names.

    The simulated keys hide nothing: whoever simulates the clients sees all of their data anyway.

    Raises:
        FedftError: FEDFT-7053 when a site's key cannot be read.

    """
    return _simulated(identity) if identity.site is None else _of_site(identity.site)


def _of_site(site: SiteConfig) -> SecaggParty:
    key = load_signing_key(site.path(site.identity.signing_key))
    peers = frozenset(bytes.fromhex(peer) for peer in site.secagg.peers.values())
    return SecaggParty(key, Identities(peers | {_public(key)}), site.secagg.smallest_cohort)


def _simulated(identity: ClientIdentity) -> SecaggParty:
    keys = [_simulated_key(simulated_name(part)) for part in range(identity.partitions)]
    return SecaggParty(keys[identity.partition], Identities(frozenset(map(_public, keys))))


def _simulated_key(name: str) -> Ed25519PrivateKey:
    seed = hashlib.sha256(b"fedft simulated identity\0" + name.encode()).digest()
    return Ed25519PrivateKey.from_private_bytes(seed)


def _public(key: Ed25519PrivateKey) -> bytes:
    return key.public_key().public_bytes_raw()
