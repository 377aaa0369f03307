"""The pool keeps its order and its limits, whatever the files do to its workers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from pharos_embedder import parse_pool
from pharos_embedder.discovery import SourceFile, discover
from pharos_embedder.packed_files import PackedFile, pack
from pharos_embedder.parse_budget import HARD_SECONDS, ParseBudget
from pharos_embedder.parse_pool import ParseCancelled, ParsePool, ParsePoolBroken, workers_for
from pharos_embedder.parsing import parse
from pharos_embedder.syntax import ParseFailure, ParseOptions

UNRULY = """
import os, signal, sys
from pharos_embedder.parse_worker import main
from pharos_embedder.parsing import parse

def parse_file(path, language, source, options):
    word = source.split()[0].decode() if source.split() else ""
    if word == "always-hang" or (word == "hang" and not options.plain):
        while True:
            pass
    if word == "sleep" and not options.plain:
        signal.pause()
    if word == "always-crash" or (word == "crash" and not options.plain):
        os.kill(os.getpid(), signal.SIGSEGV)
    if word == "raise" and not options.plain:
        raise RecursionError
    if word == "environment":
        source = " ".join(sorted(os.environ)).encode()
    if word == "greedy" and not options.plain:
        bytearray(1 << 40)
    return parse(path, language, source, options)

main(sys.argv[1:], parse_file=parse_file)
"""


def eventually(condition: Callable[[], bool], *, seconds: float = 20.0) -> bool:
    """Whether *condition* comes true before the deadline."""
    ends_at = time.monotonic() + seconds
    while time.monotonic() < ends_at:
        if condition():
            return True
        time.sleep(0.02)
    return condition()


def gone(process_id: int) -> bool:
    try:
        return bool(psutil.Process(process_id).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def tree(root: Path, contents: dict[str, str]) -> list[SourceFile]:
    for path, text in contents.items():
        (root / path).write_text(text)
    return [
        SourceFile(path=path, size=len(text), language="python") for path, text in sorted(contents.items())
    ]


@pytest.fixture
def unruly(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., ParsePool]]:
    """Pools whose workers do what the first word of a file tells them."""
    script = tmp_path_factory.mktemp("worker") / "unruly.py"
    script.write_text(UNRULY)
    made: list[ParsePool] = []

    def make(workers: int = 1, timeout_seconds: float = 0.7, hard_seconds_max: float = 600.0) -> ParsePool:
        command = (sys.executable, str(script))
        made.append(ParsePool(workers, timeout_seconds, hard_seconds_max=hard_seconds_max, command=command))
        return made[-1]

    yield make
    for pool in made:
        pool.close()


@pytest.fixture(scope="module")
def pool() -> Iterator[ParsePool]:
    with ParsePool(2) as made:
        yield made


def test_files_come_back_in_order_as_parsed_here(pool: ParsePool, tmp_path: Path) -> None:
    files = tree(tmp_path, {f"f{number:03}.py": f"def f{number}():\n    pass\n" for number in range(300)})
    heard: list[str] = []
    options = ParseOptions(size_chars=200, overlap_chars=20)
    found = list(pool.parse_files(tmp_path, files, options, lambda one: heard.append(one.path)))
    assert found == [
        pack(parse(one.path, one.language, (tmp_path / one.path).read_bytes(), options)) for one in files
    ]
    assert sorted(heard) == [one.path for one in files]


def test_workers_stay_warm_from_tree_to_tree(pool: ParsePool, tmp_path: Path) -> None:
    files = tree(tmp_path, {"a.py": "x = 1\n", "b.py": "y = 1\n"})
    first = list(pool.parse_files(tmp_path, files))
    process_ids = pool.process_ids()
    assert list(pool.parse_files(tmp_path, files)) == first
    assert pool.process_ids() == process_ids


def test_no_files_are_no_outcomes(pool: ParsePool, tmp_path: Path) -> None:
    assert list(pool.parse_files(tmp_path, [])) == []


def test_what_cannot_be_read_is_a_failure_with_its_reason(pool: ParsePool, tmp_path: Path) -> None:
    tree(tmp_path, {"a.py": "x = 1\n"})
    (tmp_path / "binary").write_bytes(b"\0\1\2")
    (tmp_path / "link").symlink_to(tmp_path / "a.py")
    (tmp_path / "big").write_text("x = 1\n" * 100)
    os.mkfifo(tmp_path / "pipe")
    files = [
        SourceFile(path=path, size=1, language="text") for path in ("absent", "big", "binary", "link", "pipe")
    ]
    found = list(pool.parse_files(tmp_path, files, ParseOptions(file_bytes_max=100)))
    assert [one.reason for one in found if isinstance(one, ParseFailure)] == [
        "The file cannot be read.",
        "The file is over 100 bytes.",
        "The file is not text.",
        "The file cannot be read.",
        "The file cannot be read.",
    ]


def test_a_file_that_hangs_or_crashes_its_worker_is_split_by_lines(
    unruly: Callable[..., ParsePool], tmp_path: Path
) -> None:
    contents = {f"ok{number}.py": "def f(): pass\n" for number in range(20)}
    contents |= {"hang.py": "hang\n", "crash.py": "crash\n", "raise.py": "raise\n", "sleep.py": "sleep\n"}
    contents |= {"greedy.py": "greedy\n", "always1.py": "always-hang\n", "always2.py": "always-crash\n"}
    files = tree(tmp_path, contents)
    heard: list[str] = []
    found = list(unruly(2).parse_files(tmp_path, files, None, lambda one: heard.append(one.path)))
    assert [one.path for one in found] == [one.path for one in files] == sorted(heard)
    said = {
        one.path: one.reason if isinstance(one, ParseFailure) else one.warning
        for one in found
        if isinstance(one, ParseFailure) or one.warning
    }
    assert said == {
        "always1.py": "The file was given up: parsing took longer than 0.7 s.",
        "always2.py": "The file was given up: the parser died (-11).",
        "crash.py": "Split by lines: the parser died (-11).",
        "greedy.py": "Split by lines: the parser failed (MemoryError).",
        "hang.py": "Split by lines: parsing took longer than 0.7 s.",
        "raise.py": "Split by lines: the parser failed (RecursionError).",
        "sleep.py": "Split by lines: parsing took longer than 0.7 s.",
    }
    by_lines = {one.path: one for one in found if isinstance(one, PackedFile)}
    assert by_lines["hang.py"].chunks()[0].text == "hang\n"
    assert by_lines["ok1.py"].parsed().definitions


def test_when_hard_files_have_taken_enough_those_like_them_are_split_by_lines_at_once(
    unruly: Callable[..., ParsePool], tmp_path: Path
) -> None:
    contents = {f"hang{number}.py": "hang\n" + 50 * "# words\n" for number in range(30)}
    files = tree(tmp_path, contents | {"z.py": "def f(): pass\n"})
    found = list(unruly(hard_seconds_max=3.0).parse_files(tmp_path, files))
    said = Counter(one.warning for one in found if isinstance(one, PackedFile))
    assert said == {
        "Split by lines: parsing took longer than 0.7 s.": 2,
        "Split by lines: files like it took too long to parse.": 28,
        None: 1,
    }
    assert isinstance(found[-1], PackedFile) and found[-1].parsed().definitions


def test_what_was_spent_refuses_files_of_the_language_that_are_not_much_smaller() -> None:
    def file(size: int, language: str = "scala") -> SourceFile:
        return SourceFile(path="p", size=size, language=language)

    budget = ParseBudget(10.0)
    for _ in range(100):
        budget.took(file(100), HARD_SECONDS - 0.1)  # quick ones cost nothing
    budget.took(file(8_000), 9.0)
    assert not budget.refuses(file(9_000))
    budget.took(file(4_000), 2.0)
    assert [budget.refuses(file(size)) for size in (9_000, 1_000, 999)] == [True, True, False]
    assert not budget.refuses(file(9_000, "python"))
    budget.took(file(996), 10.0)
    assert [budget.refuses(file(size)) for size in (249, 248)] == [True, False]


def test_the_files_of_workers_that_died_do_not_fill_the_window(
    unruly: Callable[..., ParsePool], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    contents = {f"{number:02}.py": "crash\n" if number % 8 == 0 else "x = 1\n" for number in range(40)}
    files = tree(tmp_path, contents | {"40.py": "longer = 1\n"})
    monkeypatch.setattr(parse_pool, "_WINDOW_BYTES_MAX", 60)
    ends_at = time.monotonic() + 20

    def check() -> None:
        assert time.monotonic() < ends_at, "the files that are left are never handed out"

    found = unruly().parse_files(tmp_path, files, check=check)
    assert [one.path for one in found] == [file.path for file in files]


def test_a_worker_inherits_no_secret(
    unruly: Callable[..., ParsePool], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PHAROS_ADMIN_TOKEN", "not to be seen")
    (one,) = unruly(timeout_seconds=10).parse_files(tmp_path, tree(tmp_path, {"a.py": "environment\n"}))
    assert isinstance(one, PackedFile)
    (chunk,) = one.chunks()
    assert "PATH" in chunk.text and "PHAROS" not in chunk.text


def test_a_worker_that_was_stopped_is_replaced(unruly: Callable[..., ParsePool], tmp_path: Path) -> None:
    files = tree(tmp_path, {"a.py": "x = 1\n", "b.py": "y = 1\n"})
    pool = unruly(timeout_seconds=0.1)
    list(pool.parse_files(tmp_path, files))
    (stopped,) = pool.process_ids()
    os.kill(stopped, signal.SIGSTOP)
    found = list(pool.parse_files(tmp_path, files))
    assert [one.path for one in found] == ["a.py", "b.py"]
    assert gone(stopped)


def test_a_warm_worker_that_died_costs_no_file_its_tree(
    unruly: Callable[..., ParsePool], tmp_path: Path
) -> None:
    files = tree(tmp_path, {"a.py": "def f(): pass\n"})
    pool = unruly(timeout_seconds=10)
    first = list(pool.parse_files(tmp_path, files))
    psutil.Process(pool.process_ids()[0]).kill()
    assert eventually(lambda: gone(pool.process_ids()[0]))
    assert list(pool.parse_files(tmp_path, files)) == first


def test_a_slow_reader_is_not_the_workers_fault(unruly: Callable[..., ParsePool], tmp_path: Path) -> None:
    files = tree(tmp_path, {f"{number:02}.py": "# " + "word " * 4_000 for number in range(40)})
    seen = 0
    for one in unruly(timeout_seconds=0.4).parse_files(tmp_path, files):
        assert isinstance(one, PackedFile) and one.warning is None
        time.sleep(0.05 if seen else 1.5)
        seen += 1
    assert seen == 40


def test_leaving_early_ends_the_busy_workers_and_keeps_the_pool_usable(
    unruly: Callable[..., ParsePool], tmp_path: Path
) -> None:
    contents = {"a.py": "x = 1\n"} | {f"b{number}.py": "hang\n" for number in range(5)}
    files = tree(tmp_path, contents)
    pool = unruly(timeout_seconds=30)
    outcomes = pool.parse_files(tmp_path, files)
    next(outcomes)
    busy = pool.process_ids()
    outcomes.close()  # type: ignore[attr-defined]
    assert all(gone(one) for one in busy)
    assert len(list(pool.parse_files(tmp_path, files[:1]))) == 1


def test_closing_from_another_thread_stops_everything(
    unruly: Callable[..., ParsePool], tmp_path: Path
) -> None:
    pool = unruly(2, timeout_seconds=30)
    files = tree(tmp_path, {"a.py": "hang\n", "b.py": "hang\n"})
    timer = threading.Timer(0.8, pool.close)
    timer.start()
    with pytest.raises(ParseCancelled):
        list(pool.parse_files(tmp_path, files))
    timer.join()
    assert pool.process_ids() == ()
    with pytest.raises(ParseCancelled):
        list(pool.parse_files(tmp_path, files))


def test_one_tree_at_a_time(pool: ParsePool, tmp_path: Path) -> None:
    files = tree(tmp_path, {"a.py": "x = 1\n", "b.py": "x = 1\n"})
    outcomes = pool.parse_files(tmp_path, files)
    next(outcomes)
    with pytest.raises(RuntimeError, match="another tree"):
        next(pool.parse_files(tmp_path, files))
    list(outcomes)


def test_workers_that_cannot_start_break_the_pool(tmp_path: Path) -> None:
    files = tree(tmp_path, {"a.py": "x = 1\n"})
    with (
        ParsePool(2, command=(sys.executable, "-c", "raise SystemExit(3)")) as broken,
        pytest.raises(ParsePoolBroken, match="status 3"),
    ):
        list(broken.parse_files(tmp_path, files))


@pytest.mark.parametrize(("workers", "timeout_seconds"), [(0, 1.0), (1, 0.0)])
def test_a_pool_without_workers_or_time_is_refused(workers: int, timeout_seconds: float) -> None:
    with pytest.raises(ValueError, match="must be"):
        ParsePool(workers, timeout_seconds)


@pytest.mark.parametrize(
    ("cores", "pools", "workers"), [(1, 1, 2), (2, 1, 2), (6, 1, 6), (16, 1, 8), (16, 4, 4), (16, 16, 2)]
)
def test_pools_share_the_cores_of_their_machine(cores: int, pools: int, workers: int) -> None:
    assert workers_for(cores, pools) == workers


PARENT = """
import sys, threading
from pathlib import Path
from pharos_embedder.discovery import SourceFile
from pharos_embedder.packed_files import PackedFile, pack
from pharos_embedder.parse_pool import ParsePool
pool = ParsePool(2, 2.0, command=(sys.executable, sys.argv[1]))
files = [SourceFile(path=path, size=6, language="python") for path in ("a.py", "b.py")]
def run():
    for one in pool.parse_files(Path(sys.argv[2]), files):
        print(*pool.process_ids(), flush=True)
run()
"""


def test_workers_die_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("x = 1\n")
    (tmp_path / "b.py").write_text("hang\n")
    (tmp_path / "unruly").write_text(UNRULY)
    arguments = [sys.executable, "-c", PARENT, str(tmp_path / "unruly"), str(tmp_path)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        workers = [int(word) for word in parent.stdout.readline().split()]
        assert workers and not any(gone(one) for one in workers)
        parent.kill()
    assert eventually(lambda: all(gone(one) for one in workers))


def test_a_worker_imports_nothing_heavy() -> None:
    heavy = "{'torch', 'numpy', 'nats', 'qdrant_client', 'transformers', 'pathspec', 'asyncio'}"
    command = (
        "import sys, pharos_embedder.parse_worker, pharos_embedder.languages as l;"
        "[l.grammar_of(one) for one in l.PARSED_LANGUAGES];"
        f"sys.exit(', '.join({heavy} & set(sys.modules)) or None)"
    )
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_discovered_tree_goes_through_whole(pool: ParsePool) -> None:
    root = Path(__file__).parent.parent / "src"
    found = discover(root)
    outcomes = list(pool.parse_files(root, found.files))
    assert [one.path for one in outcomes] == [one.path for one in found.files]
    assert all(isinstance(one, PackedFile) and one.heads for one in outcomes)
