"""How long to wait before a crashed program is started again. Pure."""

from __future__ import annotations

from typing import Final

WAIT_SECONDS_FIRST: Final = 0.2
WAIT_SECONDS_MAX: Final = 10.0
HEALTHY_SECONDS: Final = 30.0


class Backoff:
    """Doubles from 0.2 s to 10 s; a program that ran for half a minute begins anew."""

    def __init__(self) -> None:
        self.failures = 0

    def after(self, ran_seconds: float) -> float:
        """Seconds to wait after a crash of a program that ran for *ran_seconds*."""
        if ran_seconds >= HEALTHY_SECONDS:
            self.failures = 0
        self.failures += 1
        return min(WAIT_SECONDS_MAX, WAIT_SECONDS_FIRST * 2.0 ** min(self.failures - 1, 16))
