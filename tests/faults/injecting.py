"""Doing harm to one part of a running stack, and taking it back."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Final
from uuid import uuid4

import httpx

from pharos_contracts import streams
from pharos_service.bus import Bus
from tests.faults.matrix import BYTES_PER_SECOND, LATENCY_SECONDS, PROCESSOR_SHARE, Cell, Fault, Moment, Part
from tests.faults.scenes import Scene
from tests.support.faults import BUS, GATEWAY, HISTORY, SCHEDULERS, WORKER, Disk, Service
from tests.support.proxy import Proxy
from tests.support.stack import eventually

EVERY_LINE: Final = (GATEWAY, *SCHEDULERS, WORKER, HISTORY)


class Injection:
    """One fault, from ``begin`` to ``end``. Made before the moment comes: the leader must still be known."""

    def __init__(self, cell: Cell, scene: Scene) -> None:
        self._cell = cell
        self._scene = scene
        self._stack = scene.stack
        self._service_name = self._name()
        self.began_after = self._stack.network.call(self._last_sequence())
        self._answers: list[httpx.Response | None] = []
        self._later: list[asyncio.Task[None]] = []

    def _name(self) -> str:
        match self._cell.part:
            case Part.SCHEDULER:
                return eventually(self._stack.leader, seconds=20)
            case Part.STORE | Part.WORKER:
                return WORKER
            case part:
                return part.value

    async def _last_sequence(self) -> int:
        info = await self._stack.bus.api(f"STREAM.INFO.{streams.JOBS}")
        return int(info["state"]["last_seq"])

    @property
    def service(self) -> Service:
        return self._stack.services[self._service_name]

    @property
    def line_names(self) -> tuple[str, ...]:
        """The lines that this fault has in its hand while it lasts."""
        if self._cell.fault not in (Fault.CUT, Fault.SLOW) or self._cell.part is Part.STORE:
            return ()
        return EVERY_LINE if self._service_name == BUS else (self._service_name,)

    @property
    def _lines(self) -> list[Proxy]:
        return [self._stack.lines[name] for name in self.line_names]

    @property
    def _disk(self) -> Disk:
        return self._stack.disks[self._cell.part.value]

    @property
    def endings(self) -> int:
        """How often its service ends because of what is done here, and not by itself."""
        return int(
            self._cell.fault is Fault.KILL or (self._cell.fault, self._cell.part) == (Fault.FULL, Part.BUS)
        )

    def begin(self) -> None:
        match self._cell.fault:
            case Fault.KILL:
                self.service.kill()
            case Fault.FREEZE:
                self.service.freeze()
            case Fault.FULL:
                self._disk.fill()
            case Fault.CUT:
                for line in self._lines:
                    line.cut()
            case Fault.SLOW if self._cell.part is Part.STORE:
                self.service.throttle(PROCESSOR_SHARE)
            case Fault.SLOW:
                for line in self._lines:
                    line.heal()
                    line.slow(LATENCY_SECONDS, BYTES_PER_SECOND)
            case Fault.AGAIN:
                self._deliver_again()

    def end(self) -> None:
        match self._cell.fault:
            case Fault.FREEZE:
                self.service.thaw()
            case Fault.FULL:
                self._disk.heal()
                if self._cell.part is Part.BUS:
                    self.service.restart()
            case Fault.CUT | Fault.SLOW:
                for line in self._lines:
                    line.heal()
                self.service.unthrottle()
            case Fault.KILL | Fault.AGAIN:
                pass

    def contradictions(self) -> list[str]:
        """Repeated submits that were not answered with the job of the first."""
        wanted = self._scene.main.job_id
        return [
            f"the same submit was answered {answer.status_code if answer is not None else 'by nobody'}"
            for answer in self._answers
            if answer is None or answer.status_code != 200 or answer.json()["id"] != wanted
        ]

    # Duplicates

    def _deliver_again(self) -> None:
        part = self._cell.part
        if part in (Part.GATEWAY, Part.BUS):
            self._ask_again()
        if part in (Part.SCHEDULER, Part.BUS):
            self._publish_again(f"cmd.ingest.{self._scene.tenant}.")
            self._read_again(streams.JOBS, streams.SCHEDULER_ITEMS, self.began_after + 1)
            if self._cell.moment is Moment.CANCELLING:
                self._publish_again("cmd.control.")
        if part in (Part.WORKER, Part.BUS):
            self._hand_out_again()
        if part in (Part.HISTORY, Part.BUS):
            self._read_again(streams.JOBS, streams.HISTORY, self.began_after + 1)

    def _ask_again(self) -> None:
        """The same submit with the same key, and the same cancel."""
        with self._scene.client() as client:
            self._answers.append(self._scene.ask_for(client, self._scene.main.name))
            if self._scene.cancel is not None:
                # The schedulers are held and answer nobody yet.
                with suppress(httpx.TransportError):
                    client.post(f"/api/v1/jobs/{self._scene.main.job_id}/cancel", timeout=1)

    def _hand_out_again(self) -> None:
        if self._cell.moment is not Moment.QUEUED:
            self._publish_again("work.")
            return
        loop, bus = self._stack.network.loop, self._stack.bus
        job_id = self._scene.main.job_id
        self._stack.ear.reflex(
            lambda heard: heard.subject.startswith("work.") and job_id in heard.subject,
            lambda heard: self._later.append(loop.create_task(_publish(bus, heard.subject, heard.data))),
        )

    def _publish_again(self, prefix: str) -> None:
        """The last message about the main job under *prefix*, once more, as if it had never been stored."""
        job_id = self._scene.main.job_id
        found = [each for each in self._stack.ear.all() if each.subject.startswith(prefix)]
        found = [each for each in found if job_id in each.subject]
        assert found, f"nothing under {prefix} was heard of the job"
        self._stack.network.call(_publish(self._stack.bus, found[-1].subject, found[-1].data))

    def _read_again(self, stream: str, consumer: str, sequence: int) -> None:
        """Have *consumer* delivered everything from *sequence* on, acknowledged or not."""
        self._stack.network.call(
            self._stack.bus.api(f"CONSUMER.RESET.{stream}.{consumer}", {"seq": sequence})
        )


async def _publish(bus: Bus, subject: str, data: bytes) -> None:
    await bus.publish(subject, data, message_id=str(uuid4()))
