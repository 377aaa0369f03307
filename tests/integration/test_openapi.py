"""The gateway does what its OpenAPI document says, whoever asks and whatever they send.

schemathesis reads the document and tries every operation in it, so that a new route is tried as soon as it is
there: the examples, every limit of every parameter and body, values beyond them, other methods, no and wrong
credentials, and chains of operations. What is left out is in ``schemathesis.toml``.
"""

from __future__ import annotations

import asyncio
import os
import re
import sys
from pathlib import Path
from typing import Final

import pytest

from pharos_service.bus import Bus
from tests.support.checked_gateway import checked
from tests.support.gateway import TOKEN
from tests.support.nats_server import NatsServer

pytestmark = pytest.mark.anyio

CONFIGURATION: Final = Path(__file__).with_name("schemathesis.toml")
EXAMPLES: Final = 4  # of each operation, beside the limits of all that it takes
EXAMPLES_AT_LENGTH: Final = 150


async def tried(address: str, token: str | None, examples: int, directory: Path) -> tuple[int, str]:
    """(exit code, what there is to say) of one run over all operations."""
    chosen = CONFIGURATION.read_text()
    if token is None:
        chosen = re.sub(r"\[auth\.[^\[]*", "", chosen)
    configuration = directory / "schemathesis.toml"
    configuration.write_text(chosen)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "schemathesis.cli"),
        *("--config-file", str(configuration)),
        *("run", f"{address}/schema/openapi.json", "--no-color", f"--max-examples={examples}"),
        cwd=directory,
        env={**os.environ, "PHAROS_TOKEN": token or ""},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    return process.returncode or 0, output.decode(errors="replace")


def told(output: str) -> str:
    """The failures and errors in what schemathesis prints, each with the request that shows it."""
    found = re.search(r"^=+ (?:ERRORS|FAILURES) =+$.*?(?=^=+ (?:WARNINGS|SUMMARY) =+$)", output, re.M | re.S)
    return found[0] if found else output


@pytest.mark.parametrize("token", [TOKEN, None], ids=["with a key", "without a key"])
async def test_the_gateway_does_what_its_document_says(
    bus: Bus, nats_server: NatsServer, tmp_path: Path, token: str | None
) -> None:
    async with checked(bus, nats_server.url, tmp_path) as address:
        code, output = await tried(address, token, EXAMPLES, tmp_path)
    assert code == 0, told(output)


@pytest.mark.chaos
@pytest.mark.timeout(900)
async def test_the_gateway_does_what_its_document_says_at_length(
    bus: Bus, nats_server: NatsServer, tmp_path: Path
) -> None:
    async with checked(bus, nats_server.url, tmp_path) as address:
        code, output = await tried(address, TOKEN, EXAMPLES_AT_LENGTH, tmp_path)
    assert code == 0, told(output)
