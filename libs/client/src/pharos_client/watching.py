"""Watching a job until it ends: a live display on a terminal, one line for each step elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from pharos_client import clients, following
from pharos_client.clients import Pharos
from pharos_client.errors import PharosError
from pharos_client.following import Followed
from pharos_client.models import Job
from pharos_client.rendering import line

PERCENT_STEP: Final = 10
_MARKS: Final = {"done": ("✓ ", "green"), "now": ("● ", "bold cyan"), "later": ("· ", "dim")}


class Display(Protocol):
    """Shows what is known of a job, each time that it changes."""

    def show(self, followed: Followed) -> None: ...


class PlainDisplay:
    """A line for each state and stage, and for each tenth of the way."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._said: tuple[str, str, int, bool] | None = None

    def show(self, followed: Followed) -> None:
        now = (
            followed.job.state,
            followed.stage,
            int(followed.percent) // PERCENT_STEP,
            followed.connected,
        )
        if now != self._said:
            self._said = now
            self._say(f"{followed.percent:3.0f}%  {line(followed.headline())}")


class LiveDisplay:
    """Stages, a bar and the current file, in place."""

    def __init__(self, live: Live) -> None:
        self._live = live
        self._spinner = Spinner("dots")

    def show(self, followed: Followed) -> None:
        self._live.update(self._picture(followed))

    def _picture(self, followed: Followed) -> RenderableType:
        stages = Text()
        for name, when in followed.stages():
            mark, style = _MARKS[when]
            stages.append(mark + name + "  ", style=style)
        bar = Table.grid(padding=(0, 1))
        bar.add_row(
            self._spinner,
            ProgressBar(total=100, completed=followed.percent, width=40),
            f"{followed.percent:3.0f}%",
        )
        headline = Text(line(followed.headline()), style="" if followed.connected else "yellow")
        headline.truncate(max(20, self._live.console.width - 2), overflow="ellipsis")
        return Group(stages, bar, headline)


def watch(client: Pharos, job_id: int | str, console: Console) -> Job:
    """Follow *job_id* to its end; the job as it ended. KeyboardInterrupt leaves it running.

    Outlives restarts of the gateway; PharosError when it stays away, or when the job is not to be seen.
    """
    if not console.is_terminal:
        return _follow(client, job_id, PlainDisplay(lambda text: console.print(text, markup=False)))
    with Live(console=console, refresh_per_second=8, transient=True) as live:
        return _follow(client, job_id, LiveDisplay(live))


def _follow(client: Pharos, job_id: int | str, display: Display) -> Job:
    followed = following.begin(client.job(job_id))
    display.show(followed)

    if followed.job.ended:
        return followed.job
    for event in client.events(job_id, connection_events=True):
        match event.name:
            case "job.progress":
                followed = following.with_event(followed, event)
            case clients.CONNECTION_LOST:
                followed = following.with_connection(followed, False)
            case _:
                # A state changed, or may have while nobody listened: the job itself knows.
                followed = _refreshed(client, following.with_connection(followed, True))
        display.show(followed)
        if followed.job.ended:
            return followed.job
    return client.job(job_id)


def _refreshed(client: Pharos, followed: Followed) -> Followed:
    try:
        return following.with_job(followed, client.job(followed.job.job_id))
    except PharosError as error:
        if not error.transient:
            raise
        return followed
