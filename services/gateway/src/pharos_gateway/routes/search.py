"""Searching: ``/api/v1/search`` and ``/projects/{project}/query``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from litestar import Request, Router, post
from litestar.params import FromPath, JSONBody

from pharos_contracts.identity import InvalidName, token
from pharos_contracts.search.v1 import SearchAnswer, SearchBatchAnswer
from pharos_gateway import examples, openapi
from pharos_gateway.access import Access
from pharos_gateway.audit import READS
from pharos_gateway.authentication import caller_of
from pharos_gateway.problems import invalid
from pharos_gateway.search_service import ask_search
from pharos_gateway.searching import (
    AmbiguousSearch,
    BatchSearchRequest,
    Found,
    FoundBatch,
    ProjectSearchRequest,
    SearchRequest,
    batch_of,
    found,
    found_batch,
    question,
    questions,
)
from pharos_gateway.sight import Sight
from pharos_service.bus import Bus


def routes(access: Access, bus: Bus, new_request_id: Callable[[], str]) -> Router:
    """The routes of this family."""
    common: dict[str, Any] = {
        "guards": [access.viewer],
        "status_code": 200,
        "opt": READS,
        "security": list(openapi.SECURITY),
        "responses": {
            200: openapi.success(Found, examples.SEARCH_ANSWER, "Best first"),
            **openapi.errors(400, 401, 503),
        },
    }

    async def search(request: SearchRequest, sight: Sight, project: str | None) -> Found:
        try:
            named = None if project is None else token(project)
            asked = question(request, sight=sight, project=named)
        except InvalidName as error:
            raise invalid(str(error), field="project") from error
        except AmbiguousSearch as error:
            raise invalid(error.detail, field=error.field) from error
        answer = await ask_search(bus, asked, SearchAnswer)
        return found(answer, request_id=new_request_id())

    answer_of_batch = {
        200: openapi.success(FoundBatch, examples.SEARCH_BATCH_ANSWER, "One answer for each query, in order")
    }

    @post("/api/v1/search", summary="Search", **common)
    async def native_search(request: Request[Any, Any, Any], data: JSONBody[ProjectSearchRequest]) -> Found:
        return await search(data, caller_of(request).sight_in_tenant, data.project)

    @post("/projects/{project:str}/query", summary="Search a project; `all` is every one", **common)
    async def project_query(
        request: Request[Any, Any, Any], project: FromPath[str], data: JSONBody[SearchRequest]
    ) -> Found:
        return await search(data, caller_of(request).sight_in_tenant, project)

    @post(
        "/api/v1/search/batch",
        summary="Several searches at once",
        description="1 to 20 queries, which ask for at most 200 results in all. What stands beside `queries` "
        "holds for each query that does not say otherwise, as in "
        '`{"queries": [{"query": "sign a value"}, {"query": "retry", "k": 3}], "lang": "python"}`. '
        "There is one answer for each query, in their "
        "order; a query that cannot be answered has an `error` in its place and does not disturb the others. "
        "Each query counts as a request; more than may be made now are refused together.",
        **{**common, "responses": {**common["responses"], **answer_of_batch}},
    )
    async def batch_search(request: Request[Any, Any, Any], data: JSONBody[BatchSearchRequest]) -> FoundBatch:
        caller = caller_of(request)
        await access.count(request, caller, len(data.queries) - 1)  # the guard has counted one
        try:
            asked = questions(data, sight=caller.sight_in_tenant)
        except AmbiguousSearch as error:
            raise invalid(error.detail, field=error.field) from error
        batch = batch_of(asked)
        answer = SearchBatchAnswer(answers=(), latency_ms=0)
        if batch.queries:
            answer = await ask_search(bus, batch, SearchBatchAnswer)
        return found_batch(asked, answer, request_id=new_request_id())

    return Router("/", route_handlers=[native_search, project_query, batch_search], tags=["search"])
