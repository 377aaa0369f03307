"""Files of Google Drive: folders, shared drives, and documents of Google's own kinds as Office files.

Source: the reference of the Drive API v3 (files.list, files.get, files.export, "Resolve errors"). Shortcuts
are not followed. The folder of a connection is where listings begin and not a fence: whatever the credentials
may read can be opened by its id, so share with them only what may be read.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Final, TypeVar

import httpx
import msgspec

from pharos_sources import cursors
from pharos_sources.asking import Patience, body_of, from_web, patiently, retry_after
from pharos_sources.google_tokens import GoogleTokens
from pharos_sources.source import (
    Entry,
    EntryNotFound,
    EntryRefused,
    EntryTooLarge,
    InvalidCursor,
    Page,
    SourceError,
    SourceRefused,
    SourceUnavailable,
    clamped,
)
from pharos_sources.streaming import bounded
from pharos_sources.transport import read_bounded
from pharos_sources.web_errors import WebError

T = TypeVar("T")

_FOLDER: Final = "application/vnd.google-apps.folder"
_SHORTCUT: Final = "application/vnd.google-apps.shortcut"
_GOOGLE_KIND: Final = "application/vnd.google-apps."
_OFFICE: Final = "application/vnd.openxmlformats-officedocument."
_EXPORTS: Final[Mapping[str, tuple[str, str]]] = {
    f"{_GOOGLE_KIND}document": (f"{_OFFICE}wordprocessingml.document", ".docx"),
    f"{_GOOGLE_KIND}spreadsheet": (f"{_OFFICE}spreadsheetml.sheet", ".xlsx"),
    f"{_GOOGLE_KIND}presentation": (f"{_OFFICE}presentationml.presentation", ".pptx"),
}
_FILE_FIELDS: Final = "id,name,mimeType,size,modifiedTime,md5Checksum,trashed"
_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,256}")
_SHARED_WITH_ME: Final = ""  # in a frame, in place of a folder's id
_FOLDER_NAME_MAX: Final = 100  # in characters; a cursor holds the names of the folders above it
_ANSWER_BYTES_MAX: Final = 8 * 1024 * 1024
_ERROR_BYTES_MAX: Final = 64 * 1024
_NEXT_DAY_SECONDS: Final = 3_600.0

_BUSY: Final = frozenset({"rateLimitExceeded", "userRateLimitExceeded", "sharingRateLimitExceeded"})
_BUSY_TODAY: Final = frozenset({"dailyLimitExceeded", "quotaExceeded", "downloadQuotaExceeded"})
_FILE_REFUSED: Final[Mapping[str, str]] = {
    "exportSizeLimitExceeded": "Google exports no document that becomes larger than 10 MB",
    "cannotDownloadAbusiveFile": "Google holds it for malware or spam",
    "cannotDownloadFile": "its owner does not let it be downloaded",
    "fileNotDownloadable": "Google has no bytes of it",
    "cannotExportFile": "its owner does not let it be downloaded",
    "insufficientFilePermissions": "the connection may see it and not read it",
}
_ALL_REFUSED: Final[Mapping[str, str]] = {
    "accessNotConfigured": "the Drive API is not enabled in the Google Cloud project of these credentials",
    "insufficientPermissions": "these credentials were not granted read access to Drive",
    "domainPolicy": "the administrator of the Google account does not allow it",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class DriveLimits:
    """`requests_per_page` bounds what one call of `list` may ask of Google."""

    depth_max: int = 16
    requests_per_page: int = 50
    page_size: int = 500

    def __post_init__(self) -> None:
        assert self.requests_per_page > self.depth_max, "a page could end before it got anywhere"


class _File(msgspec.Struct, frozen=True, rename="camel"):
    id: str
    name: str = ""
    mime_type: str = ""
    size: int | None = None
    modified_time: datetime | None = None
    md5_checksum: str | None = None
    trashed: bool = False


class _Files(msgspec.Struct, frozen=True, rename="camel"):
    files: Annotated[list[_File], msgspec.Meta(max_length=1_000)] = []
    next_page_token: str | None = None


class _Frame(msgspec.Struct, array_like=True, frozen=True):
    """A folder that is being listed: which of its pages, and how many files of that are done."""

    folder: str
    name: str = ""
    token: str | None = None
    done: int = 0


class _Detail(msgspec.Struct, frozen=True):
    reason: str = ""


class _Problem(msgspec.Struct, frozen=True):
    errors: list[_Detail] = []


class _Refusal(msgspec.Struct, frozen=True):
    error: _Problem


class GoogleDrive:
    """What the credentials behind *tokens* can see from *folder_id* down, or from the top.

    The top is the shared drive *drive_id*, or else the account's My Drive; with *shared_with_me* instead what
    others shared with the account, which is all that a service account has. Ids are Drive's.
    """

    def __init__(
        self,
        client: httpx.AsyncClient,
        tokens: GoogleTokens,
        *,
        endpoint: str,
        folder_id: str | None = None,
        drive_id: str | None = None,
        shared_with_me: bool = False,
        limits: DriveLimits | None = None,
        patience: Patience | None = None,
    ) -> None:
        self._client = client
        self._tokens = tokens
        self._files_url = f"{endpoint.rstrip('/')}/drive/v3/files"
        self._top = folder_id or drive_id or (_SHARED_WITH_ME if shared_with_me else "root")
        self._drive_id = drive_id
        self._limits = limits or DriveLimits()
        self._patience = patience or Patience()
        self._pages: dict[tuple[str, str | None], _Files] = {}

    async def list(self, *, under: str | None = None, cursor: str | None = None, limit: int = 200) -> Page:
        if under is not None and not (await self.stat(under)).folder:
            raise EntryRefused(under, "it is not a folder")
        top = self._top if under is None else under
        frames = [_Frame(top)] if cursor is None else _resumed(cursor, top, self._limits.depth_max)
        kept = {(frame.folder, frame.token) for frame in frames if cursor is not None}
        self._pages = {place: page for place, page in self._pages.items() if place in kept}
        wanted, requests = clamped(limit), 0
        entries: list[Entry] = []
        left_out: Counter[str] = Counter()
        while frames and len(entries) < wanted:
            frame = frames[-1]
            page = self._pages.get((frame.folder, frame.token))
            if page is None:
                if requests == self._limits.requests_per_page:
                    break
                requests += 1
                try:
                    page = await self._folder_page(frame)
                except (EntryNotFound, EntryRefused):
                    if frame.folder == top:
                        raise
                    left_out["a folder that cannot be read"] += 1
                    frames.pop()
                    continue
                self._pages[frame.folder, frame.token] = page
            if frame.done >= len(page.files):
                self._pages.pop((frame.folder, frame.token), None)
                frames.pop()
                if page.next_page_token is not None:
                    frames.append(_Frame(frame.folder, frame.name, page.next_page_token))
                continue
            file = page.files[frame.done]
            frames[-1] = msgspec.structs.replace(frame, done=frame.done + 1)
            if file.mime_type != _FOLDER:
                reason = _unreadable(file)
                if reason is None:
                    folders = [each.name for each in frames[1:]]
                    entries.append(_entry(file, "/".join([*folders, _shown_name(file)])))
                else:
                    left_out[reason] += 1
            elif len(frames) < self._limits.depth_max and _ID.fullmatch(file.id):
                frames.append(_Frame(file.id, _shown_name(file)[:_FOLDER_NAME_MAX]))
            else:
                left_out["too deep"] += 1
        after = cursors.encode([top, frames]) if frames else None
        return Page(entries=tuple(entries), cursor=after, left_out=dict(left_out))

    async def stat(self, file_id: str) -> Entry:
        file = await self._metadata(file_id)
        if file.mime_type == _FOLDER:
            return Entry(id=file.id, name=_shown_name(file), folder=True)
        reason = _unreadable(file)
        if reason is not None:
            raise EntryRefused(file_id, reason)
        return _entry(file, _shown_name(file))

    @asynccontextmanager
    async def open(self, file_id: str, *, bytes_max: int) -> AsyncIterator[AsyncIterator[bytes]]:
        file = await self._metadata(file_id)
        reason = "it is a folder" if file.mime_type == _FOLDER else _unreadable(file)
        if reason is not None:
            raise EntryRefused(file_id, reason)
        if file.size is not None and file.size > bytes_max:
            raise EntryTooLarge(file_id, bytes_max)
        url, asked = f"{self._files_url}/{file_id}", {"alt": "media", "supportsAllDrives": "true"}
        if file.mime_type in _EXPORTS:
            url, asked = f"{url}/export", {"mimeType": _EXPORTS[file.mime_type][0]}
        answer = await patiently(lambda: self._answer(url, asked, file_id=file_id), self._patience)
        try:
            yield bounded(body_of(answer, file_id), file_id, bytes_max)
        finally:
            await answer.aclose()

    async def check(self) -> None:
        if self._top in {"root", _SHARED_WITH_ME} or self._top == self._drive_id:
            await self._folder_page(_Frame(self._top), page_size=1)
            return
        try:
            entry = await self.stat(self._top)
        except EntryNotFound:
            raise SourceRefused("the folder does not exist, or is not shared with this account") from None
        if not entry.folder:
            raise SourceRefused("the id of the folder is that of a file")

    async def _folder_page(self, frame: _Frame, *, page_size: int | None = None) -> _Files:
        inside = "sharedWithMe" if frame.folder == _SHARED_WITH_ME else f"'{frame.folder}' in parents"
        asked = {
            "q": f"{inside} and trashed = false",
            "fields": f"nextPageToken,files({_FILE_FIELDS})",
            "orderBy": "folder,name",
            "pageSize": str(page_size or self._limits.page_size),
            "supportsAllDrives": "true",
            "includeItemsFromAllDrives": "true",
        }
        if self._drive_id is not None:
            asked |= {"corpora": "drive", "driveId": self._drive_id}
        if frame.token is not None:
            asked["pageToken"] = frame.token
        try:
            body = await self._read(self._files_url, asked, file_id=frame.folder)
        except (EntryNotFound, EntryRefused):
            if frame.folder != self._top:
                raise
            raise SourceRefused("the folder does not exist, or is not shared with this account") from None
        return _decoded(body, _Files)

    async def _metadata(self, file_id: str) -> _File:
        if not _ID.fullmatch(file_id):
            raise EntryNotFound(file_id)
        asked = {"fields": _FILE_FIELDS, "supportsAllDrives": "true"}
        file = _decoded(await self._read(f"{self._files_url}/{file_id}", asked, file_id=file_id), _File)
        if file.trashed:
            raise EntryNotFound(file_id)
        return file

    async def _read(self, url: str, asked: Mapping[str, str], *, file_id: str) -> bytes:
        async def read() -> bytes:
            answer = await self._answer(url, asked, file_id=file_id)
            try:
                return await read_bounded(answer, _ANSWER_BYTES_MAX)
            except WebError as error:
                raise from_web(error) from None
            finally:
                await answer.aclose()

        return await patiently(read, self._patience)

    async def _answer(self, url: str, asked: Mapping[str, str], *, file_id: str) -> httpx.Response:
        """An answer of success, whose body is still to be read; the caller closes it."""
        for first in (True, False):
            token = await self._tokens.current()
            request = self._client.build_request(
                "GET", url, params=dict(asked), headers={"Authorization": f"Bearer {token.reveal()}"}
            )
            try:
                answer = await self._client.send(request, stream=True)
            except WebError as error:
                raise from_web(error, file_id) from None
            if answer.status_code == 200:
                return answer
            try:
                body = await read_bounded(answer, _ERROR_BYTES_MAX)
            except WebError:
                body = b""
            finally:
                await answer.aclose()
            if answer.status_code != 401:
                raise _refused(answer, body, file_id=file_id, paged="pageToken" in asked)
            self._tokens.forget(token)
            if not first:
                break
        raise SourceRefused("Google does not accept the credentials any more: connect the account again")


def _resumed(cursor: str, top: str, depth_max: int) -> list[_Frame]:
    of_top, frames = cursors.decode(cursor, tuple[str, list[_Frame]])
    if of_top != top or not 0 < len(frames) <= depth_max or frames[0].folder != top:
        raise InvalidCursor
    if not all(frame.folder == top or _ID.fullmatch(frame.folder) for frame in frames):
        raise InvalidCursor
    return frames


def _decoded(body: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=kind, strict=False)
    except (msgspec.MsgspecError, RecursionError, UnicodeError):
        raise SourceUnavailable("Google's answer cannot be read") from None


def _refused(answer: httpx.Response, body: bytes, *, file_id: str, paged: bool) -> SourceError:
    """What an answer that is no success means: by its status, and for 403 by its reason."""
    status = answer.status_code
    wait = retry_after(answer.headers.get("Retry-After"))
    reasons = _reasons(body)
    if status in {408, 429} or status >= 500 or (status == 403 and reasons & _BUSY):
        return SourceUnavailable("Google is busy or in trouble", retry_after_seconds=wait)
    if reasons & _BUSY_TODAY:
        wait = wait or _NEXT_DAY_SECONDS
        return SourceUnavailable("the daily quota of the Drive API is used up", retry_after_seconds=wait)
    if status in {404, 410}:
        return EntryNotFound(file_id)
    for reason in reasons:
        if reason in _FILE_REFUSED:
            return EntryRefused(file_id, _FILE_REFUSED[reason])
        if reason in _ALL_REFUSED:
            return SourceRefused(_ALL_REFUSED[reason])
    if status == 403:
        return EntryRefused(file_id, "the connection may not read it")
    if status == 400 and paged:
        return InvalidCursor()
    return SourceRefused(f"Google answers {status} to a request of the Drive API")


def _reasons(body: bytes) -> frozenset[str]:
    try:
        return frozenset(each.reason for each in msgspec.json.decode(body, type=_Refusal).error.errors)
    except (msgspec.MsgspecError, RecursionError, UnicodeError):
        return frozenset()


def _unreadable(file: _File) -> str | None:
    """Why Drive has no bytes of *file*, as words to count by; None where it has."""
    if file.mime_type == _SHORTCUT:
        return "a shortcut, which is not followed"
    if file.mime_type.startswith(_GOOGLE_KIND) and file.mime_type not in _EXPORTS:
        return "a kind of Google document that cannot be exported"
    return None


def _shown_name(file: _File) -> str:
    """The name with its separators made harmless, and the ending of what an export makes."""
    name = file.name.replace("/", "_")
    _, ending = _EXPORTS.get(file.mime_type, ("", ""))
    return name if name.lower().endswith(ending) else f"{name}{ending}"


def _entry(file: _File, name: str) -> Entry:
    exported = file.mime_type in _EXPORTS
    identity = None if file.md5_checksum is None else f"md5:{file.md5_checksum}"
    if exported and file.modified_time is not None:
        identity = f"modified:{file.modified_time.isoformat()}"
    return Entry(
        id=file.id,
        name=name,
        size=None if exported else file.size,
        modified=file.modified_time,
        content_type=_EXPORTS[file.mime_type][0] if exported else file.mime_type or None,
        identity=identity,
    )
