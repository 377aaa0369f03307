"""Where the Qdrant server is. Pure."""

from __future__ import annotations

from urllib.parse import urlsplit

from pharos_sources.hosts import InvalidHost, may_be_public, split_authority


class InvalidQdrantAddress(ValueError):
    """The address cannot be used; the text is a clause that says why, and repeats nothing of it."""


def check_address(url: str) -> None:
    """Raises InvalidQdrantAddress."""
    try:
        parts = urlsplit(url)
        host = parts.netloc
    except ValueError:
        raise InvalidQdrantAddress("it is not a URL") from None
    if parts.scheme not in ("http", "https"):
        raise InvalidQdrantAddress("it must begin with https:// or http://")
    if "@" in host or parts.query or parts.fragment:
        # The client would not send them, and the address is told in errors and logs.
        raise InvalidQdrantAddress("credentials do not belong into it; the key is PHAROS_QDRANT_API_KEY")
    try:
        _host_of(host)
    except InvalidHost as invalid:
        raise InvalidQdrantAddress(invalid.reason) from None


def key_in_the_clear(url: str, key: str | None) -> bool:
    """Whether *key* would go without encryption to a host that may be public. The address was checked."""
    parts = urlsplit(url)
    return bool(key) and parts.scheme == "http" and may_be_public(_host_of(parts.netloc))


def _host_of(authority: str) -> str:
    """The host; no name on the internet has a `_`, but those of containers have. Raises InvalidHost."""
    host, _ = split_authority(authority.replace("_", "-"))
    return host
