"""Everything that Pharos waits for, some fifteen times shorter, in the proportions of the real times.

What matters is which time is longer than which: an item comes back later than a worker is forgotten, a lease
runs out before either. The server keeps to what its streams say, so the declaration is shortened too.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import pytest
from msgspec.structs import replace

from pharos_contracts import streams
from pharos_contracts.streams import Bus, BusLimits, Consumer, Stream, declare
from pharos_embedder.worker import WorkerConfig
from tests.stateful.processes import now_here

LEASE_SECONDS: Final = 0.6
WORKER_TTL_SECONDS: Final = 1.6
WORK_ACK_WAIT_SECONDS: Final = 2.0
ACK_WAIT_SECONDS: Final = 1.0
ORPHAN_SECONDS: Final = 2.0
SUBMIT_SECONDS: Final = 1.2
BACKOFF_SECONDS_MAX: Final = 1.0

WORKER: Final = WorkerConfig(hold=0.8, lapse=1.1, stop=2.0, adoption=1.0)

_SHORT: Final[dict[str, Any]] = {
    "pharos_scheduler.app.SWEEP_SECONDS": 0.2,
    "pharos_scheduler.app.utc_now": now_here,
    "pharos_scheduler.app.TAKE_OVER_SECONDS": 0.4,
    "pharos_scheduler.app.ORPHANS_SECONDS": 0.8,
    "pharos_scheduler.subscribers.EXPIRES_SECONDS": 0.8,
    "pharos_scheduler.scheduler.ORPHAN_SECONDS": 1.5 * ORPHAN_SECONDS,
    "pharos_scheduler.scheduler.LOST_SECONDS": 1.4,
    "pharos_scheduler.scheduler.OVERDUE_SECONDS": 0.4,
    "pharos_scheduler.deciding.BACKOFF_FIRST_SECONDS": 0.1,
    "pharos_scheduler.deciding.BACKOFF_MAX_SECONDS": BACKOFF_SECONDS_MAX,
    "pharos_service.pull.HEARTBEAT_SECONDS": 0.3,
    "pharos_service.pull.SILENCE_SECONDS": 0.8,
    "pharos_service.pull.LISTEN_SECONDS": 0.2,
    "pharos_service.pull.RETRY_SECONDS": 0.05,
    "pharos_service.bus.API_TIMEOUT_SECONDS": 1.5,
    "pharos_service.bus.RECONNECT_WAIT_SECONDS": 0.05,
    "pharos_embedder.presence.HEARTBEAT_SECONDS": 0.2,
    "pharos_embedder.worker.HOLDERS_SECONDS_MAX": 2 * WORKER_TTL_SECONDS,
    "pharos_embedder.worker.CLEAR_RETRY_SECONDS": 0.2,
    "pharos_embedder.worker.PUT_OFF_SECONDS": 0.2,
    "pharos_embedder.worker.SETTLE_RETRY_SECONDS": 0.1,
    "pharos_embedder.worker.FAREWELL_SECONDS": 0.5,
    "pharos_history.app.STOP_SECONDS": 0.3,
    "pharos_gateway.submitting.ORPHAN_SECONDS": ORPHAN_SECONDS,
}


@contextmanager
def short_times() -> Iterator[None]:
    """While the block lasts, the constants of all services are short; each process has its own clock."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in _SHORT.items():
            patch.setattr(name, value)
        yield


def short_bus(queue_max: int) -> Bus:
    """The declaration, with what the server waits for as short."""
    bus = declare(BusLimits(queue_max=queue_max))
    return replace(
        bus,
        streams=tuple(_stream(each) for each in bus.streams),
        consumers=tuple(_consumer(each) for each in bus.consumers),
    )


def _stream(stream: Stream) -> Stream:
    ages = {f"KV_{streams.KV_WORKERS}": WORKER_TTL_SECONDS, f"KV_{streams.KV_LEASE}": LEASE_SECONDS}
    if stream.name not in ages:
        return stream
    age = ages[stream.name]
    return replace(stream, max_age_seconds=age, duplicate_window_seconds=age)


def _consumer(consumer: Consumer) -> Consumer:
    wait = WORK_ACK_WAIT_SECONDS if consumer.stream == streams.WORK else ACK_WAIT_SECONDS
    return replace(consumer, ack_wait_seconds=wait)
