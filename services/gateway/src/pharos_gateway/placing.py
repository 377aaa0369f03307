"""Where a job stands, by the word of the scheduler that leads; without one, nobody can say."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import Final

import structlog

from pharos_contracts import rpc
from pharos_contracts.control.v1 import AskPlace, Place
from pharos_contracts.jobs.v1 import Job
from pharos_service.asking import NobodyAnswers, QuestionRefused, ask
from pharos_service.bus import Bus, BusError, FateUnknown

log = structlog.get_logger()

VIEW_SECONDS: Final = 0.3
SILENCE_SECONDS: Final = 1.0


class Places:
    """Asks the scheduler, and leaves it alone for a moment when it did not answer in time."""

    def __init__(self, bus: Bus, *, clock: Callable[[], float] = monotonic) -> None:
        self._bus = bus
        self._clock = clock
        self._silent_until = 0.0

    async def of(self, job: Job, *, seconds: float = VIEW_SECONDS) -> Place | None:
        """The place of *job*; None where no scheduler says so within *seconds*."""
        if self._clock() < self._silent_until:
            return None
        try:
            return await ask(self._bus, rpc.SCHEDULER, AskPlace(job=job), Place, timeout=seconds)
        except NobodyAnswers as error:
            if isinstance(error.__cause__, FateUnknown):
                # One that is frozen would cost every submit this time.
                self._silent_until = self._clock() + SILENCE_SECONDS
            log.debug("place_unknown", job_id=job.job_id, reason=str(error))
        except (BusError, QuestionRefused) as error:
            log.debug("place_unknown", job_id=job.job_id, reason=str(error))
        return None
