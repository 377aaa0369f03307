"""Documents pass the scheduler beside repositories: a stream, slots and an order of their own."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from pharos_contracts import streams
from pharos_contracts.control.v1 import Action, Controlled
from pharos_contracts.jobs.v1 import (
    NO_NUMBER,
    ItemCommitting,
    ItemCompleted,
    ItemFailed,
    ItemStarted,
    Job,
    Purpose,
    WorkItem,
    job_of,
)
from pharos_contracts.lifecycle import JobState
from pharos_scheduler.dispatcher import BusDispatcher
from pharos_service.bus import Bus, StreamFull
from tests.support.scheduling import (
    RESULT,
    announce,
    command,
    control,
    document_command,
    ended,
    is_released,
    job_when,
    leading,
    say,
    submit,
    take,
    until_holds,
)

pytestmark = pytest.mark.anyio


async def take_document(bus: Bus) -> tuple[WorkItem, Any]:
    return await take(bus, consumer=streams.WORKERS_DOCUMENTS)


def is_queued(job: Job) -> bool:
    return job.state is JobState.QUEUED


async def test_a_document_goes_from_its_queue_to_its_end(bus: Bus) -> None:
    wanted = document_command(1)
    async with leading(bus):
        await submit(bus, wanted)
        queued = await job_when(bus, wanted, is_queued)
        assert (queued.number, queued.document) == (NO_NUMBER, wanted.document)
        await announce(bus, document_slots=1)
        item, message = await take_document(bus)
        await say(bus, item, ItemStarted)
        await say(bus, item, ItemCommitting, result=RESULT)
        await say(bus, item, ItemCompleted, result=RESULT)
        await message.ack()
        done = await job_when(bus, wanted, ended)
        assert (done.state, done.result) == (JobState.COMPLETED, RESULT)
        await is_released(bus, wanted)
        await until_holds(bus, streams.DOCS, 0)
        await until_holds(bus, streams.WORK, 0)


async def test_a_note_waits_neither_for_a_full_queue_of_repositories_nor_for_their_slots(bus: Bus) -> None:
    async with leading(bus):
        await announce(bus, 1, document_slots=1)
        await submit(bus, command(1))
        await take(bus)
        for number in range(2, 12):
            await submit(bus, command(number))
        with pytest.raises(StreamFull):
            await submit(bus, command(12))
        await submit(bus, document_command(13))
        item, _ = await take_document(bus)
        assert item.job.identity == "note-13"
        await until_holds(bus, streams.Q, 10)


async def test_documents_of_one_dataset_are_read_one_after_the_other(bus: Bus) -> None:
    first, second, other = document_command(1), document_command(2), document_command(3, "other")
    async with leading(bus):
        for each in (first, second, other):
            await submit(bus, each)
            await job_when(bus, each, is_queued)
        await announce(bus, document_slots=3)
        taken = [await take_document(bus) for _ in range(2)]
        assert [item.job.identity for item, _ in taken] == ["note-1", "note-3"]
        await until_holds(bus, streams.DOCS, 1)
        item, message = taken[0]
        await say(bus, item, ItemStarted)
        await say(bus, item, ItemFailed, error="The document is empty.", code="document_empty", cleared=True)
        await message.ack()
        assert (await job_when(bus, first, ended)).error == "The document is empty."
        item, _ = await take_document(bus)
        assert item.job.identity == "note-2"


async def test_the_next_leader_finds_documents_that_were_delivered_to_the_one_before(bus: Bus) -> None:
    wanted = document_command(1)
    async with leading(bus):
        await submit(bus, wanted)
        await job_when(bus, wanted, is_queued)
    await announce(bus, document_slots=1)
    async with leading(bus, term=2):
        item, _ = await take_document(bus)
        assert item.job.job_id == wanted.job_id
        await until_holds(bus, streams.DOCS, 0)  # though it was never delivered to this leader


async def test_a_document_that_waited_too_long_while_no_scheduler_ran_is_skipped_with_its_age(
    bus: Bus,
) -> None:
    wanted = document_command(1, ttl_seconds=60, age_seconds=3600)
    await submit(bus, wanted)
    async with leading(bus):
        job = await job_when(bus, wanted, ended)
        assert (job.state, job.reason) == (JobState.SKIPPED, "Task exceeded TTL")
        assert job.age_seconds is not None and job.age_seconds >= 3600
        await is_released(bus, wanted)
        await until_holds(bus, streams.DOCS, 0)


async def test_a_waiting_document_is_paused_resumed_and_cancelled_by_its_owner(bus: Bus) -> None:
    wanted = document_command(1)
    async with leading(bus):
        await submit(bus, wanted)
        await job_when(bus, wanted, is_queued)
        for action, state in (
            (Action.PAUSE, JobState.PAUSED),
            (Action.RESUME, JobState.QUEUED),
            (Action.CANCEL, JobState.CANCELLED),
        ):
            answer = await control(bus, wanted.job_id, action)
            assert isinstance(answer, Controlled)
            assert answer.job.state is state
        await until_holds(bus, streams.DOCS, 0)
        await is_released(bus, wanted)


async def test_a_cancelled_document_is_cleared_away_by_whoever_reads_documents(bus: Bus) -> None:
    wanted = document_command(1)
    async with leading(bus):
        await announce(bus, document_slots=1)
        await submit(bus, wanted)
        item, message = await take_document(bus)
        await say(bus, item, ItemStarted)
        await job_when(bus, wanted, lambda job: job.state is JobState.RUNNING)
        await control(bus, wanted.job_id, Action.CANCEL)
        await message.ack()
        clearing, _ = await take_document(bus)
        assert (clearing.purpose, clearing.job.job_id) == (Purpose.CLEAR, wanted.job_id)


async def test_a_command_in_the_documents_queue_is_found_and_removed_by_its_job(bus: Bus) -> None:
    dispatcher = BusDispatcher(bus, lambda: datetime.now(UTC), lambda: None)
    wanted, other, repository = document_command(1), document_command(2), command(3)
    for each in (wanted, other, repository):
        await submit(bus, each)
    assert await dispatcher.queued(wanted.job_id) == (wanted, NO_NUMBER)
    await dispatcher.remove_command(job_of(wanted, NO_NUMBER))
    assert await dispatcher.queued(wanted.job_id) is None
    assert await dispatcher.commands() == {other.job_id, repository.job_id}
