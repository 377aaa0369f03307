"""The edge to the bus: batches of JOBS, and the times at which to pull them.

The subscription exists only while there is a connection and the declared consumer. FastStream's pull
loop has no pause of its own: without a connection, or without the consumer, it fails and starts again
thousands of times a second, and remembers every start. And it would create a missing consumer, which is
the business of ``pharos-bus apply``.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any, Final

import nats.errors
import structlog
from faststream import AckPolicy
from faststream.nats import JStream, NatsBroker, NatsMessage, PullSub
from faststream.nats.message import NatsBatchMessage
from nats.js.api import AckPolicy as NatsAckPolicy
from nats.js.api import ConsumerConfig, DeliverPolicy

from pharos_contracts.streams import HISTORY, JOBS, BusLimits, declare
from pharos_history.projector import BATCH_MAX, EVENTS, Projector
from pharos_service.bus import Bus, BusError, NotFound, Stored

log = structlog.get_logger()

BATCH_SECONDS: Final = 0.2
LOOK_SECONDS: Final = 1.0


class Subscription:
    """Pulls JOBS for *projector* for as long as that can work. ``problem`` says why it does not."""

    def __init__(self, broker: NatsBroker, bus: Bus, projector: Projector, changed: asyncio.Event) -> None:
        self._broker = broker
        self._bus = bus
        self._projector = projector
        self._changed = changed
        self._subscriber: Any = None
        self.problem: str | None = "The bus has not been reached yet"

    async def keep(self) -> None:
        """For ever: subscribe, and stop pulling whenever the connection or the consumer is gone."""
        while True:
            self._changed.clear()
            problem = await self._obstacle()
            if problem != self.problem:
                log.info("subscription_changed", problem=problem)
            self.problem = problem
            if problem is not None:
                await self.stop()
            elif self._subscriber is None:
                await self._start()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS):
                    await self._changed.wait()

    async def _obstacle(self) -> str | None:
        if not self._bus.connected:
            return "Not connected to the bus"
        try:
            await self._bus.api(f"CONSUMER.INFO.{JOBS}.{HISTORY}")
        except NotFound:
            return f"The stream {JOBS} or its consumer {HISTORY} is missing: run `pharos-bus apply`"
        except BusError as error:
            return f"The bus does not answer: {error}"
        return None

    async def _start(self) -> None:
        subscriber = subscribe(self._broker, self._projector)
        try:
            await subscriber.start()
        except (nats.errors.Error, OSError, TimeoutError) as error:
            self.problem = f"The bus does not answer: {type(error).__name__}"
            with contextlib.suppress(nats.errors.Error, OSError, TimeoutError):
                await subscriber.stop()
            return
        self._subscriber = subscriber

    async def stop(self) -> None:
        """Pull no more; what is being folded is finished first."""
        subscriber, self._subscriber = self._subscriber, None
        if subscriber is not None:
            with contextlib.suppress(nats.errors.Error, OSError, TimeoutError):
                await subscriber.stop()


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
