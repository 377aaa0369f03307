"""Each service, started as its pod would start it: same settings and secret files, other addresses."""

from __future__ import annotations

import contextlib
import http.client
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.manifests import PROCESS_OF, Container, environ, every_container
from tests.support.nats_server import NatsServer, free_port
from tests.support.workspace import service

PASSWORD = "pharos-0123456789abcdef"
START_SECONDS_MAX = 90

# The worker's store is a Qdrant server and its device a GPU: the search role has the same process and bus.
STARTED = ("gateway", "scheduler", "history", "search")


@pytest.fixture(scope="module")
def nats_server() -> Iterator[NatsServer]:
    """It lets nobody in without the password."""
    server = NatsServer()
    with (server.directory / "nats.conf").open("a") as configuration:
        configuration.write(f'authorization {{ users: [{{ user: pharos, password: "{PASSWORD}" }}] }}\n')
    with server:
        yield server


def environment(container: Container, nats_server: NatsServer, folder: Path) -> dict[str, str]:
    """What the pod's process would find, at home in *folder* and beside *nats_server*."""
    contents = {"nats-password": PASSWORD, "database-url": f"sqlite:///{folder}/history.sqlite3"}

    def secret_file(key: str) -> str:
        (folder / key).write_text(contents.get(key, "0123456789abcdef" * 3))
        return str(folder / key)

    found = environ(container, secret_file) | {
        "PHAROS_NATS_URL": nats_server.url,
        "PHAROS_BUS_REPLICAS": "1",
        "PHAROS_HOME": str(folder / "home"),
        "PHAROS_PORT": str(free_port()),
        "PHAROS_HEALTH_PORT": str(free_port()),
        "PHAROS_STORE": "edge",
        "HOME": str(folder / "home"),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    del found["PHAROS_QDRANT_URL"]
    (folder / "home").mkdir()
    return found


@pytest.fixture(scope="module")
def declared_bus(nats_server: NatsServer, tmp_path_factory: pytest.TempPathFactory) -> NatsServer:
    bus = every_container()["bus"]
    result = subprocess.run(
        bus.spec["command"],
        env=environment(bus, nats_server, tmp_path_factory.mktemp("bus")),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return nats_server


def status(port: int, path: str) -> int | None:
    """The answer to a probe; None for none."""
    with (
        contextlib.suppress(OSError, http.client.HTTPException),
        contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=3)) as connection,
    ):
        connection.request("GET", path)
        return connection.getresponse().status
    return None


@pytest.mark.parametrize("name", STARTED)
def test_a_service_gets_ready_and_stops_when_asked_to(
    name: str, declared_bus: NatsServer, tmp_path: Path
) -> None:
    container = every_container()[name]
    variables = environment(container, declared_bus, tmp_path)
    port = int(variables["PHAROS_PORT" if name == "gateway" else "PHAROS_HEALTH_PORT"])
    module = service(PROCESS_OF[name]).module
    command = [sys.executable, "-m", module, *container.spec.get("args", ())]
    log = tmp_path / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=variables, cwd=tmp_path, stdout=output, stderr=output)
    try:
        deadline = time.monotonic() + START_SECONDS_MAX
        while status(port, container.spec["readinessProbe"]["httpGet"]["path"]) != 200:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        assert status(port, container.spec["livenessProbe"]["httpGet"]["path"]) == 200
        process.terminate()
        assert process.wait(container.pod["spec"]["terminationGracePeriodSeconds"]) == 0, log.read_text()
    finally:
        process.kill()
        process.wait()
    assert PASSWORD not in log.read_text()
