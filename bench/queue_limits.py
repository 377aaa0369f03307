"""What this machine can do at best: synced writes to its disk, and a bare nats-py on a bare JetStream."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any, Final

import nats.errors
from nats.aio.client import Client
from nats.js.api import ConsumerConfig, RetentionPolicy, StorageType, StreamConfig

from bench.queue_timing import rate, summary
from tests.support.nats_server import NatsServer

BODY: Final = os.urandom(1024)
PUBLISHERS: Final = (1, 16, 64)


def disk(folder: Path, count: int) -> dict[str, float]:
    """Appends of 1 kB to one file in *folder*, each followed by ``fdatasync``."""
    path = folder / "synced-writes"
    seconds: list[float] = []
    descriptor = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
    try:
        for _ in range(count):
            began = time.perf_counter()
            os.write(descriptor, BODY)
            os.fdatasync(descriptor)
            seconds.append(time.perf_counter() - began)
    finally:
        os.close(descriptor)
        path.unlink()
    return {"per_second": rate(count, sum(seconds)), **summary(seconds)}


async def bare_bus(count: int) -> dict[str, Any]:
    """*count* messages by each number of publishers; then one after the other to a consumer and back."""
    with NatsServer() as server:
        client = Client()
        await client.connect(server.url)
        try:
            jetstream = client.jetstream()
            await jetstream.add_stream(
                StreamConfig(
                    name="BENCH",
                    subjects=["bench.*"],
                    storage=StorageType.FILE,
                    retention=RetentionPolicy.LIMITS,
                )
            )
            published = {str(each): await _publish(client, each, count) for each in PUBLISHERS}
            return {"publish": published, "publish_consume_ack": await _there_and_back(client, count)}
        finally:
            await client.close()


async def _publish(client: Client, publishers: int, count: int) -> dict[str, float]:
    """*publishers* at once over one connection, each waiting for its acknowledgement."""
    jetstream = client.jetstream()
    seconds: list[float] = []
    left = count

    async def publisher() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            began = time.perf_counter()
            await jetstream.publish("bench.publish", BODY)
            seconds.append(time.perf_counter() - began)

    began = time.perf_counter()
    await asyncio.gather(*(publisher() for _ in range(publishers)))
    return {"per_second": rate(count, time.perf_counter() - began), **summary(seconds)}


async def _there_and_back(client: Client, count: int) -> dict[str, Any]:
    """A work queue with one consumer: the delay of a single message, and the rate of a backlog."""
    jetstream = client.jetstream()
    await jetstream.add_stream(
        StreamConfig(
            name="WORKQUEUE",
            subjects=["work.*"],
            storage=StorageType.FILE,
            retention=RetentionPolicy.WORK_QUEUE,
        )
    )
    consumer = await jetstream.pull_subscribe(
        "work.*", durable="worker", stream="WORKQUEUE", config=ConsumerConfig(max_ack_pending=1000)
    )
    delays: list[float] = []
    for _ in range(min(count, 500)):
        waiting = asyncio.create_task(consumer.fetch(1, timeout=5))
        await asyncio.sleep(0.002)  # so that the consumer waits before the message is there
        began = time.perf_counter()
        await jetstream.publish("work.one", BODY)
        message = (await waiting)[0]
        delays.append(time.perf_counter() - began)
        await message.ack_sync()
    began = time.perf_counter()
    publishing = [
        asyncio.create_task(_publish_many(client, count // PUBLISHERS[1])) for _ in range(PUBLISHERS[1])
    ]
    expected, done = count // PUBLISHERS[1] * PUBLISHERS[1], 0
    while done < expected:
        try:
            messages = await consumer.fetch(64, timeout=1)
        except nats.errors.TimeoutError:
            continue
        await asyncio.gather(*(message.ack_sync() for message in messages))
        done += len(messages)
    elapsed = time.perf_counter() - began
    await asyncio.gather(*publishing)
    return {"delivered_after": summary(delays), "per_second": rate(expected, elapsed)}


async def _publish_many(client: Client, count: int) -> None:
    jetstream = client.jetstream()
    for _ in range(count):
        await jetstream.publish("work.many", BODY)
