"""How many writes are synced to the disk: as the streams, the server and the disk itself count them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
import time
from collections import Counter
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from pharos_service.bus import Bus

ATTACH_SECONDS: Final = 10.0
DETACH_SECONDS: Final = 5.0
_FLUSHES: Final = 15  # the 16th field of a block device's ``stat``, see Documentation/block/stat.rst
_SYNCED: Final = re.compile(r"f(?:data)?sync\(\d+<(?P<path>[^>]*)>")
_STREAM: Final = re.compile(r"/streams/(?P<stream>[^/]+)/(?P<part>msgs|obs)/")
_PARTS: Final = {"msgs": "messages", "obs": "consumers"}


async def stored(bus: Bus) -> dict[str, int]:
    """Messages that each stream which syncs every write has ever stored."""
    found: dict[str, int] = {}
    while True:
        page = await bus.api("STREAM.LIST", {"offset": len(found)})
        for stream in page["streams"]:
            synced = stream["config"]["storage"] == "file" and stream["config"].get("persist_mode") != "async"
            found[stream["config"]["name"]] = stream["state"]["last_seq"] if synced else 0
        if len(found) >= page["total"] or not page["streams"]:
            return found


def flushes(folder: Path) -> int | None:
    """Flushes that the device of *folder* has carried out, whoever asked; None where nobody counts them."""
    number = os.stat(folder).st_dev
    device = Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}").resolve()
    if (device / "partition").exists():
        device = device.parent
    try:
        return int((device / "stat").read_text().split()[_FLUSHES])
    except (OSError, IndexError):
        return None


class Syncs:
    """Every ``fsync`` of a process while the block lasts, by the stream that it was for; needs strace.

    ``counts`` is None where strace is missing or may not attach. The process is slower meanwhile.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._strace: subprocess.Popen[bytes] | None = None
        self.counts: Counter[str] | None = None

    def __enter__(self) -> Syncs:
        self._folder = tempfile.TemporaryDirectory(prefix="pharos-bench-")
        self._output = Path(self._folder.name) / "syncs"
        program = shutil.which("strace")
        if program is not None:
            command = [program, "-f", "-y", "-e", "trace=fsync,fdatasync", "-o", str(self._output)]
            self._strace = subprocess.Popen(
                [*command, "-p", str(self._pid)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            self._wait_until_attached(self._strace)
        return self

    def _wait_until_attached(self, strace: subprocess.Popen[bytes]) -> None:
        status = Path(f"/proc/{self._pid}/status")
        deadline = time.monotonic() + ATTACH_SECONDS
        while f"TracerPid:\t{strace.pid}\n" not in status.read_text():
            if strace.poll() is not None or time.monotonic() > deadline:
                return
            time.sleep(0.02)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._strace is not None:
            attached = self._strace.poll() is None
            self._strace.terminate()
            self._strace.wait(DETACH_SECONDS)
            if attached and self._output.exists():
                self.counts = Counter(
                    _owner(match["path"]) for match in _SYNCED.finditer(self._output.read_text())
                )
        self._folder.cleanup()


def _owner(path: str) -> str:
    """``JOBS messages`` or ``JOBS consumers``, from the path of the file that was synced."""
    found = _STREAM.search(path)
    return f"{found['stream']} {_PARTS[found['part']]}" if found else "other"


def per_job(counts: dict[str, int] | Counter[str], jobs: int) -> dict[str, Any]:
    """Counts for each job, those that are none left out, with their ``sum``."""
    found = {name: round(count / jobs, 2) for name, count in sorted(counts.items()) if count}
    return {**found, "sum": round(sum(counts.values()) / jobs, 2)}
