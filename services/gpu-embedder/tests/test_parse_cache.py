"""An unchanged file is parsed once; whatever else decides what is made of it parses it again."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import zstandard
from msgspec.structs import replace

from pharos_embedder import parse_cache as module
from pharos_embedder import stages
from pharos_embedder.bounded_cache import LIMIT_BYTES_MIN, label_of
from pharos_embedder.discovery import DiscoveryLimits, discover
from pharos_embedder.packed_files import PackedFile, pack
from pharos_embedder.parse_cache import ParseCache, parsing_version
from pharos_embedder.parse_pool import ParsePool
from pharos_embedder.parsing import parse
from pharos_embedder.ports import Stopped, unchecked
from pharos_embedder.spool import Spool
from pharos_embedder.stages import Limits, ParseAccount, parse_stage
from pharos_embedder.syntax import ParseFailure, ParseOptions
from pharos_sources.git import FetchLimits

LIMITS = Limits(fetch=FetchLimits(), discovery=DiscoveryLimits(), parsing=ParseOptions(), batch_tokens=None)
FILES = {f"f{number}.py": f"def f{number}():\n    return {number}\n" for number in range(6)}


class CountingPool:
    """A pool that remembers what it was asked to parse; `broken` are files that it splits by lines."""

    def __init__(self, pool: ParsePool) -> None:
        self._pool = pool
        self.parsed: list[str] = []
        self.stops_after = 1_000

    def parse_files(self, root: Path, files: Any, options: ParseOptions, check: Any) -> Iterator[Any]:
        for outcome in self._pool.parse_files(root, files, options, check=check):
            if len(self.parsed) == self.stops_after:
                raise Stopped
            self.parsed.append(outcome.path)
            yield outcome


class Tools(NamedTuple):
    parse_cache: ParseCache
    parse_pool: Any


@pytest.fixture(scope="module")
def pool() -> Iterator[ParsePool]:
    with ParsePool(1) as made:
        yield made


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[ParseCache]:
    with ParseCache(
        tmp_path / "cache", limit_bytes=LIMIT_BYTES_MIN, warn=pytest.fail, options=ParseOptions()
    ) as made:
        yield made


@pytest.fixture
def tools(cache: ParseCache, pool: ParsePool) -> Tools:
    return Tools(cache, CountingPool(pool))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    made = tmp_path / "tree"
    made.mkdir()
    for name, text in FILES.items():
        (made / name).write_text(text)
    return made


def run(
    root: Path, tools: Tools, path: Path, *, tenant: str = "acme", job: str = "j"
) -> tuple[ParseAccount, list[str]]:
    """The account, and the texts of all chunks in order."""

    def silent(*_: Any, **__: Any) -> None:
        """Nobody asked."""

    tools.parse_pool.parsed.clear()
    path.unlink(missing_ok=True)
    with Spool(path) as spool:
        account = parse_stage(root, discover(root), spool, tools, LIMITS, tenant, job, silent, unchecked)
        texts = [chunk.encoded_text for chunk in spool.read_chunks(range(len(spool.heads)))]
    return account, texts


def test_an_unchanged_file_is_not_parsed_again_and_gives_the_same(
    root: Path, tools: Tools, tmp_path: Path
) -> None:
    _, first = run(root, tools, tmp_path / "spool")
    assert tools.parse_pool.parsed == sorted(FILES)
    account, second = run(root, tools, tmp_path / "spool")
    assert (tools.parse_pool.parsed, account.files, account.reused) == ([], 6, 6)
    assert second == first
    (root / "f3.py").write_text("changed = 1\n")
    (root / "f4.py").rename(root / "moved.py")
    account, third = run(root, tools, tmp_path / "spool")
    assert (tools.parse_pool.parsed, account.reused) == (["f3.py", "moved.py"], 4)
    # A file that was moved is parsed under its new name, but what is encoded of it is what it was.
    assert [text for text in third if text not in first] == ["changed = 1\n"]


def test_of_large_files_few_are_in_memory_at_once(
    root: Path, tools: Tools, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, first = run(root, tools, tmp_path / "spool")
    asked: list[int] = []
    get_many = tools.parse_cache.get_many

    def counted(keys: Sequence[bytes]) -> dict[bytes, PackedFile]:
        asked.append(len(keys))
        return get_many(keys)

    monkeypatch.setattr(tools.parse_cache, "get_many", counted)
    size = len(FILES["f0.py"])  # of each of them
    for most, windows in ((1, [1] * 6), (4 * size, [4, 2]), (6 * size, [6])):
        asked.clear()
        monkeypatch.setattr(stages, "PARSE_WINDOW_BYTES", most)
        account, again = run(root, tools, tmp_path / "spool")
        assert (asked, account.reused, again) == (windows, 6, first)


def test_nobody_is_answered_from_the_files_of_another_tenant(
    root: Path, tools: Tools, tmp_path: Path
) -> None:
    run(root, tools, tmp_path / "spool")
    run(root, tools, tmp_path / "spool", tenant="other")
    assert tools.parse_pool.parsed == sorted(FILES)


def test_a_job_that_was_cancelled_leaves_no_parsed_file(root: Path, tools: Tools, tmp_path: Path) -> None:
    run(root, tools, tmp_path / "spool")
    assert tools.parse_cache.jobs() == [label_of("j", "acme")]
    assert tools.parse_cache.forget(label_of("j", "acme")) == tools.parse_cache.count() + 6 == 6
    run(root, tools, tmp_path / "spool")
    tools.parse_cache.keep(label_of("j", "acme"))
    assert (tools.parse_cache.jobs(), tools.parse_cache.count()) == ([], 6)


def test_what_was_parsed_before_a_stop_is_not_parsed_again(root: Path, tools: Tools, tmp_path: Path) -> None:
    tools.parse_pool.stops_after = 2
    with pytest.raises(Stopped):
        run(root, tools, tmp_path / "spool")
    tools.parse_pool.stops_after = 1_000
    account, _ = run(root, tools, tmp_path / "spool")
    assert (tools.parse_pool.parsed, account.reused) == (sorted(FILES)[2:], 2)


def test_what_another_try_may_parse_better_is_not_kept(
    root: Path, tools: Tools, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unsettled = replace(
        pack(parse("f0.py", "python", FILES["f0.py"].encode())), warning="by lines", is_settled=False
    )
    failed = ParseFailure(path="f1.py", reason="The file was given up.")
    monkeypatch.setattr(tools.parse_pool, "parse_files", lambda *_, **__: iter([unsettled, failed]))
    account, _ = run(root, tools, tmp_path / "spool")
    assert tools.parse_cache.count() == 0
    assert [(notice.path, notice.message) for notice in account.notices] == [
        ("f0.py", "by lines"),
        ("f1.py", "The file was given up."),
    ]


def test_a_warning_is_told_again_of_a_file_that_is_not_parsed_again(
    root: Path, tools: Tools, tmp_path: Path
) -> None:
    (root / "broken.py").write_text("def (:\n")
    first, _ = run(root, tools, tmp_path / "spool")
    second, _ = run(root, tools, tmp_path / "spool")
    assert (second.reused, second.notices) == (7, first.notices)
    assert [notice.path for notice in first.notices] == ["broken.py"]


def test_all_that_decides_what_a_file_becomes_is_in_its_key(
    cache: ParseCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = {"tenant": "t", "path": "a.py", "language": "python", "content_hash": "00"}
    keys = [cache.key_of(**usual)]
    keys += [cache.key_of(**{**usual, name: "other"}) for name in usual]
    for number, options in enumerate((ParseOptions(size_chars=500), ParseOptions(overlap_chars=50))):
        path = tmp_path / f"cache{number}"
        with ParseCache(path, limit_bytes=LIMIT_BYTES_MIN, warn=pytest.fail, options=options) as other:
            keys.append(other.key_of(**usual))
    assert all(one != other for one, other in combinations(keys, 2))
    assert parsing_version() == parsing_version.__wrapped__()
    monkeypatch.setattr(module, "_PARSING", module._PARSING[1:])
    assert parsing_version() != parsing_version.__wrapped__()
    folder = Path(module.__file__).parent
    assert all(list(folder.glob(pattern)) for pattern in module._PARSING), "all of them are there"


def test_all_code_that_a_parse_worker_runs_is_part_of_the_version() -> None:
    command = (
        "import sys, pharos_embedder.parse_worker;"
        "print(*(name.rpartition('.')[2] for name in sys.modules if name.startswith('pharos_embedder.')))"
    )
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=True)
    passing_on = {"confined", "frames", "parse_protocol", "reading"}
    loaded = {f"{name}.py" for name in set(done.stdout.split()) - passing_on}
    assert loaded <= set(module._PARSING)


def test_an_entry_that_cannot_be_read_is_a_miss(root: Path, tools: Tools, tmp_path: Path) -> None:
    packed = pack(parse("f0.py", "python", FILES["f0.py"].encode()))
    key = tools.parse_cache.key_of(
        tenant="acme", path="f0.py", language="python", content_hash=packed.content_hash
    )
    tools.parse_cache.put_many({key: packed})
    assert tools.parse_cache.get_many([key]) == {key: packed}
    for body in (b"no frame", b"", zstandard.compress(b"no file")):
        tools.parse_cache.write({key: body})
        assert tools.parse_cache.get_many([key]) == {}
    assert isinstance(packed, PackedFile)


def test_a_file_that_would_drive_out_all_others_is_not_kept(cache: ParseCache) -> None:
    cache.write({b"1" * 32: b"x" * (LIMIT_BYTES_MIN // 64), b"2" * 32: b"x" * (LIMIT_BYTES_MIN // 64 + 1)})
    assert cache.count() == 1


def test_one_repository_does_not_drive_out_all_others(
    root: Path, tools: Tools, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pharos_embedder.stages.PARSED_BYTES_MAX", 0)
    tools.parse_cache.job_bytes_max = 1_000
    run(root, tools, tmp_path / "spool")
    kept = tools.parse_cache.count()
    assert 0 < kept < len(FILES)
    _, again = run(root, tools, tmp_path / "spool")
    assert tools.parse_pool.parsed == sorted(FILES)[kept:]
    assert len(again) == len(FILES)
