"""What a result was measured on; nothing that would tell whose machine it is."""

from __future__ import annotations

import os
import platform
import resource
import time
from importlib.metadata import version
from pathlib import Path

import psutil

from pharos_embedder.devices import choose_device


def cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


def machine() -> dict[str, str | int | None]:
    choice = choose_device()
    return {
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "threads": choice.threads,
        "device": choice.device,
        "dtype": choice.dtype,
        "why": choice.why,
        "torch": version("torch"),
        "python": platform.python_version(),
    }


class Beside:
    """What else the machine did, from when this is made until it is `told`.

    What was measured must be a child of this process that has ended by then, or this process itself.
    """

    def __init__(self) -> None:
        self._load = os.getloadavg()[0]
        self._began = time.perf_counter()
        self._busy, self._own = _busy_seconds(), _own_seconds()

    def told(self) -> dict[str, object]:
        """The load before and after, and how many cores were busy with something else, on average."""
        others = _busy_seconds() - self._busy - (_own_seconds() - self._own)
        return {
            "load": [round(self._load, 2), round(os.getloadavg()[0], 2)],
            "cores_busy_with_others": round(max(0.0, others) / (time.perf_counter() - self._began), 2),
        }


def _busy_seconds() -> float:
    times = psutil.cpu_times()
    return float(times.user + times.nice + times.system)


def _own_seconds() -> float:
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)
