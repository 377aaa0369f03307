"""Objects of a bucket: against moto's server, which checks signatures, and answers that it never gives."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager

import httpx
import pytest

from pharos_sources.asking import Patience
from pharos_sources.hosts import AllowedHosts
from pharos_sources.s3 import AccessKey, Bucket, S3Bucket
from pharos_sources.secret import Secret
from pharos_sources.source import (
    EntryNotFound,
    EntryRefused,
    EntryTooLarge,
    InvalidCursor,
    Source,
    SourceError,
    SourceRefused,
    SourceUnavailable,
    every_file,
)
from pharos_sources.transport import guarded_client
from tests.support.s3_server import REGION, S3Server

pytestmark = pytest.mark.anyio

QUICK = Patience(tries_max=3, first_seconds=0.001, wait_seconds_max=1.0, seconds_max=2.0)
ODD_KEYS = [
    "a b.txt",
    "a+b.txt",
    "ä/ö.txt",
    "100%.txt",
    "q?a=1&b.txt",
    "#x.txt",
    "it's (1)~!*.txt",
    "a//b.txt",
    "=@:;,$",
]


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with S3Server() as running:
        running.bucket(
            "papers",
            {
                "readme.md": b"# Read me",
                "2025/one.pdf": b"%PDF-1",
                "2025/old/two.txt": b"two",
                "2025-drafts/three.txt": b"three",
                "empty-folder/": b"",
            },
        )
        running.bucket("odd", {key: key.encode() for key in [*ODD_KEYS, "a/../b.txt"]})
        running.bucket("archive", {"cold.txt": b"cold"}, StorageClass="GLACIER")
        with running.strict():
            yield running


@asynccontextmanager
async def bucket(
    server: S3Server, name: str = "papers", *, prefix: str = "", secret: str = "", key_id: str = ""
) -> AsyncIterator[S3Bucket]:
    key = AccessKey(id=key_id or server.access_key, secret=Secret(secret or server.secret_key))
    where = Bucket(base_url=f"{server.url}/{name}", region=REGION, prefix=prefix)
    async with guarded_client(AllowedHosts.parse(server.url)) as client:
        yield S3Bucket(client, where, key, patience=QUICK)


async def read(source: Source, file_id: str, bytes_max: int = 1_000_000) -> bytes:
    async with source.open(file_id, bytes_max=bytes_max) as pieces:
        return b"".join([piece async for piece in pieces])


async def ids(source: Source, under: str | None = None) -> list[str]:
    return [entry.id async for entry in every_file(source, under, files_max=1_000)]


async def test_objects_are_listed_and_told_of_and_read(server: S3Server) -> None:
    async with bucket(server) as source:
        assert isinstance(source, Source)
        await source.check()
        assert await ids(source) == ["2025-drafts/three.txt", "2025/old/two.txt", "2025/one.pdf", "readme.md"]
        page = await source.list(under="2025")
        assert [(each.id, each.name, each.size) for each in page.entries] == [
            ("2025/old/two.txt", "old/two.txt", 3),
            ("2025/one.pdf", "one.pdf", 6),
        ]
        told = await source.stat("2025/one.pdf")
        assert (told.size, told.content_type) == (6, "application/pdf")
        assert told.identity == page.entries[1].identity
        assert (told.identity or "").startswith("etag:")
        assert told.modified is not None
        assert (await source.stat("2025")).folder
        assert (await source.stat("2025/")).folder
        assert await read(source, "2025/old/two.txt") == b"two"
        with pytest.raises(EntryTooLarge):
            await read(source, "2025/old/two.txt", 2)
        for file_id in ("missing", "2025", "", "2025/../readme.md", "x" * 5000):
            with pytest.raises(EntryNotFound):
                await read(source, file_id)
        with pytest.raises(EntryNotFound):
            await source.list(under="missing")
        with pytest.raises(InvalidCursor):
            await source.list(cursor="***")


@pytest.mark.parametrize("key", ODD_KEYS)
async def test_a_key_of_any_characters_is_signed_and_arrives_as_it_is(server: S3Server, key: str) -> None:
    async with bucket(server, "odd") as source:
        assert await read(source, key) == key.encode()
        assert (await source.stat(key)).size == len(key.encode())


async def test_listed_keys_are_those_that_were_stored(server: S3Server) -> None:
    async with bucket(server, "odd") as source:
        page = await source.list()
        assert sorted(entry.id for entry in page.entries) == sorted(ODD_KEYS)
        assert page.left_out == {"unsafe name": 1}


@pytest.mark.parametrize("limit", [1, 2, 1000])
async def test_pages_of_any_size_have_every_object_once(server: S3Server, limit: int) -> None:
    async with bucket(server, "odd") as source:
        found: list[str] = []
        cursor = None
        while True:
            page = await source.list(cursor=cursor, limit=limit)
            found += [entry.id for entry in page.entries]
            cursor = page.cursor
            if cursor is None:
                break
    assert sorted(found) == sorted(ODD_KEYS)


async def test_a_prefix_is_a_fence(server: S3Server) -> None:
    async with bucket(server, prefix="2025/") as source:
        assert await ids(source) == ["2025/old/two.txt", "2025/one.pdf"]
        assert await read(source, "2025/one.pdf") == b"%PDF-1"
        for file_id in ("readme.md", "2025-drafts/three.txt", "2025/../readme.md"):
            for ask in (source.stat(file_id), read(source, file_id), source.list(under=file_id)):
                with pytest.raises(EntryNotFound):
                    await ask


async def test_archived_objects_are_left_out_and_refused(server: S3Server) -> None:
    async with bucket(server, "archive") as source:
        page = await source.list()
        assert (page.entries, page.left_out) == ((), {"archived": 1})
        with pytest.raises(EntryRefused, match="restore it first"):
            await source.stat("cold.txt")
        with pytest.raises(EntryRefused, match="restore it first"):
            await read(source, "cold.txt")


async def test_wrong_credentials_and_a_missing_bucket_are_said(server: S3Server) -> None:
    async with bucket(server, secret="canary-of-a-wrong-secret") as source:
        with pytest.raises(SourceRefused, match="does not belong to the access key") as refused:
            await source.check()
        assert "canary" not in repr(refused.value)
        with pytest.raises(SourceRefused):
            await read(source, "readme.md")
    async with bucket(server, key_id="AKIAUNKNOWN") as source:
        with pytest.raises(SourceRefused, match="access key is not known"):
            await source.check()
    async with bucket(server, "no-such-bucket") as source:
        with pytest.raises(SourceRefused, match="no bucket of that name"):
            await source.check()


# --- answers that moto never gives ------------------------------------------------------------------------


def answering(answer: Callable[[httpx.Request], httpx.Response], *, key: AccessKey | None = None) -> S3Bucket:
    client = httpx.AsyncClient(transport=httpx.MockTransport(answer), trust_env=False)
    where = Bucket(base_url="https://papers.s3.eu-central-1.amazonaws.com", region=REGION)
    return S3Bucket(client, where, key, patience=QUICK)


def error(code: str) -> bytes:
    return f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>canary</Message></Error>'.encode()


WITHOUT_A_SIZE = b"<ListBucketResult><Contents><Key>x</Key><Size>many</Size></Contents></ListBucketResult>"
WITH_ENTITIES = b'<!DOCTYPE x [<!ENTITY a "aa"><!ENTITY b "&a;&a;">]><ListBucketResult>&b;</ListBucketResult>'
ATTRIBUTES = b" ".join(b'a%d=""' % number for number in range(100_000))
WITH_A_FILE = (
    b'<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]><ListBucketResult>&a;</ListBucketResult>'
)


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (503, error("SlowDown"), SourceUnavailable),
        (500, error("InternalError"), SourceUnavailable),
        (400, error("RequestTimeout"), SourceUnavailable),
        (429, b"", SourceUnavailable),
        (502, b"<html>", SourceUnavailable),
        (301, error("PermanentRedirect"), SourceRefused),
        (307, b"", SourceRefused),
        (400, error("AuthorizationHeaderMalformed"), SourceRefused),
        (403, error("AccessDenied"), SourceRefused),
        (403, error("ExpiredToken"), SourceRefused),
        (403, error("RequestTimeTooSkewed"), SourceRefused),
        (404, b"", SourceRefused),
        (418, b"teapot", SourceRefused),
        (200, b"", SourceUnavailable),
        (200, b"<html></html>", SourceUnavailable),
        (200, WITHOUT_A_SIZE, SourceUnavailable),
        (200, WITH_ENTITIES, SourceUnavailable),
        (200, WITH_A_FILE, SourceUnavailable),
        (200, b"<ListBucketResult>" + b"<a/>" * 100_000 + b"</ListBucketResult>", SourceUnavailable),
        (200, b"<ListBucketResult " + ATTRIBUTES + b"></ListBucketResult>", SourceUnavailable),
    ],
)
async def test_every_odd_answer_to_a_listing_is_an_error_of_the_source(
    status: int, body: bytes, kind: type[SourceError]
) -> None:
    source = answering(lambda request: httpx.Response(status, content=body))
    with pytest.raises(kind) as failed:
        await source.list()
    assert "canary" not in str(failed.value)


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (404, error("NoSuchKey"), EntryNotFound),
        (403, error("AccessDenied"), EntryRefused),
        (403, error("InvalidObjectState"), EntryRefused),
        (404, error("NoSuchBucket"), SourceRefused),
        (403, error("InvalidAccessKeyId"), SourceRefused),
        (503, error("SlowDown"), SourceUnavailable),
        (206, b"part", SourceRefused),
        (304, b"", SourceRefused),
    ],
)
async def test_every_odd_answer_about_an_object_is_an_error_of_the_source(
    status: int, body: bytes, kind: type[SourceError]
) -> None:
    source = answering(lambda request: httpx.Response(status, content=body))
    with pytest.raises(kind):
        await read(source, "x.txt")


async def test_a_busy_server_is_asked_again_and_not_for_ever() -> None:
    asked: list[str] = []

    def busy(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.path)
        if len(asked) < 3:
            return httpx.Response(503, content=error("SlowDown"), headers={"Retry-After": "0"})
        return httpx.Response(200, content=b"<ListBucketResult></ListBucketResult>")

    await answering(busy).check()
    assert len(asked) == 3
    asked.clear()
    with pytest.raises(SourceUnavailable) as unavailable:
        await answering(lambda request: asked.append("x") or httpx.Response(503)).check()
    assert unavailable.value.transient
    assert len(asked) == QUICK.tries_max


async def test_a_listing_without_end_is_not_kept() -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b"<Contents></Contents>" * 50_000

    source = answering(lambda request: httpx.Response(200, content=endless()))
    with pytest.raises(SourceRefused, match="larger than"):
        await source.list()


async def test_a_listing_that_says_there_is_more_and_has_nothing_ends() -> None:
    body = b"<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>"
    page = await answering(lambda request: httpx.Response(200, content=body)).list()
    assert (page.entries, page.cursor) == ((), None)


async def test_a_body_longer_than_wanted_is_cut_off_also_when_no_length_was_declared() -> None:
    async def long() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b"x" * 1000

    source = answering(lambda request: httpx.Response(200, content=long()))
    with pytest.raises(EntryTooLarge):
        await read(source, "x.txt", 50_000)


async def test_nothing_is_signed_without_a_key_and_nothing_of_this_machine_is_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.setenv(name, "of-this-machine")
    seen: list[httpx.Request] = []

    def public(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, content=b"<ListBucketResult></ListBucketResult>")

    await answering(public).check()
    assert "Authorization" not in seen[0].headers
    key = AccessKey(id="AKIA1", secret=Secret("canary-1"), session_token=Secret("canary-2"))
    await answering(public, key=key).check()
    assert seen[1].headers["X-Amz-Security-Token"] == "canary-2"
    assert "Credential=AKIA1/" in seen[1].headers["Authorization"]
    sent = [f"{request.url} {request.headers.raw!r}" for request in seen]
    assert not [line for line in sent if "of-this-machine" in line or "canary-1" in line]
    assert "canary" not in str(seen[1].url)


async def test_no_secret_is_in_a_log(server: S3Server, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    key = AccessKey(id="AKIA1", secret=Secret("canary-1"), session_token=Secret("canary-2"))
    with pytest.raises(SourceRefused):
        await answering(lambda request: httpx.Response(403, content=error("InvalidToken")), key=key).check()
    async with bucket(server) as source:
        await source.check()
    told = [record.getMessage() for record in caplog.records]
    assert told
    assert not [line for line in told if "canary" in line or server.secret_key in line]
    assert "canary" not in repr(key)


async def test_a_time_that_is_none_is_not_told() -> None:
    headers = {"Last-Modified": "Thu, 15 Jan 2026 10:31:00 +99999999999999999", "Content-Length": "9" * 19}
    source = answering(lambda request: httpx.Response(200, headers=headers))
    entry = await source.stat("x.txt")
    assert (entry.modified, entry.size) == (None, None)
