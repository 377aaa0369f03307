"""Following batches for whoever has a feed of them: while nobody has, it costs nothing.

A batch that is at work and followed has a board: its files, by what history knows of them and by what JOBS
has told since, in order. It is shared by all who follow it, and gone with the last of them. A batch that
waits has none: its tally, in the events of the job, says all there is.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, aclosing, asynccontextmanager
from datetime import datetime
from typing import Any, Final

import msgspec
import structlog

from pharos_contracts.jobs.v1 import AnyEvent, ItemEvent, Job, JobEvent, JobKind, Progress
from pharos_contracts.lifecycle import TERMINAL, JobState
from pharos_contracts.message import UnreadableMessage, decode
from pharos_contracts.streams import JOBS
from pharos_contracts.subjects import batch_item_events, job_events
from pharos_gateway import batches
from pharos_gateway.batch_feeds import BatchFeed
from pharos_gateway.batch_files import Files
from pharos_gateway.batching import Batching
from pharos_gateway.finding import HistoryUnavailable
from pharos_gateway.live import Live
from pharos_gateway.manifests import ManifestGone, Manifests
from pharos_service.bus import Bus, BusError, Stored
from pharos_service.ending import end
from pharos_service.pull import CaughtUp, tail

log = structlog.get_logger()

BOARDS_MAX: Final = 16
SNAPSHOTS_MAX: Final = 50
ENDED_MAX: Final = 1_000
RETRY_SECONDS: Final = 1.0
AT_WORK: Final = frozenset({JobState.RUNNING, JobState.PAUSED, JobState.RETRYING})
OPEN: Final = tuple(state.value for state in JobState if state not in TERMINAL)


class _Board:
    """A batch that is followed. ``files`` is None until they are known."""

    def __init__(self, job: Job, told_to: int, task: asyncio.Task[None], *, news: bool) -> None:
        self.job = job
        self.told_to = told_to  # a sequence on JOBS; *job* is as of then, or later
        self.news = news  # whoever follows it knew of what happened before
        self.task = task
        self.files: Files | None = None


class Boards:
    """The boards, and the feeds that they fill. One object serves every socket of a process."""

    def __init__(
        self,
        bus: Bus,
        live: Live,
        batching: Batching,
        manifests: Manifests,
        *,
        now: Callable[[], datetime],
        boards_max: int = BOARDS_MAX,
    ) -> None:
        self._bus = bus
        self._live = live
        self._batching = batching
        self._manifests = manifests
        self._now = now
        self._boards_max = boards_max
        self._feeds: set[BatchFeed] = set()
        self._boards: dict[str, _Board] = {}
        self._ended: OrderedDict[str, int] = OrderedDict()  # by id, the last of it that was told
        self._following = ExitStack()

    @asynccontextmanager
    async def feeding(self, feed: BatchFeed, owner: str, job: Job | None) -> AsyncIterator[None]:
        """*feed* is told of what is going on, and of what happens while the block lasts.

        It follows *job*, or all batches of *owner*. HistoryUnavailable, and errors of the bus.
        """
        known = [job] if job is not None else await self._open_batches(feed, owner)
        if not self._feeds:
            self._following.enter_context(self._live.heard_by(self))
        self._feeds.add(feed)
        try:
            for each in known:
                self._greet(feed, self._live.recent(each.job_id) or each)
            yield
        finally:
            self._feeds.discard(feed)
            await self._leave()

    async def _open_batches(self, feed: BatchFeed, owner: str) -> list[Job]:
        page = await self._batching.page(feed.sight, owner, OPEN, limit=SNAPSHOTS_MAX)
        found = {view.job.job_id: view.job for view in page.jobs}
        # History may be a moment behind what this process has seen, and knows what that has forgotten.
        found.update((job.job_id, job) for job in self._live.recent_jobs())
        return [job for job in found.values() if job.state not in TERMINAL and feed.wants(job)]

    def _greet(self, feed: BatchFeed, job: Job) -> None:
        """Tell *feed* where *job* is, and follow it from there."""
        board = self._boards.get(job.job_id)
        if board is None and job.state in AT_WORK:
            board = self._follow(job, news=False)
        if board is None:
            feed.tell_state(job.job_id, self._job_message(job, None))
        elif board.files is not None:
            feed.tell_state(job.job_id, self._job_message(board.files.job, board.files))
        # Else it is told as soon as the files are known.

    async def _leave(self) -> None:
        """Go on with the boards that somebody still follows, and with no others."""
        gone = [
            board for board in self._boards.values() if not any(feed.wants(board.job) for feed in self._feeds)
        ]
        for board in gone:
            self._drop(board)
        if not self._feeds:
            self._following.close()
            self._following = ExitStack()
        await end(*(board.task for board in gone))

    def _drop(self, board: _Board) -> None:
        if self._boards.get(board.job.job_id) is board:
            del self._boards[board.job.job_id]

    # What the live tails tell

    def happened(self, job: Job) -> None:
        """*job* is in another state. What has a board hears of it there, in order with its files."""
        if job.kind is not JobKind.BATCH or job.job_id in self._boards or not self._interested(job):
            return
        if self._live.sequence <= self._ended.get(job.job_id, 0):
            return
        if job.state not in AT_WORK:
            self._tell_state(job, None)
        elif self._follow(job, news=True) is None:
            self._tell_counters(job, None)

    def progressed(self, progress: Progress, _: Job | None) -> None:
        """A worker told of *progress*."""
        board = self._boards.get(progress.job_id)
        if board is not None and board.files is not None:
            item = board.files.progressed(progress)
            if item is not None:
                self._tell_file(board.files, item)

    def close(self) -> None:
        for feed in self._feeds:
            feed.close()

    # Boards

    def _follow(self, job: Job, *, news: bool) -> _Board | None:
        """A board for *job*; None where there are as many as there may be."""
        if len(self._boards) >= self._boards_max:
            log.info("batch_not_followed", job_id=job.job_id, boards=len(self._boards))
            return None
        task = asyncio.create_task(self._run(job), name=f"batch-{job.job_id}")
        board = self._boards[job.job_id] = _Board(job, self._live.sequence, task, news=news)
        return board

    async def _run(self, job: Job) -> None:
        """Follow *job* until it ends, or until nobody has a feed of it."""
        await asyncio.sleep(0)  # until the board is there
        board = self._boards[job.job_id]
        try:
            while True:
                try:
                    await self._keep(board)
                    return
                except (HistoryUnavailable, BusError) as error:
                    log.info("batch_not_followed", job_id=job.job_id, reason=str(error))
                board.files = None
                self._tell_state(self._live.recent(job.job_id) or board.job, None)
                await asyncio.sleep(RETRY_SECONDS)
                board.told_to, board.news = self._live.sequence, False
        except ManifestGone as error:
            log.warning("batch_not_followed", job_id=job.job_id, reason=str(error))
            self._tell_state(self._live.recent(job.job_id) or board.job, None)
        except Exception:
            log.exception("batch_not_followed", job_id=job.job_id)
        finally:
            self._drop(board)

    async def _keep(self, board: _Board) -> None:
        """What history knows of the files, then what JOBS tells, until the batch has ended."""
        job = board.job
        files = Files(job, await self._manifests.of(job))
        known = await self._batching.recall(job, files)
        subjects = [job_events(job.tenant, job.job_id), batch_item_events(job.tenant, job.job_id)]
        # From where the batch is as it was given here, or else it could have ended unseen.
        after = min(known, board.told_to)
        async with aclosing(tail(self._bus, JOBS, subjects, after=after)) as events:
            async for stored in events:
                if board.files is None and _begins(board, stored):
                    board.files = files
                    self._tell_state(files.job, files)
                if isinstance(stored, CaughtUp):
                    if files.job.state in TERMINAL:
                        return
                    continue
                try:
                    event: Any = decode(stored.data, AnyEvent)
                except UnreadableMessage as error:
                    log.warning("event_unreadable", sequence=stored.sequence, error=error.reason)
                    continue
                told = board.files is not None
                if self._take(files, stored.sequence, event, told=told) and told:
                    self._end(job.job_id, stored.sequence)
                    return

    def _end(self, job_id: str, sequence: int) -> None:
        """The last of a batch was told; the tail of all jobs may be behind that."""
        self._ended[job_id] = sequence
        self._ended.move_to_end(job_id)
        while len(self._ended) > ENDED_MAX:
            self._ended.popitem(last=False)

    def _take(self, files: Files, sequence: int, event: Any, *, told: bool) -> bool:
        """Take *event* to *files* and tell of it, if it is to be *told*; whether the batch ended with it."""
        if isinstance(event, ItemEvent):
            item = files.take(sequence, event)  # type: ignore[arg-type]
            if item is not None and told:
                self._tell_file(files, item)
                if files.status(item).ended:
                    self._tell_counters(files.job, files)
            return False
        assert isinstance(event, JobEvent), "whatever else is on JOBS is of an item"
        before = files.job
        for item in files.become(event.job):
            if told:
                self._tell_file(files, item)
        if told and (before.state is not event.job.state or before.facts_after != event.job.facts_after):
            self._tell_state(files.job, files)
        return event.job.state in TERMINAL

    # Telling

    def _interested(self, job: Job) -> list[BatchFeed]:
        return [feed for feed in self._feeds if feed.wants(job)]

    def _tell_state(self, job: Job, files: Files | None) -> None:
        interested = self._interested(job)
        if interested:
            message = self._job_message(job, files)
            for feed in interested:
                feed.tell_state(job.job_id, message)

    def _tell_counters(self, job: Job, files: Files | None) -> None:
        interested = self._interested(job)
        if interested:
            message = self._job_message(job, files)
            for feed in interested:
                feed.tell_counters(job.job_id, message)

    def _tell_file(self, files: Files, item: int) -> None:
        interested = self._interested(files.job)
        if interested:
            message = self._file_message(files, item)
            for feed in interested:
                feed.tell_file(files.job.job_id, item, message)

    def _job_message(self, job: Job, files: Files | None) -> bytes:
        counts = None if files is None else files.counts()
        row = batches.row_of(job, None if files is None else files.all_counts())
        shown = {
            **msgspec.structs.asdict(row),
            "source_progress": [
                {name: value for name, value in msgspec.structs.asdict(each).items() if name != "files"}
                for each in batches.sources_of(job, counts)
            ],
        }
        return self._message("job_update", job=shown)

    def _file_message(self, files: Files, item: int) -> bytes:
        job = files.job
        assert job.batch is not None, "only batches have files"
        part = job.batch.parts[files.file(item).part]
        return self._message(
            "file_progress",
            job_id=job.job_id,
            source_type=part.source_type,
            connection_id=part.connection_id,
            file=batches.file_view(files.status(item), part.source_type),
        )

    def _message(self, kind: str, **fields: Any) -> bytes:
        return msgspec.json.encode({"type": kind, **fields, "timestamp": self._now()})


def _begins(board: _Board, stored: Stored | CaughtUp) -> bool:
    """Whether those who follow *board* are told from here on, and first of how it is.

    Who followed it before is told of all that has happened since, in its order.
    """
    return isinstance(stored, CaughtUp) or (board.news and stored.sequence > board.told_to)
