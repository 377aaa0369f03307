"""Following a server's redirect when, and only when, it stays on the host that was checked.

Hosts redirect renamed repositories, and `owner/name` to `owner/name.git`. Git itself either follows every
redirect, with the token, to any host, or none; so git follows none, and this asks where the one redirect
leads.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Sequence
from typing import Final
from urllib.parse import urljoin, urlsplit

import anyio
import httpcore

from pharos_sources.git_errors import FetchFailed, HostUnreachable
from pharos_sources.git_process import authorization
from pharos_sources.hosts import DEFAULT_PORTS
from pharos_sources.network import GuardedNetwork
from pharos_sources.repository_url import RepositoryAddress
from pharos_sources.secret import Secret

_ANSWER_SECONDS: Final = 15.0
_SUFFIX: Final = "/info/refs"
_LOCATION: Final = re.compile(r"[!-~]{1,2048}")
_REPOSITORY_PATH: Final = re.compile(r"(?:/(?!-|\.{1,2}(?:/|$))[A-Za-z0-9._~+-]+){2,20}")


async def redirect_target(
    address: RepositoryAddress, url: str, *, addresses: Sequence[str], token: Secret | None
) -> str:
    """The clone URL that *url* redirects to, on the same scheme, host and port.

    *addresses* are the checked ones of the host. Raises `FetchFailed` when the redirect leads elsewhere,
    `HostUnreachable` when there is no answer.
    """
    location = await _location(address, url, addresses, token)
    return target_in(location, url)


def target_in(location: str | None, url: str) -> str:
    """The clone URL in the Location header of an answer, if it stays on the host of *url*. Pure."""
    if location is None or not _LOCATION.fullmatch(location):
        raise FetchFailed("the server redirects to nowhere")
    try:
        target = urlsplit(urljoin(url + _SUFFIX, location))
    except ValueError:  # an address in brackets that is none
        raise FetchFailed("the server redirects to nowhere") from None
    if _origin(target.scheme, target.netloc) != _origin(urlsplit(url).scheme, urlsplit(url).netloc):
        raise FetchFailed("the repository has moved to another host: submit its new address")
    path = target.path.removesuffix(_SUFFIX)
    if path == target.path or not _REPOSITORY_PATH.fullmatch(path):
        raise FetchFailed("the server redirects to something that is not a repository")
    return f"{target.scheme}://{urlsplit(url).netloc}{path}"


def _origin(scheme: str, netloc: str) -> tuple[str, str]:
    return scheme.lower(), netloc.lower().removesuffix(f":{DEFAULT_PORTS.get(scheme.lower(), 0)}")


async def _location(
    address: RepositoryAddress, url: str, addresses: Sequence[str], token: Secret | None
) -> str | None:
    async def checked(host: str, port: int) -> list[str]:
        return list(addresses)

    headers = [
        ("Host", address.authority),
        ("User-Agent", "git/2 (pharos)"),
        ("Accept", "*/*"),
        ("Connection", "close"),
    ]
    if token:
        headers.append(("Authorization", authorization(address, token)))
    where = httpcore.URL(
        scheme=address.scheme,
        host=address.host,
        port=address.connect_port,
        target=f"{urlsplit(url).path}{_SUFFIX}?service=git-upload-pack",
    )
    network = GuardedNetwork(checked, private_allowed=address.private_allowed)
    try:
        with anyio.fail_after(_ANSWER_SECONDS):
            async with (
                httpcore.AsyncConnectionPool(
                    ssl_context=ssl.create_default_context(), network_backend=network
                ) as connections,
                connections.stream("GET", where, headers=headers) as response,
            ):
                found = [value for name, value in response.headers if name.lower() == b"location"]
    except (OSError, TimeoutError, httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException):
        raise HostUnreachable(address.host, transient=True) from None
    return found[0].decode("latin-1") if found else None
