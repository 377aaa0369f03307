"""Batches of searches: what each query means, and which of them is wrong."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from pharos_contracts.rpc import Refused
from pharos_contracts.search.v1 import Search, SearchAnswer, SearchBatchAnswer, SearchMode
from pharos_gateway.searching import (
    BATCH_RESULTS_MAX,
    QUERIES_MAX,
    AmbiguousSearch,
    BatchProblem,
    BatchSearchRequest,
    batch_of,
    found_batch,
    questions,
)
from pharos_gateway.sight import Sight

SIGHT = Sight(tenant="acme", projects=frozenset({"a", "b"}))


def asked(*queries: Any, **shared: Any) -> list[Search | BatchProblem]:
    request = msgspec.convert({"queries": list(queries), **shared}, BatchSearchRequest)
    return questions(request, sight=SIGHT)


def test_a_query_takes_from_the_batch_what_it_does_not_say_itself() -> None:
    shared = {
        "k": 5,
        "dataset": "atlas-*",
        "repo": ["o/r"],
        "lang": "python",
        "pathPrefix": "src",
        "threshold": 0.5,
        "includeGlobal": False,
        "mode": "lexical",
        "project": "a",
    }
    own = {
        "topK": 7,
        "dataset": ["one", "two"],
        "repo": "o/other",
        "lang": [],
        "pathPrefix": "",
        "threshold": 0.0,
        "includeGlobal": True,
        "mode": "dense",
        "project": "all",
    }
    first, second = asked({"query": "x"}, {"query": "y", **own}, **shared)
    projects = ("a", "b")
    assert first == Search(
        tenant="acme", query="x", project="a", k=5, mode=SearchMode.LEXICAL, datasets=("atlas-*",),
        repositories=("o/r",), languages=("python",), path_prefix="src", threshold=0.5, include_global=False,
        projects=projects,
    )  # fmt: skip
    assert second == Search(
        tenant="acme", query="y", project=None, k=7, mode=SearchMode.DENSE, datasets=("one", "two"),
        repositories=("o/other",), languages=(), path_prefix=None, threshold=0.0, include_global=True,
        projects=projects,
    )  # fmt: skip


def test_without_anything_shared_a_query_is_what_it_would_be_alone() -> None:
    assert asked({"query": "x"}) == [Search(tenant="acme", query="x", projects=("a", "b"))]


@pytest.mark.parametrize(
    ("wrong", "field", "said"),
    [
        ({"query": "  "}, "query", "empty"),
        ({"query": "x", "k": 3, "topK": 4}, "topK", "differ"),
        ({"query": "x", "project": "no dots."}, "project", "not a valid name"),
        ({"query": "x", "k": 1000}, None, r"<= 100.*\$\.k"),
        ({"query": "x", "colour": "red"}, None, "colour"),
        ({"k": 3}, None, "query"),
        ("x", None, "Expected `object`"),
        (None, None, "Expected `object`"),
    ],
)
def test_a_query_that_means_nothing_does_not_disturb_the_others(
    wrong: Any, field: str | None, said: str
) -> None:
    first, problem, last = asked({"query": "a"}, wrong, {"query": "b"})
    assert isinstance(first, Search)
    assert isinstance(last, Search)
    assert isinstance(problem, BatchProblem)
    assert (problem.code, problem.field) == ("invalid_request", field)
    with pytest.raises(AssertionError, match=said):
        raise AssertionError(problem.detail)


def test_a_batch_asks_for_so_many_results_in_all_and_no_more() -> None:
    most = BATCH_RESULTS_MAX // 2
    assert len(asked({"query": "a"}, {"query": "b"}, k=most)) == 2
    with pytest.raises(AmbiguousSearch, match="at most 200 results in all, and this one for 201"):
        asked({"query": "a"}, {"query": "b"}, {"query": "c", "k": 1}, k=most)


@pytest.mark.parametrize("number", [0, QUERIES_MAX + 1])
def test_a_batch_has_some_queries_and_not_too_many(number: int) -> None:
    with pytest.raises(msgspec.ValidationError, match="length"):
        asked(*[{"query": "x"}] * number)


def test_every_answer_is_in_the_place_of_its_query() -> None:
    wanted = asked({"query": ""}, {"query": "a"}, {"query": "b"}, {"query": "c", "k": 0})
    assert [query.query for query in batch_of(wanted).queries] == ["a", "b"]
    answer = SearchBatchAnswer(
        answers=(
            Refused(code="invalid_query", detail="no", status=400),
            SearchAnswer(results=(), metadata={"mode": "hybrid"}, latency_ms=1),
        ),
        latency_ms=2,
    )
    told = found_batch(wanted, answer, request_id="r")
    assert [None if each.error is None else each.error.code for each in told.answers] == [
        "invalid_request", "invalid_query", None, "invalid_request",
    ]  # fmt: skip
    assert told.answers[2].metadata == {"mode": "hybrid"}
