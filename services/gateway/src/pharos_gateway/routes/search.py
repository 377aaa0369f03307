"""Searching: ``/api/v1/search`` and ``/projects/{project}/query``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from litestar import Request, Router, post
from litestar.params import FromPath, JSONBody

from pharos_contracts import rpc
from pharos_contracts.identity import InvalidName, token
from pharos_contracts.search.v1 import SearchAnswer
from pharos_gateway import openapi
from pharos_gateway.access import Access
from pharos_gateway.audit import READS
from pharos_gateway.authentication import caller_of
from pharos_gateway.problems import invalid, unavailable
from pharos_gateway.searching import (
    AmbiguousSearch,
    Found,
    ProjectSearchRequest,
    SearchRequest,
    found,
    question,
)
from pharos_gateway.sight import Sight
from pharos_service.asking import NobodyAnswers, QuestionRefused, ask
from pharos_service.bus import Bus, BusError

SEARCH_SECONDS: Final = 15.0


def routes(access: Access, bus: Bus, new_request_id: Callable[[], str]) -> Router:
    """The routes of this family."""
    common: dict[str, Any] = {
        "guards": [access.viewer],
        "status_code": 200,
        "opt": READS,
        "security": list(openapi.SECURITY),
        "responses": {
            200: openapi.success(Found, openapi.SEARCH_ANSWER, "Best first"),
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
        try:
            answer = await ask(bus, rpc.SEARCH, asked, SearchAnswer, timeout=SEARCH_SECONDS)
        except (NobodyAnswers, BusError) as error:
            raise unavailable("Search", str(error)) from error
        except QuestionRefused as error:
            if error.refusal.status >= 500:
                raise unavailable("Search", error.refusal.detail) from error
            raise
        return found(answer, request_id=new_request_id())

    @post("/api/v1/search", summary="Search", **common)
    async def native_search(request: Request[Any, Any, Any], data: JSONBody[ProjectSearchRequest]) -> Found:
        return await search(data, caller_of(request).sight_in_tenant, data.project)

    @post("/projects/{project:str}/query", summary="Search a project; `all` is every one", **common)
    async def project_query(
        request: Request[Any, Any, Any], project: FromPath[str], data: JSONBody[SearchRequest]
    ) -> Found:
        return await search(data, caller_of(request).sight_in_tenant, project)

    return Router("/", route_handlers=[native_search, project_query], tags=["search"])
