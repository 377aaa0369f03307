"""A real git server over HTTP on a free local port, for tests and the demo. Standard library and git only.

`git http-backend` does the serving, so that protocol v2, shallow fetches and refusals are git's own.
Repositories are made by `git fast-import` with fixed names and dates: the same files give the same commit
ids on every machine.
"""

from __future__ import annotations

import base64
import gzip
import hmac
import os
import shutil
import socket
import ssl
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import IO, Final
from urllib.parse import unquote

_EPOCH: Final = 1_700_000_000
_AUTHOR: Final = "Ada Example <ada@example.com>"
_BLOCK_BYTES: Final = 64 * 1024
_REQUEST_BYTES_MAX: Final = 64 * 1024 * 1024
_CLOSE_SECONDS: Final = 10.0
_RELEASE_POLL_SECONDS: Final = 0.02


@dataclass(frozen=True, slots=True)
class Symlink:
    """A symbolic link in a repository."""

    target: str


@dataclass(frozen=True, slots=True)
class Submodule:
    """A commit of another repository in the place of a folder."""

    commit: str


@dataclass(frozen=True, slots=True)
class Executable:
    """A file with its executable bit set."""

    content: str


Content = str | bytes | Symlink | Submodule | Executable
Files = Mapping[str, Content | None]
"""Path to content; None removes the path in a later commit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request as it arrived."""

    method: str
    path: str
    query: str
    authorization: str | None
    protocol: str | None


@dataclass(slots=True)
class _Behaviour:
    token: str | None = None
    delay_seconds: float = 0.0
    bytes_per_second: float | None = None
    status: int | None = None
    location: str | None = None
    full_name_only: bool = False


@dataclass(slots=True)
class _State:
    root: Path
    behaviours: dict[str, _Behaviour] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    packs: list[str] = field(default_factory=list)
    closing: threading.Event = field(default_factory=threading.Event)


class GitServer:
    """Serves `http://127.0.0.1:<port>/<name>.git` while the `with` block lasts.

    Names are like `owner/name`; the `.git` may be left out. With *tls* the scheme is https.
    """

    def __init__(self, *, port: int = 0, tls: ssl.SSLContext | None = None) -> None:
        self._port = port
        self._tls = tls
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> GitServer:
        self._temporary = tempfile.TemporaryDirectory(prefix="git-server-")
        self._server = _Server(("127.0.0.1", self._port), _State(Path(self._temporary.name)))
        if self._tls is not None:
            self._server.socket = self._tls.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None and self._thread is not None and self._temporary is not None
        self._server.state.closing.set()
        self._server.shutdown()
        self._thread.join(_CLOSE_SECONDS)
        self._server.server_close()  # waits for the requests in flight, which `closing` has ended
        self._temporary.cleanup()

    @property
    def port(self) -> int:
        return int(self._running.server_address[1])

    @property
    def base_url(self) -> str:
        return f"{'http' if self._tls is None else 'https'}://127.0.0.1:{self.port}"

    @property
    def allowed_hosts(self) -> str:
        """The `PHAROS_GIT_ALLOWED_HOSTS` that admits this server: `http://` admits a private https too."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def requests(self) -> Sequence[Request]:
        """Every request so far, oldest first."""
        return tuple(self._running.state.requests)

    @property
    def packs(self) -> Sequence[str]:
        """The repositories of which a pack was asked for, by name, oldest first."""
        return tuple(self._running.state.packs)

    def url(self, name: str) -> str:
        return f"{self.base_url}/{name}"

    def repository_path(self, name: str) -> Path:
        """The bare repository on disk."""
        return self._running.state.root / f"{name}.git"

    def add_repository(
        self, name: str, files: Files, branch: str = "main", commits: Sequence[Files] = ()
    ) -> str:
        """Make a repository with default branch *branch*, a commit of *files*, and one for each of *commits*.

        Returns the id of the last commit.
        """
        self.add_empty_repository(name, branch)
        self.add_commits(name, (files, *commits), branch=branch)
        return self.commit_of(name, branch)

    def add_empty_repository(self, name: str, branch: str = "main") -> None:
        path = self.repository_path(name)
        path.mkdir(parents=True)
        _git(path, "init", "--quiet", "--bare", "--template=", f"--initial-branch={branch}", ".")
        _allow_any_commit(path)

    def add_commits(
        self, name: str, commits: Sequence[Files], *, branch: str = "main", start: str | None = None
    ) -> str:
        """Add one commit for each of *commits* to *branch*, which starts at branch *start* if it is new."""
        path = self.repository_path(name)
        parent = next((ref for ref in (branch, start) if ref is not None and _exists(path, ref)), None)
        count = int(_git(path, "rev-list", "--all", "--count"))
        _git(path, "fast-import", "--quiet", stdin=_stream(commits, branch, parent, count))
        return self.commit_of(name, branch)

    def force(self, name: str, branch: str, commit: str) -> None:
        """Point *branch* at *commit*, whatever it was, as a forced push does."""
        _git(self.repository_path(name), "update-ref", f"refs/heads/{branch}", commit)

    def add_tag(self, name: str, tag: str, commit: str, *, annotated: bool = False) -> None:
        extra = ("-a", "-m", f"Release {tag}") if annotated else ()
        _git(self.repository_path(name), "tag", *extra, tag, commit)

    def add_bare_from(self, path: Path, name: str) -> str:
        """Serve a copy of an existing checkout or repository; returns the commit of its HEAD."""
        target = self.repository_path(name)
        target.parent.mkdir(parents=True, exist_ok=True)
        _git(target.parent, "clone", "--quiet", "--bare", "--no-hardlinks", str(path.resolve()), target.name)
        _allow_any_commit(target)
        return _git(target, "rev-parse", "HEAD").strip()

    def commit_of(self, name: str, ref: str = "HEAD") -> str:
        return _git(self.repository_path(name), "rev-parse", "--verify", f"{ref}^{{commit}}").strip()

    def require_token(self, name: str, token: str) -> None:
        """Answer 401 unless the password of the Basic credentials is *token*."""
        self._behaviour(name).token = token

    def delay(self, name: str, seconds: float) -> None:
        """Wait before every answer about *name*; what waits now waits no longer than that either."""
        self._behaviour(name).delay_seconds = seconds

    def throttle(self, name: str, bytes_per_second: float) -> None:
        """Send packs of *name* no faster than this."""
        self._behaviour(name).bytes_per_second = bytes_per_second

    def require_full_name(self, name: str) -> None:
        """Answer 404 to the name without `.git`, as servers of plain files do."""
        self._behaviour(name).full_name_only = True

    def answer(self, name: str, status: int | None, *, location: str | None = None) -> None:
        """Answer every request about *name* with *status*, None as git would.

        *location* is a base URL; the rest is added.
        """
        self._behaviour(name).status = status
        self._behaviour(name).location = location

    @property
    def _running(self) -> _Server:
        assert self._server is not None, "the server runs inside its `with` block only"
        return self._server

    def _behaviour(self, name: str) -> _Behaviour:
        return self._running.state.behaviours.setdefault(name, _Behaviour())


class _Server(ThreadingHTTPServer):
    daemon_threads = False
    block_on_close = True

    def __init__(self, address: tuple[str, int], state: _State) -> None:
        self.state = state
        super().__init__(address, _Handler)

    def shutdown_request(self, request: socket.socket | tuple[bytes, socket.socket]) -> None:
        if isinstance(request, ssl.SSLSocket):
            with suppress(OSError, ValueError):
                request.settimeout(1)
                request.unwrap()  # an answer that ends with the connection is whole only with a goodbye
        super().shutdown_request(request)

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away is what many tests are about; nothing is printed."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server
    timeout = 30

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def log_message(self, format: str, *args: object) -> None:
        """Silent."""

    def _serve(self) -> None:
        self.close_connection = True
        path, _, query = self.path.partition("?")
        path = unquote(path)
        authorization = self.headers.get("Authorization")
        self.server.state.requests.append(
            Request(
                method=self.command,
                path=path,
                query=query,
                authorization=authorization,
                protocol=self.headers.get("Git-Protocol"),
            )
        )
        name, tail = self._repository(path)
        behaviour = self.server.state.behaviours.get(name, _Behaviour())
        began = time.monotonic()
        while time.monotonic() < began + behaviour.delay_seconds:
            if self.server.state.closing.wait(_RELEASE_POLL_SECONDS):
                return None
        if behaviour.status is not None:
            headers = {}
            if behaviour.location is not None:
                headers["Location"] = behaviour.location + tail + (f"?{query}" if query else "")
            return self._answer(behaviour.status, headers)
        if behaviour.token is not None and not _password_is(authorization, behaviour.token):
            return self._answer(401, {"WWW-Authenticate": 'Basic realm="git"'})
        if ".." in path.split("/") or (behaviour.full_name_only and ".git/" not in path):
            return self._answer(404, {})
        return self._backend(path, query, behaviour)

    @staticmethod
    def _repository(path: str) -> tuple[str, str]:
        """(name without `.git`, the rest of the path)."""
        for service in ("/info/refs", "/git-upload-pack", "/git-receive-pack"):
            if path.endswith(service):
                return path.removesuffix(service).strip("/").removesuffix(".git"), service
        return path.strip("/"), ""

    def _answer(self, status: int, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", "0")
        self.send_header("Connection", "close")
        self.end_headers()

    def _body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            length = int(self.headers.get("Content-Length") or 0)
            assert length <= _REQUEST_BYTES_MAX
            return self.rfile.read(length)
        body = b""
        while size := int(self.rfile.readline(100).split(b";")[0], 16):
            assert len(body) + size <= _REQUEST_BYTES_MAX
            body += self.rfile.read(size)
            self.rfile.readline(100)
        self.rfile.readline(100)
        return body

    def _backend(self, path: str, query: str, behaviour: _Behaviour) -> None:
        body = self._body()
        plain = gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body
        if b"command=fetch" in plain:  # protocol v2: what it is asked is in the body
            self.server.state.packs.append(self._repository(path)[0])
        environment = {
            **_environment(),
            "GIT_PROJECT_ROOT": str(self.server.state.root),
            "GIT_HTTP_EXPORT_ALL": "1",
            "REQUEST_METHOD": self.command,
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
            "REMOTE_ADDR": self.client_address[0],
        }
        with subprocess.Popen(
            ["git", "http-backend"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
        ) as backend:
            assert backend.stdin is not None and backend.stdout is not None
            try:
                backend.stdin.write(body)
                backend.stdin.close()
                self._relay(backend.stdout, behaviour.bytes_per_second)
            except OSError:
                pass  # the client is gone
            finally:
                backend.kill()

    def _relay(self, answer: IO[bytes], bytes_per_second: float | None) -> None:
        status, headers = 200, []
        while line := answer.readline(8192).strip():
            key, _, value = line.decode("latin-1").partition(":")
            if key.lower() == "status":
                status = int(value.split()[0])
            else:
                headers.append((key, value.strip()))
        self.send_response(status)
        for key, value in headers:
            self.send_header(key, value)
        self.send_header("Connection", "close")
        self.end_headers()
        block = _BLOCK_BYTES if bytes_per_second is None else max(1, int(bytes_per_second / 20))
        while data := answer.read(block):
            self.wfile.write(data)
            if bytes_per_second is not None and self.server.state.closing.wait(len(data) / bytes_per_second):
                return


def _password_is(authorization: str | None, token: str) -> bool:
    if authorization is None or not authorization.startswith("Basic "):
        return False
    try:
        _, _, password = base64.b64decode(authorization.removeprefix("Basic ")).partition(b":")
    except ValueError:
        return False
    return hmac.compare_digest(password, token.encode())


def _environment() -> dict[str, str]:
    """Git without anybody's configuration, and with fixed names and dates."""
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": os.devnull,
        "LC_ALL": "C.UTF-8",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": "safe.directory",
        "GIT_CONFIG_VALUE_0": "*",
        "GIT_COMMITTER_NAME": "Ada Example",
        "GIT_COMMITTER_EMAIL": "ada@example.com",
        "GIT_COMMITTER_DATE": f"{_EPOCH} +0000",
    }


def _git(directory: Path, *arguments: str, stdin: bytes = b"") -> str:
    executable = shutil.which("git")
    assert executable is not None, "git is not installed"
    finished = subprocess.run(
        [executable, *arguments],
        cwd=directory,
        env=_environment(),
        input=stdin,
        capture_output=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr.decode(errors="replace")
    return finished.stdout.decode()


def _allow_any_commit(path: Path) -> None:
    _git(path, "config", "uploadpack.allowAnySHA1InWant", "true")


def _exists(path: Path, ref: str) -> bool:
    return bool(_git(path, "for-each-ref", f"refs/heads/{ref}"))


def _stream(commits: Sequence[Files], branch: str, parent: str | None, count: int) -> bytes:
    """The commits as input for `git fast-import`."""
    out = bytearray()
    for number, files in enumerate(commits):
        message = f"Commit {count + number + 1}".encode()
        when = _EPOCH + 60 * (count + number)
        out += f"commit refs/heads/{branch}\n".encode()
        out += f"author {_AUTHOR} {when} +0000\ncommitter {_AUTHOR} {when} +0000\n".encode()
        out += b"data %d\n%s\n" % (len(message), message)
        if number == 0 and parent is not None:
            out += f"from refs/heads/{parent}^0\n".encode()
        for path, content in files.items():
            out += _change(path, content)
        out += b"\n"
    return bytes(out)


def _change(path: str, content: Content | None) -> bytes:
    name = _quoted(path)
    match content:
        case None:
            return b"D %s\n" % name
        case Submodule(commit=commit):
            return b"M 160000 %s %s\n" % (commit.encode(), name)
        case Symlink(target=target):
            mode, data = b"120000", target.encode()
        case Executable(content=text):
            mode, data = b"100755", text.encode()
        case str():
            mode, data = b"100644", content.encode()
        case bytes():
            mode, data = b"100644", content
    return b"M %s inline %s\ndata %d\n%s\n" % (mode, name, len(data), data)


def _quoted(path: str) -> bytes:
    return b'"' + path.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").encode() + b'"'
