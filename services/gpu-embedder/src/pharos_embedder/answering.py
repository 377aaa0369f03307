"""``rpc.search`` and ``rpc.store``: a question of the bus becomes a query, its answer a message."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Final, assert_never

import anyio.to_thread
import msgspec
import structlog

from pharos_contracts.control.v1 import (
    DescribeStore,
    InspectDatasets,
    InspectedDatasets,
    StoreContents,
    StoredGeneration,
)
from pharos_contracts.datasets.v1 import Dataset, DeleteDataset, FindDatasets, IndexStage
from pharos_contracts.message import Message
from pharos_contracts.rpc import Refused
from pharos_contracts.search.v1 import (
    FoundDocument,
    LineSpan,
    Scores,
    Search,
    SearchAnswer,
    SearchBatch,
    SearchBatchAnswer,
    SearchResult,
)
from pharos_embedder import search
from pharos_embedder.catalogue import DATASETS_MAX, Catalogue, choose
from pharos_embedder.deleting import Deleting
from pharos_embedder.encoders import EncoderBusy
from pharos_embedder.fusion import Reason
from pharos_embedder.provider.errors import ProviderError
from pharos_embedder.vectors import (
    DatasetKey,
    DocumentFacts,
    Filters,
    Searched,
    Selection,
    StoreError,
    VectorStore,
)
from pharos_sources.hosts import AllowedHosts
from pharos_sources.repository_url import InvalidRepositoryUrl, RepositoryAddress, parse_repository_url

log = structlog.get_logger()

STARTING_SECONDS_MAX: Final = 4.0
AWAY_SECONDS: Final = 5.0  # after a search waited for its vector in vain; till then no other one does
# An empty answer would say that nothing is indexed, and that is not known yet.
STARTING: Final = Refused(
    code="search_starting",
    detail="The search service is starting; try again in a moment",
    status=503,
)


StoreQuestion = DescribeStore | InspectDatasets | FindDatasets | DeleteDataset
"""What ``rpc.store`` is asked."""


async def answer_store(store: VectorStore, deleting: Deleting, question: StoreQuestion) -> Message:
    """``rpc.store``: what *store* holds, and deleting datasets from it."""
    match question:
        case DescribeStore():
            return await describe(store)
        case InspectDatasets():
            return await inspect(store, question)
        case FindDatasets():
            return await deleting.find(question)
        case DeleteDataset():
            return await deleting.delete(question)
        case _:
            assert_never(question)


async def describe(store: VectorStore) -> Message:
    """Everything that *store* holds, by dataset and generation."""
    try:
        held = await anyio.to_thread.run_sync(store.contents)
    except StoreError as error:
        return Refused(code="store_unavailable", detail=str(error), status=503)
    return StoreContents(
        generations=tuple(
            StoredGeneration(
                tenant=each.dataset.tenant,
                project=each.dataset.project,
                dataset=each.dataset.dataset,
                generation=each.number,
                points=each.points,
                others=each.others,
            )
            for each in held
        )
    )


async def inspect(store: VectorStore, question: InspectDatasets) -> Message:
    """What readers see of the datasets that *question* names."""
    found = []
    try:
        for each in question.datasets:
            key = DatasetKey(each.tenant, each.project, each.dataset)
            found.append(await anyio.to_thread.run_sync(store.inspect, key, each.generation))
    except StoreError as error:
        return Refused(code="store_unavailable", detail=str(error), status=503)
    return InspectedDatasets(datasets=tuple(found))


class _Prepared(msgspec.Struct, frozen=True, kw_only=True):
    """A query of the engine, the datasets that it is of, and how many would have been chosen."""

    query: search.SearchQuery
    searched: Sequence[Dataset]
    chosen: int


class Answers:
    """Answers searches over the live datasets."""

    def __init__(
        self,
        engine: search.SearchEngine,
        catalogue: Catalogue,
        allowed_hosts: AllowedHosts,
        *,
        encoder: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """*encoder* is the version of what *engine* encodes queries with."""
        self._encoder = encoder
        self._clock = clock
        self._away = ""
        self._away_until = -math.inf
        self._engine = engine
        self._catalogue = catalogue
        self._address = lru_cache(maxsize=4096)(_address_in(allowed_hosts))

    async def answer(self, question: Search | SearchBatch) -> Message:
        """The answer, or a refusal that says what to change; of a batch one of these for each query."""
        began = time.perf_counter()
        if not await self._catalogue.known(STARTING_SECONDS_MAX):
            return STARTING
        asked = question.queries if isinstance(question, SearchBatch) else (question,)
        prepared = [self._prepared(each, began) for each in asked]
        queries = [each.query for each in prepared if isinstance(each, _Prepared)]
        try:
            found, away = await anyio.to_thread.run_sync(self._search, queries) if queries else ([], "")
        except EncoderBusy as error:
            return Refused(code="encoder_busy", detail=str(error), status=503)
        except StoreError as error:
            return Refused(code="store_unavailable", detail=str(error), status=503)
        following = iter(found)
        answers = tuple(
            self._answer(each, next(following), away, began) if isinstance(each, _Prepared) else each
            for each in prepared
        )
        if isinstance(question, SearchBatch):
            return SearchBatchAnswer(answers=answers, latency_ms=_ms_since(began))
        return answers[0]

    def _search(self, queries: Sequence[search.SearchQuery]) -> tuple[list[search.SearchAnswer], str]:
        """The answers; and, where the server that encodes is away, why they are by words alone. Blocks."""
        if not any(map(search.is_meant, queries)):
            return self._engine.search_all(queries), ""
        why = self._away
        if self._clock() >= self._away_until:
            try:
                return self._engine.search_all(queries), ""
            except ProviderError as error:
                why = str(error)
                log.warning("searched_by_words", reason=why)
                if error.transient:  # what it refuses may be this text alone, and it says so at once
                    self._away, self._away_until = why, self._clock() + AWAY_SECONDS
        return self._engine.search_all([search.by_words(query) for query in queries]), why

    def _prepared(self, question: Search, began: float) -> _Prepared | SearchAnswer | Refused:
        """What to ask the engine, or the answer where that is clear already."""
        chosen = choose(question, self._catalogue.all())
        if not chosen:
            return SearchAnswer(
                results=(),
                metadata={"datasets_searched": 0, "note": _nothing_to_search(question)},
                latency_ms=_ms_since(began),
            )
        searched = chosen[:DATASETS_MAX]
        try:
            query = _query(question, searched, self._encoder)
        except ValueError as error:  # InvalidQuery too
            return Refused(code="invalid_query", detail=str(error), status=400)
        return _Prepared(query=query, searched=searched, chosen=len(chosen))

    def _answer(self, asked: _Prepared, answer: search.SearchAnswer, away: str, began: float) -> SearchAnswer:
        live = {DatasetKey(each.tenant, each.project, each.dataset): each for each in asked.searched}
        return SearchAnswer(
            results=tuple(self._result(found, live[found.dataset]) for found in answer.results),
            metadata=_metadata(
                answer.metadata,
                asked.searched,
                asked.chosen,
                self._encoder,
                away if search.is_meant(asked.query) else "",
            ),
            latency_ms=_ms_since(began),
        )

    def _result(self, found: search.SearchResult, dataset: Dataset) -> SearchResult:
        if found.document is not None:
            url = found.document.url or None
        else:
            address = self._address(dataset.clone_url)
            url = None
            if address is not None:
                url = address.web_url(dataset.commit, found.path, found.start_line, found.end_line)
        return SearchResult(
            id=found.id,
            chunk=found.text,
            file=found.path,
            line_span=LineSpan(start=found.start_line, end=found.end_line),
            symbol=found.symbol or None,
            kind=found.kind or None,
            language=found.language,
            project=dataset.project,
            dataset=dataset.dataset,
            repository=dataset.repository,
            commit=dataset.commit,
            url=url,
            scores=Scores(
                dense=found.scores.dense,
                sparse=found.scores.sparse,
                structural=found.scores.structural,
                final=found.scores.final,
            ),
            reasons=tuple(_reason(each) for each in found.reasons),
            highlights=found.highlights,
            also=found.other_chunks,
            document=None if found.document is None else _document(found.document),
        )


def _document(facts: DocumentFacts) -> FoundDocument:
    return FoundDocument(
        kind=facts.kind,
        title=facts.title or None,
        headings=facts.headings,
        page=facts.page,
        page_end=facts.page_end,
        language=facts.natural_language or None,
        filename=facts.filename or None,
        date=facts.date or None,
    )


def _address_in(allowed_hosts: AllowedHosts) -> Callable[[str], RepositoryAddress | None]:
    def parse(clone_url: str) -> RepositoryAddress | None:
        try:
            return parse_repository_url(clone_url, allowed_hosts=allowed_hosts)
        except InvalidRepositoryUrl:
            return None  # admitted once, and no longer: what was indexed stays, without links

    return parse


def _query(question: Search, datasets: Sequence[Dataset], encoder: str) -> search.SearchQuery:
    return search.SearchQuery(
        text=question.query,
        k=question.k,
        mode=question.mode.value,
        threshold=question.threshold or 0.0,
        selection=Selection(
            datasets=tuple(
                Searched(
                    dataset=DatasetKey(each.tenant, each.project, each.dataset),
                    generation=each.generation,
                    has_dense=each.stage is IndexStage.FULL and each.encoder == encoder,
                )
                for each in datasets
            ),
            filters=Filters(
                languages=tuple(language.lower() for language in question.languages),
                path_prefix=question.path_prefix or "",
            ),
        ),
    )


def _metadata(
    told: search.SearchMetadata, searched: Sequence[Dataset], chosen: int, encoder: str, away: str
) -> dict[str, str | int | float | bool | list[str]]:
    facts: dict[str, str | int | float | bool | list[str]] = {
        "mode": told.mode,
        "datasets_searched": len(searched),
        "datasets_matched": chosen,
        "dense_candidates": told.dense_candidates,
        "sparse_candidates": told.sparse_candidates,
        "words_searched": told.words_searched,
        "query_cut": told.query_cut,
    }
    if told.lexical_only:
        facts["lexical_only"] = [key.dataset for key in told.lexical_only]
    if others := [each.dataset for each in searched if each.encoder != encoder]:
        facts["other_encoder"] = others
        facts["note"] = (
            "What another encoder has indexed is searched by words alone until it is indexed again"
        )
    if away:
        facts["encoder_unavailable"] = away
        facts["note"] = "This is searched by words alone, as long as the embeddings server does not answer"
    return facts


def _reason(reason: Reason) -> str:
    channel = "meaning" if reason.channel == "dense" else "words"
    by = "its best chunk" if reason.by == "best" else "its best three chunks"
    return f"#{reason.rank} by {channel} ({by})"


def _nothing_to_search(question: Search) -> str:
    if question.datasets or question.repositories:
        return "No indexed dataset matches these filters"
    return "Nothing has been indexed here yet"


def _ms_since(began: float) -> float:
    return round((time.perf_counter() - began) * 1000, 2)
