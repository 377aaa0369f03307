"""The structure of a repository in the words of the HTTP API. Pure."""

from __future__ import annotations

from typing import Any

import msgspec

from pharos_contracts.graphs.v1 import (
    EdgeKind,
    GraphPage,
    Indexed,
    MapPage,
    MappedFile,
    RelatedFile,
    RelatedFiles,
)
from pharos_contracts.identity import repository_id


class Structure(msgspec.Struct, frozen=True, kw_only=True):
    """Base of what is told: which generation of which dataset of the repository it is of."""

    id: str
    tenant: str
    repository: str
    project: str
    dataset: str
    branch: str | None
    commit: str
    generation: int


class GraphNode(msgspec.Struct, frozen=True, kw_only=True):
    """A file; so many edges lead into it and out of it in the whole repository."""

    path: str
    language: str
    lines: int
    edges_in: int
    edges_out: int


class GraphLink(msgspec.Struct, frozen=True, kw_only=True):
    """``source`` imports ``target``, or references what that defines; ``weight`` is above 0."""

    source: str
    target: str
    kind: EdgeKind
    weight: float


class GraphView(Structure, frozen=True, kw_only=True):
    """A page of files by path, and of edges by source; all pages together have the totals.

    ``edges_left_out`` are the weakest edges of the whole repository, of which a million are kept.
    """

    files: tuple[GraphNode, ...]
    edges: tuple[GraphLink, ...]
    files_total: int
    edges_total: int
    edges_left_out: int
    cursor: str | None


class MapView(Structure, frozen=True, kw_only=True):
    """A page of files by path, each with its place: ``x`` and ``y`` in -1 to 1."""

    files: tuple[MappedFile, ...]
    files_total: int
    cursor: str | None


class RelatedView(Structure, frozen=True, kw_only=True):
    """What has most to do with the file at ``path``, best first."""

    path: str
    symbol: str | None
    related: tuple[RelatedFile, ...]


def graph_view(page: GraphPage) -> GraphView:
    """*page* as clients read it."""
    return GraphView(
        **_of(page.indexed),
        files=tuple(
            GraphNode(
                path=file.path,
                language=file.language,
                lines=file.lines,
                edges_in=file.edges_in,
                edges_out=file.edges_out,
            )
            for file in page.files
        ),
        edges=tuple(
            GraphLink(source=file.path, target=edge.target, kind=edge.kind, weight=edge.weight)
            for file in page.files
            for edge in file.edges
        ),
        files_total=page.files_total,
        edges_total=page.edges_total,
        edges_left_out=page.edges_dropped,
        cursor=page.after,
    )


def map_view(page: MapPage) -> MapView:
    """*page* as clients read it."""
    return MapView(**_of(page.indexed), files=page.files, files_total=page.files_total, cursor=page.after)


def related_view(found: RelatedFiles) -> RelatedView:
    """*found* as clients read it."""
    return RelatedView(**_of(found.indexed), path=found.path, symbol=found.symbol, related=found.files)


def _of(indexed: Indexed) -> dict[str, Any]:
    return {
        "id": repository_id(indexed.tenant, indexed.repository),
        **msgspec.structs.asdict(indexed),
    }
