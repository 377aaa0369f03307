"""Keys for tests, issued over HTTP as an admin would."""

from __future__ import annotations

from typing import Any

import httpx

from tests.support.gateway import BEARER

KEYS = "/api/v1/keys"


async def issue(http: httpx.AsyncClient, **wanted: Any) -> dict[str, Any]:
    """What the gateway answers: the key and, as ``key``, its text."""
    values = {"tenant": "acme", "user": "ada", "role": "editor", **wanted}
    answer = await http.post(KEYS, json=values, headers=BEARER)
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


def with_key(issued: dict[str, Any]) -> dict[str, str]:
    """The headers that present it."""
    return {"x-api-key": issued["key"]}


def secret_of(issued: dict[str, Any]) -> str:
    """The part of a key that nobody may see; it may hold ``_`` itself."""
    secret: str = issued["key"].split("_", 2)[2]
    assert len(secret) > 40
    return secret
