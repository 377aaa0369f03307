"""Pausing, resuming, cancelling and retrying a job: its owner asks, the scheduler decides and answers."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from pharos_contracts.control.v1 import Action, ControlJob, Controlled
from pharos_contracts.jobs.v1 import Job
from pharos_contracts.lifecycle import JobState
from pharos_gateway.commanding import Commands
from pharos_gateway.finding import Finder, parse_identifier
from pharos_gateway.sight import Sight
from pharos_service.asking import QuestionRefused


class UnknownAction(Exception):
    """There is no such action."""

    def __init__(self, name: str) -> None:
        super().__init__(f"Unknown action {name[:40]!r}; the actions are {', '.join(Action)}")


class InvalidTransition(Exception):
    """The job is in a state that the action does not apply to."""

    def __init__(self, detail: str, state: JobState) -> None:
        super().__init__(detail)
        self.detail = detail
        self.state = state


def parse_action(name: str) -> Action:
    """The action of that name. UnknownAction."""
    try:
        return Action(name)
    except ValueError:
        raise UnknownAction(name) from None


class Controlling:
    """The use case. One object serves every request of a process."""

    def __init__(self, commands: Commands, finder: Finder, *, now: Callable[[], datetime]) -> None:
        self._commands = commands
        self._finder = finder
        self._now = now

    async def control(
        self, sight: Sight, identifier: str, action: Action, *, by: str, failed_only: bool = True
    ) -> Job | None:
        """The job as *action* left it; None where *sight* shows none of that *identifier*.

        *failed_only*: of a batch that is tried again, only what did not succeed.

        InvalidTransition, and what finding and ``Commands.send`` raise.
        """
        job = await self._find(sight.tenant, identifier)
        if job is None or not sight.job(job):
            return None

        def command_to(reply_to: str) -> ControlJob:
            return ControlJob(
                tenant=job.tenant,
                by=by,
                at=self._now(),
                reply_to=reply_to,
                job_id=job.job_id,
                action=action,
                failed_only=failed_only,
            )

        async def carried_out(sequence: int) -> Controlled | None:
            found = await self._finder.known(job.tenant, job.job_id)
            return Controlled(job=found) if found is not None and found.control == sequence else None

        try:
            answer = await self._commands.send(command_to, carried_out=carried_out)
        except QuestionRefused as error:
            refusal = error.refusal
            if refusal.code == "invalid_transition":
                raise InvalidTransition(refusal.detail, state_in(refusal.detail) or job.state) from error
            raise
        if answer is None:
            return None
        assert isinstance(answer, Controlled), "a command over a job is answered with the job"
        return answer.job

    async def _find(self, tenant: str | None, identifier: str) -> Job | None:
        """By its UUID without history: whatever can be controlled is in the queue or in the ledger."""
        match parse_identifier(identifier):
            case int(number):
                return await self._finder.by_number(tenant, number)
            case str(job_id):
                return await self._finder.known(tenant, job_id)
            case None:
                return None


def state_in(detail: str) -> JobState | None:
    """The state that a refusal names: the job may have left it by the time that it is looked up again."""
    for word in detail.split():
        if word in frozenset(JobState):
            return JobState(word)
    return None
