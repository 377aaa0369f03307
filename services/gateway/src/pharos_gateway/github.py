"""What GitHub sends when something happens to a repository: whether it is signed, and what it means. Pure.

``X-Hub-Signature-256`` is ``sha256=`` and the HMAC-SHA256 of the body, as it was sent, under the secret of
the webhook: https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries. No header is
signed, so that of none more is believed than how the body is to be read.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from typing import Any, Final, TypeVar
from urllib.parse import parse_qs

import msgspec

from pharos_sources.repository_url import InvalidRef, parse_ref, parse_sha

SIGNATURE: Final = "x-hub-signature-256"
EVENT: Final = "x-github-event"
PING: Final = "ping"
PUSH: Final = "push"
FORM: Final = "application/x-www-form-urlencoded"
BRANCHES: Final = "refs/heads/"
NO_COMMIT: Final = frozenset({"0" * 40, "0" * 64})

TAG: Final = "only branches are watched"
DELETED: Final = "the branch was deleted"
NOT_WATCHED: Final = "the branch is not watched"
NO_NAME: Final = "the name of the branch, or the commit, is not valid"
TOO_OLD: Final = "the push is too old"

S = TypeVar("S", bound=msgspec.Struct)


class UnreadableDelivery(Exception):
    """The body is not what GitHub sends."""

    def __init__(self) -> None:
        super().__init__("The body is not what GitHub sends for this event")


class Pushed(msgspec.Struct, frozen=True, kw_only=True):
    """A branch was at the commit ``before`` and is at ``sha``. ``at`` is by GitHub's clock, if it says."""

    branch: str
    sha: str
    before: str
    at: datetime | None


class Ignored(msgspec.Struct, frozen=True):
    """Nothing is to be done, for a reason that is a clause."""

    reason: str


class _Repository(msgspec.Struct):
    clone_url: str
    default_branch: str | None = None
    pushed_at: int | str | None = None


class _Delivery(msgspec.Struct):
    repository: _Repository


class _Push(msgspec.Struct):
    repository: _Repository
    ref: str
    before: str
    after: str
    deleted: bool = False


def is_signed(body: bytes, signature: str | None, secret: bytes) -> bool:
    """Whether *signature* is that of *body* under *secret*; takes as long whatever it is."""
    right = "sha256=" + hmac.new(secret, body, hashlib.sha256).hexdigest()
    return hmac.compare_digest(right.encode(), (signature or "").encode("utf-8", "surrogateescape"))


def clone_url_of(body: bytes, content_type: str | None) -> str:
    """The repository that *body* is about. UnreadableDelivery."""
    return _read(body, content_type, _Delivery).repository.clone_url


def meaning(
    body: bytes, content_type: str | None, branches: Sequence[str], *, now: datetime, window: timedelta
) -> Pushed | Ignored:
    """What a push means to whoever watches *branches*. UnreadableDelivery.

    One that GitHub says was made longer than *window* ago is ignored: whoever sends it again would have
    the branch indexed as it was.
    """
    push = _read(body, content_type, _Push)
    if not push.ref.startswith(BRANCHES):
        return Ignored(TAG)
    if push.deleted or push.after in NO_COMMIT:
        return Ignored(DELETED)
    try:
        branch, sha = parse_ref(push.ref.removeprefix(BRANCHES)), parse_sha(push.after)
    except InvalidRef:
        return Ignored(NO_NAME)
    if not is_watched(branch, branches, push.repository.default_branch):
        return Ignored(NOT_WATCHED)
    at = _time(push.repository.pushed_at)
    if at is not None and now - at > window:
        return Ignored(TOO_OLD)
    return Pushed(branch=branch, sha=sha, before=push.before.lower(), at=at)


def is_watched(branch: str, patterns: Sequence[str], default_branch: str | None) -> bool:
    """Whether one of *patterns* fits *branch*; without any, whether it is the default branch.

    ``*`` is any text, slashes too, ``?`` one character, ``[ab]`` one of these.
    """
    if not patterns:
        return branch == default_branch
    return any(fnmatchcase(branch, pattern) for pattern in patterns)


def _read(body: bytes, content_type: str | None, kind: type[S]) -> S:
    try:
        if (content_type or "").partition(";")[0].strip().lower() == FORM:
            fields = parse_qs(body.decode("ascii"), max_num_fields=8)
            body = fields.get("payload", [""])[0].encode()
        return msgspec.json.decode(body, type=kind)
    except (msgspec.MsgspecError, RecursionError, ValueError):
        raise UnreadableDelivery from None


def _time(value: Any) -> datetime | None:
    """Seconds since 1970 or ISO 8601, as GitHub writes it here and there; None where it is neither."""
    try:
        at = datetime.fromtimestamp(value, UTC) if isinstance(value, int) else datetime.fromisoformat(value)
    except (TypeError, ValueError, OverflowError, OSError):
        return None
    return at if at.tzinfo is not None else None
