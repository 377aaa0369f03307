"""Following a server's redirect when, and only when, it stays on the host that was checked.

Hosts redirect renamed repositories, and `owner/name` to `owner/name.git`. Git itself either follows every
redirect, with the token, to any host, or none; so git follows none, and this asks where the one redirect
leads.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Sequence
from contextlib import suppress
from typing import Final
from urllib.parse import urljoin, urlsplit

import anyio
from anyio.abc import ByteStream

from pharos_sources.git_errors import FetchFailed, HostUnreachable
from pharos_sources.git_process import authorization
from pharos_sources.hosts import DEFAULT_PORTS
from pharos_sources.repository_url import RepositoryAddress
from pharos_sources.secret import Secret

_HEAD_BYTES_MAX: Final = 16 * 1024
_ANSWER_SECONDS: Final = 15.0
_SUFFIX: Final = "/info/refs"
_REPOSITORY_PATH: Final = re.compile(r"(?:/(?!-|\.{1,2}(?:/|$))[A-Za-z0-9._~+-]+){2,20}")


async def redirect_target(
    address: RepositoryAddress, url: str, *, addresses: Sequence[str], token: Secret | None
) -> str:
    """The clone URL that *url* redirects to, on the same scheme, host and port.

    *addresses* are the checked ones of the host. Raises `FetchFailed` when the redirect leads elsewhere,
    `HostUnreachable` when there is no answer.
    """
    head = await _answer_head(address, url, addresses, token)
    return target_in(head, url)


def target_in(head: bytes, url: str) -> str:
    """The clone URL in the Location of the HTTP answer *head*, if it stays on the host of *url*. Pure."""
    location = re.search(rb"^location:[ \t]*([!-~]{1,2048})[ \t]*\r?$", head, re.IGNORECASE | re.MULTILINE)
    if location is None:
        raise FetchFailed("the server redirects to nowhere")
    try:
        target = urlsplit(urljoin(url + _SUFFIX, location[1].decode("ascii")))
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


async def _open(address: RepositoryAddress, ip: str) -> ByteStream:
    if address.scheme == "http":
        return await anyio.connect_tcp(ip, address.connect_port)
    return await anyio.connect_tcp(
        ip,
        address.connect_port,
        ssl_context=ssl.create_default_context(),
        tls_hostname=address.host,
        tls_standard_compatible=False,
    )


async def _answer_head(
    address: RepositoryAddress, url: str, addresses: Sequence[str], token: Secret | None
) -> bytes:
    lines = [
        f"GET {urlsplit(url).path}{_SUFFIX}?service=git-upload-pack HTTP/1.1",
        f"Host: {address.authority}",
        "User-Agent: git/2 (pharos)",
        "Accept: */*",
        "Connection: close",
    ]
    if token:
        lines.append(f"Authorization: {authorization(address, token)}")
    request = "\r\n".join([*lines, "", ""]).encode("ascii")
    head = b""
    try:
        with anyio.fail_after(_ANSWER_SECONDS):
            stream = await _open(address, addresses[0])
            async with stream:
                await stream.send(request)
                with suppress(anyio.EndOfStream):
                    while b"\r\n\r\n" not in head and len(head) < _HEAD_BYTES_MAX:
                        head += await stream.receive()
    except (OSError, TimeoutError, ssl.SSLError, anyio.BrokenResourceError):
        raise HostUnreachable(address.host, transient=True) from None
    return head.partition(b"\r\n\r\n")[0]
