"""What goes into a spool comes out of it, in the order of paths, by file and by chunk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace

from pharos_embedder.bm25 import Lexicon, document_terms, document_vector
from pharos_embedder.encodables import EncodablesInMemory, SpooledChunks, packed_ids, unpacked_ids
from pharos_embedder.linking import ParsedFiles
from pharos_embedder.packed_files import facts_of, pack
from pharos_embedder.parsing import parse
from pharos_embedder.points import Origin
from pharos_embedder.ports import unchecked
from pharos_embedder.spool import Spool
from pharos_embedder.storing import _ids, lexicon_of
from pharos_embedder.syntax import ParsedFile, ParseOptions
from pharos_embedder.vectors import DatasetKey
from tests.support.chunk_ids import chunk_id

SOURCES = Path(__file__).parent.parent / "src" / "pharos_embedder"
ORIGIN = Origin(
    dataset=DatasetKey("acme", "default", "d"),
    generation=1,
    scope="project",
    repository="h/o/r",
    encoder="fake@1",
)


@pytest.fixture(scope="module")
def files() -> list[ParsedFile]:
    options = ParseOptions(size_chars=400, overlap_chars=40)
    names = ("ports.py", "app.py", "languages.py", "py.typed", "__main__.py")
    return [parse(name, "python", (SOURCES / name).read_bytes(), options) for name in names]


@pytest.fixture
def spool(tmp_path: Path, files: list[ParsedFile]) -> Spool:
    with Spool(tmp_path / "parsed") as made:
        for file in files:
            made.add(pack(file))
        made.finish(10_000)
        yield made  # type: ignore[misc]


def test_files_come_back_in_the_order_of_their_paths(spool: Spool, files: list[ParsedFile]) -> None:
    expected = sorted(files, key=lambda file: file.path)
    linked = ParsedFiles(files)
    assert spool.paths == linked.paths
    assert spool.languages == linked.languages
    assert spool.lines.tolist() == [file.line_count for file in expected]
    for number, file in enumerate(expected):
        assert spool.facts(number) == facts_of(file)
        for mine, theirs in zip(spool.names(number), linked.names(number), strict=True):
            assert mine.tolist() == theirs.tolist()


def test_chunks_and_their_words_come_back_from_any_place(spool: Spool, files: list[ParsedFile]) -> None:
    chunks = [chunk for file in sorted(files, key=lambda file: file.path) for chunk in file.chunks]
    assert len(chunks) == len(spool.heads) > 60
    places = list(range(len(chunks)))[::-3]
    assert spool.read_chunks(places) == [chunks[place] for place in places]
    words = [document_terms(chunk.text, path=chunk.path, symbol=chunk.symbol) for chunk in chunks]
    seen = 0
    for window in spool.windows(50):
        found = spool.terms_of(window)
        count = int(spool.first_chunks[window.stop] - spool.first_chunks[window.start])
        assert count <= 50 or len(window) == 1
        vectors = list(found.vectors(range(count)))
        assert vectors == [document_vector(each) for each in words[seen : seen + count]]
        seen += count
    assert seen == len(chunks)


def test_a_lexicon_by_windows_is_that_of_all_words_at_once(
    spool: Spool, files: list[ParsedFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pharos_embedder.storing.STORE_WINDOW", 20)
    monkeypatch.setattr("pharos_embedder.storing._COUNTED_MAX", 500)
    found = lexicon_of(spool, SpooledChunks(spool, _ids(spool, ORIGIN, unchecked)), unchecked)
    assert found == Lexicon.of(
        document_terms(chunk.text, path=chunk.path, symbol=chunk.symbol)
        for file in files
        for chunk in file.chunks
    )


def test_spooled_chunks_are_encoded_as_those_in_memory_are(spool: Spool, files: list[ParsedFile]) -> None:
    spooled = SpooledChunks(spool, _ids(spool, ORIGIN, unchecked))
    ordered = [chunk for file in sorted(files, key=lambda file: file.path) for chunk in file.chunks]
    in_memory = EncodablesInMemory({chunk_id(chunk, ORIGIN): chunk for chunk in ordered})
    assert len(spooled) == len(in_memory)
    places = spooled.longest_first()
    assert places.tolist() == in_memory.longest_first().tolist()
    for name in ("ids_of", "content_hashes", "texts"):
        assert getattr(spooled, name)(places) == getattr(in_memory, name)(places)
    assert spooled.path_of(3) == in_memory.path_of(3)
    asked = ["00000000-0000-0000-0000-000000000000", *in_memory.ids_of(places[5:9]), "f" * 32]
    assert spooled.places_of(asked).tolist() == in_memory.places_of(asked).tolist() == places[5:9].tolist()


def test_of_chunks_with_one_id_the_first_counts(spool: Spool) -> None:
    ids = packed_ids(["00000000-0000-0000-0000-0000000000ff"] * len(spool.heads))
    chunks = SpooledChunks(spool, ids)
    assert (len(chunks), chunks.places.tolist()) == (1, [0])
    assert chunks.ids_of(np.array([0])) == ["00000000-0000-0000-0000-0000000000ff"]


def test_ids_are_the_same_after_they_were_packed() -> None:
    ids = [f"{number:032x}" for number in (0, 1, 255 << 120, (1 << 128) - 1)]
    dashed = ["-".join((one[:8], one[8:12], one[12:16], one[16:20], one[20:])) for one in ids]
    assert unpacked_ids(packed_ids(dashed)) == dashed


def test_an_empty_spool_has_nothing(tmp_path: Path) -> None:
    with Spool(tmp_path / "parsed") as spool:
        spool.finish(10_000)
        chunks = SpooledChunks(spool, _ids(spool, ORIGIN, unchecked))
        assert (len(chunks), chunks.longest_first().tolist(), list(spool.windows(5))) == (0, [], [])
        assert lexicon_of(spool, chunks, unchecked) == Lexicon.of([])
        assert chunks.places_of(["0" * 32]).tolist() == []


def test_a_spool_that_was_cut_off_is_an_error(tmp_path: Path, files: list[ParsedFile]) -> None:
    with Spool(tmp_path / "parsed") as spool:
        spool.add(pack(files[0]))
        spool.finish(10_000)
        (tmp_path / "parsed").write_bytes(b"")
        with pytest.raises(OSError, match="shorter"):
            spool.facts(0)


def test_files_whose_chunks_do_not_fit_are_left_out_in_the_order_of_their_paths(
    tmp_path: Path, files: list[ParsedFile]
) -> None:
    expected = sorted(files, key=lambda file: file.path)
    sizes = {file.path: len(file.chunks) for file in expected}
    most = sizes["__main__.py"] + sizes["ports.py"] + sizes["py.typed"]
    for order in (files, files[::-1]):
        with Spool(tmp_path / "parsed") as spool:
            for file in order:
                spool.add(pack(file))
            assert spool.finish(most) == ("app.py", "languages.py")
            assert spool.paths == ["__main__.py", "ports.py", "py.typed"]
            assert spool.chunks == len(spool.heads) == most
            expected_chunks = [
                chunk for file in expected if file.path in spool.paths for chunk in file.chunks
            ]
            assert spool.read_chunks(range(most)) == expected_chunks
        (tmp_path / "parsed").unlink()


def test_a_word_that_is_there_more_often_than_two_bytes_can_tell_is_there_that_often() -> None:
    (line,) = parse("a.txt", "text", b"word", ParseOptions()).chunks
    often = replace(line, text="word " * 40_000, symbol="word " * 40_000)
    file = replace(parse("a.txt", "text", b"word", ParseOptions()), chunks=(often,))
    assert max(document_terms(often.text, path=often.path, symbol=often.symbol).values()) == 80_000
    assert 65_535 in np.frombuffer(pack(file).term_counts, dtype="<u2")
