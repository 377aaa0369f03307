"""Questions about the structure of a repository, and their answers, version 1."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from pharos_contracts.message import Message


class EdgeKind(StrEnum):
    """Why there is an edge: a file imports the other one, or uses a name that it defines."""

    IMPORTS = "imports"
    REFERENCES = "references"


class Direction(StrEnum):
    """Whether an edge leads out of the file that was asked about, or into it."""

    OUT = "out"
    IN = "in"


class AboutRepository(Message, frozen=True, kw_only=True):
    """Base of questions about what is live of one repository: of those that match, what was published last.

    ``repository_id`` is ``identity.repository_id``. ``tenant`` None is every one, ``projects`` None every one
    of the tenant's; a global dataset is seen from all of them.
    """

    repository_id: str
    tenant: str | None
    projects: tuple[str, ...] | None = None
    project: str | None = None
    dataset: str | None = None
    branch: str | None = None


class ReadGraph(AboutRepository, frozen=True, kw_only=True, tag="graphs.query.v1.graph"):
    """The files under ``path_prefix``, by path, and the edges between them. ``after`` is the last page's."""

    path_prefix: str = ""
    kind: EdgeKind | None = None
    limit: int = 200
    after: str | None = None


class ReadMap(AboutRepository, frozen=True, kw_only=True, tag="graphs.query.v1.map"):
    """Where the files under ``path_prefix`` are on the map of the repository, by path."""

    path_prefix: str = ""
    limit: int = 1_000
    after: str | None = None


class FindRelated(AboutRepository, frozen=True, kw_only=True, tag="graphs.query.v1.related"):
    """The files that have most to do with the one at ``path``, or with the one that defines ``symbol``."""

    path: str | None = None
    symbol: str | None = None
    k: int = 10


class Indexed(msgspec.Struct, frozen=True, kw_only=True):
    """The generation that an answer is of."""

    tenant: str
    project: str
    dataset: str
    repository: str
    branch: str | None
    commit: str
    generation: int


class GraphEdge(msgspec.Struct, frozen=True, kw_only=True):
    """An edge out of a file, to the one at ``target``; ``weight`` is above 0."""

    target: str
    kind: EdgeKind
    weight: float


class GraphFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file with its edges to other files that were asked for, of all that it has: so many in and out."""

    path: str
    language: str
    lines: int
    edges_in: int
    edges_out: int
    edges: tuple[GraphEdge, ...] = ()


class GraphPage(Message, frozen=True, kw_only=True, tag="graphs.view.v1.graph"):
    """Files by path; ``after`` continues, None ends. The totals are those of all pages.

    ``edges_dropped`` are the weakest edges of the whole repository, where it has too many to be kept.
    """

    indexed: Indexed
    files: tuple[GraphFile, ...]
    files_total: int
    edges_total: int
    edges_dropped: int
    after: str | None


class MappedFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file and its place, each coordinate in [-1, 1]."""

    path: str
    language: str
    lines: int
    x: float
    y: float


class MapPage(Message, frozen=True, kw_only=True, tag="graphs.view.v1.map"):
    """Files by path; ``after`` continues, None ends."""

    indexed: Indexed
    files: tuple[MappedFile, ...]
    files_total: int
    after: str | None


class Tie(msgspec.Struct, frozen=True, kw_only=True):
    """An edge between the file that was asked about and a related one."""

    kind: EdgeKind
    direction: Direction
    weight: float


class RelatedFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file that has to do with the one that was asked about, and why.

    ``score`` is in (0, 1] and orders; ``structural`` is a cosine, ``mentions`` a BM25 sum.
    """

    path: str
    language: str
    lines: int
    score: float
    structural: float | None
    mentions: float | None
    ties: tuple[Tie, ...]
    reasons: tuple[str, ...]


class RelatedFiles(Message, frozen=True, kw_only=True, tag="graphs.view.v1.related"):
    """The files that have most to do with the one at ``path``, best first."""

    indexed: Indexed
    path: str
    symbol: str | None
    files: tuple[RelatedFile, ...]
