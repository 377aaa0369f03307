from __future__ import annotations

import pytest

from pharos_gateway.bodies import parse
from pharos_gateway.connections import ConnectionRequest
from pharos_gateway.problems import Problem
from pharos_gateway.projects import GithubIngestRequest


@pytest.mark.parametrize("opening", [b"[", b'{"a":'])
def test_a_body_that_is_nested_without_end_is_the_mistake_of_its_sender(opening: bytes) -> None:
    with pytest.raises(Problem) as refused:
        parse(b'{"source_type":"s3","config":{"a":' + opening * 50_000, ConnectionRequest)
    assert (refused.value.status, refused.value.detail) == (
        400,
        "The body of the request is too deeply nested",
    )


def test_what_nobody_sees_in_a_name_is_told_in_words() -> None:
    with pytest.raises(Problem) as refused:
        parse(b'{"repo":"o/r","dataset":"a\\u202eb"}', GithubIngestRequest)
    assert refused.value.detail == (
        "Invalid request: 'dataset': it has control characters, or others that nobody sees; leave them out"
    )
