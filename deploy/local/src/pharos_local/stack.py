"""The whole of Pharos on this machine, from the first directory to the last process."""

from __future__ import annotations

import functools
import shlex
import signal
import sys
import time
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import anyio
from anyio.abc import TaskGroup

from pharos_client import AsyncPharos
from pharos_local import nats_server, ports, programs
from pharos_local.bus_health import complaint, restart_when_ill
from pharos_local.checks import unknown_variables
from pharos_local.home import Home, write_private
from pharos_local.programs import Program
from pharos_local.readiness import wait_until_ready
from pharos_local.reporting import Reporter
from pharos_local.settings import LocalSettings
from pharos_local.supervisor import Ending, Guardian, Supervisor, end_stale
from pharos_service.bus import BusError
from pharos_service.bus_admin import BusSettings
from pharos_service.settings import load

EXAMPLE: Final = "https://github.com/pallets/itsdangerous"
DECLARE_AGAIN_SECONDS: Final = 1.0


class Plan:
    """What is to be run, with everything decided and written that must be before the first process."""

    def __init__(
        self, settings: LocalSettings, home: Home, environ: Mapping[str, str], *, color: bool
    ) -> None:
        ports.require_free(settings.host, settings.port, "PHAROS_PORT")
        token_file = home.admin_token(settings.admin_token)
        secret_key_file = home.secret_key(settings.secret_key)
        self.bus: Program | None = None
        self.operator_password = ""
        if settings.nats_url:
            if settings.nats_password:
                write_private(home.bus_password_file, settings.nats_password.reveal() + "\n")
            bus_environ = programs.other_bus_environ(environ, home)
        else:
            port = _bus_port(settings, home)
            nats_server.configure(home, port)
            self.bus = programs.bus_program(home, environ)
            self.operator_password = home.operator_password().read_text(encoding="utf-8").strip()
            bus_environ = programs.own_bus_environ(home, port)
        self.services = programs.service_programs(
            settings,
            home,
            environ,
            bus_environ=bus_environ,
            token_file=token_file,
            secret_key_file=secret_key_file,
            color=color,
        )
        self.token_file = token_file
        self.bus_settings = load(BusSettings, self.services[0].environ)


def _bus_port(settings: LocalSettings, home: Home) -> int:
    """The port of this home's bus: the same at each start as long as nobody else has it.

    Homes begin their search at different places, so that two stacks that start at once do not pick the same.
    The ports are below those that systems hand out for connections: a client that keeps trying to connect to
    one of those may be given it as its own, and then the server cannot have it back.
    """
    if settings.nats_port:
        ports.require_free("127.0.0.1", settings.nats_port, "PHAROS_NATS_PORT")
        return settings.nats_port
    start = zlib.crc32(str(home.path).encode()) % nats_server.PORTS
    candidates = [
        nats_server.PORT_FIRST + (start + step) % nats_server.PORTS for step in range(nats_server.PORTS)
    ]
    for port in candidates:
        if ports.is_free("127.0.0.1", port):
            return port
    raise ports.PortTaken("127.0.0.1", candidates[0], "PHAROS_NATS_PORT")


async def run(
    settings: LocalSettings, home: Home, environ: Mapping[str, str], reporter: Reporter, guardian: Guardian
) -> int:
    """Run the stack until it is asked to stop; the exit code: 0, or 1 where it could not be kept running."""
    left = await anyio.to_thread.run_sync(end_stale, home.run)
    if left:
        reporter.say(f"ended what a killed stack had left running: {', '.join(left)}")
    for mistake in unknown_variables(environ):
        reporter.say(f"{mistake.found}. {mistake.advice}")
    plan = Plan(settings, home, environ, color=reporter.color)
    write_private(home.endpoint, settings.reachable_url + "\n")
    ending = Ending()
    supervisor = Supervisor(reporter=reporter, guardian=guardian, run_directory=home.run, ending=ending)
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_listen_for_signals, ending, reporter)
            tasks.start_soon(_start, plan, settings, home, supervisor, reporter, ending, tasks)
            await ending.wait()
            with anyio.CancelScope(shield=True):
                await supervisor.stop(programs.stop_steps(settings))
            tasks.cancel_scope.cancel()
    finally:
        home.endpoint.unlink(missing_ok=True)
    if ending.failure is not None:
        for line in ending.failure.split("\n"):
            reporter.say(line)
        return 1
    reporter.say("stopped")
    return 0


async def _start(
    plan: Plan,
    settings: LocalSettings,
    home: Home,
    supervisor: Supervisor,
    reporter: Reporter,
    ending: Ending,
    tasks: TaskGroup,
) -> None:
    """The bus, its streams, then the services; and the word that all is ready."""
    began = time.monotonic()
    declared = anyio.Event()
    reporter.say(f"starting with {home.path}; the logs are in {home.logs}")

    async def declare_streams() -> None:
        # Each time that the server starts: streams in memory went with the one before.
        await _until_declared(plan.bus_settings, reporter)
        declared.set()

    if plan.bus is None:
        tasks.start_soon(declare_streams)
    else:
        tasks.start_soon(functools.partial(supervisor.keep, plan.bus, after_start=declare_streams))
        ask = functools.partial(complaint, plan.bus_settings.nats_url, plan.operator_password)
        tasks.start_soon(restart_when_ill, ask, functools.partial(supervisor.restart, plan.bus.name))
    await declared.wait()
    for program in plan.services:
        tasks.start_soon(supervisor.keep, program)
    async with anyio.create_task_group() as waiting:

        async def give_up() -> None:
            await ending.wait()
            waiting.cancel_scope.cancel()

        waiting.start_soon(give_up)
        async with AsyncPharos(settings.reachable_url) as client:
            await wait_until_ready(client, worker_expected=settings.worker_slots > 0, say=reporter.say)
        supervisor.settled = True
        waiting.cancel_scope.cancel()
    if not supervisor.settled:
        return
    reporter.say(f"all parts run, after {time.monotonic() - began:.1f} s")
    reporter.announce(f"Pharos is ready at {settings.url}")
    reporter.announce(f"The admin token is in {plan.token_file}")
    reporter.announce(f"Next, in another terminal: {next_command(home, Path.cwd())}")


async def _until_declared(settings: BusSettings, reporter: Reporter) -> None:
    while True:
        try:
            changed = await nats_server.declare_streams(settings)
        except TimeoutError:
            reporter.say(f"no NATS server answers at {settings.nats_url}; trying again")
        except BusError as error:
            reporter.say(f"the bus could not be set up: {error}; trying again")
            await anyio.sleep(DECLARE_AGAIN_SECONDS)
        else:
            if changed:
                reporter.say(f"the bus is set up: {changed} streams and consumers made or changed")
            return


async def _listen_for_signals(ending: Ending, reporter: Reporter) -> None:
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as received:
        async for number in received:
            reporter.say(f"{signal.Signals(number).name} received; stopping in order")
            ending.asked()


def next_command(home: Home, here: Path) -> str:
    """What to type in the directory *here* to index a first repository."""
    command = Path(sys.executable).parent / "pharos"
    shown = command.relative_to(here) if command.is_relative_to(here) else command
    own_home = "" if home.path == here / ".pharos" else f"PHAROS_HOME={shlex.quote(str(home.path))} "
    return f"{own_home}{shown} ingest {EXAMPLE} --watch"
