"""What must be true once a cell is over, read from the streams, the buckets, the disk, history and search."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Final

import httpx

from pharos_contracts import streams
from pharos_contracts.jobs.v1 import (
    AnyEvent,
    ItemCompleted,
    ItemEvent,
    ItemStarted,
    JobCancelled,
    JobCompleted,
    JobEvent,
    JobFailed,
    JobSkipped,
)
from pharos_contracts.lifecycle import JobState
from pharos_contracts.message import decode
from pharos_contracts.violations import name_of
from pharos_service import bus_check
from pharos_service.bus import TROUBLE, Bus
from pharos_service.pull import CaughtUp, tail
from tests.faults import repositories
from tests.faults.scenes import Scene
from tests.support.faults import FaultyStack

Answers = list[list[tuple[str, int]]]
CHECK_SECONDS: Final = 30.0
ENDS: Final = (JobCompleted, JobFailed, JobCancelled, JobSkipped)


@dataclass(slots=True)
class Truth:
    """``missing``: what is not as it must be, and may still become so. ``twice``: what can never be right."""

    missing: list[str] = field(default_factory=list)
    lost: int = 0
    twice: list[str] = field(default_factory=list)
    attempts: int = 0
    starts: int = 0


def answers(client: httpx.Client, name: str) -> Answers | None:
    """(file, first line) of what is found for each question; None while search does not answer."""
    found = []
    for question in repositories.QUESTIONS:
        try:
            answer = client.post("/api/v1/search", json={"query": question, "k": 5, "repo": name})
        except httpx.TransportError:
            return None
        if answer.status_code != 200:
            return None
        found.append([(hit["file"], hit["lineSpan"]["start"]) for hit in answer.json()["results"]])
    return found


def look(scene: Scene, expected: Mapping[str, Answers], after: int) -> Truth:
    """What is true of *scene* now; its events are behind sequence *after* of JOBS."""
    stack = scene.stack
    try:
        events = stack.network.call(_events(stack.bus, scene.tenant, after))
        left = stack.network.call(_left_on_the_bus(stack.bus, scene))
    except (*TROUBLE, TimeoutError) as error:
        return Truth(missing=[f"the bus does not tell: {error!r}"], lost=len(scene.jobs))
    truth = Truth(missing=left)
    if scene.late is None:
        truth.missing.append("the submit of that time has no answer")
    _count(scene, events, truth)
    if not truth.missing:
        _compare(scene, expected, truth)
    if not truth.missing:
        truth.missing += _left_on_disk(stack, scene) + _violations(stack)
    return truth


async def _events(bus: Bus, tenant: str, after: int) -> list[AnyEvent]:
    found = []
    subjects = [f"events.job.{tenant}.>", f"events.item.{tenant}.>"]
    async with aclosing(tail(bus, streams.JOBS, subjects, after=after)) as stored:
        async for each in stored:
            if isinstance(each, CaughtUp):
                return found
            event: AnyEvent = decode(each.data, AnyEvent)
            found.append(event)
    raise AssertionError("a tail has no end")


async def _left_on_the_bus(bus: Bus, scene: Scene) -> list[str]:
    """Messages that should be gone once every job has ended."""
    found = []
    for stream, subjects in (
        (streams.Q, f"cmd.ingest.{scene.tenant}.>"),
        (f"KV_{streams.KV_ACTIVE}", f"$KV.{streams.KV_ACTIVE}.{scene.tenant}.>"),
        *((streams.WORK, f"work.*.{job.job_id}.>") for job in scene.jobs),
    ):
        last = await bus.last(stream, subjects)
        if last is not None and last.headers.get("KV-Operation") != "DEL":
            found.append(f"{stream} still holds {last.subject}")
    return found


def _count(scene: Scene, events: Sequence[AnyEvent], truth: Truth) -> None:
    """Each job ended once, as it should; nobody else's job came of it."""
    ended = Counter(each.job.job_id for each in events if isinstance(each, ENDS))
    states = {each.job.job_id: each.job for each in events if isinstance(each, JobEvent)}
    done = Counter(each.job_id for each in events if isinstance(each, ItemCompleted))
    if scene.late is not None:  # before, there may be a job whose submit is being answered
        known = {job.job_id for job in scene.jobs}
        for job_id in {*states, *(each.job_id for each in events if isinstance(each, ItemEvent))} - known:
            truth.twice.append(f"{job_id} is nobody's: it was never the answer to a submit")
    for job in scene.jobs:
        state = states[job.job_id].state if job.job_id in states else None
        if ended[job.job_id] == 0:
            truth.lost += 1
            truth.missing.append(f"{job.name} has not ended: {state}")
            continue
        if ended[job.job_id] > 1:
            truth.twice.append(f"{job.name} ended {ended[job.job_id]} times")
        if done[job.job_id] > 1:
            truth.twice.append(f"the item of {job.name} was completed {done[job.job_id]} times")
        if state is not job.wanted:
            final = states[job.job_id]
            truth.lost += 1
            truth.missing.append(f"{job.name} is {state}, not {job.wanted}: {final.code}: {final.error}")
    main = scene.main.job_id
    truth.attempts = max((each.attempt for each in events if _of(each, main)), default=0)
    truth.starts = sum(isinstance(each, ItemStarted) and each.job_id == main for each in events)


def _of(event: AnyEvent, job_id: str) -> bool:
    return isinstance(event, ItemEvent) and event.job_id == job_id


def _compare(scene: Scene, expected: Mapping[str, Answers], truth: Truth) -> None:
    """History tells what the events tell, and search finds what it should."""
    told = scene.states()
    for job in scene.jobs:
        if told.get(job.job_id) != job.wanted:
            truth.missing.append(f"history tells of {job.name}: {told.get(job.job_id)}")
    truth.twice += [f"history tells of {each}" for each in told.keys() - {job.job_id for job in scene.jobs}]
    with scene.client() as client:
        for job in scene.jobs:
            found = answers(client, job.name)
            nothing: Answers = [[] for _ in repositories.QUESTIONS]
            wanted = nothing if job.wanted is JobState.CANCELLED else expected[job.name]
            if found != wanted:
                truth.missing.append(f"search finds in {job.name}: {found}")


def _violations(stack: FaultyStack) -> list[str]:
    """What `pharos-bus check` says, with no patience at all: whatever was to happen has happened."""
    try:
        findings = stack.network.call(
            bus_check.check(stack.bus, settle_seconds=0, grace_seconds=0), seconds=CHECK_SECONDS
        )
    except (bus_check.Unanswered, *TROUBLE) as error:
        return [str(error)]
    return [f"{name_of(each)}: {each.sentence()}" for each in findings.violations]


def _left_on_disk(stack: FaultyStack, scene: Scene) -> list[str]:
    workspaces = stack.disks["worker"].path / "workspaces"
    return [
        f"{path.name} is left on the worker's disk"
        for job in scene.jobs
        for path in workspaces.glob(f"{job.job_id}*")
    ]
