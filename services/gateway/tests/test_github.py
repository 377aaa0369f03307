"""What GitHub sends: whether it is signed, and what it means."""

from __future__ import annotations

import hashlib
import hmac
import json
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

import pytest

from pharos_gateway.github import (
    DELETED,
    FORM,
    NO_NAME,
    NOT_WATCHED,
    TAG,
    TOO_OLD,
    Ignored,
    Pushed,
    UnreadableDelivery,
    clone_url_of,
    is_signed,
    is_watched,
    meaning,
)

SECRET = b"It's a Secret to Everybody"
BODY = b"Hello, World!"
# The example of GitHub's own page about validating deliveries.
SIGNATURE = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
NOW = datetime(2026, 1, 15, 10, 30, tzinfo=UTC)
WINDOW = timedelta(days=1)
A, B = "a" * 40, "b" * 40


def delivery(**facts: Any) -> bytes:
    repository = {
        "clone_url": "https://github.com/o/r.git",
        "default_branch": "main",
        "pushed_at": int(NOW.timestamp()),
        **facts.pop("repository", {}),
    }
    return json.dumps(
        {"ref": "refs/heads/main", "before": A, "after": B, "repository": repository, **facts}
    ).encode()


@pytest.mark.parametrize(
    ("signature", "body", "secret", "right"),
    [
        (SIGNATURE, BODY, SECRET, True),
        (SIGNATURE, BODY + b"!", SECRET, False),
        (SIGNATURE, BODY, SECRET + b"!", False),
        (SIGNATURE.upper(), BODY, SECRET, False),
        (SIGNATURE.removeprefix("sha256="), BODY, SECRET, False),
        (SIGNATURE[:-1], BODY, SECRET, False),
        (SIGNATURE + " ", BODY, SECRET, False),
        ("sha1=" + hmac.new(SECRET, BODY, hashlib.sha1).hexdigest(), BODY, SECRET, False),
        ("sha256=" + hashlib.sha256(BODY).hexdigest(), BODY, SECRET, False),
        ("sha256=", BODY, SECRET, False),
        ("", BODY, SECRET, False),
        ("sha256=ü\udcff", BODY, SECRET, False),
        (None, BODY, SECRET, False),
    ],
)
def test_only_the_signature_of_this_body_under_this_secret_is_right(
    signature: str | None, body: bytes, secret: bytes, right: bool
) -> None:
    assert is_signed(body, signature, secret) is right


@pytest.mark.parametrize(
    ("branch", "patterns", "watched"),
    [
        ("main", [], True),
        ("dev", [], False),
        ("dev", ["dev"], True),
        ("main", ["dev"], False),
        ("Dev", ["dev"], False),
        ("release/1.2", ["release/*"], True),
        ("release/1/2", ["release/*"], True),
        ("release", ["release/*"], False),
        ("anything/at/all", ["*"], True),
        ("v1", ["v?"], True),
        ("v10", ["v?"], False),
        ("va", ["v[ab]"], True),
        ("vc", ["v[ab]"], False),
        ("dev", ["main", "dev"], True),
        ("a.b", ["a?b"], True),
        ("a.b", ["a.b"], True),
        ("axb", ["a.b"], False),
    ],
)
def test_a_branch_is_watched_by_the_patterns_or_as_the_default(
    branch: str, patterns: list[str], watched: bool
) -> None:
    assert is_watched(branch, patterns, "main") is watched


def test_a_hostile_pattern_takes_no_time() -> None:
    assert not is_watched("a" * 250, ["*a" * 120 + "b"], None)


PUSHED = Pushed(branch="main", sha=B, before=A, at=NOW)


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({}, PUSHED),
        ({"forced": True}, PUSHED),
        ({"created": True, "before": "0" * 40}, Pushed(branch="main", sha=B, before="0" * 40, at=NOW)),
        ({"after": B.upper()}, PUSHED),
        ({"ref": "refs/tags/v1"}, Ignored(TAG)),
        ({"ref": "main"}, Ignored(TAG)),
        ({"deleted": True, "after": "0" * 40}, Ignored(DELETED)),
        ({"after": "0" * 40}, Ignored(DELETED)),
        ({"ref": "refs/heads/dev"}, Ignored(NOT_WATCHED)),
        ({"ref": "refs/heads/-x"}, Ignored(NO_NAME)),
        ({"ref": "refs/heads/"}, Ignored(NO_NAME)),
        ({"after": "b" * 7}, Ignored(NO_NAME)),
        ({"after": "; rm -rf /"}, Ignored(NO_NAME)),
        ({"repository": {"pushed_at": "2026-01-15T10:30:00Z"}}, PUSHED),
        ({"repository": {"pushed_at": int((NOW - WINDOW).timestamp()) - 1}}, Ignored(TOO_OLD)),
        ({"repository": {"pushed_at": None}}, Pushed(branch="main", sha=B, before=A, at=None)),
        ({"repository": {"pushed_at": "today"}}, Pushed(branch="main", sha=B, before=A, at=None)),
        ({"repository": {"pushed_at": 10**17}}, Pushed(branch="main", sha=B, before=A, at=None)),
        ({"repository": {"default_branch": None}}, Ignored(NOT_WATCHED)),
    ],
)
def test_what_a_push_means(facts: dict[str, Any], expected: Pushed | Ignored) -> None:
    assert meaning(delivery(**facts), None, [], now=NOW, window=WINDOW) == expected


def test_a_body_in_a_form_means_the_same() -> None:
    form = urlencode({"payload": delivery().decode()}).encode()
    assert meaning(form, FORM, [], now=NOW, window=WINDOW) == PUSHED
    assert meaning(form, f"{FORM.upper()}; charset=utf-8", [], now=NOW, window=WINDOW) == PUSHED
    assert clone_url_of(form, FORM) == "https://github.com/o/r.git"


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"", None),
        (b"{", None),
        (b"[]", None),
        (b"{}", None),
        (b'{"repository": {}}', None),
        (b'{"repository": {"clone_url": 1}}', None),
        (b"\xff", None),
        (b"\xff", FORM),
        (b"payload=", FORM),
        (b"&".join(b"a=b" for _ in range(100)), FORM),
        (b'{"repository": ' + b"[" * 100_000, None),
        (b'{"x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", None),
    ],
)
def test_what_is_not_from_github_is_unreadable(body: bytes, content_type: str | None) -> None:
    with pytest.raises(UnreadableDelivery):
        clone_url_of(body, content_type)
    with pytest.raises(UnreadableDelivery):
        meaning(body, content_type, [], now=NOW, window=WINDOW)
