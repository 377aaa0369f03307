from __future__ import annotations

import pytest

from pharos_gateway.bodies import parse
from pharos_gateway.connections import ConnectionRequest
from pharos_gateway.problems import Problem


@pytest.mark.parametrize("opening", [b"[", b'{"a":'])
def test_a_body_that_is_nested_without_end_is_the_mistake_of_its_sender(opening: bytes) -> None:
    with pytest.raises(Problem) as refused:
        parse(b'{"source_type":"s3","config":{"a":' + opening * 50_000, ConnectionRequest)
    assert (refused.value.status, refused.value.detail) == (
        400,
        "The body of the request is too deeply nested",
    )
