"""The file graph as it is kept: packed and unpacked, narrowed, and laid out on a map."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray
from structlog.testing import capture_logs

from pharos_embedder import stored_graph
from pharos_embedder.linking import FileEdge, FileGraph, LinkStats
from pharos_embedder.relating import relate
from pharos_embedder.stored_graph import (
    GraphPiecesMissing,
    GraphTooLarge,
    StoredGraph,
    from_pieces,
    places,
    symbols_of,
    to_pieces,
)
from pharos_embedder.syntax import Definition, ParsedFile

PATHS = ("a.py", "core", "src/core/b.py", "src/core/c.py", "src/core2.py", "src/z.py")
EDGES = (
    FileEdge(source=0, target=2, kind="imports", weight=0.5),
    FileEdge(source=0, target=2, kind="references", weight=0.25),
    FileEdge(source=2, target=3, kind="imports", weight=1.0),
    FileEdge(source=3, target=0, kind="references", weight=0.125),
    FileEdge(source=5, target=2, kind="references", weight=0.75),
)


def definition(symbol: str) -> Definition:
    name = symbol.rpartition(".")[2]
    return Definition(
        name=name, symbol=symbol, kind="class", start_line=1, end_line=2, start_byte=0, end_byte=9,
    )  # fmt: skip


def parsed(path: str, symbols: Sequence[str] = ()) -> ParsedFile:
    return ParsedFile(
        path=path,
        language="python" if path.endswith(".py") else "text",
        size=1,
        line_count=len(path),
        content_hash=path,
        definitions=tuple(definition(symbol) for symbol in symbols),
    )


def vectors(number: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((number, 64)).astype(np.float32)


def graph(edges: Sequence[FileEdge] = EDGES, paths: Sequence[str] = PATHS) -> StoredGraph:
    symbols = {"a.py": ("Context", "Context.run"), "src/z.py": ("Other.run", "Contexts")}
    linked = FileGraph.of(paths, edges, LinkStats(imports_resolved=0, imports_external=0, imports_missing=0))
    files = [parsed(path, symbols.get(path, ())) for path in paths]
    return StoredGraph.of(
        linked,
        vectors(len(paths)),
        languages=[file.language for file in files],
        lines=np.array([file.line_count for file in files], dtype=np.int32),
        symbols=map(symbols_of, files),
    )


def same(one: StoredGraph, other: StoredGraph) -> bool:
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in one.__struct_fields__)


@pytest.mark.parametrize(
    "made", [graph(), graph((), ()), graph((), ("alone.py",))], ids=["six", "none", "one"]
)
def test_a_graph_is_the_same_after_it_was_stored(made: StoredGraph) -> None:
    assert same(from_pieces(to_pieces(made)), made)


def test_a_large_graph_comes_in_pieces_none_of_which_may_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored_graph, "PIECE_BYTES", 100)
    pieces = to_pieces(graph())
    assert len(pieces) > 2
    assert max(len(piece) for piece in pieces) <= 136  # as base64
    assert same(from_pieces(pieces), graph())
    for missing in (0, 1, len(pieces) - 1):
        with pytest.raises(GraphPiecesMissing):
            from_pieces([piece for number, piece in enumerate(pieces) if number != missing])


def test_a_graph_that_is_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored_graph, "GRAPH_BYTES_MAX", 100)
    with pytest.raises(GraphTooLarge, match="at most"):
        to_pieces(graph())


def test_of_too_many_edges_the_strongest_are_kept_and_the_rest_is_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stored_graph, "EDGES_MAX", 3)
    kept = graph()
    assert (kept.edges_dropped, kept.weights.tolist()) == (2, [0.5, 1.0, 0.75])
    assert kept.sources.tolist() == [0, 2, 5]
    assert from_pieces(to_pieces(kept)).edges_dropped == 2


def test_of_too_many_symbols_the_files_that_define_the_most_have_fewer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stored_graph, "SYMBOL_CHARACTERS_MAX", 20)
    monkeypatch.setattr(stored_graph, "SYMBOLS_PER_FILE_MAX", 8)
    files = [parsed("a.py", ["one"]), parsed("b.py", [f"s{number}" for number in range(8)])]
    made = StoredGraph.of(
        FileGraph.of([], [], LinkStats(imports_resolved=0, imports_external=0, imports_missing=0)),
        vectors(0),
        languages=[],
        lines=np.zeros(0, dtype=np.int32),
        symbols=map(symbols_of, files),
    )
    assert (made.symbols, made.symbols_dropped) == (("one", "s0\ns1\ns2\ns3"), 4)
    assert from_pieces(to_pieces(msgspec.structs.replace(made, symbols=()))).symbols_dropped == 4


@pytest.mark.parametrize(
    ("prefix", "files"),
    [
        ("", PATHS),
        ("/", PATHS),
        ("src", ("src/core/b.py", "src/core/c.py", "src/core2.py", "src/z.py")),
        ("./src/core/", ("src/core/b.py", "src/core/c.py")),
        ("src/core/c.py", ("src/core/c.py",)),
        ("core", ("core",)),
        ("src/co", ()),
        ("nowhere", ()),
        ("zzz", ()),
    ],
)
def test_a_prefix_is_a_directory_or_one_whole_file(prefix: str, files: tuple[str, ...]) -> None:
    made = graph()
    assert tuple(made.paths[number] for number in made.under(prefix)) == files


def test_pages_by_path_make_the_whole() -> None:
    made = graph()
    within = made.under("src")
    assert made.after(within, None) == within
    assert made.after(within, "a.py") == within
    assert made.after(within, "src/core/b.py") == range(3, 6)
    assert made.after(within, "src/core/bb.py") == range(3, 6)  # it was there when the page before was read
    assert list(made.after(within, "zz")) == []


def test_edges_of_a_part_are_those_between_its_files() -> None:
    made = graph()
    assert made.edges_within(made.under(""), None).tolist() == [0, 1, 2, 3, 4]
    assert made.edges_within(made.under(""), "references").tolist() == [1, 3, 4]
    assert made.edges_within(made.under("src"), None).tolist() == [2, 4]
    assert made.edges_within(made.under("nowhere"), None).tolist() == []
    into, out = made.degrees()
    assert into.tolist() == [1, 0, 3, 1, 0, 0]
    assert out.tolist() == [2, 0, 1, 1, 0, 1]


@pytest.mark.parametrize(
    ("symbol", "files"),
    [("Context", [0]), ("run", [0, 5]), ("Context.run", [0]), ("Contexts", [5]), ("text", []), ("n\nO", [])],
)
def test_a_symbol_is_found_by_its_path_of_names_or_the_last_of_them(symbol: str, files: list[int]) -> None:
    assert graph().defining(symbol) == files


def test_places_are_the_same_each_time_and_within_the_map() -> None:
    one, again = places(vectors(50)), places(vectors(50))
    assert np.array_equal(one, again)
    assert one.shape == (50, 2)
    assert np.abs(one).max() == 1
    assert one[:, 0].std() >= one[:, 1].std() > 0


def test_files_that_are_near_in_the_graph_are_near_on_the_map() -> None:
    groups = np.repeat(np.eye(64, dtype=np.float32)[:3], 10, axis=0) + 0.05 * vectors(30)
    found = places(groups).reshape(3, 10, 2)
    centres = found.mean(axis=1)
    within = max(
        float(np.linalg.norm(group - centre, axis=1).max())
        for group, centre in zip(found, centres, strict=True)
    )
    between = min(float(np.linalg.norm(centres[i] - centres[j])) for i, j in ((0, 1), (0, 2), (1, 2)))
    assert between > 2 * within


@pytest.mark.parametrize(
    "structure",
    [
        np.zeros((0, 64), dtype=np.float32),
        np.ones((1, 64), dtype=np.float32),
        np.ones((5, 64), dtype=np.float32),
    ],
)
def test_files_that_do_not_differ_are_in_the_middle(structure: NDArray[np.float32]) -> None:
    assert places(structure).tolist() == [[0.0, 0.0]] * len(structure)


def test_two_files_are_on_a_line() -> None:
    found = places(np.eye(64, dtype=np.float32)[:2])
    assert sorted(found[:, 0].tolist()) == [-1.0, 1.0]
    assert found[:, 1].tolist() == [0.0, 0.0]


def test_a_map_that_cannot_be_made_is_empty_and_the_graph_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise np.linalg.LinAlgError("no convergence")

    monkeypatch.setattr("scipy.linalg.eigh", fail)
    with capture_logs() as logged:
        made = graph()
    assert made.places.tolist() == [[0.0, 0.0]] * len(PATHS)
    assert len(made.sources) == len(EDGES)
    assert [each["event"] for each in logged] == ["map_not_made"]


def test_what_is_related_says_why_and_what_leads_every_ranking_is_one() -> None:
    made = graph()
    found = relate(
        made,
        2,
        near={"src/core/b.py": 1.0, "a.py": 0.9, "src/z.py": 0.4},
        mentions={"a.py": 3.0, "src/core/b.py": 9.0},
        symbol="Context",
        k=10,
    )
    assert [file.path for file in found] == ["a.py", "src/z.py", "src/core/c.py"]
    first, second, third = found
    assert (first.structural, first.mentions, second.mentions, third.structural) == (0.9, 3.0, None, None)
    assert first.reasons == (
        "imports src/core/b.py",
        "uses names that src/core/b.py defines",
        "mentions Context",
        "#1 of the nearest in the graph",
    )
    assert third.reasons == ("is imported by src/core/b.py",)
    assert [(tie.kind, tie.direction, tie.weight) for tie in third.ties] == [("imports", "out", 1.0)]
    assert 1 > first.score > second.score > third.score > 0  # c.py has the strongest edge, a.py the rest
    assert relate(made, 2, near={}, mentions={}, symbol="", k=1)[0].score == 1
    assert relate(made, 4, near={}, mentions={}, symbol="", k=9) == ()


def test_a_graph_without_edges_has_its_files_all_the_same() -> None:
    bare = graph(())
    assert bare.edges_out_of(0) == bare.edges_into(0) == []
    assert [degree.tolist() for degree in bare.degrees()] == [[0] * len(PATHS)] * 2
    assert bare.number("src/z.py") == 5
