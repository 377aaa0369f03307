"""``rpc.search``, where it is asked about the structure of a repository: its graph, its map, what is related.

Answers come in pages that fit a message, whatever the repository.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import anyio.to_thread
import numpy as np

from pharos_contracts.datasets.v1 import Dataset, IndexStage
from pharos_contracts.graphs.v1 import (
    AboutRepository,
    Direction,
    EdgeKind,
    FindRelated,
    GraphEdge,
    GraphFile,
    GraphPage,
    Indexed,
    MapPage,
    MappedFile,
    ReadGraph,
    ReadMap,
    RelatedFile,
    RelatedFiles,
    Tie,
)
from pharos_contracts.identity import repository_id
from pharos_contracts.jobs.v1 import Scope
from pharos_contracts.message import Message
from pharos_contracts.rpc import Refused
from pharos_embedder.answering import STARTING, STARTING_SECONDS_MAX
from pharos_embedder.catalogue import Catalogue
from pharos_embedder.search import InvalidQuery, NoGraph, SearchEngine, UnknownFile
from pharos_embedder.stored_graph import StoredGraph
from pharos_embedder.vectors import DatasetKey, Searched, StoreError

PAGE_BYTES_MAX: Final = 500_000  # of a page, about: half of what a message may have
FILE_BYTES: Final = 120  # of a file on a page, without its path; of an edge, without its target
EDGE_BYTES: Final = 60

STILL_MADE: Final = "The graph of this index is still being made; ask again in a moment"
UNKNOWN_REPOSITORY: Final = Refused(code="not_found", detail="There is no such repository", status=404)

Question = ReadGraph | ReadMap | FindRelated


class StructureAnswers:
    """Answers questions about repositories over the live datasets."""

    def __init__(self, engine: SearchEngine, catalogue: Catalogue) -> None:
        self._engine = engine
        self._catalogue = catalogue

    async def answer(self, question: Question) -> Message:
        """The answer, or a refusal that says what to change."""
        if not await self._catalogue.known(STARTING_SECONDS_MAX):
            return STARTING
        dataset = newest(question, self._catalogue.all())
        if dataset is None:
            return UNKNOWN_REPOSITORY
        try:
            return await anyio.to_thread.run_sync(self._of, question, dataset)
        except InvalidQuery as error:
            return Refused(code="invalid_query", detail=str(error), status=400)
        except UnknownFile as error:
            return Refused(code="unknown_file", detail=str(error), status=404)
        except NoGraph as error:
            detail = STILL_MADE if dataset.stage is IndexStage.LEXICAL else str(error)
            return Refused(code="no_graph", detail=detail, status=409)
        except StoreError as error:
            return Refused(code="store_unavailable", detail=str(error), status=503)

    def _of(self, question: Question, dataset: Dataset) -> Message:
        searched = Searched(
            dataset=DatasetKey(dataset.tenant, dataset.project, dataset.dataset),
            generation=dataset.generation,
            has_dense=dataset.stage is IndexStage.FULL,
        )
        match question:
            case ReadGraph():
                return graph_page(question, self._engine.graph(searched), _indexed(dataset))
            case ReadMap():
                return map_page(question, self._engine.graph(searched), _indexed(dataset))
            case FindRelated():
                return self._related(question, searched, _indexed(dataset))

    def _related(self, question: FindRelated, searched: Searched, indexed: Indexed) -> RelatedFiles:
        graph = self._engine.graph(searched)
        path, found = self._engine.related(searched, question.path, question.symbol, question.k)
        files = []
        for each in found:
            number = graph.number(each.path)
            assert number is not None, "what is related has a place in the graph"
            ties = tuple(
                Tie(kind=EdgeKind(tie.kind), direction=Direction(tie.direction), weight=tie.weight)
                for tie in each.ties
            )
            files.append(
                RelatedFile(
                    path=each.path,
                    language=graph.languages[number],
                    lines=int(graph.lines[number]),
                    score=each.score,
                    structural=each.structural,
                    mentions=each.mentions,
                    ties=ties,
                    reasons=each.reasons,
                )
            )
        return RelatedFiles(indexed=indexed, path=path, symbol=question.symbol, files=tuple(files))


def newest(question: AboutRepository, datasets: Iterable[Dataset]) -> Dataset | None:
    """Of the datasets that *question* may mean, the one that was published last."""
    meant = [dataset for dataset in datasets if _is_meant(question, dataset)]
    return max(meant, key=lambda each: (each.published_at, each.dataset), default=None)


def _is_meant(question: AboutRepository, dataset: Dataset) -> bool:
    shown = question.projects is None or dataset.project in question.projects or dataset.scope is Scope.GLOBAL
    return (
        bool(dataset.repository)
        and question.tenant in (None, dataset.tenant)
        and shown
        and question.project in (None, dataset.project)
        and question.dataset in (None, dataset.dataset)
        and question.branch in (None, dataset.branch)
        and repository_id(dataset.tenant, dataset.repository) == question.repository_id
    )


def graph_page(question: ReadGraph, graph: StoredGraph, indexed: Indexed) -> GraphPage:
    """A page of the graph. The edges of a file are on its page, wherever their target is."""
    within = graph.under(question.path_prefix)
    kind = None if question.kind is None else question.kind.value
    edges = graph.edges_within(within, kind)
    edges_in, edges_out = graph.degrees()
    files: list[GraphFile] = []
    left = PAGE_BYTES_MAX
    rest = graph.after(within, question.after)
    sources = graph.sources[edges]
    for number in rest[: max(1, question.limit)]:
        first, end = np.searchsorted(sources, (number, number + 1))
        own = []
        for edge in (graph.edge(int(each)) for each in edges[first:end]):
            target = graph.paths[edge.other]
            own.append(GraphEdge(target=target, kind=EdgeKind(edge.kind), weight=edge.weight))
        left -= _bytes(graph.paths[number]) + FILE_BYTES
        left -= sum(_bytes(edge.target) + EDGE_BYTES for edge in own)
        if left < 0 and files:
            break
        files.append(
            GraphFile(
                path=graph.paths[number],
                language=graph.languages[number],
                lines=int(graph.lines[number]),
                edges_in=int(edges_in[number]),
                edges_out=int(edges_out[number]),
                edges=tuple(own),
            )
        )
    return GraphPage(
        indexed=indexed,
        files=tuple(files),
        files_total=len(within),
        edges_total=len(edges),
        edges_dropped=graph.edges_dropped,
        after=files[-1].path if len(files) < len(rest) else None,
    )


def map_page(question: ReadMap, graph: StoredGraph, indexed: Indexed) -> MapPage:
    """A page of the map."""
    within = graph.under(question.path_prefix)
    files: list[MappedFile] = []
    left = PAGE_BYTES_MAX
    rest = graph.after(within, question.after)
    for number in rest[: max(1, question.limit)]:
        left -= _bytes(graph.paths[number]) + FILE_BYTES
        if left < 0 and files:
            break
        x, y = (round(float(each), 4) for each in graph.places[number])
        files.append(
            MappedFile(
                path=graph.paths[number],
                language=graph.languages[number],
                lines=int(graph.lines[number]),
                x=x,
                y=y,
            )
        )
    return MapPage(
        indexed=indexed,
        files=tuple(files),
        files_total=len(within),
        after=files[-1].path if len(files) < len(rest) else None,
    )


def _bytes(path: str) -> int:
    return len(path.encode(errors="replace"))


def _indexed(dataset: Dataset) -> Indexed:
    return Indexed(
        tenant=dataset.tenant,
        project=dataset.project,
        dataset=dataset.dataset,
        repository=dataset.repository,
        branch=dataset.branch,
        commit=dataset.commit,
        generation=dataset.generation,
    )
