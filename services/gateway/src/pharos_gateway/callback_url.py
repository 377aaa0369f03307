"""Where a callback goes: what a client wrote, made into one address or refused with a reason. Pure.

Stricter than other addresses on the web: it is kept and told as it was written.
"""

from __future__ import annotations

import re
from typing import Final

from pharos_sources.hosts import AllowedHosts
from pharos_sources.web_address import InvalidWebAddress, WebAddress, parse_web_address

CallbackAddress = WebAddress

# What RFC 3986 lets stand in a path and a query; anything else has to be percent-encoded.
_TARGET: Final = re.compile(r"[^/?]*[A-Za-z0-9\-._~:/?\[\]@!$&'()*+,;=%]*")


class InvalidCallbackUrl(ValueError):
    """The text is not an address that callbacks may be sent to; ``reason`` is a clause that says why."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def parse_callback_url(text: str, *, allowed_hosts: AllowedHosts) -> CallbackAddress:
    """The address that *text* means. InvalidCallbackUrl.

    Whether the host resolves to a public address is found out when it is looked up.
    """
    if "#" in text:
        raise InvalidCallbackUrl("a fragment is not accepted")
    try:
        address = parse_web_address(text, allowed_hosts=allowed_hosts)
    except InvalidWebAddress as invalid:
        raise InvalidCallbackUrl(invalid.reason) from None
    if not _TARGET.fullmatch(text.partition("://")[2]):
        raise InvalidCallbackUrl("the path and the query must be percent-encoded")
    return address
