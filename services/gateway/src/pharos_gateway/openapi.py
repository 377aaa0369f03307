"""What the OpenAPI document says beyond the signatures: examples, errors and ways to authenticate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final

import msgspec
from litestar import Litestar, Request, Router
from litestar.enums import RequestEncodingType
from litestar.exceptions import NotFoundException
from litestar.openapi.config import OpenAPIConfig
from litestar.openapi.datastructures import ResponseSpec
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.openapi.spec import Components, Example, SecurityScheme, Tag
from litestar.params import BodyKwarg, QueryParameter
from litestar.routes import HTTPRoute

import pharos_contracts.audit.v1
import pharos_contracts.batches.v1
import pharos_contracts.connections.v1
import pharos_contracts.control.v1
import pharos_contracts.datasets.v1
import pharos_contracts.graphs.v1
import pharos_contracts.history.v1
import pharos_contracts.jobs.v1
import pharos_contracts.keys.v1
import pharos_contracts.limits.v1
import pharos_contracts.resources.v1
import pharos_contracts.rpc
import pharos_contracts.schedules.v1
import pharos_contracts.search.v1
import pharos_contracts.watches.v1
import pharos_contracts.workers.v1
from pharos_contracts.control.v1 import Action
from pharos_contracts.message import Message
from pharos_gateway import request_examples

VERSION: Final = "0.1.0"
PATH: Final = "/schema"
SECURITY: Final[tuple[dict[str, list[str]], ...]] = ({"bearer": []}, {"apiKey": []}, {"adminKey": []})
PUBLIC: Final[tuple[dict[str, list[str]], ...]] = ({}, *SECURITY)

# Rules that the code checks itself, to say in a sentence what is wrong; here they are only told.
NAME: Final[Mapping[str, Any]] = {"pattern": "^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$"}
_OF_PATH: Final[Mapping[str, Mapping[str, Any]]] = {
    "project": {"type": "string", **NAME},
    "action": {"type": "string", "enum": [action.value for action in Action]},
    "repo_url": {"type": "string", "minLength": 1},  # not only a URL, as Litestar has it
}

Cursor = Annotated[
    int | None,
    QueryParameter(
        ge=0,
        le=2**63 - 1,
        schema_extra={"minimum": 0},  # Litestar leaves a limit out of the text that is 0
        description="The `cursor` of the page before.",
    ),
]


class ProblemBody(msgspec.Struct, frozen=True, kw_only=True):
    """Every answer that is not the one hoped for; some carry further fields."""

    detail: str
    code: str


_ERRORS: Final[Mapping[int, tuple[str, dict[str, Any]]]] = {
    400: (
        "The request cannot be understood",
        {
            "detail": "Invalid request: 'limit': Expected `int` <= 100",
            "code": "invalid_request",
            "field": "limit",
        },
    ),
    401: (
        "No credential, or one that is not valid",
        {"detail": "Invalid or missing authentication token", "code": "unauthenticated"},
    ),
    403: (
        "The role is too low",
        {"detail": "This needs the role editor", "code": "forbidden", "needed": "editor"},
    ),
    404: ("It does not exist, or is not yours", {"detail": "There is no such job", "code": "not_found"}),
    409: (
        "It is not in a state for this",
        {
            "detail": "Cannot pause a completed job",
            "code": "invalid_transition",
            "status": "completed",
        },
    ),
    415: (
        "The body is of another type",
        {"detail": "The body must be sent as application/json", "code": "unsupported_media_type"},
    ),
    408: (
        "The body came too slowly",
        {"detail": "The upload came too slowly and was given up", "code": "upload_too_slow"},
    ),
    413: (
        "The body is too large",
        {"detail": "The body of the request is larger than 1 MiB", "code": "body_too_large"},
    ),
    431: (
        "The head of the request, its address included, is larger than 64 KiB",
        {"detail": "The head of the request is too large", "code": "head_too_large"},
    ),
    429: (
        "Too much at once; `Retry-After` says when to come back",
        {
            "detail": "Queue is full (10 pending tasks). Please try again later.",
            "code": "queue_full",
            "queue_size": 10,
            "max_queue_size": 10,
        },
    ),
    507: (
        "The disk is nearly full",
        {
            "detail": "The disk is nearly full: 97 MiB are free and 512 must be. Make room, then try again.",
            "code": "disk_nearly_full",
            "free_mb": 97,
            "min_mb": 512,
        },
    ),
    504: (
        "A source took too long",
        {"detail": "The source did not answer within 20 seconds", "code": "source_slow"},
    ),
    503: (
        "A part of the installation is away",
        {"detail": "Queue unavailable: Not connected to the bus", "code": "queue_unavailable"},
    ),
}


def success(
    body: Any, example: Mapping[str, Any] | Sequence[Mapping[str, Any]], description: str
) -> ResponseSpec:
    """The answer hoped for, with an example."""
    shown: Any = dict(example) if isinstance(example, Mapping) else list(example)
    return ResponseSpec(
        data_container=body,
        generate_examples=False,
        description=description,
        examples=[Example(value=shown)],
    )


def errors(*statuses: int, invalid: Mapping[str, Any] | None = None) -> dict[int, ResponseSpec]:
    """The answers not hoped for; *invalid* is another example for 400. 401 brings 429 and 503 with it."""
    # Whoever is asked for a credential may be told to slow down, or that the keys are not known yet.
    implied = (429, 503) if 401 in statuses else ()
    found = {}
    for status in dict.fromkeys((*statuses, *implied)):
        description, example = _ERRORS[status]
        shown = dict(invalid) if invalid is not None and status == 400 else example
        found[status] = problem(description, shown)
    return found


def problem(description: str, example: Mapping[str, Any]) -> ResponseSpec:
    """One answer not hoped for."""
    return ResponseSpec(
        data_container=ProblemBody,
        generate_examples=False,
        description=description,
        examples=[Example(value=dict(example))],
    )


class _Document(JsonRenderPlugin):
    """The document at ``/schema`` and ``/schema/openapi.json``.

    Whatever else is asked for below ``/schema`` would be answered with a page of Litestar's own.
    """

    def __init__(self) -> None:
        super().__init__(path=["/", "/openapi.json"])

    def render(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:
        return super().render(request, completed(openapi_schema, _bodies(request.app)))

    def receive_router(self, router: Router) -> None:
        router.before_request = _only_the_document


Body = tuple[str, str, Any]  # path, method, and the type of the JSON that it takes


def _bodies(app: Litestar) -> list[Body]:
    return [
        (route.path_format.replace(":str", "").replace(":path", ""), method.lower(), field.annotation)
        for route in app.routes
        if isinstance(route, HTTPRoute)
        for handler in route.route_handlers
        if (field := handler.parsed_data_field) is not None
        and isinstance(field.kwarg_definition, BodyKwarg)
        and field.kwarg_definition.media_type == RequestEncodingType.JSON
        for method in map(str, handler.http_methods)
    ]


def completed(document: dict[str, Any], bodies: Sequence[Body]) -> dict[str, Any]:
    """*document* with what follows for every route from what it takes.

    A JSON body is described by what reads it, so that unknown fields and the tags of a union are told; it may
    be too large or of another type. A text in an address or a header is never null.
    """
    schemas, definitions = msgspec.json.schema_components(
        [kind for *_, kind in bodies], ref_template="#/components/schemas/{name}"
    )
    document["components"]["schemas"].update(definitions)
    for (path, method, _), schema in zip(bodies, schemas, strict=True):
        operation = document["paths"][path][method]
        content = operation["requestBody"]["content"]["application/json"]
        content["schema"] = schema
        example = request_examples.BODIES.get((method, path))
        if example is not None:
            content["example"] = example
        for status in (413, 415):
            operation["responses"].setdefault(str(status), _problem(status))
    for operation in (each for path in document["paths"].values() for each in path.values()):
        for parameter in operation.get("parameters", ()):
            operation["responses"].setdefault("431", _problem(431))
            schema = parameter["schema"]
            kinds = [kind for kind in schema.get("oneOf", ()) if kind != {"type": "null"}]
            if kinds == [{"type": "string"}]:  # of a number, the word null stands for none
                del schema["oneOf"]
                schema.update(kinds[0])
            if parameter["in"] == "path":
                parameter["schema"] = _OF_PATH.get(parameter["name"], schema)
    return document


def _problem(status: int) -> dict[str, Any]:
    description, example = _ERRORS[status]
    content = {"schema": {"$ref": "#/components/schemas/ProblemBody"}, "example": example}
    return {"description": description, "content": {"application/json": content}}


async def _only_the_document(request: Request[Any, Any, Any]) -> None:
    if request.url.path.rstrip("/") not in (PATH, f"{PATH}/openapi.json"):
        raise NotFoundException


def config() -> OpenAPIConfig:
    """The document, at ``/schema`` and ``/schema/openapi.json``."""
    return OpenAPIConfig(
        title="Pharos",
        version=VERSION,
        description="Repositories in, answers out. Errors are `{detail, code}`; times are UTC.",
        path=PATH,
        render_plugins=[_Document()],
        tags=[
            Tag(name="ingestion", description="Submitting repositories, and what became of them."),
            Tag(name="jobs", description="Jobs, workers and datasets."),
            Tag(name="batches", description="Files of several connections as one job."),
            Tag(name="projects", description="Repositories by project: submits, history, jobs."),
            Tag(name="schedules", description="Repositories that are indexed again and again."),
            Tag(name="webhooks", description="Repositories that are indexed when somebody pushes to them."),
            Tag(name="connections", description="Where files come from, and what is there."),
            Tag(name="callbacks", description="Being told of the end of a job."),
            Tag(name="events", description="Live events, resumable by `Last-Event-ID`."),
            Tag(name="documents", description="Texts, pages and files to make searchable."),
            Tag(name="search", description="Searching what was indexed."),
            Tag(name="repositories", description="What is indexed of each repository, and its structure."),
            Tag(name="keys", description="Who may do what, and who did."),
            Tag(name="operation", description="For whoever operates it."),
        ],
        components=Components(
            security_schemes={
                "bearer": SecurityScheme(type="http", scheme="bearer"),
                "apiKey": SecurityScheme(type="apiKey", name="x-api-key", security_scheme_in="header"),
                "adminKey": SecurityScheme(type="apiKey", name="x-admin-key", security_scheme_in="header"),
                "signature": SecurityScheme(
                    type="apiKey", name="X-Hub-Signature-256", security_scheme_in="header"
                ),
            }
        ),
    )


def message_schemas() -> dict[str, Any]:
    """JSON Schema of everything that crosses the bus, by the contracts."""
    modules = (
        pharos_contracts.jobs.v1,
        pharos_contracts.batches.v1,
        pharos_contracts.history.v1,
        pharos_contracts.workers.v1,
        pharos_contracts.search.v1,
        pharos_contracts.graphs.v1,
        pharos_contracts.datasets.v1,
        pharos_contracts.control.v1,
        pharos_contracts.schedules.v1,
        pharos_contracts.watches.v1,
        pharos_contracts.keys.v1,
        pharos_contracts.audit.v1,
        pharos_contracts.connections.v1,
        pharos_contracts.limits.v1,
        pharos_contracts.resources.v1,
        pharos_contracts.rpc,
    )
    messages = [
        value
        for module in modules
        for value in vars(module).values()
        if isinstance(value, type)
        and issubclass(value, Message)
        and value.__module__ == module.__name__
        and "." in str(value.__struct_config__.tag)  # what has no name of its own is only a base
    ]
    roots, definitions = msgspec.json.schema_components(messages, ref_template="#/$defs/{name}")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Messages of the Pharos bus",
        "oneOf": list(roots),
        "$defs": definitions,
    }
