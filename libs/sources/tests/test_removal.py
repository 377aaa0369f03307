"""Whatever a repository left behind can be removed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pharos_sources.git import bytes_in
from pharos_sources.removal import remove_tree


def nest(folder: Path, depth: int) -> None:
    """*depth* folders, each in the one before, with a file of one byte in the last."""
    at = os.open(folder, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("d", dir_fd=at)
        deeper = os.open("d", os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = deeper
    os.close(os.open("f", os.O_CREAT | os.O_WRONLY, dir_fd=at))
    os.close(at)


@pytest.mark.parametrize("depth", [3, 1_200, 3_000])
def test_a_tree_of_any_depth_is_removed(tmp_path: Path, depth: int) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    nest(tree, depth)
    bytes_in(tree)  # counting it does not fail either
    remove_tree(tree)
    assert not tree.exists()


def test_folders_that_nobody_may_write_are_removed_too(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "locked").mkdir(parents=True)
    (tree / "locked" / "file").write_text("x")
    (tree / "locked").chmod(0o500)
    remove_tree(tree)
    assert not tree.exists()


def test_what_is_not_there_is_removed_already(tmp_path: Path) -> None:
    remove_tree(tmp_path / "nothing")


def test_a_link_is_removed_and_not_what_it_points_to(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    link = tmp_path / "-rf"  # a name that looks like an option
    link.symlink_to(kept)
    remove_tree(link)
    assert kept.is_dir()
    assert not link.is_symlink()
