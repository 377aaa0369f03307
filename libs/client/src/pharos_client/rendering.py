"""How things look on a terminal, and as plain lines where there is none."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.style import Style
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from pharos_client.models import DeadLetter, Job, Key, Schedule, SearchAnswer, SearchResult

CODE_LINES_MAX: Final = 24
WIDTH_WITHOUT_TERMINAL: Final = 240
WARNINGS_SHOWN: Final = 5
EXAMPLES_SHOWN: Final = 3
STATE_STYLE: Final = {
    "completed": "green",
    "complete": "green",
    "failed": "red",
    "cancelled": "yellow",
    "skipped": "yellow",
    "running": "cyan",
    "committing": "cyan",
    "retrying": "yellow",
}

_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def safe(text: str) -> str:
    """*text* without what would steer a terminal: code comes from anywhere."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text.replace("\r\n", "\n"))


def line(text: str) -> str:
    """As `safe`, on one line."""
    return " ".join(safe(text).split())


def program() -> str:
    """How this command was called, so that the next command can be typed as it is shown."""
    called = Path(sys.argv[0])
    return sys.argv[0] if called.name == "pharos" and len(called.parts) > 1 else "pharos"


def search_lines(answer: SearchAnswer) -> tuple[str, ...]:
    """The results, best first, as plain lines of any length."""
    if not answer.results:
        return (_nothing(answer),)
    lines: list[str] = []
    for place, result in enumerate(answer.results, 1):
        symbol = f"  {line(result.symbol)}" if result.symbol else ""
        span = result.line_span
        lines.append(
            f"{place:>2}  {line(result.file)}:{span.start}-{span.end}{symbol}  {result.scores.final:.3f}"
        )
        lines.append(f"    {_where(result)}")
        if result.url:
            lines.append(f"    {line(result.url)}")
        lines.append(f"    {why(result)}")
        shown, hidden = _code_lines(result)
        width = len(str(span.start + len(shown)))
        lines += [f"    {span.start + offset:>{width}} | {text}" for offset, text in enumerate(shown)]
        lines += [f"    ... {hidden} more lines"] if hidden else []
        lines.append("")
    return (*lines, _end(answer))


def _nothing(answer: SearchAnswer) -> str:
    note = answer.metadata.get("note")
    return f"Nothing was found: {line(str(note))}." if note else "Nothing was found."


def _end(answer: SearchAnswer) -> str:
    note = answer.metadata.get("note")
    end = f"{len(answer.results)} results in {answer.latency_ms:.0f} ms"
    return f"{end}. {line(str(note))}." if note else end


def search_picture(answer: SearchAnswer) -> RenderableType:
    """The same for a terminal: with colours, and links where it knows them."""
    if not answer.results:
        return Text(_nothing(answer))
    return Group(
        *(_result(place, result) for place, result in enumerate(answer.results, 1)),
        Text(_end(answer), style="dim"),
    )


def _result(place: int, result: SearchResult) -> RenderableType:
    span = result.line_span
    head = Text.assemble(
        (f"{place:>2}  ", "dim"),
        (f"{line(result.file)}:{span.start}-{span.end}", Style(bold=True, color="cyan") + _link(result.url)),
        ("  " + line(result.symbol) if result.symbol else "", "bold"),
        (f"  {result.scores.final:.3f}", "dim"),
    )
    lines: list[RenderableType] = [head, Text(f"    {_where(result)}", style="dim")]
    lines.append(Text("    " + why(result), style="green"))
    if result.also:
        places = ", ".join(f"{also.start}-{also.end}" for also in result.also[:5])
        lines.append(Text(f"    also at lines {places}", style="dim"))
    lines.append(Padding(_code(result), (0, 0, 1, 4)))
    return Group(*lines)


def _where(result: SearchResult) -> str:
    parts = [
        result.repository or result.dataset or "",
        f"@ {result.commit[:10]}" if result.commit else "",
        result.language or "",
        result.kind or "",
    ]
    return line("  ".join(filter(None, parts)))


def why(result: SearchResult) -> str:
    """Why it was found, in words."""
    if result.reasons:
        return line("; ".join(result.reasons))
    scores = result.scores
    channels = (("meaning", scores.dense), ("words", scores.sparse), ("structure", scores.structural))
    found = [f"{name} ({score:.2f})" for name, score in channels if score is not None]
    return "found by " + " and ".join(found) if found else "found"


def _code_lines(result: SearchResult) -> tuple[list[str], int]:
    """The lines to show, and how many are left out."""
    lines = safe(result.chunk).rstrip("\n").split("\n")
    return lines[:CODE_LINES_MAX], max(0, len(lines) - CODE_LINES_MAX)


def _code(result: SearchResult) -> RenderableType:
    shown, hidden = _code_lines(result)
    code = Syntax(
        "\n".join(shown),
        (result.language or "text").lower(),
        theme="ansi_dark",
        line_numbers=True,
        start_line=result.line_span.start,
        word_wrap=False,
        background_color="default",
    )
    return Group(code, Text(f"… {hidden} more lines", style="dim")) if hidden else code


def _link(url: str | None) -> Style:
    """An OSC 8 hyperlink, for addresses that are nothing worse."""
    return (
        Style(link=url) if url and url.startswith(("https://", "http://")) and url.isprintable() else Style()
    )


def job_table(jobs: Iterable[Job], now: datetime) -> Table:
    table = _table("job", "state", "repository", "files", "chunks", "seconds", "when", "error or reason")
    for job in jobs:
        result = job.result
        table.add_row(
            str(job.number if job.number is not None else job.job_id),
            Text(job.state, style=STATE_STYLE.get(job.state, "")),
            Text(line(job.repository)),
            str(result.files_processed) if result else "",
            str(result.chunks) if result else "",
            f"{job.seconds:.1f}" if job.seconds is not None else "",
            ago(job.submitted_at, now),
            Text(line(job.error or job.reason or "")),
        )
    return table


def dead_letter_table(letters: Iterable[DeadLetter], now: datetime) -> Table:
    table = _table("dead letter", "what", "deaths", "when", "error or reason")
    for letter in letters:
        what = letter.job.repository if letter.job is not None else letter.subject or letter.kind
        table.add_row(
            Text(line(letter.id)),
            Text(line(what)),
            str(letter.deaths) if letter.deaths else "",
            ago(letter.at, now),
            Text(line(letter.reason)),
        )
    return table


def schedule_table(schedules: Iterable[Schedule]) -> Table:
    table = _table("schedule", "cron", "time zone", "next run", "last run", "outcome", "repository")
    for schedule in schedules:
        branch = f"@{schedule.branch}" if schedule.branch else ""
        table.add_row(
            Text(line(schedule.id)),
            Text(line(schedule.cron)),
            Text(line(schedule.timezone)),
            _minute(schedule.next_run_at),
            _minute(schedule.last_run_at),
            Text(line(schedule.last_outcome or "")),
            Text(line(schedule.repository + branch)),
        )
    return table


def key_table(keys: Iterable[Key]) -> Table:
    table = _table("key", "tenant", "user", "role", "projects", "state", "expires", "name")
    for key in keys:
        table.add_row(
            Text(line(key.id)),
            Text(line(key.tenant)),
            Text(line(key.user)),
            Text(line(key.role)),
            Text("all" if key.projects is None else line(", ".join(key.projects))),
            Text(line(key.state)),
            _minute(key.expires_at),
            Text(line(key.name)),
        )
    return table


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in columns:
        numbers = column in {"files", "chunks", "seconds", "deaths"}
        table.add_column(column, justify="right" if numbers else "left", overflow="fold")
    return table


def _minute(moment: datetime | None) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M}Z" if moment is not None else ""


def job_lines(job: Job) -> tuple[str, ...]:
    """A job told whole: what it is, how it stands, what it made, what was left out, and what went wrong."""
    number = job.number if job.number is not None else job.job_id
    lines = [f"job {number} {job.state}: {line(job.repository)}"]
    if job.number is not None:
        lines.append(f"  id {job.job_id}")
    if job.error:
        lines.append(f"  error: {line(job.error)}")
    if job.reason:
        lines.append(f"  reason: {line(job.reason)}")
    if job.state == "queued":
        lines += _waiting_lines(job)
    if job.state == "retrying" and job.next_attempt_at is not None:
        lines.append(f"  tried again at {_minute(job.next_attempt_at)}, attempt {job.attempt} failed")
    if job.state in {"paused", "cancelled"} and job.controlled_by:
        lines.append(f"  by {line(job.controlled_by)}")
    if job.worker and not job.ended:
        gone = ", which is gone: the next worker goes on" if job.waiting_for_worker else ""
        lines.append(f"  on {line(job.worker)}, attempt {job.attempt}{gone}")
    return (*lines, *result_lines(job))


def _waiting_lines(job: Job) -> list[str]:
    lines = []
    if job.waiting_for_worker:
        lines.append("  waits for a worker: none is alive")
    if job.queue_position:
        start = f", starts about {_minute(job.estimated_start_at)}" if job.estimated_start_at else ""
        lines.append(f"  place {job.queue_position} in the queue{start}")
    return lines


def result_lines(job: Job) -> tuple[str, ...]:
    """What a completed job made."""
    result = job.result
    if result is None:
        return ()
    seconds = f" in {job.seconds:.1f} s" if job.seconds is not None else ""
    lines = [
        f"  {result.files_processed} files, {result.chunks} chunks, {result.edges} edges{seconds}",
        f"  commit {line(result.commit or 'unknown')}"
        + (f" of {line(result.branch)}" if result.branch else ""),
    ]
    if result.chunks_reused:
        lines.append(f"  {result.chunks_encoded} chunks encoded, {result.chunks_reused} reused")
    if result.left_out:
        counts = sorted(result.left_out.items(), key=lambda item: (-item[1], item[0]))
        lines.append("  left out: " + ", ".join(f"{count} {line(what)}" for what, count in counts))
        for what, count in counts:
            if named := result.left_out_examples.get(what, ())[:EXAMPLES_SHOWN]:
                more = f" and {count - len(named)} more" if count > len(named) else ""
                lines.append(f"    {line(what)}: " + ", ".join(map(line, named)) + more)
    total = max(result.warnings_total, len(result.warnings))
    if total:
        lines.append(f"  {total} warning{'s' if total > 1 else ''}:")
        for notice in result.warnings[:WARNINGS_SHOWN]:
            place = f"{line(notice.path)}: " if notice.path else ""
            lines.append(f"    {place}{line(notice.message)}")
        if total > WARNINGS_SHOWN:
            lines.append(f"    and {total - min(WARNINGS_SHOWN, len(result.warnings))} more")
    return tuple(lines)


def ago(moment: datetime | None, now: datetime) -> str:
    """How long ago, in one unit."""
    if moment is None:
        return ""
    moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    seconds = max(0, int((now - moment).total_seconds()))
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size} {unit} ago"
    return f"{seconds} s ago"


def consoles() -> tuple[Console, Console]:
    """Standard output and standard error. Nothing is wrapped or coloured where no terminal is."""
    out, err = Console(highlight=False), Console(stderr=True, highlight=False)
    for console in (out, err):
        if not console.is_terminal:
            console.soft_wrap, console.width = True, WIDTH_WITHOUT_TERMINAL
    return out, err


def show_search(answer: SearchAnswer, console: Console) -> None:
    """*answer* as fits where *console* writes to."""
    if console.is_terminal:
        console.print(search_picture(answer))
        return
    for each in search_lines(answer):
        console.print(each, markup=False)
