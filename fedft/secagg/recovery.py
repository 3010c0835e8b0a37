"""Secrets from shares, checked against what their owner published."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from fedft.errors import Code, FedftError
from fedft.secagg.shamir import combine


def recover(
    shares: Mapping[int, int], threshold: int, dealer: int, is_right: Callable[[bytes], bool]
) -> bytes:
    """Give a dealer's secret.

    A wrong share gives a wrong secret, which ``is_right`` sees; then other holders' shares are tried, so that
    one bad share among more than the threshold does no harm.

    Args:
        shares: holders' numbers to shares.
        threshold: shares needed.
        dealer: whose secret it is, for the message.
        is_right: compares with the public key or the commitment.

    Raises:
        FedftError: FEDFT-8823 when no ``threshold`` consecutive holders' shares give it.

    """
    holders = sorted(shares)
    starts = range(len(holders)) if len(holders) > threshold else range(1)
    for start in starts if len(holders) >= threshold else ():
        chosen = (holders + holders)[start : start + threshold]
        secret = combine([holder + 1 for holder in chosen], [shares[holder] for holder in chosen])
        if secret is not None and is_right(secret):
            return secret
    raise FedftError(
        Code.SECRET_LOST,
        f"{len(holders)} shares do not give client {dealer}'s secret, {threshold} right ones do",
        hint="the client dealt wrong shares, or holders sent wrong ones; the round is lost",
    )
