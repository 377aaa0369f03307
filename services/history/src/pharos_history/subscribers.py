"""The edge to the bus: batches of JOBS, pulled by FastStream from the declared consumer.

FastStream's batch loop knows nats-py's own timeout only. Any other error of a fetch ends the loop, loses
what was fetched so far until it is delivered again (``ack_wait`` later), and starts the loop anew at once:
nats-py raises the plain ``TimeoutError`` when the time is up between two of its steps (seen in a calm
test run), and without a connection every fetch fails, thousands of times a second. ``_patient`` stands
between the two.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any, Final

import nats.errors
import structlog
from faststream import AckPolicy
from faststream.nats import JStream, NatsBroker, NatsMessage, PullSub
from faststream.nats.message import NatsBatchMessage
from nats.aio.msg import Msg
from nats.js.api import AckPolicy as NatsAckPolicy
from nats.js.api import ConsumerConfig, DeliverPolicy

from pharos_contracts.streams import HISTORY, JOBS, BusLimits, declare
from pharos_history.projector import BATCH_MAX, EVENTS, Projector
from pharos_service.bus import Bus, BusError, NotFound, Stored

log = structlog.get_logger()

BATCH_SECONDS: Final = 0.2
LOOK_SECONDS: Final = 1.0
RETRY_SECONDS: Final = 0.25


class Subscription:
    """Pulls JOBS for *projector*. ``problem`` is None, or a sentence that says why nothing can arrive."""

    def __init__(self, broker: NatsBroker, bus: Bus, projector: Projector) -> None:
        self._broker = broker
        self._bus = bus
        self._projector = projector
        self._subscriber: Any = None
        self.problem: str | None = "The bus has not been reached yet"

    async def keep(self) -> None:
        """Subscribe as soon as the consumer is there, then look after it, for ever.

        nats-py would create a missing consumer, which is the business of ``pharos-bus apply``.
        """
        while True:
            problem = await self._obstacle()
            if problem is None and self._subscriber is None:
                problem = await self._start()
            if problem != self.problem:
                log.info("subscription_changed", problem=problem)
            self.problem = problem
            await asyncio.sleep(LOOK_SECONDS)

    async def _obstacle(self) -> str | None:
        try:
            await self._bus.api(f"CONSUMER.INFO.{JOBS}.{HISTORY}")
        except NotFound:
            return f"The stream {JOBS} or its consumer {HISTORY} is missing: run `pharos-bus apply`"
        except BusError as error:
            return f"The bus does not answer: {error}"
        return None

    async def _start(self) -> str | None:
        subscriber = subscribe(self._broker, self._projector)
        try:
            await subscriber.start()
        except (nats.errors.Error, OSError, TimeoutError) as error:
            with contextlib.suppress(nats.errors.Error, OSError, TimeoutError):
                await subscriber.stop()
            return f"The bus does not answer: {type(error).__name__}"
        # The loop runs from the next pause of this task on: it never sees the bare one.
        subscriber.subscription.fetch = _patient(subscriber.subscription.fetch)
        self._subscriber = subscriber
        return None

    async def stop(self) -> None:
        """Pull no more; what is being folded is finished first."""
        if self._subscriber is not None:
            with contextlib.suppress(nats.errors.Error, OSError, TimeoutError):
                await self._subscriber.stop()


def _patient(fetch: Callable[..., Awaitable[list[Msg]]]) -> Callable[..., Awaitable[list[Msg]]]:
    """*fetch* that has no error but nats-py's timeout, and no hurry after any other."""

    async def patient_fetch(**request: Any) -> list[Msg]:
        try:
            return await fetch(**request)
        except TimeoutError as error:
            raise nats.errors.TimeoutError from error
        except (nats.errors.Error, OSError) as error:
            log.debug("fetch_failed", reason=type(error).__name__)
            await asyncio.sleep(RETRY_SECONDS)
            raise nats.errors.TimeoutError from error

    return patient_fetch


def subscribe(broker: NatsBroker, projector: Projector) -> Any:
    """A subscriber, not started, that hands batches of JOBS to *projector* and then acknowledges them."""
    subscriber = broker.subscriber(
        EVENTS,
        stream=JStream(JOBS, declare=False),
        durable=HISTORY,
        config=_declared(),
        pull_sub=PullSub(batch_size=BATCH_MAX, timeout=BATCH_SECONDS, batch=True),
        decoder=_undecoded,
        ack_policy=AckPolicy.MANUAL,
        persistent=False,
    )

    @subscriber
    async def project_batch(message: NatsMessage) -> None:
        batch: Any = message.raw_message
        arrived = [
            Stored(each.subject, each.data, each.metadata.sequence.stream, dict(each.headers or {}))
            for each in batch
        ]
        try:
            await projector.take(arrived)
        except Exception:
            log.exception("batch_failed", events=len(arrived))  # not acknowledged: it comes again
            return
        for each in batch:
            try:
                await each.ack()
            except (nats.errors.Error, OSError) as error:
                # They come again, have been seen, and are acknowledged then.
                log.info("acknowledgement_lost", reason=type(error).__name__)
                return

    return subscriber


async def _undecoded(message: NatsBatchMessage) -> list[bytes]:
    """The payloads as they are: one that is no JSON must not fail the whole batch."""
    return [each.data for each in message.raw_message]


def _declared() -> ConsumerConfig:
    """The consumer as contracts declare it: nats-py creates a missing one from whatever it is given."""
    [consumer] = [
        each for each in declare(BusLimits()).consumers if (each.stream, each.name) == (JOBS, HISTORY)
    ]
    return ConsumerConfig(
        name=consumer.name,
        durable_name=consumer.name,
        description=consumer.about,
        deliver_policy=DeliverPolicy.ALL,
        ack_policy=NatsAckPolicy.EXPLICIT,
        ack_wait=consumer.ack_wait_seconds,
        max_deliver=consumer.max_deliver,
        max_ack_pending=consumer.max_ack_pending,
        filter_subjects=list(consumer.filters),
    )
