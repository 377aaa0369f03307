"""How long each stage of a job took, and the end of one that takes longer than it may."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import anyio
from anyio import from_thread

from pharos_contracts.jobs.v1 import Stage
from pharos_embedder.stages import StageTimedOut


class StageClock:
    """The stages of one job, one at a time. *limits*: seconds, of all the times that a stage is entered."""

    def __init__(self, limits: Mapping[Stage, float]) -> None:
        self._limits = limits
        self._seconds: dict[Stage, float] = {}
        self._scope = anyio.CancelScope()
        self._stage = Stage.FETCH
        self._since = 0.0
        self._over: Stage | None = None

    @property
    def seconds(self) -> dict[str, float]:
        """How long each stage took that was entered, by its name."""
        return {stage.value: round(taken, 3) for stage, taken in self._seconds.items()}

    @contextmanager
    def __call__(self, stage: Stage) -> Iterator[None]:
        """While the block lasts it is *stage*. Cancels the block where the stage takes too long, and raises
        StageTimedOut then.
        """
        with anyio.CancelScope() as self._scope:
            self._begin(stage)
            try:
                yield
            finally:
                self._end()
        if self._scope.cancelled_caught:
            over = self._over or self._stage
            raise StageTimedOut(over, self._limits[over])

    @contextmanager
    def elsewhere(self, stage: Stage) -> Iterator[None]:
        """In a thread of the stage that was entered: while the block lasts it waits for *stage*, whose time
        and whose limit that is.
        """
        before = self._stage
        from_thread.run_sync(self._change, stage)
        try:
            yield
        finally:
            from_thread.run_sync(self._change, before)

    def _change(self, stage: Stage) -> None:
        self._end()
        self._begin(stage)

    def _begin(self, stage: Stage) -> None:
        self._stage, self._since = stage, time.perf_counter()
        left = self._limits[stage] - self._seconds.setdefault(stage, 0.0)
        self._scope.deadline = anyio.current_time() + left

    def _end(self) -> None:
        self._seconds[self._stage] += time.perf_counter() - self._since
        if self._scope.cancel_called and self._over is None:
            self._over = self._stage
