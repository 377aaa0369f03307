"""What can go wrong between a web address and its bytes: one sentence each, fit for a user.

No message holds a path or a query of an address (either may be a secret), an IP address that a name led to,
or text that the server chose.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Final

_BUSY: Final = frozenset({408, 425, 429, 500, 502, 503, 504})


class WebError(Exception):
    """Base of the errors below. `transient` says whether trying again may help."""

    transient: bool = False

    def __init__(self, message: str, *, transient: bool | None = None) -> None:
        super().__init__(message)
        if transient is not None:
            self.transient = transient


class WebAddressRefused(WebError):
    """The address may not be reached from here; `reason` is a clause."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"The address is refused: {reason}")
        self.reason = reason


class WebHostUnreachable(WebError):
    """The host has no address, does not answer, or cannot prove who it is."""

    def __init__(self, host: str, *, transient: bool) -> None:
        super().__init__(f"The host could not be reached: {host}", transient=transient)
        self.host = host


class WebTimedOut(WebError):
    """The answer did not arrive in time."""

    transient = True

    def __init__(self, host: str, seconds: float) -> None:
        super().__init__(f"The server did not answer within {seconds:g} seconds: {host}")
        self.host = host
        self.seconds = seconds


class AnswerTooLarge(WebError):
    """The answer exceeds a limit; `limit` is that limit in words."""

    def __init__(self, host: str, limit: str) -> None:
        super().__init__(f"The answer is larger than {limit}: {host}")
        self.host = host
        self.limit = limit


class AnswerUnreadable(WebError):
    """The answer is not one that can be read; `reason` is a clause."""

    def __init__(self, host: str, reason: str, *, transient: bool = False) -> None:
        super().__init__(f"The answer cannot be read, {reason}: {host}", transient=transient)
        self.host = host
        self.reason = reason


class ContentRefused(WebError):
    """The address serves something that Pharos does not read; `reason` is a clause."""

    def __init__(self, host: str, reason: str) -> None:
        super().__init__(f"The address is not a document, {reason}: {host}")
        self.host = host
        self.reason = reason


class RedirectRefused(WebError):
    """The server answered with a redirect that is not followed; `reason` is a clause."""

    def __init__(self, host: str, reason: str) -> None:
        super().__init__(f"The redirect is not followed, {reason}: {host}")
        self.host = host
        self.reason = reason


class NoRoom(WebError):
    """The document does not fit on the disk of this machine."""

    transient = True

    def __init__(self) -> None:
        super().__init__("The document could not be stored: there is no room on the disk")


class HTTPError(WebError):
    """The server answered with an error: `HTTPError: 404 Not Found`, in the words of the standard."""

    def __init__(self, status: int) -> None:
        super().__init__(f"HTTPError: {_in_words(status)}", transient=status in _BUSY)
        self.status = status


def _in_words(status: int) -> str:
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)
