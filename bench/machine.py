"""What a result was measured on; nothing that would tell whose machine it is."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path

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
