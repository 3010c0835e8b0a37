"""Keys, masks and sealed shares: separated contexts, exact streams, nothing opens elsewhere."""

from __future__ import annotations

import hashlib
import itertools

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from fedft.errors import FedftError
from fedft.secagg.binding import bind
from fedft.secagg.keys import agree, commitment, mask_private, pair_mask_key, sealing_key, self_mask_key
from fedft.secagg.masks import add_mask
from fedft.secagg.packing import Packing
from fedft.secagg.sealing import TAG_BYTES, open_sealed, seal
from fedft.secagg.session import Session
from fedft.secagg.shamir import PRIME, SHARE_BYTES

SECRET, SESSION = b"\x01" * 32, b"\x02" * 32


def test_every_use_has_its_own_key() -> None:
    keys = [
        *(pair_mask_key(SECRET, SESSION, round, 1, other) for round in (0, 1) for other in (2, 3)),
        *(self_mask_key(SECRET, SESSION, round, member) for round in (0, 1) for member in (1, 2)),
        *(commitment(SECRET, SESSION, round, member) for round in (0, 1) for member in (1, 2)),
        *(sealing_key(SECRET, SESSION, a, b) for a, b in itertools.permutations((1, 2, 3), 2)),
        pair_mask_key(SECRET, b"\x03" * 32, 0, 1, 2),
        mask_private(SECRET, SESSION, 0, 1).private_bytes_raw(),
    ]

    assert len(set(keys)) == len(keys)
    assert all(len(key) == 32 for key in keys)


def test_a_pair_mask_has_one_key_at_both_ends() -> None:
    assert pair_mask_key(SECRET, SESSION, 4, 1, 2) == pair_mask_key(SECRET, SESSION, 4, 2, 1)


def test_agreement_is_mutual_and_refuses_what_is_no_key() -> None:
    a, b = X25519PrivateKey.generate(), X25519PrivateKey.generate()

    assert agree(a, b.public_key().public_bytes_raw()) == agree(b, a.public_key().public_bytes_raw())
    for bad in (bytes(32), b"\x01" + bytes(31), bytes(31), b""):
        with pytest.raises(FedftError, match="FEDFT-8808"):
            agree(a, bad)


def test_fields_do_not_run_into_each_other() -> None:
    digests = {bind(b"x", b"ab", b"c"), bind(b"x", b"a", b"bc"), bind(b"xa", b"b", b"c"), bind(b"x", b"abc")}

    assert len(digests) == 4


@pytest.mark.parametrize("count", [1, 7, (1 << 14) - 1, 1 << 14, (1 << 14) + 1, 50_000])
def test_the_mask_is_one_unbroken_stream_of_aes(count: int) -> None:
    encryptor = Cipher(algorithms.AES256(SECRET), modes.CTR(bytes(16))).encryptor()
    expected = np.frombuffer(encryptor.update(bytes(8 * count)), dtype="<u8")
    words = np.full(count, 2**64 - 1, dtype=np.uint64)

    add_mask(words, SECRET)
    assert np.array_equal(words, expected - np.uint64(1))
    add_mask(words, SECRET, subtract=True)
    assert (words == 2**64 - 1).all()


def test_sealed_shares_open_for_their_receiver_alone() -> None:
    shares = [0, 1, PRIME - 1, 2**100]
    sealed = seal(shares, SECRET, SESSION, 1, 2)

    assert len(sealed) == 4 * SHARE_BYTES + TAG_BYTES
    assert open_sealed(sealed, 4, SECRET, SESSION, 1, 2) == shares
    assert open_sealed(sealed, 3, SECRET, SESSION, 1, 2) is None
    assert open_sealed(sealed, 4, SECRET, SESSION, 2, 1) is None
    assert open_sealed(sealed, 4, SECRET, b"\x03" * 32, 1, 2) is None
    assert open_sealed(sealed, 4, b"\x09" * 32, SESSION, 1, 2) is None
    assert open_sealed(b"", 4, SECRET, SESSION, 1, 2) is None
    for at in range(0, len(sealed), 17):
        assert (
            open_sealed(sealed[:at] + bytes([sealed[at] ^ 1]) + sealed[at + 1 :], 4, SECRET, SESSION, 1, 2)
            is None
        )


def test_a_share_outside_the_field_is_refused() -> None:
    sealed = seal([PRIME], SECRET, SESSION, 1, 2)

    assert open_sealed(sealed, 1, SECRET, SESSION, 1, 2) is None


def test_known_answers() -> None:
    """Both ends must derive the same bytes, whatever version they run: these never change."""
    words = np.zeros(4, dtype=np.uint64)
    add_mask(words, SECRET)
    members = tuple(bytes([number]) * 32 for number in (1, 2, 3))
    packing = Packing(1000, 2, 10)
    packed = packing.to_bytes(packing.pack(np.arange(1000) % 3))

    assert [
        bind(b"context", b"ab", 7).hex(),
        pair_mask_key(SECRET, SESSION, 5, 2, 1).hex(),
        self_mask_key(SECRET, SESSION, 5, 2).hex(),
        mask_private(SECRET[:16], SESSION, 5, 2).private_bytes_raw().hex(),
        commitment(SECRET, SESSION, 5, 2).hex(),
        sealing_key(SECRET, SESSION, 1, 2).hex(),
        words.astype("<u8").tobytes().hex(),
        Session("run", 3, 2, SESSION, members, 3).digest.hex(),
        hashlib.sha256(packed).hexdigest(),
    ] == [
        "ff830bf237f0b1cb9a5c361e1df1714ceef0727e5bc36e88a43d515eddd02bce",
        "4d8acda339b83f2cea3f0c9457177f40ef169d75f32d2894cfd3da6f15f3eda8",
        "4ba10ab9eace12d160e82a6e84e7bffff5db8be4bd2fc7752f253c1021c08b61",
        "1d26144e5de5c011b0a464113024284ae33968571b431b088cd0136628898df2",
        "cfdf6b770fcec3a2869bde1dfa6e69a232acb509b6e5485a10e5d8c4af5fe337",
        "e413695dd051623188b8ed362519c6ae84df16f5a3a1722131e54f5914fe4073",
        "7298caa565031eadc6ce23d23ea66378aea8ae8944b639cd082adec4fed32207",
        "6624e1061a45a3b6daefa3ca9c807ead81ff57e125d16ff14290da65a978ac59",
        "cd3dc7dce100f3c903c8693a5b01f0e72f5488473105672d1fabfc8e45b00a04",
    ]
