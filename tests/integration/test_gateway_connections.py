"""Connections over HTTP: kept with their secrets sealed, shown to their owner, looked into within limits."""

from __future__ import annotations

import asyncio
import json
import zipfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import pytest
from structlog.testing import capture_logs

from pharos_contracts.connections.v1 import Connection
from pharos_contracts.streams import AUDIT, KV_CONNECTIONS, OBJ_ARCHIVES, BusLimits, declare
from pharos_embedder.connecting import Connecting
from pharos_gateway.app import serving
from pharos_gateway.archives import ABANDONED_SECONDS, Archives
from pharos_gateway.connections import CONNECTIONS_PER_TENANT_MAX
from pharos_gateway.rotate_secrets import rotate
from pharos_gateway.scratch import Scratch
from pharos_gateway.sources import LOOKS_PER_TENANT_MAX
from pharos_service.buckets import Bucket
from pharos_service.bus import Bus
from pharos_service.local_copies import LocalCopies
from pharos_service.settings import Secret
from pharos_sources.connections import Installation
from pharos_sources.sealing import Sealer
from tests.support.drive_server import DriveServer
from tests.support.gateway import BEARER, client, now, settings, until_ready
from tests.support.git_server import GitServer
from tests.support.keys import issue
from tests.support.nats_server import NatsServer
from tests.support.s3_server import S3Server
from tests.support.web_server import WebServer, answer

pytestmark = pytest.mark.anyio

KEY = "a-secret-key-of-more-than-32-characters"
CANARY = "canary-5ecre7"
S3 = {"bucket": "papers", "access_key_id": "AKIA1", "secret_access_key": CANARY}


@asynccontextmanager
async def gateway(nats_server: NatsServer, home: Path, **others: Any) -> AsyncIterator[httpx.AsyncClient]:
    chosen = {"secret_key": Secret(KEY), "home": str(home), **others}
    async with (
        serving(settings(nats_server.url, **chosen)) as running,
        client(running.address, **BEARER) as http,
    ):
        await until_ready(http)
        yield http


async def create(http: httpx.AsyncClient, source_type: str, config: dict[str, Any], **rest: Any) -> Any:
    body = {"source_type": source_type, "config": config, **rest}
    made = await http.post("/connections", json=body)
    assert made.status_code == 201, made.text
    return made.json()


async def files(http: httpx.AsyncClient, connection_id: str, **query: Any) -> dict[str, Any]:
    listed = await http.get(f"/connections/{connection_id}/files", params=query)
    assert listed.status_code == 200, listed.text
    found: dict[str, Any] = listed.json()
    return found


async def all_ids(http: httpx.AsyncClient, connection_id: str, **query: Any) -> list[str]:
    found: list[str] = []
    for _ in range(100):
        page = await files(http, connection_id, **query)
        found += [each["file_id"] for each in page["files"]]
        if page["cursor"] is None:
            return found
        query["cursor"] = page["cursor"]
    raise AssertionError("it has no end")


async def works(http: httpx.AsyncClient, connection_id: str) -> Any:
    tested = await http.post(f"/connections/{connection_id}/test")
    assert tested.status_code == 200, tested.text
    return tested.json()


async def everything(bus: Bus) -> bytes:
    """All that every stream holds, as it lies there."""
    held = b""
    for stream in declare(BusLimits()).streams:
        sequence = 1
        while (message := await bus.first(stream.name, ">", sequence)) is not None:
            held += message.data + json.dumps(message.headers).encode()
            sequence = message.sequence + 1
    return held


async def test_a_connection_is_kept_shown_without_its_secrets_and_forgotten(
    bus: Bus, nats_server: NatsServer, tmp_path: Path
) -> None:
    async with gateway(nats_server, tmp_path) as http:
        made = await create(http, "s3", S3, id="s3_1", name="Papers")
        assert made["id"] == "s3_1" and made["secrets"] == ["secret_access_key"]
        assert made["config"]["bucket"] == "papers" and "secret_access_key" not in made["config"]
        assert made["created_by"] == "admin"
        for root in ("", "/api/v1"):
            assert (await http.get(f"{root}/connections/s3_1")).json() == made
            assert (await http.get(f"{root}/connections")).json() == {
                "connections": [made],
                "truncated": False,
            }
        other = await create(http, "git", {"url": "https://github.com/o/r"})
        assert len(other["id"]) == 36 and other["secrets"] == []
        assert (await http.delete("/connections/s3_1")).status_code == 204
        for gone in (
            await http.get("/connections/s3_1"),
            await http.delete("/connections/s3_1"),
            await http.post("/connections/s3_1/test"),
            await http.get("/connections/s3_1/files"),
        ):
            assert (gone.status_code, gone.json()) == (
                404,
                {"detail": "There is no such connection", "code": "not_found"},
            )
        assert (await create(http, "s3", S3, id="s3_1"))["id"] == "s3_1"  # its id is free again


@pytest.mark.parametrize(
    ("body", "code", "field"),
    [
        ({"source_type": "s3", "config": {}}, "invalid_connection", "bucket"),
        ({"source_type": "s3", "config": {"bucket": "b", "color": 1}}, "invalid_connection", "color"),
        ({"source_type": "ftp", "config": {}}, "invalid_request", None),
        ({"source_type": "s3", "config": S3, "colour": 1}, "invalid_request", None),
        ({"source_type": "s3"}, "invalid_request", None),
        ({"source_type": "s3", "config": S3, "id": "a.b"}, "invalid_request", "id"),
        ({"source_type": "s3", "config": S3, "id": "*"}, "invalid_request", "id"),
        ({"source_type": "s3", "config": S3, "project": "a b"}, "invalid_request", "project"),
        ({"source_type": "local_zip", "config": {"upload_id": "u"}}, "invalid_connection", "source_type"),
        ({"source_type": "local_directory", "config": {"path": "/etc"}}, "invalid_connection", "path"),
        (
            {"source_type": "s3", "config": {**S3, "endpoint": "http://127.0.0.1:9"}},
            "invalid_connection",
            "endpoint",
        ),
        ({"source_type": "git", "config": {"url": "file:///etc"}}, "invalid_connection", "url"),
        (
            {"source_type": "http", "config": {"urls": [f"https://u:{CANARY}@example.com/"]}},
            "invalid_connection",
            "urls",
        ),
        (
            {
                "source_type": "http",
                "config": {"urls": [f"https://e.com/{n}?{'x' * 1500}" for n in range(80)]},
            },
            "invalid_connection",
            "urls",
        ),
    ],
)
async def test_what_cannot_be_kept_is_refused_in_a_sentence_that_names_the_field(
    bus: Bus, nats_server: NatsServer, tmp_path: Path, body: dict[str, Any], code: str, field: str | None
) -> None:
    async with gateway(nats_server, tmp_path) as http:
        refused = await http.post("/connections", json=body)
        assert refused.status_code == 400
        assert refused.json()["code"] == code, refused.text
        if field is not None:
            assert refused.json()["field"] == field
        assert CANARY not in refused.text
        assert (await http.get("/connections")).json()["connections"] == []


async def test_an_id_is_taken_once_and_a_tenant_has_so_many_connections(
    bus: Bus, nats_server: NatsServer, tmp_path: Path
) -> None:
    async with gateway(nats_server, tmp_path) as http:
        made = await asyncio.gather(
            *(
                http.post("/connections", json={"source_type": "s3", "config": S3, "id": "one"})
                for _ in range(5)
            )
        )
        assert sorted(each.status_code for each in made) == [201, 409, 409, 409, 409]
        assert {each.json()["code"] for each in made if each.status_code == 409} == {"connection_taken"}
        bucket = Bucket(bus, "connections", Connection)
        entry = await bucket.get("default.one")
        assert entry is not None
        for number in range(CONNECTIONS_PER_TENANT_MAX - 1):
            await bucket.put(f"default.c{number}", entry.value)
        refused = await http.post("/connections", json={"source_type": "s3", "config": S3})
        assert (refused.status_code, refused.json()["code"]) == (409, "too_many_connections")
        elsewhere = {"x-tenant": "other"}
        body = {"source_type": "s3", "config": S3, "id": "one"}
        assert (await http.post("/connections", json=body, headers=elsewhere)).status_code == 201


async def test_what_was_made_and_deleted_does_not_hide_how_many_there_are(
    bus: Bus, nats_server: NatsServer, tmp_path: Path
) -> None:
    bucket = Bucket(bus, KV_CONNECTIONS, Connection)
    async with gateway(nats_server, tmp_path) as http:
        await create(http, "s3", S3, id="s3_1")
        entry = await bucket.get("default.s3_1")
        assert entry is not None

        async def made_and_deleted(number: int) -> None:
            key = f"default.0{number:04}"
            revision = await bucket.put(key, entry.value)
            await bucket.delete(key, revision, tombstone_seconds=60)

        for start in range(0, 1_001, 77):
            await asyncio.gather(*(made_and_deleted(number) for number in range(start, start + 77)))
        refused = await http.post("/connections", json={"source_type": "s3", "config": S3, "id": "s3_2"})
        assert (refused.status_code, refused.json()["code"]) == (409, "too_many_connections")
        assert "in a minute" in refused.json()["detail"]


async def test_without_a_secret_key_only_what_has_no_secret_is_kept(
    bus: Bus, nats_server: NatsServer, tmp_path: Path
) -> None:
    async with gateway(nats_server, tmp_path, secret_key=Secret("")) as http:
        refused = await http.post("/connections", json={"source_type": "s3", "config": S3})
        assert (refused.status_code, refused.json()["code"]) == (400, "secrets_disabled")
        assert "PHAROS_SECRET_KEY" in refused.json()["detail"]
        await create(http, "s3", {"bucket": "public"})


async def test_an_installation_without_roots_says_which_setting_admits_directories(
    bus: Bus, nats_server: NatsServer, tmp_path: Path
) -> None:
    body = {"source_type": "local_directory", "config": {"path": str(tmp_path)}}
    async with gateway(nats_server, tmp_path / "home") as http:
        refused = await http.post("/connections", json=body)
        assert refused.status_code == 400 and "PHAROS_LOCAL_ROOTS" in refused.json()["detail"]


async def test_a_directory_is_listed_page_by_page_and_never_above_itself(
    bus: Bus, nats_server: NatsServer, tmp_path: Path
) -> None:
    root = tmp_path / "root"
    for name in ("papers/2024/a.txt", "papers/2024/b.txt", "papers/c.txt", "secret.txt"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    (root / "papers" / "link").symlink_to(root / "secret.txt")
    async with gateway(nats_server, tmp_path / "home", local_roots=(str(root),)) as http:
        await create(http, "local_directory", {"path": str(root / "papers")}, id="papers")
        assert (await works(http, "papers"))["ok"] is True
        first = await files(http, "papers", limit=1)
        assert len(first["files"]) == 1 and first["cursor"]
        assert sorted(await all_ids(http, "papers", limit=1)) == ["2024/a.txt", "2024/b.txt", "c.txt"]
        assert sorted(await all_ids(http, "papers", path="2024")) == ["2024/a.txt", "2024/b.txt"]
        (file,) = [each for each in (await files(http, "papers"))["files"] if each["file_id"] == "c.txt"]
        assert file["size"] == len("papers/c.txt") and file["content_type"].startswith("text/plain")
        for query, status, code in (
            ({"path": ".."}, 404, "no_such_file"),
            ({"path": "../secret.txt"}, 404, "no_such_file"),
            ({"path": "never"}, 404, "no_such_file"),
            ({"cursor": "nonsense"}, 400, "invalid_request"),
            ({"limit": 0}, 400, "invalid_request"),
            ({"limit": 1001}, 400, "invalid_request"),
        ):
            refused = await http.get("/connections/papers/files", params=query)
            assert (refused.status_code, refused.json()["code"]) == (status, code), query
    # What the operator admits no longer is no longer read.
    async with gateway(nats_server, tmp_path / "home") as http:
        tested = await works(http, "papers")
        assert (tested["ok"], tested["transient"]) == (False, False)
        assert "PHAROS_LOCAL_ROOTS" in tested["detail"]
        refused = await http.get("/connections/papers/files")
        assert (refused.status_code, refused.json()["code"]) == (409, "source_refused")


def packed(**members: bytes) -> bytes:
    """A zip archive; `_` in the name of a member stands for `.`."""
    whole = BytesIO()
    with zipfile.ZipFile(whole, "w") as archive:
        for name, content in members.items():
            archive.writestr(name.replace("_", "."), content)
    return whole.getvalue()


PAPERS = packed(paper1_pdf=b"%PDF-", paper2_pdf=b"%PDF- 2")


async def upload(http: httpx.AsyncClient, content: bytes, name: str = "papers.zip", **query: Any) -> Any:
    return await http.post(
        "/connections/upload", params=query, files={"file": (name, content, "application/zip")}
    )


async def in_store(bus: Bus) -> int:
    """How many messages the store of archives has."""
    info = await bus.api(f"STREAM.INFO.OBJ_{OBJ_ARCHIVES}")
    return int(info["state"]["messages"])


async def test_an_archive_is_uploaded_listed_and_goes_with_its_connection(
    bus: Bus, nats_server: NatsServer, tmp_path: Path
) -> None:
    async with gateway(nats_server, tmp_path) as http:
        made = await upload(http, PAPERS, id="local_zip_conn_1")
        assert made.status_code == 201, made.text
        assert made.json()["source_type"] == "local_zip" and made.json()["name"] == "papers.zip"
        assert made.json()["archive_bytes"] == len(PAPERS)
        assert (await works(http, "local_zip_conn_1"))["ok"] is True
        assert await all_ids(http, "local_zip_conn_1", limit=1) == ["paper1.pdf", "paper2.pdf"]
        assert len(list((tmp_path / "tmp").glob("process-*/archives/*"))) == 1
        # A worker finds it too.
        connecting = Connecting(
            bus, LocalCopies(bus, OBJ_ARCHIVES, tmp_path, bytes_max=10_000), None, Installation()
        )
        async with connecting.open("default", "local_zip_conn_1") as source:
            assert (await source.stat("paper1.pdf")).size == 5
        assert await in_store(bus) > 0
        assert (await http.delete("/connections/local_zip_conn_1")).status_code == 204
        assert await in_store(bus) == 0
        assert list((tmp_path / "tmp").glob("process-*/archives/*")) == []


async def test_what_is_no_archive_is_kept_and_says_so_when_it_is_read(
    bus: Bus, nats_server: NatsServer, tmp_path: Path
) -> None:
    async with gateway(nats_server, tmp_path) as http:
        assert (await upload(http, b"hello", id="bad")).status_code == 201
        tested = await works(http, "bad")
        assert (tested["ok"], tested["transient"]) == (False, False) and tested["detail"]
        refused = await http.get("/connections/bad/files")
        assert (refused.status_code, refused.json()["code"]) == (409, "source_refused")


async def test_an_upload_that_is_refused_leaves_nothing(
    bus: Bus, nats_server: NatsServer, tmp_path: Path
) -> None:
    limits = {"upload_max_bytes": 700_000, "tenant_archives_max_mb": 1}
    async with gateway(nats_server, tmp_path, **limits) as http:
        form = {"headers": {"content-type": "multipart/form-data; boundary=x"}, "content": b"--x--"}
        for answered, status, code in (
            (await upload(http, PAPERS, "papers.tar"), 400, "invalid_request"),
            (await upload(http, b""), 400, "invalid_request"),
            (await upload(http, b"x" * 700_001), 413, "upload_too_large"),
            (await upload(http, PAPERS, id="a.b"), 400, "invalid_request"),
            (await upload(http, PAPERS, project="a b"), 400, "invalid_request"),
            (await upload(http, PAPERS, name="a\nb"), 400, "invalid_request"),
            (await http.post("/connections/upload", json={}), 400, "invalid_request"),
            (await http.post("/connections/upload", **form), 400, "invalid_request"),
        ):
            assert (answered.status_code, answered.json()["code"]) == (status, code), answered.text
        assert await in_store(bus) == 0
        assert (await upload(http, PAPERS, id="one")).status_code == 201
        held = await in_store(bus)
        taken = await upload(http, PAPERS, id="one")
        assert (taken.status_code, taken.json()["code"]) == (409, "connection_taken")
        assert await in_store(bus) == held
        half = b"x" * 600_000
        assert (await upload(http, half, id="two")).status_code == 201
        held = await in_store(bus)
        full = await upload(http, half, id="three")
        assert (full.status_code, full.json()["code"]) == (409, "archives_full")
        assert await in_store(bus) == held
        # Another tenant has room of its own, and the same id.
        strange = {"x-tenant": "other"}
        theirs = await http.post(
            "/connections/upload",
            params={"id": "two"},
            files={"file": ("a.zip", half)},
            headers=strange,
        )
        assert theirs.status_code == 201
        held = await in_store(bus)
        sent = await asyncio.gather(*(upload(http, PAPERS, id="same") for _ in range(3)))
        assert sorted(each.status_code for each in sent) == [201, 409, 409]
        assert await in_store(bus) == held + 2  # one piece and its description


async def test_what_a_killed_gateway_left_in_the_store_is_removed_when_it_is_old(
    bus: Bus, nats_server: NatsServer, tmp_path: Path
) -> None:
    async with gateway(nats_server, tmp_path) as http:
        assert (await upload(http, PAPERS, id="kept")).status_code == 201
    held = await in_store(bus)
    store = await bus.jetstream.object_store(OBJ_ARCHIVES)
    await store.put("default/orphan", b"x" * 300_000)
    await bus.publish(f"$O.{OBJ_ARCHIVES}.C.unfinished", b"x")
    later = now()
    archives = Archives(
        bus,
        Bucket(bus, KV_CONNECTIONS, Connection),
        Scratch(tmp_path),
        copies_bytes_max=0,
        now=lambda: later,
    )
    assert await archives.sweep() == 0  # somebody may be at it
    later += timedelta(seconds=ABANDONED_SECONDS + 1)
    unknown = await bus.publish(f"$KV.{KV_CONNECTIONS}.default.newer", b"{}")
    assert await archives.sweep() == 0  # it may be the archive of a connection that cannot be read here
    assert await Bucket(bus, KV_CONNECTIONS, Connection).delete("default.newer", unknown.seq)
    assert await archives.sweep() == 2
    assert await in_store(bus) == held
    async with gateway(nats_server, tmp_path) as http:
        assert (await works(http, "kept"))["ok"] is True


@pytest.fixture(scope="module")
def s3_server() -> Iterator[S3Server]:
    with S3Server() as running:
        running.bucket("papers", {"2024/a.pdf": b"a", "2024/b.pdf": b"b", "c.pdf": b"c"})
        yield running


@pytest.fixture
def drive() -> Iterator[DriveServer]:
    with DriveServer() as running:
        running.folder("folder-one", "papers")
        running.add("file-one", "one.txt", content=b"one", parent="folder-one")
        yield running


async def test_every_kind_of_source_is_tested_and_listed(
    bus: Bus, nats_server: NatsServer, tmp_path: Path, s3_server: S3Server, drive: DriveServer
) -> None:
    async with WebServer() as web:
        web.answers["/a.txt"] = answer(body=b"hello", content_type="text/plain")
        with GitServer() as git:
            git.add_repository("o/r", {"README.md": "# hello"})
            hosts = ",".join((s3_server.url, drive.url, web.url))
            async with gateway(
                nats_server, tmp_path, web_allowed_hosts=hosts, git_allowed_hosts=git.allowed_hosts
            ) as http:
                await create(
                    http,
                    "s3",
                    {
                        "bucket": "papers",
                        "endpoint": s3_server.url,
                        "access_key_id": s3_server.access_key,
                        "secret_access_key": s3_server.secret_key,
                    },
                    id="s3",
                )
                await create(
                    http,
                    "google_drive",
                    {
                        "endpoint": drive.url,
                        "token_endpoint": f"{drive.url}/token",
                        "service_account": drive.key_file(),
                        "folder_id": "folder-one",
                    },
                    id="drive",
                )
                await create(http, "http", {"urls": [f"{web.url}/a.txt?token={CANARY}"]}, id="web")
                await create(http, "git", {"url": git.url("o/r")}, id="git")
                listed = {}
                for name in ("s3", "drive", "web", "git"):
                    assert (await works(http, name))["ok"] is True, name
                    listed[name] = await all_ids(http, name)
                assert listed["s3"] == ["2024/a.pdf", "2024/b.pdf", "c.pdf"]
                assert listed["drive"] == ["file-one"]
                assert listed["git"] == ["README.md"]
                assert len(listed["web"]) == 1 and CANARY not in listed["web"][0]
            assert list((tmp_path / "tmp").glob("process-*")) == []  # with its checkouts


async def test_a_secret_is_nowhere_but_sealed(
    bus: Bus, nats_server: NatsServer, tmp_path: Path, s3_server: S3Server, drive: DriveServer
) -> None:
    said: list[str] = []
    async with WebServer() as web:
        with GitServer() as git, capture_logs() as logged, s3_server.strict():
            git.add_repository("o/r", {"README.md": "# hello"})
            git.require_token("o/r", "another")
            oauth = {"client_id": "c", "client_secret": CANARY, "refresh_token": CANARY}
            configs: dict[str, dict[str, Any]] = {
                "s3": {**S3, "endpoint": s3_server.url, "session_token": CANARY},
                "google_drive": {
                    **oauth,
                    "endpoint": drive.url,
                    "token_endpoint": f"{drive.url}/token",
                },
                "http": {"urls": [f"{web.url}/missing?token={CANARY}"]},
                "git": {"url": git.url("o/r"), "token": CANARY},
            }
            hosts = ",".join((s3_server.url, drive.url, web.url))
            async with gateway(
                nats_server, tmp_path, web_allowed_hosts=hosts, git_allowed_hosts=git.allowed_hosts
            ) as http:
                for name, config in configs.items():
                    body = {"source_type": name, "config": config, "id": name}
                    answers = [
                        await http.post("/connections", json=body),
                        await http.post("/connections", json=body),
                        await http.post("/connections", json={**body, "source_type": "local_directory"}),
                        await http.post("/connections", json={**body, "config": {**config, "more": CANARY}}),
                        await http.post(f"/connections/{name}/test"),
                        await http.get(f"/connections/{name}/files"),
                        await http.get("/connections"),
                    ]
                    assert [each.status_code for each in answers[:4]] == [201, 409, 400, 400], name
                    if name != "http":  # whose addresses are not asked before a document is read
                        assert (answers[4].json()["ok"], answers[5].status_code) == (False, 409), name
                    said += [each.text + str(each.headers) for each in answers]
    held = await everything(bus)
    assert b"connections.view.v1.connection" in held and b"audit.event.v1.audited" in held
    assert CANARY.encode() not in held
    assert CANARY not in str(logged) and CANARY not in "".join(said)
    on_disk = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert CANARY.encode() not in on_disk


async def test_a_connection_works_on_under_a_new_key_and_not_under_another(
    bus: Bus, nats_server: NatsServer, tmp_path: Path, s3_server: S3Server
) -> None:
    config = {
        "bucket": "papers",
        "endpoint": s3_server.url,
        "access_key_id": s3_server.access_key,
        "secret_access_key": s3_server.secret_key,
    }
    hosts = {"web_allowed_hosts": s3_server.url}
    async with gateway(nats_server, tmp_path, **hosts) as http:
        await create(http, "s3", config, id="s3")
    new = "n" * 32
    assert (await rotate(bus, Sealer((new, KEY)))).anew == 1
    async with gateway(nats_server, tmp_path, secret_key=Secret(new), **hosts) as http:
        assert (await works(http, "s3"))["ok"] is True
    async with gateway(nats_server, tmp_path, secret_key=Secret("x" * 32), **hosts) as http:
        tested = await works(http, "s3")
        assert tested["ok"] is False and "PHAROS_SECRET_KEY" in tested["detail"]


async def test_who_did_what_to_a_connection_is_on_the_trail(
    bus: Bus, nats_server: NatsServer, tmp_path: Path
) -> None:
    async with gateway(nats_server, tmp_path) as http:
        await create(http, "s3", {"bucket": "papers"}, id="b")
        await http.post("/connections/b/test")
        await http.delete("/connections/b")
    noted = []
    sequence = 1
    while (message := await bus.first(AUDIT, "audit.>", sequence)) is not None:
        event = json.loads(message.data)
        noted.append((event["action"], event["target"], event["user"]))
        sequence = message.sequence + 1
    assert noted == [
        ("create_connection", "b", "admin"),
        ("test_connection", "b", "admin"),
        ("remove_connection", "b", "admin"),
    ]


async def test_a_slow_source_hangs_nobody_and_few_are_looked_into_at_once(
    bus: Bus, nats_server: NatsServer, tmp_path: Path
) -> None:
    async def silent(_: asyncio.StreamWriter) -> None:
        await asyncio.sleep(60)

    async with WebServer() as web:
        web.answers["/slow"] = web.answers["/slow/"] = silent
        async with gateway(nats_server, tmp_path, web_allowed_hosts=web.url, source_seconds_max=1.0) as http:
            await create(http, "s3", {"bucket": "slow", "endpoint": web.url}, id="slow")
            tested = await works(http, "slow")
            assert (tested["ok"], tested["transient"]) == (False, True)
            assert tested["detail"] == "The source did not answer within 1 seconds"
            listed = await asyncio.gather(
                *(http.get("/connections/slow/files") for _ in range(LOOKS_PER_TENANT_MAX + 2))
            )
            assert sorted(each.status_code for each in listed) == [429] * 2 + [504] * LOOKS_PER_TENANT_MAX
            for each in listed:
                if each.status_code == 429:
                    assert each.json()["code"] == "too_many_looks" and each.headers["Retry-After"]
                else:
                    assert each.json()["code"] == "source_slow"
            assert (await http.get("/connections/slow/files")).status_code == 504  # there is room again


async def test_others_of_the_tenant_do_not_see_a_connection_but_its_admins_do(
    bus: Bus, nats_server: NatsServer, tmp_path: Path
) -> None:
    async with gateway(nats_server, tmp_path) as http:
        ada, bob, narrow = [
            {"Authorization": f"Bearer {(await issue(http, **wanted))['key']}"}
            for wanted in ({}, {"user": "bob"}, {"projects": ["atlas"]})
        ]
        body = {"source_type": "s3", "config": {"bucket": "papers"}, "id": "mine"}
        assert (await http.post("/connections", json=body, headers=ada)).status_code == 201
        taken = await http.post("/connections", json=body, headers=bob)
        assert (taken.status_code, taken.json()["code"]) == (409, "connection_taken")
        seen = {
            name: [each["id"] for each in (await http.get("/connections", headers=who)).json()["connections"]]
            for name, who in (("ada", ada), ("bob", bob), ("narrow", narrow), ("admin", {}))
        }
        assert seen == {"ada": ["mine"], "bob": [], "narrow": [], "admin": ["mine"]}
        for who, status in ((ada, 200), (bob, 404), (narrow, 404), ({"x-tenant": "acme"}, 200)):
            assert (await http.get("/connections/mine", headers=who)).status_code == status
        refused = await http.post("/connections", json={**body, "id": "other"}, headers=narrow)
        assert (refused.status_code, refused.json()["code"]) == (403, "other_project")
        there = {**body, "id": "there", "project": "atlas"}
        assert (await http.post("/connections", json=there, headers=narrow)).status_code == 201
