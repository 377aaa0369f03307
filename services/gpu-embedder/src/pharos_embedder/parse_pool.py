"""Parsing in processes that can be killed.

A parser in C holds the interpreter lock and may hang or crash on hostile input, so each file is parsed in
one of a few worker processes (`parse_worker`, `confined`). A worker that dies takes one file with it, which
is then split by lines, once; if that fails too it is a ParseFailure. The other files that the worker held go
back to the front.

The pool is one loop over pipes in the thread of whoever iterates. Everything it holds is bounded: files in
flight and finished out of order (by number and by bytes), starts of workers that never get ready, the time
that a worker may be silent, and what all files of a tree that are hard to parse may take (`parse_budget`).
"""

from __future__ import annotations

import os
import selectors
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import msgspec

from pharos_embedder.confined import TIMER_STATUSES, ConfinedProcess, confined_environment
from pharos_embedder.discovery import SourceFile
from pharos_embedder.frames import FrameTooLarge
from pharos_embedder.packed_files import PackedFile
from pharos_embedder.parse_budget import HARD_SECONDS, ParseBudget
from pharos_embedder.parse_protocol import Batch, Parsed, Ready, Task, frame, take_answers
from pharos_embedder.ports import Check, unchecked
from pharos_embedder.syntax import ParseFailure, ParseOptions

_WORKERS_MIN: Final = 2
_WORKERS_MAX: Final = 8  # above, whoever takes in what they parsed is what holds up the rest
_BATCH_MAX: Final = 16
_WINDOW_FILES_MAX: Final = 256
_WINDOW_BYTES_MAX: Final = 64 * 1024 * 1024
_READ_BYTES: Final = 256 * 1024
_TICK_SECONDS: Final = 0.5
_START_SECONDS_MAX: Final = 60.0
_STARTS_FAILED_MAX: Final = 3
_TOO_HARD: Final = "files like it took too long to parse"

Outcome = PackedFile | ParseFailure


def workers_for(cores: int, pools: int) -> int:
    """How many workers each of *pools* pools has on a machine of *cores* cores: about 60 MB each."""
    return max(_WORKERS_MIN, min(_WORKERS_MAX, cores // pools))


class ParseCancelled(Exception):
    """The pool was closed while it was parsing."""


class ParsePoolBroken(Exception):
    """Worker processes die before they are ready, so nothing can be parsed."""


class _Worker(ConfinedProcess):
    """One process, and the indices that it holds, oldest first."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        super().__init__(command, environment)
        self.held: deque[int] = deque()


class ParsePool:
    """A few worker processes, warm from one tree to the next. A context manager.

    *timeout_seconds* is for one file, in processor time (and thrice that on the clock), *hard_seconds_max*
    for all files of a tree that are hard to parse. *command* starts a worker; two arguments, the timeout and
    *memory_bytes_max*, are appended to it.
    """

    def __init__(
        self,
        workers: int = 2,
        timeout_seconds: float = 10.0,
        *,
        hard_seconds_max: float = 600.0,
        memory_bytes_max: int = 2 * 1024**3,
        command: Sequence[str] = (sys.executable, "-P", "-m", "pharos_embedder.parse_worker"),
    ) -> None:
        if workers < 1:
            raise ValueError(f"workers must be at least 1, not {workers}")
        if timeout_seconds <= 0:
            raise ValueError(f"timeout_seconds must be above 0, not {timeout_seconds}")
        self._workers_max = workers
        self._timeout_seconds = timeout_seconds
        self._hard_seconds_max = hard_seconds_max
        self._command = (*command, repr(timeout_seconds), str(memory_bytes_max))
        self._environment = confined_environment(os.environ)
        self._workers: list[_Worker] = []
        self._starts_failed = 0
        self._closed = False
        self._in_use = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends every worker, at once, from any thread; a `parse_files` under way raises ParseCancelled."""
        self._closed = True
        for worker in list(self._workers):
            worker.process.kill()  # whoever iterates sees the end of the pipe within a tick
        if self._in_use.acquire(timeout=2 * _TICK_SECONDS):
            try:
                self._end(list(self._workers))
            finally:
                self._in_use.release()

    def process_ids(self) -> tuple[int, ...]:
        """The workers that are alive, for supervision."""
        return tuple(worker.process.pid for worker in list(self._workers))

    def parse_files(
        self,
        root: Path,
        files: Sequence[SourceFile],
        options: ParseOptions | None = None,
        on_file: Callable[[Outcome], None] | None = None,
        check: Check = unchecked,
    ) -> Iterator[Outcome]:
        """Every file of *files*, parsed, in their order.

        *on_file* hears of each as soon as it is done, in any order. *check* is called twice a second at
        least; what it raises ends the iteration. Leaving the iterator early ends the workers that are busy.
        One iteration at a time: a second one raises RuntimeError. Raises ParseCancelled after `close`, and
        ParsePoolBroken if no worker can be started.
        """
        if not self._in_use.acquire(blocking=False):
            raise RuntimeError("this pool is parsing another tree already")
        try:
            run = _Run(self, root, files, options or ParseOptions(), on_file, check)
            try:
                yield from run.outcomes()
            finally:
                self._end([worker for worker in self._workers if worker.held or self._closed])
        finally:
            self._in_use.release()

    def _end(self, workers: Sequence[_Worker]) -> None:
        for worker in workers:
            worker.end()
            self._workers.remove(worker)

    def _check_open(self) -> None:
        if self._closed:
            raise ParseCancelled

    def _start(self) -> _Worker:
        worker = _Worker(self._command, self._environment)
        self._workers.append(worker)
        return worker


class _Run:
    """One tree through the pool."""

    def __init__(
        self,
        pool: ParsePool,
        root: Path,
        files: Sequence[SourceFile],
        options: ParseOptions,
        on_file: Callable[[Outcome], None] | None,
        check: Check,
    ) -> None:
        self._pool = pool
        self._check = check
        self._root = str(root)
        self._files = files
        self._options = options
        self._on_file = on_file
        self._waiting = deque(range(len(files)))
        self._next = 0
        self._done: dict[int, Outcome] = {}
        self._causes: dict[int, str] = {}  # why a file is being split by lines
        self._bytes_held = 0
        self._budget = ParseBudget(pool._hard_seconds_max)
        self._selector = selectors.DefaultSelector()

    def outcomes(self) -> Iterator[Outcome]:
        with self._selector:
            self._pool._end([worker for worker in self._pool._workers if worker.process.poll() is not None])
            for worker in self._pool._workers:
                self._watch(worker)
            while self._next < len(self._files):
                self._pool._check_open()
                self._check()
                if self._next in self._done:
                    outcome = self._done.pop(self._next)
                    self._bytes_held -= self._files[self._next].size
                    self._next += 1
                    yield outcome
                    if self._next not in self._done:
                        self._forgive_silence()
                    continue
                self._hand_out()
                self._listen()
            for worker in self._pool._workers:
                self._selector.unregister(worker.answers)

    def _forgive_silence(self) -> None:
        """The time that the caller took over a file is not held against the workers."""
        now = time.monotonic()
        for worker in self._pool._workers:
            worker.heard_at = now

    # ---- to the workers

    def _hand_out(self) -> None:
        wanted = min(self._pool._workers_max, len(self._waiting) + len(self._pool._workers))
        while len(self._pool._workers) < wanted:
            self._watch(self._pool._start())
        for worker in self._pool._workers:
            if len(worker.held) <= _BATCH_MAX // 2 and (tasks := self._take_tasks()):
                if not worker.held:
                    worker.heard_at = time.monotonic()
                worker.held.extend(task.index for task in tasks)
                worker.unsent += frame(Batch(root=self._root, options=self._options, tasks=tuple(tasks)))
                worker.send()

    def _take_tasks(self) -> list[Task]:
        """The next few files; fewer towards the end, so that no worker is left with all of the rest."""
        count_max = min(_BATCH_MAX, max(1, len(self._waiting) // (2 * self._pool._workers_max)))
        tasks: list[Task] = []
        while self._waiting and len(tasks) < count_max:
            index = self._waiting[0]
            file = self._files[index]
            again = index in self._causes
            if not again and self._bytes_held and self._bytes_held + file.size > _WINDOW_BYTES_MAX:
                break
            if index >= self._next + _WINDOW_FILES_MAX:
                break
            self._waiting.popleft()
            self._bytes_held += 0 if again else file.size
            if not again and self._budget.refuses(file):
                self._causes[index] = _TOO_HARD
            plain = index in self._causes
            tasks.append(Task(index=index, path=file.path, language=file.language, plain=plain))
        return tasks

    # ---- from the workers

    def _watch(self, worker: _Worker) -> None:
        self._selector.register(worker.answers, selectors.EVENT_READ, worker)

    def _listen(self) -> None:
        events = self._selector.select(_TICK_SECONDS)
        for key, _ in events:
            worker: _Worker = key.data
            self._hear(worker)
        for worker in list(self._pool._workers):
            if worker.unsent:
                worker.send()
            if not events:
                self._check_silence(worker)

    def _hear(self, worker: _Worker) -> None:
        try:
            received = os.read(worker.answers, _READ_BYTES)
        except BlockingIOError:
            return
        if not received:
            self._bury(worker)
            return
        worker.heard_at = time.monotonic()
        worker.received += received
        try:
            answers = take_answers(worker.received)
        except (FrameTooLarge, msgspec.DecodeError):
            self._bury(worker)
            return
        for answer in answers:
            match answer:
                case Ready():
                    worker.ready = True
                    self._pool._starts_failed = 0
                case Parsed():
                    self._settle(worker, answer)

    def _settle(self, worker: _Worker, answer: Parsed) -> None:
        assert worker.held and worker.held[0] == answer.index, "a worker answers in the order of its tasks"
        worker.held.popleft()
        outcome: Outcome | None = answer.file or answer.failure
        assert outcome is not None, "an answer has a file or a failure"
        cause = self._causes.get(answer.index)
        if cause is None:
            self._budget.took(self._files[answer.index], answer.seconds)
        elif isinstance(outcome, PackedFile):
            warning = f"Split by lines: {cause}."
            outcome = msgspec.structs.replace(outcome, warning=warning, is_settled=False)
        self._finish(answer.index, outcome)

    def _finish(self, index: int, outcome: Outcome) -> None:
        self._done[index] = outcome
        if self._on_file is not None:
            self._on_file(outcome)

    def _check_silence(self, worker: _Worker) -> None:
        """The backstop to the worker's own timer: for one that is stopped, or that its timer cannot end."""
        limit = 4 * self._pool._timeout_seconds + 5 if worker.ready else _START_SECONDS_MAX
        if (worker.held or not worker.ready) and time.monotonic() - worker.heard_at > limit:
            self._bury(worker, cause=self._too_slow())

    def _too_slow(self) -> str:
        return f"parsing took longer than {self._pool._timeout_seconds:g} s"

    def _bury(self, worker: _Worker, *, cause: str | None = None) -> None:
        """Takes a dead or useless worker out; the file that it was at is tried by lines, or given up."""
        self._selector.unregister(worker.answers)
        self._pool._workers.remove(worker)
        ended = worker.end(grace_seconds=0.0 if cause else 1.0)  # an ended pipe comes just before an end
        self._pool._check_open()
        if not worker.ready:
            self._pool._starts_failed += 1
            if self._pool._starts_failed >= _STARTS_FAILED_MAX:
                raise ParsePoolBroken(
                    f"{_STARTS_FAILED_MAX} parse workers in turn ended before they were ready, "
                    f"the last with status {ended}"
                )
        elif worker.held:
            index = worker.held.popleft()
            seconds = HARD_SECONDS  # of a death: a new worker takes its time, too
            if cause or ended in TIMER_STATUSES:
                cause, seconds = self._too_slow(), max(seconds, self._pool._timeout_seconds)
            cause = cause or f"the parser died ({ended})"
            if index in self._causes:
                path = self._files[index].path
                self._finish(index, ParseFailure(path=path, reason=f"The file was given up: {cause}."))
            else:
                self._budget.took(self._files[index], seconds)
                self._causes[index] = cause
                self._waiting.appendleft(index)
        again = [index for index in worker.held if index not in self._waiting]
        self._bytes_held -= sum(self._files[index].size for index in again if index not in self._causes)
        self._waiting = deque(sorted({*self._waiting, *again}))
