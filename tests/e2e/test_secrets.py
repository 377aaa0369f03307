"""Secrets stay where they belong: whatever enters is looked for in everything that the system writes.

Files, the output of every process, each message on the bus with its headers, command lines, and every answer
that is not the one which hands the secret out. A new way in for a secret is a new row of ``planted``.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import threading
from base64 import b64encode
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import httpx
import nats
import pytest
from nats.aio.msg import Msg
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from pharos_local.bus_command import port_of
from tests.support.git_server import GitServer
from tests.support.stack import ENDED, Stack

pytestmark = pytest.mark.anyio

# Where on disk a secret may be as it is, below PHAROS_HOME. Whatever is not named here may be nowhere.
AT_HOME: Final[Mapping[str, frozenset[str]]] = {
    "the admin token": frozenset({"admin-token"}),
    "the secret key": frozenset({"secret-key"}),
    "the password of the bus": frozenset({"nats-password", "nats.conf"}),
    "the password of the bus's operator": frozenset({"nats-operator-password", "nats.conf"}),
}
GIVEN: Final = (
    "a git token",
    "a wrong bearer token",
    "a wrong key",
    "a wrong token of a socket",
    "a password in the address of a repository",
    "a password in a body",
    "a password in a callback address",
    "a token in a query",
    "the secret of a bucket",
    "the token of a bucket's session",
    "the token of a repository",
    "the query that opens an address",
    "the secret of a drive's client",
    "what renews access to a drive",
)
WITNESS: Final = "witness-of-the-search"  # no secret: it must be found, or nothing would be
WRITTEN: Final = (
    "history.sqlite3",
    "index/",
    "nats/jetstream/",
    "logs/",
    "the bus: events.job.",
    "the bus: _INBOX.",
    "an event stream",
    "a command line",
    "the answer to GET /api/v1/jobs/",
)


def canary(name: str) -> str:
    """A secret that is nothing else in this world."""
    return "canary" + hashlib.sha256(name.encode()).hexdigest()


def forms(secret: str) -> list[bytes]:
    """*secret* as it is, in an address, and in base64 wherever in a text it stood."""
    raw = secret.encode()
    encoded = []
    for shift in range(3):
        text = b64encode(bytes(shift) + raw)
        encoded.append(text[(0, 2, 3)[shift] : len(text) - 4])
    return [raw, quote(secret, safe="").encode(), *encoded]


class Record:
    """What was written, by where."""

    def __init__(self) -> None:
        self.texts: list[tuple[str, bytes]] = []

    def note(self, where: str, text: bytes | str) -> None:
        self.texts.append((where, text.encode() if isinstance(text, str) else text))

    def holders(self, secret: str) -> set[str]:
        sought = forms(secret)
        return {where for where, text in self.texts if any(form in text for form in sought)}


@contextmanager
def command_lines(record: Record) -> Iterator[None]:
    """Those of every process of this machine while the block runs; git's live for a moment only."""
    done, seen = threading.Event(), set()

    def look() -> None:
        while not done.wait(0.01):
            for directory in Path("/proc").glob("[0-9]*"):
                with suppress(OSError):
                    seen.add((directory / "cmdline").read_bytes())

    looking = threading.Thread(target=look)
    looking.start()
    try:
        yield
    finally:
        done.set()
        looking.join()
        for line in seen:
            record.note("a command line", line)


@asynccontextmanager
async def everything_said(home: Path, record: Record) -> AsyncIterator[None]:
    """Every message on the bus: what is stored, what is asked and what is answered."""

    async def hear(message: Msg) -> None:
        text = b"\n".join((message.subject.encode(), repr(message.headers).encode(), message.data))
        record.note(f"the bus: {message.subject}", text)

    port = port_of((home / "nats.conf").read_text())
    password = (home / "nats-password").read_text().strip()
    bus = await nats.connect(f"nats://127.0.0.1:{port}", user="pharos", password=password)
    try:
        await bus.subscribe(">", cb=hear)
        await bus.flush()
        yield
        await bus.flush()
    finally:
        await bus.close()


class Visitor:
    """Sends requests; what is answered goes on record, but for what hands a secret out."""

    def __init__(self, http: httpx.AsyncClient, record: Record) -> None:
        self.http = http
        self.record = record

    async def send(self, method: str, path: str, expected: int | None, **what: Any) -> Any:
        """The body of the answer, whose status is *expected*; None is any but that of a fault here."""
        answer = await self.http.request(method, path, **what)
        fits = answer.status_code != 500 if expected is None else answer.status_code == expected
        assert fits, (method, path, answer.status_code, answer.text)
        self.record.note(f"the answer to {method} {path}", answer.text + repr(answer.headers))
        return answer.json() if answer.content else None

    async def be_given(self, method: str, path: str, **what: Any) -> Any:
        """The answer to whoever is meant to have the secret in it."""
        answer = await self.http.request(method, path, **what)
        assert answer.is_success, answer.text
        return answer.json()

    async def until(self, job_id: object, state: str, headers: Mapping[str, str]) -> None:
        async with asyncio.timeout(60):
            while True:
                job = await self.send("GET", f"/api/v1/jobs/{job_id}", 200, headers=headers)
                if job["state"] in ENDED:
                    break
                await asyncio.sleep(0.1)
        assert job["state"] == state, job

    async def watch(self, ticket: str) -> None:
        """An event stream, until cancelled."""
        async with self.http.stream(
            "GET", "/api/v1/events", params={"ticket": ticket}, headers={"Authorization": ""}, timeout=60
        ) as stream:
            async for line in stream.aiter_lines():
                self.record.note("an event stream", line)


def connections(git: GitServer) -> dict[str, dict[str, Any]]:
    """One of each kind that has secrets, by source type: none of them is let in where it goes."""
    return {
        "s3": {
            "bucket": "papers",
            "endpoint": git.base_url,
            "access_key_id": "AKIA1",
            "secret_access_key": canary("the secret of a bucket"),
            "session_token": canary("the token of a bucket's session"),
        },
        "git": {"url": git.url(f"harbour/{WITNESS}"), "token": canary("the token of a repository")},
        "http": {"urls": [f"{git.base_url}/a.md?key={canary('the query that opens an address')}"]},
        "google_drive": {
            "client_id": "c",
            "client_secret": canary("the secret of a drive's client"),
            "refresh_token": canary("what renews access to a drive"),
            "endpoint": git.base_url,
            "token_endpoint": git.base_url,
        },
    }


async def live(visitor: Visitor, stack: Stack, git: GitServer) -> dict[str, str]:
    """Use everything that a secret may enter by; the secrets that were handed out, by their names."""
    ingest, url = "/api/v1/ingestion/ingest", git.url(f"harbour/{WITNESS}")
    admin = {"Authorization": f"Bearer {stack.token}"}
    key = await visitor.be_given(
        "POST", "/api/v1/keys", headers=admin, json={"user": "ada", "role": "editor"}
    )
    ours = {"Authorization": f"Bearer {key['key']}"}
    ticket = (await visitor.be_given("POST", "/api/v1/events/ticket", headers=ours))["ticket"]
    watching = asyncio.create_task(visitor.watch(ticket))
    job = await visitor.send("POST", f"{ingest}/{url}", 200, headers={"x-api-key": key["key"]})
    failing = await visitor.send("POST", f"{ingest}/{git.url('harbour/nothing-there')}", 200, headers=ours)
    webhook = await visitor.be_given("POST", "/api/v1/webhooks", headers=ours, json={"repo_url": url})
    callbacks = await visitor.be_given("GET", "/api/v1/callbacks/secret", headers=ours)

    push = {
        "ref": "refs/heads/main",
        "before": "0" * 40,
        "after": git.commit_of(f"harbour/{WITNESS}"),
        "repository": {"clone_url": url, "default_branch": "main"},
    }
    body = json.dumps(push).encode()
    for secret, expected in ((webhook["secret"], 202), (canary("a password in a body"), 401)):
        signature = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
        signed = {"X-Hub-Signature-256": f"sha256={signature}", "X-GitHub-Event": "push"}
        await visitor.send("POST", "/webhooks/github", expected, content=body, headers=signed)

    wrong = {"Authorization": f"Bearer {canary('a wrong bearer token')}"}
    await visitor.send("GET", "/api/v1/jobs", 401, headers=wrong)
    for name in ("x-api-key", "x-admin-key"):
        await visitor.send("GET", "/api/v1/jobs", 401, headers={name: canary("a wrong key")})
    unknown = f"/api/v1/events?ticket={canary('a token in a query')}"
    await visitor.send("GET", unknown, 401)
    with_password = url.replace("://", f"://ada:{canary('a password in the address of a repository')}@")
    for path in (with_password, quote(with_password, safe="")):
        await visitor.send("POST", f"{ingest}/{path}", 400, headers=ours)
    in_body = url.replace("://", f"://ada:{canary('a password in a body')}@")
    for path, name in (
        ("/api/v1/webhooks", "repo_url"),
        ("/resources/ingest-repo", "git_url"),
        ("/projects/default/ingest/github", "repo"),
    ):
        await visitor.send("POST", path, 400, headers=ours, json={name: in_body})
    plan = {"repo_url": in_body, "cron": "0 3 * * *"}
    await visitor.send("POST", "/api/v1/schedules", 400, headers=ours, json=plan)
    hook = f"https://ada:{canary('a password in a callback address')}@hooks.test/done"
    await visitor.send("POST", f"{ingest}/{url}", 400, headers=ours, params={"callback_url": hook})
    mistaken = {"query": 3, "password": canary("a password in a body")}
    await visitor.send("POST", "/api/v1/search", 400, headers=ours, json=mistaken)

    for source_type, config in connections(git).items():
        body = {"id": source_type, "source_type": source_type, "config": config}
        await visitor.send("POST", "/connections", 201, headers=ours, json=body)
        misspelt = {name + "s": value for name, value in config.items()}
        wrong_type = {name: {"is": value} for name, value in config.items()}
        for mistaken_config in (misspelt, wrong_type):
            body = {"source_type": source_type, "config": mistaken_config}
            await visitor.send("POST", "/connections", 400, headers=ours, json=body)
        for method, rest in (("GET", ""), ("POST", "/test"), ("GET", "/files")):
            await visitor.send(method, f"/connections/{source_type}{rest}", None, headers=ours)

    socket_url = stack.url.replace("http", "ws") + "/ws"
    for token in (canary("a wrong token of a socket"), key["key"]):
        async with connect(socket_url, proxy=None) as socket:
            await socket.send(json.dumps({"type": "auth", "token": token}))
            visitor.record.note("a socket", str(await socket.recv()))
            with suppress(ConnectionClosed):
                await socket.send('{"action":"subscribe","project":"default"}')
                visitor.record.note("a socket", str(await socket.recv()))

    await visitor.until(job["id"], "completed", ours)
    await visitor.until(failing["id"], "failed", ours)
    await visitor.send("POST", "/api/v1/search", 200, headers=ours, json={"query": "sign a value"})
    rotated = await visitor.be_given("POST", f"/api/v1/keys/{key['id']}/rotate", headers=admin, json={})
    for path in ("/api/v1/keys", "/api/v1/audit", "/api/v1/webhooks", "/ops/dead-letters", "/health"):
        await visitor.send("GET", path, 200, headers=admin)
    await visitor.send("POST", f"/api/v1/keys/{key['id']}/disable", 200, headers=admin)
    watching.cancel()
    with suppress(asyncio.CancelledError, httpx.HTTPError):
        await watching
    return {
        "a key": key["key"].split("_", 2)[2],
        "a key that took its place": rotated["key"].split("_", 2)[2],
        "the secret of a webhook": webhook["secret"],
        "the secret that signs callbacks": callbacks["secret"],
        "a ticket": ticket,
    }


async def test_no_secret_is_anywhere_but_where_it_belongs(git: GitServer, tmp_path: Path) -> None:
    git.add_repository(f"harbour/{WITNESS}", {"a.py": "def sign(value):\n    return value\n"})
    home = tmp_path / "home"
    record = Record()
    given = {name: canary(name) for name in GIVEN}
    stack = Stack(
        allowed_hosts=git.allowed_hosts,
        home=home,
        GITHUB_TOKEN=given["a git token"],
        PHAROS_WEB_ALLOWED_HOSTS=git.allowed_hosts,
    )
    with command_lines(record), stack:
        secrets = {
            **given,
            "the admin token": stack.token,
            "the secret key": (home / "secret-key").read_text().strip(),
            "the password of the bus": (home / "nats-password").read_text().strip(),
            "the password of the bus's operator": (home / "nats-operator-password").read_text().strip(),
        }
        async with (
            everything_said(home, record),
            httpx.AsyncClient(base_url=stack.url, timeout=20, trust_env=False) as http,
        ):
            visitor = Visitor(http, record)
            secrets |= await live(visitor, stack, git)
    for line in stack.lines:
        record.note("what the stack prints", line)
    for path in home.rglob("*"):
        if path.is_file():
            record.note(str(path.relative_to(home)), path.read_bytes())

    assert all(len(secret) >= 32 for secret in secrets.values())  # or it would be found anywhere
    found = {name: record.holders(secret) for name, secret in secrets.items()}
    assert found == {name: set(AT_HOME.get(name, ())) for name in secrets}
    # What is no secret is found, or nothing would be.
    seen = record.holders(WITNESS)
    for place in WRITTEN:
        assert any(where.startswith(place) for where in seen), (place, seen)
