"""Where the server is, and what one request to it may be. Pure."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

import msgspec

from pharos_sources.hosts import AllowedHosts, InvalidHost, may_be_public, split_authority
from pharos_sources.secret import Secret

DIMENSIONS_MAX: Final = 16_384


class InvalidEndpoint(ValueError):
    """The base URL cannot be used; the text is a clause that says why."""


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """A server, its model, and its limits.

    The address is the operator's, not a user's: it may be private, and plain http. What is sent to it and
    what it answers is bounded all the same.
    """

    base_url: str  # up to and without `/embeddings`
    model: str
    key: Secret | None = None
    dimensions: int = 0  # to ask for; 0: as many as the model has
    input_tokens_max: int = 8191
    inputs_max: int = 64  # in one request
    request_tokens: int = 50_000  # in one request, where nobody says otherwise
    requests_at_once: int = 4
    request_seconds: float = 60.0
    requests_per_minute: int = 0  # 0: as many as the server lets
    tokens_per_minute: int = 0

    @property
    def url(self) -> str:
        return f"{self.base_url.rstrip('/')}/embeddings"

    @property
    def host(self) -> str:
        """As it is told: the port where it is not the usual one."""
        return urlsplit(self.base_url).netloc.lower()

    @property
    def allowed(self) -> AllowedHosts:
        """This host and port, and no other. Raises InvalidEndpoint."""
        try:
            url = urlsplit(self.base_url)
            port = url.port
        except ValueError:
            raise InvalidEndpoint("it is not a URL") from None
        if url.scheme not in ("http", "https"):
            raise InvalidEndpoint("it must begin with https:// or http://")
        if "@" in url.netloc:
            raise InvalidEndpoint("credentials do not belong into it; the key is OPENAI_API_KEY")
        if url.query or url.fragment:
            raise InvalidEndpoint("it must end with its path")
        try:
            split_authority(url.netloc)
        except InvalidHost as invalid:
            raise InvalidEndpoint(invalid.reason) from None
        # A rule with http admits https as well, and private addresses.
        port = port or (443 if url.scheme == "https" else 80)
        host = url.netloc.removesuffix(f":{port}")
        return AllowedHosts.parse(f"http://{host}:{port}")

    @property
    def key_in_the_clear(self) -> bool:
        """Whether the key goes to a host that may be public without encryption."""
        url = urlsplit(self.base_url)
        host, _ = split_authority(url.netloc)
        return bool(self.key) and url.scheme == "http" and may_be_public(host)

    def version(self, dimensions: int) -> str:
        """What vectors are known by: the same text may give another one where any of this differs."""
        return f"{self.host}/{self.model}@{dimensions}:{self.input_tokens_max}"
