"""What the programs say: to the terminal with their names before it, and to files of bounded size."""

from __future__ import annotations

import os
import queue
import re
import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import Final, TextIO

from pharos_local import nats_server, programs

LINE_BYTES_MAX: Final = 64 * 1024
FILE_BYTES_MAX: Final = 8 * 1024 * 1024
FILES_KEPT: Final = 3
TERMINAL_LINES_MAX: Final = 2000
DRAIN_SECONDS: Final = 1.0

OWN: Final = "pharos"
_COLORS: Final = {
    OWN: "1;37",
    programs.BUS: "35",
    programs.HISTORY: "33",
    programs.SCHEDULER: "34",
    programs.EMBEDDER: "36",
    programs.GATEWAY: "32",
}
_NAME_WIDTH: Final = max(map(len, _COLORS))
_COLOR_CODE: Final = re.compile(r"\x1b\[[0-9;]*m")
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1a\x1c-\x1f\x7f-\x9f]|\x1b(?!\[[0-9;]*m)")


class LogFile:
    """A file of at most 8 MiB, and the three before it."""

    def __init__(self, path: Path, *, bytes_max: int = FILE_BYTES_MAX) -> None:
        self._path = path
        self._bytes_max = bytes_max
        self._file = path.open("a", encoding="utf-8")

    def write(self, line: str) -> None:
        self._file.write(line + "\n")
        self._file.flush()
        if self._file.tell() >= self._bytes_max:
            self._rotate()

    def _rotate(self) -> None:
        self._file.close()
        for number in range(FILES_KEPT - 1, 0, -1):
            older = self._path.with_suffix(f".{number}.log")
            if older.exists():
                older.replace(self._path.with_suffix(f".{number + 1}.log"))
        self._path.replace(self._path.with_suffix(".1.log"))
        self._file = self._path.open("a", encoding="utf-8")

    def close(self) -> None:
        self._file.close()


class Reporter:
    """Never waits for the terminal: one that is stopped with Ctrl-S, or gone, must not stop the stack.

    Use it in a ``with`` block.
    """

    def __init__(self, directory: Path, terminal: TextIO | None = None) -> None:
        self._directory = directory
        self._terminal = terminal if terminal is not None else sys.stdout
        self.color = self._terminal.isatty() and "NO_COLOR" not in os.environ
        self._files: dict[str, LogFile] = {}
        self._lines: queue.Queue[str | None] = queue.Queue(TERMINAL_LINES_MAX)
        self._left_out = 0
        self._writer = threading.Thread(target=self._write, name="terminal", daemon=True)

    def __enter__(self) -> Reporter:
        self._writer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._lines.put(None, timeout=DRAIN_SECONDS)
        except queue.Full:
            pass  # nobody reads; the thread is a daemon and ends with the process
        else:
            self._writer.join(DRAIN_SECONDS)
        for file in self._files.values():
            file.close()

    def heard(self, name: str, line: str) -> None:
        """A program said *line*."""
        self._record(name, line)
        if name != programs.BUS or nats_server.worth_showing(line):
            self._show(f"{self._prefix(name)} {_CONTROL.sub('', line)}")

    def say(self, line: str) -> None:
        """The supervisor says *line*."""
        self._record(OWN, line)
        self._show(f"{self._prefix(OWN)} {line}")

    def announce(self, line: str) -> None:
        """As `say`, without a name: a line that people and programs look for."""
        self._record(OWN, line)
        self._show(line)

    def _prefix(self, name: str) -> str:
        padded = f"{name:<{_NAME_WIDTH}} |"
        return f"\x1b[{_COLORS.get(name, '0')}m{padded}\x1b[0m" if self.color else padded

    def _record(self, name: str, line: str) -> None:
        if name not in self._files:
            self._files[name] = LogFile(self._directory / f"{name}.log")
        try:
            self._files[name].write(_COLOR_CODE.sub("", line))
        except OSError as error:
            self._show(f"{self._prefix(OWN)} the log of {name} cannot be written: {error}")

    def _show(self, line: str) -> None:
        try:
            if self._left_out:
                self._lines.put_nowait(f"{self._prefix(OWN)} {self._left_out} lines were left out here")
                self._left_out = 0
            self._lines.put_nowait(line)
        except queue.Full:
            self._left_out += 1

    def _write(self) -> None:
        while (line := self._lines.get()) is not None:
            try:
                self._terminal.write(line + "\n")
                self._terminal.flush()
            except (OSError, ValueError):
                return  # the terminal is gone; the files go on
