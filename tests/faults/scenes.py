"""A cell's jobs, and how its main job is brought to the moment at which the fault is to hit it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final
from uuid import uuid4

import httpx

from pharos_contracts.jobs.v1 import Progress, Stage
from pharos_contracts.lifecycle import JobState
from pharos_contracts.message import decode
from tests.faults import repositories
from tests.faults.matrix import Moment
from tests.support.faults import SCHEDULERS, WORKER, FaultyStack, Heard
from tests.support.stack import ENDED, eventually

SUBMIT_SECONDS: Final = 90.0
REACH_SECONDS: Final = 120.0
RETRY_SECONDS: Final = 0.1
# So much later the worker learns that `committing` is stored: time to stop its line before it goes on.
WIDENING_SECONDS: Final = 0.05


class MomentMissed(Exception):
    """The job was further than it should have been when the fault was to hit it: try again."""


@dataclass(slots=True)
class Submitted:
    """A job of a cell: how it is to end, and how its submit went."""

    name: str
    job_id: str
    wanted: JobState
    tries: int = 1
    seconds: float = 0.0


@dataclass(slots=True)
class Command:
    """A command to cancel, sent in a thread. ``status`` is None for as long as no answer has come."""

    status: int | None = None
    body: str = ""
    _thread: threading.Thread | None = None

    def join(self) -> None:
        if self._thread is not None:
            self._thread.join(SUBMIT_SECONDS)


@dataclass(slots=True)
class Scene:
    """One run of one cell, by a tenant that nobody else is."""

    stack: FaultyStack
    moment: Moment
    tenant: str = field(default_factory=lambda: f"cell-{uuid4().hex[:12]}")
    jobs: list[Submitted] = field(default_factory=list)
    cancel: Command | None = None

    @property
    def main(self) -> Submitted:
        """The job that is at the moment."""
        return next(job for job in self.jobs if job.name in (repositories.MAIN, repositories.LONG))

    def client(self) -> httpx.Client:
        return self.stack.client(self.tenant)

    def submit(self, name: str, wanted: JobState = JobState.COMPLETED) -> Submitted:
        """Submit until there is an answer, always with the same Idempotency-Key, as a careful client does."""
        began, tries = time.monotonic(), 0
        with self.client() as client:
            while True:
                tries += 1
                answer = self.ask_for(client, name)
                if answer is not None and answer.status_code == 200:
                    break
                if answer is not None and answer.status_code != 503:
                    raise AssertionError(
                        f"the submit of {name} was answered {answer.status_code}: {answer.text}"
                    )
                if time.monotonic() - began > SUBMIT_SECONDS:
                    raise AssertionError(f"no submit of {name} was taken for {SUBMIT_SECONDS:g} s")
                time.sleep(RETRY_SECONDS)
        job = Submitted(name, answer.json()["id"], wanted, tries, time.monotonic() - began)
        self.jobs.append(job)
        return job

    def submit_meanwhile(self) -> threading.Thread:
        """Submit a small job in a thread, which says in ``jobs`` that it was taken."""

        def try_to() -> None:
            with suppress(AssertionError):  # a job that is missing says the same
                self.submit(repositories.SMALL[0])

        thread = threading.Thread(target=try_to, daemon=True)
        thread.start()
        return thread

    @property
    def late(self) -> Submitted | None:
        """The job that was submitted while the fault lasted; None where nobody took it."""
        return next((job for job in self.jobs if job.name == repositories.SMALL[0]), None)

    def ask_for(self, client: httpx.Client, name: str) -> httpx.Response | None:
        """One try; None where nobody answered."""
        try:
            return client.post(
                f"/api/v1/ingestion/ingest/{self.stack.repository_url(name)}",
                headers={"Idempotency-Key": f"{self.tenant}/{name}"},
            )
        except httpx.TransportError:
            return None

    # The moments

    def reach(self) -> None:
        """Return when the main job is at the moment; what holds it there is let go by ``release``."""
        match self.moment:
            case Moment.QUEUED:
                self._queued()
            case Moment.CLONING:
                self._cloning()
            case Moment.ENCODING:
                self._encoding(repositories.MAIN, JobState.COMPLETED)
            case Moment.PUBLISHING:
                self._publishing()
            case Moment.CANCELLING:
                self._encoding(repositories.LONG, JobState.CANCELLED)
                self._cancelling()

    def release(self, keep: tuple[str, ...] = ()) -> None:
        """Let go what holds the job, but for the lines in *keep*, which the fault has in its hand."""
        for name in ("git", WORKER, *SCHEDULERS):
            if name not in keep:
                self.stack.lines[name].heal()

    def _hears(self, job: Submitted, subject: str) -> Callable[[Heard], bool]:
        return lambda heard: subject in heard.subject and job.job_id in heard.subject

    def _wait_for(self, job: Submitted, subject: str) -> Heard:
        return self.stack.ear.wait(self._hears(job, subject), REACH_SECONDS)

    def _queued(self) -> None:
        self.stack.git_line.hold()
        for name in repositories.SMALL[1:]:
            self._wait_for(self.submit(name), ".started")
        self._wait_for(self.submit(repositories.MAIN), ".queued")

    def _cloning(self) -> None:
        before = self.stack.git_line.accepted
        self.stack.git_line.hold()
        self.submit(repositories.MAIN)
        deadline = time.monotonic() + REACH_SECONDS
        while self.stack.git_line.accepted == before:
            assert time.monotonic() < deadline, "no clone has begun"
            time.sleep(0.005)

    def _encoding(self, name: str, wanted: JobState) -> None:
        job = self.submit(name, wanted)

        def encodes(heard: Heard) -> bool:
            if not heard.subject.startswith("progress.") or job.job_id not in heard.subject:
                return False
            progress = decode(heard.data, Progress)
            return progress.stage is Stage.ENCODE and progress.done < progress.total

        self.stack.ear.wait(encodes, REACH_SECONDS)

    def _publishing(self) -> None:
        line = self.stack.lines[WORKER]
        line.slow(WIDENING_SECONDS)
        stopped = self.stack.ear.reflex(
            lambda heard: self.tenant in heard.subject and heard.subject.endswith(".committing")
            and heard.subject.startswith("events.item."),
            lambda _: line.hold_now(),
        )  # fmt: skip
        self.submit(repositories.MAIN)
        assert stopped.fired.wait(REACH_SECONDS), "nothing was published"

    def _cancelling(self) -> None:
        schedulers = [self.stack.lines[name] for name in SCHEDULERS]
        job = self.main

        def stop(_: Heard) -> None:
            for line in schedulers:
                line.hold_now()

        stored = self.stack.ear.reflex(
            lambda heard: heard.subject == f"cmd.control.{job.job_id}.cancel", stop
        )
        self.cancel = command = Command()

        def send() -> None:
            with self.client() as client:
                try:
                    answer = client.post(f"/api/v1/jobs/{job.job_id}/cancel")
                    command.status, command.body = answer.status_code, answer.text
                except httpx.TransportError as error:
                    command.body = type(error).__name__

        command._thread = threading.Thread(target=send, daemon=True)
        command._thread.start()
        assert stored.fired.wait(REACH_SECONDS), (
            f"the command was not stored: {command.status} {command.body}"
        )

    def missed(self) -> bool:
        """Whether the main job had left its moment before the fault was there."""
        passed = {
            Moment.QUEUED: (".started", ".committing"),
            Moment.CLONING: (".lexical_ready", ".committing"),
            Moment.ENCODING: (".committing",),
            Moment.PUBLISHING: (".completed",),
            Moment.CANCELLING: (".committing", ".cancelled"),
        }[self.moment]
        return any(
            heard.subject.startswith("events.") and self.main.job_id in heard.subject
            and heard.subject.endswith(passed)
            for heard in self.stack.ear.all()
        )  # fmt: skip

    def until_quiet(self) -> None:
        """Wait until every job has ended, however it did."""
        if self.cancel is not None:
            self.cancel.join()
        eventually(lambda: self.ended() or None, seconds=SUBMIT_SECONDS)

    def states(self) -> dict[str, str]:
        """The state of each job by its id, by the word of history; empty while nobody tells."""
        with self.client() as client:
            try:
                answer = client.get("/api/v1/jobs", params={"limit": 100})
                if answer.status_code != 200:
                    return {}
                return {row["job_id"]: row["state"] for row in answer.json()["jobs"]}
            except httpx.TransportError:
                return {}

    def ended(self) -> bool:
        """Whether every job has, by the word of its events."""
        with self.client() as client:
            for job in self.jobs:
                try:
                    answer = client.get(f"/api/v1/jobs/{job.job_id}")
                except httpx.TransportError:
                    return False
                if answer.status_code != 200 or answer.json()["state"] not in ENDED:
                    return False
        return True
