"""What somebody wrote as an address on the web, made into one or refused with a reason. Pure: no look-ups.

The path and the query may hold a secret: nothing here shows them, not even to a log.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import quote, urljoin

from pharos_sources.hosts import (
    DEFAULT_PORTS,
    Admission,
    AllowedHosts,
    InvalidHost,
    is_ip_literal,
    may_be_public,
    split_authority,
)

URL_LENGTH_MAX: Final = 2_048

_URL: Final = re.compile(r"(?P<scheme>https?)://(?P<authority>[^/?#]*)(?P<target>[/?][^#]*)?(?:#.*)?", re.I)
_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_UNSEEN: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_PLAIN: Final = "!$%&'()*+,-./:;=?@[]_~"  # what RFC 3986 lets stand in a path and a query


class InvalidWebAddress(ValueError):
    """The text is not an address that may be reached; `reason` is a clause that says why."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True, kw_only=True)
class WebAddress:
    """Where to ask. `target` is the path and the query; `port` is None for the scheme's own."""

    scheme: str
    host: str
    port: int | None
    target: str = field(repr=False)
    private_allowed: bool

    @property
    def authority(self) -> str:
        """`host`, `host:port`, `[v6]` or `[v6]:port`."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port is None else f"{host}:{self.port}"

    @property
    def url(self) -> str:
        """The whole of it, which parses back to the same."""
        return f"{self.scheme}://{self.authority}{self.target}"

    @property
    def connect_port(self) -> int:
        """The TCP port to connect to."""
        return self.port if self.port is not None else DEFAULT_PORTS[self.scheme]

    @property
    def is_ip_literal(self) -> bool:
        """Whether the host is an address, which needs no look-up."""
        return is_ip_literal(self.host)

    @property
    def path(self) -> str:
        """The target without the query, percent-encoded as it is."""
        return self.target.partition("?")[0]


def parse_web_address(text: str, *, allowed_hosts: AllowedHosts) -> WebAddress:
    """The address that *text* means. Raises `InvalidWebAddress`.

    A fragment is dropped, as no server ever sees one; letters beyond ASCII and spaces inside the path and the
    query are percent-encoded, as browsers do. Whether the host resolves to a public address is found out when
    it is looked up.
    """
    if not text:
        raise InvalidWebAddress("the URL is empty")
    if len(text) > URL_LENGTH_MAX:
        raise InvalidWebAddress(f"the URL is longer than {URL_LENGTH_MAX} characters")
    if any(unicodedata.category(character) in _UNSEEN for character in text):
        raise InvalidWebAddress("control characters are not accepted")
    if "\\" in text:
        raise InvalidWebAddress("backslashes are not accepted")
    match = _URL.fullmatch(text)
    if match is None:
        raise InvalidWebAddress("only https URLs are accepted")
    scheme, authority, target = match["scheme"].lower(), match["authority"], match["target"] or "/"
    if "@" in authority:
        raise InvalidWebAddress("credentials in a URL are not accepted")
    try:
        host, port = split_authority(authority)
    except InvalidHost as invalid:
        raise InvalidWebAddress(invalid.reason) from None
    admission = admission_of(scheme, host, port, allowed_hosts=allowed_hosts)
    return WebAddress(
        scheme=scheme,
        host=host,
        port=None if port == DEFAULT_PORTS[scheme] else port,
        target=quote(target if target.startswith("/") else f"/{target}", safe=_PLAIN),
        private_allowed=admission.private_allowed,
    )


def admission_of(scheme: str, host: str, port: int | None, *, allowed_hosts: AllowedHosts) -> Admission:
    """How the normal *host* may be reached by *scheme*. Raises `InvalidWebAddress`."""
    admission = allowed_hosts.admit(scheme, host, port)
    if not (admission is not None and admission.private_allowed) and not may_be_public(host):
        raise InvalidWebAddress("the host is not public")
    if admission is None:
        raise InvalidWebAddress(
            "only https URLs are accepted" if scheme == "http" else "this host is not among the allowed hosts"
        )
    return admission


def parse_redirect(location: str, *, source: WebAddress, allowed_hosts: AllowedHosts) -> WebAddress:
    """The address that *source* redirects to. Raises `InvalidWebAddress`.

    Judged like any other address; and what was asked for by https is never asked for by http.
    """
    if _SCHEME.match(location):
        target = location
    else:
        try:
            target = urljoin(source.url, location)
        except ValueError:  # an address in brackets that is none
            raise InvalidWebAddress("the host name is not valid") from None
    address = parse_web_address(target, allowed_hosts=allowed_hosts)
    if source.scheme == "https" and address.scheme != "https":
        raise InvalidWebAddress("it leads from https to http")
    return address
