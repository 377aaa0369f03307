"""Keys, tickets and what they show: pure rules."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from pharos_contracts.batches.v1 import BatchSource
from pharos_contracts.identity import InvalidName
from pharos_contracts.jobs.v1 import DocumentSource, Job, JobKind, RepositorySource, Scope
from pharos_contracts.keys.v1 import Key, Role
from pharos_contracts.lifecycle import JobState
from pharos_contracts.message import encode
from pharos_gateway import keys
from pharos_gateway.authentication import Authenticator, Unauthenticated, UnknownKey, is_good
from pharos_gateway.keys import InvalidKeyRequest, KeyNotLive, Wanted
from pharos_gateway.sight import Sight
from pharos_gateway.streams import Streams
from pharos_gateway.tickets import TICKET_SECONDS, Tickets

NOW = datetime(2026, 1, 15, 10, 30, tzinfo=UTC)
LATER = NOW + timedelta(days=1)
TOKEN = "t" * 32


def random_bytes(count: int) -> bytes:
    return bytes(range(count))


def issued(**others: Any) -> tuple[Key, str]:
    values: dict[str, Any] = {"tenant": "acme", "user": "ada", "role": Role.EDITOR}
    return keys.issue(Wanted(**{**values, **others}), by="admin", now=NOW, random=random_bytes)


def test_a_key_is_found_by_its_id_and_proved_by_a_secret_that_is_not_stored() -> None:
    key, text = issued()
    presented = keys.parse(text)
    assert presented is not None
    assert text.startswith("pharos_")
    assert presented.key_id == key.key_id
    assert keys.proves(key, presented.secret, NOW)
    assert presented.secret.encode() not in encode(key)
    assert presented.secret not in repr(presented) + repr(key)
    assert len(presented.secret) == 43  # 256 bits


NOT_KEYS = ["", "pharos", "pharos_", "pharos_a", "pharos_a_", "pharos__b", "other_a_b", "pharos_a.b_c"]


@pytest.mark.parametrize("text", [*NOT_KEYS, "pharos_é_b", "pharos_a_" + "x" * 300])
def test_what_has_not_the_form_of_a_key_is_none(text: str) -> None:
    assert keys.parse(text) is None


def test_a_key_opens_nothing_once_it_is_disabled_or_has_expired_or_does_not_exist() -> None:
    key, text = issued(expires_at=LATER)
    secret = keys.parse(text).secret  # type: ignore[union-attr]
    assert keys.proves(key, secret, LATER - timedelta(seconds=1))
    assert not keys.proves(key, secret, LATER)
    assert not keys.proves(keys.disable(key, by="admin", now=NOW), secret, NOW)
    assert not keys.proves(key, secret + "x", NOW)
    assert not keys.proves(None, secret, NOW)


def test_the_first_who_disabled_a_key_stays() -> None:
    key, _ = issued()
    once = keys.disable(key, by="ada", now=NOW)
    assert keys.disable(once, by="bob", now=LATER) == once


@pytest.mark.parametrize("grace_seconds", [0, 60])
def test_after_a_rotation_the_old_secret_is_good_for_its_grace_only(grace_seconds: int) -> None:
    key, text = issued()
    old = keys.parse(text).secret  # type: ignore[union-attr]
    rotated, new_text = keys.rotate(key, grace_seconds=grace_seconds, expires_at=None, now=NOW, random=bytes)
    new = keys.parse(new_text)
    assert new is not None
    assert new.key_id == key.key_id
    assert keys.proves(rotated, new.secret, NOW)
    assert keys.proves(rotated, old, NOW) is bool(grace_seconds)
    assert not keys.proves(rotated, old, NOW + timedelta(seconds=grace_seconds))


def test_a_key_that_opens_nothing_is_not_rotated_unless_it_is_to_be_good_again() -> None:
    key, _ = issued(expires_at=LATER)
    rest: dict[str, Any] = {"grace_seconds": 0, "random": random_bytes}
    with pytest.raises(KeyNotLive, match="expired"):
        keys.rotate(key, expires_at=None, now=LATER, **rest)
    with pytest.raises(KeyNotLive, match="disabled"):
        keys.rotate(keys.disable(key, by="admin", now=NOW), expires_at=None, now=NOW, **rest)
    again, _ = keys.rotate(key, expires_at=LATER + timedelta(days=1), now=LATER, **rest)
    assert keys.is_live(again, LATER)


@pytest.mark.parametrize(
    ("wanted", "field"),
    [
        ({"user": ""}, "user"),
        ({"user": "a\nb"}, "user"),
        ({"user": "anonymous"}, "user"),
        ({"user": "anonymous/ada"}, "user"),
        ({"expires_at": NOW}, "expires_at"),
        ({"expires_at": datetime(2027, 1, 1)}, "expires_at"),
        ({"projects": ()}, "projects"),
        ({"projects": ("atlas", "all")}, "projects"),
        ({"role": Role.ADMIN, "projects": ("p",)}, "projects"),
    ],
)
def test_a_key_that_makes_no_sense_is_refused_by_the_name_of_the_field(
    wanted: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidKeyRequest) as refused:
        issued(**wanted)
    assert refused.value.field == field


@pytest.mark.parametrize("wanted", [{"tenant": "a.b"}, {"projects": ("p", "*")}])
def test_no_name_of_a_key_breaks_out_of_its_subject(wanted: dict[str, Any]) -> None:
    with pytest.raises(InvalidName):
        issued(**wanted)


class Issued:
    def __init__(self, *known: Key) -> None:
        self._known = {key.key_id: key for key in known}

    def find(self, key_id: str) -> Key | None:
        return self._known.get(key_id)


def authenticator(*known: Key) -> Authenticator:
    return Authenticator(TOKEN, None, Issued(*known), now=lambda: NOW)


def test_a_key_acts_in_its_tenant_and_only_an_admins_may_name_another() -> None:
    editor, text = issued(projects=("p",))
    admin, admin_text = keys.issue(
        Wanted(tenant="acme", user="root", role=Role.ADMIN), by="admin", now=NOW, random=bytes
    )
    known = authenticator(editor, admin)
    caller = known.identify({"x-api-key": text, "x-tenant": "other"}, "a")
    assert caller is not None
    assert (caller.tenant, caller.sees, caller.user, caller.role) == ("acme", "acme", "ada", Role.EDITOR)
    assert caller.projects == {"p"}
    assert text not in repr(caller)
    by_admin = known.identify({"x-api-key": admin_text}, "a")
    named = known.identify({"x-api-key": admin_text, "x-tenant": "other"}, "a")
    lowered = known.identify({"x-api-key": admin_text, "x-role": "viewer"}, "a")
    assert by_admin and named and lowered
    assert (by_admin.tenant, by_admin.sees, named.sees, lowered.sees) == ("acme", None, "other", "acme")


def test_a_key_that_nothing_is_known_of_is_told_from_one_whose_secret_is_wrong() -> None:
    key, text = issued()
    with pytest.raises(UnknownKey):
        authenticator().identify({"x-api-key": text}, "a")
    with pytest.raises(Unauthenticated) as refused:
        authenticator(key).identify({"x-api-key": text + "x"}, "a")
    assert not isinstance(refused.value, UnknownKey)


def ticket_of(key: Key | None, now: datetime = NOW, **others: Any) -> str:
    values: dict[str, Any] = {
        "key": None if key is None else key.key_id,
        "tenant": "acme",
        "role": Role.VIEWER,
        "every_tenant": False,
    }
    return Tickets(TOKEN).issue(**{**values, **others}, now=now)[0]


def test_a_ticket_is_good_for_a_minute_and_for_what_its_key_may_do_by_then() -> None:
    key, _ = issued()
    text = ticket_of(key)
    tickets = Tickets(TOKEN)
    ticket = tickets.read(text, NOW + timedelta(seconds=TICKET_SECONDS - 1))
    assert ticket is not None
    caller = authenticator(key).redeem(ticket, "a")
    assert (caller.tenant, caller.user, caller.role) == ("acme", "ada", Role.VIEWER)
    assert tickets.read(text, NOW + timedelta(seconds=TICKET_SECONDS)) is None
    assert Tickets("u" * 32).read(text, NOW) is None
    with pytest.raises(Unauthenticated):
        authenticator(keys.disable(key, by="admin", now=NOW)).redeem(ticket, "a")
    with pytest.raises(Unauthenticated):
        authenticator().redeem(ticket, "a")


def test_a_ticket_cannot_be_changed() -> None:
    text = ticket_of(None)
    tickets = Tickets(TOKEN)
    assert tickets.read(text, NOW) is not None
    for at in range(len(text)):
        other = "A" if text[at] != "A" else "B"
        assert tickets.read(text[:at] + other + text[at + 1 :], NOW) is None, at
    for wrong in ("", ".", "é", "x" * 2_000):
        assert tickets.read(wrong, NOW) is None


def job(**others: Any) -> Job:
    values: dict[str, Any] = {
        "job_id": "j",
        "number": 1,
        "tenant": "acme",
        "key": "k",
        "kind": JobKind.REPOSITORY,
        "state": JobState.QUEUED,
        "source": RepositorySource(identity="github.com/o/r", clone_url="https://github.com/o/r"),
        "project": "atlas",
        "submitted_at": NOW,
        "submitted_by": "ada",
        "ttl_seconds": 1,
    }
    return Job(**{**values, **others})


BOB = Sight(tenant="acme", user="bob")
RESOURCE = DocumentSource(label="resources", identity="r", object_name="o")
PAPERS = BatchSource(name="papers", manifest="m", parts=())
BATCH = {"kind": JobKind.BATCH, "source": None, "batch": PAPERS}


@pytest.mark.parametrize(
    ("sight", "changes", "shown"),
    [
        (Sight(tenant=None), {}, True),
        (Sight(tenant="other"), {}, False),
        (BOB, {}, True),  # a repository is its tenant's
        (BOB, BATCH, False),  # a batch is its user's
        (BOB, {"kind": JobKind.RESOURCE, "source": None, "document": RESOURCE}, False),
        (BOB, {**BATCH, "submitted_by": "bob"}, True),
        (Sight(tenant="acme"), BATCH, True),
        (replace(BOB, projects=frozenset({"atlas"})), {}, True),
        (replace(BOB, projects=frozenset({"other"})), {}, False),
    ],
)
def test_a_job_is_shown_to_whom_it_belongs(sight: Sight, changes: dict[str, Any], shown: bool) -> None:
    assert sight.job(job(**changes)) is shown
    assert sight.maybe_job(job(**changes)) is shown


def test_something_about_an_unknown_job_is_told_to_whom_nothing_is_hidden() -> None:
    assert Sight(tenant="acme").maybe_job(None)
    assert not BOB.maybe_job(None)
    assert not Sight(tenant="acme", projects=frozenset({"atlas"})).maybe_job(None)


def test_a_global_dataset_is_shown_to_every_key_of_its_tenant() -> None:
    restricted = Sight(tenant="acme", projects=frozenset({"atlas"}))
    assert restricted.dataset("other", Scope.GLOBAL)
    assert not restricted.dataset("other", Scope.PROJECT)
    assert restricted.dataset("atlas", Scope.LOCAL)
    assert restricted.workers != "acme"  # a worker does not say which project it works for


@pytest.mark.parametrize(
    ("credential", "good"),
    [("key:admin", True), ("key:k1", True), ("key:k2", False), ("address:::1", True)],
)
def test_a_stream_is_not_opened_for_a_key_that_is_good_for_nothing_by_then(
    credential: str, good: bool
) -> None:
    streams = Streams(
        total_max=1,
        per_credential_max=1,
        is_good=lambda named: is_good(named, lambda key_id: key_id == "k1"),
    )
    if good:
        with streams.opened(credential) as ending:
            streams.end(credential)
            assert ending.is_set()
    else:
        with pytest.raises(Unauthenticated), streams.opened(credential):
            pass
