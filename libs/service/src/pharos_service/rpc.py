"""Questions between services: FastStream answers them, any bus may ask."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog
from faststream import AckPolicy
from faststream.nats import NatsBroker, NatsMessage
from faststream.security import SASLPlaintext

from pharos_contracts.message import Message, UnreadableMessage, decode, encode
from pharos_contracts.rpc import Refused
from pharos_service.bus import connection_options
from pharos_service.settings import ServiceSettings

log = structlog.get_logger()

Q = TypeVar("Q", bound=Message)


def make_broker(
    settings: ServiceSettings, name: str, *, notify: Callable[[], None] | None = None
) -> NatsBroker:
    """FastStream's broker on a connection like every service's; *notify* is called when it comes or goes.

    Messages are settled by their handlers alone: FastStream's default turns a bug into a lost message.
    """
    options = connection_options(settings, name)
    user, password = options.pop("user", None), options.pop("password", None)
    for callback in ("disconnected_cb", "reconnected_cb"):
        options[callback] = _and_notify(options[callback], notify)
    return NatsBroker(
        settings.nats_url,
        security=SASLPlaintext(user, password) if user else None,
        ack_policy=AckPolicy.MANUAL,
        logger=None,  # what it would say, the callbacks and the handlers say
        **options,
    )


def _and_notify(
    callback: Callable[[], Awaitable[None]], notify: Callable[[], None] | None
) -> Callable[[], Awaitable[None]]:
    async def both() -> None:
        await callback()
        if notify is not None:
            notify()

    return both


def answer(
    broker: NatsBroker,
    subject: str,
    question: object,
    handler: Callable[[Q], Awaitable[Message]],
    *,
    workers: int = 8,
) -> None:
    """Answer *subject* with *handler*; every process of a service shares the questions.

    *question* is the message type, or union, that is expected. A question that cannot be read, and an
    exception that nobody expected, are answered with ``Refused``: who asks never waits for a timeout.
    """

    @broker.subscriber(subject, queue=subject, max_workers=workers, ack_policy=AckPolicy.MANUAL)
    async def respond(message: NatsMessage) -> bytes:
        try:
            asked: Q = decode(bytes(message.body), question)
        except UnreadableMessage as error:
            return encode(Refused(code="unreadable_question", detail=error.reason, status=400))
        try:
            return encode(await handler(asked))
        except Exception as error:
            log.exception("question_failed", subject=subject)
            return encode(
                Refused(
                    code="internal_error",
                    detail=f"The question could not be answered ({type(error).__name__}); the log says why",
                    status=503,
                )
            )
