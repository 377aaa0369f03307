"""Files are read as far as is asked, and nothing but files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pharos_embedder.reading import read_regular


@pytest.mark.parametrize("size", [0, 1, 99, 100, 101, 200_000])
@pytest.mark.parametrize("bytes_max", [1, 100, 1 << 20])
def test_the_start_of_a_file_is_read(tmp_path: Path, size: int, bytes_max: int) -> None:
    content = os.urandom(size)
    path = tmp_path / "file"
    path.write_bytes(content)
    assert read_regular(path, bytes_max) == content[:bytes_max]


def test_a_file_that_holds_more_than_it_says_is_read_to_its_end() -> None:
    said = Path("/proc/self/cmdline")
    assert said.stat().st_size == 0
    assert read_regular(said, 1 << 20) == said.read_bytes() != b""


def test_what_is_no_file_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(__file__)
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "pipe", "nothing", "."):
        assert read_regular(tmp_path / name, 100) is None
