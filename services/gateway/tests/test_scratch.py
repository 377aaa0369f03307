"""A folder of the process: its own, gone when it ends, and nothing of a killed one stays."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from pharos_gateway.scratch import Scratch
from pharos_sources.removal import remove_tree

pytestmark = pytest.mark.anyio


# Makes its folder, says so, and waits to be killed.
OTHER = """
import asyncio, sys
from pathlib import Path
from pharos_gateway.scratch import Scratch

async def live():
    scratch = Scratch(Path(sys.argv[1]))
    folder = await scratch.folder()
    (folder / "archive").write_text("x")
    print(folder, flush=True)
    await asyncio.sleep(60)

asyncio.run(live())
"""


async def test_it_is_made_once_when_it_is_asked_for_and_goes_with_its_process(tmp_path: Path) -> None:
    scratch = Scratch(tmp_path / "home" / "tmp")
    await scratch.close()
    assert not (tmp_path / "home").exists()
    folders = await asyncio.gather(*(scratch.folder() for _ in range(5)))
    assert len(set(folders)) == 1
    (folders[0] / "file").write_text("x")
    other = Scratch(tmp_path / "home" / "tmp")
    assert await other.folder() != folders[0] and (folders[0] / "file").exists()
    await scratch.close()
    await other.close()
    assert list((tmp_path / "home" / "tmp").iterdir()) == []


async def test_the_folder_of_a_killed_process_is_removed_and_that_of_a_living_one_is_not(
    tmp_path: Path,
) -> None:
    command = [sys.executable, "-c", OTHER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        theirs = Path(process.stdout.readline().strip())
        first = Scratch(tmp_path)
        await first.folder()
        assert (theirs / "archive").exists()
        await first.close()
        process.kill()
        process.wait(10)
    second = Scratch(tmp_path)
    folder = await second.folder()
    assert not theirs.exists() and list(tmp_path.iterdir()) == [folder]
    await second.close()


async def test_what_a_killed_one_left_is_removed_however_deep_it_is(tmp_path: Path) -> None:
    """It may be the checkout of a repository, as deep as a stranger made it."""
    left = tmp_path / "process-killed"
    left.mkdir()
    script = f"cd {left}; for i in $(seq 1500); do mkdir d && cd d; done"
    subprocess.run(["/bin/sh", "-c", script], check=True)
    scratch = Scratch(tmp_path)
    try:
        assert await scratch.folder() and not left.exists()
    finally:
        remove_tree(left)  # which pytest could not
    await scratch.close()
