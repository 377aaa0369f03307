"""Asking another service. Apart from ``rpc`` so that a process that only asks does not load FastStream."""

from __future__ import annotations

from typing import Any, TypeVar

from pharos_contracts.message import Message, UnreadableMessage, decode, encode
from pharos_contracts.rpc import Refused
from pharos_service.bus import Bus, BusUnavailable, FateUnknown

A = TypeVar("A", bound=Message)


class QuestionRefused(Exception):
    """The other service answered with a refusal."""

    def __init__(self, refusal: Refused) -> None:
        super().__init__(refusal.detail)
        self.refusal = refusal


class NobodyAnswers(Exception):
    """No process of the other service answered in time."""


async def ask(bus: Bus, subject: str, question: Message, expected: type[A], *, timeout: float) -> A:
    """The answer to *question*; QuestionRefused, NobodyAnswers, or BusUnavailable when not connected."""
    if not bus.connected:
        raise BusUnavailable("Not connected to the bus")
    try:
        reply = await bus.request(subject, encode(question), timeout)
    except (BusUnavailable, FateUnknown) as error:
        raise NobodyAnswers(str(error)) from error
    union: Any = expected | Refused
    try:
        answer: A | Refused = decode(reply.data, union)
    except UnreadableMessage as error:
        raise NobodyAnswers(f"The answer could not be read: {error.reason}") from error
    if isinstance(answer, Refused):
        raise QuestionRefused(answer)
    return answer
