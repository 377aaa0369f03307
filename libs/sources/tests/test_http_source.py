"""Documents on the web as a source of files."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest

from pharos_sources.fetching import DocumentFetcher, DocumentLimits
from pharos_sources.hosts import AllowedHosts
from pharos_sources.http_source import URLS_MAX, HttpSource, addresses_of, entry_id
from pharos_sources.source import (
    EntryNotFound,
    EntryRefused,
    EntryTooLarge,
    InvalidCursor,
    Source,
    SourceRefused,
    SourceUnavailable,
    every_file,
)
from pharos_sources.web_address import parse_web_address
from tests.support.web_server import WebServer, answer

pytestmark = pytest.mark.anyio

CANARY = "canary-5f3a"


@pytest.fixture
async def server() -> AsyncIterator[WebServer]:
    async with WebServer() as running:
        running.answers["/a.txt"] = answer(
            body=b"hello",
            content_type="text/plain",
            etag='"1"',
            last_modified="Wed, 21 Oct 2026 07:28:00 GMT",
        )
        yield running


@pytest.fixture
async def fetcher(server: WebServer) -> AsyncIterator[DocumentFetcher]:
    async with DocumentFetcher(AllowedHosts.parse(server.url)) as running:
        yield running


def source(server: WebServer, fetcher: DocumentFetcher, *paths: str) -> HttpSource:
    urls = [f"{server.url}{path}" for path in paths]
    return HttpSource(addresses_of(urls, allowed_hosts=AllowedHosts.parse(server.url)), fetcher)


async def read(found: Source, file_id: str, bytes_max: int = 1_000) -> bytes:
    async with found.open(file_id, bytes_max=bytes_max) as pieces:
        return b"".join([piece async for piece in pieces])


async def test_each_url_is_a_file_that_is_listed_described_and_read(
    server: WebServer, fetcher: DocumentFetcher
) -> None:
    found = source(server, fetcher, "/a.txt", "/b/c.html", "/a.txt")
    listed = [entry async for entry in every_file(found, files_max=10)]
    assert [(entry.id, entry.name) for entry in listed] == [
        (f"{server.url}/a.txt", "a.txt"),
        (f"{server.url}/b/c.html", "c.html"),
    ]
    assert server.connections == 0
    entry = await found.stat(listed[0].id)
    assert (entry.name, entry.size, entry.content_type) == ("a.txt", 5, "text/plain")
    assert (entry.identity, entry.modified) == ('etag:"1"', datetime(2026, 10, 21, 7, 28, tzinfo=UTC))
    assert await read(found, entry.id) == b"hello"
    await found.check()


async def test_the_query_of_a_url_is_sent_and_never_shown(
    server: WebServer, fetcher: DocumentFetcher
) -> None:
    found = source(server, fetcher, f"/a.txt?token={CANARY}", f"/none?token={CANARY}", "/a.txt?token=other")
    page = await found.list()
    assert CANARY not in repr(page)
    first, second, third = (entry.id for entry in page.entries)
    assert first != third
    assert await read(found, first) == b"hello"
    assert server.requests[-1].target == f"/a.txt?token={CANARY}"
    with pytest.raises(EntryNotFound) as missing:
        await found.stat(second)
    assert CANARY not in str(missing.value)
    assert first == entry_id(
        parse_web_address(f"{server.url}/a.txt?token={CANARY}", allowed_hosts=AllowedHosts.parse(server.url))
    )


async def test_a_long_list_comes_page_by_page(server: WebServer, fetcher: DocumentFetcher) -> None:
    found = source(server, fetcher, *(f"/{number}.txt" for number in range(25)))
    page = await found.list(limit=10)
    names = [entry.name for entry in page.entries]
    while page.cursor is not None:
        page = await found.list(limit=10, cursor=page.cursor)
        names += [entry.name for entry in page.entries]
    assert names == [f"{number}.txt" for number in range(25)]
    for cursor in ("MjY", "LTE", "nonsense"):  # 26, -1
        with pytest.raises(InvalidCursor):
            await found.list(cursor=cursor)


async def test_a_url_that_the_connection_does_not_have_is_not_asked_for(
    server: WebServer, fetcher: DocumentFetcher
) -> None:
    found = source(server, fetcher, "/b.txt")
    for file_id in (f"{server.url}/a.txt", "https://127.0.0.1/", ""):
        with pytest.raises(EntryNotFound):
            await found.stat(file_id)
        with pytest.raises(EntryNotFound):
            await read(found, file_id)
    with pytest.raises(EntryNotFound):
        await found.list(under="/b")
    assert server.connections == 0


async def test_what_goes_wrong_on_the_web_is_told_as_any_source_tells_it(
    server: WebServer, fetcher: DocumentFetcher
) -> None:
    server.answers |= {
        "/busy": answer("503 X"),
        "/teapot": answer("418 X"),
        "/picture": answer(content_type="image/png"),
        "/away": answer("302 X", location="https://169.254.169.254/"),
        "/half": answer(body=b"x", length=9, content_type="text/plain"),
        "/large": answer(body=b"x" * 2_000, content_type="text/plain"),
        "/secretly-large": b"HTTP/1.1 200 X\r\nContent-Type: text/plain\r\n\r\n" + b"x" * 2_000,
    }
    for path, error, says in (
        ("/none", EntryNotFound, "There is no file"),
        ("/busy", SourceUnavailable, "HTTPError: 503"),
        ("/teapot", EntryRefused, "HTTPError: 418"),
        ("/picture", EntryRefused, "it serves image/png"),
        ("/away", EntryRefused, "the host is not public"),
        ("/half", SourceUnavailable, "not complete HTTP"),
        ("/large", EntryTooLarge, "larger than 1000 bytes"),
        ("/secretly-large", EntryTooLarge, "larger than 1000 bytes"),
    ):
        with pytest.raises(error, match=says):
            await read(source(server, fetcher, path), f"{server.url}{path}")


async def test_the_limit_of_the_fetcher_holds_as_well(server: WebServer) -> None:
    limits = DocumentLimits(bytes_max=4)
    async with DocumentFetcher(AllowedHosts.parse(server.url), limits=limits) as fetcher:
        with pytest.raises(EntryTooLarge, match="larger than 4 bytes"):
            await read(source(server, fetcher, "/a.txt"), f"{server.url}/a.txt")


@pytest.mark.parametrize(
    ("urls", "says"),
    [
        ([], "it has no URL"),
        (["https://docs.example/"] * (URLS_MAX + 1), "more than 10000 URLs"),
        (
            ["https://docs.example/", f"https://127.0.0.1/?{CANARY}"],
            "URL 2 is refused, the host is not public",
        ),
        (["http://docs.example/"], "URL 1 is refused, only https URLs are accepted"),
    ],
)
def test_a_connection_that_cannot_work_is_refused_with_a_sentence(urls: list[str], says: str) -> None:
    with pytest.raises(SourceRefused, match=says) as refusal:
        addresses_of(urls, allowed_hosts=AllowedHosts())
    assert CANARY not in str(refusal.value)
