"""Keys: their text, what is stored of it, and whether one is good at a moment. Pure.

The text is ``pharos_<id>_<secret>``: the id finds the record, the secret proves that whoever sends it was
given it. The prefix lets scanners of repositories and logs recognise one that got out.
"""

from __future__ import annotations

import hashlib
import hmac
from base64 import b32encode, urlsafe_b64encode
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final

import msgspec
from msgspec.structs import replace

from pharos_contracts.identity import token
from pharos_contracts.keys.v1 import Key, Role
from pharos_gateway.project_names import PROJECT_ALL

PREFIX: Final = "pharos"
ID_BYTES: Final = 10
SECRET_BYTES: Final = 32
PROJECTS_MAX: Final = 100
USER_LENGTH_MAX: Final = 128
ANONYMOUS: Final = "anonymous"  # the user without a key, and what the names that they give begin with
NAME_LENGTH_MAX: Final = 128
GRACE_SECONDS_MAX: Final = 7 * 86_400
_TEXT_LENGTH_MAX: Final = 256
_NOBODYS: Final = "0" * 64

RandomBytes = Callable[[int], bytes]


class InvalidKeyRequest(ValueError):
    """A key cannot be as it was asked for; ``field`` names what is wrong."""

    def __init__(self, field: str, detail: str) -> None:
        super().__init__(detail)
        self.field = field
        self.detail = detail


class KeyNotLive(Exception):
    """The key opens nothing any more, so that another secret would not either."""

    def __init__(self, key: Key) -> None:
        super().__init__(
            "This key is disabled: create another one"
            if key.disabled_at is not None
            else "This key has expired: say by expires_at until when it is to be good"
        )


class Presented(msgspec.Struct, frozen=True):
    """A credential that has the form of a key. It does not show its secret."""

    key_id: str
    secret: str

    def __repr__(self) -> str:
        return f"Presented({self.key_id!r})"


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What an admin asks for. ``projects`` None is every project of the tenant."""

    tenant: str
    user: str
    role: Role
    name: str = ""
    projects: tuple[str, ...] | None = None
    expires_at: datetime | None = None


def digest(secret: str) -> str:
    """What is stored of *secret*.

    A fast hash is right here, where it would be wrong for a password: the secret is 256 random bits, so that
    nobody can try them all, however fast; and a slow one would be paid for by every request.
    """
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()


def parse(text: str) -> Presented | None:
    """The key that *text* has the form of, if it has."""
    if len(text) > _TEXT_LENGTH_MAX or not text.isascii():
        return None
    prefix, _, rest = text.partition("_")
    key_id, separator, secret = rest.partition("_")
    if prefix != PREFIX or not separator or not key_id.isalnum() or not secret:
        return None
    return Presented(key_id, secret)


def issue(wanted: Wanted, *, by: str, now: datetime, random: RandomBytes) -> tuple[Key, str]:
    """A new key and its text, which nobody can find out again. InvalidKeyRequest, InvalidName."""
    if not wanted.user.isprintable() or not 1 <= len(wanted.user) <= USER_LENGTH_MAX:
        raise InvalidKeyRequest("user", f"A user has 1 to {USER_LENGTH_MAX} printable characters")
    if wanted.user.partition("/")[0] == ANONYMOUS:
        raise InvalidKeyRequest("user", f"{ANONYMOUS!r} is whoever sends no key: call the user otherwise")
    _check_expiry(wanted.expires_at, now)
    if wanted.projects is not None:
        if not wanted.projects:
            raise InvalidKeyRequest("projects", "A key for no project is good for nothing: name one or more")
        if PROJECT_ALL in wanted.projects:
            raise InvalidKeyRequest(
                "projects", f"{PROJECT_ALL!r} means every project: for a key to all of them, name none"
            )
        if wanted.role is Role.ADMIN:
            raise InvalidKeyRequest("projects", "An admin's key cannot be restricted to projects")
    secret = _new_secret(random)
    key = Key(
        # Lower case, without padding: it is a token of a subject and easy to read out.
        key_id=b32encode(random(ID_BYTES)).decode().rstrip("=").lower(),
        tenant=token(wanted.tenant),
        user=wanted.user,
        role=wanted.role,
        hash=digest(secret),
        name=wanted.name,
        projects=None
        if wanted.projects is None
        else tuple(dict.fromkeys(token(project) for project in wanted.projects)),
        created_at=now,
        created_by=by,
        expires_at=wanted.expires_at,
    )
    return key, _text(key, secret)


def rotate(
    key: Key, *, grace_seconds: int, expires_at: datetime | None, now: datetime, random: RandomBytes
) -> tuple[Key, str]:
    """*key* with another secret, and its new text. The old one is good for *grace_seconds* more.

    It expires when it did before, unless *expires_at* says when. InvalidKeyRequest, KeyNotLive.
    """
    _check_expiry(expires_at, now)
    key = key if expires_at is None else replace(key, expires_at=expires_at)
    if not is_live(key, now):
        raise KeyNotLive(key)
    secret = _new_secret(random)
    changed = replace(
        key,
        hash=digest(secret),
        rotated_at=now,
        previous_hash=key.hash if grace_seconds else None,
        previous_until=now + timedelta(seconds=grace_seconds) if grace_seconds else None,
    )
    return changed, _text(changed, secret)


def disable(key: Key, *, by: str, now: datetime) -> Key:
    """*key*, good for nothing from now on; the first who disabled it stays."""
    return key if key.disabled_at is not None else replace(key, disabled_at=now, disabled_by=by)


def is_live(key: Key, now: datetime) -> bool:
    """Whether *key* opens anything at *now*."""
    return key.disabled_at is None and (key.expires_at is None or now < key.expires_at)


def proves(key: Key | None, secret: str, now: datetime) -> bool:
    """Whether *secret* is that of *key*, and *key* is good at *now*.

    As much is computed and compared for a key that does not exist: the time taken tells nothing.
    """
    presented = digest(secret)
    current = hmac.compare_digest(presented, _NOBODYS if key is None else key.hash)
    previous = hmac.compare_digest(presented, (key and key.previous_hash) or _NOBODYS)
    if key is None or not is_live(key, now):
        return False
    return current or (previous and key.previous_until is not None and now < key.previous_until)


def _check_expiry(at: datetime | None, now: datetime) -> None:
    if at is None:
        return
    if at.tzinfo is None:
        raise InvalidKeyRequest("expires_at", "The time at which a key expires needs a time zone, as Z")
    if at <= now:
        raise InvalidKeyRequest("expires_at", "The time at which a key expires must be to come")


def _new_secret(random: RandomBytes) -> str:
    return urlsafe_b64encode(random(SECRET_BYTES)).decode().rstrip("=")


def _text(key: Key, secret: str) -> str:
    return f"{PREFIX}_{key.key_id}_{secret}"
