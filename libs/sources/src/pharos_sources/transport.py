"""The one HTTP client for somebody else's servers: guarded, bounded, and with nothing of this machine in it.

Each request is judged by the list of allowed hosts, each connection by the guard; redirects are answers like
any other, and whoever follows one asks anew. Nothing is taken from the environment but a private certificate
authority (`SSL_CERT_FILE`), no cookie is kept, and headers, bodies, compression and time have limits.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Final

import anyio
import httpcore
import httpx

from pharos_sources import decoding
from pharos_sources.git_output import in_words
from pharos_sources.guard import AddressRefused, HostNotFound, Resolver, system_resolver
from pharos_sources.hosts import AllowedHosts, InvalidHost, normal_host
from pharos_sources.network import GuardedNetwork
from pharos_sources.web_address import InvalidWebAddress, admission_of
from pharos_sources.web_errors import (
    AnswerTooLarge,
    AnswerUnreadable,
    WebAddressRefused,
    WebHostUnreachable,
    WebTimedOut,
)

USER_AGENT: Final = "Pharos/1"
HEADERS_MAX: Final = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class TransportLimits:
    """What one request may take.

    `seconds` is all of it, from the look-up to the last byte; `idle_seconds` the time without a byte.
    `bytes_max` bounds the body twice: as it arrives, and decompressed. `ratio_max` bounds what decompression
    makes of a byte.
    """

    connect_seconds: float = 10.0
    idle_seconds: float = 30.0
    seconds: float = 900.0
    header_bytes_max: int = 32 * 1024
    bytes_max: int = 2 * 1024**3
    ratio_max: int = 200
    connections_max: int = 20


def guarded_client(
    allowed: AllowedHosts,
    *,
    resolver: Resolver = system_resolver,
    limits: TransportLimits | None = None,
    tls: ssl.SSLContext | None = None,
) -> httpx.AsyncClient:
    """A client for the hosts that *allowed* admits: any public https host where it has no rules.

    Its requests raise `WebError`, never an error of httpx. Read bodies with `client.stream(…)` and
    `read_bounded`, or piece by piece: they arrive decompressed. A redirect is an answer like any other; where
    it leads is said by `location_of`, and is in no header.
    """
    limits = limits or TransportLimits()
    return httpx.AsyncClient(
        transport=GuardedTransport(allowed, resolver=resolver, limits=limits, tls=tls),
        headers={"User-Agent": USER_AGENT, "Accept": "*/*", "Accept-Encoding": decoding.ACCEPTED},
        timeout=httpx.Timeout(limits.idle_seconds, connect=limits.connect_seconds),
        follow_redirects=False,
        trust_env=False,
        # A jar that takes nothing: what one answer sets is never sent with the next request.
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
    )


async def read_bounded(response: httpx.Response, bytes_max: int) -> bytes:
    """The body of a streamed *response*. Raises `AnswerTooLarge` beyond *bytes_max*, and other `WebError`."""
    body = bytearray()
    async for piece in response.aiter_bytes():
        body += piece
        if len(body) > bytes_max:
            raise AnswerTooLarge(response.request.url.host, in_words(bytes_max))
    return bytes(body)


def location_of(response: httpx.Response) -> str | None:
    """Where *response* says that what was asked for is: not judged, and perhaps no URL at all."""
    location: str | None = response.extensions["location"]
    return location


class GuardedTransport(httpx.AsyncBaseTransport):
    """What `guarded_client` sends through; HTTP/1.1 only. Raises `WebError`."""

    def __init__(
        self,
        allowed: AllowedHosts,
        *,
        resolver: Resolver,
        limits: TransportLimits,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._allowed = allowed
        self._limits = limits
        tls = tls or ssl.create_default_context()
        # Two pools, so that no connection of a private host is ever used for one that must be public.
        self._public, self._private = (
            httpcore.AsyncConnectionPool(
                ssl_context=tls,
                max_connections=limits.connections_max,
                network_backend=GuardedNetwork(resolver, private_allowed=private_allowed),
            )
            for private_allowed in (False, True)
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        pool, url = self._judged(request.url)
        host = request.url.host
        deadline = anyio.current_time() + self._limits.seconds
        assert isinstance(request.stream, httpx.AsyncByteStream)
        sent = httpcore.Request(
            method=request.method,
            url=url,
            headers=request.headers.raw,
            content=request.stream,
            extensions={"timeout": request.extensions.get("timeout", {})},
        )
        with _explained(host, self._limits):
            with anyio.fail_after(deadline - anyio.current_time()):
                answer = await pool.handle_async_request(sent)
            try:
                headers, location, compressed = self._checked_headers(host, answer)
            except BaseException:
                with anyio.CancelScope(shield=True):
                    await answer.aclose()
                raise
        return httpx.Response(
            answer.status,
            headers=headers,
            stream=_Body(answer, host, self._limits, deadline=deadline, compressed=compressed),
            extensions={"http_version": b"HTTP/1.1", "location": location},
        )

    async def aclose(self) -> None:
        await self._public.aclose()
        await self._private.aclose()

    def _judged(self, url: httpx.URL) -> tuple[httpcore.AsyncConnectionPool, httpcore.URL]:
        """The pool that may serve *url*, and exactly what was judged to ask it for."""
        try:
            if url.scheme not in {"http", "https"}:
                raise InvalidWebAddress("only https URLs are accepted")
            if url.userinfo:
                raise InvalidWebAddress("credentials in a URL are not accepted")
            written = url.raw_host.decode("ascii")
            host = normal_host(f"[{written}]" if ":" in written else written)
            admission = admission_of(url.scheme, host, url.port, allowed_hosts=self._allowed)
        except (InvalidWebAddress, InvalidHost) as invalid:
            raise WebAddressRefused(invalid.reason) from None
        pool = self._private if admission.private_allowed else self._public
        return pool, httpcore.URL(scheme=url.scheme, host=host, port=url.port, target=url.raw_path)

    def _checked_headers(
        self, host: str, answer: httpcore.Response
    ) -> tuple[list[tuple[bytes, bytes]], str | None, bool]:
        """The headers of the decompressed body, where the answer leads, and whether to decompress it."""
        size = sum(len(name) + len(value) for name, value in answer.headers)
        if size > self._limits.header_bytes_max or len(answer.headers) > HEADERS_MAX:
            raise AnswerUnreadable(host, "its headers are too large")
        codings = [value for name, value in answer.headers if name.lower() == b"content-encoding"]
        try:
            compressed = decoding.is_gzip(b",".join(codings).decode("latin-1"))
        except decoding.Undecodable as undecodable:
            raise AnswerUnreadable(host, undecodable.reason) from None
        # httpx reads a Location even where it follows none, and fails where it cannot.
        dropped = {b"content-encoding", b"location"} | ({b"content-length"} if compressed else set())
        kept = [(name, value) for name, value in answer.headers if name.lower() not in dropped]
        locations = [value for name, value in answer.headers if name.lower() == b"location"]
        return kept, locations[0].decode("latin-1") if locations else None, compressed


class _Body(httpx.AsyncByteStream):
    """The body of an answer, decompressed and counted."""

    def __init__(
        self,
        answer: httpcore.Response,
        host: str,
        limits: TransportLimits,
        *,
        deadline: float,
        compressed: bool,
    ) -> None:
        self._answer = answer
        self._host = host
        self._limits = limits
        self._deadline = deadline
        self._gunzip = decoding.Gunzip(ratio_max=limits.ratio_max) if compressed else None

    async def __aiter__(self) -> AsyncIterator[bytes]:
        decoded = 0
        with _explained(self._host, self._limits):
            async for data in self._arriving():
                for piece in (data,) if self._gunzip is None else self._gunzip.feed(data):
                    decoded += len(piece)
                    self._check(decoded)
                    yield piece
            if self._gunzip is not None:
                self._gunzip.finish()

    async def aclose(self) -> None:
        with anyio.CancelScope(shield=True):
            await self._answer.aclose()

    async def _arriving(self) -> AsyncIterator[bytes]:
        arrived = 0
        pieces = aiter(self._answer.aiter_stream())
        while True:
            with anyio.fail_after(self._deadline - anyio.current_time()):
                data = await anext(pieces, None)
            if data is None:
                return
            arrived += len(data)
            self._check(arrived)
            yield data

    def _check(self, size: int) -> None:
        if size > self._limits.bytes_max:
            raise AnswerTooLarge(self._host, in_words(self._limits.bytes_max))


@contextmanager
def _explained(host: str, limits: TransportLimits) -> Iterator[None]:
    """What goes wrong inside, as a `WebError` with *host*."""
    try:
        yield
    except HostNotFound as unknown:
        raise WebHostUnreachable(host, transient=unknown.transient) from None
    except AddressRefused:
        raise WebAddressRefused("the host does not have a public address") from None
    except decoding.Undecodable as undecodable:
        raise AnswerUnreadable(host, undecodable.reason, transient=undecodable.transient) from None
    except (httpcore.ReadTimeout, httpcore.WriteTimeout):
        raise WebTimedOut(host, limits.idle_seconds) from None
    except httpcore.TimeoutException:
        raise WebTimedOut(host, limits.connect_seconds) from None
    except TimeoutError:
        raise WebTimedOut(host, limits.seconds) from None
    except httpcore.ConnectError as failed:
        untrusted = isinstance(failed.__cause__ or failed.__context__, ssl.SSLCertVerificationError)
        raise WebHostUnreachable(host, transient=not untrusted) from None
    except httpcore.NetworkError:
        raise AnswerUnreadable(host, "the connection was lost", transient=True) from None
    except httpcore.ProtocolError:
        raise AnswerUnreadable(host, "it is not complete HTTP", transient=True) from None
