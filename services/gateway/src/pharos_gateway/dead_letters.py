"""Dead letters: what is not tried again by itself. Read from the bus, replayed and purged by commands."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from collections.abc import Callable
from datetime import datetime
from typing import Final

import msgspec
import structlog
from msgspec import UNSET, UnsetType

from pharos_contracts import subjects
from pharos_contracts.control.v1 import (
    Controlled,
    DeadLetter,
    DeadLetterKind,
    PurgeDeadLetter,
    ReplayDeadLetter,
)
from pharos_contracts.identity import InvalidName
from pharos_contracts.jobs.v1 import Job
from pharos_contracts.message import UnreadableMessage, decode
from pharos_contracts.streams import DEAD
from pharos_gateway.commanding import Commands
from pharos_gateway.job_view import JobView, view
from pharos_gateway.newest import newest
from pharos_service.bus import Bus, Stored

log = structlog.get_logger()

PURGES_AT_ONCE: Final = 32


class DeadLetterView(msgspec.Struct, frozen=True, kw_only=True):
    """Something that will not be tried again by itself.

    A ``job`` that killed its workers (``deaths``), as it ended; or a ``message`` that nobody could read, with
    its stream, subject and size. Its bytes, as Base64, are shown to an admin who asks for that one letter.
    """

    id: str
    kind: DeadLetterKind
    tenant: str
    at: datetime
    reason: str
    code: str
    job: JobView | None
    deaths: int
    workers: tuple[str, ...]
    stream: str | None
    subject: str | None
    payload_bytes: int
    payload: str | UnsetType = UNSET


class DeadLetterList(msgspec.Struct, frozen=True, kw_only=True):
    """Newest first; ``cursor`` continues, None ends."""

    dead_letters: tuple[DeadLetterView, ...]
    cursor: int | None


class DeadLetters:
    """The use cases. *tenant* None is every one. Errors of the bus and of ``Commands.send`` pass through."""

    def __init__(self, bus: Bus, commands: Commands, *, now: Callable[[], datetime]) -> None:
        self._bus = bus
        self._commands = commands
        self._now = now

    async def page(self, tenant: str | None, *, limit: int, before: int | None) -> DeadLetterList:
        """At most *limit* of them, older than the *cursor* of the page before."""
        found = await newest(self._bus, DEAD, subjects.dead_letters(tenant), limit + 1, before)
        shown = found[:limit]
        letters = (_read(stored) for stored in shown)
        return DeadLetterList(
            dead_letters=tuple(_view(letter) for letter in letters if letter is not None),
            cursor=shown[-1].sequence if len(found) > limit else None,
        )

    async def one(self, tenant: str | None, letter_id: str, *, payload: bool) -> DeadLetterView | None:
        """One of them, with the bytes of a message where *payload* is wanted."""
        letter = await self._get(tenant, letter_id)
        if letter is None:
            return None
        shown = _view(letter)
        if payload and letter.kind is DeadLetterKind.MESSAGE:
            shown = msgspec.structs.replace(shown, payload=b64encode(letter.payload).decode())
        return shown

    async def replay(self, tenant: str | None, letter_id: str, *, by: str) -> tuple[bool, Job | None]:
        """(whether there is such a letter, the job that is tried again: None for a message, sent again)."""
        letter = await self._get(tenant, letter_id)
        if letter is None:
            return False, None

        def command_to(reply_to: str) -> ReplayDeadLetter:
            return ReplayDeadLetter(
                tenant=letter.tenant, by=by, at=self._now(), reply_to=reply_to, letter_id=letter.letter_id
            )

        answer = await self._commands.send(command_to)
        return answer is not None, answer.job if isinstance(answer, Controlled) else None

    async def purge(self, tenant: str | None, letter_id: str, *, by: str) -> bool:
        """Whether it was there, and is forgotten now."""
        letter = await self._get(tenant, letter_id)
        return letter is not None and await self._purge(letter.tenant, letter.letter_id, by)

    async def purge_all(self, tenant: str | None, *, by: str) -> int:
        """How many were there, and are forgotten now."""
        info = await self._bus.api(f"STREAM.INFO.{DEAD}", {"subjects_filter": subjects.dead_letters(tenant)})
        names = [subject.split(".") for subject in sorted(info["state"].get("subjects") or {})]
        purged = 0
        for start in range(0, len(names), PURGES_AT_ONCE):
            answers = await asyncio.gather(
                *(self._purge(owner, name, by) for _, owner, name in names[start : start + PURGES_AT_ONCE])
            )
            purged += sum(answers)
        return purged

    async def _purge(self, tenant: str, letter_id: str, by: str) -> bool:
        def command_to(reply_to: str) -> PurgeDeadLetter:
            return PurgeDeadLetter(
                tenant=tenant, by=by, at=self._now(), reply_to=reply_to, letter_id=letter_id
            )

        return await self._commands.send(command_to) is not None  # else somebody was faster

    async def _get(self, tenant: str | None, letter_id: str) -> DeadLetter | None:
        try:
            subject = subjects.dead_letters(tenant, letter_id)
        except InvalidName:
            return None
        stored = await self._bus.last(DEAD, subject)
        return None if stored is None else _read(stored)


def _read(stored: Stored) -> DeadLetter | None:
    try:
        return decode(stored.data, DeadLetter)
    except UnreadableMessage as error:
        log.warning("dead_letter_unreadable", sequence=stored.sequence, error=error.reason)
        return None


def _view(letter: DeadLetter) -> DeadLetterView:
    return DeadLetterView(
        id=letter.letter_id,
        kind=letter.kind,
        tenant=letter.tenant,
        at=letter.at,
        reason=letter.reason,
        code=letter.code,
        job=None if letter.job is None else view(letter.job, None, workers=None),
        deaths=letter.deaths,
        workers=letter.workers,
        stream=letter.stream,
        subject=letter.subject,
        payload_bytes=len(letter.payload),
    )
