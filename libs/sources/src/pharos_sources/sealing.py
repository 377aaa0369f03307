"""Secrets of connections and watches, sealed with the installation's secret key. Pure.

Fernet (AES-128-CBC with HMAC-SHA256, from the library cryptography) under a key that is derived with HKDF for
each connection by itself: what was sealed for one does not open for another, whoever copies it there.
``PHAROS_SECRET_KEY`` may name several keys, the newest first: it seals, all of them open.
"""

from __future__ import annotations

from base64 import urlsafe_b64encode
from collections.abc import Sequence
from typing import Final

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

SECRET_KEY_LENGTH_MIN: Final = 32

_PURPOSE: Final = b"pharos connection secret v1"
_KEY_BYTES: Final = 32


def keys_in(text: str) -> tuple[str, ...]:
    """The keys that ``PHAROS_SECRET_KEY`` names, the newest first."""
    return tuple(key for part in text.split(",") if (key := part.strip()))


def mistakes_in(text: str) -> list[str]:
    """A sentence for what is wrong with the text of ``PHAROS_SECRET_KEY``; it may be empty."""
    lengths = [len(key) for key in keys_in(text)]
    shortest = min(lengths, default=SECRET_KEY_LENGTH_MIN)
    if shortest >= SECRET_KEY_LENGTH_MIN:
        return []
    which = "" if len(lengths) == 1 else f" in one of its {len(lengths)} keys"
    return [f"PHAROS_SECRET_KEY has {shortest} characters{which}; it needs at least {SECRET_KEY_LENGTH_MIN}."]


class Unopenable(Exception):
    """No key opens this: it was sealed under another one, for another connection, or was changed since."""

    def __init__(self) -> None:
        super().__init__(
            "The secret of this connection cannot be opened: PHAROS_SECRET_KEY does not name its key"
        )


class Sealer:
    """Seals and opens under *secret_keys*, the newest first."""

    def __init__(self, secret_keys: Sequence[str]) -> None:
        if not secret_keys:
            raise ValueError("a sealer needs a key")
        self._keys = tuple(key.encode() for key in secret_keys)

    def seal(self, secret: bytes, *, tenant: str, connection_id: str) -> str:
        """*secret*, readable only to a sealer with the same key and for the same connection."""
        return self._fernets(tenant, connection_id)[0].encrypt(secret).decode()

    def open(self, sealed: str, *, tenant: str, connection_id: str) -> bytes:
        """What was sealed. Unopenable."""
        try:
            return MultiFernet(self._fernets(tenant, connection_id)).decrypt(sealed.encode())
        except InvalidToken:
            raise Unopenable from None

    def reseal(self, sealed: str, *, tenant: str, connection_id: str) -> str:
        """The same secret under the newest key; *sealed* itself where it is already. Unopenable."""
        fernets = self._fernets(tenant, connection_id)
        try:
            fernets[0].decrypt(sealed.encode())
        except InvalidToken:
            try:
                return MultiFernet(fernets).rotate(sealed.encode()).decode()
            except InvalidToken:
                raise Unopenable from None
        return sealed

    def _fernets(self, tenant: str, connection_id: str) -> list[Fernet]:
        # Neither name can hold a NUL, so that no two connections have the same context.
        context = b"\0".join((_PURPOSE, tenant.encode(), connection_id.encode()))
        return [
            Fernet(urlsafe_b64encode(HKDF(SHA256(), _KEY_BYTES, salt=None, info=context).derive(key)))
            for key in self._keys
        ]
