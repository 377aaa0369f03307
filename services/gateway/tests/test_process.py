"""What the process is made of, and how it refuses to start."""

from __future__ import annotations

import os
import subprocess
import sys

FORBIDDEN = (
    "torch",
    "tree_sitter",
    "qdrant_client",
    "qdrant_edge",
    "transformers",
    "sqlalchemy",
    "faststream",
    "numpy",
    "pharos_embedder",
    "pharos_history",
    "pharos_scheduler",
)
RESIDENT_BYTES_MAX = 150 * 1024 * 1024

PROGRAM = """
import asyncio, sys
from pathlib import Path
from pharos_gateway import app
from pharos_gateway.settings import Settings
from pharos_service.settings import Secret

async def main():
    async with app.serving(Settings(port=0, admin_token=Secret("t" * 32), nats_url="nats://127.0.0.1:1")):
        await asyncio.sleep(0.2)
        rows = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        print("resident=", int(rows["VmRSS"].split()[0]) * 1024)
        print("modules=", " ".join(sorted({name.partition(".")[0] for name in sys.modules})))

asyncio.run(main())
"""


def test_the_gateway_is_small_and_carries_no_library_of_a_worker() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, check=True
    )
    found = dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)
    resident, modules = found["resident"], found["modules"]
    assert not set(FORBIDDEN) & set(modules.split())
    assert int(resident) < RESIDENT_BYTES_MAX


def test_a_short_token_is_refused_with_a_sentence_that_does_not_repeat_it() -> None:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PHAROS_")}
    done = subprocess.run(
        [sys.executable, "-m", "pharos_gateway"],
        env={**environ, "PHAROS_ADMIN_TOKEN": "sesame"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 78
    assert "PHAROS_ADMIN_TOKEN has 6 characters; it needs at least 32." in done.stderr
    assert "sesame" not in done.stderr
