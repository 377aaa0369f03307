"""A search and its answer, version 1."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from pharos_contracts.message import Message
from pharos_contracts.rpc import Refused


class SearchMode(StrEnum):
    HYBRID = "hybrid"
    DENSE = "dense"
    LEXICAL = "lexical"


class Search(Message, frozen=True, kw_only=True, tag="search.query.v1.search"):
    """Find what answers *query* among the tenant's datasets. Empty filters filter nothing.

    ``datasets`` are names or globs; ``project`` None is every project of the tenant, or of ``projects`` where
    that is not None.
    """

    tenant: str
    query: str
    project: str | None = None
    k: int = 10
    mode: SearchMode = SearchMode.HYBRID
    datasets: tuple[str, ...] = ()
    repositories: tuple[str, ...] = ()
    languages: tuple[str, ...] = ()
    path_prefix: str | None = None
    threshold: float | None = None
    include_global: bool = True
    projects: tuple[str, ...] | None = None


class Scores(msgspec.Struct, frozen=True, kw_only=True):
    """Why a result stands where it does: None where a channel did not find it; ``final`` orders."""

    dense: float | None = None
    sparse: float | None = None
    structural: float | None = None
    rerank: float | None = None
    final: float


class LineSpan(msgspec.Struct, frozen=True, kw_only=True):
    """Lines of a file, from 1, both ends included."""

    start: int
    end: int


class FoundDocument(msgspec.Struct, frozen=True, kw_only=True):
    """Where in a document a chunk is, and what is known of the document; None and empty where it is not.

    ``kind`` is the format, such as ``pdf``, ``language`` the natural one (ISO 639-1). ``headings`` are those
    above the chunk, the outermost first; ``page`` and ``page_end`` count from 1, both ends included.
    """

    kind: str
    title: str | None = None
    headings: tuple[str, ...] = ()
    page: int | None = None
    page_end: int | None = None
    language: str | None = None
    filename: str | None = None
    date: str | None = None


class SearchResult(msgspec.Struct, frozen=True, kw_only=True):
    """A file and its best chunk. ``also`` are further places in the same file.

    Of a document, which is of no repository and has no commit, ``file`` is what makes it the same document
    when it comes again, and ``url`` where it was fetched.
    """

    id: str
    chunk: str
    file: str
    line_span: LineSpan
    symbol: str | None
    kind: str | None
    language: str
    project: str
    dataset: str
    repository: str
    commit: str
    url: str | None
    scores: Scores
    reasons: tuple[str, ...] = ()
    highlights: tuple[str, ...] = ()
    also: tuple[LineSpan, ...] = ()
    document: FoundDocument | None = None


class SearchAnswer(Message, frozen=True, kw_only=True, tag="search.view.v1.answer"):
    """The results, best first; ``metadata`` says what was searched and how; times are milliseconds."""

    results: tuple[SearchResult, ...]
    metadata: dict[str, str | int | float | bool | list[str]]
    latency_ms: float


class SearchBatch(Message, frozen=True, kw_only=True, tag="search.query.v1.batch"):
    """Several searches of one tenant, which are encoded together."""

    queries: tuple[Search, ...]


class SearchBatchAnswer(Message, frozen=True, kw_only=True, tag="search.view.v1.batch_answer"):
    """What came of each query, in their order: a refusal concerns that one alone."""

    answers: tuple[SearchAnswer | Refused, ...]
    latency_ms: float
