"""Whether a port is free, and who has it if not."""

from __future__ import annotations

import socket
from contextlib import suppress

import psutil


class PortTaken(Exception):
    """Another program listens there."""

    def __init__(self, host: str, port: int, variable: str) -> None:
        super().__init__(
            f"Port {port} on {host} is taken by {holder(port)}. Stop that, or set {variable} to a free port."
        )


class AddressUnusable(Exception):
    """This machine has no such address, or the port is not ours to use."""

    def __init__(self, host: str, port: int, variable: str, error: OSError) -> None:
        super().__init__(
            f"Nothing can listen on {host}:{port}: {error.strerror or error}. "
            f"Change PHAROS_HOST or {variable}."
        )


def require_free(host: str, port: int, variable: str) -> None:
    """PortTaken or AddressUnusable unless a program could listen there now."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen(1)
        except OSError as error:
            if error.errno is not None and holder_pid(port) is None and not _answers(host, port):
                raise AddressUnusable(host, port, variable, error) from error
            raise PortTaken(host, port, variable) from error


def is_free(host: str, port: int) -> bool:
    try:
        require_free(host, port, "")
    except (PortTaken, AddressUnusable):
        return False
    return True


def holder(port: int) -> str:
    """Who listens on *port*, as far as we may know."""
    pid = holder_pid(port)
    if pid is None:
        return "another program"
    with suppress(psutil.Error):
        return f"{psutil.Process(pid).name()} (process {pid})"
    return f"process {pid}"


def holder_pid(port: int) -> int | None:
    # macOS shows other users' sockets to root only.
    with suppress(psutil.Error, OSError):
        for connection in psutil.net_connections(kind="tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port and connection.pid:
                return int(connection.pid)
    return None


def _answers(host: str, port: int) -> bool:
    with suppress(OSError), socket.create_connection((host, port), 0.3):
        return True
    return False
