"""Asking the search service."""

from __future__ import annotations

from typing import Final, TypeVar

from pharos_contracts import rpc
from pharos_contracts.message import Message
from pharos_gateway.problems import unavailable
from pharos_service.asking import NobodyAnswers, QuestionRefused, ask
from pharos_service.bus import Bus, BusError

SEARCH_SECONDS: Final = 15.0

A = TypeVar("A", bound=Message)


async def ask_search(bus: Bus, question: Message, expected: type[A]) -> A:
    """The answer to *question*; QuestionRefused where the client can do something about it, else Problem."""
    try:
        return await ask(bus, rpc.SEARCH, question, expected, timeout=SEARCH_SECONDS)
    except (NobodyAnswers, BusError) as error:
        raise unavailable("Search", str(error)) from error
    except QuestionRefused as error:
        if error.refusal.status >= 500:
            raise unavailable("Search", error.refusal.detail) from error
        raise
