"""What a use case says of a message, and how that becomes an acknowledgement.

Outcomes are values, so use cases never import the broker.
"""

from __future__ import annotations

from typing import Any, Protocol, assert_never

import msgspec


class Done(msgspec.Struct, frozen=True):
    """Handled; never deliver it again."""


class RetryLater(msgspec.Struct, frozen=True):
    """Not now; deliver it again after *delay_seconds*."""

    reason: str
    delay_seconds: float


class GiveUp(msgspec.Struct, frozen=True):
    """It can never be handled; never deliver it again."""

    reason: str


Outcome = Done | RetryLater | GiveUp


class Delivery(Protocol):
    """The part of a JetStream message that settles it; nats-py's ``Msg`` has this shape."""

    async def ack(self) -> Any: ...
    async def nak(self, delay: int | float | None = None) -> Any: ...
    async def term(self) -> Any: ...


async def settle(message: Delivery, outcome: Outcome) -> None:
    """Tell the bus what became of *message*."""
    match outcome:
        case Done():
            await message.ack()
        case RetryLater(delay_seconds=delay):
            await message.nak(delay=delay)  # a bare nak redelivers at once and ignores the backoff list
        case GiveUp():
            await message.term()
        case _:
            assert_never(outcome)
