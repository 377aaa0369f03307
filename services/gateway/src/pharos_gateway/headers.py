"""Headers that every answer carries, whatever made it."""

from __future__ import annotations

from typing import Final

from litestar.types import ASGIApp, Message, Receive, Scope, Send

from pharos_gateway import rates
from pharos_gateway.access import SPENT

ALWAYS: Final = (
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
)


def with_headers(app: ASGIApp) -> ASGIApp:
    """*app*, each of its answers with the headers above, and with what was spent of a rate limit."""

    async def wrapped(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                spent = (scope.get("state") or {}).get(SPENT)
                of_limit = () if spent is None else rates.headers(spent)
                message["headers"] = [*message["headers"], *ALWAYS, *of_limit]
            await send(message)

        await app(scope, receive, send_with_headers)

    return wrapped
