"""What a call may raise: one class, with the gateway's own sentence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import httpx
import msgspec

UNREACHABLE: Final = "unreachable"
UNREADABLE: Final = "unreadable_answer"


class PharosError(Exception):
    """The gateway refused, or could not be asked.

    ``detail`` is one sentence, ``code`` a stable word for programs, ``status`` the HTTP status (None where
    no answer came), ``body`` the other fields of the answer, ``retry_after_seconds`` what it asked for.
    """

    def __init__(
        self,
        detail: str,
        *,
        code: str,
        status: int | None = None,
        body: Mapping[str, Any] | None = None,
        retry_after_seconds: float | None = None,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.code = code
        self.status = status
        self.body: Mapping[str, Any] = body or {}
        self.retry_after_seconds = retry_after_seconds

    @property
    def unreachable(self) -> bool:
        """No gateway answered."""
        return self.code == UNREACHABLE

    @property
    def transient(self) -> bool:
        """Another try may fare better."""
        return self.unreachable or self.status in {429, 502, 503, 504}


def unreachable(url: str, error: Exception) -> PharosError:
    """No answer from *url*, for the reason that *error* gives."""
    reason = str(error) or type(error).__name__
    return PharosError(f"No gateway answers at {url}: {reason}", code=UNREACHABLE)


def from_response(status: int, content: bytes, headers: httpx.Headers) -> PharosError:
    """The error that an answer with a status of 400 or more stands for, whoever wrote it."""
    body: dict[str, Any] = {}
    try:
        decoded = msgspec.json.decode(content)
        body = decoded if isinstance(decoded, dict) else {}
    except msgspec.DecodeError:
        pass
    detail = body.get("detail")
    code = body.get("code")
    return PharosError(
        detail if isinstance(detail, str) else f"The gateway answered with status {status}",
        code=code if isinstance(code, str) else f"http_{status}",
        status=status,
        body=body,
        retry_after_seconds=_seconds(headers.get("Retry-After")),
    )


def _seconds(text: str | None) -> float | None:
    return float(text) if text is not None and text.isascii() and text.isdigit() and len(text) < 7 else None
