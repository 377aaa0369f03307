"""Every process of Pharos by itself, with its own line to the bus and its own disk: any one can be harmed.

`make run` gives all of them one address of the bus. Here a proxy stands before each, and a keeper starts what
dies again, as soon as `make run` would.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import httpx
import nats
from nats.aio.msg import Msg

from pharos_contracts import streams
from pharos_contracts.streams import BusLimits, declare
from pharos_local.backoff import WAIT_SECONDS_FIRST
from pharos_service.buckets import Bucket
from pharos_service.bus import TROUBLE, Bus, connection_options
from pharos_service.bus_admin import apply
from pharos_service.lease import Lease
from pharos_service.settings import ServiceSettings
from tests.support.git_server import GitServer
from tests.support.nats_server import executable, free_port
from tests.support.proxy import Network, Proxy
from tests.support.stack import eventually

READY_SECONDS: Final = 120.0
STOP_SECONDS: Final = 10.0
QUEUE_MAX: Final = 50
TOKEN: Final = "an-admin-token-of-more-than-32-characters"
MiB: Final = 1024 * 1024

GATEWAY: Final = "gateway"
SCHEDULERS: Final = ("scheduler-1", "scheduler-2")
WORKER: Final = "worker"
HISTORY: Final = "history"
BUS: Final = "nats-server"


class Disk:
    """A folder that has a file system in memory to itself, if one may be mounted; then it can be full."""

    def __init__(self, path: Path, size: int) -> None:
        self.path = path
        self.mounted = False
        self._size = size

    def mount(self) -> None:
        self.path.mkdir(parents=True)
        self.mounted = _told("mount", "-t", "tmpfs", "-o", f"size={self._size}", "pharos", str(self.path))

    def fill(self) -> None:
        """Leave no room at all: the file system shrinks to what it holds."""
        assert self.mounted, "only a file system of its own can be filled"

        def filled() -> bool:
            of = os.statvfs(self.path)
            used = (of.f_blocks - of.f_bfree) * of.f_frsize
            return self._resize(max(used, of.f_frsize))  # refused where more was written meanwhile

        eventually(lambda: filled() or None, seconds=5, poll_seconds=0)

    def heal(self) -> None:
        self._resize(self._size)

    def _resize(self, size: int) -> bool:
        return _told("mount", "-o", f"remount,size={size}", str(self.path))

    def unmount(self) -> None:
        if self.mounted:
            _told("umount", "--lazy", str(self.path))


def _told(*command: str) -> bool:
    """Whether *command* could be done."""
    if shutil.which(command[0]) is None:
        return False
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


class Service:
    """A program that is started again whenever it ends. ``endings``: the exit codes so far."""

    def __init__(
        self,
        name: str,
        command: tuple[str, ...],
        environ: Mapping[str, str],
        log: Path,
        *,
        after_start: Callable[[], None] = lambda: None,
    ) -> None:
        self.name = name
        self.endings: list[int] = []
        self._command = command
        self._environ = dict(environ)
        self._log = log
        self._after_start = after_start
        self._process: subprocess.Popen[bytes] | None = None
        self._stopping = threading.Event()
        self._keeper = threading.Thread(target=self._keep, name=f"keeper of {name}", daemon=True)
        self._throttle: threading.Thread | None = None
        self._throttled = threading.Event()

    @property
    def pid(self) -> int:
        assert self._process is not None, "start it first"
        return self._process.pid

    def start(self) -> None:
        self._start()
        self._keeper.start()

    def _start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                env=self._environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _keep(self) -> None:
        while True:
            assert self._process is not None
            self._after_start()
            code = self._process.wait()
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)  # whatever it started goes with it
            if self._stopping.is_set():
                return
            self.endings.append(code)
            time.sleep(WAIT_SECONDS_FIRST)
            if self._stopping.is_set():
                return
            self._start()

    def kill(self) -> None:
        """As a crash would: kill -9."""
        self._signal(signal.SIGKILL)

    def restart(self) -> None:
        """As an operator would: SIGTERM, and the keeper starts it again."""
        self._signal(signal.SIGTERM)

    def freeze(self) -> None:
        """As a machine under pressure would: connections stand, nothing answers."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def throttle(self, share: float, period_seconds: float = 0.1) -> None:
        """Let it run for no more than *share* of the time, until ``unthrottle``."""

        def turn() -> None:
            while self._throttled.is_set():
                self.freeze()
                time.sleep(period_seconds * (1 - share))
                self.thaw()
                time.sleep(period_seconds * share)

        self._throttled.set()
        self._throttle = threading.Thread(target=turn, daemon=True)
        self._throttle.start()

    def unthrottle(self) -> None:
        self._throttled.clear()
        if self._throttle is not None:
            self._throttle.join(STOP_SECONDS)
            self._throttle = None

    def _signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def stop(self) -> None:
        """SIGTERM, then SIGKILL; nothing of it is left."""
        if self._process is None:
            return
        self._stopping.set()
        self.unthrottle()
        self.thaw()
        self._signal(signal.SIGTERM)
        self._keeper.join(STOP_SECONDS)
        if self._keeper.is_alive():
            self.kill()
            self._keeper.join(STOP_SECONDS)

    def last_words(self, lines: int = 30) -> str:
        text = self._log.read_text(errors="replace") if self._log.exists() else ""
        return "\n".join(text.splitlines()[-lines:])


@dataclass(slots=True)
class Heard:
    """A message as it went over the bus. ``at`` is of the monotonic clock."""

    at: float
    subject: str
    data: bytes


@dataclass(slots=True)
class Reflex:
    """What is done in the very moment in which something is heard; once."""

    wanted: Callable[[Heard], bool]
    act: Callable[[Heard], None]
    fired: threading.Event = field(default_factory=threading.Event)


class Ear:
    """Hears what is said on the bus while it is said. Nothing that was said while the bus was away."""

    SUBJECTS: Final = ("events.>", "progress.>", "cmd.>", "work.>")

    def __init__(self) -> None:
        self._heard: deque[Heard] = deque(maxlen=20_000)
        self._reflexes: list[Reflex] = []
        self._changed = threading.Condition()

    async def hear(self, message: Msg) -> None:
        heard = Heard(time.monotonic(), message.subject, message.data)
        with self._changed:
            self._heard.append(heard)
            for reflex in tuple(self._reflexes):
                if reflex.wanted(heard):
                    self._reflexes.remove(reflex)
                    reflex.act(heard)
                    reflex.fired.set()
            self._changed.notify_all()

    def reflex(self, wanted: Callable[[Heard], bool], act: Callable[[Heard], None]) -> Reflex:
        """Do *act* in the thread of the network as soon as *wanted* is heard. It must not block."""
        reflex = Reflex(wanted, act)
        with self._changed:
            self._reflexes.append(reflex)
        return reflex

    def forget(self) -> None:
        """What was heard so far, and what was to be done about it."""
        with self._changed:
            self._heard.clear()
            self._reflexes.clear()

    def all(self) -> list[Heard]:
        with self._changed:
            return list(self._heard)

    def wait(self, wanted: Callable[[Heard], bool], seconds: float = 60) -> Heard:
        """The first that is *wanted* of all that was heard; waits for it."""

        def found() -> Heard | None:
            return next((each for each in self._heard if wanted(each)), None)

        with self._changed:
            if not self._changed.wait_for(lambda: found() is not None, seconds):
                last = [f"{each.subject} {each.data[-200:]!r}" for each in tuple(self._heard)[-5:]]
                raise AssertionError(f"not heard within {seconds} s; the last that was heard: {last}")
            heard = found()
            assert heard is not None
            return heard


class FaultyStack:
    """All of Pharos, two schedulers and a worker of two slots; start it with ``with``."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="pharos-faults-"))
        self.network = Network()
        self.git_server = GitServer()
        self.ear = Ear()
        self.port = free_port()
        self.disks = {
            BUS: Disk(self.folder / "bus", 1024 * MiB),
            HISTORY: Disk(self.folder / "history", 64 * MiB),
            WORKER: Disk(self.folder / "worker", 512 * MiB),
            "store": Disk(self.folder / "worker" / "index", 1024 * MiB),
            "nobody": Disk(self.folder / "nobody", MiB),
        }
        self.services: dict[str, Service] = {}
        self.lines: dict[str, Proxy] = {}
        self._bus_port = free_port()
        self._health_ports: dict[str, int] = {}
        self._bus: Bus | None = None

    # What may be asked of it

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def git_line(self) -> Proxy:
        """Between the worker and every repository: held, it holds every clone."""
        return self.lines["git"]

    @property
    def bus(self) -> Bus:
        """The bus, past every proxy. For coroutines that ``network.call`` runs."""
        assert self._bus is not None, "start it first"
        return self._bus

    @property
    def can_fill_disks(self) -> bool:
        return all(disk.mounted for disk in self.disks.values())

    def repository_url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.git_line.port}/{name}"

    def client(self, tenant: str, timeout: float = 20) -> httpx.Client:
        return httpx.Client(
            base_url=self.url,
            headers={"Authorization": f"Bearer {TOKEN}", "x-tenant": tenant},
            timeout=timeout,
            trust_env=False,
        )

    def leader(self) -> str | None:
        """The scheduler that holds the lease; None while nobody does."""

        async def read() -> str | None:
            entry = await Bucket(self.bus, streams.KV_LEASE, Lease).get("scheduler")
            return None if entry is None else entry.value.holder

        with suppress(*TROUBLE):
            holder = self.network.call(read())
            for name in SCHEDULERS:
                if holder is not None and holder.endswith(f"-{self.services[name].pid}"):
                    return name
        return None

    def wait_until_ready(self) -> None:
        """Until every part answers, a worker is there, one scheduler leads and the other one stands by."""
        with self.client("default", timeout=5) as client:

            def missing() -> list[str]:
                found = [name for name, port in self._health_ports.items() if not _answers(port)]
                try:
                    health = client.get("/health").json()
                    found += [
                        name
                        for name, word in health.get("dependencies", {"gateway": "mute"}).items()
                        if word != "ok"
                    ]
                    status = client.get("/api/v1/ingestion/worker/status").json()
                    found += ["a worker"] if status.get("status", "Offline") == "Offline" else []
                except (httpx.TransportError, ValueError):
                    found.append("the gateway")
                found += [] if self.leader() else ["a leader"]
                return found

            try:
                eventually(lambda: not missing() or None, seconds=READY_SECONDS)
            except AssertionError:
                raise AssertionError(f"not ready: {', '.join(missing())}\n{self.last_words()}") from None

    def last_words(self) -> str:
        return "\n".join(f"--- {name}\n{each.last_words()}" for name, each in self.services.items())

    # Its life

    def __enter__(self) -> FaultyStack:
        try:
            self._start()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def _start(self) -> None:
        self.network.__enter__()
        self.git_server.__enter__()
        for disk in self.disks.values():
            disk.mount()
        if self.disks["nobody"].mounted:
            (self.disks["nobody"].path / "full").write_bytes(bytes(MiB))
        self.lines["git"] = self.network.proxy(self.git_server.port)
        self._start_bus()
        for name, module, arguments, settings in (
            (WORKER, "pharos_embedder", ("--role", "all"), self._worker_settings()),
            (HISTORY, "pharos_history", (), {}),
            (SCHEDULERS[0], "pharos_scheduler", (), {}),
            (SCHEDULERS[1], "pharos_scheduler", (), {}),
            # Its disk of its own is small: it is the other parts' that are filled.
            (GATEWAY, "pharos_gateway", (), {"PHAROS_PORT": str(self.port), "PHAROS_DISK_FREE_MIN_MB": "0"}),
        ):
            self._start_service(name, (sys.executable, "-m", module, *arguments), settings)
        self.wait_until_ready()

    def _worker_settings(self) -> dict[str, str]:
        return {
            "PHAROS_WORKER_NAME": "worker",
            "PHAROS_WORKER_SLOTS": "2",
            "PHAROS_VECTOR_CACHE_MAX_MB": "64",
            # Small batches, so that there are many moments between the first and the last.
            "PHAROS_EMBEDDING_BATCH_TOKENS": "1024",
        }

    def _start_bus(self) -> None:
        configuration = self.folder / "nats.conf"
        configuration.write_text(
            f'listen: "127.0.0.1:{self._bus_port}"\n'
            f'jetstream {{ store_dir: "{self.disks[BUS].path}", sync_interval: always, '
            "max_file_store: 16GB, max_memory_store: 256MB }\n"
        )
        service = Service(
            BUS,
            (executable(), "-c", str(configuration)),
            _environ(),
            self.folder / f"{BUS}.log",
            after_start=self._declare_streams,
        )
        self.services[BUS] = service
        self._bus = self.network.call(self._connect())
        service.start()
        eventually(lambda: self.bus.connected or None, seconds=10)
        eventually(lambda: self._is_declared() or None, seconds=10)

    async def _connect(self) -> Bus:
        client = nats.NATS()
        options = connection_options(ServiceSettings(), "faults")
        self._connecting = asyncio.create_task(self._listen(client, options))
        return Bus(client)

    async def _listen(self, client: nats.NATS, options: dict[str, Any]) -> None:
        await client.connect(f"nats://127.0.0.1:{self._bus_port}", **options)
        for subject in Ear.SUBJECTS:
            await client.subscribe(subject, cb=self.ear.hear)

    def _declare_streams(self) -> None:
        """After each start of the server: streams in memory went with the one before."""

        async def declare_all() -> None:
            await apply(self.bus, declare(BusLimits(queue_max=QUEUE_MAX)), 1)

        def declared() -> bool:
            try:
                self.network.call(declare_all())
            except (*TROUBLE, TimeoutError):
                return False
            return True

        eventually(lambda: declared() or None, seconds=30)

    def _is_declared(self) -> bool:
        async def look() -> None:
            await self.bus.api(f"CONSUMER.INFO.{streams.JOBS}.{streams.HISTORY}")

        try:
            self.network.call(look())
        except TROUBLE:
            return False
        return True

    def _start_service(self, name: str, command: tuple[str, ...], settings: Mapping[str, str]) -> None:
        self.lines[name] = self.network.proxy(self._bus_port)
        disk = self.disks.get(name, self.disks["nobody"])
        health: dict[str, str] = {}
        if name != GATEWAY:
            self._health_ports[name] = free_port()
            health = {"PHAROS_HEALTH_PORT": str(self._health_ports[name])}
        environ = {
            **_environ(),
            "PHAROS_NATS_URL": f"nats://127.0.0.1:{self.lines[name].port}",
            "PHAROS_HOME": str(disk.path),
            "PHAROS_GIT_ALLOWED_HOSTS": f"http://127.0.0.1:{self.git_line.port}",
            "PHAROS_ADMIN_TOKEN": TOKEN,
            "PHAROS_LOG_FORMAT": "json",
            "PYTHONUNBUFFERED": "1",
            **health,
            **settings,
        }
        self.services[name] = Service(name, command, environ, self.folder / f"{name}.log")
        self.services[name].start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for line in self.lines.values():
            line.heal()
        for name in (GATEWAY, *SCHEDULERS, WORKER, HISTORY, BUS):
            if name in self.services:
                self.services[name].stop()
        if self._bus is not None:
            with suppress(Exception):
                self._connecting.cancel()
                self.network.call(self._bus.client.close())
        with suppress(AssertionError):
            self.git_server.__exit__(None, None, None)
        self.network.__exit__(None, None, None)
        for disk in reversed(self.disks.values()):
            disk.unmount()
        shutil.rmtree(self.folder, ignore_errors=True)


def _environ() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("PHAROS_")}


def _answers(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=2, trust_env=False).status_code == 200
    except httpx.TransportError:
        return False
