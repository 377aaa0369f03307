"""What a request says: who calls, which repository, which job, what to search."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import product
from typing import Any

import msgspec
import pytest

from pharos_contracts.keys.v1 import Key
from pharos_contracts.search.v1 import Search
from pharos_gateway.addressing import rest_of_path, revision
from pharos_gateway.authentication import (
    Authenticator,
    Caller,
    InvalidIdentity,
    Role,
    Unauthenticated,
    lower,
    public_caller,
)
from pharos_gateway.finding import parse_identifier
from pharos_gateway.following import BEFORE_RETENTION, UNKNOWN_ID, gap
from pharos_gateway.queueing import QueueState, position
from pharos_gateway.searching import AmbiguousSearch, SearchRequest, question
from pharos_gateway.settings import Anonymous, Settings
from pharos_gateway.sight import Sight
from pharos_service.settings import InvalidSettings, Secret, load, table
from pharos_sources.hosts import AllowedHosts
from pharos_sources.repository_url import InvalidRef, parse_repository_url

TOKEN = "t" * 32
NOW = datetime(2026, 1, 15, 10, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("raw", "rest"),
    [
        (b"/api/v1/ingestion/ingest/https://github.com/o/r", "https://github.com/o/r"),
        (b"/api/v1/ingestion/ingest/https%3A%2F%2Fgithub.com%2Fo%2Fr", "https%3A%2F%2Fgithub.com%2Fo%2Fr"),
        (b"/api/v1/ingestion/ingest/github.com/o/r/", "github.com/o/r/"),
        (b"//api//v1/ingestion/ingest/github.com/o/r", "github.com/o/r"),
        (b"/api/v1/ingestion/ingest//github.com/o/r", "/github.com/o/r"),
        (b"/api/v1/ingestion/ingest/", ""),
        (b"/api/v1/ingestion/ingest", ""),
        (b"/api/v1", ""),
        ("/api/v1/ingestion/ingest/é".encode(), "é"),
    ],
)
def test_the_rest_of_the_path_is_read_as_it_was_sent(raw: bytes, rest: str) -> None:
    assert rest_of_path(raw, 4) == rest


SHA = "a" * 40


@pytest.mark.parametrize(
    ("in_url", "branch", "ref", "expected"),
    [
        (None, None, None, (None, None)),
        ("main", None, None, ("main", None)),
        (None, "main", None, ("main", None)),
        (None, None, "main", ("main", None)),
        ("main", "main", "main", ("main", None)),
        (None, None, SHA, (None, SHA)),
        (None, "main", SHA.upper(), ("main", SHA)),
        (None, None, "a" * 39, ("a" * 39, None)),
        ("main", "dev", None, None),
        (None, "main", "dev", None),
        (None, "a..b", None, None),
        (None, "", None, None),
        (None, None, "-x", None),
    ],
)
def test_branch_and_commit_are_read_from_the_url_and_the_query(
    in_url: str | None, branch: str | None, ref: str | None, expected: tuple[str | None, str | None] | None
) -> None:
    url = "https://github.com/o/r" + (f"/tree/{in_url}" if in_url else "")
    address = parse_repository_url(url, allowed_hosts=AllowedHosts())
    if expected is None:
        with pytest.raises(InvalidRef):
            revision(address, branch=branch, ref=ref)
    else:
        assert revision(address, branch=branch, ref=ref) == expected


@pytest.mark.parametrize(
    ("text", "identifier"),
    [
        ("1", 1),
        ("018D2F5E-3A7B-7C41-9F60-2B1D5C8E4A90", "018d2f5e-3a7b-7c41-9f60-2b1d5c8e4a90"),
        ("0", None),
        ("-1", None),
        ("9" * 19, None),
        ("x", None),
        ("*", None),
        ("", None),
        ("²", None),
    ],
)
def test_a_job_is_named_by_its_uuid_or_its_number(text: str, identifier: str | int | None) -> None:
    assert parse_identifier(text) == identifier


@pytest.mark.parametrize(
    ("state", "number", "place"),
    [
        (QueueState(size=1, capacity=10, first=1, last=1), 1, 1),
        (QueueState(size=10, capacity=10, first=4, last=13), 13, 10),
        (QueueState(size=10, capacity=10, first=4, last=13), 4, 1),
        (QueueState(size=3, capacity=10, first=1, last=6, holes=(2, 3, 5)), 6, 3),
        (QueueState(size=3, capacity=10, first=1, last=6, holes=(2, 3, 5)), 4, 2),
        (QueueState(size=3, capacity=10, first=1, last=6, holes=(2, 3, 5)), 5, 1),
        (QueueState(size=0, capacity=10, first=7, last=6), 6, 1),
        (QueueState(size=0, capacity=10, first=1, last=0), 1, 1),
    ],
)
def test_the_position_counts_what_waits_before_it_plus_one(
    state: QueueState, number: int, place: int
) -> None:
    assert position(state, number) == place


@pytest.mark.parametrize(
    ("after", "first", "last", "reason"),
    [
        (0, 1, 0, None),
        (5, 1, 5, None),
        (5, 6, 9, None),
        (5, 7, 9, BEFORE_RETENTION),
        (0, 2, 9, BEFORE_RETENTION),
        (10, 1, 9, UNKNOWN_ID),
        (9, 10, 9, None),
    ],
)
def test_a_client_goes_on_unless_what_it_missed_is_gone(
    after: int, first: int, last: int, reason: str | None
) -> None:
    assert gap(after, first, last) == reason


class Issued:
    """Issued keys, by their ids."""

    def __init__(self, *keys: Key) -> None:
        self._keys = {key.key_id: key for key in keys}

    def find(self, key_id: str) -> Key | None:
        return self._keys.get(key_id)


def authenticator(anonymous: Anonymous | None, *keys: Key) -> Authenticator:
    return Authenticator(TOKEN, anonymous, Issued(*keys), now=lambda: NOW)


@pytest.mark.parametrize(("one", "other"), list(product(Role, Role)))
def test_a_role_can_only_be_lowered(one: Role, other: Role) -> None:
    order = list(Role)
    assert lower(one, other) == order[min(order.index(one), order.index(other))]
    admin = authenticator(Anonymous("acme", one)).identify({"x-role": other}, "1.2.3.4")
    assert admin is not None
    assert admin.role == lower(one, other)


def test_an_admin_sees_every_tenant_until_one_is_named_or_the_role_is_lowered() -> None:
    known = authenticator(None)

    def identify(**headers: str) -> Caller:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        caller = known.identify({"authorization": f"Bearer {TOKEN}", **named}, "1.2.3.4")
        assert caller is not None
        assert TOKEN not in repr(caller)
        return caller

    assert (identify().tenant, identify().sees) == ("default", None)
    assert (identify(x_tenant="acme").tenant, identify(x_tenant="acme").sees) == ("acme", "acme")
    assert identify(x_role="viewer").sees == "default"
    for wrong in ({"x_tenant": "a.b"}, {"x_tenant": ""}, {"x_role": "king"}):
        with pytest.raises(InvalidIdentity):
            identify(**wrong)


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": "Bearer wrong"},
        {"authorization": TOKEN},
        {"authorization": f"Basic {TOKEN}"},
        {"x-api-key": TOKEN[:-1]},
        {"x-admin-key": ""},
        {"authorization": "Bearer \udce9"},
        {"authorization": "Bearer wrong", "x-api-key": TOKEN},
    ],
)
def test_a_credential_that_is_not_valid_is_refused_even_where_none_is_needed(headers: dict[str, str]) -> None:
    for anonymous in (None, Anonymous("acme", Role.ADMIN)):
        with pytest.raises(Unauthenticated):
            authenticator(anonymous).identify(headers, "1.2.3.4")


def test_the_tenant_of_a_request_without_a_credential_cannot_be_chosen() -> None:
    known = authenticator(Anonymous("acme", Role.VIEWER))
    caller = known.identify({"x-tenant": "default"}, "1.2.3.4")
    assert caller is not None
    assert caller.sees == "acme"
    assert authenticator(None).identify({}, "1.2.3.4") is None
    assert public_caller("1.2.3.4").sees == "default"


def request(**fields: Any) -> SearchRequest:
    return msgspec.convert({"query": "x", **fields}, SearchRequest)


def test_filters_that_are_left_out_filter_nothing() -> None:
    assert question(request(), sight=Sight(tenant="t"), project="all") == Search(tenant="t", query="x", k=10)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [({"topK": 7}, 7), ({"k": 7}, 7), ({"k": 7, "topK": 7}, 7), ({"k": 7, "topK": 8}, None)],
)
def test_top_k_is_another_name_for_k(fields: dict[str, int], expected: int | None) -> None:
    if expected is None:
        with pytest.raises(AmbiguousSearch):
            question(request(**fields), sight=Sight(tenant="t"), project=None)
    else:
        assert question(request(**fields), sight=Sight(tenant="t"), project=None).k == expected


def test_each_mistake_in_the_settings_is_a_sentence() -> None:
    environ = {
        "PHAROS_ADMIN_TOKEN": "too-short",
        "PHAROS_ANONYMOUS": "acme:king",
        "PHAROS_GIT_ALLOWED_HOSTS": "http://u:p@host",
        "PHAROS_TRUSTED_PROXIES": "10.0.0.0/8,proxy",
        "PHAROS_CORS_ORIGINS": "https://ok.example,https://with.example/path",
        "PHAROS_CALLBACK_ALLOWED_HOSTS": "ftp://host",
        "PHAROS_SECRET_KEY": "short-too",
        "PHAROS_WEB_ALLOWED_HOSTS": "gopher://host",
        "PHAROS_LOCAL_ROOTS": "/data,papers",
    }
    with pytest.raises(InvalidSettings) as raised:
        load(Settings, environ)
    assert len(raised.value.mistakes) == 9
    assert "too-short" not in str(raised.value)
    assert "short-too" not in str(raised.value)
    for variable in environ:
        assert sum(mistake.startswith(variable) for mistake in raised.value.mistakes) == 1, variable
    with pytest.raises(InvalidSettings, match="PHAROS_ADMIN_TOKEN is missing"):
        load(Settings, {})


def test_good_settings_are_read_and_each_is_documented() -> None:
    settings = load(
        Settings,
        {
            "PHAROS_ADMIN_TOKEN": TOKEN,
            "PHAROS_ANONYMOUS": "acme:editor",
            "PHAROS_PUBLIC_STATUS": "false",
            "PHAROS_TRUSTED_PROXIES": "10.0.0.0/8, ::1",
            "PHAROS_TASK_TTL_SECONDS": "5",
            "PHAROS_TENANT_QUEUE_MAX": "3",
            "PHAROS_SECRET_KEY": "k" * 32,
            "PHAROS_CALLBACK_ALLOWED_HOSTS": "*, http://127.0.0.1:9000",
        },
    )
    assert (settings.tenant_queue_max, settings.secret_key) == (3, Secret("k" * 32))
    assert settings.callback_hosts.admit("http", "127.0.0.1", 9000) is not None
    assert settings.admin_token == Secret(TOKEN)
    assert settings.anonymous_caller == Anonymous("acme", Role.EDITOR)
    assert (settings.public_status, settings.task_ttl_seconds) == (False, 5)
    assert settings.trusted_proxies == ("10.0.0.0/8", "::1")
    assert all(row.description for row in table(Settings))
