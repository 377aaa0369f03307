"""How far a job is, from counts. Pure, but for the clock that is passed in.

Each stage has its share of the whole; encoding has by far the largest, since it takes 62 to 96 % of the
time. Within a stage the percentage follows what is done of what is known to be there. The estimate is
the measured pace of the encoder on what remains to be encoded, and is not given before there is one.
"""

from __future__ import annotations

from typing import Final

import msgspec

from pharos_contracts.jobs.v1 import Stage

SHARES: Final[dict[Stage, tuple[float, float]]] = {
    Stage.ACCESS: (0.0, 1.0),
    Stage.FETCH: (1.0, 6.0),
    Stage.DISCOVER: (6.0, 7.0),
    Stage.PARSE: (7.0, 13.0),
    Stage.CHUNK: (13.0, 14.0),
    Stage.LINK: (14.0, 15.0),
    Stage.TRAIN: (15.0, 20.0),
    Stage.STORE: (20.0, 24.0),
    Stage.ENCODE: (24.0, 98.0),
    Stage.PUBLISH: (98.0, 100.0),
}
PACE_SECONDS_MIN: Final = 1.0


class Position(msgspec.Struct, frozen=True, kw_only=True):
    """Where a job is. ``percent`` never falls; ``eta_seconds`` is None until there is a pace."""

    stage: Stage
    done: int
    total: int
    percent: float
    eta_seconds: float | None = None
    current_file: str | None = None
    detail: str | None = None


class Gauge:
    """The positions of one attempt; *percent* is how far it was when another worker let go of it."""

    def __init__(self, percent: float = 0.0) -> None:
        self._percent = percent
        self._encode_began: tuple[float, int] | None = None

    def read(
        self,
        stage: Stage,
        done: int,
        total: int,
        *,
        at: float,
        current_file: str | None = None,
        detail: str | None = None,
    ) -> Position:
        """The position at the monotonic time *at*, in seconds; *total* 0 is a stage without a count."""
        low, high = SHARES[stage]
        fraction = min(1.0, done / total) if total > 0 else 0.0
        self._percent = max(self._percent, low + (high - low) * fraction)
        return Position(
            stage=stage,
            done=done,
            total=total,
            percent=round(self._percent, 1),
            eta_seconds=self._eta(done, total, at) if stage is Stage.ENCODE else None,
            current_file=current_file,
            detail=detail,
        )

    def _eta(self, done: int, total: int, at: float) -> float | None:
        if self._encode_began is None:
            self._encode_began = (at, done)
        began, already = self._encode_began
        elapsed, encoded = at - began, done - already
        if elapsed < PACE_SECONDS_MIN or encoded <= 0:
            return None
        return round(elapsed / encoded * max(0, total - done), 1)
