"""``/api/v1/repositories``: what is indexed, by repository, and how it hangs together."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any, Final

from litestar import Request, Router, get
from litestar.params import FromPath, QueryParameter

from pharos_contracts.graphs.v1 import (
    EdgeKind,
    FindRelated,
    GraphPage,
    MapPage,
    ReadGraph,
    ReadMap,
    RelatedFiles,
)
from pharos_contracts.identity import InvalidName
from pharos_gateway import examples, openapi
from pharos_gateway.access import Access
from pharos_gateway.authentication import caller_of
from pharos_gateway.datasets import Datasets
from pharos_gateway.problems import invalid, not_found, unavailable
from pharos_gateway.project_names import named_project
from pharos_gateway.reachability import Unreachable, reach
from pharos_gateway.repositories import RepositoryList, RepositoryView, listed
from pharos_gateway.search_service import ask_search
from pharos_gateway.sight import Sight
from pharos_gateway.structure import GraphView, MapView, RelatedView, graph_view, map_view, related_view
from pharos_service.bus import Bus, BusError

PATH: Final = "/api/v1/repositories"

_NAME: Final = {"pattern": "^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$"}  # for the text; ``token`` decides
_Project = Annotated[
    str | None, QueryParameter(schema_extra=_NAME, description="Only what is indexed in this project.")
]
_Dataset = Annotated[
    str | None, QueryParameter(min_length=1, max_length=512, description="This dataset of the repository.")
]
_Branch = Annotated[
    str | None,
    QueryParameter(
        min_length=1, max_length=255, description="This branch; without one, what was indexed last."
    ),
]
_Prefix = Annotated[
    str, QueryParameter(max_length=4_096, description="Only files in this directory, or this one file.")
]
_Cursor = Annotated[
    str | None,
    QueryParameter(min_length=1, max_length=4_096, description="The `cursor` of the page before."),
]


def routes(access: Access, bus: Bus, datasets: Datasets, now: Callable[[], datetime]) -> Router:
    """The routes of this family. A repository is shown to whoever may see a dataset that is made of it."""
    common: dict[str, Any] = {"guards": [access.viewer], "security": list(openapi.SECURITY)}
    of_structure = {
        **openapi.errors(400, 401, 404, 503),
        409: openapi.problem("What is indexed has no graph", examples.NO_GRAPH),
    }

    async def known(sight: Sight, project: str | None = None) -> RepositoryList:
        try:
            await reach(bus)
            return listed(await datasets.list(sight, project), now())
        except (BusError, Unreachable) as error:
            raise unavailable("Repositories", str(error)) from error

    def about(request: Request[Any, Any, Any], project: str | None) -> dict[str, Any]:
        """What a question tells of the caller, and of the *project* they named."""
        sight = caller_of(request).sight
        try:
            named = None if project is None else named_project(project)
        except InvalidName as error:
            raise invalid(str(error), field="project") from error
        projects = None if sight.projects is None else tuple(sorted(sight.projects))
        return {"tenant": sight.tenant, "projects": projects, "project": named}

    @get(
        "/",
        summary="The repositories that are indexed",
        description="With their branches, those indexed last first. Documents belong to no repository.",
        responses={
            200: openapi.success(RepositoryList, examples.REPOSITORIES, "By host and name"),
            **openapi.errors(400, 401, 503),
        },
        **common,
    )
    async def list_repositories(
        request: Request[Any, Any, Any],
        project: _Project = None,
    ) -> RepositoryList:
        try:
            named = None if project is None else named_project(project)
        except InvalidName as error:
            raise invalid(str(error), field="project") from error
        return await known(caller_of(request).sight, named)

    @get(
        "/{repository_id:str}",
        summary="One repository",
        responses={
            200: openapi.success(RepositoryView, examples.REPOSITORY, "With its branches"),
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

    @get(
        "/{repository_id:str}/graph",
        summary="The files of a repository and the edges between them",
        description="By path, in pages. An edge is on the page of its source; with `path_prefix` those "
        "between files under it are told. A file that imports another one or uses names that it defines has "
        "an edge to it; the weight falls where many files may be meant, and where many lead to the same one. "
        "A page may have fewer files than `limit`, so that the answer is not too large; `cursor` continues.",
        responses={
            200: openapi.success(GraphView, examples.GRAPH, "A page of files, with their edges"),
            **of_structure,
        },
        **common,
    )
    async def read_graph(
        request: Request[Any, Any, Any],
        repository_id: FromPath[str],
        project: _Project = None,
        dataset: _Dataset = None,
        branch: _Branch = None,
        path_prefix: _Prefix = "",
        kind: Annotated[
            EdgeKind | None, QueryParameter(description="Only edges of this kind; both without one.")
        ] = None,
        limit: Annotated[int, QueryParameter(ge=1, le=500, description="Files, 1 to 500.")] = 200,
        cursor: _Cursor = None,
    ) -> GraphView:
        question = ReadGraph(
            **about(request, project),
            repository_id=repository_id,
            dataset=dataset,
            branch=branch,
            path_prefix=path_prefix,
            kind=kind,
            limit=limit,
            after=cursor,
        )
        return graph_view(await ask_search(bus, question, GraphPage))

    @get(
        "/{repository_id:str}/related",
        summary="The files that have most to do with a file, or with a symbol",
        description="`path` names the file, `symbol` what a file defines (`Context`, `Context.run`); where "
        "several files define it, both are needed. Files are ranked by how near they are in the graph, by "
        "the edges between them (`ties`) and, of a symbol, by how much its name says in them; `reasons` "
        "tells in words which of these put a file forward.",
        responses={
            200: openapi.success(RelatedView, examples.RELATED, "Best first"),
            **of_structure,
        },
        **common,
    )
    async def find_related(
        request: Request[Any, Any, Any],
        repository_id: FromPath[str],
        path: Annotated[str, QueryParameter(max_length=4_096, description="A file, by its path.")] = "",
        symbol: Annotated[str, QueryParameter(max_length=512, description="What a file defines.")] = "",
        project: _Project = None,
        dataset: _Dataset = None,
        branch: _Branch = None,
        k: Annotated[int, QueryParameter(ge=1, le=100, description="How many, 1 to 100.")] = 10,
    ) -> RelatedView:
        question = FindRelated(
            **about(request, project),
            repository_id=repository_id,
            dataset=dataset,
            branch=branch,
            path=path or None,
            symbol=symbol or None,
            k=k,
        )
        return related_view(await ask_search(bus, question, RelatedFiles))

    @get(
        "/{repository_id:str}/map",
        summary="The files of a repository on a map",
        description="By path, in pages. Files that hang together in the graph are near each other: the "
        "places are the first two principal components of the structural embedding. They are made when the "
        "repository is indexed and stay as they are until it is indexed again.",
        responses={
            200: openapi.success(MapView, examples.MAP, "A page of files, with their places"),
            **of_structure,
        },
        **common,
    )
    async def read_map(
        request: Request[Any, Any, Any],
        repository_id: FromPath[str],
        project: _Project = None,
        dataset: _Dataset = None,
        branch: _Branch = None,
        path_prefix: _Prefix = "",
        limit: Annotated[int, QueryParameter(ge=1, le=2_000, description="Files, 1 to 2,000.")] = 1_000,
        cursor: _Cursor = None,
    ) -> MapView:
        question = ReadMap(
            **about(request, project),
            repository_id=repository_id,
            dataset=dataset,
            branch=branch,
            path_prefix=path_prefix,
            limit=limit,
            after=cursor,
        )
        return map_view(await ask_search(bus, question, MapPage))

    return Router(
        PATH,
        route_handlers=[list_repositories, one_repository, read_graph, find_related, read_map],
        tags=["repositories"],
    )
