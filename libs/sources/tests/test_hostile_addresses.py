"""Addresses, names and redirects that lead where they must not: by documents, by any HTTP client, and by git.

Each row names a way in. Whatever the row, nothing may be connected to: behind every name and port of these
tables a server listens, and its list of connections stays empty.
"""

from __future__ import annotations

import traceback
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest

from pharos_sources.fetching import DocumentFetcher, DocumentLimits
from pharos_sources.git import FetchError, FetchFailed, Secret, fetch, remote_head
from pharos_sources.hosts import AllowedHosts
from pharos_sources.repository_url import InvalidRepositoryUrl, parse_repository_url
from pharos_sources.transport import guarded_client
from pharos_sources.web_address import InvalidWebAddress, parse_redirect, parse_web_address
from pharos_sources.web_errors import RedirectRefused, WebAddressRefused, WebError
from tests.support.git_server import GitServer
from tests.support.web_server import WebServer, answer

pytestmark = pytest.mark.anyio

CANARY = "canary-5f3a"


@pytest.fixture
async def server() -> AsyncIterator[WebServer]:
    async with WebServer() as running:
        running.answers["/doc.txt"] = answer(body=b"hello", content_type="text/plain")
        yield running


class Names:
    """A resolver with an answer for each name in turn, the last of them again and again."""

    def __init__(self, *answers: list[str]) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []

    async def __call__(self, host: str, port: int) -> list[str]:
        self.asked.append(host)
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


URLS = {
    # names of this machine and of its network
    "loopback": "https://127.0.0.1/",
    "another loopback": "https://127.255.255.254/",
    "loopback without TLS": "http://127.0.0.1/",
    "localhost": "https://localhost/",
    "localhost with a dot": "https://localhost./",
    "localhost in capitals": "https://LOCALHOST/",
    "below localhost": "https://evil.localhost/",
    "localdomain": "https://localhost.localdomain/",
    "a name without a dot": "https://intranet/",
    "mDNS": "https://printer.local/",
    "a name of a cloud's own": "https://metadata.google.internal/",
    "this network": "https://0.0.0.0/",
    "broadcast": "https://255.255.255.255/",
    # private, link-local, metadata
    "10/8": "https://10.0.0.1/",
    "172.16/12": "https://172.31.255.255/",
    "192.168/16": "https://192.168.0.1/",
    "carrier-grade NAT": "https://100.64.0.1/",
    "metadata": "https://169.254.169.254/latest/meta-data/",
    "metadata of another cloud": "https://100.100.100.200/",
    "metadata of a third cloud": "https://192.0.0.192/",
    "a cloud's platform": "https://168.63.129.16/",
    "benchmarks": "https://198.18.0.1/",
    "documentation": "https://203.0.113.1/",
    "multicast": "https://224.0.0.1/",
    "reserved": "https://240.0.0.1/",
    # notations
    "decimal": "https://2130706433/",
    "octal": "https://0177.0.0.1/",
    "octal in one": "https://017700000001/",
    "hexadecimal": "https://0x7f000001/",
    "hexadecimal parts": "https://0x7f.0x0.0x0.0x1/",
    "two parts": "https://127.1/",
    "three parts": "https://127.0.1/",
    "a single zero": "https://0/",
    "mixed notations": "https://0x7f.0.1/",
    "public, but in octal": "https://010.8.8.8/",
    "leading zeros": "https://127.000.000.001/",
    "a dot at the end": "https://127.0.0.1./",
    "full-width digits": "https://127\uff0e0\uff0e0\uff0e1/",
    "full-width everything": "https://\uff11\uff12\uff17.\uff10.\uff10.\uff11/",
    "ideographic full stops": "https://127\u30020\u30020\u30021/",
    "circled digits": "https://\u2460\u2461\u2466.\u24ea.\u24ea.\u2460/",
    "circled letters": "https://\u24db\u24de\u24d2\u24d0\u24db\u24d7\u24de\u24e2\u24e3/",
    "percent-encoded": "https://%31%32%37.0.0.1/",
    "too large for an address": "https://4294967297/",
    "five parts": "https://127.0.0.1.1/",
    # IPv6
    "IPv6 loopback": "https://[::1]/",
    "IPv6 loopback in full": "https://[0:0:0:0:0:0:0:1]/",
    "IPv6 unspecified": "https://[::]/",
    "IPv4-mapped loopback": "https://[::ffff:127.0.0.1]/",
    "IPv4-mapped in hexadecimal": "https://[::ffff:7f00:1]/",
    "IPv4-mapped metadata": "https://[::ffff:a9fe:a9fe]/",
    "IPv4-compatible": "https://[::127.0.0.1]/",
    "NAT64 loopback": "https://[64:ff9b::7f00:1]/",
    "NAT64 metadata": "https://[64:ff9b::169.254.169.254]/",
    "NAT64 of a public address": "https://[64:ff9b::808:808]/",
    "local NAT64": "https://[64:ff9b:1::7f00:1]/",
    "6to4 loopback": "https://[2002:7f00:1::]/",
    "6to4 private": "https://[2002:a00:1::1]/",
    "Teredo": "https://[2001:0:4136:e378:8000:63bf:3fff:fdd2]/",
    "unique local": "https://[fd00:ec2::254]/",
    "link-local": "https://[fe80::1]/",
    "link-local with a zone": "https://[fe80::1%25eth0]/",
    "site-local": "https://[fec0::1]/",
    "IPv6 multicast": "https://[ff02::1]/",
    "IPv6 discard": "https://[100::1]/",
    "IPv6 without an end": "https://[::1/",
    # what stands where a host should
    "credentials": f"https://user:{CANARY}@docs.example/",
    "a host as a user": "https://docs.example@127.0.0.1/",
    "an empty user": "https://@127.0.0.1/",
    "a backslash": "https://docs.example\\@127.0.0.1/",
    "a tab": "https://docs.example\t@127.0.0.1/",
    "a line break": "https://docs.example\r\nHost: 127.0.0.1/",
    "a null": "https://docs.example\0.evil.example/",
    "a soft hyphen in front": "https://\u00ad/",
    "no host": "https:///etc/passwd",
    "a port that is none": "https://docs.example:99999/",
    "port zero": "https://docs.example:0/",
    "another scheme": "ftp://docs.example/",
    "a file": "file:///etc/passwd",
    "gopher": "gopher://127.0.0.1:6379/_FLUSHALL",
    "data": "data:text/plain,hello",
    "a host that is too long": f"https://{'a.' * 130}example/",
    "a label that is too long": f"https://{'a' * 64}.example/",
    "an underscore that is no name": "https://evil_.example/",
}


@pytest.fixture(params=URLS.values(), ids=URLS.keys())
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    yield request.param


@pytest.mark.parametrize("rules", ["", "*, http://listed.example:8080"])
async def test_a_hostile_url_is_no_document(url: str, rules: str) -> None:
    with pytest.raises(InvalidWebAddress) as refusal:
        parse_web_address(f"{url}?token={CANARY}", allowed_hosts=AllowedHosts.parse(rules))
    assert CANARY not in str(refusal.value)


async def test_a_hostile_url_is_no_repository(url: str) -> None:
    with pytest.raises(InvalidRepositoryUrl) as refusal:
        parse_repository_url(f"{url.rstrip('/')}/owner/name", allowed_hosts=AllowedHosts())
    assert CANARY not in str(refusal.value)


async def test_a_hostile_url_is_refused_by_the_client_too_whoever_parsed_it(
    url: str, server: WebServer
) -> None:
    """Even where a name server says that everything is here."""
    async with guarded_client(AllowedHosts(), resolver=Names(["127.0.0.1"])) as client:
        with pytest.raises((WebAddressRefused, httpx.InvalidURL)):
            await client.get(url.replace(".example/", f".example:{server.port}/"))
    assert server.connections == 0


async def test_a_hostile_url_is_not_redirected_to(url: str) -> None:
    source = parse_web_address("https://docs.example/a", allowed_hosts=AllowedHosts())
    with pytest.raises(InvalidWebAddress):
        parse_redirect(url, source=source, allowed_hosts=AllowedHosts())


ANSWERS = {
    "loopback": ["127.0.0.1"],
    "another loopback": ["127.8.8.8"],
    "IPv6 loopback": ["::1"],
    "IPv4-mapped loopback": ["::ffff:127.0.0.1"],
    "IPv4-compatible": ["::7f00:1"],
    "unspecified": ["0.0.0.0"],
    "IPv6 unspecified": ["::"],
    "private": ["10.1.2.3"],
    "carrier-grade NAT": ["100.64.0.1"],
    "metadata": ["169.254.169.254"],
    "IPv4-mapped metadata": ["::ffff:169.254.169.254"],
    "IPv6 metadata": ["fd00:ec2::254"],
    "link-local with a zone": ["fe80::1%eth0"],
    "NAT64 loopback": ["64:ff9b::7f00:1"],
    "NAT64 private": ["64:ff9b::a00:1"],
    "6to4": ["2002:7f00:1::1"],
    "Teredo": ["2001:0:4136:e378:8000:63bf:3fff:fdd2"],
    "multicast": ["224.0.0.251"],
    "one private behind a public one": ["8.8.8.8", "127.0.0.1"],
    "one private before a public one": ["127.0.0.1", "8.8.8.8"],
    "one private at the end of many": [*(f"8.8.8.{n}" for n in range(20)), "10.0.0.1"],
}


@pytest.mark.parametrize("addresses", ANSWERS.values(), ids=ANSWERS.keys())
async def test_a_name_that_leads_to_a_hostile_address_is_not_connected_to(
    server: WebServer, addresses: list[str], tmp_path: Path
) -> None:
    url = f"https://docs.example:{server.port}/doc.txt?token={CANARY}"
    address = parse_web_address(url, allowed_hosts=AllowedHosts())
    async with DocumentFetcher(AllowedHosts(), resolver=Names(addresses)) as fetcher:
        with pytest.raises(WebAddressRefused, match="does not have a public address") as refusal:
            await fetcher.fetch(address, tmp_path / "doc")
    assert not refusal.value.transient
    said = "".join(traceback.format_exception(refusal.value))
    assert CANARY not in said and not any(each in said for each in addresses)
    repository = parse_repository_url(
        f"https://docs.example:{server.port}/owner/name", allowed_hosts=AllowedHosts()
    )
    with pytest.raises(FetchFailed, match="does not have a public address"):
        await remote_head(repository, resolver=Names(addresses))
    assert server.connections == 0
    assert list(tmp_path.iterdir()) == []


async def test_a_name_is_looked_up_again_for_every_connection(server: WebServer) -> None:
    """What was judged when the request came in says nothing of the connection."""
    resolver = Names(["8.8.8.8"], ["127.0.0.1"])
    assert await resolver("docs.example", server.port) == ["8.8.8.8"]
    async with guarded_client(AllowedHosts(), resolver=resolver) as client:
        with pytest.raises(WebAddressRefused):
            await client.get(f"https://docs.example:{server.port}/doc.txt")
    assert resolver.asked == ["docs.example"] * 2
    assert server.connections == 0


async def test_a_listed_host_does_not_open_the_way_for_another_name_of_its_address(server: WebServer) -> None:
    """Connections of admitted private hosts are never used for a host that must be public."""
    allowed = AllowedHosts.parse(f"*, http://listed.example:{server.port}")
    async with guarded_client(allowed, resolver=Names(["127.0.0.1"])) as client:
        assert (await client.get(f"http://listed.example:{server.port}/doc.txt")).text == "hello"
        for url in (
            f"https://other.example:{server.port}/doc.txt",
            f"http://other.example:{server.port}/doc.txt",
            f"http://127.0.0.1:{server.port}/doc.txt",
            f"http://listed.example.evil.example:{server.port}/doc.txt",
            "http://listed.example/doc.txt",
        ):
            with pytest.raises(WebAddressRefused):
                await client.get(url)
    assert server.connections == 1


LOCATIONS = {
    "loopback": "https://127.0.0.1:{port}/doc.txt",
    "loopback without TLS": "http://127.0.0.1:{port}/doc.txt",
    "metadata": "http://169.254.169.254/latest/meta-data/iam",
    "decimal": "http://2130706433:{port}/doc.txt",
    "IPv4-mapped": "http://[::ffff:127.0.0.1]:{port}/doc.txt",
    "localhost": "http://localhost:{port}/doc.txt",
    "a name of the network": "https://db:{port}/doc.txt",
    "a public name that leads here": "https://rebound.example:{port}/doc.txt",
    "a public name without TLS": "http://rebound.example:{port}/doc.txt",
    "another port of the listed host": "http://docs.example:{port}/doc.txt",
    "no scheme": "//127.0.0.1:{port}/doc.txt",
    "a backslash": "/\\127.0.0.1:{port}/doc.txt",
    "credentials": "https://user:password@rebound.example/doc.txt",
    "a file": "file:///etc/passwd",
    "gopher": "gopher://127.0.0.1:{port}/_x",
    "a script": "javascript:alert(1)",
    "IPv6 that is none": "http://[:::1]/",
    "nothing": "",
    "too long": "/" + "a" * 3_000,
    "bytes that are no text": "/\x80\xff\x1b[2J",
}


@pytest.mark.parametrize("location", LOCATIONS.values(), ids=LOCATIONS.keys())
async def test_a_redirect_that_leads_astray_is_not_followed(
    server: WebServer, location: str, tmp_path: Path
) -> None:
    async with WebServer() as forbidden:
        forbidden.answers["/doc.txt"] = answer(body=b"secret", content_type="text/plain")
        where = location.format(port=forbidden.port)
        server.answers["/start"] = answer("302 Found", location=where).replace(b"Location: \r\n", b"")
        host = f"http://docs.example:{server.port}"
        allowed = AllowedHosts.parse(f"*, {host}")
        address = parse_web_address(f"{host}/start?token={CANARY}", allowed_hosts=allowed)
        async with DocumentFetcher(allowed, resolver=Names(["127.0.0.1"])) as fetcher:
            with pytest.raises((RedirectRefused, WebAddressRefused)) as refusal:
                await fetcher.fetch(address, tmp_path / "doc")
        assert CANARY not in "".join(traceback.format_exception(refusal.value))
        assert forbidden.connections == 0
    assert [request.target for request in server.requests] == [f"/start?token={CANARY}"]
    assert list(tmp_path.iterdir()) == []


async def test_a_redirect_is_looked_up_and_judged_like_the_first_address(
    server: WebServer, tmp_path: Path
) -> None:
    """A name server that changes its mind between the two."""
    server.answers["/start"] = answer("307 Temporary Redirect", location="/doc.txt")
    host = f"http://docs.example:{server.port}"
    allowed = AllowedHosts.parse(host)
    resolver = Names(["127.0.0.1"])
    async with DocumentFetcher(allowed, resolver=resolver) as fetcher:
        address = parse_web_address(f"{host}/start", allowed_hosts=allowed)
        found = await fetcher.fetch(address, tmp_path / "doc")
    assert (tmp_path / "doc").read_bytes() == b"hello"
    assert found.address.url == f"{host}/doc.txt"
    assert resolver.asked == ["docs.example"] * 2


async def test_redirects_end(server: WebServer, tmp_path: Path) -> None:
    for number in range(10):
        server.answers[f"/{number}"] = answer("301 Moved Permanently", location=f"/{number + 1}")
    server.answers["/10"] = server.answers["/doc.txt"]
    allowed = AllowedHosts.parse(server.url)
    async with DocumentFetcher(allowed) as fetcher:
        five = parse_web_address(f"{server.url}/5", allowed_hosts=allowed)
        assert (await fetcher.fetch(five, tmp_path / "five")).size_bytes == 5
        six = parse_web_address(f"{server.url}/4", allowed_hosts=allowed)
        with pytest.raises(RedirectRefused, match="there are more than 5"):
            await fetcher.fetch(six, tmp_path / "six")
    assert [path.name for path in tmp_path.iterdir()] == ["five"]


async def test_what_a_redirect_sets_is_not_sent_to_where_it_leads(server: WebServer, tmp_path: Path) -> None:
    server.answers["/start"] = answer("302 Found", location="/doc.txt", set_cookie="session=1; Path=/")
    allowed = AllowedHosts.parse(server.url)
    async with DocumentFetcher(allowed) as fetcher:
        await fetcher.fetch(parse_web_address(f"{server.url}/start", allowed_hosts=allowed), tmp_path / "a")
    assert len(server.requests) == 2
    for request in server.requests:
        assert not {"cookie", "authorization", "referer"} & set(request.headers)


async def test_nothing_of_the_environment_decides_where_a_request_goes(
    server: WebServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with WebServer() as proxy:
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
            monkeypatch.setenv(name.lower(), proxy.url)
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
        netrc = tmp_path / "netrc"
        netrc.write_text("machine 127.0.0.1 login user password hunter2\n")
        monkeypatch.setenv("NETRC", str(netrc))
        async with guarded_client(AllowedHosts.parse(server.url)) as client:
            assert (await client.get(f"{server.url}/doc.txt")).text == "hello"
        assert proxy.connections == 0
    assert "authorization" not in server.requests[0].headers


# --- git takes the same way ---------------------------------------------------------------------------------


async def test_git_does_not_follow_a_redirect_out_of_the_host_that_was_checked(
    server: WebServer, tmp_path: Path
) -> None:
    async with WebServer() as forbidden:
        for location in (
            f"http://127.0.0.1:{forbidden.port}/owner/name/info/refs",
            f"http://2130706433:{forbidden.port}/owner/name/info/refs",
            f"http://[::ffff:127.0.0.1]:{forbidden.port}/owner/name/info/refs",
            f"//127.0.0.1:{forbidden.port}/owner/name/info/refs",
            f"http://127.0.0.1:{server.port}@127.0.0.1:{forbidden.port}/owner/name/info/refs",
            "http://169.254.169.254/owner/name/info/refs",
            f"ftp://127.0.0.1:{server.port}/owner/name/info/refs",
        ):
            server.answers["/owner/name/info/refs"] = answer("302 Found", location=location)
            address = parse_repository_url(
                f"{server.url}/owner/name", allowed_hosts=AllowedHosts.parse(server.url)
            )
            with pytest.raises(FetchFailed, match="moved to another host"):
                await fetch(address, tmp_path / "into", token=Secret("ghp_canary"))
        assert forbidden.connections == 0


async def test_git_does_not_fetch_objects_from_where_a_repository_says_that_they_are(
    server: WebServer, tmp_path: Path
) -> None:
    """The old protocol lets a server name other servers: `objects/info/http-alternates`."""
    async with WebServer() as forbidden:
        commit = "1" * 40
        server.answers |= {
            "/owner/name/info/refs": answer(body=f"{commit}\trefs/heads/main\n".encode()),
            "/owner/name/HEAD": answer(body=b"ref: refs/heads/main\n"),
            "/owner/name/objects/info/packs": answer(body=b""),
            "/owner/name/objects/info/http-alternates": answer(body=f"{forbidden.url}/x/y/\n".encode()),
        }
        address = parse_repository_url(
            f"{server.url}/owner/name", allowed_hosts=AllowedHosts.parse(server.url)
        )
        with pytest.raises(FetchError):
            await fetch(address, tmp_path / "into")
        assert forbidden.connections == 0
    assert server.connections > 0


async def test_git_goes_through_no_proxy_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with WebServer() as proxy:
        for name in ("http_proxy", "https_proxy", "all_proxy"):
            monkeypatch.setenv(name, proxy.url)
        with GitServer() as running:
            commit = running.add_repository("owner/name", {"a": "1"})
            address = parse_repository_url(
                running.url("owner/name"), allowed_hosts=AllowedHosts.parse(running.allowed_hosts)
            )
            assert await remote_head(address) == commit
        assert proxy.connections == 0


async def test_every_error_of_the_table_is_one_sentence_about_the_web() -> None:
    """Whoever catches `WebError` catches all that a request may raise."""
    limits = DocumentLimits(seconds=5.0)
    async with DocumentFetcher(AllowedHosts(), resolver=Names(["10.0.0.1"]), limits=limits) as fetcher:
        with pytest.raises(WebError) as refusal:
            await fetcher.describe(parse_web_address("https://docs.example/", allowed_hosts=AllowedHosts()))
    assert str(refusal.value) == "The address is refused: the host does not have a public address"
