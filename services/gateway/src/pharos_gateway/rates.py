"""How much somebody may do in a time: a bucket that tokens flow into. Pure.

A bucket holds at most ``tokens`` and is filled from empty in ``seconds``; each act takes one. So a burst of
``tokens`` is allowed and in the long run ``tokens / seconds`` (RFC 2698 meters traffic like this). Who holds
a lease has taken several tokens at once out of a bucket that others take from as well.
"""

from __future__ import annotations

import math
from ipaddress import IPv6Address, ip_address
from typing import Final

import msgspec

LEASES: Final = 20
MINUTE_SECONDS: Final = 60.0
DAY_SECONDS: Final = 86_400.0
IPV6_PREFIX: Final = 64


class Limit(msgspec.Struct, frozen=True):
    """``tokens`` in ``seconds``; ``name`` is a word for headers and keys."""

    name: str
    tokens: int
    seconds: float

    @property
    def per_second(self) -> float:
        return self.tokens / self.seconds

    @property
    def lease(self) -> int:
        """How many tokens are taken at once: what several gateways together may be wrong by, each."""
        return max(1, self.tokens // LEASES)


class Level(msgspec.Struct, frozen=True):
    """A bucket had ``tokens`` at ``at``, in seconds of some clock. Below 0: more was used than there was."""

    tokens: float
    at: float


class Spent(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one act under ``limit``: ``remaining`` more may follow, all in ``whole_seconds``.

    ``retry_seconds`` is when the next one is allowed, 0 where this one was.
    """

    limit: Limit
    allowed: bool
    remaining: int
    whole_seconds: int
    retry_seconds: int


def tokens_at(limit: Limit, level: Level | None, now: float) -> float:
    """What is in the bucket at *now*; a bucket of which nothing is known is full."""
    if level is None:
        return float(limit.tokens)
    elapsed = max(0.0, now - level.at)  # the clocks of two gateways need not agree
    return min(float(limit.tokens), level.tokens + elapsed * limit.per_second)


def take(limit: Limit, level: Level | None, *, owed: float, wanted: float, now: float) -> tuple[float, Level]:
    """(how much of *wanted* there is, the bucket after that); what is *owed* was used already."""
    left = tokens_at(limit, level, now) - owed
    granted = min(wanted, max(0.0, left))
    return granted, Level(left - granted, now)


def spent(limit: Limit, tokens: float, *, allowed: bool) -> Spent:
    """What to tell of an act that left *tokens*."""
    return Spent(
        limit=limit,
        allowed=allowed,
        remaining=max(0, math.floor(tokens)),
        whole_seconds=max(0, math.ceil((limit.tokens - tokens) / limit.per_second)),
        retry_seconds=0 if allowed else max(1, math.ceil((1 - tokens) / limit.per_second)),
    )


def headers(spent: Spent) -> tuple[tuple[bytes, bytes], ...]:
    """``RateLimit`` and its policy (draft-ietf-httpapi-ratelimit-headers-10), and the three fields of the
    drafts before, which more clients know."""
    limit = spent.limit
    return (
        (b"ratelimit-policy", f'"{limit.name}";q={limit.tokens};w={math.ceil(limit.seconds)}'.encode()),
        (b"ratelimit", f'"{limit.name}";r={spent.remaining};t={spent.whole_seconds}'.encode()),
        (b"ratelimit-limit", str(limit.tokens).encode()),
        (b"ratelimit-remaining", str(spent.remaining).encode()),
        (b"ratelimit-reset", str(spent.whole_seconds).encode()),
    )


def neighbourhood(address: str) -> str:
    """Whom an address stands for: a host, or the /64 that one host has with IPv6."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return f"{IPv6Address(int(parsed) >> (128 - IPV6_PREFIX) << (128 - IPV6_PREFIX))}/{IPV6_PREFIX}"
    return str(parsed)
