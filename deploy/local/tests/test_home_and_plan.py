"""What is decided and written before the first process starts."""

from __future__ import annotations

import io
import socket
import stat
import threading
from pathlib import Path

import pytest

from pharos_embedder.settings import Settings as EmbedderSettings
from pharos_local import nats_server, ports, programs
from pharos_local.bus_command import port_of
from pharos_local.home import Home, HomeUnusable
from pharos_local.nats_server import configuration
from pharos_local.reporting import FILES_KEPT, LogFile, Reporter
from pharos_local.settings import LocalSettings
from pharos_local.stack import Plan, next_command
from pharos_service.settings import InvalidSettings, Secret, load, table
from tests.support.nats_server import free_port

TOKEN = "t" * 32


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def plan(home: Home, **environ: str) -> Plan:
    environ = {"PHAROS_PORT": str(free_port()), **environ}
    return Plan(load(LocalSettings, environ), home, environ, color=False)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = Home(tmp_path / "deep" / "home")
    made.create()
    return made


def test_home_and_secrets_are_for_their_owner_only(home: Home) -> None:
    plan(home)
    assert mode(home.path) == 0o700
    for path in (
        home.token_file,
        home.bus_password_file,
        home.operator_password_file,
        home.bus_configuration,
    ):
        assert mode(path) == 0o600
    assert len(home.token_file.read_text().strip()) >= 43


def test_secrets_stay_from_one_start_to_the_next(home: Home) -> None:
    plan(home)
    before = (home.token_file.read_text(), home.bus_password_file.read_text())
    home.token_file.chmod(0o644)
    plan(home)
    assert (home.token_file.read_text(), home.bus_password_file.read_text()) == before
    assert mode(home.token_file) == 0o600


def test_a_token_that_was_given_is_the_one_in_use(home: Home) -> None:
    plan(home, PHAROS_ADMIN_TOKEN=TOKEN)
    assert home.token_file.read_text().strip() == TOKEN


def test_a_short_token_is_refused() -> None:
    with pytest.raises(InvalidSettings, match="has 5 characters"):
        load(LocalSettings, {"PHAROS_ADMIN_TOKEN": "short"})


def test_no_secret_is_in_an_environment_or_on_a_command_line(home: Home) -> None:
    made = plan(home, PHAROS_ADMIN_TOKEN=TOKEN, PHAROS_NATS_PASSWORD="hunter2hunter2")
    assert made.bus is not None
    secrets = {TOKEN, "hunter2hunter2", home.bus_password_file.read_text().strip()}
    for program in (made.bus, *made.services):
        shown = [*program.command, *program.environ.values()]
        assert not any(secret in text for text in shown for secret in secrets)


def test_only_the_gateway_is_told_where_the_token_is(home: Home) -> None:
    told = [each.name for each in plan(home).services if "PHAROS_ADMIN_TOKEN_FILE" in each.environ]
    assert told == [programs.GATEWAY]


def test_only_who_opens_secrets_is_told_where_their_key_is(home: Home) -> None:
    told = {each.name for each in plan(home).services if "PHAROS_SECRET_KEY_FILE" in each.environ}
    assert told == {programs.GATEWAY, programs.EMBEDDER}


def test_only_who_asks_the_embeddings_server_is_told_its_key(home: Home) -> None:
    made = plan(home, OPENAI_API_KEY="sk-0123456789", PHAROS_WORKERS="2")
    told = {each.name for each in made.services if "sk-0123456789" in each.environ.values()}
    assert told == {programs.EMBEDDER, "worker-2"}
    assert made.bus is not None
    assert "sk-0123456789" not in made.bus.environ.values()


def test_the_times_to_stop_are_within_the_promise() -> None:
    assert set(programs.STOP_ORDER) == {*programs.START_ORDER, programs.BUS}
    assert sum(programs.STOP_SECONDS[name] for name in programs.STOP_ORDER) < 15
    assert programs.STOP_ORDER[0] == programs.GATEWAY and programs.STOP_ORDER[-1] == programs.BUS


def test_a_worker_beside_the_first_has_a_name_of_its_own_and_stops_with_it(home: Home) -> None:
    settings = load(LocalSettings, {"PHAROS_WORKERS": "3"})
    workers = [each for each in plan(home, PHAROS_WORKERS="3").services if "worker" in each.command]
    assert [each.name for each in workers] == ["worker-2", "worker-3"]
    assert [each.environ["PHAROS_WORKER_NAME"] for each in workers] == ["worker-2", "worker-3"]
    assert [each.environ["PHAROS_WORKER_INDEX"] for each in workers] == ["1", "2"]
    assert (programs.EMBEDDER, "worker-2", "worker-3") in programs.stop_steps(settings)
    alone = load(LocalSettings, {})
    assert [name for step in programs.stop_steps(alone) for name in step] == list(programs.STOP_ORDER)


def test_workers_without_a_slot_are_refused() -> None:
    with pytest.raises(InvalidSettings, match="PHAROS_WORKER_SLOTS is 0"):
        load(LocalSettings, {"PHAROS_WORKERS": "2", "PHAROS_WORKER_SLOTS": "0"})


def test_the_page_of_settings_tells_how_long_a_worker_of_one_machine_has(home: Home) -> None:
    services = plan(home, PHAROS_DRAIN_SECONDS="600").services
    (embedder,) = (each for each in services if each.name == programs.EMBEDDER)
    assert embedder.environ["PHAROS_DRAIN_SECONDS"] == "2"
    assert programs.STOP_SECONDS[programs.EMBEDDER] > programs.DRAIN_SECONDS
    (row,) = (each for each in table(EmbedderSettings) if each.variable == "PHAROS_DRAIN_SECONDS")
    assert f"Under `make run` it is {programs.DRAIN_SECONDS}" in row.description


def test_the_configuration_of_the_bus_is_as_designed(tmp_path: Path) -> None:
    text = nats_server.configuration(store=tmp_path / 'a "b"', port=4999, password="p", operator_password="o")
    for line in ('listen: "127.0.0.1:4999"', "sync_interval: always", "max_file_store: 16GB", 'a \\"b\\"'):
        assert line in text


def test_another_bus_is_used_as_it_was_given(home: Home) -> None:
    made = plan(home, PHAROS_NATS_URL="nats://bus:4222", PHAROS_NATS_USER="u", PHAROS_NATS_PASSWORD="secret")
    assert made.bus is None
    environ = made.services[0].environ
    assert environ["PHAROS_NATS_URL"] == "nats://bus:4222"
    assert "PHAROS_NATS_PASSWORD" not in environ
    assert Path(environ["PHAROS_NATS_PASSWORD_FILE"]).read_text().strip() == "secret"
    assert made.bus_settings.nats_password == Secret("secret")


@pytest.mark.parametrize(
    ("environ", "admitted"),
    [
        ({}, "*,http://127.0.0.1:9418"),
        ({"PHAROS_DEMO_GIT_PORT": "9999"}, "*,http://127.0.0.1:9999"),
        ({"PHAROS_DEMO_GIT_PORT": "0"}, ""),
        ({"PHAROS_GIT_ALLOWED_HOSTS": "github.com"}, "github.com"),
    ],
)
def test_the_demo_is_admitted_unless_the_operator_says_which_hosts(
    environ: dict[str, str], admitted: str
) -> None:
    assert load(LocalSettings, environ).hosts_admitted == admitted


def test_a_taken_port_is_a_sentence_with_its_holder_and_its_setting(home: Home) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ports.PortTaken, match=rf"Port {port} .*process \d+.*PHAROS_PORT"):
            plan(home, PHAROS_PORT=str(port))
        with pytest.raises(ports.PortTaken, match="PHAROS_NATS_PORT"):
            plan(home, PHAROS_NATS_PORT=str(port))
        assert not ports.is_free("127.0.0.1", port)


def test_an_address_of_another_machine_is_a_sentence(home: Home) -> None:
    with pytest.raises(ports.AddressUnusable, match="PHAROS_HOST"):
        plan(home, PHAROS_HOST="192.0.2.1")


def test_a_home_that_cannot_be_written_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(HomeUnusable, match="Name a directory"):
        Home(tmp_path / "file" / "home").create()


@pytest.mark.parametrize(
    ("host", "url", "reachable"),
    [
        ("127.0.0.1", "http://127.0.0.1:8000", "http://127.0.0.1:8000"),
        ("0.0.0.0", "http://0.0.0.0:8000", "http://127.0.0.1:8000"),
        ("::", "http://[::]:8000", "http://[::1]:8000"),
    ],
)
def test_addresses_as_told_and_as_reached(host: str, url: str, reachable: str) -> None:
    settings = load(LocalSettings, {"PHAROS_HOST": host})
    assert (settings.url, settings.reachable_url) == (url, reachable)


def test_the_next_command_can_be_typed_as_it_is_shown(tmp_path: Path) -> None:
    usual, other = Home(tmp_path / ".pharos"), Home(tmp_path / "my home")
    assert not next_command(usual, tmp_path).startswith("PHAROS_HOME")
    assert next_command(other, tmp_path).startswith(f"PHAROS_HOME='{other.path}' ")
    assert next_command(usual, tmp_path).endswith(" --watch")


def test_log_files_are_bounded(tmp_path: Path) -> None:
    file = LogFile(tmp_path / "part.log", bytes_max=100)
    for number in range(100):
        file.write(f"line {number:04}")
    file.close()
    kept = sorted(path.name for path in tmp_path.iterdir())
    assert kept == ["part.1.log", "part.2.log", "part.3.log", "part.log"]
    assert len(kept) == FILES_KEPT + 1
    assert all(path.stat().st_size <= 120 for path in tmp_path.iterdir())


class Stopped(io.StringIO):
    """A terminal that takes nothing until it is let go on, as after Ctrl-S."""

    def __init__(self) -> None:
        super().__init__()
        self.go_on = threading.Event()

    def write(self, text: str) -> int:
        self.go_on.wait(10)
        return super().write(text)


def test_a_stopped_terminal_does_not_stop_the_stack(tmp_path: Path) -> None:
    terminal = Stopped()
    with Reporter(tmp_path, terminal) as reporter:
        for number in range(5000):
            reporter.heard("gateway", f"line {number}")
        terminal.go_on.set()
        while not reporter._lines.empty():
            pass
        reporter.say("on again")
    assert "lines were left out here" in terminal.getvalue()
    assert len((tmp_path / "gateway.log").read_text().splitlines()) == 5000


def test_a_terminal_that_is_gone_does_not_stop_the_stack(tmp_path: Path) -> None:
    terminal = io.StringIO()
    with Reporter(tmp_path, terminal) as reporter:
        terminal.close()
        for number in range(10):
            reporter.say(f"line {number}")
    assert "line 9" in (tmp_path / "pharos.log").read_text()


def test_the_port_of_the_bus_is_found_in_what_was_written_for_it(tmp_path: Path) -> None:
    text = configuration(store=tmp_path, port=4711, password="x", operator_password="y")
    assert port_of(text) == 4711
    assert port_of("listen: 0.0.0.0") is None
