"""Keeping programs running: start, restart with backoff, stop in order, leave nothing behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import anyio
import psutil
from anyio.abc import ByteReceiveStream, Process

from pharos_local import guardian as guardian_file
from pharos_local.backoff import Backoff
from pharos_local.home import write_private
from pharos_local.programs import Program
from pharos_local.reporting import LINE_BYTES_MAX, Reporter

EXIT_SETTINGS: Final = 78
STARTS_MAX: Final = 5
LAST_LINES_KEPT: Final = 15
OUTPUT_SECONDS_MAX: Final = 1.0
STALE_SECONDS_MAX: Final = 5.0


AfterStart = Callable[[], Coroutine[Any, Any, None]]


class Ending:
    """Why the stack ends, as soon as somebody knows: a person asked, or a program cannot be kept running."""

    def __init__(self) -> None:
        self._event = anyio.Event()
        self.failure: str | None = None

    def asked(self) -> None:
        self._event.set()

    def failed(self, sentence: str) -> None:
        if not self._event.is_set():
            self.failure = sentence
            self._event.set()

    async def wait(self) -> None:
        await self._event.wait()


class Guardian:
    """The process that ends the programs if this one is killed. Use it in a ``with`` block."""

    def __init__(self, lock: int) -> None:
        self._lock = lock
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Guardian:
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(Path(guardian_file.__file__))],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            pass_fds=(self._lock,),
            text=True,
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process is not None and self._process.stdin is not None
        with suppress(OSError):
            self._process.stdin.close()
        self._process.wait()

    def note(self, sign: str, pid: int) -> None:
        """``+``: *pid* leads a group to be ended; ``-``: it is gone."""
        assert self._process is not None and self._process.stdin is not None
        with suppress(OSError):
            self._process.stdin.write(f"{sign}{pid}\n")
            self._process.stdin.flush()


class Running:
    """A program's process."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.exited = anyio.Event()

    def signal_group(self, number: signal.Signals) -> None:
        """To the process and whatever it started."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, number)


class Supervisor:
    """Keeps programs running until `stop`.

    ``settled`` is set once the stack was ready: before, a program that crashes five times in a row ends the
    stack with its last words; after, it is tried for ever.
    """

    def __init__(
        self,
        *,
        reporter: Reporter,
        guardian: Guardian,
        run_directory: Path,
        ending: Ending,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = anyio.sleep,
    ) -> None:
        self._reporter = reporter
        self._guardian = guardian
        self._run_directory = run_directory
        self._ending = ending
        self._clock = clock
        self._sleep = sleep
        self._stopping = False
        self._running: dict[str, tuple[Program, Running]] = {}
        self.settled = False

    async def keep(self, program: Program, *, after_start: AfterStart | None = None) -> None:
        """Run *program* again and again. *after_start* is done each time that it was started."""
        backoff = Backoff()
        while not self._stopping:
            began = self._clock()
            last_lines: deque[str] = deque(maxlen=LAST_LINES_KEPT)
            try:
                code = await self._run(program, after_start, last_lines)
            except OSError as error:
                self._ending.failed(f"{program.name} cannot be started: {error}")
                return
            if self._stopping:
                return
            if code == EXIT_SETTINGS:
                self._ending.failed(_last_words(f"{program.name} refuses its settings:", last_lines))
                return
            wait = backoff.after(self._clock() - began)
            if not self.settled and backoff.failures >= STARTS_MAX:
                problem = f"{program.name} does not start ({how_it_ended(code)}, {backoff.failures} times):"
                self._ending.failed(_last_words(problem, last_lines))
                return
            self._reporter.say(
                f"{program.name} ended unexpectedly ({how_it_ended(code)}); starting it again in {wait:g} s"
            )
            await self._sleep(wait)

    def restart(self, name: str, reason: str) -> None:
        """End *name* because of *reason*; it is started again like a program that ended by itself."""
        if name in self._running and not self._stopping:
            self._reporter.say(f"{name} has to be started again: {reason}")
            with suppress(ProcessLookupError):
                self._running[name][1].process.terminate()

    async def _run(
        self,
        program: Program,
        after_start: AfterStart | None,
        last_lines: deque[str],
    ) -> int:
        """One life of *program*; its exit code."""
        with anyio.CancelScope(shield=True):  # a start that was cut off would leave a process behind
            process = await anyio.open_process(
                program.command,
                env=program.environ,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._guardian.note("+", process.pid)
        running = Running(process)
        self._running[program.name] = (program, running)
        record = self._run_directory / f"{program.name}.json"
        _write_record(record, process.pid)
        try:
            async with process, anyio.create_task_group() as tasks:
                assert process.stdout is not None
                finished = anyio.Event()
                tasks.start_soon(self._listen, program.name, process.stdout, last_lines, finished)
                if after_start is not None:
                    tasks.start_soon(after_start)
                code = await process.wait()
                running.signal_group(signal.SIGKILL)  # whatever it started goes with it
                with anyio.move_on_after(OUTPUT_SECONDS_MAX):
                    await finished.wait()
                tasks.cancel_scope.cancel()
        finally:
            running.signal_group(signal.SIGKILL)
            running.exited.set()
            self._guardian.note("-", process.pid)
            del self._running[program.name]
            record.unlink(missing_ok=True)
        return code

    async def _listen(
        self, name: str, stream: ByteReceiveStream, last_lines: deque[str], finished: anyio.Event
    ) -> None:
        held = b""

        def say(raw: bytes) -> None:
            for start in range(0, max(1, len(raw)), LINE_BYTES_MAX):
                piece = raw[start : start + LINE_BYTES_MAX]
                text = piece.decode("utf-8", errors="replace").rstrip("\r")
                last_lines.append(text)
                self._reporter.heard(name, text)

        try:
            async for chunk in stream:
                *lines, held = (held + chunk).split(b"\n")
                for each in lines:
                    say(each)
                while len(held) > LINE_BYTES_MAX:
                    say(held[:LINE_BYTES_MAX])
                    held = held[LINE_BYTES_MAX:]
        except anyio.BrokenResourceError:
            pass
        if held:
            say(held)
        finished.set()

    async def stop(self, steps: Sequence[Sequence[str]]) -> None:
        """SIGTERM to those of each step, SIGKILL where that does not help in time; nothing starts again."""
        self._stopping = True
        for names in steps:
            async with anyio.create_task_group() as tasks:
                for name in names:
                    if name in self._running:
                        tasks.start_soon(self._stop_one, *self._running[name])

    async def _stop_one(self, program: Program, running: Running) -> None:
        with suppress(ProcessLookupError):
            running.process.terminate()
        with anyio.move_on_after(program.stop_seconds) as patience:
            await running.exited.wait()
        if patience.cancelled_caught:
            self._reporter.say(f"{program.name} did not stop in {program.stop_seconds:g} s and is killed")
            running.signal_group(signal.SIGKILL)
            await running.exited.wait()


def how_it_ended(code: int) -> str:
    """An exit code in words."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"


def _last_words(sentence: str, lines: Sequence[str]) -> str:
    return "\n".join([sentence, *(f"  {line}" for line in lines)])


def _write_record(path: Path, pid: int) -> None:
    """Remember the process for a start after both the supervisor and its guardian were killed."""
    with suppress(psutil.Error, OSError):
        write_private(path, json.dumps({"pid": pid, "started": psutil.Process(pid).create_time()}))


def recorded(run_directory: Path) -> dict[str, psutil.Process]:
    """The programs of this home that are alive, by name; one that got an old number is not taken for it."""
    found = {}
    for path in sorted(run_directory.glob("*.json")):
        with suppress(OSError, ValueError, KeyError, TypeError, psutil.Error):
            record = json.loads(path.read_text(encoding="utf-8"))
            process = psutil.Process(int(record["pid"]))
            same = abs(process.create_time() - float(record["started"])) < 1.0
            if same and process.status() != psutil.STATUS_ZOMBIE:
                found[path.stem] = process
    return found


def end_stale(run_directory: Path) -> tuple[str, ...]:
    """End what an earlier stack with this home left running; the names. Call it while the lock is held."""
    left = recorded(run_directory)
    for number, seconds in ((signal.SIGTERM, STALE_SECONDS_MAX), (signal.SIGKILL, STALE_SECONDS_MAX)):
        for process in left.values():
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, number)
        psutil.wait_procs(list(left.values()), timeout=seconds)
    for path in run_directory.glob("*.json"):
        path.unlink(missing_ok=True)
    return tuple(left)
