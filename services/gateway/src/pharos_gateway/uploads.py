"""Uploads: a file of a form goes into the object store as it comes, so that its size costs no memory.

A form is ``multipart/form-data`` (RFC 7578) with one file and, in any order, a few short fields. Whatever
goes wrong, also when the client leaves, what was begun is removed; and what was stored is removed too unless
somebody kept it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final

import anyio
import msgspec
from litestar import Request
from multipart import MultipartError, MultipartSegment, PushMultipartParser, parse_options_header

from pharos_contracts.streams import OBJ_UPLOADS
from pharos_gateway.authentication import caller_of
from pharos_service.bus import Bus, StreamFull
from pharos_service.objects import REMOVE_SECONDS, ObjectTooLarge, remove, upload
from pharos_sources.web_content import file_name

AT_ONCE_MAX: Final = 16
AT_ONCE_PER_CREDENTIAL_MAX: Final = 4
SILENT_SECONDS: Final = 30.0
SECONDS_MAX: Final = 900.0
PARTS_MAX: Final = 16
FIELD_BYTES_MAX: Final = 4_096
OVERHEAD_BYTES: Final = 64 * 1024  # fields, headers and boundaries, beside the file
BOUNDARY_LENGTH_MAX: Final = 70  # RFC 2046, 5.1.1
MEDIA_TYPE_LENGTH_MAX: Final = 255
RETRY_SECONDS: Final = 5
PACKED: Final = "The body must be sent as it is, without Content-Encoding"

Check = Callable[[str, str], None]
"""Refuses a file by its name and its media type, before any of it is read."""


class InvalidUpload(ValueError):
    """The body is not such a form; the text is a sentence, ``field`` what it is about."""

    def __init__(self, detail: str, field: str | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.field = field


class UploadTooLarge(Exception):
    """The file has more bytes than one may have."""

    def __init__(self, bytes_max: int) -> None:
        super().__init__(f"The file is larger than {bytes_max} bytes, which is what one may have here")
        self.bytes_max = bytes_max


class TooManyUploads(Exception):
    """As many are taken at the moment as may be."""

    def __init__(self, at_once: int) -> None:
        super().__init__(f"{at_once} uploads are under way already. Please try again later.")
        self.retry_seconds = RETRY_SECONDS


class UploadTooSlow(Exception):
    """Nothing came for a while, or the whole of it takes too long."""

    def __init__(self) -> None:
        super().__init__("The upload came too slowly and was given up")


class UploadsFull(Exception):
    """The object store has no room."""

    def __init__(self) -> None:
        super().__init__("There is no room for more uploads until some of those that wait have been read")


class ClientGone(Exception):
    """Whoever sent the request has left, so that nobody reads an answer."""


class Upload(msgspec.Struct, kw_only=True):
    """A file in the object store. ``kept``: it stays when the request is over."""

    object_name: str
    filename: str
    media_type: str
    size: int
    sha256: str
    fields: Mapping[str, str] = msgspec.field(default_factory=dict)
    kept: bool = False


class Uploads:
    """Takes uploads. One object serves every request of a process."""

    def __init__(
        self,
        bus: Bus,
        *,
        bytes_max: int,
        new_name: Callable[[], str],
        store: str = OBJ_UPLOADS,
        silent_seconds: float = SILENT_SECONDS,
        seconds_max: float = SECONDS_MAX,
    ) -> None:
        self._bus = bus
        self._bytes_max = bytes_max
        self._new_name = new_name
        self._object_store = store
        self._silent_seconds = silent_seconds
        self._seconds_max = seconds_max
        self._open: Counter[str] = Counter()

    @asynccontextmanager
    async def received(
        self,
        request: Request[Any, Any, Any],
        *,
        file: str,
        fields: Collection[str],
        check: Check,
        object_name: str | None = None,
    ) -> AsyncIterator[Upload]:
        """The upload in the body of *request*, stored: the part *file*, and those of *fields* that came.

        *object_name* is what it is called in the store, where that matters to the caller.

        Raises InvalidUpload, UploadTooLarge, UploadTooSlow, UploadsFull, TooManyUploads, ClientGone, the
        errors of the bus and whatever *check* raises.
        """
        if is_packed(request.headers.get("content-encoding")):
            raise InvalidUpload(PACKED)
        declared = request.headers.get("content-length", "")
        if declared.isascii() and declared.isdigit() and int(declared) > self._bytes_max + OVERHEAD_BYTES:
            raise UploadTooLarge(self._bytes_max)
        form = _Form(_pieces(request, self._silent_seconds), boundary_of(request), file, fields)
        with self._counted(caller_of(request).credential):
            try:
                with anyio.fail_after(self._seconds_max):
                    received = await self._receive(form, check, object_name)
            except TimeoutError:
                raise UploadTooSlow from None
        async with self._unless_kept(received):
            yield received

    async def _receive(self, form: _Form, check: Check, object_name: str | None) -> Upload:
        filename, media_type = await form.head()
        check(filename, media_type)
        received = await self._store(
            form.content(), filename=filename, media_type=media_type, name=object_name
        )
        try:
            if not received.size:
                raise InvalidUpload("The file is empty", form.file)
            received.fields = await form.rest()
        except BaseException:
            await self._remove(received)
            raise
        return received

    @asynccontextmanager
    async def stored(self, content: bytes, *, filename: str, media_type: str) -> AsyncIterator[Upload]:
        """*content* as an upload, where a request had it in its body. UploadsFull, the errors of the bus."""

        async def whole() -> AsyncIterator[bytes]:
            yield content

        stored = await self._store(whole(), filename=filename, media_type=media_type)
        async with self._unless_kept(stored):
            yield stored

    async def forget(self, object_name: str) -> None:
        """Remove what was kept for an earlier request, if it is there still. Best effort."""
        with anyio.move_on_after(REMOVE_SECONDS):
            await remove(self._bus, self._object_store, object_name)

    async def _store(
        self, content: AsyncIterator[bytes], *, filename: str, media_type: str, name: str | None = None
    ) -> Upload:
        name = name or self._new_name()
        try:
            found = await upload(self._bus, self._object_store, name, content, bytes_max=self._bytes_max)
        except ObjectTooLarge as error:
            raise UploadTooLarge(error.bytes_max) from error
        except StreamFull as error:
            raise UploadsFull from error
        return Upload(
            object_name=name,
            filename=filename,
            media_type=media_type,
            size=found.size,
            sha256=found.sha256,
        )

    @asynccontextmanager
    async def _unless_kept(self, stored: Upload) -> AsyncIterator[None]:
        try:
            yield
        finally:
            if not stored.kept:
                await self._remove(stored)

    async def _remove(self, stored: Upload) -> None:
        with anyio.CancelScope(shield=True), anyio.move_on_after(REMOVE_SECONDS):
            await remove(self._bus, self._object_store, stored.object_name)

    @contextmanager
    def _counted(self, credential: str) -> Iterator[None]:
        for at_once, limit in (
            (self._open[credential], AT_ONCE_PER_CREDENTIAL_MAX),
            (self._open.total(), AT_ONCE_MAX),
        ):
            if at_once >= limit:
                raise TooManyUploads(limit)
        self._open[credential] += 1
        try:
            yield
        finally:
            self._open[credential] -= 1
            if not self._open[credential]:
                del self._open[credential]


class _Form:
    """Reads a form once, in three steps: to its file, the file, and what follows."""

    def __init__(
        self, pieces: AsyncIterator[bytes], boundary: str, file: str, fields: Collection[str]
    ) -> None:
        self._events = _events(pieces, boundary)
        self.file = file
        self._fields = fields
        self._found: dict[str, str] = {}

    async def head(self) -> tuple[str, str]:
        """(name, media type) of the file, as soon as they have come."""
        segment = await self._to_file()
        if segment is None:
            raise InvalidUpload(f"Send the file as the part {self.file!r} of the form", self.file)
        name = file_name(segment.filename or "")
        if not name:
            raise InvalidUpload(f"The part {self.file!r} must have a file name", self.file)
        return name, (segment.content_type or "")[:MEDIA_TYPE_LENGTH_MAX]

    async def content(self) -> AsyncIterator[bytes]:
        """The bytes of the file."""
        async for event in self._events:
            if event is None or isinstance(event, MultipartSegment):
                return
            yield event

    async def rest(self) -> Mapping[str, str]:
        """The fields, before the file and behind it."""
        if await self._to_file() is not None:
            raise InvalidUpload("Send one file at a time", self.file)
        return self._found

    async def _to_file(self) -> MultipartSegment | None:
        """The head of the next file, fields kept on the way; None at the end of the form."""
        name, value = "", bytearray()
        async for event in self._events:
            if isinstance(event, MultipartSegment):
                if event.name == self.file:
                    return event
                name, value = event.name or "", bytearray()
                if name not in self._fields or name in self._found:
                    raise InvalidUpload(f"The part {name[:80]!r} has no place in this form", name[:80])
            elif event is not None:
                value += event
                if len(value) > FIELD_BYTES_MAX:
                    raise InvalidUpload(f"The field {name!r} is longer than {FIELD_BYTES_MAX} bytes", name)
            else:
                try:
                    self._found[name] = value.decode()
                except UnicodeDecodeError:
                    raise InvalidUpload(f"The field {name!r} is not text in UTF-8", name) from None
        return None


async def _events(
    pieces: AsyncIterator[bytes], boundary: str
) -> AsyncIterator[MultipartSegment | bytes | None]:
    """A head, pieces of bytes and None for each part of the form. InvalidUpload."""
    parser = PushMultipartParser(boundary, max_segment_count=PARTS_MAX)
    try:
        async for piece in pieces:
            for event in parser.parse(piece):
                yield event
        parser.close()
    except MultipartError as error:
        raise InvalidUpload(f"The form cannot be read: {error}") from error


async def _pieces(request: Request[Any, Any, Any], silent_seconds: float) -> AsyncIterator[bytes]:
    """The body as it comes. UploadTooSlow, ClientGone."""
    more = True
    while more:
        message: Any = None
        with anyio.move_on_after(silent_seconds):
            message = await request.receive()
        if message is None:
            raise UploadTooSlow
        if message["type"] == "http.disconnect":
            raise ClientGone
        if message.get("body"):
            yield message["body"]
        more = message.get("more_body", False)


def is_packed(content_encoding: str | None) -> bool:
    """Whether a body is compressed: no body of a request is unpacked here."""
    return (content_encoding or "identity").strip().lower() != "identity"


def boundary_of(request: Request[Any, Any, Any]) -> str:
    """What stands between the parts of the form. InvalidUpload where the body is no form."""
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    boundary = options.get("boundary", "")
    if kind != "multipart/form-data" or not 1 <= len(boundary) <= BOUNDARY_LENGTH_MAX:
        raise InvalidUpload("Send the file as multipart/form-data")
    return str(boundary)
