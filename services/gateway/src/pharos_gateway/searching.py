"""Searches in the words of the HTTP API, made into the question that the search service answers. Pure."""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from pharos_contracts.search.v1 import (
    FoundDocument,
    LineSpan,
    Scores,
    Search,
    SearchAnswer,
    SearchMode,
    SearchResult,
)
from pharos_gateway.sight import Sight

K_DEFAULT: Final = 10
K_MAX: Final = 100
PROJECT_ALL: Final = "all"

_Text = Annotated[str, Meta(min_length=1, max_length=512)]
_Several = Annotated[list[_Text], Meta(max_length=100)]
_K = Annotated[int, Meta(ge=1, le=K_MAX)]


class AmbiguousSearch(Exception):
    """Two fields of a search contradict each other, or one says nothing; ``field`` names it."""

    def __init__(self, field: str, detail: str) -> None:
        super().__init__(detail)
        self.field = field
        self.detail = detail


class SearchRequest(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """What to look for. Filters that are left out filter nothing; ``topK`` is another name for ``k``."""

    query: Annotated[str, Meta(min_length=1, max_length=10_000, description="In words, or as code.")]
    k: _K | None = None
    top_k: _K | None = None
    dataset: _Text | _Several | None = None
    repo: _Text | _Several | None = None
    lang: _Text | _Several | None = None
    path_prefix: Annotated[str, Meta(max_length=4096)] | None = None
    threshold: float | None = None
    include_global: bool = True
    mode: SearchMode = SearchMode.HYBRID


class ProjectSearchRequest(SearchRequest, frozen=True, kw_only=True):
    """A search that names its project; none, or ``all``, is every project."""

    project: _Text | None = None


class Hit(msgspec.Struct, frozen=True, kw_only=True):
    """A file and its best chunk; ``also`` are further places in the same file.

    ``document`` says where in a document the chunk is, and is null in a repository.
    """

    id: str
    chunk: str
    file: str
    line_span: LineSpan = msgspec.field(name="lineSpan")
    symbol: str | None
    language: str
    repository: str
    commit: str
    url: str | None
    scores: Scores
    kind: str | None
    project: str
    dataset: str
    reasons: tuple[str, ...]
    highlights: tuple[str, ...]
    also: tuple[LineSpan, ...]
    document: FoundDocument | None


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """The results, best first."""

    request_id: str
    results: tuple[Hit, ...]
    metadata: dict[str, Any]
    latency_ms: float


def question(request: SearchRequest, *, sight: Sight, project: str | None) -> Search:
    """The question that *request* means to somebody with *sight* in one tenant; AmbiguousSearch."""
    assert sight.tenant is not None, "a search is of one tenant"
    if not request.query.strip():
        raise AmbiguousSearch("query", "The query is empty")
    if request.k is not None and request.top_k is not None and request.k != request.top_k:
        raise AmbiguousSearch("topK", "k and topK are the same thing, and differ")
    return Search(
        tenant=sight.tenant,
        query=request.query,
        project=None if project in (None, PROJECT_ALL) else project,
        k=request.k or request.top_k or K_DEFAULT,
        mode=request.mode,
        datasets=_several(request.dataset),
        repositories=_several(request.repo),
        languages=_several(request.lang),
        path_prefix=request.path_prefix or None,
        threshold=request.threshold,
        include_global=request.include_global,
        projects=None if sight.projects is None else tuple(sorted(sight.projects)),
    )


def _several(value: str | list[str] | None) -> tuple[str, ...]:
    if value is None:
        return ()
    return (value,) if isinstance(value, str) else tuple(value)


def found(answer: SearchAnswer, *, request_id: str) -> Found:
    """*answer* as clients read it."""
    return Found(
        request_id=request_id,
        results=tuple(_hit(result) for result in answer.results),
        metadata=dict(answer.metadata),
        latency_ms=answer.latency_ms,
    )


def _hit(result: SearchResult) -> Hit:
    return Hit(
        id=result.id,
        chunk=result.chunk,
        file=result.file,
        line_span=result.line_span,
        symbol=result.symbol,
        language=result.language,
        repository=result.repository,
        commit=result.commit,
        url=result.url,
        scores=result.scores,
        kind=result.kind,
        project=result.project,
        dataset=result.dataset,
        reasons=result.reasons,
        highlights=result.highlights,
        also=result.also,
        document=result.document,
    )
