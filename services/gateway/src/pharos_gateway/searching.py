"""Searches in the words of the HTTP API, made into the question that the search service answers. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from pharos_contracts.identity import InvalidName, token
from pharos_contracts.rpc import Refused
from pharos_contracts.search.v1 import (
    FoundDocument,
    LineSpan,
    Scores,
    Search,
    SearchAnswer,
    SearchBatch,
    SearchBatchAnswer,
    SearchMode,
    SearchResult,
)
from pharos_gateway.project_names import PROJECT_ALL
from pharos_gateway.sight import Sight

K_DEFAULT: Final = 10
K_MAX: Final = 100
QUERIES_MAX: Final = 20
BATCH_RESULTS_MAX: Final = 200  # so that an answer is no larger than a message may be

_Text = Annotated[str, Meta(min_length=1, max_length=512)]
_Several = Annotated[list[_Text], Meta(max_length=100)]
_Query = Annotated[str, Meta(min_length=1, max_length=10_000, description="In words, or as code.")]
_K = Annotated[int, Meta(ge=1, le=K_MAX)]


class AmbiguousSearch(Exception):
    """Two fields of a search contradict each other, or one says nothing; ``field`` names it if it is one."""

    def __init__(self, field: str | None, detail: str) -> None:
        super().__init__(detail)
        self.field = field
        self.detail = detail


class SearchRequest(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """What to look for. Filters that are left out filter nothing; ``topK`` is another name for ``k``."""

    query: _Query
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


class _Shared(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """What a query of a batch may say for itself, and the batch for all of them."""

    k: _K | None = None
    top_k: _K | None = None
    dataset: _Text | _Several | None = None
    repo: _Text | _Several | None = None
    lang: _Text | _Several | None = None
    path_prefix: Annotated[str, Meta(max_length=4096)] | None = None
    threshold: float | None = None
    include_global: bool | None = None
    mode: SearchMode | None = None
    project: _Text | None = None


class BatchQuery(_Shared, frozen=True, kw_only=True):
    """One query of a batch; what it does not say, the batch says for it."""

    query: _Query


class BatchSearchRequest(_Shared, frozen=True, kw_only=True):
    """Several searches at once. What stands beside ``queries`` holds for each that does not say otherwise."""

    queries: Annotated[
        list[Any],
        Meta(
            min_length=1,
            max_length=QUERIES_MAX,
            description="1 to 20, each `{query, k, topK, dataset, repo, lang, pathPrefix, threshold, "
            "includeGlobal, mode, project}` of which only `query` is needed; 200 results in all.",
        ),
    ]


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


class BatchProblem(msgspec.Struct, frozen=True, kw_only=True):
    """Why a query of a batch has no answer; ``field`` is what is wrong in it, where it is one field."""

    detail: str
    code: str
    field: str | None = None


class BatchAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The results of one query, best first, or an ``error``."""

    results: tuple[Hit, ...] = ()
    metadata: dict[str, Any] = {}
    error: BatchProblem | None = None


class FoundBatch(msgspec.Struct, frozen=True, kw_only=True):
    """One answer for each query, in their order."""

    request_id: str
    answers: tuple[BatchAnswer, ...]
    latency_ms: float


def questions(request: BatchSearchRequest, *, sight: Sight) -> list[Search | BatchProblem]:
    """What each query of *request* means, or why it means nothing; AmbiguousSearch where all are too much."""
    asked = [_asked(each, request, sight) for each in request.queries]
    results = sum(each.k for each in asked if isinstance(each, Search))
    if results > BATCH_RESULTS_MAX:
        raise AmbiguousSearch(
            "k",
            f"A batch asks for at most {BATCH_RESULTS_MAX} results in all, and this one for {results}; "
            "lower k or send several batches",
        )
    return asked


def _asked(query: Any, batch: BatchSearchRequest, sight: Sight) -> Search | BatchProblem:
    try:
        own = msgspec.convert(query, BatchQuery)
        chosen = _told(batch) | _told(own)
        if own.k is None and own.top_k is None:  # they are one field: whoever says one, has said both
            chosen |= {"k": batch.k, "top_k": batch.top_k}
        else:
            chosen |= {"k": own.k, "top_k": own.top_k}
        project = chosen.pop("project", None)
        named = None if project is None else token(project)
        return question(SearchRequest(query=own.query, **chosen), sight=sight, project=named)
    except msgspec.ValidationError as error:
        return BatchProblem(detail=f"Invalid request: {error}", code="invalid_request")
    except InvalidName as error:
        return BatchProblem(detail=str(error), code="invalid_request", field="project")
    except AmbiguousSearch as error:
        return BatchProblem(detail=error.detail, code="invalid_request", field=error.field)


def _told(shared: _Shared) -> dict[str, Any]:
    fields = {name: getattr(shared, name) for name in _Shared.__struct_fields__}
    return {name: value for name, value in fields.items() if value is not None}


def batch_of(asked: Sequence[Search | BatchProblem]) -> SearchBatch:
    """The queries that mean something, as one question."""
    return SearchBatch(queries=tuple(each for each in asked if isinstance(each, Search)))


def found_batch(
    asked: Sequence[Search | BatchProblem], answer: SearchBatchAnswer, *, request_id: str
) -> FoundBatch:
    """*answer* as clients read it, with the queries in their places that were not asked."""
    answers = iter(answer.answers)
    return FoundBatch(
        request_id=request_id,
        answers=tuple(
            BatchAnswer(error=each) if isinstance(each, BatchProblem) else _batch_answer(next(answers))
            for each in asked
        ),
        latency_ms=answer.latency_ms,
    )


def _batch_answer(answer: SearchAnswer | Refused) -> BatchAnswer:
    if isinstance(answer, Refused):
        return BatchAnswer(error=BatchProblem(detail=answer.detail, code=answer.code))
    return BatchAnswer(
        results=tuple(_hit(result) for result in answer.results), metadata=dict(answer.metadata)
    )


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
