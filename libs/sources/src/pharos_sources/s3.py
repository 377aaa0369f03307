"""Objects of a bucket in S3, or in anything that speaks its protocol.

Three requests are all that is needed (ListObjectsV2, HeadObject, GetObject), so they go through the guarded
transport like everything else; botocore signs them. The complete clients would read answers of any length
into memory, follow redirects to anywhere, and take credentials from this machine where a connection has none.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Final
from urllib.parse import quote, unquote, urlencode
from xml.etree.ElementTree import Element, ParseError

import defusedxml.ElementTree as DefusedElementTree
import httpx
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from defusedxml import DefusedXmlException

from pharos_sources import content_types, cursors
from pharos_sources.asking import Patience, body_of, from_web, patiently, retry_after
from pharos_sources.secret import Secret
from pharos_sources.source import (
    ID_LENGTH_MAX,
    Entry,
    EntryNotFound,
    EntryRefused,
    EntryTooLarge,
    Page,
    SourceError,
    SourceRefused,
    SourceUnavailable,
    clamped,
)
from pharos_sources.streaming import bounded
from pharos_sources.transport import read_bounded
from pharos_sources.web_errors import WebError

# At DEBUG, botocore logs the request that it signs, with the session token in it.
logging.getLogger("botocore.auth").setLevel(logging.WARNING)

_LISTING_BYTES_MAX: Final = 8 * 1024 * 1024  # 1,000 keys of 1,024 bytes, each percent-encoded
_ERROR_BYTES_MAX: Final = 64 * 1024
_MARKS_MAX: Final = (
    64_000  # of 1,000 objects there are 30,000 tags; as many as fit would take seconds to read
)
_UNKNOWN_KINDS: Final = frozenset({"", "application/octet-stream", "binary/octet-stream"})
_ARCHIVED: Final = frozenset({"GLACIER", "DEEP_ARCHIVE"})

_BUSY: Final = frozenset(
    {
        "InternalError",
        "OperationAborted",
        "RequestLimitExceeded",
        "RequestTimeout",
        "ServiceUnavailable",
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "TooManyRequests",
    }
)
_REFUSED: Final[Mapping[str, str]] = {
    "NoSuchBucket": "there is no bucket of that name",
    "InvalidBucketName": "the name of the bucket is not valid",
    "AccessDenied": "these credentials may not read the bucket",
    "AllAccessDisabled": "all access to the bucket is disabled",
    "AccountProblem": "the account of the bucket has a problem that its owner must solve",
    "InvalidAccessKeyId": "the access key is not known to the server",
    "SignatureDoesNotMatch": "the secret access key does not belong to the access key",
    "InvalidToken": "the session token is not valid",
    "ExpiredToken": "the session token has expired",
    "RequestTimeTooSkewed": "the clock of this machine is wrong",
    "AuthorizationHeaderMalformed": "the bucket is in another region than the connection says",
    "IllegalLocationConstraintException": "the bucket is in another region than the connection says",
    "PermanentRedirect": "the bucket is in another region than the connection says",
    "TemporaryRedirect": "the bucket is in another region than the connection says",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Bucket:
    """Where the objects are. `base_url` has the bucket in its host or its path and ends without a slash."""

    base_url: str
    region: str
    prefix: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessKey:
    """What requests are signed with; without it they are not signed, as public buckets allow."""

    id: str
    secret: Secret
    session_token: Secret | None = None


class S3Bucket:
    """The objects whose keys begin with the prefix of *bucket*: no others are listed, told of or read.

    Ids are whole keys; a folder's ends in `/`. Keys that a URL would change are left out.
    """

    def __init__(
        self,
        client: httpx.AsyncClient,
        bucket: Bucket,
        key: AccessKey | None,
        *,
        patience: Patience | None = None,
    ) -> None:
        self._client = client
        self._bucket = bucket
        self._patience = patience or Patience()
        self._credentials: Credentials | None = None
        if key is not None:
            token = None if key.session_token is None else key.session_token.reveal()
            self._credentials = Credentials(key.id, key.secret.reveal(), token)

    async def list(self, *, under: str | None = None, cursor: str | None = None, limit: int = 200) -> Page:
        prefix = self._bucket.prefix
        if under is not None:
            prefix = self._checked(under if under.endswith("/") else f"{under}/")
        after = None if cursor is None else cursors.decode(cursor, str)
        listing = await self._keys(prefix, after=after, limit=clamped(limit))
        if under is not None and after is None and not listing.objects:
            raise EntryNotFound(under)
        entries: list[Entry] = []
        left_out: Counter[str] = Counter()
        for each in listing.objects:
            reason = _reason_against(each)
            if reason is not None:
                left_out[reason] += 1
            elif not each.key.endswith("/"):  # what some tools make to show an empty folder
                entries.append(_entry(each, each.key.removeprefix(prefix).lstrip("/")))
        more = listing.truncated and listing.objects
        return Page(
            entries=tuple(entries),
            cursor=cursors.encode(listing.objects[-1].key) if more else None,
            left_out=dict(left_out),
        )

    async def stat(self, file_id: str) -> Entry:
        key = self._checked(file_id)
        if not key.endswith("/"):
            try:
                answer = await self._patient_answer("HEAD", key)
            except EntryNotFound:
                key = f"{key}/"
            else:
                await answer.aclose()
                return _told(file_id, answer.headers)
        if (await self._keys(key, after=None, limit=1)).objects:
            return Entry(id=key, name=key, folder=True)
        raise EntryNotFound(file_id)

    @asynccontextmanager
    async def open(self, file_id: str, *, bytes_max: int) -> AsyncIterator[AsyncIterator[bytes]]:
        answer = await self._patient_answer("GET", self._checked(file_id))
        try:
            declared = answer.headers.get("Content-Length", "")
            if declared.isdigit() and int(declared) > bytes_max:
                raise EntryTooLarge(file_id, bytes_max)
            yield bounded(body_of(answer, file_id), file_id, bytes_max)
        finally:
            await answer.aclose()

    async def check(self) -> None:
        await self._keys(self._bucket.prefix, after=None, limit=1)

    def _checked(self, file_id: str) -> str:
        """*file_id* as a key of this connection."""
        inside = file_id.startswith(self._bucket.prefix) and 0 < len(file_id) <= ID_LENGTH_MAX
        if not inside or _would_change(file_id):
            raise EntryNotFound(file_id)
        return file_id

    async def _keys(self, prefix: str, *, after: str | None, limit: int) -> _Listing:
        asked = {"list-type": "2", "prefix": prefix, "max-keys": str(limit), "encoding-type": "url"}
        if after is not None:
            asked["start-after"] = after

        async def read() -> bytes:
            answer = await self._answer("GET", None, asked)
            try:
                return await read_bounded(answer, _LISTING_BYTES_MAX)
            except WebError as error:
                raise from_web(error) from None
            finally:
                await answer.aclose()

        return _listing(await patiently(read, self._patience))

    async def _patient_answer(self, method: str, key: str) -> httpx.Response:
        return await patiently(lambda: self._answer(method, key, {}), self._patience)

    async def _answer(self, method: str, key: str | None, asked: Mapping[str, str]) -> httpx.Response:
        """An answer of success about *key*, or the bucket, whose body is still to be read and closed."""
        url = f"{self._bucket.base_url}/{quote(key or '', safe='/-._~')}"
        if asked:
            url = f"{url}?{urlencode(sorted(asked.items()), quote_via=quote, safe='-._~')}"
        headers = {"Accept-Encoding": "identity"} | self._signature(method, url)
        try:
            answer = await self._client.send(
                self._client.build_request(method, url, headers=headers), stream=True
            )
        except WebError as error:
            raise from_web(error, key) from None
        if answer.status_code == 200:
            return answer
        try:
            body = await read_bounded(answer, _ERROR_BYTES_MAX)
        except WebError:
            body = b""
        finally:
            await answer.aclose()
        raise _refused(answer, body, key)

    def _signature(self, method: str, url: str) -> dict[str, str]:
        if self._credentials is None:
            return {}
        request = AWSRequest(method=method, url=url)
        S3SigV4Auth(self._credentials, "s3", self._bucket.region).add_auth(request)
        return dict(request.headers.items())


@dataclass(frozen=True, slots=True, kw_only=True)
class _Object:
    key: str
    size: int
    etag: str
    modified: datetime | None
    archived: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _Listing:
    objects: list[_Object]
    truncated: bool


def _listing(body: bytes) -> _Listing:
    """The answer to ListObjectsV2. Raises `SourceUnavailable` for anything else."""
    root = _xml(body)
    if root is None or _local(root) != "ListBucketResult":
        raise SourceUnavailable("the server does not answer as S3 does")
    try:
        return _Listing(
            objects=[_object(each) for each in root if _local(each) == "Contents"],
            truncated=_text(root, "IsTruncated") == "true",
        )
    except ValueError:
        raise SourceUnavailable("the server does not answer as S3 does") from None


def _object(element: Element) -> _Object:
    modified = _text(element, "LastModified")
    return _Object(
        key=unquote(_text(element, "Key").replace("+", " "), errors="strict"),
        size=int(_text(element, "Size")),
        etag=_text(element, "ETag").strip('"'),
        modified=datetime.fromisoformat(modified) if modified else None,
        archived=_text(element, "StorageClass") in _ARCHIVED,
    )


def _refused(answer: httpx.Response, body: bytes, key: str | None) -> SourceError:
    """What an answer that is no success means: by its code, or by its status where there is none."""
    status = answer.status_code
    root = _xml(body)
    code = "" if root is None else _text(root, "Code")
    wait = retry_after(answer.headers.get("Retry-After"))
    if code in _BUSY or status in {408, 429} or status >= 500:
        return SourceUnavailable("the server is busy or in trouble", retry_after_seconds=wait)
    if key is not None and (code == "NoSuchKey" or (status == 404 and not code)):
        return EntryNotFound(key)
    if key is not None and code == "InvalidObjectState":
        return EntryRefused(key, "it is archived: restore it first")
    if key is not None and (code == "AccessDenied" or (status == 403 and not code)):
        return EntryRefused(key, "these credentials may not read it")
    if code in _REFUSED:
        return SourceRefused(_REFUSED[code])
    if 300 <= status < 400:
        return SourceRefused(_REFUSED["PermanentRedirect"])
    if status == 404:
        return SourceRefused(_REFUSED["NoSuchBucket"])
    return SourceRefused(f"the server answers {status} to a request of S3")


def _told(file_id: str, headers: httpx.Headers) -> Entry:
    """The answer to HeadObject."""
    if headers.get("x-amz-storage-class") in _ARCHIVED and 'ongoing-request="false"' not in headers.get(
        "x-amz-restore", ""
    ):
        raise EntryRefused(file_id, "it is archived: restore it first")
    try:
        modified = parsedate_to_datetime(headers["Last-Modified"])
    except (KeyError, OverflowError, ValueError):
        modified = None
    size, etag = headers.get("Content-Length", ""), headers.get("ETag", "").strip('"')
    kind = headers.get("Content-Type", "")
    return Entry(
        id=file_id,
        name=file_id,
        size=int(size) if size.isdigit() else None,
        modified=modified,
        content_type=content_types.of_name(file_id) if kind in _UNKNOWN_KINDS else kind,
        identity=f"etag:{etag}" if etag else None,
    )


def _entry(each: _Object, name: str) -> Entry:
    return Entry(
        id=each.key,
        name=name,
        size=each.size,
        modified=each.modified,
        content_type=content_types.of_name(each.key),
        identity=f"etag:{each.etag}" if each.etag else None,
    )


def _reason_against(each: _Object) -> str | None:
    if each.archived:
        return "archived"
    return "unsafe name" if _would_change(each.key) else None


def _would_change(key: str) -> bool:
    """Whether *key* does not arrive as it is: `.` and `..` are not parts of the path of a URL."""
    return any(part in {".", ".."} for part in key.split("/"))


def _xml(body: bytes) -> Element | None:
    if max(body.count(b"<"), body.count(b"=")) > _MARKS_MAX:  # tags, and attributes
        return None
    try:
        root: Element = DefusedElementTree.fromstring(body, forbid_dtd=True)
    except (ParseError, DefusedXmlException, ValueError):
        return None
    return root


def _local(element: Element) -> str:
    return element.tag.rpartition("}")[2]


def _text(element: Element, name: str) -> str:
    """The text of the child *name*, whatever namespace the server puts it in."""
    return next((child.text or "" for child in element if _local(child) == name), "")
