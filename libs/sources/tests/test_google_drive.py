"""Google Drive, against a local server that answers as its reference says."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key

from pharos_sources.asking import Patience
from pharos_sources.google_drive import DriveLimits, GoogleDrive
from pharos_sources.google_tokens import GoogleTokens, Grant, RefreshGrant, ServiceAccountGrant
from pharos_sources.hosts import AllowedHosts
from pharos_sources.secret import Secret
from pharos_sources.source import (
    EntryNotFound,
    EntryRefused,
    EntryTooLarge,
    InvalidCursor,
    Source,
    SourceError,
    SourceRefused,
    SourceUnavailable,
    every_file,
)
from pharos_sources.transport import guarded_client
from tests.support import drive_server
from tests.support.drive_server import DriveServer, Fault

pytestmark = pytest.mark.anyio

WORD = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
EXCEL = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
QUICK = Patience(tries_max=4, first_seconds=0.001, wait_seconds_max=2.0, seconds_max=5.0)


@pytest.fixture(scope="module")
def running() -> Iterator[DriveServer]:
    with DriveServer() as server:
        yield server


@pytest.fixture
def server(running: DriveServer) -> DriveServer:
    running.clear()
    return running


def refresh(**changed: str) -> RefreshGrant:
    values = {
        "client_id": drive_server.CLIENT_ID,
        "client_secret": drive_server.CLIENT_SECRET,
        "refresh_token": drive_server.REFRESH_TOKEN,
    } | changed
    return RefreshGrant(
        client_id=values["client_id"],
        client_secret=Secret(values["client_secret"]),
        refresh_token=Secret(values["refresh_token"]),
    )


class Clock:
    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead


@asynccontextmanager
async def drive(
    server: DriveServer, *, grant: Grant | None = None, clock: Clock | None = None, **rest: Any
) -> AsyncIterator[GoogleDrive]:
    async with guarded_client(AllowedHosts.parse(server.url)) as client:
        tokens = GoogleTokens(
            client,
            grant or refresh(),
            endpoint=f"{server.url}/token",
            patience=QUICK,
            clock=clock or Clock(),
        )
        yield GoogleDrive(client, tokens, endpoint=server.url, patience=QUICK, **rest)


async def read(source: Source, file_id: str, bytes_max: int = 1_000_000) -> bytes:
    async with source.open(file_id, bytes_max=bytes_max) as pieces:
        return b"".join([piece async for piece in pieces])


def papers(server: DriveServer) -> None:
    server.add("id-readme", "Readme.md", content=b"# Read me", mime_type="text/markdown")
    server.folder("id-papers", "Papers")
    server.add("id-one", "one.pdf", parent="id-papers", content=b"%PDF-1", mime_type="application/pdf")
    server.folder("id-old", "Old", parent="id-papers")
    server.add("id-two", "two.txt", parent="id-old", content=b"two")
    server.add("id-gone", "gone.txt", parent="id-old", content=b"gone", trashed=True)


async def test_folders_are_listed_through_and_files_are_told_of_and_read(server: DriveServer) -> None:
    papers(server)
    async with drive(server) as source:
        assert isinstance(source, Source)
        await source.check()
        found = [entry async for entry in every_file(source, files_max=10)]
        assert [(entry.id, entry.name, entry.size) for entry in found] == [
            ("id-two", "Papers/Old/two.txt", 3),
            ("id-one", "Papers/one.pdf", 6),
            ("id-readme", "Readme.md", 9),
        ]
        below = [entry.name async for entry in every_file(source, "id-papers", files_max=10)]
        assert below == ["Old/two.txt", "one.pdf"]
        assert (await source.stat("id-papers")).folder
        told = await source.stat("id-one")
        assert told.identity == found[1].identity == f"md5:{hashlib.md5(b'%PDF-1').hexdigest()}"
        assert told.modified is not None
        assert told.content_type == "application/pdf"
        assert await read(source, "id-two") == b"two"
        with pytest.raises(EntryTooLarge):
            await read(source, "id-two", 2)
        for file_id in ("id-gone", "missing", "", "a b", "../id-one", "id-one?alt=media", "x" * 300, "'"):
            with pytest.raises(EntryNotFound):
                await read(source, file_id)
        with pytest.raises(EntryRefused):
            await source.list(under="id-one")


async def test_the_identity_is_that_of_the_content(server: DriveServer) -> None:
    papers(server)
    async with drive(server) as source:
        before = (await source.stat("id-one")).identity
        server.files["id-one"].name = "renamed.pdf"
        assert (await source.stat("id-one")).identity == before
        server.files["id-one"].content = b"%PDF-2"
        assert (await source.stat("id-one")).identity != before


async def test_documents_of_google_are_exported_and_others_left_out(server: DriveServer) -> None:
    server.add("id-doc", "Plan", mime_type=drive_server.DOCUMENT, exports={WORD: b"PK-word"})
    server.add("id-sheet", "Numbers.xlsx", mime_type=drive_server.SPREADSHEET, exports={EXCEL: b"PK-sheet"})
    server.add("id-form", "Survey", mime_type=drive_server.FORM)
    server.add("id-link", "Link", mime_type=drive_server.SHORTCUT)
    async with drive(server) as source:
        page = await source.list()
        assert [(each.name, each.size, each.content_type) for each in page.entries] == [
            ("Numbers.xlsx", None, EXCEL),
            ("Plan.docx", None, WORD),
        ]
        assert sum(page.left_out.values()) == 2
        assert await read(source, "id-doc") == b"PK-word"
        assert await read(source, "id-sheet") == b"PK-sheet"
        with pytest.raises(EntryTooLarge):
            await read(source, "id-doc", 3)
        for file_id in ("id-form", "id-link"):
            with pytest.raises(EntryRefused):
                await read(source, file_id)
        before = (await source.stat("id-doc")).identity
        server.files["id-doc"].modified = "2026-01-16T10:30:00.000Z"
        assert (await source.stat("id-doc")).identity != before


async def test_a_shared_drive_is_listed_from_its_top_and_read(server: DriveServer) -> None:
    papers(server)
    server.folder("id-team", "Team", parent="0Ashared", drive="0Ashared")
    server.add("id-theirs", "theirs.txt", parent="id-team", content=b"theirs", drive="0Ashared")
    async with drive(server, drive_id="0Ashared") as source:
        await source.check()
        assert [entry.name async for entry in every_file(source, files_max=9)] == ["Team/theirs.txt"]
        assert await read(source, "id-theirs") == b"theirs"
    async with drive(server, drive_id="0Ashared", folder_id="id-team") as source:
        await source.check()
        assert [entry.name async for entry in every_file(source, files_max=9)] == ["theirs.txt"]
    async with drive(server, folder_id="id-team") as source:  # a folder shared with whoever is asked as
        assert [entry.name async for entry in every_file(source, files_max=9)] == ["theirs.txt"]


async def test_a_service_account_lists_what_is_shared_with_it(server: DriveServer) -> None:
    papers(server)
    server.files["id-papers"].shared_with_me = True
    grant = ServiceAccountGrant(Secret(server.key_file()))
    async with drive(server, grant=grant, shared_with_me=True) as source:
        await source.check()
        found = [entry.name async for entry in every_file(source, files_max=9)]
        assert found == ["Papers/Old/two.txt", "Papers/one.pdf"]


@pytest.mark.parametrize("limit", [1, 3, 1000])
async def test_pages_of_any_size_have_every_file_once_over_pages_of_google(
    server: DriveServer, limit: int
) -> None:
    expected = []
    for folder in range(3):
        server.folder(f"folder-{folder}", f"F{folder}")
        for number in range(5):
            server.add(f"file-{folder}-{number}", f"{number}.txt", parent=f"folder-{folder}")
            expected.append(f"file-{folder}-{number}")
    limits = DriveLimits(page_size=2)
    found: list[str] = []
    cursor = None
    async with drive(server, limits=limits) as source:
        while True:
            page = await source.list(cursor=cursor, limit=limit)
            found += [entry.id for entry in page.entries]
            cursor = page.cursor
            if cursor is None:
                break
        asked = len(server.asked)
    assert found == expected
    assert asked == 11, "no page of Google is asked for twice: 2 of the top, 3 of each folder"
    found, cursor = [], None
    while True:  # and every cursor is good for another process
        async with drive(server, limits=limits) as source:
            page = await source.list(cursor=cursor, limit=limit)
        found += [entry.id for entry in page.entries]
        cursor = page.cursor
        if cursor is None:
            break
    assert found == expected


async def test_a_page_ends_early_when_google_was_asked_enough(server: DriveServer) -> None:
    for number in range(12):
        server.folder(f"folder-{number}", f"{number:02}")
    server.add("last", "z.txt", parent="folder-11", content=b"z")
    async with drive(server, limits=DriveLimits(depth_max=3, requests_per_page=4)) as source:
        first = await source.list()
        assert first.entries == ()
        assert first.cursor is not None
        assert len(server.asked) == 4
        assert [entry.id async for entry in every_file(source, files_max=5)] == ["last"]


async def test_folders_too_deep_or_gone_are_left_out(server: DriveServer) -> None:
    parent = "root"
    for depth in range(6):
        server.folder(f"d{depth}", f"D{depth}", parent=parent)
        server.add(f"f{depth}", "f.txt", parent=f"d{depth}")
        parent = f"d{depth}"
    async with drive(server, limits=DriveLimits(depth_max=3)) as source:
        page = await source.list()
        assert [entry.name for entry in page.entries] == ["D0/D1/f.txt", "D0/f.txt"]
        assert page.left_out == {"too deep": 1}
        server.faults += [Fault(), Fault(status=404, reason="notFound")]
        page = await source.list()
        assert page.entries == ()
        assert page.left_out == {"a folder that cannot be read": 1}


@pytest.mark.parametrize(
    "cursor", ["", "WyJvdGhlciIsW11d", "WyJyb290IixbXV0", "WyJyb290IixbWyJhJyBvciAiLCIiXV1d"]
)
async def test_a_cursor_that_was_not_given_out_is_refused(server: DriveServer, cursor: str) -> None:
    async with drive(server) as source:
        with pytest.raises(InvalidCursor):
            await source.list(cursor=cursor)


async def test_a_page_token_that_google_forgot_is_an_invalid_cursor(server: DriveServer) -> None:
    for number in range(5):
        server.add(f"f{number}", f"{number}.txt")
    async with drive(server, limits=DriveLimits(page_size=2)) as source:
        cursor = (await source.list(limit=3)).cursor
    server.faults.append(Fault(status=400, reason="invalid"))
    async with drive(server) as source:
        with pytest.raises(InvalidCursor):
            await source.list(cursor=cursor)


@pytest.mark.parametrize(
    "fault",
    [
        Fault(status=403, reason="userRateLimitExceeded"),
        Fault(status=403, reason="rateLimitExceeded"),
        Fault(status=403, reason="sharingRateLimitExceeded"),
        Fault(status=429, reason="rateLimitExceeded"),
        Fault(status=500, reason="backendError"),
        Fault(status=503, reason="backendError"),
    ],
)
async def test_a_limit_of_google_is_waited_out_and_not_for_ever(server: DriveServer, fault: Fault) -> None:
    papers(server)
    async with drive(server) as source:
        server.faults += [fault, fault]
        assert len((await source.list()).entries) == 3
        server.faults += [Fault(), fault, fault]
        assert await read(source, "id-two") == b"two"
        server.asked.clear()
        server.faults += [fault] * 10
        with pytest.raises(SourceUnavailable) as unavailable:
            await source.stat("id-one")
        assert unavailable.value.transient
        assert len(server.asked) == QUICK.tries_max


async def test_retry_after_is_honoured(server: DriveServer) -> None:
    papers(server)
    async with drive(server) as source:
        server.faults.append(Fault(status=429, reason="rateLimitExceeded", headers={"Retry-After": "1"}))
        start = time.monotonic()
        await source.stat("id-one")
        assert time.monotonic() - start >= 1.0
        server.asked.clear()
        server.faults.append(
            Fault(status=403, reason="userRateLimitExceeded", headers={"Retry-After": "600"})
        )
        with pytest.raises(SourceUnavailable) as unavailable:
            await source.stat("id-one")
        assert unavailable.value.retry_after_seconds == 600
        assert len(server.asked) == 1, "who is told to come back in ten minutes does not ask again now"


async def test_a_daily_quota_is_not_asked_against(server: DriveServer) -> None:
    async with drive(server) as source:
        server.faults.append(Fault(status=403, reason="dailyLimitExceeded"))
        with pytest.raises(SourceUnavailable, match="daily quota"):
            await source.list()
        assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("reason", "sentence"),
    [
        ("exportSizeLimitExceeded", "larger than 10 MB"),
        ("cannotDownloadAbusiveFile", "malware"),
        ("cannotDownloadFile", "owner does not let it"),
        ("insufficientFilePermissions", "see it and not read it"),
        ("forbidden", "may not read it"),
    ],
)
async def test_a_file_that_google_does_not_give_out_is_refused_with_the_reason(
    server: DriveServer, reason: str, sentence: str
) -> None:
    server.add("id-doc", "Plan", mime_type=drive_server.DOCUMENT, exports={WORD: b"x"}, refusal=reason)
    async with drive(server) as source:
        with pytest.raises(EntryRefused, match=sentence) as refused:
            await read(source, "id-doc")
        assert not refused.value.transient


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        (Fault(status=403, reason="accessNotConfigured"), "not enabled"),
        (Fault(status=403, reason="insufficientPermissions"), "not granted"),
        (Fault(status=403, reason="domainPolicy"), "administrator"),
        (Fault(status=418, reason="teapot"), "418"),
        (Fault(status=302, headers={"Location": "http://169.254.169.254/"}), "302"),
    ],
)
async def test_what_is_wrong_with_the_connection_is_said(
    server: DriveServer, fault: Fault, sentence: str
) -> None:
    async with drive(server) as source:
        server.faults.append(fault)
        with pytest.raises(SourceRefused, match=sentence):
            await source.check()


async def test_a_missing_folder_and_a_file_in_its_place_are_told_apart(server: DriveServer) -> None:
    papers(server)
    async with drive(server, folder_id="missing") as source:
        with pytest.raises(SourceRefused, match="does not exist"):
            await source.check()
        with pytest.raises(SourceRefused, match="does not exist"):
            await source.list()
    async with drive(server, folder_id="id-one") as source:
        with pytest.raises(SourceRefused, match="a file"):
            await source.check()


async def test_one_token_serves_until_shortly_before_its_end(server: DriveServer) -> None:
    papers(server)
    clock = Clock()
    async with drive(server, clock=clock) as source:
        await source.list()
        await read(source, "id-one")
        assert len(server.tokens_given) == 1
        clock.ahead = 3_600 - 59
        await source.stat("id-one")
        assert len(server.tokens_given) == 2


async def test_a_token_that_is_not_accepted_any_more_is_renewed_once(server: DriveServer) -> None:
    papers(server)
    async with drive(server) as source:
        await source.list()
        server.valid_tokens.clear()
        assert await read(source, "id-one") == b"%PDF-1"
        assert len(server.tokens_given) == 2
        server.faults += [Fault(status=401, reason="authError")] * 2
        with pytest.raises(SourceRefused, match="connect the account again"):
            await source.stat("id-one")


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"refresh_token": "1//another"}, "connect the Google account again"),
        ({"client_secret": "another"}, "OAuth client"),
    ],
)
async def test_refused_credentials_are_said_and_not_repeated(
    server: DriveServer, changed: dict[str, str], sentence: str
) -> None:
    async with drive(server, grant=refresh(**changed)) as source:
        with pytest.raises(SourceRefused, match=sentence) as refused:
            await source.check()
    assert "another" not in str(refused.value)
    assert server.asked == []


async def test_the_key_of_another_account_is_refused(server: DriveServer) -> None:
    other = generate_private_key(public_exponent=65_537, key_size=2_048)
    grant = ServiceAccountGrant(Secret(server.key_file(other)))
    async with drive(server, grant=grant) as source:
        with pytest.raises(SourceRefused, match="key of the service account"):
            await source.check()


async def test_a_token_endpoint_that_is_busy_is_asked_again(server: DriveServer) -> None:
    papers(server)
    async with drive(server) as source:
        server.token_faults += [Fault(status=503), Fault(status=429, headers={"Retry-After": "0"})]
        assert len((await source.list()).entries) == 3
        assert len(server.tokens_given) == 1


async def test_a_body_that_stops_half_way_is_an_error_and_never_a_short_file(server: DriveServer) -> None:
    server.add("id-big", "big.bin", content=b"x" * 100_000)
    async with drive(server) as source:
        server.faults += [Fault(), Fault(cut=True)]
        with pytest.raises(SourceUnavailable):
            await read(source, "id-big")


async def test_a_host_that_nobody_admitted_is_not_asked(server: DriveServer) -> None:
    async with guarded_client(AllowedHosts()) as client:
        tokens = GoogleTokens(client, refresh(), endpoint=f"{server.url}/token", patience=QUICK)
        source = GoogleDrive(client, tokens, endpoint=server.url, patience=QUICK)
        with pytest.raises(SourceRefused):
            await source.check()
    assert server.tokens_given == []


async def test_no_secret_is_in_a_log_an_error_or_an_address(
    server: DriveServer, caplog: pytest.LogCaptureFixture
) -> None:
    papers(server)
    caplog.set_level(logging.DEBUG)
    told: list[str] = []
    grants: list[Grant] = [refresh(), ServiceAccountGrant(Secret(server.key_file()))]
    for grant in grants:
        told.append(repr(grant))
        async with drive(server, grant=grant) as source:
            await source.list()
            await read(source, "id-one")
            server.faults.append(Fault(status=403, reason="accessNotConfigured"))
            try:
                await source.check()
            except SourceError as error:
                told += [str(error), repr(error), repr(error.__dict__)]
    told += [record.getMessage() for record in caplog.records]
    told += [f"{asked.path} {dict(asked.query)}" for asked in server.asked]
    assert len(told) > 8
    for canary in ("canary", "PRIVATE KEY", *server.tokens_given):
        assert not [line for line in told if canary in line], canary
    assert all((asked.authorization or "").startswith("Bearer ya29.") for asked in server.asked)


async def test_ten_thousand_files_are_listed_without_asking_twice(server: DriveServer) -> None:
    for number in range(10_000):
        server.add(f"f{number:05}", f"{number:05}.txt")
    async with drive(server) as source:
        count = 0
        async for _ in every_file(source, files_max=10_000):
            count += 1
    assert count == 10_000
    assert len(server.asked) == 20
