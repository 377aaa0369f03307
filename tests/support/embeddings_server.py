"""A server that speaks OpenAI's API for embeddings, as well or as badly as a test wants.

Its vectors are of words: texts that share words are near each other, so that a search over them finds what
it should.
"""

from __future__ import annotations

import base64
import json
import struct
import threading
import time
import zlib
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Final

import numpy as np

MODEL: Final = "words-3"
KEY: Final = "sk-test-0123456789abcdef"

Behaviour = Callable[["_Handler", "Asked"], None]


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One request, as it arrived."""

    inputs: Sequence[str]
    body: dict[str, Any]
    headers: dict[str, str]
    at: float


def vector_of(text: str, dimensions: int) -> np.ndarray[Any, Any]:
    """(D,) of the words of *text*, longer than unit length: a client may not rely on it."""
    made = np.full(dimensions, 0.01, dtype=np.float32)
    for word in text.lower().replace("_", " ").split():
        made[zlib.crc32(word.encode()) % dimensions] += 1
    return made * 3


@dataclass
class _State:
    dimensions: int
    requests: list[Asked] = field(default_factory=list)
    script: deque[Behaviour] = field(default_factory=deque)
    always: Behaviour | None = None
    headers: dict[str, str] = field(default_factory=dict)
    inputs_max: int = 2048
    input_characters_max: int = 1_000_000
    knows_base64: bool = True
    gate: threading.Event = field(default_factory=threading.Event)
    reached: threading.Event = field(default_factory=threading.Event)
    at_once: int = 0
    at_once_max: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: _State

    def log_message(self, format: str, *args: Any) -> None:
        """Nobody reads it."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        asked = Asked(
            inputs=tuple(body["input"]),
            body=body,
            headers={name.lower(): value for name, value in self.headers.items()},
            at=time.monotonic(),
        )
        state = self.state
        with state.lock:
            state.requests.append(asked)
            state.at_once += 1
            state.at_once_max = max(state.at_once_max, state.at_once)
            behaviour = state.script.popleft() if state.script else state.always or properly
        try:
            behaviour(self, asked)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True
        finally:
            with state.lock:
                state.at_once -= 1

    def answer(self, status: int, body: bytes, *, length: int | None = None, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body) if length is None else length))
        for name, value in {**self.state.headers, **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def refuse(self, status: int, code: str, **headers: str) -> None:
        """As OpenAI does; the message repeats what was sent, which nobody may pass on."""
        message = f"no: {self.headers.get('Authorization')}"
        self.answer(status, json.dumps({"error": {"message": message, "code": code}}).encode(), **headers)


def properly(handler: _Handler, asked: Asked) -> None:
    """Answer, or refuse what a good server refuses."""
    state = handler.state
    if handler.path != "/v1/embeddings":
        return handler.refuse(404, "not_found")
    if asked.headers.get("authorization") != f"Bearer {KEY}":
        return handler.refuse(401, "invalid_api_key")
    if asked.body["model"] != MODEL:
        return handler.refuse(404, "model_not_found")
    if len(asked.inputs) > state.inputs_max:
        return handler.refuse(422, "too_many_inputs")
    if any(not 0 < len(each) <= state.input_characters_max for each in asked.inputs):
        return handler.refuse(400, "context_length_exceeded")
    packed = asked.body["encoding_format"] == "base64"
    if packed and not state.knows_base64:
        return handler.refuse(400, "unknown_encoding_format")
    handler.answer(200, json.dumps(content(state, asked)).encode())
    return None


def content(state: _State, asked: Asked) -> dict[str, Any]:
    """The body of a good answer, its vectors in no order."""
    width = asked.body.get("dimensions", state.dimensions)
    packed = asked.body["encoding_format"] == "base64"
    data = []
    for index, text in enumerate(asked.inputs):
        numbers = vector_of(text, width).tolist()
        embedding = base64.b64encode(struct.pack(f"<{width}f", *numbers)).decode() if packed else numbers
        data.append({"object": "embedding", "index": index, "embedding": embedding})
    return {
        "object": "list",
        "data": data[::-1],
        "model": MODEL,
        "usage": {"prompt_tokens": 7 * len(data), "total_tokens": 7 * len(data)},
    }


def refusing(status: int, code: str = "", **headers: str) -> Behaviour:
    return lambda handler, asked: handler.refuse(status, code, **headers)


def saying(change: Callable[[dict[str, Any]], Any]) -> Behaviour:
    """An answer as *change* leaves it."""

    def answer(handler: _Handler, asked: Asked) -> None:
        body = content(handler.state, asked)
        changed = change(body)
        handler.answer(200, json.dumps(body if changed is None else changed).encode())

    return answer


def truncated(handler: _Handler, asked: Asked) -> None:
    """An answer that ends early, with the connection."""
    body = json.dumps(content(handler.state, asked)).encode()
    handler.answer(200, body[: len(body) // 2], length=len(body))
    handler.close_connection = True


def hanging_up(handler: _Handler, asked: Asked) -> None:
    handler.close_connection = True


def gated(handler: _Handler, asked: Asked) -> None:
    """An answer that comes when the test opens the gate."""
    handler.state.reached.set()
    handler.state.gate.wait(100)
    properly(handler, asked)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no news."""


class EmbeddingsServer:
    """Listens on 127.0.0.1 while the `with` block lasts. `script` is what the next requests meet."""

    def __init__(self, *, dimensions: int = 8) -> None:
        self.state = _State(dimensions)
        handler = type("Handler", (_Handler,), {"state": self.state})
        self._server = _Server(("127.0.0.1", 0), handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    def __enter__(self) -> EmbeddingsServer:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.state.gate.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def requests(self) -> list[Asked]:
        return self.state.requests

    def script(self, *behaviours: Behaviour) -> None:
        self.state.script.extend(behaviours)
