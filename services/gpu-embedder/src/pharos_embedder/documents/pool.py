"""Reading documents in processes that can be killed.

What reads PDF, Office files and web pages is large, partly in C, and fed by strangers: it may hang, crash or
take all memory. So each document is read and cut in one of a few processes (`process`, `confined`), one at a
time. A process that dies or is silent for too long takes its document with it, which is refused; it is not
tried again, since it would take as long. A process is replaced after some hundred documents, whatever memory
they left in it.
"""

from __future__ import annotations

import os
import selectors
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, NamedTuple, Self

import msgspec
import structlog

from pharos_embedder.confined import TIMER_STATUSES, ConfinedProcess, confined_environment
from pharos_embedder.documents.limits import DocumentLimits
from pharos_embedder.documents.protocol import (
    Chunks,
    Ready,
    Refused,
    Summary,
    Task,
    frame,
    take_answers,
)
from pharos_embedder.documents.refusals import DocumentRefused
from pharos_embedder.documents.splitting import DocumentChunk
from pharos_embedder.frames import FRAME_BYTES_MAX, FrameTooLarge
from pharos_embedder.ports import Check, unchecked

log = structlog.get_logger()

TIMEOUT_SECONDS: Final = 60.0
MEMORY_BYTES_MAX: Final = 2 * 1024**3
_DOCUMENTS_A_PROCESS: Final = 200
_READ_BYTES: Final = 256 * 1024
_TICK_SECONDS: Final = 0.25
_START_SECONDS_MAX: Final = 60.0
_ANSWERED_BYTES_MAX: Final = 1024**3  # far more than the chunks of the longest document
_CONTENT_BYTES_MAX: Final = FRAME_BYTES_MAX - 64 * 1024

_BROKE_DOWN: Final = Refused(
    code="document_damaged", sentence="The document could not be read: its reader broke down over it."
)


class DocumentPoolClosed(Exception):
    """The pool was closed while a document was read, or before."""


class DocumentPoolBroken(Exception):
    """A process ends before it is ready, so nothing can be read."""


class ReadDocument(NamedTuple):
    """A document as it comes out of the pool."""

    summary: Summary
    chunks: tuple[DocumentChunk, ...]


class DocumentPool:
    """A few processes, warm from one document to the next. A context manager; its methods are thread-safe.

    *timeout_seconds* is for one document, in processor time (and thrice that on the clock). *command* starts
    a process; *memory_bytes_max* is appended to it.
    """

    def __init__(
        self,
        processes: int = 2,
        timeout_seconds: float = TIMEOUT_SECONDS,
        *,
        memory_bytes_max: int = MEMORY_BYTES_MAX,
        command: Sequence[str] = (sys.executable, "-P", "-m", "pharos_embedder.documents.process"),
    ) -> None:
        if processes < 1:
            raise ValueError(f"processes must be at least 1, not {processes}")
        if timeout_seconds <= 0:
            raise ValueError(f"timeout_seconds must be above 0, not {timeout_seconds}")
        self._timeout_seconds = timeout_seconds
        self._command = (*command, str(memory_bytes_max))
        self._environment = confined_environment(os.environ) | {
            # Threads of a numerical library would each take address space, and there is nothing for them.
            "OPENBLAS_NUM_THREADS": "1",
            "OMP_NUM_THREADS": "1",
            **{name: value for name, value in os.environ.items() if name == "TMPDIR"},
        }
        self._room = threading.Semaphore(processes)
        self._lock = threading.Lock()
        self._idle: list[_Process] = []
        self._busy: list[_Process] = []
        self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends every process, at once, from any thread; a `read` under way raises DocumentPoolClosed."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
            for process in self._busy:
                process.process.kill()  # whoever waits for it sees the end of the pipe, and ends it
        for process in idle:
            process.end()

    def process_ids(self) -> tuple[int, ...]:
        """The processes that are alive, for supervision."""
        with self._lock:
            return tuple(process.process.pid for process in (*self._idle, *self._busy))

    def warm(self) -> None:
        """Have a process ready that has read a word, so that no document waits for that. Blocks."""
        try:
            self.read(b"Hello", "hello.md")
        except DocumentPoolClosed:
            pass  # whoever wanted it warm wants it no more
        except DocumentPoolBroken as error:
            log.warning("document_pool_broken", reason=str(error))  # the next document says so too

    def read(
        self,
        source: bytes | Path,
        name: str,
        declared_type: str = "",
        limits: DocumentLimits | None = None,
        *,
        chunk_size: int = 1000,
        overlap: int = 100,
        structure: bool = True,
        math: bool = True,
        check: Check = unchecked,
    ) -> ReadDocument:
        """`read_document` and `split_document`, in a process. Blocks; waits while all processes are busy.

        Without *structure* it is cut by size alone (`splitting.flat`), without *math* formulas are left out.

        *check* is called four times a second at least; what it raises ends the reading. Raises
        DocumentRefused, DocumentPoolClosed and DocumentPoolBroken, and ValueError for bytes that are too
        many to be passed on (give a path).
        """
        if isinstance(source, bytes) and len(source) > _CONTENT_BYTES_MAX:
            raise ValueError(f"{len(source)} bytes are too many to be passed on: give the path of a file")
        if not source:
            raise DocumentRefused("document_empty", "The document is empty.")
        task = frame(
            Task(
                path="" if isinstance(source, bytes) else str(source.absolute()),
                content=source if isinstance(source, bytes) else b"",
                name=name,
                declared_type=declared_type,
                limits=limits or DocumentLimits(),
                chunk_size=chunk_size,
                overlap=overlap,
                timeout_seconds=self._timeout_seconds,
                structure=structure,
                math=math,
            )
        )
        while not self._room.acquire(timeout=_TICK_SECONDS):
            self._check_open()
            check()
        try:
            process = self._take()
            read_before = process.documents
            try:
                process.unsent += task
                answer = self._answer(process, check)
            finally:
                # One that did not answer is dead, stuck, or still at a document that nobody waits for.
                sound = read_before < process.documents < _DOCUMENTS_A_PROCESS
                self._give_back(process, sound=sound)
        finally:
            self._room.release()
        if isinstance(answer, Refused):
            raise DocumentRefused(answer.code, answer.sentence)
        return answer

    def _check_open(self) -> None:
        if self._closed:
            raise DocumentPoolClosed

    def _take(self) -> _Process:
        while True:
            with self._lock:
                self._check_open()
                process = self._idle.pop() if self._idle else _Process(self._command, self._environment)
                if process.process.poll() is None:
                    self._busy.append(process)
                    return process
            process.end()

    def _give_back(self, process: _Process, *, sound: bool) -> None:
        with self._lock:
            self._busy.remove(process)
            kept = sound and not self._closed
            if kept:
                self._idle.append(process)
        if not kept:
            process.end()

    def _answer(self, process: _Process, check: Check) -> ReadDocument | Refused:
        chunks: list[DocumentChunk] = []
        answered = 0
        process.heard_at = time.monotonic()
        with selectors.DefaultSelector() as selector:
            selector.register(process.answers, selectors.EVENT_READ)
            selector.register(process.requests, selectors.EVENT_WRITE)
            while True:
                events = selector.select(_TICK_SECONDS)
                self._check_open()
                check()
                if not events and self._silent(process):
                    return self._too_slow()
                if process.unsent:
                    process.send()
                    if not process.unsent:
                        selector.unregister(process.requests)
                if all(key.fd != process.answers for key, _ in events):
                    continue
                if not (received := os.read(process.answers, _READ_BYTES)):
                    return self._died(process)
                process.heard_at = time.monotonic()
                process.ready = True  # its first word says so, and what follows may be unreadable
                process.received += received
                answered += len(received)
                if answered > _ANSWERED_BYTES_MAX:
                    return _BROKE_DOWN
                try:
                    answers = take_answers(process.received)
                except (FrameTooLarge, msgspec.DecodeError):
                    return _BROKE_DOWN
                for answer in answers:
                    match answer:
                        case Ready():
                            pass
                        case Chunks():
                            chunks.extend(answer.chunks)
                        case Summary():
                            process.documents += 1
                            return ReadDocument(answer, tuple(chunks))
                        case Refused():
                            process.documents += 1
                            return answer

    def _silent(self, process: _Process) -> bool:
        """The backstop to the process's own timers: for one that is stopped, or that they cannot end."""
        limit = 4 * self._timeout_seconds + 5 if process.ready else _START_SECONDS_MAX
        return time.monotonic() - process.heard_at > limit

    def _too_slow(self) -> Refused:
        sentence = f"Reading the document took longer than the {self._timeout_seconds:g} s that it may take."
        return Refused(code="document_too_slow", sentence=sentence)

    def _died(self, process: _Process) -> Refused:
        status = process.end(grace_seconds=1.0)  # the end of a pipe comes just before that of its process
        self._check_open()
        if not process.ready:
            raise DocumentPoolBroken(f"A process ended before it was ready, with status {status}")
        if status in TIMER_STATUSES:
            return self._too_slow()
        return _BROKE_DOWN


class _Process(ConfinedProcess):
    """One process, and how many documents it has read."""

    documents = 0
