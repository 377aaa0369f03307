"""For the tests of the local stack."""

import pytest


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
