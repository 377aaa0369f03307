"""``PHAROS_HOME``: its directories, its secrets, and the lock that keeps two stacks out of one home."""

from __future__ import annotations

import fcntl
import os
import secrets
import time
from pathlib import Path
from types import TracebackType
from typing import Final

import psutil

from pharos_service.settings import Secret

TOKEN_BYTES: Final = 32
LOCK_POLL_SECONDS: Final = 0.1
LOCK_SECONDS_MAX: Final = 15.0


class HomeInUse(Exception):
    """Another stack uses this home."""

    def __init__(self, home: Path, pid: int | None) -> None:
        who = f"process {pid}" if pid is not None else "another process"
        super().__init__(
            f"A Pharos runs with {home} already ({who}). Stop it, or give the second one a home and a port "
            "of its own: PHAROS_HOME=./.pharos-2 PHAROS_PORT=8001 make run."
        )


class HomeUnusable(Exception):
    """The home cannot be written."""

    def __init__(self, home: Path, error: OSError) -> None:
        super().__init__(
            f"PHAROS_HOME is {home}, which cannot be used: {error.strerror or error}. Name a directory "
            "that you may write to."
        )


class Home:
    """The paths of one installation."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.logs = path / "logs"
        self.run = path / "run"
        self.bus = path / "nats"
        self.token_file = path / "admin-token"
        self.secret_key_file = path / "secret-key"
        self.bus_password_file = path / "nats-password"
        self.operator_password_file = path / "nats-operator-password"
        self.bus_configuration = path / "nats.conf"
        self.endpoint = path / "endpoint"
        self.lock_file = path / "lock"

    def create(self) -> None:
        """Make what is missing, readable by its owner only; HomeUnusable where that is not possible."""
        try:
            for directory in (self.path, self.logs, self.run, self.bus):
                directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.path.chmod(0o700)
        except OSError as error:
            raise HomeUnusable(self.path, error) from error

    def admin_token(self, given: Secret) -> Path:
        """The file with the admin token: *given*, else the one from before, else a new one."""
        return _secret(self.token_file, given.reveal() or None)

    def secret_key(self, given: Secret) -> Path:
        """The file with the key that other secrets are derived from: chosen as the admin token is."""
        return _secret(self.secret_key_file, given.reveal() or None)

    def bus_password(self) -> Path:
        """The file with the password of the stack's own bus."""
        return _secret(self.bus_password_file, None)

    def operator_password(self) -> Path:
        """The file with the password of who asks that bus how it is."""
        return _secret(self.operator_password_file, None)


def write_private(path: Path, text: str) -> None:
    """Replace *path* whole, mode 0600: a reader sees the old text or the new one."""
    fresh = path.with_name(f".{path.name}.new")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)


def _secret(path: Path, value: str | None) -> Path:
    known = path.read_text(encoding="utf-8").strip() if path.exists() else ""
    wanted = value or known or secrets.token_urlsafe(TOKEN_BYTES)
    if wanted != known:
        write_private(path, wanted + "\n")
    path.chmod(0o600)
    return path


class Lock:
    """Held by the supervisor, and by its guardian until every program is gone. Use it in a ``with`` block."""

    def __init__(self, home: Home, *, seconds_max: float = LOCK_SECONDS_MAX) -> None:
        self._home = home
        self._seconds_max = seconds_max
        self._descriptor = -1

    def fileno(self) -> int:
        return self._descriptor

    def __enter__(self) -> Lock:
        """HomeInUse at once where its owner lives; one that died is given time to be cleaned up after."""
        self._descriptor = os.open(self._home.lock_file, os.O_RDWR | os.O_CREAT, 0o600)
        deadline = time.monotonic() + self._seconds_max
        while not self._try():
            owner = self._owner()
            if (owner is not None and psutil.pid_exists(owner)) or time.monotonic() > deadline:
                os.close(self._descriptor)
                raise HomeInUse(self._home.path, owner)
            time.sleep(LOCK_POLL_SECONDS)
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, f"{os.getpid()}\n".encode(), 0)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.ftruncate(self._descriptor, 0)
        os.close(self._descriptor)

    def _try(self) -> bool:
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _owner(self) -> int | None:
        text = os.pread(self._descriptor, 20, 0).decode("ascii", errors="replace").strip()
        return int(text) if text.isdigit() else None


def owner(home: Home) -> int | None:
    """The process that runs this home now; None where none does."""
    try:
        with home.lock_file.open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                text = file.read(20).decode("ascii", errors="replace").strip()
                return int(text) if text.isdigit() else 0
    except OSError:
        pass
    return None
