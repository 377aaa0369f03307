"""Bodies of requests. JSON: of type ``application/json``, and read as strictly as the OpenAPI text says."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator
from functools import lru_cache
from typing import Any, Final

import msgspec
from litestar import Request
from litestar.exceptions import InternalServerException

from pharos_gateway.problems import Problem, invalid, readable
from pharos_gateway.uploads import PACKED, is_packed

_PLACE: Final = re.compile(r" - at `\$\.?(.*)`$")
_DECODERS_MAX: Final = 64  # more than there are types of bodies


class JsonRequest(Request[Any, Any, Any]):
    """A request whose body is JSON of the type that its route names.

    Litestar would read whatever claims to be something else, which a browser lets any page send to anybody,
    and take ``"5"`` for 5 and 0 for false.
    """

    async def stream(self) -> AsyncGenerator[bytes, None]:
        """The body as it comes. A Problem, which nobody reads, where its client leaves half-way."""
        try:
            async for chunk in super().stream():
                yield chunk
        except InternalServerException as error:  # as Litestar has it: but nothing went wrong here
            raise invalid("The client left before the body of its request was whole") from error

    async def json(self) -> Any:
        """The body. A Problem where it is of another type, or cannot be understood."""
        if not is_json(self.headers.get("content-type")):
            raise Problem(415, "unsupported_media_type", "The body must be sent as application/json")
        if is_packed(self.headers.get("content-encoding")):
            raise Problem(
                415, "unsupported_content_encoding", PACKED, headers={"Accept-Encoding": "identity"}
            )
        field = self.route_handler.parsed_data_field
        return parse(await self.body(), Any if field is None else field.annotation)


def is_json(content_type: str | None) -> bool:
    """Whether a body of this type is read; one that says nothing of itself is taken for JSON."""
    if not content_type:
        return True
    kind = content_type.partition(";")[0].strip().lower()
    return kind == "application/json" or (kind.startswith("application/") and kind.endswith("+json"))


def parse(body: bytes, kind: Any) -> Any:
    """*body* as a value of type *kind*; none at all is null. A Problem that names what does not fit."""
    try:
        return _decoder(kind).decode(body or b"null")
    except msgspec.ValidationError as error:
        place = _PLACE.search(str(error))
        if place is None:
            raise invalid(f"Invalid request: {error}") from error
        field, message = place[1], readable(str(error)[: place.start()])
        raise invalid(f"Invalid request: '{field}': {message}", field=field) from error
    except msgspec.DecodeError as error:
        raise invalid("The body of the request is not valid JSON") from error
    except RecursionError as error:
        raise invalid("The body of the request is too deeply nested") from error


@lru_cache(maxsize=_DECODERS_MAX)
def _decoder(kind: Any) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(kind)
