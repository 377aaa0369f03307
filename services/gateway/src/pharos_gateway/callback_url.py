"""Where a callback goes: what a client wrote, made into one address or refused with a reason. Pure.

The path and the query may hold a secret of the receiver: nothing here shows them, not even to a log.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

from pharos_sources.hosts import (
    DEFAULT_PORTS,
    AllowedHosts,
    InvalidHost,
    is_ip_literal,
    may_be_public,
    split_authority,
)

URL_LENGTH_MAX: Final = 2_048

_URL: Final = re.compile(r"(?P<scheme>https?)://(?P<authority>[^/?#]*)(?P<target>[/?].*)?", re.IGNORECASE)
# What RFC 3986 lets stand in a path and a query; anything else has to be percent-encoded.
_TARGET: Final = re.compile(r"[A-Za-z0-9\-._~:/?\[\]@!$&'()*+,;=%]*")


class InvalidCallbackUrl(ValueError):
    """The text is not an address that callbacks may be sent to; ``reason`` is a clause that says why."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True, kw_only=True)
class CallbackAddress:
    """Where to POST. ``target`` is the path and the query; ``port`` is None for the scheme's own."""

    scheme: str
    host: str
    port: int | None
    target: str = field(repr=False)
    private_allowed: bool

    @property
    def authority(self) -> str:
        """``host``, ``host:port``, ``[v6]`` or ``[v6]:port``."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port is None else f"{host}:{self.port}"

    @property
    def url(self) -> str:
        """The whole of it, which parses back to the same."""
        return f"{self.scheme}://{self.authority}{self.target}"

    @property
    def connect_port(self) -> int:
        return self.port if self.port is not None else DEFAULT_PORTS[self.scheme]

    @property
    def is_ip_literal(self) -> bool:
        """Whether the host is an address, which needs no look-up."""
        return is_ip_literal(self.host)


def parse_callback_url(text: str, *, allowed_hosts: AllowedHosts) -> CallbackAddress:
    """The address that *text* means. InvalidCallbackUrl.

    Whether the host resolves to a public address is found out when it is looked up.
    """
    if len(text) > URL_LENGTH_MAX:
        raise InvalidCallbackUrl(f"the URL is longer than {URL_LENGTH_MAX} characters")
    if "#" in text:
        raise InvalidCallbackUrl("a fragment is not accepted")
    match = _URL.fullmatch(text)
    if match is None:
        raise InvalidCallbackUrl("only https URLs are accepted")
    scheme, authority, target = match["scheme"].lower(), match["authority"], match["target"] or "/"
    if "@" in authority:
        raise InvalidCallbackUrl("credentials in a URL are not accepted")
    if not _TARGET.fullmatch(target):
        raise InvalidCallbackUrl("the path and the query must be percent-encoded")
    try:
        host, port = split_authority(authority)
    except InvalidHost as invalid:
        raise InvalidCallbackUrl(invalid.reason) from None
    admission = allowed_hosts.admit(scheme, host, port)
    if not (admission is not None and admission.private_allowed) and not may_be_public(host):
        raise InvalidCallbackUrl("the host is not public")
    if admission is None:
        raise InvalidCallbackUrl(
            "only https URLs are accepted" if scheme == "http" else "this host is not among the allowed hosts"
        )
    return CallbackAddress(
        scheme=scheme,
        host=host,
        port=None if port == DEFAULT_PORTS[scheme] else port,
        target=target if target.startswith("/") else f"/{target}",
        private_allowed=admission.private_allowed,
    )
