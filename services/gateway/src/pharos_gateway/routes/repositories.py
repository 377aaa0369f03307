"""``/api/v1/repositories``: what is indexed, by repository."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any, Final

from litestar import Request, Router, get
from litestar.params import FromPath, QueryParameter

from pharos_contracts.identity import InvalidName, token
from pharos_gateway import openapi
from pharos_gateway.access import Access
from pharos_gateway.authentication import caller_of
from pharos_gateway.datasets import Datasets
from pharos_gateway.problems import invalid, not_found, unavailable
from pharos_gateway.reachability import Unreachable, reach
from pharos_gateway.repositories import RepositoryList, RepositoryView, listed
from pharos_gateway.sight import Sight
from pharos_service.bus import Bus, BusError

PATH: Final = "/api/v1/repositories"


def routes(access: Access, bus: Bus, datasets: Datasets, now: Callable[[], datetime]) -> Router:
    """The routes of this family. A repository is shown to whoever may see a dataset that is made of it."""
    common: dict[str, Any] = {"guards": [access.viewer], "security": list(openapi.SECURITY)}

    async def known(sight: Sight, project: str | None = None) -> RepositoryList:
        try:
            await reach(bus)
            return listed(await datasets.list(sight, project), now())
        except (BusError, Unreachable) as error:
            raise unavailable("Repositories", str(error)) from error

    @get(
        "/",
        summary="The repositories that are indexed",
        description="With their branches, those indexed last first. Documents belong to no repository.",
        responses={
            200: openapi.success(RepositoryList, openapi.REPOSITORIES, "By host and name"),
            **openapi.errors(400, 401, 503),
        },
        **common,
    )
    async def list_repositories(
        request: Request[Any, Any, Any],
        project: Annotated[str | None, QueryParameter(description="Only those of this project.")] = None,
    ) -> RepositoryList:
        try:
            named = None if project is None else token(project)
        except InvalidName as error:
            raise invalid(str(error), field="project") from error
        return await known(caller_of(request).sight, named)

    @get(
        "/{repository_id:str}",
        summary="One repository",
        responses={
            200: openapi.success(RepositoryView, openapi.REPOSITORY, "With its branches"),
            **openapi.errors(401, 404, 503),
        },
        **common,
    )
    async def one_repository(request: Request[Any, Any, Any], repository_id: FromPath[str]) -> RepositoryView:
        found = await known(caller_of(request).sight)
        for repository in found.repositories:
            if repository.id == repository_id:
                return repository
        raise not_found("repository")

    return Router(PATH, route_handlers=[list_repositories, one_repository], tags=["repositories"])
