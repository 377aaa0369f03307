"""A checkout that is kept gives the files that a fetch from the beginning gives, and takes what it may."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from pathlib import Path

import pytest

from pharos_sources import kept_checkouts
from pharos_sources.git import Checkout, FetchError, FetchLimits, RefNotFound, RepositoryTooLarge, fetch
from pharos_sources.kept_checkouts import DEPTH_MAX, FILE_BYTES, PACKS_MAX, SHARE, KeptCheckouts
from tests.support.git_fetches import address_of
from tests.support.git_server import Content, Executable, GitServer, Submodule, Symlink

pytestmark = pytest.mark.anyio

FILES: dict[str, Content] = {
    "a.py": "x = 1\n",
    "d/b.py": "y = 2\n",
    "d/e/c.txt": b"\0\xff",
    "link": Symlink("a.py"),
    "sub/m": Submodule("1" * 40),
    "run": Executable("#!/bin/sh\n"),
}


def unexpected(text: str) -> None:
    raise AssertionError(text)


def kept_in(folder: Path, bytes_max: int = 1 << 30) -> KeptCheckouts:
    return KeptCheckouts(folder, bytes_max=bytes_max, warn=unexpected)


def entries_of(checkout: Checkout) -> dict[str, bytes | bool | None]:
    """Every file with its bytes and whether it can be run, and every folder, the empty ones as well."""
    found: dict[str, bytes | bool | None] = {}
    for path in checkout.root.rglob("*"):
        name = str(path.relative_to(checkout.root))
        found[name] = path.read_bytes() if path.is_file() else None
        if path.is_file():
            found[f"{name}*"] = os.access(path, os.X_OK)
    return found


def facts_of(checkout: Checkout) -> tuple[object, ...]:
    return (
        checkout.commit, checkout.branch, checkout.default_branch, checkout.bytes, checkout.files,
        checkout.symlinks, checkout.submodules, entries_of(checkout),
    )  # fmt: skip


def changed_at_random(chance: random.Random, step: int) -> dict[str, Content | None]:
    """A commit on FILES, or on what such commits made of them: files become folders, links and submodules."""
    contents: list[Content] = [
        f"step {step}\n", Executable(f"step {step}\n"), Symlink(f"step-{step}"), Submodule(f"{step:040x}"),
        bytes([step]) * 3,
    ]  # fmt: skip
    places = ["a.py", "d/b.py", "d/e", "link", "sub/m", "sub", "run", f"new/{step}.py"]
    return {path: chance.choice([None, *contents]) for path in chance.sample(places, 3)}


async def test_what_is_kept_becomes_what_a_whole_fetch_gives(
    running: GitServer, name: str, tmp_path: Path
) -> None:
    chance = random.Random(7)
    running.add_repository(name, FILES)
    running.add_commits(name, [{"other/branch.py": "1\n", "d/e/c.txt": None}], branch="side", start="main")
    address = address_of(running, name)
    kept = kept_in(tmp_path / "kept")
    taken = 0
    for step in range(9):
        branch = "side" if step % 4 == 3 else "main"
        if step:
            running.add_commits(name, [changed_at_random(chance, step)], branch=branch)
        if step == 6:
            running.force(name, "main", running.commit_of(name, "main~2"))
        earlier = kept.path_of("acme", name)
        taken += earlier.exists()
        made = tmp_path / "work" / f"kept-{step}"
        found = await fetch(address, made, ref=branch, earlier=earlier)
        assert not earlier.exists()
        assert (made / "git" / "marker").exists() == bool(step)  # a whole fetch would have removed it
        wanted = await fetch(address, tmp_path / "work" / f"anew-{step}", ref=branch)
        assert facts_of(found) == facts_of(wanted), step
        (made / "git" / "marker").touch()
        assert kept.keep("acme", name, made, found)
        assert not made.exists()
    assert taken == 8


async def test_a_commit_costs_the_objects_that_it_changed(
    running: GitServer, name: str, tmp_path: Path
) -> None:
    running.add_repository(name, {f"{n}.bin": os.urandom(20_000) for n in range(20)})
    address = address_of(running, name)
    await fetch(address, tmp_path / "first")
    before = set((tmp_path / "first" / "git").rglob("*.pack"))
    unchanged = (tmp_path / "first" / "tree" / "3.bin").stat()
    running.add_commits(name, [{"new.py": "1\n"}])
    running.add_commits(name, [{"a/b/c/d.py": "1\n"}])
    found = await fetch(address, tmp_path / "second", earlier=tmp_path / "first")
    assert found.depth == 3
    packs = list((tmp_path / "second" / "git").rglob("*.pack"))
    assert len(before) == 1 and len(packs) == 2
    assert min(each.stat().st_size for each in packs) < 2_000
    again = (found.root / "3.bin").stat()
    assert (again.st_ino, again.st_mtime_ns) == (unchanged.st_ino, unchanged.st_mtime_ns)


@pytest.mark.parametrize("damage", ["objects", "index", "everything", "another repository", "sha256"])
async def test_what_is_damaged_costs_a_whole_fetch_and_nothing_else(
    running: GitServer, name: str, tmp_path: Path, damage: str
) -> None:
    running.add_repository(name, FILES)
    address = address_of(running, name)
    earlier = tmp_path / "earlier"
    await fetch(address, earlier)
    match damage:
        case "objects":
            for pack in (earlier / "git").rglob("*.pack"):
                pack.chmod(0o600)
                pack.write_bytes(b"PACK")
        case "index":
            (earlier / "git" / "index.lock").touch()
        case "everything":
            for place in (earlier / "git", earlier / "tree"):
                subprocess.run(["rm", "-r", str(place)], check=True)
        case "another repository":
            running.add_repository(f"{name}-other", {"z.py": "z\n", "d": "no folder\n"})
            subprocess.run(["rm", "-r", str(earlier)], check=True)
            await fetch(address_of(running, f"{name}-other"), earlier)
        case _:
            subprocess.run(["rm", "-r", str(earlier / "git")], check=True)
            subprocess.run(
                ["git", "init", "-q", "--bare", "--object-format=sha256", str(earlier / "git")], check=True
            )
    running.add_commits(name, [{"a.py": "x = 2\n", "d/b.py": None}])
    found = await fetch(address, tmp_path / "found", earlier=earlier)
    assert facts_of(found) == facts_of(await fetch(address, tmp_path / "wanted"))


async def test_limits_and_refusals_are_those_of_a_whole_fetch(
    running: GitServer, name: str, tmp_path: Path
) -> None:
    running.add_repository(name, {"a.bin": os.urandom(6_000)})
    address = address_of(running, name)
    limits = FetchLimits(bytes_max=10_000)
    await fetch(address, tmp_path / "1", limits=limits)
    running.add_commits(name, [{"a.bin": os.urandom(6_000)}])  # with what is kept it is too much, alone not
    await fetch(address, tmp_path / "2", limits=limits, earlier=tmp_path / "1")
    running.add_commits(name, [{"b.bin": os.urandom(6_000)}])
    with pytest.raises(RepositoryTooLarge):
        await fetch(address, tmp_path / "3", limits=limits, earlier=tmp_path / "2")
    assert not (tmp_path / "3").exists() and not (tmp_path / "2").exists()
    await fetch(address, tmp_path / "4")
    with pytest.raises(RefNotFound):
        await fetch(address, tmp_path / "5", ref="absent", earlier=tmp_path / "4")
    assert (tmp_path / "4").exists()  # nothing was transferred yet: it is as good as before


async def test_a_commit_that_the_remote_has_removed_is_not_given_from_what_is_kept(
    running: GitServer, name: str, tmp_path: Path
) -> None:
    running.add_repository(name, {"password.txt": "secret\n"})
    address, removed = address_of(running, name), running.commit_of(name, "main")
    await fetch(address, tmp_path / "1")
    running.add_repository(f"{name}-clean", {"a.py": "1\n"})
    place = running.repository_path(name)
    shutil.rmtree(place)
    shutil.copytree(running.repository_path(f"{name}-clean"), place)
    for number, earlier in ((2, None), (3, tmp_path / "1")):
        with pytest.raises(FetchError):
            await fetch(address, tmp_path / str(number), sha=removed, earlier=earlier)
    assert not (tmp_path / "1").exists()


def made_of(folder: Path, size: int, packs: int = 1, depth: int = 1) -> Checkout:
    """A folder that looks like a fetch's, of about *size* bytes."""
    pack = folder / "git" / "objects" / "pack"
    pack.mkdir(parents=True)
    for number in range(packs):
        (pack / f"{number}.pack").write_bytes(b"")
    (folder / "tree").mkdir()
    return Checkout(
        root=folder / "tree", commit="", branch=None, default_branch=None, bytes=size - FILE_BYTES, files=1,
        symlinks=0, submodules=0, depth=depth,
    )  # fmt: skip


async def test_what_was_used_longest_ago_makes_room(tmp_path: Path) -> None:
    most = 100_000
    kept = kept_in(tmp_path / "kept", bytes_max=most)

    def keep(number: int, size: int = most // SHARE, packs: int = 1, depth: int = 1) -> bool:
        made = tmp_path / f"made-{number}"
        there = kept.keep("acme", f"r{number}", made, made_of(made, size, packs, depth))
        if there:
            os.utime(kept.path_of("acme", f"r{number}"), (number, number))
        return there

    def there() -> list[int]:
        return [number for number in range(20) if kept.path_of("acme", f"r{number}").exists()]

    assert all(keep(number) for number in (1, 2, 3, 4))
    assert there() == [1, 2, 3, 4]
    kept.path_of("acme", "r2").rename(tmp_path / "taken")  # by a job
    assert keep(5) and keep(6)
    assert there() == [3, 4, 5, 6]
    assert not keep(7, size=most // SHARE + 1)
    assert not keep(8, packs=PACKS_MAX + 1)
    assert not keep(10, depth=DEPTH_MAX + 1)
    kept.forget("acme", "r4")
    kept.forget("other", "r5")
    assert there() == [3, 5, 6]
    (tmp_path / "kept" / f"{kept.path_of('acme', 'r3').name}.going-1").mkdir()
    kept = kept_in(tmp_path / "kept", bytes_max=most // 2)  # set lower since
    assert there() == [5, 6]
    assert len(list((tmp_path / "kept").iterdir())) == 2
    kept = kept_in(tmp_path / "kept", bytes_max=0)
    assert there() == [] and not keep(9)


async def test_what_other_code_made_is_neither_read_nor_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def keep(kept: KeptCheckouts) -> Path:
        made = tmp_path / "made"
        assert kept.keep("acme", "r", made, made_of(made, 10_000))
        return kept.path_of("acme", "r")

    folder = tmp_path / "kept"
    mine = keep(kept_in(folder))
    kept_in(folder)
    assert mine.exists()  # by the same code
    (folder / mine.name.partition("-")[2]).mkdir()  # by a release that did not say by what it was made
    (folder / "notes").write_text("of somebody else\n")
    monkeypatch.setattr(kept_checkouts, "format_version", lambda: "0" * 16)
    newer = kept_in(folder)
    assert newer.path_of("acme", "r") != mine and not newer.path_of("acme", "r").exists()
    assert [each.name for each in folder.iterdir()] == ["notes"]
    assert keep(newer).exists()


async def test_of_two_that_are_kept_at_once_one_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = kept_in(tmp_path / "kept")
    monkeypatch.setattr(kept, "_remove", lambda _place: None)  # as if the other came right behind it
    found = []
    for name in ("one", "other"):
        made = tmp_path / name
        found.append(kept.keep("acme", "r", made, made_of(made, 10_000)))
    assert found == [True, False]
    assert (tmp_path / "other").exists()  # it goes with its workspace


async def test_what_is_not_whole_goes_and_what_is_nobodys_stays(tmp_path: Path) -> None:
    kept = kept_in(tmp_path / "kept")
    torn, made = tmp_path / "kept" / "torn", tmp_path / "made"
    torn.mkdir(parents=True)  # the power failed before its size was on the disk: nobody would ever count it
    (tmp_path / "kept" / "a file").touch()
    assert kept.keep("acme", "r", made, made_of(made, 10_000))
    assert not torn.exists() and (tmp_path / "kept" / "a file").exists()


async def test_a_disk_that_fails_is_told_and_costs_no_job(
    running: GitServer, name: str, tmp_path: Path
) -> None:
    told: list[str] = []
    (tmp_path / "file").touch()
    kept = KeptCheckouts(tmp_path / "file" / "kept", bytes_max=1 << 30, warn=told.append)
    made = tmp_path / "made"
    assert not kept.keep("acme", "r", made, made_of(made, 10_000))
    kept.forget("acme", "r")
    assert len(told) >= 2
    running.add_repository(name, FILES)
    found = await fetch(address_of(running, name), tmp_path / "found", earlier=kept.path_of("acme", name))
    assert found.files == len(FILES) - 1  # the submodule
