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
from pharos_gateway.sight import Sight
from pharos_service.bus import Bus, Stored

log = structlog.get_logger()

PURGES_AT_ONCE: Final = 32
SUBMITS: Final = (["cmd", "ingest"], ["cmd", "document"])


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
    """The use cases, on what *sight* shows: a job of somebody's own is not for the rest of the tenant.

    Errors of the bus and of ``Commands.send`` pass through.
    """

    def __init__(self, bus: Bus, commands: Commands, *, now: Callable[[], datetime]) -> None:
        self._bus = bus
        self._commands = commands
        self._now = now

    async def page(self, sight: Sight, *, limit: int, before: int | None) -> DeadLetterList:
        """At most *limit* of them, older than the *cursor* of the page before. It may be short."""
        found = await newest(self._bus, DEAD, subjects.dead_letters(sight.tenant), limit + 1, before)
        shown = found[:limit]
        letters = (_read(stored) for stored in shown)
        return DeadLetterList(
            dead_letters=tuple(
                _view(letter) for letter in letters if letter is not None and _shows(sight, letter)
            ),
            cursor=shown[-1].sequence if len(found) > limit else None,
        )

    async def one(self, sight: Sight, letter_id: str, *, payload: bool) -> DeadLetterView | None:
        """One of them, with the bytes of a message where *payload* is wanted."""
        letter = await self._get(sight, letter_id)
        if letter is None:
            return None
        shown = _view(letter)
        if payload and letter.kind is DeadLetterKind.MESSAGE:
            shown = msgspec.structs.replace(shown, payload=b64encode(letter.payload).decode())
        return shown

    async def replay(self, sight: Sight, letter_id: str, *, by: str) -> tuple[bool, Job | None]:
        """(whether there is such a letter, the job that is tried again: None for a message, sent again)."""
        letter = await self._get(sight, letter_id)
        if letter is None:
            return False, None

        def command_to(reply_to: str) -> ReplayDeadLetter:
            return ReplayDeadLetter(
                tenant=letter.tenant, by=by, at=self._now(), reply_to=reply_to, letter_id=letter.letter_id
            )

        answer = await self._commands.send(command_to)
        return answer is not None, answer.job if isinstance(answer, Controlled) else None

    async def purge(self, sight: Sight, letter_id: str, *, by: str) -> bool:
        """Whether it was there, and is forgotten now."""
        letter = await self._get(sight, letter_id)
        return letter is not None and await self._purge(letter.tenant, letter.letter_id, by)

    async def purge_all(self, sight: Sight, *, by: str) -> int:
        """How many were there, and are forgotten now."""
        wanted = subjects.dead_letters(sight.tenant)
        info = await self._bus.api(f"STREAM.INFO.{DEAD}", {"subjects_filter": wanted})
        names = [subject.split(".") for subject in sorted(info["state"].get("subjects") or {})]
        purged = 0
        for start in range(0, len(names), PURGES_AT_ONCE):
            answers = await asyncio.gather(
                *(
                    # Whoever sees all forgets what cannot be read too.
                    self._purge(owner, name, by) if sight.is_whole else self.purge(sight, name, by=by)
                    for _, owner, name in names[start : start + PURGES_AT_ONCE]
                )
            )
            purged += sum(answers)
        return purged

    async def _purge(self, tenant: str, letter_id: str, by: str) -> bool:
        def command_to(reply_to: str) -> PurgeDeadLetter:
            return PurgeDeadLetter(
                tenant=tenant, by=by, at=self._now(), reply_to=reply_to, letter_id=letter_id
            )

        return await self._commands.send(command_to) is not None  # else somebody was faster

    async def _get(self, sight: Sight, letter_id: str) -> DeadLetter | None:
        try:
            subject = subjects.dead_letters(sight.tenant, letter_id)
        except InvalidName:
            return None
        stored = await self._bus.last(DEAD, subject)
        letter = None if stored is None else _read(stored)
        return letter if letter is not None and _shows(sight, letter) else None


def _shows(sight: Sight, letter: DeadLetter) -> bool:
    """Whether it is for somebody with *sight*, whose tenant it is filed under.

    What does not say whose it is, such as a command over a job, is filed under the default tenant: it is for
    admins.
    """
    if letter.job is not None:
        return sight.job(letter.job)
    named = (letter.subject or "").split(".")
    return sight.is_whole or (named[:2] in SUBMITS and named[2:3] == [letter.tenant])


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
