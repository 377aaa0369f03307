"""A local server that answers as the references of the Drive API v3 and of Google's OAuth 2 endpoint say.

Only what is documented: files.list with `q`, `orderBy`, `pageSize`, `pageToken` and the fields asked for;
files.get with and without `alt=media`; files.export; tokens for refresh tokens and for signed assertions;
errors in Google's form. Whatever is not documented, or is asked without a parameter that is required, is 400.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key

FOLDER: Final = "application/vnd.google-apps.folder"
SHORTCUT: Final = "application/vnd.google-apps.shortcut"
DOCUMENT: Final = "application/vnd.google-apps.document"
SPREADSHEET: Final = "application/vnd.google-apps.spreadsheet"
FORM: Final = "application/vnd.google-apps.form"
SCOPE: Final = "https://www.googleapis.com/auth/drive.readonly"
CLIENT_ID: Final = "client-1.apps.googleusercontent.com"
CLIENT_SECRET: Final = "client-secret-canary"
REFRESH_TOKEN: Final = "1//refresh-token-canary"
SERVICE_EMAIL: Final = "pharos@project.iam.gserviceaccount.com"
PAGE_SIZE_MAX: Final = 1_000


@dataclass(slots=True, kw_only=True)
class DriveFile:
    """A file or folder. `drive` is the shared drive that it is in, if any; `exports` by media type."""

    id: str
    name: str
    mime_type: str
    parent: str | None
    content: bytes = b""
    drive: str | None = None
    shared_with_me: bool = False
    trashed: bool = False
    modified: str = "2026-01-15T10:30:00.000Z"
    exports: Mapping[str, bytes] = field(default_factory=dict)
    refusal: str | None = None


@dataclass(slots=True, kw_only=True)
class Fault:
    """An answer in place of the true one; `cut`: the body stops half-way through."""

    status: int = 200
    reason: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One request as it arrived."""

    path: str
    query: Mapping[str, str]
    authorization: str | None


class DriveServer:
    """Serves `http://127.0.0.1:<port>` while the `with` block lasts; tokens are given out at `/token`."""

    def __init__(self) -> None:
        self.files: dict[str, DriveFile] = {}
        self.faults: list[Fault] = []
        self.token_faults: list[Fault] = []
        self.asked: list[Asked] = []
        self.tokens_given: list[str] = []
        self.valid_tokens: set[str] = set()
        self.token_seconds = 3_600
        self.revoked = False
        self.closing = threading.Event()
        self.key = generate_private_key(public_exponent=65_537, key_size=2_048)
        self._server = _Server(("127.0.0.1", 0), self)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    def __enter__(self) -> DriveServer:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.closing.set()
        self._server.shutdown()
        self._thread.join(10)
        self._server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def clear(self) -> None:
        """As if it had just been started."""
        for each in (self.files, self.valid_tokens):
            each.clear()
        for many in (self.faults, self.token_faults, self.asked, self.tokens_given):
            many.clear()
        self.token_seconds, self.revoked = 3_600, False

    def key_file(self, key: RSAPrivateKey | None = None) -> str:
        """The JSON file that Google gives out for the service account."""
        pem = (key or self.key).private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        return json.dumps(
            {
                "type": "service_account",
                "project_id": "project",
                "private_key_id": "key-1",
                "private_key": pem.decode(),
                "client_email": SERVICE_EMAIL,
                "client_id": "1",
                "token_uri": "https://attacker.example/token",
            }
        )

    def add(self, file_id: str, name: str, *, parent: str | None = "root", **rest: Any) -> DriveFile:
        """A file; without `mime_type` one of plain text."""
        kind = rest.pop("mime_type", "text/plain")
        self.files[file_id] = DriveFile(id=file_id, name=name, mime_type=kind, parent=parent, **rest)
        return self.files[file_id]

    def folder(self, file_id: str, name: str, *, parent: str | None = "root", **rest: Any) -> DriveFile:
        return self.add(file_id, name, parent=parent, mime_type=FOLDER, **rest)


class _Server(ThreadingHTTPServer):
    daemon_threads = False

    def __init__(self, address: tuple[str, int], drive: DriveServer) -> None:
        self.drive = drive
        super().__init__(address, _Handler)

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away is what some tests are about; nothing is printed."""


class _Refusal(Exception):
    def __init__(self, status: int, reason: str, headers: Mapping[str, str] | None = None) -> None:
        self.status = status
        self.reason = reason
        self.headers = headers or {}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server
    timeout = 30

    def log_message(self, format: str, *args: object) -> None:
        """Silent."""

    def do_POST(self) -> None:
        self.close_connection = True
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        form = {name: values[0] for name, values in parse_qs(body).items()}
        if self.path != "/token":
            return self._json(404, {"error": "not_found"})
        if self.server.drive.token_faults:
            fault = self.server.drive.token_faults.pop(0)
            return self._json(fault.status, {"error": fault.reason}, fault.headers)
        error = self._grant_error(form)
        if error is not None:
            return self._json(400, {"error": error, "error_description": "Bad Request"})
        drive = self.server.drive
        token = f"ya29.access-token-canary-{len(drive.tokens_given)}"
        drive.tokens_given.append(token)
        drive.valid_tokens.add(token)
        return self._json(
            200, {"access_token": token, "expires_in": drive.token_seconds, "token_type": "Bearer"}
        )

    def _grant_error(self, form: Mapping[str, str]) -> str | None:
        drive = self.server.drive
        if form.get("grant_type") == "refresh_token":
            if (form.get("client_id"), form.get("client_secret")) != (CLIENT_ID, CLIENT_SECRET):
                return "invalid_client"
            good = form.get("refresh_token") == REFRESH_TOKEN and not drive.revoked
            return None if good else "invalid_grant"
        if form.get("grant_type") == "urn:ietf:params:oauth:grant-type:jwt-bearer":
            try:
                claims = jwt.decode(
                    form["assertion"],
                    drive.key.public_key(),
                    algorithms=["RS256"],
                    audience=f"{drive.url}/token",
                    options={"require": ["iss", "aud", "exp", "iat"]},
                )
            except jwt.InvalidTokenError:
                return "invalid_grant"
            if claims["exp"] - claims["iat"] > 3_600 or claims["iat"] > time.time() + 60:
                return "invalid_grant"
            return None if (claims["iss"], claims["scope"]) == (SERVICE_EMAIL, SCOPE) else "invalid_scope"
        return "unsupported_grant_type"

    def do_GET(self) -> None:
        self.close_connection = True
        split = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(split.query).items()}
        authorization = self.headers.get("Authorization")
        drive = self.server.drive
        drive.asked.append(Asked(path=split.path, query=query, authorization=authorization))
        try:
            fault = drive.faults.pop(0) if drive.faults else Fault()
            if fault.status != 200:
                raise _Refusal(fault.status, fault.reason, fault.headers)
            if (authorization or "").removeprefix("Bearer ") not in drive.valid_tokens:
                raise _Refusal(401, "authError")
            self._get(split.path, query, cut=fault.cut)
        except _Refusal as refusal:
            details = {"domain": "global", "reason": refusal.reason, "message": "Told by the server."}
            body = {"error": {"errors": [details], "code": refusal.status, "message": "Told by the server."}}
            self._json(refusal.status, body, refusal.headers)

    def _get(self, path: str, query: Mapping[str, str], *, cut: bool) -> None:
        match path.removeprefix("/drive/v3/files").split("/"):
            case [""]:
                self._json(200, self._list(query))
            case ["", file_id]:
                file = self._file(file_id, query)
                if query.get("alt") != "media":
                    self._json(200, _projected(file, query["fields"].split(",")))
                elif file.mime_type.startswith("application/vnd.google-apps."):
                    raise _Refusal(403, "fileNotDownloadable")
                else:
                    self._bytes(file, file.content, file.mime_type, cut=cut)
            case ["", file_id, "export"]:
                file = self._file(file_id, {"supportsAllDrives": "true"})
                if query.get("mimeType") not in file.exports:
                    raise _Refusal(400, "badRequest")
                self._bytes(file, file.exports[query["mimeType"]], query["mimeType"], cut=cut)
            case _:
                raise _Refusal(404, "notFound")

    def _file(self, file_id: str, query: Mapping[str, str]) -> DriveFile:
        file = self.server.drive.files.get(file_id)
        if file is None or (file.drive is not None and query.get("supportsAllDrives") != "true"):
            raise _Refusal(404, "notFound")
        return file

    def _list(self, query: Mapping[str, str]) -> dict[str, Any]:
        match = re.fullmatch(
            r"(?:'([A-Za-z0-9_-]+)' in parents|(sharedWithMe)) and trashed = false", query["q"]
        )
        if match is None or query.get("orderBy") != "folder,name":
            raise _Refusal(400, "invalid")
        parent = match[1]
        files = self.server.drive.files
        if parent is not None and parent != "root" and parent not in files and parent != query.get("driveId"):
            raise _Refusal(404, "notFound")
        if ("driveId" in query) != (query.get("corpora") == "drive"):
            raise _Refusal(400, "invalid")
        everywhere = (query.get("supportsAllDrives"), query.get("includeItemsFromAllDrives"))
        found = [
            file
            for file in list(files.values())
            if (file.shared_with_me if parent is None else file.parent == parent)
            and not file.trashed
            and (file.drive is None or everywhere == ("true", "true"))
            and ("driveId" not in query or file.drive == query["driveId"])
        ]
        found.sort(key=lambda file: (file.mime_type != FOLDER, file.name))
        start = 0
        if "pageToken" in query:
            try:
                start = int(base64.urlsafe_b64decode(query["pageToken"]))
            except ValueError:
                raise _Refusal(400, "invalid") from None
        end = start + min(int(query["pageSize"]), PAGE_SIZE_MAX)
        fields = re.fullmatch(r"nextPageToken,files\((.*)\)", query["fields"])
        if fields is None:
            raise _Refusal(400, "invalidParameter")
        answer: dict[str, Any] = {
            "files": [_projected(file, fields[1].split(",")) for file in found[start:end]]
        }
        if end < len(found):
            answer["nextPageToken"] = base64.urlsafe_b64encode(str(end).encode()).decode()
        return answer

    def _bytes(self, file: DriveFile, content: bytes, kind: str, *, cut: bool) -> None:
        if file.refusal is not None:
            raise _Refusal(403, file.refusal)
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(content[: len(content) // 2] if cut else content)

    def _json(self, status: int, value: object, headers: Mapping[str, str] | None = None) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        for name, text in (headers or {}).items():
            self.send_header(name, text)
        self.send_header("Content-Type", "application/json; charset=UTF-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)


def _projected(file: DriveFile, fields: list[str]) -> dict[str, Any]:
    """The fields that were asked for, in the types of the reference: sizes are text."""
    known: dict[str, Any] = {
        "id": file.id,
        "name": file.name,
        "mimeType": file.mime_type,
        "modifiedTime": file.modified,
        "trashed": file.trashed,
    }
    if not file.mime_type.startswith("application/vnd.google-apps."):
        known["size"] = str(len(file.content))
        known["md5Checksum"] = hashlib.md5(file.content, usedforsecurity=False).hexdigest()
    return {name: known[name] for name in fields if name in known}
