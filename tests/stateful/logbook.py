"""What all processes log, line by line with moment and process: for whoever asks why a history failed."""

from __future__ import annotations

import time
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from typing import Any, Final, NoReturn

import structlog

from tests.stateful.processes import this_process

LINES_MAX: Final = 4000
REPEATED: Final = frozenset({"consumer_lost", "tail_lost", "heartbeat_failed", "append_retried"})


class Logbook:
    """Lines of all threads, in the order of writing. ``name`` makes ids short."""

    def __init__(self) -> None:
        self.began = time.time()
        self._lines: deque[tuple[float, str, str, dict[str, Any]]] = deque(maxlen=LINES_MAX)
        self._names: dict[str, str] = {}
        self._said: defaultdict[str, set[tuple[str, str]]] = defaultdict(set)

    def call(self, job_id: str, name: str) -> None:
        """Write *name* instead of *job_id*."""
        self._names[job_id] = name

    def write(self, who: str, event: str, **facts: Any) -> None:
        """A line; what somebody says again and again is written once."""
        said = event, str(facts)
        if event in REPEATED:
            if said in self._said[who]:
                return
            self._said[who].add(said)
        else:
            self._said[who].clear()
        self._lines.append((time.time(), who, event, facts))

    def text(self) -> str:
        return "\n".join(self._line(*line) for line in self._lines)

    def short(self, text: str) -> str:
        """*text* with names instead of ids."""
        for job_id, name in self._names.items():
            text = text.replace(job_id, name)
        return text

    def _line(self, at: float, who: str, event: str, facts: Mapping[str, Any]) -> str:
        told = " ".join(f"{key}={value}" for key, value in facts.items())
        return self.short(f"{at - self.began:7.3f} {who:<12} {event} {told}")

    @contextmanager
    def open(self) -> Iterator[None]:
        """While the block lasts, services log here."""
        before = structlog.get_config()
        structlog.configure(processors=[structlog.contextvars.merge_contextvars, self._take])
        try:
            yield
        finally:
            structlog.configure(**before)

    def _take(self, _logger: Any, level: str, line: MutableMapping[str, Any]) -> NoReturn:
        process = this_process()
        if process is None or not process.dead:  # what a dead process says, nobody hears
            facts = {key: value for key, value in line.items() if key not in ("event", "exc_info")}
            if line.get("exc_info"):
                facts["level"] = level
            self.write(process.name if process is not None else "test", str(line["event"]), **facts)
        raise structlog.DropEvent
