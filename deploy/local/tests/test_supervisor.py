"""Keeping programs running, with small programs in their place."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import anyio
import psutil
import pytest

from pharos_local.backoff import WAIT_SECONDS_MAX, Backoff
from pharos_local.home import Home, HomeInUse, Lock, owner
from pharos_local.programs import Program
from pharos_local.reporting import Reporter
from pharos_local.supervisor import Ending, Guardian, Supervisor, end_stale, how_it_ended, recorded

pytestmark = pytest.mark.anyio

FOREVER = (
    "import signal, sys, time\n"
    "signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))\n"
    "print('up', flush=True)\n"
    "while True: time.sleep(1)\n"
)
DEAF = (
    "import signal, time\n"
    "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    "print('up', flush=True)\n"
    "time.sleep(60)\n"
)
WITH_CHILD = (
    "import subprocess, sys, time\n"
    "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
    "print('child', child.pid, flush=True)\ntime.sleep(60)\n"
)


class Stage:
    """A supervisor, what it says, and the waits that it asked for."""

    def __init__(self, directory: Path, guardian: Guardian) -> None:
        self.home = Home(directory)
        self.terminal = io.StringIO()
        self.reporter = Reporter(self.home.logs, self.terminal)
        self.ending = Ending()
        self.waits: list[float] = []
        self.supervisor = Supervisor(
            reporter=self.reporter,
            guardian=guardian,
            run_directory=self.home.run,
            ending=self.ending,
            sleep=self._sleep,
        )

    async def _sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        await anyio.sleep(0)

    def program(self, name: str, text: str, *, stop_seconds: float = 5.0) -> Program:
        return Program(
            name=name,
            command=(sys.executable, "-u", "-c", text),
            environ=dict(os.environ),
            stop_seconds=stop_seconds,
        )

    def pid(self, name: str) -> int:
        pid: int = json.loads((self.home.run / f"{name}.json").read_text())["pid"]
        return pid

    async def said(self, text: str, times: int = 1) -> None:
        with anyio.fail_after(10):
            while self.terminal.getvalue().count(text) < times:
                await anyio.sleep(0.01)


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    home = Home(tmp_path)
    home.create()
    with Lock(home) as lock, Guardian(lock.fileno()) as guardian:
        made = Stage(tmp_path, guardian)
        with made.reporter:
            yield made


@asynccontextmanager
async def kept(
    stage: Stage, *programs: Program, after_start: Callable[[], Awaitable[None]] | None = None
) -> AsyncIterator[None]:
    async with anyio.create_task_group() as tasks:
        for program in programs:

            async def keep(program: Program = program) -> None:
                await stage.supervisor.keep(program, after_start=after_start)  # type: ignore[arg-type]

            tasks.start_soon(keep)
        yield
        await stage.supervisor.stop([(program.name,) for program in programs])
        tasks.cancel_scope.cancel()


def alive(pid: int) -> bool:
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


async def gone(pid: int) -> None:
    with anyio.fail_after(10):
        while alive(pid):
            await anyio.sleep(0.02)


async def test_a_program_that_is_to_be_started_again_is_and_the_reason_is_said(stage: Stage) -> None:
    async with kept(stage, stage.program("part", FOREVER)):
        await stage.said("part      | up")
        first = stage.pid("part")
        stage.supervisor.restart("part", "it can write no more")
        stage.supervisor.restart("another", "it is not there")
        await stage.said("part      | up", times=2)
        assert stage.pid("part") != first
    assert "part has to be started again: it can write no more" in stage.terminal.getvalue()
    assert "another" not in stage.terminal.getvalue()


async def test_a_killed_program_is_started_again_and_it_is_said(stage: Stage) -> None:
    starts: list[int] = []

    async def after_start() -> None:
        starts.append(1)

    async with kept(stage, stage.program("part", FOREVER), after_start=after_start):
        await stage.said("part      | up")
        first = stage.pid("part")
        os.kill(first, signal.SIGKILL)
        await stage.said("part ended unexpectedly (killed by SIGKILL); starting it again in 0.2 s")
        await stage.said("part      | up", times=2)
        assert stage.pid("part") != first
    assert len(starts) == 2
    assert list(stage.home.run.iterdir()) == []


async def test_before_the_stack_was_ready_five_crashes_in_a_row_end_it_with_the_last_words(
    stage: Stage,
) -> None:
    with anyio.fail_after(20):
        await stage.supervisor.keep(stage.program("part", "raise SystemExit('no such port')"))
    assert stage.ending.failure is not None
    assert "part does not start (exit code 1, 5 times)" in stage.ending.failure
    assert "no such port" in stage.ending.failure
    assert stage.waits == [0.2, 0.4, 0.8, 1.6]


async def test_once_ready_it_is_tried_without_end(stage: Stage) -> None:
    stage.supervisor.settled = True
    async with kept(stage, stage.program("part", "raise SystemExit(3)")):
        await stage.said("part ended unexpectedly (exit code 3)", times=7)
    assert stage.ending.failure is None
    assert stage.waits[:7] == [0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0]


async def test_refused_settings_end_the_stack_at_once_with_the_sentence(stage: Stage) -> None:
    stage.supervisor.settled = True
    text = "import sys; print('PHAROS_PORT is not valid', file=sys.stderr); sys.exit(78)"
    with anyio.fail_after(10):
        await stage.supervisor.keep(stage.program("part", text))
    assert stage.ending.failure == "part refuses its settings:\n  PHAROS_PORT is not valid"


async def test_a_program_that_is_missing_ends_the_stack(stage: Stage) -> None:
    program = Program(name="part", command=("/nowhere/at/all",), environ={}, stop_seconds=1)
    await stage.supervisor.keep(program)
    assert stage.ending.failure is not None and "part cannot be started" in stage.ending.failure


async def test_programs_stop_in_the_order_given(stage: Stage) -> None:
    text = textwrap.dedent(
        """
        import signal, sys, time
        def stop(*_):
            print('stopping', sys.argv[1:], time.monotonic(), flush=True)
            sys.exit(0)
        signal.signal(signal.SIGTERM, stop)
        print('up', flush=True)
        while True: time.sleep(1)
        """
    )
    programs = [stage.program(name, text) for name in ("one", "two", "three")]
    async with kept(stage, *programs):
        await stage.said("| up", times=3)
    lines = [line for line in stage.terminal.getvalue().splitlines() if "stopping" in line]
    await stage.said("stopping", times=3)
    lines = [line.split()[0] for line in stage.terminal.getvalue().splitlines() if "stopping" in line]
    assert lines == ["one", "two", "three"]


async def test_one_that_does_not_stop_in_its_time_is_killed(stage: Stage) -> None:
    async with kept(stage, stage.program("part", DEAF, stop_seconds=0.3)):
        await stage.said("part      | up")
        pid = stage.pid("part")
    await stage.said("part did not stop in 0.3 s and is killed")
    await gone(pid)


async def test_what_a_program_started_goes_with_it(stage: Stage) -> None:
    async with kept(stage, stage.program("part", WITH_CHILD)):
        await stage.said("child")
        child = int(stage.terminal.getvalue().split("child")[1].split()[0])
        assert alive(child)
        os.kill(stage.pid("part"), signal.SIGKILL)
        await gone(child)


async def test_a_line_without_end_is_told_in_pieces(stage: Stage) -> None:
    async with kept(stage, stage.program("part", "print('x' * 200_000); import time; time.sleep(60)")):
        await stage.said("| x", times=4)
    longest = max(len(line) for line in stage.terminal.getvalue().splitlines())
    assert longest < 70_000


async def test_output_is_kept_in_a_file_without_colours(stage: Stage) -> None:
    async with kept(stage, stage.program("part", "print('\\x1b[31mred\\x1b[0m \\x1b[2J')\n" + FOREVER)):
        await stage.said("| up")
    assert "red " in (stage.home.logs / "part.log").read_text()
    assert "\x1b[31m" not in (stage.home.logs / "part.log").read_text()
    assert "\x1b[2J" not in stage.terminal.getvalue()


KILLED_SUPERVISOR = """
import os, sys, anyio
from pathlib import Path
from pharos_local.home import Home, Lock
from pharos_local.programs import Program
from pharos_local.reporting import Reporter
from pharos_local.supervisor import Ending, Guardian, Supervisor

async def main(home, guardian, reporter):
    supervisor = Supervisor(reporter=reporter, guardian=guardian, run_directory=home.run, ending=Ending())
    text = sys.argv[2]
    command = (sys.executable, "-u", "-c", text)
    program = Program(name="part", command=command, environ=dict(os.environ), stop_seconds=1)
    await supervisor.keep(program)

home = Home(Path(sys.argv[1]))
home.create()
with Lock(home) as lock, Guardian(lock.fileno()) as guardian, Reporter(home.logs) as reporter:
    anyio.run(main, home, guardian, reporter)
"""


@pytest.mark.parametrize("also_the_guardian", [False, True])
async def test_nothing_outlives_a_supervisor_that_is_killed(tmp_path: Path, also_the_guardian: bool) -> None:
    home = Home(tmp_path / "home")
    command = [sys.executable, "-u", "-c", KILLED_SUPERVISOR, str(home.path), DEAF]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as supervisor:
        assert supervisor.stdout is not None
        assert "up" in supervisor.stdout.readline()
        (part,) = recorded(home.run).values()
        guardians = [
            child
            for child in psutil.Process(supervisor.pid).children()
            if "guardian" in " ".join(child.cmdline())
        ]
        assert owner(home) == supervisor.pid
        supervisor.kill()
        if also_the_guardian:
            guardians[0].kill()
    if also_the_guardian:
        assert alive(part.pid)
        assert await anyio.to_thread.run_sync(_start_over, home) == ("part",)
    else:
        # A start waits for the guardian, which holds the lock until all is gone.
        assert await anyio.to_thread.run_sync(_start_over, home) == ()
        assert not alive(part.pid)
    await gone(part.pid)
    assert owner(home) is None


def _start_over(home: Home) -> tuple[str, ...]:
    with Lock(home):
        return end_stale(home.run)


def test_two_stacks_never_share_a_home(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.create()
    with Lock(home):
        assert owner(home) == os.getpid()
        began = time.monotonic()
        with pytest.raises(HomeInUse, match=str(os.getpid())), Lock(home):
            pass
        assert time.monotonic() - began < 1
    with Lock(home):
        pass


def test_a_process_with_an_old_number_is_not_taken_for_ours(tmp_path: Path) -> None:
    (tmp_path / "part.json").write_text(json.dumps({"pid": os.getpid(), "started": 1.0}))
    (tmp_path / "broken.json").write_text("{")
    assert recorded(tmp_path) == {}
    assert end_stale(tmp_path) == ()
    assert list(tmp_path.iterdir()) == []


def test_backoff_doubles_to_its_limit_and_begins_anew_after_health() -> None:
    backoff = Backoff()
    assert [backoff.after(1) for _ in range(8)] == [0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0]
    assert backoff.after(31) == 0.2
    for _ in range(2000):
        assert backoff.after(0) <= WAIT_SECONDS_MAX


@pytest.mark.parametrize(
    ("code", "words"),
    [(0, "exit code 0"), (1, "exit code 1"), (-9, "killed by SIGKILL"), (-99, "killed by signal 99")],
)
def test_an_exit_code_in_words(code: int, words: str) -> None:
    assert how_it_ended(code) == words
