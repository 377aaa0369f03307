"""What can go wrong with the server that encodes, in sentences that say what to do.

No sentence holds the key, a text that was sent, or words that the server chose: it may repeat either.
"""

from __future__ import annotations


class ProviderError(Exception):
    """Base of the two below. `transient` says whether trying again later may help."""

    transient: bool = False


class ProviderUnavailable(ProviderError):
    """The server does not answer, or asks for patience, for longer than anybody waits."""

    transient = True

    def __init__(self, host: str, reason: str, *, tries: int = 1) -> None:
        often = f" after {tries} tries" if tries > 1 else ""
        super().__init__(f"The embeddings server {host} cannot be used now{often}: {reason}")
        self.reason = reason


class ProviderRefused(ProviderError):
    """The server will not do it however often it is asked; *advice* is what would change that."""

    def __init__(self, host: str, reason: str, advice: str) -> None:
        super().__init__(f"The embeddings server {host} {reason}: {advice}")
        self.reason = reason


class RequestStopped(Exception):
    """Whoever wanted the vectors does not, before they were asked for; nobody is told of it."""
