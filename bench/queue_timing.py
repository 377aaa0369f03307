"""Many durations as the few numbers that are told of them. Pure, and nothing but the standard library."""

from __future__ import annotations

import math
from collections.abc import Sequence


def percentile(seconds: Sequence[float], share: float) -> float:
    """The smallest of *seconds* that *share* of them do not exceed (nearest rank)."""
    ranked = sorted(seconds)
    return ranked[max(0, math.ceil(len(ranked) * share) - 1)]


def summary(seconds: Sequence[float]) -> dict[str, float]:
    """p50, p95 and p99 in milliseconds, and how many there were."""
    found: dict[str, float] = {
        f"p{share}_ms": round(percentile(seconds, share / 100) * 1000, 3) for share in (50, 95, 99)
    }
    return {**found, "count": len(seconds)}


def rate(count: int, seconds: float) -> float:
    """How many a second, to one decimal."""
    return round(count / seconds, 1)
