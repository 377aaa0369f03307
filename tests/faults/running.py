"""One cell: bring a job to the moment, do the harm, take it back, and look until all is right again."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Final

import msgspec

from pharos_local.supervisor import how_it_ended
from tests.faults import repositories
from tests.faults.injecting import Injection
from tests.faults.matrix import HELD_SECONDS, Cell, Moment
from tests.faults.scenes import MomentMissed, Scene
from tests.faults.truth import Answers, Truth, answers, look
from tests.support.faults import FaultyStack
from tests.support.stack import eventually

RIGHT_SECONDS_MAX: Final = 120.0
LOOK_SECONDS: Final = 0.1
LOOK_AGAIN_SECONDS: Final = 0.5
TRIES: Final = 4


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a cell. ``right_after_seconds`` counts from the beginning of the fault; None: never.

    ``held_seconds`` is how long the fault lasted, and ``last`` what was missing the longest.
    """

    part: str
    fault: str
    moment: str
    what: str
    right_after_seconds: float | None
    held_seconds: float
    last: str = ""
    lost: int
    twice: int
    problems: tuple[str, ...] = ()

    @property
    def right_after_end_seconds(self) -> float | None:
        """From the end of the fault on; 0 where all was right while it still lasted."""
        if self.right_after_seconds is None:
            return None
        return max(0.0, self.right_after_seconds - self.held_seconds)

    @property
    def is_right(self) -> bool:
        return self.right_after_seconds is not None and not (self.lost or self.twice or self.problems)


def in_peace(stack: FaultyStack) -> dict[str, Answers]:
    """What is found in each repository when nothing happens to its job."""
    scene = Scene(stack, Moment.QUEUED, tenant="peace")
    for name in (repositories.MAIN, *repositories.SMALL):
        scene.submit(name)
    eventually(lambda: scene.ended() or None, seconds=60)
    found = {}
    with scene.client() as client:
        for job in scene.jobs:
            answer = answers(client, job.name)
            assert answer is not None and all(answer), f"nothing was found in {job.name}"
            found[job.name] = answer
    return found


def run(stack: FaultyStack, cell: Cell, expected: Mapping[str, Answers]) -> Row:
    """Try *cell* until the fault hits in time. MomentMissed where it never does."""
    for _ in range(TRIES):
        try:
            return _run(stack, cell, expected)
        except MomentMissed:
            stack.wait_until_ready()
    raise MomentMissed(cell.name)


def _run(stack: FaultyStack, cell: Cell, expected: Mapping[str, Answers]) -> Row:
    stack.ear.forget()
    scene = Scene(stack, cell.moment)
    injection = Injection(cell, scene)
    endings = {name: len(service.endings) for name, service in stack.services.items()}
    leader = stack.leader()
    try:
        scene.reach()
        injection.begin()
        missed = scene.missed()
    finally:
        scene.release(keep=injection.line_names)
    began = time.monotonic()
    if missed:
        injection.end()
        scene.until_quiet()
        raise MomentMissed(cell.name)
    late = scene.submit_meanwhile()
    with Watch(scene, expected, injection.began_after) as watch:
        time.sleep(max(0.0, began + HELD_SECONDS[cell.fault] - time.monotonic()))
        injection.end()
        ended = time.monotonic()
        late.join(RIGHT_SECONDS_MAX)
        truth = watch.right_at_last(ended, RIGHT_SECONDS_MAX)
    problems = [*truth.missing, *truth.twice, *injection.contradictions()]
    happened = [_story(scene, truth)]
    for name, service in stack.services.items():
        meant = injection.endings if service is injection.service else 0
        codes = service.endings[endings[name] + meant :]
        happened += [f"{name} ended by itself ({how_it_ended(code)})" for code in codes]
    if stack.leader() not in (None, leader):
        happened.append("the other scheduler leads")
    stack.wait_until_ready()
    return Row(
        part=cell.part.value,
        fault=cell.fault.value,
        moment=cell.moment.value,
        what="; ".join(happened),
        right_after_seconds=None if watch.right_since is None else round(watch.right_since - began, 2),
        held_seconds=round(ended - began, 2) if HELD_SECONDS[cell.fault] else 0.0,
        last=watch.last,
        lost=truth.lost,
        twice=len(truth.twice),
        problems=tuple(problems),
    )


class Watch:
    """Looks again and again in a ``with`` block. ``right_since`` is None for as long as all is not."""

    def __init__(self, scene: Scene, expected: Mapping[str, Answers], after: int) -> None:
        self.right_since: float | None = None
        self.last = ""
        self._look = partial(look, scene, expected, after)
        self._looked: tuple[float, Truth] | None = None
        self._changed = threading.Condition()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(RIGHT_SECONDS_MAX)

    def _run(self) -> None:
        while not self._stop.is_set():
            began = time.monotonic()
            truth = self._look()
            with self._changed:
                if truth.missing or truth.twice:
                    self.right_since, self.last = None, [*truth.missing, *truth.twice][0]
                elif self.right_since is None:
                    self.right_since = time.monotonic()
                self._looked = began, truth
                self._changed.notify_all()
            self._stop.wait(LOOK_SECONDS if self.right_since is None else LOOK_AGAIN_SECONDS)

    def right_at_last(self, since: float, seconds: float) -> Truth:
        """What the first look behind *since* showed that was right; the last one where none is in time."""

        def decided() -> bool:
            if self._looked is None or self._looked[0] < since:
                return False
            return self.right_since is not None or bool(self._looked[1].twice)

        with self._changed:
            self._changed.wait_for(decided, max(0.0, since + seconds - time.monotonic()))
            assert self._looked is not None, "nobody looked"
            return self._looked[1]


def _story(scene: Scene, truth: Truth) -> str:
    """What became of the job and of a client of that time, in a few words."""
    said = [scene.main.wanted.value]
    if truth.attempts > 1:
        said.append(f"in attempt {truth.attempts}")
    if truth.starts > max(1, truth.attempts):
        said.append(f"taken {truth.starts} times")
    if scene.cancel is not None:
        scene.cancel.join()
        said.append(f"the cancel was answered {scene.cancel.status or 'by a broken connection'}")
    late = scene.late
    if late is not None and (late.tries > 1 or late.seconds > 1):
        tries = f"{late.tries} tries" if late.tries > 1 else "one try"
        said.append(f"a new submit took {late.seconds:.1f} s and {tries}")
    return ", ".join(said)


class Runs:
    """The stack of one run after the other. Use it in a ``with`` block.

    It is the same one for as long as all goes well; what a cell left behind that failed is nobody's concern.
    """

    def __init__(self, keep_logs: Path | None = None) -> None:
        self._keep_logs = keep_logs
        self._stack: FaultyStack | None = None
        self._expected: dict[str, Answers] = {}

    def __enter__(self) -> Runs:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    @property
    def can_fill_disks(self) -> bool:
        return self._started().can_fill_disks

    def run(self, cell: Cell) -> Row:
        """The row of *cell*; where something is wrong with it, the next one begins with a new stack."""
        row = None
        try:
            row = run(self._started(), cell, self._expected)
        finally:
            if row is None or not row.is_right:
                self._save_logs(cell)
                self._stop()
        return row

    def _started(self) -> FaultyStack:
        if self._stack is None:
            self._stack = FaultyStack().__enter__()
            repositories.serve(self._stack.git_server)
            self._expected = in_peace(self._stack)
        return self._stack

    def _stop(self) -> None:
        stack, self._stack = self._stack, None
        if stack is not None:
            stack.__exit__(None, None, None)

    def _save_logs(self, cell: Cell) -> None:
        if self._keep_logs is not None and self._stack is not None:
            folder = self._keep_logs / cell.name
            folder.mkdir(parents=True, exist_ok=True)
            for log in self._stack.folder.glob("*.log"):
                shutil.copy(log, folder)
