"""An encoder that is a server: what is asked of it, what is believed, and what becomes of every refusal."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from pharos_embedder.costs import Tariff
from pharos_embedder.encoders import Priority
from pharos_embedder.ports import Stopped
from pharos_embedder.provider import pacing
from pharos_embedder.provider.client import CUTS_MAX, INVALID_ANSWERS_MAX, Patience
from pharos_embedder.provider.encoder import Provider, ProviderEncoder, shortened
from pharos_embedder.provider.endpoint import Endpoint
from pharos_embedder.provider.errors import ProviderRefused, ProviderUnavailable
from pharos_sources.secret import Secret
from tests.support.embeddings_server import (
    KEY,
    MODEL,
    EmbeddingsServer,
    gated,
    hanging_up,
    refusing,
    saying,
    truncated,
    vector_of,
)

QUICK = Patience(tries_max=6, first_seconds=0.01, wait_seconds_max=5.0, seconds_max=10.0)
TEXTS = [f"def number_{n}(): return {n}" for n in range(10)]
DEADLINE_SECONDS = 20.0


@pytest.fixture
def server() -> Iterator[EmbeddingsServer]:
    with EmbeddingsServer() as found:
        yield found


def endpoint(server: EmbeddingsServer, **changes: Any) -> Endpoint:
    usual = Endpoint(
        base_url=server.url, model=MODEL, key=Secret(KEY), inputs_max=4, requests_at_once=2, request_seconds=5
    )
    return replace(usual, **changes)


@contextmanager
def encoder_of(
    server: EmbeddingsServer, *, patience: Patience = QUICK, **changes: Any
) -> Iterator[ProviderEncoder]:
    """The encoder, after its first request, which is no longer among those of the server."""
    with Provider(endpoint(server, **changes), Tariff(), patience=patience) as provider:
        found = provider.encoder()
        server.requests.clear()
        yield found


def expected(texts: list[str], dimensions: int = 8) -> Any:
    made = np.stack([vector_of(text, dimensions) for text in texts])
    return made / np.linalg.norm(made, axis=1, keepdims=True)


def started(work: Callable[[], Any]) -> tuple[threading.Thread, list[Any]]:
    """*work* in a thread, and what it returned or raised."""
    outcome: list[Any] = []

    def run() -> None:
        try:
            outcome.append(work())
        except BaseException as error:
            outcome.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, outcome


def joined(thread: threading.Thread) -> None:
    thread.join(DEADLINE_SECONDS)
    assert not thread.is_alive()


# What is asked, and what is believed


@pytest.mark.parametrize("knows_base64", [True, False])
def test_texts_become_unit_vectors_in_their_order_whatever_the_order_of_the_answer(
    server: EmbeddingsServer, knows_base64: bool
) -> None:
    server.state.knows_base64 = knows_base64
    with encoder_of(server) as encoder:
        vectors = encoder.encode_documents(TEXTS)
        np.testing.assert_allclose(vectors, expected(TEXTS), atol=1e-6)
        np.testing.assert_allclose(encoder.encode_queries(TEXTS[:1]), expected(TEXTS[:1]), atol=1e-6)
    assert {each.body["encoding_format"] for each in server.requests} == {
        "base64" if knows_base64 else "float"
    }
    assert encoder.version == f"127.0.0.1:{server.port}/{MODEL}@8:8191"


def test_requests_keep_the_limits_of_inputs_tokens_and_number_at_once(
    server: EmbeddingsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(pacing.WAITING_MAX, Priority.REPOSITORY, 1)  # no more are begun than may go
    lengths = [30, 30, 30, 30, 30, 90, 90, 3, 3, 300]
    with encoder_of(server) as encoder:
        encoder.encode_documents(["x" * length for length in lengths], token_budget=50)
    sent = [[len(text) for text in each.inputs] for each in sorted(server.requests, key=lambda each: each.at)]
    assert sorted(sent) == sorted([[30] * 4, [30, 90], [90, 3, 3], [300]])
    assert server.state.at_once_max <= 2


def test_progress_and_vectors_are_told_batch_by_batch(server: EmbeddingsServer) -> None:
    told: list[tuple[int, int]] = []
    got: dict[int, Any] = {}
    with encoder_of(server) as encoder:
        vectors = encoder.encode_documents(
            TEXTS,
            on_progress=lambda done, total: told.append((done, total)),
            on_batch=lambda places, found: got.update(zip(places, found, strict=True)),
        )
    assert told[-1] == (10, 10)
    assert len(told) == 3
    np.testing.assert_array_equal(np.stack([got[place] for place in range(10)]), vectors)


def test_the_dimensions_that_were_asked_for_are_sent_and_those_that_were_not_are_found_out(
    server: EmbeddingsServer,
) -> None:
    with encoder_of(server, dimensions=5) as encoder:
        assert encoder.encode_documents(TEXTS[:2]).shape == (2, 5)
        assert encoder.version.endswith("@5:8191")
    assert all(each.body["dimensions"] == 5 for each in server.requests)
    with encoder_of(server) as encoder:
        encoder.encode_documents(TEXTS[:2])
        assert encoder.dimensions == 8
    assert all("dimensions" not in each.body for each in server.requests)


def test_a_server_that_does_not_cut_its_vectors_is_a_mistake_at_the_start(server: EmbeddingsServer) -> None:
    server.state.always = saying(lambda body: body["data"][0].update(embedding=[1.0] * 8))
    with (
        Provider(endpoint(server, dimensions=5), Tariff(), patience=QUICK) as provider,
        pytest.raises(
            ProviderRefused, match=r"vectors of 8 dimensions, not of 5.*OPENAI_EMBEDDING_DIMENSIONS"
        ),
    ):
        provider.encoder()


BROKEN: dict[str, Callable[[dict[str, Any]], Any]] = {
    "a vector is missing": lambda body: body["data"].pop(),
    "a number is there twice": lambda body: body["data"][0].update(index=body["data"][1]["index"]),
    "a number is beyond the inputs": lambda body: body["data"][0].update(index=9),
    "another length": lambda body: body["data"][0].update(embedding=[1.0] * 7),
    "no numbers at all": lambda body: body["data"][0].update(embedding=[]),
    "no direction": lambda body: body["data"][0].update(embedding=[0.0] * 8),
    "not a number": lambda body: body["data"][0].update(
        embedding="AADAfwAAwH8AAMB/AADAfwAAwH8AAMB/AADAfwAAwH8="
    ),
    "beyond single precision": lambda body: body["data"][0].update(embedding=[1e300] * 8),
    "no base64": lambda body: body["data"][0].update(embedding="!!!!"),
    "half a number": lambda body: body["data"][0].update(embedding="AAAA"),
    "another shape": lambda body: {"vectors": []},
    "a list": lambda body: [],
}


@pytest.mark.parametrize("broken", BROKEN)
def test_an_answer_that_is_wrong_is_asked_for_again_and_given_up_when_it_stays_wrong(
    server: EmbeddingsServer, broken: str
) -> None:
    def wrong(body: dict[str, Any]) -> Any:
        changed = BROKEN[broken](body)
        return changed if broken in ("another shape", "a list") else None

    with encoder_of(server) as encoder:
        server.script(saying(wrong))
        np.testing.assert_allclose(encoder.encode_documents(TEXTS[:2]), expected(TEXTS[:2]), atol=1e-6)
        assert len(server.requests) == 2
        server.state.always = saying(wrong)
        with pytest.raises(ProviderRefused, match="an answer that cannot be used"):
            encoder.encode_documents(TEXTS[:2])
    assert len(server.requests) == 2 + INVALID_ANSWERS_MAX


# What is tried again


@pytest.mark.parametrize(
    "behaviour",
    [
        refusing(500),
        refusing(502),
        refusing(503),
        refusing(529),
        refusing(408),
        refusing(429),
        truncated,
        hanging_up,
    ],
)
def test_what_passes_is_tried_again(server: EmbeddingsServer, behaviour: Any) -> None:
    with encoder_of(server) as encoder:
        server.script(behaviour, behaviour, behaviour)
        np.testing.assert_allclose(encoder.encode_documents(TEXTS), expected(TEXTS), atol=1e-6)
    assert len(server.requests) == 3 + 3


def test_a_server_that_stays_broken_is_given_up_after_so_many_tries(server: EmbeddingsServer) -> None:
    with encoder_of(server) as encoder:
        server.state.always = refusing(503)
        with pytest.raises(ProviderUnavailable, match="after 6 tries: it answered 503"):
            encoder.encode_documents(TEXTS[:1])
    assert len(server.requests) == QUICK.tries_max


def test_a_storm_of_refusals_passes_and_nobody_storms_back(server: EmbeddingsServer) -> None:
    with encoder_of(server, requests_at_once=8, inputs_max=1) as encoder:
        server.script(*[refusing(429)] * 20)
        np.testing.assert_allclose(encoder.encode_documents(TEXTS), expected(TEXTS), atol=1e-6)
    assert len(server.requests) == 20 + len(TEXTS)


def test_everybody_waits_as_long_as_the_server_asks(server: EmbeddingsServer) -> None:
    with encoder_of(server, inputs_max=5) as encoder:
        server.script(refusing(429, Retry_After="1"))
        thread, _ = started(lambda: encoder.encode_documents(TEXTS[:5]))
        while not server.requests:
            thread.join(0.01)
        thread.join(0.2)
        encoder.encode_documents(TEXTS[5:])  # somebody who was not refused
        joined(thread)
    first, *others = (each.at for each in server.requests)
    assert len(others) == 2
    assert min(others) - first >= 1


def test_a_server_that_asks_for_too_much_patience_is_not_waited_for(server: EmbeddingsServer) -> None:
    with encoder_of(server) as encoder:
        server.script(refusing(429, Retry_After="3600"))
        with pytest.raises(ProviderUnavailable, match="too many requests"):
            encoder.encode_documents(TEXTS[:1])
    assert len(server.requests) == 1


def test_an_answer_that_takes_too_long_is_asked_for_again(server: EmbeddingsServer) -> None:
    with encoder_of(server, request_seconds=0.2) as encoder:
        server.script(gated)
        np.testing.assert_allclose(encoder.encode_documents(TEXTS[:1]), expected(TEXTS[:1]), atol=1e-6)
    assert len(server.requests) == 2


def test_what_the_server_says_is_left_is_not_exceeded(server: EmbeddingsServer) -> None:
    with encoder_of(server, inputs_max=1, requests_at_once=4) as encoder:
        server.state.headers = {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "300ms"}
        encoder.encode_documents(TEXTS[:1])
        server.state.headers = {}
        encoder.encode_documents(TEXTS[1:2])
    first, second = (each.at for each in server.requests)
    assert second - first >= 0.3


# What is final


@pytest.mark.parametrize(
    ("behaviour", "sentence"),
    [
        (refusing(401, "invalid_api_key"), "refuses the key .401 invalid_api_key.: check OPENAI_API_KEY"),
        (refusing(403), "refuses the key .403.: check OPENAI_API_KEY"),
        (refusing(401, KEY), "refuses the key .401.: check OPENAI_API_KEY"),
        (refusing(404, "model_not_found"), f"has no model '{MODEL}'.*check OPENAI_EMBEDDING_MODEL"),
        (refusing(429, "insufficient_quota"), "its quota is used up"),
        (refusing(402), "its quota is used up"),
        (refusing(405), "refuses the request .405."),
        (refusing(308, Location="https://elsewhere.example/v1"), "set OPENAI_BASE_URL to where it leads"),
    ],
)
def test_what_does_not_pass_is_a_sentence_at_once_and_holds_no_key(
    server: EmbeddingsServer, behaviour: Any, sentence: str
) -> None:
    with encoder_of(server) as encoder:
        server.state.always = behaviour
        with pytest.raises(ProviderRefused, match=sentence) as raised:
            encoder.encode_documents(TEXTS[:1])
        with pytest.raises(ProviderRefused, match=sentence):
            encoder.encode_queries(TEXTS[:1])
    assert len(server.requests) == 2
    assert KEY not in str(raised.value)


def test_the_server_sees_the_key_and_refuses_another(server: EmbeddingsServer) -> None:
    wrong = Provider(endpoint(server, key=Secret("sk-wrong")), Tariff(), patience=QUICK)
    with wrong as provider, pytest.raises(ProviderRefused, match="OPENAI_API_KEY") as raised:
        provider.encoder()
    assert "sk-wrong" not in str(raised.value)
    without = Provider(endpoint(server, key=None), Tariff(), patience=QUICK)
    with without as provider, pytest.raises(ProviderRefused, match="OPENAI_API_KEY"):
        provider.encoder()
    assert "authorization" not in server.requests[-1].headers


def test_a_server_that_is_not_there_is_unavailable(server: EmbeddingsServer) -> None:
    gone = endpoint(server, base_url="http://127.0.0.1:9/v1")
    with Provider(gone, Tariff(), patience=QUICK) as provider, pytest.raises(ProviderUnavailable):
        provider.encoder()


# Inputs that are too many or too long


def test_too_many_inputs_are_halved_and_the_limit_is_remembered(server: EmbeddingsServer) -> None:
    server.state.inputs_max = 2
    with encoder_of(server, inputs_max=8, requests_at_once=1) as encoder:
        np.testing.assert_allclose(encoder.encode_documents(TEXTS), expected(TEXTS), atol=1e-6)
        server.requests.clear()
        encoder.encode_documents(TEXTS)
    assert [len(each.inputs) for each in server.requests] == [2] * 5


def test_one_input_that_is_too_long_is_cut_and_the_others_are_not(server: EmbeddingsServer) -> None:
    server.state.input_characters_max = 100
    texts = [*TEXTS[:3], "word " * 60]
    with encoder_of(server) as encoder:
        vectors = encoder.encode_documents(texts)
        np.testing.assert_allclose(vectors[:3], expected(texts[:3]), atol=1e-6)
        np.testing.assert_allclose(vectors[3:], expected([texts[3][:75]]), atol=1e-6)
        server.requests.clear()
        encoder.encode_documents(TEXTS[:4])
    assert [len(each.inputs) for each in server.requests] == [4]  # nothing was too many


def test_a_server_that_refuses_every_input_is_given_up_after_a_few_requests(server: EmbeddingsServer) -> None:
    with encoder_of(server) as encoder:
        server.state.always = refusing(400)
        with pytest.raises(ProviderRefused, match="however short it is cut"):
            encoder.encode_documents([text * 9 for text in TEXTS[:4]])
    assert len(server.requests) == 3 + CUTS_MAX


def test_a_text_beyond_the_limit_of_the_model_is_sent_in_part(server: EmbeddingsServer) -> None:
    with encoder_of(server, input_tokens_max=20) as encoder:
        encoder.encode_documents(["x" * 100, "é" * 100, "short"])
    assert [len(text) for text in server.requests[0].inputs] == [60, 20, 5]


@pytest.mark.parametrize("text", ["", "abc", "a" * 61, "é" * 21, "aé" * 40, "𝄞" * 50])
def test_what_is_left_of_a_text_is_the_longest_beginning_that_may_be_sent(text: str) -> None:
    from pharos_embedder.costs import tokens_of

    cut = shortened(text, 20)
    assert text.startswith(cut)
    assert tokens_of(cut) <= 20
    assert cut == text or tokens_of(text[: len(cut) + 1]) > 20


# Stopping, and who goes first


def test_a_pause_waits_for_what_was_sent_and_sends_nothing_more(server: EmbeddingsServer) -> None:
    got: list[int] = []
    paused = threading.Event()

    def check() -> None:
        if paused.is_set():
            raise Stopped("paused")

    with encoder_of(server) as encoder:
        server.script(gated, gated)
        thread, outcome = started(
            lambda: encoder.encode_documents(
                TEXTS, check=check, on_batch=lambda places, _: got.extend(places)
            )
        )
        assert server.state.reached.wait(DEADLINE_SECONDS)
        paused.set()
        thread.join(0.5)
        assert thread.is_alive()
        server.state.gate.set()
        joined(thread)
    assert isinstance(outcome[0], Stopped)
    assert len(server.requests) <= 2
    assert len(got) == sum(len(each.inputs) for each in server.requests)


def test_a_cancel_waits_for_nothing(server: EmbeddingsServer) -> None:
    cancelled = threading.Event()

    def midway() -> None:
        if cancelled.is_set():
            raise Stopped("cancelled")

    with encoder_of(server, request_seconds=60) as encoder:
        server.script(gated, gated)
        thread, outcome = started(lambda: encoder.encode_documents(TEXTS, midway=midway))
        assert server.state.reached.wait(DEADLINE_SECONDS)
        cancelled.set()
        joined(thread)
        assert isinstance(outcome[0], Stopped)
        # The gate is shut still, and the places in the line are free all the same.
        thread, outcome = started(lambda: encoder.encode_documents(TEXTS[:1]))
        joined(thread)
        assert outcome[0].shape == (1, 8)


def test_closing_waits_for_no_answer(server: EmbeddingsServer) -> None:
    with encoder_of(server) as encoder:
        server.script(gated, gated)
        thread, outcome = started(lambda: encoder.encode_documents(TEXTS))
        assert server.state.reached.wait(DEADLINE_SECONDS)
    joined(thread)  # the gate is shut still
    assert isinstance(outcome[0], Exception)


def test_a_pause_during_a_wait_for_the_server_does_not_wait(server: EmbeddingsServer) -> None:
    asked = threading.Event()

    def check() -> None:
        if asked.is_set():
            raise Stopped("paused")

    with encoder_of(server, patience=replace(QUICK, wait_seconds_max=60, seconds_max=60)) as encoder:
        server.state.always = refusing(429, Retry_After="50")
        thread, outcome = started(lambda: encoder.encode_documents(TEXTS, check=check))
        while not server.requests:
            thread.join(0.01)
        asked.set()
        joined(thread)
    assert isinstance(outcome[0], Stopped)


def test_a_query_waits_for_no_document(server: EmbeddingsServer) -> None:
    with encoder_of(server, request_seconds=60) as encoder:
        server.script(gated, gated)
        thread, _ = started(lambda: encoder.encode_documents(TEXTS))
        while len(server.requests) < 2:
            thread.join(0.01)
        np.testing.assert_allclose(encoder.encode_queries(["penguin"]), expected(["penguin"]), atol=1e-6)
        assert thread.is_alive()
        server.state.gate.set()
        joined(thread)


def test_a_query_that_nobody_answers_in_time_says_so(server: EmbeddingsServer) -> None:
    with Provider(endpoint(server), Tariff(), patience=QUICK) as provider:
        usual = provider.encoder()
        encoder = ProviderEncoder(usual._portal, usual._client, 8, Tariff(), query_seconds=0.2)
        server.script(gated)
        with pytest.raises(ProviderUnavailable, match=r"no answer within 0\.2 s"):
            encoder.encode_queries(["penguin"])


def test_one_refusal_ends_the_call_and_what_was_sent_beside_it_is_kept(server: EmbeddingsServer) -> None:
    got: list[int] = []
    with encoder_of(server) as encoder:
        server.script(refusing(401), gated)
        thread, outcome = started(
            lambda: encoder.encode_documents(
                TEXTS, priority=Priority.NOTE, on_batch=lambda places, _: got.extend(places)
            )
        )
        assert server.state.reached.wait(DEADLINE_SECONDS)
        thread.join(0.3)
        assert thread.is_alive()  # though it is known by now that the whole has failed
        server.state.gate.set()
        joined(thread)
    assert isinstance(outcome[0], ProviderRefused)
    assert len(got) == sum(len(each.inputs) for each in server.requests) - 4


def test_the_key_is_in_no_representation(server: EmbeddingsServer) -> None:
    assert KEY not in repr(endpoint(server))
