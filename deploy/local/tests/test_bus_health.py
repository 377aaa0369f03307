"""A bus that lives and stores no more, with a real server whose files may not grow."""

from __future__ import annotations

import resource
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import anyio
import nats
import nats.errors
import pytest

from pharos_local import nats_server
from pharos_local.bus_health import ILL_IN_A_ROW, complaint, restart_when_ill

pytestmark = pytest.mark.anyio

PASSWORD = "of-the-services"
OPERATOR_PASSWORD = "of-the-supervisor"
FILE_BYTES_MAX = 64 * 1024
STORE = 'größe "und" maß/$HOME\\u00e9/%s\t\x01\x7f'  # folders may be called so


def _limit_files() -> None:
    """As on a full disk, a write fails; unlike there, it stays so for this process only."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_BYTES_MAX, FILE_BYTES_MAX))


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    configuration = tmp_path / "nats.conf"
    configuration.write_text(
        nats_server.configuration(
            store=tmp_path / STORE, port=port, password=PASSWORD, operator_password=OPERATOR_PASSWORD
        ),
        encoding="utf-8",
    )
    with (
        (tmp_path / "log").open("wb") as log,
        subprocess.Popen(
            [nats_server.executable(), "-c", configuration],
            stdout=log,
            stderr=log,
            preexec_fn=_limit_files,  # noqa: PLW1509 (no thread is running yet)
        ) as server,
    ):
        yield f"nats://127.0.0.1:{port}"
        server.kill()


async def connected(url: str) -> nats.NATS:
    with anyio.fail_after(10):
        while True:
            with suppress(OSError, nats.errors.Error):
                return await nats.connect(
                    url,
                    user=nats_server.USER,
                    password=PASSWORD,
                    allow_reconnect=False,
                    max_reconnect_attempts=1,
                    reconnect_time_wait=0,
                )
            await anyio.sleep(0.05)


async def test_a_server_that_could_not_write_once_complains_and_a_well_one_does_not(url: str) -> None:
    client = await connected(url)
    stream = client.jetstream(timeout=1)
    await stream.add_stream(name="A", subjects=["a"])
    await stream.publish("a", b"small")
    assert await complaint(url, OPERATOR_PASSWORD) is None
    with pytest.raises(nats.errors.TimeoutError):
        await stream.publish("a", bytes(2 * FILE_BYTES_MAX))
    with pytest.raises(nats.errors.TimeoutError):
        await stream.publish("a", b"small")  # there is room for this one
    found = await complaint(url, OPERATOR_PASSWORD)
    assert found is not None and "$G > A" in found
    await client.close()


async def test_a_store_lies_where_it_is_to_lie_whatever_that_folder_is_called(
    url: str, tmp_path: Path
) -> None:
    await (await connected(url)).close()
    assert (tmp_path / STORE / "jetstream").is_dir()


async def test_who_does_not_answer_or_does_not_know_the_asker_is_left_alone(url: str) -> None:
    await (await connected(url)).close()
    assert await complaint(url, "another password") is None
    assert await complaint("nats://127.0.0.1:1", OPERATOR_PASSWORD) is None


async def test_only_a_complaint_that_is_repeated_is_acted_upon_and_not_at_once_again() -> None:
    answers = iter(["ill", None, "ill", "ill", "ill", "ill", None])
    restarts: list[str] = []

    class NothingMore(Exception):
        pass

    async def ask() -> str | None:
        try:
            return next(answers)
        except StopIteration:
            raise NothingMore from None

    async def sleep(seconds: float) -> None:
        await anyio.sleep(0)

    with pytest.raises(NothingMore):
        await restart_when_ill(ask, restarts.append, sleep=sleep)
    assert restarts == ["ill"] * (4 // ILL_IN_A_ROW)
