"""A fetch reaches the host that was checked, and no other: redirects, names and certificates."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from pharos_sources.git import FetchFailed, HostUnreachable, Secret, fetch
from pharos_sources.repository_url import AllowedHosts, RepositoryAddress, parse_repository_url
from tests.support.git_fetches import address_of
from tests.support.git_server import GitServer

pytestmark = pytest.mark.anyio

TOKEN = "ghp_hunter2-hunter2"


async def test_a_renamed_repository_is_followed_on_its_own_host(
    running: GitServer, name: str, into: Path
) -> None:
    commit = running.add_repository(name, {"a": "1"})
    running.require_token(name, TOKEN)
    running.answer(f"{name}-old", 301, location=f"{running.base_url}/{name}.git")
    checkout = await fetch(address_of(running, f"{name}-old"), into, token=Secret(TOKEN))
    assert checkout.commit == commit


async def test_a_redirect_to_another_host_is_refused_and_gets_no_token(
    running: GitServer, name: str, into: Path
) -> None:
    with GitServer() as other:
        other.add_repository(name, {"a": "1"})
        running.answer(name, 302, location=f"{other.base_url}/{name}.git")
        with pytest.raises(FetchFailed, match="moved to another host"):
            await fetch(address_of(running, name), into, token=Secret(TOKEN))
        assert other.requests == ()


async def test_redirects_in_a_circle_end(running: GitServer, name: str, into: Path) -> None:
    running.answer(name, 302, location=running.url(name))
    with pytest.raises(FetchFailed, match="redirects in circles"):
        await fetch(address_of(running, name), into)


class FakeResolver:
    """Answers every name with the same addresses, and remembers the names."""

    def __init__(self, *addresses: str) -> None:
        self.addresses = list(addresses)
        self.names: list[str] = []

    async def __call__(self, host: str, port: int) -> list[str]:
        self.names.append(host)
        return self.addresses


@pytest.mark.parametrize("addresses", [("127.0.0.1",), ("::1", "127.0.0.1")])
async def test_git_connects_to_the_address_that_was_checked_and_looks_nothing_up(
    running: GitServer, name: str, into: Path, addresses: tuple[str, ...]
) -> None:
    commit = running.add_repository(name, {"a": "1"})
    allowed = AllowedHosts.parse(f"http://git.pinned.example:{running.port}")
    url = f"http://git.pinned.example:{running.port}/{name}"
    resolver = FakeResolver(*addresses)
    checkout = await fetch(parse_repository_url(url, allowed_hosts=allowed), into, resolver=resolver)
    assert checkout.commit == commit
    assert resolver.names == ["git.pinned.example"]


async def test_a_public_name_with_a_private_address_is_refused_without_a_connection(
    running: GitServer, into: Path
) -> None:
    address = parse_repository_url(
        f"https://rebind.example.com:{running.port}/a/b", allowed_hosts=AllowedHosts()
    )
    before = len(running.requests)
    with pytest.raises(FetchFailed, match="does not have a public address"):
        await fetch(address, into, resolver=FakeResolver("8.8.8.8", "127.0.0.1"))
    assert len(running.requests) == before
    assert not into.exists()


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def secure(authority: trustme.CA) -> Iterator[GitServer]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("git.secure.example").configure_cert(context)
    with GitServer(tls=context) as server:
        yield server


def secure_address(server: GitServer, name: str, host: str = "git.secure.example") -> RepositoryAddress:
    allowed = AllowedHosts.parse(f"http://{host}:{server.port}")
    return parse_repository_url(f"https://{host}:{server.port}/{name}", allowed_hosts=allowed)


async def test_https_is_verified_against_the_name_and_the_pinned_address_is_used(
    secure: GitServer, authority: trustme.CA, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = secure.add_repository(name, {"a": "1"})
    secure.answer(f"{name}-old", 301, location=f"https://git.secure.example:{secure.port}/{name}.git")
    resolver = FakeResolver("127.0.0.1")
    with pytest.raises(HostUnreachable) as failure:  # nobody vouches for it yet
        await fetch(secure_address(secure, name), tmp_path / "0", resolver=resolver)
    assert not failure.value.transient
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    for number, repository in enumerate((name, f"{name}-old"), start=1):
        address = secure_address(secure, repository)
        assert (await fetch(address, tmp_path / str(number), resolver=resolver)).commit == commit
    with pytest.raises(HostUnreachable) as failure:
        other = secure_address(secure, name, host="git.other.example")
        await fetch(other, tmp_path / "3", resolver=resolver)
    assert not failure.value.transient
