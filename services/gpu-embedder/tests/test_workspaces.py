"""A folder of its own for each process of a home, and nothing left of those that were killed."""

from __future__ import annotations

from pathlib import Path

import pytest

from pharos_embedder.workspaces import WorkspacesInUse, own_workspaces


def test_what_a_killed_process_left_is_gone_when_it_is_back(tmp_path: Path) -> None:
    for name in (None, "gpu-1"):
        with own_workspaces(tmp_path, name) as folder:
            (folder / "job-1").mkdir()
        with own_workspaces(tmp_path, name) as again:
            assert again == folder
            assert list(again.iterdir()) == []
            assert again.stat().st_mode & 0o077 == 0


def test_processes_of_one_home_leave_each_other_alone(tmp_path: Path) -> None:
    with (
        own_workspaces(tmp_path, None) as first,
        own_workspaces(tmp_path, "gpu-1") as second,
    ):
        (first / "job-1").mkdir()
        (second / "job-2").mkdir()
        with own_workspaces(tmp_path, "gpu-2"):
            assert [each.name for folder in (first, second) for each in folder.iterdir()] == [
                "job-1",
                "job-2",
            ]


def test_two_of_one_name_do_not_share_a_folder(tmp_path: Path) -> None:
    with own_workspaces(tmp_path, "gpu-1") as folder:
        (folder / "job-1").mkdir()
        with pytest.raises(WorkspacesInUse, match="PHAROS_WORKER_NAME"), own_workspaces(tmp_path, "gpu-1"):
            pass
        assert (folder / "job-1").exists()
    with own_workspaces(tmp_path, "gpu-1"):
        pass


def test_what_a_worker_left_that_never_came_back_goes_when_another_starts(tmp_path: Path) -> None:
    with own_workspaces(tmp_path, "yesterday") as folder:
        (folder / "job-1").mkdir()
    with own_workspaces(tmp_path, "today") as other:
        assert {each.name for each in other.parent.iterdir() if each.is_dir()} == {"today"}
    assert not any("yesterday" in each.name for each in other.parent.iterdir())
