"""``/connections`` and ``/api/v1/connections``: where files come from, and what is there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Final

from litestar import Request, Router, delete, get, post
from litestar.openapi.spec import OpenAPIMediaType, OpenAPIType, Operation, RequestBody, Schema
from litestar.params import FromPath, JSONBody, QueryParameter
from msgspec.structs import replace

from pharos_contracts.connections.v1 import Connection, SourceType, archive_name
from pharos_contracts.identity import PROJECT_DEFAULT, InvalidName
from pharos_gateway import connections, examples, openapi
from pharos_gateway.access import Access
from pharos_gateway.archives import Archives
from pharos_gateway.audit import note_target
from pharos_gateway.authentication import OtherProject, caller_of
from pharos_gateway.connections import (
    NAME_LENGTH_MAX,
    TEXT,
    ArchivesFull,
    ConnectionList,
    ConnectionRequest,
    Connections,
    ConnectionView,
    PlaceRequest,
)
from pharos_gateway.disk import Disk
from pharos_gateway.problems import invalid, not_found, unavailable
from pharos_gateway.reachability import Unreachable, reach
from pharos_gateway.sources import FilePage, Sources, Tested
from pharos_gateway.uploads import InvalidUpload, Uploads, UploadsFull
from pharos_service.bus import Bus, BusError
from pharos_sources import cursors

PATHS: Final = ("/connections", "/api/v1/connections")
OWNER: Final = (
    "A connection belongs to the user who made it: others of the tenant, but admins, do not see it."
)
FILES_MAX: Final = 1_000
FILE: Final = "file"
# Together with a cursor it fits into the 64 KiB that an address may have, however much of it is escaped.
FOLDER_LENGTH_MAX: Final = 2_048


@dataclass
class _UploadOperation(Operation):
    """The body is read as it comes, so that nothing but this says what is in it."""

    def __post_init__(self) -> None:
        file = Schema(type=OpenAPIType.STRING, content_media_type="application/zip")
        form = Schema(type=OpenAPIType.OBJECT, required=[FILE], properties={FILE: file})
        self.request_body = RequestBody(
            required=True, content={"multipart/form-data": OpenAPIMediaType(schema=form)}
        )


def routes(
    access: Access,
    disk: Disk,
    bus: Bus,
    kept: Connections,
    archives: Archives,
    uploads: Uploads,
    sources: Sources,
    new_id: Callable[[], str],
) -> Router:
    """The routes of this family."""
    editor: dict[str, Any] = {"guards": [access.editor], "security": list(openapi.SECURITY)}
    viewer: dict[str, Any] = {"guards": [access.viewer], "security": list(openapi.SECURITY)}

    async def found(request: Request[Any, Any, Any], connection_id: str) -> Connection:
        try:
            await reach(bus)
            connection = await kept.find(caller_of(request).sight_in_tenant, connection_id)
        except (BusError, Unreachable) as error:
            raise unavailable("Connections", str(error)) from error
        if connection is None:
            raise not_found("connection")
        return connection

    @post(
        list(PATHS),
        status_code=201,
        summary="Say where files are",
        description=f"{OWNER} Its secrets are sealed, and never shown again: `secrets` names those that are "
        f"set. The fields of `config` are, of {connections.fields_in_words()}",
        responses={
            201: openapi.success(ConnectionView, examples.CONNECTION, "Kept; nobody has tried it yet"),
            **openapi.errors(400, 401, 403, 409, 503, invalid=examples.INVALID_CONNECTION),
        },
        **editor,
    )
    async def create_connection(
        request: Request[Any, Any, Any], data: JSONBody[ConnectionRequest]
    ) -> ConnectionView:
        caller = caller_of(request)
        if not caller.sight.project(data.project):
            raise OtherProject(data.project)
        await reach(bus)
        try:
            created = await kept.create(data, tenant=caller.tenant, by=caller.user)
        except InvalidName as error:
            raise invalid(str(error), field="project" if error.name == data.project else "id") from error
        note_target(request, created.id)
        return created

    @post(
        [f"{path}/upload" for path in PATHS],
        status_code=201,
        guards=[access.editor, disk.has_room],
        security=list(openapi.SECURITY),
        operation_class=_UploadOperation,
        summary="Upload a zip archive whose members are files",
        description=f"{OWNER} The archive is kept for as long as the connection; its members are read one by "
        "one, and never unpacked. Those that are encrypted, or archives themselves, are left out.",
        responses={
            201: openapi.success(ConnectionView, examples.ARCHIVE_CONNECTION, "Kept; nobody has read it yet"),
            **openapi.errors(400, 401, 403, 408, 409, 413, 503, 507),
        },
    )
    async def upload_archive(
        request: Request[Any, Any, Any],
        connection_id: Annotated[
            str | None,
            QueryParameter(
                name="id",
                min_length=1,
                max_length=64,
                description="Letters, digits, `-` and `_`; unique within the tenant. Default: a new one.",
            ),
        ] = None,
        name: Annotated[
            str, QueryParameter(max_length=200, pattern=TEXT, description="Default: that of the file.")
        ] = "",
        project: Annotated[str, QueryParameter(min_length=1, max_length=64)] = PROJECT_DEFAULT,
    ) -> ConnectionView:
        caller = caller_of(request)
        if not caller.sight.project(project):
            raise OtherProject(project)
        await reach(bus)
        wanted = PlaceRequest(id=connection_id, name=name, project=project)
        try:
            place = await kept.place(wanted, tenant=caller.tenant, by=caller.user)
        except InvalidName as error:
            raise invalid(str(error), field="project" if error.name == project else "id") from error
        note_target(request, place.connection_id)
        await kept.check_archive(caller.tenant)
        upload_id = new_id()
        try:
            async with uploads.received(
                request,
                file=FILE,
                fields=(),
                check=_check_archive,
                object_name=archive_name(caller.tenant, upload_id),
            ) as upload:
                named = replace(place, name=place.name or upload.filename[:NAME_LENGTH_MAX])
                created = await kept.create_of_archive(named, upload_id=upload_id, size=upload.size)
                upload.kept = True
                return created
        except UploadsFull as error:
            raise ArchivesFull from error

    @get(
        list(PATHS),
        summary="Where files may come from",
        description=OWNER,
        responses={
            200: openapi.success(ConnectionList, examples.CONNECTIONS, "By tenant and id"),
            **openapi.errors(401, 503),
        },
        **viewer,
    )
    async def list_connections(request: Request[Any, Any, Any]) -> ConnectionList:
        try:
            await reach(bus)
            return await kept.list(caller_of(request).sight)
        except (BusError, Unreachable) as error:
            raise unavailable("Connections", str(error)) from error

    @get(
        [f"{path}/{{connection_id:str}}" for path in PATHS],
        summary="One connection",
        description=OWNER,
        responses={
            200: openapi.success(ConnectionView, examples.CONNECTION, "As it stands"),
            **openapi.errors(401, 404, 503),
        },
        **viewer,
    )
    async def one_connection(request: Request[Any, Any, Any], connection_id: FromPath[str]) -> ConnectionView:
        return connections.view(await found(request, connection_id))

    @delete(
        [f"{path}/{{connection_id:str}}" for path in PATHS],
        summary="Forget a connection",
        description="Its secrets and its archive go with it. What was read from it stays.",
        responses=openapi.errors(401, 403, 404, 503),
        **editor,
    )
    async def remove_connection(request: Request[Any, Any, Any], connection_id: FromPath[str]) -> None:
        await reach(bus)
        gone = await kept.remove(caller_of(request).sight_in_tenant, connection_id)
        if gone is None:
            raise not_found("connection")
        if gone.source_type is SourceType.LOCAL_ZIP:
            await archives.remove(gone.tenant, str(gone.config["upload_id"]))

    @get(
        [f"{path}/{{connection_id:str}}/files" for path in PATHS],
        summary="The files of a connection",
        description="A page may be short, or empty, while there is more: `cursor` says so. Of a repository, "
        "the files are fetched to be listed: one of more than 64 MiB is refused here.",
        responses={
            200: openapi.success(FilePage, examples.FILES, "Some of them"),
            **openapi.errors(400, 401, 404, 409, 503, 504),
        },
        **viewer,
    )
    async def list_files(
        request: Request[Any, Any, Any],
        connection_id: FromPath[str],
        path: Annotated[
            str | None,
            QueryParameter(
                min_length=1,
                max_length=FOLDER_LENGTH_MAX,
                description="A folder, by its id; default: all of the source.",
            ),
        ] = None,
        cursor: Annotated[
            str | None,
            QueryParameter(
                min_length=1,
                max_length=cursors.LENGTH_MAX,
                pattern=r"^[A-Za-z0-9_-]+$",
                description="The `cursor` of the page before.",
            ),
        ] = None,
        limit: Annotated[
            int, QueryParameter(ge=1, le=FILES_MAX, description="How many at most, 1 to 1,000.")
        ] = 200,
    ) -> FilePage:
        connection = await found(request, connection_id)
        return await sources.files(connection, path=path, cursor=cursor, limit=limit)

    @post(
        [f"{path}/{{connection_id:str}}/test" for path in PATHS],
        status_code=200,
        summary="Does a connection work?",
        description="Asks the source whether it can be listed.",
        responses={
            200: openapi.success(Tested, examples.TESTED, "Whether it does, and if not, why"),
            **openapi.errors(401, 403, 404, 503),
        },
        **editor,
    )
    async def test_connection(request: Request[Any, Any, Any], connection_id: FromPath[str]) -> Tested:
        return await sources.test(await found(request, connection_id))

    return Router(
        "/",
        route_handlers=[
            create_connection,
            upload_archive,
            list_connections,
            one_connection,
            remove_connection,
            list_files,
            test_connection,
        ],
        tags=["connections"],
    )


def _check_archive(filename: str, _: str) -> None:
    if not filename.lower().endswith(".zip"):
        raise InvalidUpload("The file must be a zip archive, and be called so", FILE)
