"""The pool reads documents apart, and lives on whatever they do to its processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from pharos_embedder.documents.pool import DocumentPool, DocumentPoolBroken, DocumentPoolClosed
from pharos_embedder.documents.quality import quality
from pharos_embedder.documents.reading import read_document
from pharos_embedder.documents.refusals import DocumentRefused
from pharos_embedder.documents.splitting import split_document

UNRULY = """
import os, signal, sys
from pathlib import Path
from pharos_embedder.documents.process import main
from pharos_embedder.documents.reading import read_document

def read(source, name, declared_type, limits, math):
    if name == "hang":
        while True:
            pass
    if name == "sleep":
        signal.pause()
    if name == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if name == "garble":
        os.write(1, b"\\xff" * 64)
    if name == "raise":
        raise RecursionError
    if name == "greedy":
        bytearray(1 << 40)
    if name == "write":
        with Path(source.decode()).open("wb") as file:
            file.seek(300 << 20)
            file.write(b"x")
    if name == "environment":
        source = " ".join(sorted(os.environ)).encode()
    if name == "process":
        source = str(os.getpid()).encode()
    return read_document(source, name, declared_type, limits, math)

main(sys.argv[1:], read=read)
"""

TEXT = b"# Lamps\n\n" + b"The keeper lights the lamp at dusk. " * 200


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


@pytest.fixture
def unruly(tmp_path: Path) -> Iterator[Callable[..., DocumentPool]]:
    """Pools whose processes do what the name of a document tells them."""
    script = tmp_path / "unruly.py"
    script.write_text(UNRULY)
    made: list[DocumentPool] = []

    def make(processes: int = 1, timeout_seconds: float = 0.7) -> DocumentPool:
        made.append(DocumentPool(processes, timeout_seconds, command=(sys.executable, str(script))))
        return made[-1]

    yield make
    for pool in made:
        pool.close()


@pytest.fixture(scope="module")
def pool() -> Iterator[DocumentPool]:
    with DocumentPool(1) as made:
        yield made


def refusal(pool: DocumentPool, name: str, content: bytes = b"x") -> tuple[str, str]:
    with pytest.raises(DocumentRefused) as refused:
        pool.read(content, name)
    return refused.value.code, refused.value.sentence


def test_a_document_comes_back_as_it_is_read_here(pool: DocumentPool, tmp_path: Path) -> None:
    path = tmp_path / "lamps"
    path.write_bytes(TEXT)
    document = read_document(TEXT, "lamps.md")
    for source in (TEXT, path):
        read = pool.read(source, "lamps.md", chunk_size=400, overlap=40)
        assert list(read.chunks) == split_document(document, 400, 40)
        assert (read.summary.title, read.summary.kind, read.summary.characters) == (
            "Lamps", "markdown", len(document.text),
        )  # fmt: skip
        assert read.summary.quality == quality(document)
        assert read.summary.content_hash == document.content_hash
        assert read.summary.chunks == len(read.chunks)


def test_a_long_document_comes_back_whole(pool: DocumentPool) -> None:
    text = b"word " * 600_000
    read = pool.read(text, "a.txt", chunk_size=200, overlap=0)
    assert len(read.chunks) == read.summary.chunks > 10_000
    assert " ".join(chunk.text for chunk in read.chunks).split() == text.decode().split()


def test_a_process_stays_warm_from_document_to_document(pool: DocumentPool) -> None:
    pool.read(TEXT, "a.md")
    process_ids = pool.process_ids()
    pool.read(TEXT, "b.md")
    assert pool.process_ids() == process_ids


def test_a_pool_that_was_warmed_has_a_process_that_the_first_document_finds() -> None:
    with DocumentPool(1) as pool:
        pool.warm()
        (warm,) = pool.process_ids()
        pool.read(b"# A\n\nb", "a.md")
        assert pool.process_ids() == (warm,)
    pool.warm()  # it was closed meanwhile: nobody wants it warm


def test_a_refusal_comes_back_with_its_sentence(pool: DocumentPool, tmp_path: Path) -> None:
    assert refusal(pool, "a.pdf", b"%PDF-1.4 garbage")[0] == "document_damaged"
    assert refusal(pool, "a.txt", b"") == ("document_empty", "The document is empty.")
    with pytest.raises(DocumentRefused, match="cannot be read"):
        pool.read(tmp_path / "missing", "a.txt")
    (tmp_path / "link").symlink_to("/etc/passwd")
    with pytest.raises(DocumentRefused, match="cannot be read"):
        pool.read(tmp_path / "link", "a.txt")


@pytest.mark.parametrize(
    ("name", "code", "word"),
    [
        ("hang", "document_too_slow", "took longer than the 0.7 s"),
        ("sleep", "document_too_slow", "took longer than the 0.7 s"),
        ("crash", "document_damaged", "broke down"),
        ("garble", "document_damaged", "broke down"),
        ("raise", "document_damaged", "RecursionError"),
        ("greedy", "document_too_large", "memory"),
        ("write", "document_damaged", ""),
    ],
)
def test_a_document_that_breaks_its_process_is_refused_and_the_next_is_read(
    unruly: Callable[..., DocumentPool], name: str, code: str, word: str, tmp_path: Path
) -> None:
    pool = unruly()
    written = tmp_path / "written"
    refused = refusal(pool, name, str(written).encode() if name == "write" else b"x")
    assert refused[0] == code and word in refused[1]
    assert not written.exists() or not written.stat().st_size
    assert pool.read(b"fine", "a.txt").chunks[0].text == "fine"


def test_a_process_inherits_no_secret(
    unruly: Callable[..., DocumentPool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PHAROS_SECRET_KEY", "canary")
    names = set(unruly(timeout_seconds=10.0).read(b"x", "environment").chunks[0].text.split())
    assert "PATH" in names
    assert not any("PHAROS" in name or "SECRET" in name for name in names)


def test_documents_are_read_side_by_side_up_to_the_number_of_processes(
    unruly: Callable[..., DocumentPool],
) -> None:
    pool = unruly(2, timeout_seconds=10.0)
    seen: list[str] = []
    threads = [
        threading.Thread(target=lambda: seen.append(pool.read(b"x", "process").chunks[0].text))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(seen) == 8
    assert 1 <= len(set(seen)) <= 2
    assert len(pool.process_ids()) <= 2


def test_a_check_that_raises_ends_the_reading_and_its_process(unruly: Callable[..., DocumentPool]) -> None:
    pool = unruly(timeout_seconds=30.0)
    asked: list[int] = []

    def check() -> None:
        asked.append(1)
        if len(asked) > 3:
            raise InterruptedError

    began = time.monotonic()
    with pytest.raises(InterruptedError):
        pool.read(b"x", "sleep", check=check)
    assert time.monotonic() - began < 5
    assert pool.process_ids() == ()


def test_a_check_is_asked_while_all_processes_are_busy(unruly: Callable[..., DocumentPool]) -> None:
    pool = unruly(timeout_seconds=30.0)
    ended = threading.Event()

    def read_for_ever() -> None:
        with pytest.raises(DocumentPoolClosed):
            pool.read(b"x", "sleep")
        ended.set()

    busy = threading.Thread(target=read_for_ever)
    busy.start()
    assert eventually(lambda: len(pool.process_ids()) == 1)

    def check() -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        pool.read(b"x", "a.txt", check=check)
    pool.close()
    busy.join(10)
    assert ended.is_set()


def test_closing_ends_every_process_at_once(unruly: Callable[..., DocumentPool]) -> None:
    pool = unruly(2)
    pool.read(b"x", "a.txt")
    process_ids = pool.process_ids()
    assert process_ids
    pool.close()
    assert eventually(lambda: all(gone(one) for one in process_ids))
    with pytest.raises(DocumentPoolClosed):
        pool.read(b"x", "a.txt")


def test_a_process_that_was_killed_while_idle_is_replaced(unruly: Callable[..., DocumentPool]) -> None:
    pool = unruly()
    pool.read(b"x", "a.txt")
    (idle,) = pool.process_ids()
    os.kill(idle, signal.SIGKILL)
    assert eventually(lambda: gone(idle))
    assert pool.read(b"fine", "a.txt").chunks[0].text == "fine"


def test_processes_that_never_get_ready_are_said_so() -> None:
    with (
        DocumentPool(command=(sys.executable, "-c", "raise SystemExit(3)")) as pool,
        pytest.raises(DocumentPoolBroken, match="status 3"),
    ):
        pool.read(b"x", "a.txt")


def test_a_pool_that_is_killed_leaves_no_process_behind() -> None:
    parent = (
        "import sys, time; from pharos_embedder.documents.pool import DocumentPool;"
        "pool = DocumentPool(1); pool.read(b'x', 'a.txt');"
        "print(*pool.process_ids(), flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE) as started:
        assert started.stdout is not None
        process_ids = [int(word) for word in started.stdout.readline().split()]
        assert process_ids and not any(gone(one) for one in process_ids)
        started.kill()
    assert eventually(lambda: all(gone(one) for one in process_ids))


@pytest.mark.parametrize(("processes", "seconds"), [(0, 1.0), (1, 0.0)])
def test_a_pool_of_nothing_is_refused(processes: int, seconds: float) -> None:
    with pytest.raises(ValueError, match="must be"):
        DocumentPool(processes, seconds)
