"""Commands to whichever scheduler leads, and hearing what it decided.

A command is stored before it is decided, so it is carried out even when nobody leads at the moment, or when
whoever asked is gone. The answer comes to an inbox of this process: one subscription for all that wait, which
the client makes anew when its connection is.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from typing import Final

import nats.errors
import structlog
from nats.aio.msg import Msg

from pharos_contracts.control.v1 import AnyCommand, Controlled, Purged, Scheduled
from pharos_contracts.message import UnreadableMessage, decode
from pharos_contracts.rpc import Refused
from pharos_contracts.subjects import control_subject
from pharos_service.asking import QuestionRefused
from pharos_service.bus import Bus, BusError, FateUnknown

log = structlog.get_logger()

ANSWER_SECONDS: Final = 8.0
LOOK_SECONDS: Final = 1.0

Answer = Controlled | Purged | Scheduled
_Heard = Controlled | Purged | Scheduled | Refused


class CommandUnsent(Exception):
    """The bus did not take the command; ``fate_unknown``: or it did, and nobody can say."""

    def __init__(self, reason: str, *, fate_unknown: bool) -> None:
        super().__init__(reason)
        self.reason = reason
        self.fate_unknown = fate_unknown


class SchedulerSilent(Exception):
    """The command is stored, and no scheduler has answered yet."""


class Commands:
    """Sends commands. One object serves every request of a process."""

    def __init__(self, bus: Bus, *, answer_seconds: float = ANSWER_SECONDS) -> None:
        self._bus = bus
        self._answer_seconds = answer_seconds
        self._inbox: str | None = None
        self._subscribing = asyncio.Lock()
        self._waiting: dict[str, asyncio.Future[_Heard]] = {}

    async def send(
        self,
        command_to: Callable[[str], AnyCommand],
        *,
        carried_out: Callable[[int], Awaitable[Answer | None]] | None = None,
    ) -> Answer | None:
        """What the scheduler answers to the command that *command_to* makes of the subject to answer to.

        None where there is no such thing as it names. *carried_out* looks, once a second, whether the command
        of that sequence was carried out although its answer got lost.
        QuestionRefused, CommandUnsent, SchedulerSilent.
        """
        name = secrets.token_hex(12)
        heard: asyncio.Future[_Heard] = asyncio.get_running_loop().create_future()
        self._waiting[name] = heard
        try:
            command = command_to(f"{await self._listen()}.{name}")
            stored = await self._bus.publish(control_subject(command), command)
            answer = await self._await(heard, stored.seq, carried_out)
        except BusError as error:
            raise CommandUnsent(str(error), fate_unknown=isinstance(error, FateUnknown)) from error
        finally:
            del self._waiting[name]
        if isinstance(answer, Refused):
            if answer.status == 404:
                return None
            raise QuestionRefused(answer)
        return answer

    async def _await(
        self,
        heard: asyncio.Future[_Heard],
        sequence: int,
        carried_out: Callable[[int], Awaitable[Answer | None]] | None,
    ) -> _Heard:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._answer_seconds
        while (remaining := deadline - loop.time()) > 0:
            if (await asyncio.wait({heard}, timeout=min(LOOK_SECONDS, remaining)))[0]:
                return heard.result()
            if carried_out is not None:
                try:
                    answer = await carried_out(sequence)
                except BusError as error:
                    log.debug("outcome_unknown", sequence=sequence, reason=str(error))
                    continue
                if answer is not None:
                    return answer
        raise SchedulerSilent

    async def _listen(self) -> str:
        """The beginning of the subjects that answers come to."""
        async with self._subscribing:
            if self._inbox is None:
                inbox = self._bus.client.new_inbox()
                try:
                    await self._bus.client.subscribe(f"{inbox}.*", cb=self._hear)
                except nats.errors.Error as error:
                    raise CommandUnsent("Not connected to the bus", fate_unknown=False) from error
                self._inbox = inbox
            return self._inbox

    async def _hear(self, message: Msg) -> None:
        heard = self._waiting.get(message.subject.rpartition(".")[2])
        if heard is None or heard.done():
            return  # whoever asked has gone
        try:
            heard.set_result(decode(message.data, _Heard))
        except UnreadableMessage as error:
            log.warning("answer_unreadable", error=error.reason)
