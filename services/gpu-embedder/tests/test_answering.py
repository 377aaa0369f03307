"""Searches while the server that encodes is away: they go by words, and say so."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np
import pytest

from pharos_contracts.datasets.v1 import Dataset, IndexStage
from pharos_contracts.jobs.v1 import Scope
from pharos_contracts.search.v1 import Search, SearchAnswer, SearchBatch, SearchBatchAnswer, SearchMode
from pharos_embedder.answering import AWAY_SECONDS, Answers
from pharos_embedder.bm25 import Lexicon, document_terms, document_vector
from pharos_embedder.provider.errors import ProviderRefused, ProviderUnavailable
from pharos_embedder.qdrant_store import local_mode_store
from pharos_embedder.search import SearchEngine
from pharos_embedder.vectors import DatasetKey, Floats, Payload, Point, point_id
from pharos_sources.hosts import AllowedHosts

KEY = DatasetKey("default", "default", "atlas")
LIVE = Dataset(
    tenant="default", project="default", dataset="atlas", scope=Scope.PROJECT, repository="", clone_url="",
    branch=None, commit="", generation=1, stage=IndexStage.FULL, job_id="", files=2, chunks=2, encoder="e",
    chunker="", published_at=datetime(2026, 6, 1, tzinfo=UTC),
)  # fmt: skip
TEXTS = {"tide.txt": "the tide rises twice a day", "bread.txt": "flour water salt"}


class Known:
    """A catalogue that has been read."""

    async def known(self, _seconds: float) -> bool:
        return True

    def all(self) -> list[Dataset]:
        return [LIVE]


class Server:
    """Encodes, or is away."""

    def __init__(self) -> None:
        self.away = False
        self.asked = 0

    def encode(self, texts: Sequence[str]) -> Floats:
        self.asked += 1
        if self.away:
            raise ProviderUnavailable("h.example", "no connection")
        if "forbidden" in texts:
            raise ProviderRefused("h.example", "refused an input", "say it otherwise")
        return np.tile(np.array([1, 0, 0, 0], dtype=np.float32), (len(texts), 1))


def question(mode: SearchMode = SearchMode.HYBRID, query: str = "tide") -> Search:
    return Search(tenant="default", project="default", query=query, mode=mode)


@pytest.mark.anyio
async def test_searches_go_by_words_while_the_server_is_away_and_wait_for_it_now_and_then() -> None:
    store, server, time = local_mode_store(None, dimensions=4), Server(), [0.0]
    store.open()
    for number, (path, text) in enumerate(TEXTS.items()):
        identifier = point_id(
            KEY, kind="chunk", path=path, start_line=1, end_line=1, content_hash="", chunker_version="",
            encoder_version="",
        )  # fmt: skip
        payload = Payload(dataset=KEY, kind="chunk", generation=1, path=path, text=text, encoder="e")
        words = document_vector(document_terms(text))
        store.upsert([Point(id=identifier, payload=payload, code_bm25=words, text_vector=np.eye(4)[number])])
    store.put_lexicon(KEY, 1, Lexicon.of(document_terms(text) for text in TEXTS.values()))
    answers = Answers(
        SearchEngine(store, server.encode, encoder="e"),
        Known(),  # type: ignore[arg-type]
        AllowedHosts.parse(""),
        encoder="e",
        clock=lambda: time[0],
    )

    async def told(asked: Search) -> tuple[list[str], str]:
        answer = await answers.answer(asked)
        assert isinstance(answer, SearchAnswer)
        return [each.file for each in answer.results], str(answer.metadata.get("encoder_unavailable", ""))

    assert await told(question()) == (["tide.txt", "bread.txt"], "")
    server.away = True
    away = "The embeddings server h.example cannot be used now: no connection"
    for mode in (SearchMode.HYBRID, SearchMode.DENSE):
        assert await told(question(mode)) == (["tide.txt"], away)
    assert await told(question(SearchMode.LEXICAL)) == (["tide.txt"], "")
    batch = await answers.answer(SearchBatch(queries=(question(), question(SearchMode.LEXICAL))))
    assert isinstance(batch, SearchBatchAnswer)
    by_meaning, by_words = batch.answers
    assert isinstance(by_meaning, SearchAnswer) and isinstance(by_words, SearchAnswer)
    assert "words alone" in str(by_meaning.metadata["note"]) and "note" not in by_words.metadata
    assert server.asked == 2  # once by the first search after it went away
    server.away, time[0] = False, AWAY_SECONDS
    assert await told(question()) == (["tide.txt", "bread.txt"], "")
    assert (await told(question(query="forbidden")))[1].endswith("say it otherwise")
    assert await told(question()) == (["tide.txt", "bread.txt"], "")  # what one text does is not for all
    store.close()
