"""What a submit says when the bus answers late, or not at all; on fakes, since a real one rarely does."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec.structs import replace

from pharos_contracts.control.v1 import Place
from pharos_contracts.jobs.v1 import Job, SubmitJob
from pharos_contracts.workers.v1 import Worker
from pharos_gateway.queueing import QueueState, Shared, Waiting
from pharos_gateway.submitting import (
    SUBMIT_SECONDS,
    Order,
    QueueFull,
    QueueUnavailable,
    Submitting,
    TenantQueueFull,
)
from pharos_service.bus import BusUnavailable, FateUnknown, StreamFull, WrongLastSequence
from pharos_sources.hosts import AllowedHosts
from pharos_sources.repository_url import RepositoryAddress, parse_repository_url

pytestmark = pytest.mark.anyio


class World:
    """A bus, its buckets, the queue and the workers. ``outcome`` is what a publish comes to."""

    connected = True

    def __init__(self, outcome: int | Exception | None) -> None:
        self.outcome = outcome
        self.entries: dict[str, Any] = {}
        self.state_fails = False
        self.waiting_of_tenant = 0
        self.place: Place | None = None

    async def publish(self, subject: str, message: Any, **_: Any) -> Any:
        if self.outcome is None:
            await asyncio.sleep(60)
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return SimpleNamespace(seq=self.outcome)

    async def create(self, key: str, value: Any) -> int | None:
        if key in self.entries:
            return None
        self.entries[key] = value
        return 1

    async def get(self, key: str) -> Any:
        value = self.entries.get(key)
        return None if value is None else SimpleNamespace(key=key, value=value, revision=1)

    async def update(self, key: str, value: Any, revision: int) -> int | None:
        self.entries[key] = value
        return 2

    async def delete(self, key: str, revision: int) -> bool:
        del self.entries[key]
        return True

    async def known(self, tenant: str | None, job_id: str) -> Job | None:
        return None

    async def size(self) -> QueueState:
        return await self.state()

    async def state(self) -> QueueState:
        if self.state_fails:
            raise BusUnavailable("away")
        return QueueState(size=10, capacity=10, first=1, last=10)

    async def of_same_work(self, command: SubmitJob) -> Waiting | None:
        return None

    async def last_of(self, tenant: str) -> int:
        return self.waiting_of_tenant

    async def size_of(self, tenant: str) -> int:
        return self.waiting_of_tenant

    async def of(self, job: Job, *, seconds: float) -> Place | None:
        return self.place

    def workers(self) -> Sequence[Worker]:
        return ()

    def recent_durations_seconds(self, pool: str) -> Sequence[float]:
        return (50.0,)

    async def check_host(self, address: RepositoryAddress) -> None:
        return None


def use_case(world: Any, deadline_seconds: float = SUBMIT_SECONDS, tenant_queue_max: int = 0) -> Submitting:
    ids = (f"00000000-0000-7000-8000-{n:012d}" for n in range(100))
    return Submitting(
        world,
        world,
        world,
        world,
        world,
        world,
        active=world,
        remembered=world,
        check_host=world.check_host,
        ttl_seconds=5,
        tenant_queue_max=tenant_queue_max,
        now=lambda: datetime.now(UTC),
        new_job_id=lambda: next(ids),
        jobs_of_the_day=world,
        deadline_seconds=deadline_seconds,
    )


ORDER = Order(
    tenant="default",
    user="admin",
    address=parse_repository_url("github.com/o/r", allowed_hosts=AllowedHosts()),
    idempotency_key="k",
)


async def test_a_publish_whose_fate_is_unknown_names_the_job_and_keeps_its_claim() -> None:
    world = World(FateUnknown("Connection timeout"))
    with pytest.raises(QueueUnavailable) as raised:
        await use_case(world).submit(ORDER)
    assert raised.value.job_id == "00000000-0000-7000-8000-000000000000"
    assert len(world.entries) == 2


async def test_the_same_key_publishes_the_same_job_again_when_nothing_was_stored() -> None:
    world = World(FateUnknown("Connection timeout"))
    submit = use_case(world).submit
    with pytest.raises(QueueUnavailable) as raised:
        await submit(ORDER)
    world.outcome = 4
    answer = await submit(ORDER)
    assert (answer.id, answer.job_id, answer.queue_position) == (raised.value.job_id, 4, 4)
    world.outcome = 5
    assert await submit(ORDER) == answer


async def test_an_idempotency_key_is_its_users_own() -> None:
    submit = use_case(World(4)).submit
    first = await submit(ORDER)
    address = parse_repository_url("github.com/o/other", allowed_hosts=AllowedHosts())
    others = await submit(replace(ORDER, user="bob", address=address))
    assert others.id != first.id
    assert (await submit(replace(ORDER, address=address))).id == first.id


async def test_a_publish_that_never_answers_is_given_up_within_two_seconds() -> None:
    assert SUBMIT_SECONDS < 2
    with pytest.raises(QueueUnavailable) as raised:
        await use_case(World(None), deadline_seconds=0.05).submit(ORDER)
    assert raised.value.job_id is not None


@pytest.mark.parametrize("error", [StreamFull("full"), BusUnavailable("Not connected to the bus")])
async def test_a_refused_publish_leaves_no_claim_behind(error: Exception) -> None:
    world = World(error)
    expected = QueueFull if isinstance(error, StreamFull) else QueueUnavailable
    with pytest.raises(expected) as raised:
        await use_case(world).submit(ORDER)
    assert len(world.entries) == 1  # the Idempotency-Key alone
    if isinstance(raised.value, QueueFull):
        assert (raised.value.size, raised.value.capacity, raised.value.retry_after_seconds) == (10, 10, 50)


async def test_an_accepted_job_is_answered_although_the_bus_went_away_since() -> None:
    world = World(1)
    world.state_fails = True
    answer = await use_case(world).submit(ORDER)
    assert (answer.status, answer.job_id, answer.queue_position) == ("dispatched", 1, 1)


async def test_a_publish_that_keeps_losing_to_other_gateways_is_given_up_and_leaves_no_claim() -> None:
    world = World(WrongLastSequence("lost"))
    with pytest.raises(QueueUnavailable, match="Too many submits of this tenant at once") as raised:
        await use_case(world, tenant_queue_max=3).submit(ORDER)
    assert raised.value.job_id is None
    assert len(world.entries) == 1  # the Idempotency-Key alone


async def test_a_full_tenant_is_refused_without_a_publish_and_leaves_no_claim() -> None:
    world = World(RuntimeError("nothing is to be published"))
    world.waiting_of_tenant = 3
    with pytest.raises(TenantQueueFull) as raised:
        await use_case(world, tenant_queue_max=3).submit(ORDER)
    assert (raised.value.size, raised.value.capacity, raised.value.retry_after_seconds) == (3, 3, 50)
    assert len(world.entries) == 1


async def test_the_place_of_a_submit_is_the_schedulers_where_it_says_one() -> None:
    world = World(4)
    world.place = Place(position=2, waiting=9)
    answer = await use_case(world).submit(ORDER)
    assert (answer.queue_position, answer.queue_size) == (2, 10)


async def test_without_a_connection_nothing_is_tried() -> None:
    world = World(1)
    world.connected = False
    with pytest.raises(QueueUnavailable) as raised:
        await use_case(world).submit(ORDER)
    assert raised.value.job_id is None
    assert world.entries == {}


async def test_who_asks_at_the_same_time_shares_an_answer_that_was_sought_after_all_of_them_asked() -> None:
    begun: list[int] = []
    let_go = asyncio.Event()

    async def question() -> int:
        begun.append(len(begun) + 1)
        number = begun[-1]
        await let_go.wait()
        return number

    shared = Shared(question)
    first = asyncio.create_task(shared.ask())
    while not begun:
        await asyncio.sleep(0)
    later = [asyncio.create_task(shared.ask()) for _ in range(5)]
    await asyncio.sleep(0)
    let_go.set()
    assert await first == 1
    assert await asyncio.gather(*later) == [2] * 5
    assert await shared.ask() == 3


async def test_a_question_that_fails_fails_for_who_asked_it_and_not_for_the_next() -> None:
    answers: list[int | Exception] = [BusUnavailable("away"), 7]

    async def question() -> int:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    shared = Shared(question)
    with pytest.raises(BusUnavailable):
        await shared.ask()
    assert await shared.ask() == 7
