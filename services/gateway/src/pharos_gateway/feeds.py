"""What one WebSocket client has asked to see, and what it still has to be sent.

Of each job only the latest matters, so a slow reader costs one message for each job; one that leaves too many
unread is sent away, since the end of a job would be lost if its message were.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from datetime import datetime
from typing import Final

import msgspec

from pharos_contracts.jobs.v1 import Job, Progress
from pharos_contracts.lifecycle import JobState
from pharos_gateway import projects
from pharos_gateway.job_view import current_progress
from pharos_gateway.project_names import PROJECT_ALL
from pharos_gateway.sight import Sight

TOPIC: Final = "github:progress"
PROJECTS_MAX: Final = 100
UNSENT_MAX: Final = 1_000
UNSENT_BYTES_MAX: Final = 256 * 1024
TOLD_MAX: Final = 2_000
TOO_SLOW: Final = (1013, "too slow: come back")
STOPPING: Final = (1001, "closing: come back")

# The clients of this family know a running job by another word here than over HTTP.
STATUS: Final = {
    **projects.STATUS,
    JobState.RUNNING: "in_progress",
    JobState.COMMITTING: "in_progress",
}


class JobData(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """How far a job is, in whole percents."""

    job_id: str
    status: str
    progress: int
    phase: str
    current_file: str | None
    error: str | None


class JobMessage(msgspec.Struct, frozen=True, kw_only=True):
    """``project`` is the name that the client subscribed to; of ``all``, that of the job."""

    type: str = TOPIC
    project: str
    timestamp: datetime
    data: JobData


class FeedClosed(Exception):
    """Nothing more will come; ``code`` and ``reason`` are for the closing frame."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class TooManyProjects(Exception):
    """One socket follows as many projects as it may."""

    def __init__(self) -> None:
        super().__init__(f"One socket may follow {PROJECTS_MAX} projects")


class Feed:
    """The subscriptions of one socket, and its unread messages."""

    def __init__(
        self,
        *,
        now: Callable[[], datetime],
        unsent_max: int = UNSENT_MAX,
        unsent_bytes_max: int = UNSENT_BYTES_MAX,
    ) -> None:
        self._now = now
        self._unsent_max = unsent_max
        self._unsent_bytes_max = unsent_bytes_max
        self._unsent_bytes = 0
        self._projects: dict[str, Sight] = {}
        self._unsent: OrderedDict[tuple[str, str], bytes] = OrderedDict()
        self._told: OrderedDict[str, tuple[int, int]] = OrderedDict()  # job id -> (attempt, percent)
        self._something = asyncio.Event()
        self._farewell: tuple[int, str] | None = None

    def subscribe(self, project: str, sight: Sight) -> None:
        """What *sight* shows is told under the name *project*. TooManyProjects."""
        if project not in self._projects and len(self._projects) >= PROJECTS_MAX:
            raise TooManyProjects
        self._projects[project] = sight

    def unsubscribe(self, project: str) -> None:
        self._projects.pop(project, None)
        for key in [key for key in self._unsent if key[0] == project]:
            self._take(key)

    def happened(self, job: Job) -> None:
        """*job* is in another state."""
        self._offer(job, None)

    def progressed(self, progress: Progress, job: Job | None) -> None:
        """A worker told of *progress*; what nothing else is known of belongs to no project."""
        if job is not None and current_progress(job, progress) is not None:
            self._offer(job, progress)

    def close(self, farewell: tuple[int, str] = STOPPING) -> None:
        """Send the reader away, at once."""
        if self._farewell is None:
            self._farewell = farewell
            self._unsent.clear()
            self._unsent_bytes = 0
        self._something.set()

    async def next(self) -> bytes:
        """The next message; FeedClosed when there is none any more."""
        while True:
            if self._unsent:
                return self._take(next(iter(self._unsent)))
            if self._farewell is not None:
                raise FeedClosed(*self._farewell)
            self._something.clear()
            await self._something.wait()

    def _offer(self, job: Job, progress: Progress | None) -> None:
        names = [name for name, sight in self._projects.items() if sight.job(job)]
        if not names or self._farewell is not None:
            return
        data = JobData(
            job_id=job.job_id,
            status=STATUS[job.state],
            progress=self._percent(job, progress),
            phase=projects.PHASE[progress.stage] if progress else job.state.capitalize(),
            current_file=progress.current_file if progress else None,
            error=job.error,
        )
        for name in names:
            shown = job.project if name == PROJECT_ALL else name
            message = msgspec.json.encode(JobMessage(project=shown, timestamp=self._now(), data=data))
            self._take((name, job.job_id))
            self._unsent[name, job.job_id] = message
            self._unsent_bytes += len(message)
        if len(self._unsent) > self._unsent_max or self._unsent_bytes > self._unsent_bytes_max:
            self.close(TOO_SLOW)
        self._something.set()

    def _take(self, key: tuple[str, str]) -> bytes:
        """The unread message of that project and job, which is unread no more; empty if there is none."""
        message = self._unsent.pop(key, b"")
        self._unsent_bytes -= len(message)
        return message

    def _percent(self, job: Job, progress: Progress | None) -> int:
        """What to say now: never less than was said of the same attempt."""
        attempt = max(job.attempt, progress.attempt if progress else 0)
        percent = projects.percent(job, progress)
        before_attempt, before = self._told.pop(job.job_id, (0, 0))
        if attempt <= before_attempt:
            attempt, percent = before_attempt, max(percent, before)
        self._told[job.job_id] = attempt, percent
        while len(self._told) > TOLD_MAX:
            self._told.popitem(last=False)
        return percent
