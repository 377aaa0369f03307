"""Which dataset a question about a repository is of, and its pages."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import anyio
import msgspec
import numpy as np
import pytest

from pharos_contracts.datasets.v1 import Dataset, IndexStage
from pharos_contracts.graphs.v1 import EdgeKind, Indexed, ReadGraph, ReadMap
from pharos_contracts.identity import repository_id
from pharos_contracts.jobs.v1 import Scope
from pharos_contracts.message import encode
from pharos_contracts.rpc import Refused
from pharos_embedder.search import NoGraph
from pharos_embedder.stored_graph import StoredGraph
from pharos_embedder.structure_answers import (
    PAGE_BYTES_MAX,
    STILL_MADE,
    StructureAnswers,
    graph_page,
    map_page,
    newest,
)
from pharos_embedder.vectors import Searched

AT = datetime(2026, 1, 15, 10, 30, tzinfo=UTC)
REPOSITORY = "github.com/o/r"
ID = repository_id("acme", REPOSITORY)
INDEXED = Indexed(
    tenant="acme", project="p", dataset="d", repository=REPOSITORY, branch="main", commit="c", generation=1
)


def dataset(name: str, minutes: int, **others: Any) -> Dataset:
    """One that was published so many *minutes* after the first."""
    values: dict[str, Any] = {
        "tenant": "acme",
        "project": "p",
        "dataset": name,
        "scope": Scope.PROJECT,
        "repository": REPOSITORY,
        "clone_url": f"https://{REPOSITORY}",
        "branch": name,
        "commit": "c" * 40,
        "generation": 1,
        "stage": IndexStage.FULL,
        "job_id": "j",
        "files": 1,
        "chunks": 1,
        "encoder": "e",
        "chunker": "c",
        "published_at": AT + timedelta(minutes=minutes),
    }
    return Dataset(**{**values, **others})


DATASETS = [
    dataset("main", 1),
    dataset("next", 3),
    dataset("mine", 5, project="q"),
    dataset("shared", 2, project="s", scope=Scope.GLOBAL),
    dataset("other", 9, repository="github.com/o/other"),
    dataset("documents", 9, repository=""),
    dataset("theirs", 9, tenant="other"),
]


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ({}, "mine"),
        ({"tenant": None}, "mine"),
        ({"tenant": "other"}, None),
        ({"projects": ("p",)}, "next"),
        ({"projects": ("p",), "branch": "main"}, "main"),
        ({"projects": ("p",), "branch": "mine"}, None),
        ({"projects": ()}, "shared"),
        ({"project": "p"}, "next"),
        ({"project": "s", "projects": ("p",)}, "shared"),
        ({"project": "q", "projects": ("p",)}, None),
        ({"dataset": "main"}, "main"),
        ({"dataset": "main", "branch": "next"}, None),
        ({"repository_id": repository_id("acme", "")}, None),
        ({"repository_id": repository_id("other", REPOSITORY)}, None),
        ({"repository_id": repository_id("other", REPOSITORY), "tenant": None}, "theirs"),
    ],
)
def test_a_question_is_of_what_was_published_last_of_what_may_be_seen(
    asked: dict[str, Any], found: str | None
) -> None:
    question = ReadMap(**{"repository_id": ID, "tenant": "acme", **asked})
    chosen = newest(question, DATASETS)
    assert (None if chosen is None else chosen.dataset) == found


def graph(number: int, *, out: int = 0, path: str = "src/{:05d}.py") -> StoredGraph:
    """Files in a row, each of which leads to the *out* after it, and imports the last of those."""
    sources, targets = [], []
    for file in range(number):
        for target in range(file + 1, min(number, file + 1 + out)):
            sources.append(file)
            targets.append(target)
    return StoredGraph(
        paths=tuple(path.format(file) for file in range(number)),
        languages=("python",) * number,
        symbols=("",) * number,
        lines=np.arange(number, dtype=np.int32),
        places=np.linspace((-1, 1), (1, -1), number, dtype=np.float32).reshape(number, 2),
        sources=np.array(sources, dtype=np.int32),
        targets=np.array(targets, dtype=np.int32),
        kinds=np.array([target % 2 for target in targets], dtype=np.uint8),
        weights=np.ones(len(sources), dtype=np.float32),
    )


def test_all_pages_together_are_the_whole_graph() -> None:
    made = graph(25, out=3)
    question = ReadGraph(repository_id=ID, tenant="acme", limit=10)
    files, edges, pages = [], [], 0
    while True:
        page = graph_page(question, made, INDEXED)
        pages += 1
        files += [file.path for file in page.files]
        edges += [(file.path, edge.target) for file in page.files for edge in file.edges]
        assert (page.files_total, page.edges_total) == (25, len(made.sources))
        if page.after is None:
            break
        question = msgspec.structs.replace(question, after=page.after)
    assert (pages, files) == (3, list(made.paths))
    assert edges == [
        (made.paths[source], made.paths[target])
        for source, target in zip(made.sources, made.targets, strict=True)
    ]


def test_a_page_tells_what_was_asked_for_and_how_much_more_there_is() -> None:
    page = graph_page(
        ReadGraph(repository_id=ID, tenant="acme", path_prefix="src/00001.py", kind=EdgeKind.IMPORTS),
        graph(4, out=2),
        INDEXED,
    )
    (file,) = page.files
    assert (file.path, file.lines, file.edges_in, file.edges_out, file.edges) == ("src/00001.py", 1, 1, 2, ())
    assert (page.files_total, page.edges_total, page.after) == (1, 0, None)
    kinds = [
        [edge.kind for file in graph_page(question, graph(4, out=2), INDEXED).files for edge in file.edges]
        for question in (
            ReadGraph(repository_id=ID, tenant="acme"),
            ReadGraph(repository_id=ID, tenant="acme", kind=EdgeKind.IMPORTS),
        )
    ]
    assert [len(each) for each in kinds] == [5, 2]
    nothing = graph_page(ReadGraph(repository_id=ID, tenant="acme", path_prefix="x"), graph(4), INDEXED)
    assert (nothing.files, nothing.files_total, nothing.after) == ((), 0, None)


def test_no_page_is_larger_than_a_message_may_be_and_each_has_something() -> None:
    deep = graph(500, out=64, path="a" * 200 + "/{:05d}.py")
    page = graph_page(ReadGraph(repository_id=ID, tenant="acme", limit=500), deep, INDEXED)
    assert 1 < len(page.files) < 500
    assert page.after == page.files[-1].path
    assert PAGE_BYTES_MAX / 2 < len(encode(page)) < 1.2 * PAGE_BYTES_MAX
    huge = graph(3, out=2, path="a" * PAGE_BYTES_MAX + "{}")
    one = graph_page(ReadGraph(repository_id=ID, tenant="acme"), huge, INDEXED)
    assert (len(one.files), one.after) == (1, huge.paths[0])
    long = graph(4000, path="a" * 200 + "/{:05d}.py")
    mapped = map_page(ReadMap(repository_id=ID, tenant="acme", limit=2000), long, INDEXED)
    assert 1 < len(mapped.files) < 2000
    assert PAGE_BYTES_MAX / 2 < len(encode(mapped)) < 1.2 * PAGE_BYTES_MAX


def test_pages_of_the_map_say_where_each_file_is() -> None:
    made = graph(3)
    first = map_page(ReadMap(repository_id=ID, tenant="acme", limit=2), made, INDEXED)
    assert [(file.path, file.x, file.y) for file in first.files] == [
        ("src/00000.py", -1.0, 1.0),
        ("src/00001.py", 0.0, 0.0),
    ]
    assert (first.files_total, first.after) == (3, "src/00001.py")
    rest = map_page(ReadMap(repository_id=ID, tenant="acme", after=first.after), made, INDEXED)
    assert ([(file.x, file.y) for file in rest.files], rest.after) == ([(1.0, -1.0)], None)


@pytest.mark.parametrize(
    ("stage", "told"), [(IndexStage.LEXICAL, STILL_MADE), (IndexStage.FULL, "with force")]
)
def test_a_graph_that_is_still_being_made_is_told_from_one_that_is_not_there(
    stage: IndexStage, told: str
) -> None:
    class Nothing:
        def graph(self, _searched: Searched) -> StoredGraph:
            raise NoGraph

        async def known(self, _seconds: float) -> bool:
            return True

        def all(self) -> list[Dataset]:
            return [dataset("main", 1, stage=stage)]

    nothing: Any = Nothing()
    answers = StructureAnswers(nothing, nothing)
    answer = anyio.run(answers.answer, ReadMap(repository_id=ID, tenant="acme"))
    assert isinstance(answer, Refused)
    assert (answer.code, answer.status) == ("no_graph", 409)
    assert told in answer.detail
