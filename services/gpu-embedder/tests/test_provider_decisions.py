"""What is decided without a server: where it is, when a request may go, what a run costs."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pharos_embedder.costs import JobTooCostly, Tariff, cost_of, tokens_of
from pharos_embedder.provider.endpoint import Endpoint, InvalidEndpoint
from pharos_embedder.provider.pacing import BURST_SECONDS, HOLD_SECONDS_MAX, Pace
from pharos_embedder.provider.protocol import (
    Allowance,
    AnswerInvalid,
    allowance_of,
    duration,
    error_code,
    read_answer,
)
from pharos_sources.secret import Secret

NESTED = b"[" * 100_000 + b"]" * 100_000


def endpoint(base_url: str, key: str = "") -> Endpoint:
    return Endpoint(base_url=base_url, model="m", key=Secret(key) if key else None)


@pytest.mark.parametrize(
    ("base_url", "scheme", "host", "port"),
    [
        ("https://api.openai.com/v1", "https", "api.openai.com", None),
        ("https://llm.internal/v1/", "https", "llm.internal", None),
        ("http://127.0.0.1:8080/v1", "http", "127.0.0.1", 8080),
        ("http://tei", "http", "tei", None),
        ("http://[::1]:8080", "http", "::1", 8080),
        ("https://10.0.0.7:8443/v1", "https", "10.0.0.7", 8443),
    ],
)
def test_the_server_may_be_private_and_is_the_only_one_that_may_be_asked(
    base_url: str, scheme: str, host: str, port: int | None
) -> None:
    allowed = endpoint(base_url).allowed
    admission = allowed.admit(scheme, host, port)
    assert admission is not None
    assert admission.private_allowed
    assert allowed.admit("https", "example.com", None) is None
    assert allowed.admit(scheme, host, 9999) is None


@pytest.mark.parametrize(
    ("base_url", "sentence"),
    [
        ("api.openai.com/v1", "must begin with https"),
        ("ftp://api.openai.com", "must begin with https"),
        ("https://user:secret@api.openai.com", "credentials do not belong"),
        ("https://api.openai.com/v1?x=1", "must end with its path"),
        ("https:///v1", "host is missing"),
        ("https://h:99999/v1", "not a URL"),
    ],
)
def test_a_base_url_that_cannot_be_used_is_a_clause(base_url: str, sentence: str) -> None:
    with pytest.raises(InvalidEndpoint, match=sentence) as raised:
        _ = endpoint(base_url).allowed
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    ("base_url", "key", "told"),
    [
        ("http://api.example.com/v1", "k", True),
        ("http://api.example.com/v1", "", False),
        ("https://api.example.com/v1", "k", False),
        ("http://127.0.0.1:80/v1", "k", False),
        ("http://tei:80/v1", "k", False),
    ],
)
def test_a_key_that_goes_over_the_internet_in_the_clear_is_noticed(
    base_url: str, key: str, told: bool
) -> None:
    assert endpoint(base_url, key).key_in_the_clear is told


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1s", 1),
        ("6m0s", 360),
        ("20ms", 0.02),
        ("1h2m3.5s", 3723.5),
        ("8.64s", 8.64),
        ("17", 17),
        ("", None),
        ("soon", None),
        ("1 s", None),
        ("-1s", None),
        (None, None),
        ("9" * 40, None),
    ],
)
def test_a_time_is_read_as_servers_write_it(text: str | None, seconds: float | None) -> None:
    assert duration(text) == (None if seconds is None else pytest.approx(seconds))


def test_what_is_left_is_read_from_the_headers_and_nonsense_is_not() -> None:
    assert allowance_of(
        {
            "x-ratelimit-remaining-requests": "59",
            "x-ratelimit-reset-requests": "1s",
            "x-ratelimit-remaining-tokens": "many",
            "x-ratelimit-reset-tokens": "6m0s",
        }
    ) == Allowance(requests_left=59, requests_reset_seconds=1, tokens_left=None, tokens_reset_seconds=360)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b'{"error": {"code": "rate_limit_exceeded", "type": "requests"}}', "rate_limit_exceeded"),
        (b'{"error": {"code": null, "type": "invalid_request_error"}}', "invalid_request_error"),
        (b'{"error": {"code": "Your text was: secret", "type": 7}}', ""),
        (b'{"error": "overloaded"}', ""),
        (b'["error"]', ""),
        (b"<html>", ""),
        (b"\xff", ""),
        (b'{"error": ' + NESTED + b"}", ""),
    ],
)
def test_of_an_error_only_what_looks_like_a_code_is_passed_on(body: bytes, code: str) -> None:
    assert error_code(body) == code


WORDS = st.sampled_from(["", "AAAA", "AACAPwAAAEA=", "AACAfwAAAEA=", "é"])
NUMBERS = st.one_of(st.floats(), st.integers(), st.none(), WORDS)
ITEMS = st.fixed_dictionaries(
    {
        "index": st.one_of(st.integers(-1, 2), NUMBERS),
        "embedding": st.one_of(st.lists(NUMBERS, max_size=3), WORDS, NUMBERS),
    }
)


@settings(deadline=None)
@given(
    st.one_of(
        st.binary(max_size=60),
        st.builds(
            lambda items: json.dumps({"data": items}).encode(), st.lists(ITEMS, min_size=1, max_size=2)
        ),
    )
)
@example(b'{"data": [], "x": ' + NESTED + b"}")
@example(b'{"data": [{"index": 0, "embedding": [1e999, 0]}]}')
@example(b'{"data": [{"index": 0, "embedding": [3, 4]}]}')
def test_whatever_a_server_answers_gives_good_vectors_or_one_error(body: bytes) -> None:
    try:
        answer = read_answer(body, 1, 0)
    except AnswerInvalid:
        return
    assert answer.vectors.shape[0] == 1
    assert np.linalg.norm(answer.vectors[0]) == pytest.approx(1, abs=1e-5)


# Pacing


@settings(deadline=None)
@given(
    rate=st.integers(1, 600),
    sizes=st.lists(st.integers(1, 50), min_size=1, max_size=80),
)
def test_no_minute_has_more_than_its_rate_and_a_burst(rate: int, sizes: list[int]) -> None:
    pace, now, went = Pace(tokens_per_minute=rate * 10, requests_per_minute=rate), 0.0, []
    for size in sizes:
        now += pace.wait_seconds(now, size) + 1e-6
        assert pace.wait_seconds(now, size) < 1e-3
        pace.take(now, size)
        went.append((now, size))
    for start, _ in went:
        within = [size for at, size in went if start <= at < start + 60]
        assert len(within) <= rate * (1 + BURST_SECONDS / 60) + 1
        assert sum(within) <= rate * 10 * (1 + BURST_SECONDS / 60) + max(sizes)


def test_a_request_larger_than_a_burst_goes_when_the_bucket_is_full_and_is_paid_off_after() -> None:
    pace = Pace(tokens_per_minute=60)
    assert pace.wait_seconds(0, 1000) == 0
    pace.take(0, 1000)
    assert pace.wait_seconds(0, 1) == pytest.approx(1000 - BURST_SECONDS + 1)


def test_what_is_left_is_spent_and_waited_for_until_it_is_there_again() -> None:
    pace = Pace()
    pace.heard(100, Allowance(tokens_left=50, tokens_reset_seconds=6))
    assert pace.wait_seconds(100, 50) == 0
    pace.take(100, 30)
    assert pace.wait_seconds(100, 20) == 0
    assert pace.wait_seconds(100, 21) == 6
    assert pace.wait_seconds(106, 21) == 0


def test_no_word_of_a_server_holds_everybody_for_longer_than_the_limit() -> None:
    pace = Pace()
    pace.heard(0, Allowance(requests_left=0, requests_reset_seconds=86_400))
    pace.hold(0, 1e9)
    assert pace.wait_seconds(0, 1) == HOLD_SECONDS_MAX
    assert pace.wait_seconds(HOLD_SECONDS_MAX, 1) == 0


# Costs


@pytest.mark.parametrize(
    ("text", "tokens"), [("", 0), ("abc", 1), ("abcd", 2), ("é", 1), ("abcé", 2), ("漢字", 2)]
)
def test_tokens_are_estimated_by_characters(text: str, tokens: int) -> None:
    assert tokens_of(text) == tokens


def test_a_run_says_how_much_of_it_is_new_and_its_price_where_there_is_one() -> None:
    assert cost_of([1000, 500], 10, Tariff()).sentence == "2 of 10 chunks to encode: about 1,500 tokens"
    priced = cost_of([1_000_000, 500_000], 2, Tariff(price_per_million=0.13))
    assert priced.sentence == (
        "2 of 2 chunks to encode: about 1,500,000 tokens, about 0.1950 at 0.13 a million"
    )


def test_a_run_above_the_limit_is_refused_with_both_numbers() -> None:
    assert cost_of([600, 400], 2, Tariff(job_tokens_max=1000)).tokens == 1000
    with pytest.raises(
        JobTooCostly, match="about 1,001 tokens, and PHAROS_EMBEDDING_JOB_TOKENS_MAX allows 1,000"
    ):
        cost_of([601, 400], 2, Tariff(job_tokens_max=1000))


def test_what_is_no_chunk_costs_as_well_and_is_not_counted_as_one() -> None:
    assert cost_of([1000], 1, Tariff(), beside=30).sentence == "1 of 1 chunks to encode: about 1,030 tokens"


def test_a_text_costs_no_more_than_the_part_of_it_that_is_sent() -> None:
    assert cost_of([9000, 10], 2, Tariff(input_tokens_max=100)).tokens == 110
