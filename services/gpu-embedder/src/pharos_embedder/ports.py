"""What the worker asks of whoever does the work, and what that one may ask of the worker.

The worker knows the queue: it takes an item, holds it, says what becomes of it and hands it back. The work
knows repositories. Neither imports the other, and this module imports nothing heavy.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import msgspec

from pharos_contracts.jobs.v1 import IndexResult, Job, Stage, WorkItem

Check = Callable[[], None]
"""Raises Stopped where whoever calls it must do nothing more. Cheap; may be called from any thread."""


class Stopped(Exception):
    """The work was asked to stop, or its worker can no longer be sure that it holds the item."""


def unchecked() -> None:
    """The check of work that nobody stops."""


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """A failure with its sentence. ``diagnostic`` is for the log alone."""

    sentence: str
    code: str
    transient: bool = False
    diagnostic: str = ""


def unexpected(error: Exception) -> Problem:
    """A bug of ours: the job fails with a sentence rather than come back for ever; the log has the rest."""
    return Problem(
        sentence=f"Something unexpected went wrong ({type(error).__name__}); the worker's log says what",
        code="internal_error",
    )


class Failed(Exception):
    """The try ended without a result, for a reason that its owner is told."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.sentence)
        self.problem = problem


class NothingToDo(Exception):
    """What the item asks for is there already; the text says so."""


class Report(Protocol):
    """Tells how far a stage is; callable from any thread."""

    def __call__(
        self,
        stage: Stage,
        done: int,
        total: int,
        *,
        current_file: str | None = None,
        detail: str | None = None,
    ) -> None: ...


class Held(Protocol):
    """An item in hand, as whoever works on it sees it."""

    @property
    def item(self) -> WorkItem: ...

    @property
    def job(self) -> Job: ...

    @property
    def attempt(self) -> int: ...

    @property
    def report(self) -> Report: ...

    def check(self) -> None:
        """Call it before each write that others see; raises Stopped. See ``Check``."""

    def check_midway(self) -> None:
        """Stopped where not even what is under way is to be finished; only a pause waits for that."""

    async def lexical_ready(self, dataset: str, files: int, chunks: int) -> None:
        """Say that the first index of *dataset* answers by words. Superseded where the item was lost."""


class Work(Protocol):
    """What is done with items; one for each slot of a worker.

    ``run`` may be cancelled at any moment, and must have ended all that it began, threads and processes
    included, when it returns or raises. Errors of the bus (``pharos_service.bus.TROUBLE``) leave the item to
    a redelivery, ``Failed`` and ``NothingToDo`` end the try, and anything else is taken for a bug of ours.
    """

    async def run(self, held: Held) -> IndexResult:
        """Do everything but the publishing."""

    async def finish(self, item: WorkItem, result: IndexResult) -> IndexResult:
        """Publish what ``run`` made, perhaps in a worker that died since; *result* as it was published.

        Repeatable; never cancelled.
        """

    async def tidy(self, item: WorkItem, result: IndexResult) -> None:
        """Throw away what nobody needs any more after ``finish``. May fail: nothing depends on it."""

    async def clear(self, item: WorkItem, attempts: int, *, forget: bool) -> None:
        """Remove what the first *attempts* attempts at *item* wrote and did not publish. Repeatable.

        With the purpose to clear, it stands for all items of its job. *forget*: also what only saves work
        when the item is tried again.
        """
