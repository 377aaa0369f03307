"""A gateway that answers what a test says, over httpx's transports and, for the command, over a socket."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from typing import Any

import httpx

TOKEN = "t" * 40

JOB: dict[str, Any] = {
    "job_id": "0190b6c6-0000-7000-8000-000000000003",
    "number": 3,
    "state": "queued",
    "kind": "repository",
    "source": {"identity": "github.com/o/r", "clone_url": "https://github.com/o/r"},
    "project": "default",
    "dataset": None,
    "submitted_at": "2026-01-20T10:30:00Z",
    "attempt": 0,
    "waiting_for_worker": False,
    "a_field_of_tomorrow": 1,
}
RESULT: dict[str, Any] = {
    "dataset": "github.com/o/r@main",
    "generation": 1,
    "commit": "1a2b3c4d5e6f",
    "branch": "main",
    "files_processed": 27,
    "embeddings_generated": 181,
    "chunks": 181,
    "chunks_encoded": 150,
    "chunks_reused": 31,
    "edges": 64,
    "left_out": {"binary": 3, "generated": 2},
    "left_out_examples": {"binary": ["a.bin", "b.bin", "c.bin"], "generated": ["pb.go"]},
    "warnings": [{"message": "cannot be parsed", "path": "src/bad.py"}],
    "warnings_total": 1,
}
COMPLETED = {
    **JOB,
    "state": "completed",
    "attempt": 1,
    "started_at": "2026-01-20T10:30:01Z",
    "ended_at": "2026-01-20T10:30:13.500Z",
    "result": RESULT,
}
DEAD_LETTER: dict[str, Any] = {
    "id": JOB["job_id"],
    "kind": "job",
    "tenant": "default",
    "at": "2026-01-20T10:30:00Z",
    "reason": "Its worker died twice while it worked on this job",
    "code": "poison",
    "job": {**JOB, "state": "failed"},
    "deaths": 2,
    "workers": ["box"],
}
KEY: dict[str, Any] = {
    "id": "mzxw6ytboi4dcmrt",
    "tenant": "acme",
    "user": "ada",
    "role": "editor",
    "projects": ["atlas"],
    "name": "laptop",
    "state": "active",
    "created_at": "2026-01-20T10:30:00Z",
    "created_by": "admin",
    "expires_at": "2027-01-20T10:30:00Z",
    "rotated_at": None,
    "previous_until": None,
    "disabled_at": None,
    "disabled_by": None,
}
SCHEDULE: dict[str, Any] = {
    "id": "nightly",
    "tenant": "default",
    "repository": "github.com/o/r",
    "branch": "main",
    "cron": "0 3 * * *",
    "timezone": "Europe/Berlin",
    "next_run_at": "2026-01-21T02:04:17Z",
    "last_outcome": "completed",
}
SUBMITTED = {
    "status": "dispatched",
    "job_id": 3,
    "queue_position": 1,
    "target": "box",
    "queue_size": 1,
    "max_queue_size": 10,
}
ANSWER: dict[str, Any] = {
    "request_id": "r1",
    "results": [
        {
            "id": "c1",
            "chunk": "def sign(value):\n    return value\n",
            "file": "src/signer.py",
            "lineSpan": {"start": 12, "end": 13},
            "symbol": "sign",
            "kind": "function",
            "language": "python",
            "repository": "github.com/o/r",
            "commit": "1a2b3c4d5e6f",
            "url": "https://github.com/o/r/blob/1a2b3c4d5e6f/src/signer.py#L12-L13",
            "scores": {"dense": 0.71, "sparse": 12.3, "structural": None, "rerank": None, "final": 0.83},
        }
    ],
    "metadata": {"mode": "hybrid"},
    "latency_ms": 12.4,
}


def sse(name: str, data: dict[str, Any], own_id: int | None = None) -> bytes:
    head = f"id: {own_id}\n" if own_id is not None else ""
    return f"{head}event: {name}\ndata: {json.dumps(data)}\n\n".encode()


class Broken(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A body that is cut off by a lost connection."""

    def __init__(self, *chunks: bytes) -> None:
        self._chunks = chunks

    def __iter__(self) -> Iterator[bytes]:
        yield from self._chunks
        raise httpx.ReadError("connection reset")

    async def __aiter__(self):  # type: ignore[no-untyped-def]
        for chunk in self._chunks:
            yield chunk
        raise httpx.ReadError("connection reset")


class FakeGateway:
    """Serves ``routes`` on a free port, in a ``with`` block: a path maps to a body, or to (status, body).

    A route that begins with ``DELETE`` or ``POST`` and a space is for that method alone.

    A path of events maps to the chunks of its stream; each connection takes the next list of chunks.
    """

    def __init__(self, routes: dict[str, Any] | None = None) -> None:
        self.routes: dict[str, Any] = dict(routes or {})
        self.streams: list[list[bytes]] = []
        self.requests: list[tuple[str, str, str | None]] = []
        self.bodies: list[bytes] = []
        gateway = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                gateway._answer(self)

            def do_POST(self) -> None:
                gateway.bodies.append(self.rfile.read(int(self.headers.get("Content-Length") or 0)))
                gateway._answer(self)

            def do_DELETE(self) -> None:
                gateway._answer(self)

            def log_message(self, format: str, *args: object) -> None:
                """Silent."""

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self.closing = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> FakeGateway:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _answer(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        path = handler.path.partition("?")[0]
        self.requests.append((handler.command, handler.path, handler.headers.get("Authorization")))
        path = f"{handler.command} {path}" if f"{handler.command} {path}" in self.routes else path
        if path.endswith("/events"):
            self._stream(handler)
            return
        found = self.routes.get(path, (404, {"detail": "There is no such thing", "code": "not_found"}))
        status, body = found if isinstance(found, tuple) else (200, found)
        payload = json.dumps(body).encode()
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(payload)))
        handler.end_headers()
        handler.wfile.write(payload)

    def _stream(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        """The next script of chunks; a callable among them is called, the last script stays open."""
        script = self.streams.pop(0) if self.streams else []
        handler.send_response(200)
        handler.send_header("Content-Type", "text/event-stream")
        handler.end_headers()
        for chunk in script:
            if callable(chunk):
                chunk()
            else:
                handler.wfile.write(chunk)
                handler.wfile.flush()
        if not self.streams:
            self.closing.wait(20)
