"""How a receiver knows that a callback is from here: a signature with a secret of its tenant. Pure.

The secret is derived, not stored: every gateway with the same ``PHAROS_SECRET_KEY`` finds the same one.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Final

VERSION: Final = "v1"
_PURPOSE: Final = "pharos callback signature v1"


class SigningSecrets:
    """The signing secret of each tenant."""

    def __init__(self, secret_key: str) -> None:
        self._key = secret_key.encode()

    def of(self, tenant: str) -> str:
        """The secret of *tenant*, as it is shown: 64 hexadecimal digits, whose ASCII bytes are the key."""
        return hmac.new(self._key, f"{_PURPOSE}\0{tenant}".encode(), hashlib.sha256).hexdigest()


def signature(secret: str, timestamp: str, body: bytes) -> str:
    """What ``X-Pharos-Signature`` says: HMAC-SHA256 over the timestamp, a full stop and the body."""
    digest = hmac.new(secret.encode(), timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()
    return f"{VERSION}={digest}"
