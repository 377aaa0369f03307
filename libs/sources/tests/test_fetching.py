"""Documents from a real server. What is refused: `test_hostile_addresses`, `test_hostile_answers`."""

from __future__ import annotations

import asyncio
import gzip
import resource
import ssl
from collections.abc import AsyncIterator
from itertools import repeat
from pathlib import Path

import pytest
import trustme

from pharos_sources.fetching import DocumentFetcher, DocumentLimits
from pharos_sources.hosts import AllowedHosts
from pharos_sources.transport import TransportLimits, guarded_client, location_of, read_bounded
from pharos_sources.web_address import WebAddress, parse_web_address
from pharos_sources.web_errors import (
    AnswerTooLarge,
    HTTPError,
    NoRoom,
    WebAddressRefused,
    WebHostUnreachable,
    WebTimedOut,
)
from tests.support.web_server import WebServer, answer, dripping

pytestmark = pytest.mark.anyio


@pytest.fixture
async def server() -> AsyncIterator[WebServer]:
    async with WebServer() as running:
        yield running


@pytest.fixture
async def fetcher(server: WebServer) -> AsyncIterator[DocumentFetcher]:
    async with DocumentFetcher(AllowedHosts.parse(server.url)) as running:
        yield running


def address(server: WebServer, path: str) -> WebAddress:
    return parse_web_address(f"{server.url}{path}", allowed_hosts=AllowedHosts.parse(server.url))


async def test_a_document_is_written_as_it_is_and_described(
    server: WebServer, fetcher: DocumentFetcher, tmp_path: Path
) -> None:
    server.answers["/a/notes"] = answer(
        body=b"caf\xe9",
        content_type="text/html; charset=latin-1",
        content_disposition='inline; filename="Notes.html"',
        etag='"v1"',
        last_modified="Wed, 21 Oct 2026 07:28:00 GMT",
    )
    found = await fetcher.fetch(address(server, "/a/notes?x=1"), tmp_path / "doc")
    assert (tmp_path / "doc").read_bytes() == b"caf\xe9"
    assert (found.content.media_type, found.content.charset) == ("text/html", "latin-1")
    assert (found.content.name, found.size_bytes) == ("Notes.html", 4)
    assert (found.etag, found.modified) == ('"v1"', "Wed, 21 Oct 2026 07:28:00 GMT")
    (request,) = server.requests
    assert (request.method, request.target) == ("GET", "/a/notes?x=1")
    assert request.headers["host"] == f"127.0.0.1:{server.port}"
    assert request.headers["accept-encoding"] == "gzip"


async def test_a_compressed_document_is_written_decompressed(
    server: WebServer, fetcher: DocumentFetcher, tmp_path: Path
) -> None:
    body = b"".join(b"line %d\n" % number for number in range(20_000))
    server.answers["/doc"] = answer(
        body=gzip.compress(body), content_encoding="gzip", content_type="text/plain"
    )
    found = await fetcher.fetch(address(server, "/doc"), tmp_path / "doc")
    assert (tmp_path / "doc").read_bytes() == body
    assert found.size_bytes == len(body)
    assert (await fetcher.describe(address(server, "/doc"))).size_bytes is None


async def test_a_document_without_a_size_and_one_in_chunks_are_written_whole(
    server: WebServer, fetcher: DocumentFetcher, tmp_path: Path
) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/csv\r\n"
    server.answers["/open"] = head + b"\r\n" + b"a" * 300_000
    server.answers["/chunks"] = dripping(
        [head + b"Transfer-Encoding: chunked\r\n\r\n", b"3\r\nabc\r\n", b"2\r\nde\r\n0\r\n\r\n"], seconds=0.01
    )
    assert (await fetcher.fetch(address(server, "/open"), tmp_path / "a")).size_bytes == 300_000
    assert (await fetcher.fetch(address(server, "/chunks"), tmp_path / "b")).size_bytes == 5
    assert (tmp_path / "b").read_bytes() == b"abcde"


async def test_an_empty_document_is_an_empty_file(
    server: WebServer, fetcher: DocumentFetcher, tmp_path: Path
) -> None:
    server.answers["/doc"] = answer(content_type="text/plain", content_encoding="gzip")
    assert (await fetcher.fetch(address(server, "/doc"), tmp_path / "doc")).size_bytes == 0
    assert (tmp_path / "doc").read_bytes() == b""


async def test_a_document_exactly_as_large_as_it_may_be_is_fetched(server: WebServer, tmp_path: Path) -> None:
    server.answers["/doc"] = answer(body=b"x" * 100, content_type="text/plain")
    for bytes_max, fits in ((100, True), (99, False)):
        limits = DocumentLimits(bytes_max=bytes_max)
        async with DocumentFetcher(AllowedHosts.parse(server.url), limits=limits) as fetcher:
            into = tmp_path / str(bytes_max)
            if fits:
                await fetcher.fetch(address(server, "/doc"), into)
            else:
                with pytest.raises(AnswerTooLarge, match="larger than 99 bytes"):
                    await fetcher.fetch(address(server, "/doc"), into)
            assert into.exists() is fits


async def test_a_disk_without_room_says_so_and_leaves_nothing(
    server: WebServer, fetcher: DocumentFetcher, tmp_path: Path
) -> None:
    server.answers["/doc"] = answer(body=b"x" * 300_000, content_type="text/plain")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(NoRoom, match="there is no room on the disk"):
            await fetcher.fetch(address(server, "/doc"), tmp_path / "doc")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == []


async def test_a_description_costs_no_body_and_does_without_head(
    server: WebServer, fetcher: DocumentFetcher
) -> None:
    server.answers["/doc"] = answer(content_type="text/plain", length=10**6, etag='"1"')
    described = await fetcher.describe(address(server, "/doc"))
    assert (described.size_bytes, described.etag) == (10**6, '"1"')
    assert [request.method for request in server.requests] == ["HEAD"]


async def test_a_server_that_refuses_head_is_asked_for_the_beginning() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        asked.append(head.split(b" ")[0])
        refused = asked[-1] == b"HEAD"
        writer.write(answer("405 X") if refused else answer(body=b"x", content_type="text/plain"))
        await writer.drain()
        writer.close()

    asked: list[bytes] = []
    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    allowed = AllowedHosts.parse(url)
    async with listening, DocumentFetcher(allowed) as other:
        described = await other.describe(parse_web_address(f"{url}/a.txt", allowed_hosts=allowed))
    assert described.content.name == "a.txt"
    assert asked == [b"HEAD", b"GET"]


async def test_a_missing_page_is_asked_for_once(server: WebServer, fetcher: DocumentFetcher) -> None:
    with pytest.raises(HTTPError, match=r"^HTTPError: 404 Not Found$"):
        await fetcher.describe(address(server, "/none"))
    assert len(server.requests) == 1


async def test_the_client_says_where_a_redirect_leads_and_stays(server: WebServer) -> None:
    server.answers["/start"] = answer("302 Found", location="https://[nonsense")
    async with guarded_client(AllowedHosts.parse(server.url)) as client:
        response = await client.get(f"{server.url}/start", follow_redirects=True)
        assert (response.status_code, location_of(response)) == (302, "https://[nonsense")
        assert location_of(await client.get(f"{server.url}/none")) is None
    assert len(server.requests) == 2


async def test_a_bounded_read_ends_at_its_bound(server: WebServer) -> None:
    server.answers["/doc"] = answer(body=b"12345", content_type="text/plain")
    async with guarded_client(AllowedHosts.parse(server.url)) as client:
        async with client.stream("GET", f"{server.url}/doc") as response:
            assert await read_bounded(response, 5) == b"12345"
        async with client.stream("GET", f"{server.url}/doc") as response:
            with pytest.raises(AnswerTooLarge, match="larger than 4 bytes"):
                await read_bounded(response, 4)


async def test_a_request_has_its_time_whatever_comes_meanwhile(server: WebServer) -> None:
    """Also for those who ask without a fetch around it: a byte now and then does not count as progress."""
    head = b"HTTP/1.1 200 OK\r\n"
    server.answers["/slow-head"] = dripping([head, *repeat(b"X: x\r\n", 100)], seconds=0.1)
    server.answers["/slow-body"] = dripping([head + b"\r\n", *repeat(b"x", 100)], seconds=0.1)
    limits = TransportLimits(seconds=0.5, idle_seconds=5.0)
    async with guarded_client(AllowedHosts.parse(server.url), limits=limits) as client:
        for path in ("/slow-head", "/slow-body"):
            with pytest.raises(WebTimedOut, match=r"within 0\.5 seconds"):
                await client.get(f"{server.url}{path}")


async def test_credentials_in_a_url_are_not_sent_even_to_a_listed_host(server: WebServer) -> None:
    async with guarded_client(AllowedHosts.parse(server.url)) as client:
        for user in ("user:hunter2@", "user@", ":@"):
            with pytest.raises(WebAddressRefused, match="credentials in a URL are not accepted") as refusal:
                await client.get(server.url.replace("://", f"://{user}"))
            assert "hunter2" not in str(refusal.value)
    assert server.connections == 0


async def test_the_client_keeps_no_cookies_and_sends_what_it_is_given(server: WebServer) -> None:
    server.answers["/doc"] = answer(body=b"x", set_cookie="a=b; Path=/")
    async with guarded_client(AllowedHosts.parse(server.url), limits=TransportLimits()) as client:
        for _ in range(2):
            await client.post(f"{server.url}/doc", json={"a": 1}, headers={"Authorization": "Bearer x"})
        assert dict(client.cookies) == {}
    assert all("cookie" not in request.headers for request in server.requests)
    assert server.requests[1].headers["authorization"] == "Bearer x"
    assert server.requests[1].headers["content-length"] == "7"


async def test_a_certificate_is_that_of_the_name_although_the_connection_goes_to_an_address(
    tmp_path: Path,
) -> None:
    authority = trustme.CA()
    theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("docs.example").configure_cert(theirs)
    ours = ssl.create_default_context()
    authority.configure_trust(ours)

    async def here(host: str, port: int) -> list[str]:
        return ["127.0.0.1"]

    async with WebServer(tls=theirs) as server:
        server.answers["/doc"] = answer(body=b"x", content_type="text/plain")

        async def fetch(host: str, tls: ssl.SSLContext | None) -> int | None:
            allowed = AllowedHosts.parse(f"http://{host}:{server.port}")
            where = parse_web_address(f"https://{host}:{server.port}/doc", allowed_hosts=allowed)
            async with DocumentFetcher(allowed, resolver=here, tls=tls) as fetcher:
                return (await fetcher.describe(where)).size_bytes

        assert await fetch("docs.example", ours) == 1
        for host, tls in (("other.example", ours), ("docs.example", None)):
            with pytest.raises(WebHostUnreachable) as failure:
                await fetch(host, tls)
            assert not failure.value.transient
    assert len(server.requests) == 1


async def test_an_address_that_does_not_answer_gives_way_to_the_next(
    server: WebServer, tmp_path: Path
) -> None:
    async def several(host: str, port: int) -> list[str]:
        return ["::1", "127.0.0.2", "127.0.0.1"]

    server.answers["/doc"] = answer(body=b"x", content_type="text/plain")
    allowed = AllowedHosts.parse(f"http://docs.example:{server.port}")
    async with DocumentFetcher(allowed, resolver=several) as fetcher:
        where = parse_web_address(f"http://docs.example:{server.port}/doc", allowed_hosts=allowed)
        assert (await fetcher.fetch(where, tmp_path / "doc")).size_bytes == 1
