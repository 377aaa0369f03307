"""What a connection may be configured with, what of it is secret, and the source that it opens."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pharos_sources.connections import (
    KINDS,
    Installation,
    InvalidConnection,
    config_of,
    open_source,
    parse_connection,
    secret_fields,
    secrets_of,
)
from pharos_sources.hosts import AllowedHosts
from pharos_sources.source import Source, SourceRefused, every_file
from tests.support import drive_server
from tests.support.drive_server import DriveServer
from tests.support.git_server import GitServer
from tests.support.s3_server import REGION, S3Server

pytestmark = pytest.mark.anyio

PUBLIC = Installation(roots=(Path("/data"),))
OAUTH = {"client_id": "client-1", "client_secret": "canary-secret", "refresh_token": "canary-refresh"}
S3 = {"bucket": "papers", "access_key_id": "AKIA1", "secret_access_key": "canary-secret"}


@pytest.fixture(scope="module")
def drive() -> Iterator[DriveServer]:
    with DriveServer() as running:
        running.add("id-one", "one.txt", content=b"one")
        yield running


GOOD: list[tuple[str, dict[str, Any]]] = [
    ("local_directory", {"path": "/data/papers"}),
    ("local_directory", {"path": "/data", "hidden": True}),
    ("local_zip", {"upload_id": "0195f1c2-7c1e-7000-8000-000000000001"}),
    ("google_drive", OAUTH),
    (
        "google_drive",
        OAUTH | {"folder_id": "1BxiMVs0XRA5nFMdKvBdBZjgmUUqptlbs74OgvE2upms", "drive_id": "0AB_c-d"},
    ),
    ("s3", {"bucket": "public-data"}),
    ("s3", S3 | {"prefix": "2025/", "region": "eu-central-1", "session_token": "canary-token"}),
    ("s3", S3 | {"endpoint": "https://objects.example.com:9000"}),
    ("http", {"urls": ["https://example.com/a.pdf?token=canary", "https://example.com/b.html"]}),
    ("git", {"url": "https://github.com/owner/name", "ref": "main", "token": "canary-token"}),
]


@pytest.mark.parametrize(("source_type", "fields"), GOOD)
def test_a_connection_is_kept_in_two_parts_and_read_again(source_type: str, fields: dict[str, Any]) -> None:
    connection = parse_connection(source_type, fields, installation=PUBLIC)
    config, secrets = config_of(connection), secrets_of(connection)
    assert set(config) & set(secrets) == set()
    assert {name: value for name, value in (config | secrets).items() if name in fields} == fields
    assert set(secrets) == set(fields) & secret_fields(source_type)
    for shown in (config, repr(connection), str(connection)):
        assert "canary" not in str(shown)
    msgspec.json.encode([config, secrets])
    again = parse_connection(source_type, config | secrets, installation=PUBLIC)
    assert (config_of(again), secrets_of(again)) == (config, secrets)


def test_every_kind_has_an_example_and_says_what_is_secret() -> None:
    assert {source_type for source_type, _ in GOOD} == set(KINDS)
    assert {source_type: sorted(secret_fields(source_type)) for source_type in KINDS} == {
        "local_directory": [],
        "local_zip": [],
        "google_drive": ["client_secret", "refresh_token", "service_account"],
        "s3": ["secret_access_key", "session_token"],
        "http": ["urls"],
        "git": ["token"],
    }


MISTAKES: list[tuple[str, dict[str, Any], str]] = [
    ("ftp", {}, "type: it must be one of local_directory, local_zip, google_drive, s3, http, git"),
    ("local_directory", {}, "path: it is missing"),
    ("local_directory", {"path": 7}, "path: expected `str`, got `int`"),
    ("local_directory", {"path": ""}, "path: expected `str` of length >= 1"),
    ("local_directory", {"path": "papers"}, "path: it must be an absolute path"),
    ("local_directory", {"path": "/data/../etc"}, "path: '..' is not accepted"),
    ("local_directory", {"path": "/etc"}, "path: it is not in a directory that the operator admitted"),
    ("local_directory", {"path": "/data", "hidden": "yes"}, "hidden: expected `bool`, got `str`"),
    (
        "local_directory",
        {"path": "/data", "pth": 1},
        "pth: local_directory has no such field; it has path, hidden",
    ),
    ("local_directory", {"path": "/data", "canary\n": 1}, "a field: local_directory has no such field"),
    ("local_zip", {"upload_id": "../x"}, "upload_id: it has characters that are not accepted here"),
    (
        "google_drive",
        {},
        "service_account: it is missing, or else client_id, client_secret and refresh_token",
    ),
    ("google_drive", {"client_id": "c"}, "client_secret: it is missing"),
    ("google_drive", OAUTH | {"refresh_token": " "}, "refresh_token: it is empty"),
    ("google_drive", OAUTH | {"refresh_token": ["canary"]}, "refresh_token: it must be text"),
    (
        "google_drive",
        OAUTH | {"subject": "ada@example.com"},
        "subject: only a service account can act for somebody",
    ),
    ("google_drive", OAUTH | {"service_account": "{}"}, "client_id: it does not go with service_account"),
    ("google_drive", {"service_account": "canary"}, "service_account: it must be the JSON key file"),
    (
        "google_drive",
        {"service_account": '{"type":"authorized_user","client_id":"canary"}'},
        "service_account: it must",
    ),
    (
        "google_drive",
        {"service_account": '{"type":"service_account","client_email":"a@b","private_key":"canary"}'},
        "service_account: the private key in it cannot be read",
    ),
    (
        "google_drive",
        OAUTH | {"folder_id": "' or '1'='1"},
        "folder_id: it has characters that are not accepted here",
    ),
    ("google_drive", OAUTH | {"endpoint": "http://127.0.0.1:1"}, "endpoint: the host is not public"),
    (
        "google_drive",
        OAUTH | {"token_endpoint": "http://169.254.169.254/"},
        "token_endpoint: the host is not public",
    ),
    (
        "google_drive",
        OAUTH | {"token_endpoint": "https://example.com/?x=1"},
        "token_endpoint: a query is not accepted",
    ),
    ("s3", {"bucket": "a/../b"}, "bucket: it has characters that are not accepted here"),
    (
        "s3",
        {"bucket": "papers", "region": "evil.example.com/"},
        "region: it has characters that are not accepted",
    ),
    ("s3", {"bucket": "papers", "secret_access_key": "canary"}, "access_key_id: it is missing beside"),
    (
        "s3",
        {"bucket": "papers", "access_key_id": "AKIA1"},
        "secret_access_key: it is missing beside access_key_id",
    ),
    (
        "s3",
        S3 | {"session_token": "canary\r\nX: y"},
        "session_token: it has characters that are not accepted here",
    ),
    ("s3", S3 | {"endpoint": "http://10.0.0.1:9000"}, "endpoint: the host is not public"),
    ("s3", S3 | {"endpoint": "http://minio.example.com"}, "endpoint: only https URLs are accepted"),
    (
        "s3",
        S3 | {"endpoint": "https://user:canary@s3.example.com"},
        "endpoint: credentials in a URL are not accepted",
    ),
    (
        "s3",
        S3 | {"secret_access_key": "canary" * 9000},
        "secret_access_key: it is longer than 16384 characters",
    ),
    ("http", {"urls": []}, "urls: it has no URL"),
    ("http", {"urls": ["https://example.com/", "file:///canary"]}, "urls: URL 2 is refused"),
    ("http", {"urls": "https://example.com/?canary"}, "urls: it must be"),
    ("git", {"url": "git@github.com:owner/canary"}, "url: only https URLs are accepted"),
    (
        "git",
        {"url": "https://github.com/owner/name", "ref": "-x"},
        "ref: the name of the branch is not valid",
    ),
]


@pytest.mark.parametrize(("source_type", "fields", "sentence"), MISTAKES)
def test_each_mistake_is_one_sentence_that_names_the_field_and_repeats_no_secret(
    source_type: str, fields: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(InvalidConnection) as invalid:
        parse_connection(source_type, fields, installation=PUBLIC)
    told = str(invalid.value)
    assert told.startswith(sentence)
    assert "canary" not in told
    assert "\n" not in told
    assert len(told) < 300


def test_of_more_urls_than_are_kept_none_is_looked_at() -> None:
    urls = [*(f"https://{number}.example/" for number in range(5_000)), "https://127.0.0.1/"]
    with pytest.raises(InvalidConnection, match="urls: together they are too long to be kept"):
        parse_connection("http", {"urls": urls}, installation=Installation())


def test_a_private_host_is_for_the_operator_to_admit() -> None:
    fields = S3 | {"endpoint": "http://10.0.0.1:9000"}
    admitting = Installation(allowed_hosts=AllowedHosts.parse("http://10.0.0.1:9000"))
    assert parse_connection("s3", fields, installation=admitting)
    with pytest.raises(InvalidConnection, match="not among the allowed hosts"):
        parse_connection("s3", {"bucket": "papers"}, installation=admitting)


@pytest.mark.parametrize(
    ("source_type", "fields"),
    [
        ("s3", S3),
        ("s3", S3 | {"endpoint": "https://objects.example.com"}),
        ("google_drive", OAUTH),
        ("google_drive", OAUTH | {"endpoint": "https://drive.example.com"}),
    ],
)
@pytest.mark.parametrize("private", ["127.0.0.1", "169.254.169.254", "64:ff9b::7f00:1", "::ffff:10.0.0.1"])
async def test_a_public_name_that_leads_to_a_private_address_is_not_connected_to(
    source_type: str, fields: dict[str, Any], private: str
) -> None:
    async def resolver(host: str, port: int) -> list[str]:
        return [private]

    installation = Installation(resolver=resolver)
    connection = parse_connection(source_type, fields, installation=installation)
    async with open_source(connection, installation) as source:
        with pytest.raises(SourceRefused, match="does not have a public address") as refused:
            await source.check()
    assert private not in str(refused.value)
    assert "canary" not in str(refused.value)


async def files_of(
    fields: Mapping[str, Any], source_type: str, installation: Installation
) -> dict[str, bytes]:
    connection = parse_connection(source_type, fields, installation=installation)
    found = {}
    async with open_source(connection, installation) as source:
        assert isinstance(source, Source)
        await source.check()
        async for entry in every_file(source, files_max=100):
            assert (await source.stat(entry.id)).identity == entry.identity
            async with source.open(entry.id, bytes_max=1_000) as pieces:
                found[entry.name] = b"".join([piece async for piece in pieces])
    return found


async def test_a_directory_is_opened(tmp_path: Path) -> None:
    (tmp_path / "papers").mkdir()
    (tmp_path / "papers" / "one.txt").write_text("one")
    installation = Installation(roots=(tmp_path,))
    assert await files_of({"path": f"{tmp_path}/papers"}, "local_directory", installation) == {
        "one.txt": b"one"
    }


async def test_a_root_that_is_not_admitted_any_more_is_refused_when_it_is_opened(tmp_path: Path) -> None:
    connection = parse_connection(
        "local_directory", {"path": str(tmp_path)}, installation=Installation(roots=(tmp_path,))
    )
    with pytest.raises(InvalidConnection):
        async with open_source(connection, Installation()):
            pass


async def test_an_upload_is_opened_where_there_are_uploads(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("one.txt", "one")
    returned: list[str] = []

    @asynccontextmanager
    async def uploads(upload_id: str) -> AsyncIterator[Path]:
        yield tmp_path / "x.zip"
        returned.append(upload_id)

    fields = {"upload_id": "upload-1"}
    assert await files_of(fields, "local_zip", Installation(uploads=uploads)) == {"one.txt": b"one"}
    assert returned == ["upload-1"]
    with pytest.raises(SourceRefused, match="cannot read uploads"):
        await files_of(fields, "local_zip", Installation())


async def test_drive_is_opened_as_a_person_and_as_a_service_account(drive: DriveServer) -> None:
    installation = Installation(allowed_hosts=AllowedHosts.parse(drive.url))
    where = {"endpoint": drive.url, "token_endpoint": f"{drive.url}/token"}
    person = {
        "client_id": drive_server.CLIENT_ID,
        "client_secret": drive_server.CLIENT_SECRET,
        "refresh_token": drive_server.REFRESH_TOKEN,
    }
    assert await files_of(where | person, "google_drive", installation) == {"one.txt": b"one"}
    account = {"service_account": drive.key_file()}
    assert await files_of(where | account, "google_drive", installation) == {}
    drive.files["id-one"].shared_with_me = True
    assert await files_of(where | account, "google_drive", installation) == {"one.txt": b"one"}


async def test_a_bucket_is_opened(tmp_path: Path) -> None:
    with S3Server() as server:
        server.bucket("papers", {"2025/one.txt": b"one", "2025-drafts/two.txt": b"two"})
        installation = Installation(allowed_hosts=AllowedHosts.parse(server.url))
        fields = {
            "bucket": "papers",
            "prefix": "2025",
            "region": REGION,
            "endpoint": server.url,
            "access_key_id": server.access_key,
            "secret_access_key": server.secret_key,
        }
        with server.strict():
            assert await files_of(fields, "s3", installation) == {"one.txt": b"one"}


async def test_a_repository_is_opened_and_its_checkout_is_removed(tmp_path: Path) -> None:
    with GitServer() as server:
        server.add_repository("owner/name", {"one.txt": "one", ".hidden/two.txt": "two"})
        installation = Installation(git_allowed_hosts=AllowedHosts.parse(server.allowed_hosts), work=tmp_path)
        found = await files_of({"url": server.url("owner/name")}, "git", installation)
    assert found == {".hidden/two.txt": b"two", "one.txt": b"one"}
    assert list(tmp_path.iterdir()) == []


def test_reading_a_configuration_loads_no_library_of_a_source() -> None:
    program = """
import sys
from pathlib import Path
from pharos_sources import repository_url
light = set(sys.modules)
from pharos_sources.connections import Installation, parse_connection
installation = Installation(roots=(Path("/data"),))
parse_connection("local_directory", {"path": "/data"}, installation=installation)
parse_connection("s3", {"bucket": "papers"}, installation=installation)
print(sorted({"httpx", "botocore", "jwt", "cryptography", "defusedxml"} & set(sys.modules)))
print(sorted({"httpx", "httpcore", "msgspec"} & light))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == "[]\n[]\n"
