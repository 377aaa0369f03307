"""Which faults hit which part at which moment, and which of these there is nothing to try about. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from itertools import product
from typing import Final, NamedTuple


class Part(StrEnum):
    """What is hit."""

    GATEWAY = "gateway"
    SCHEDULER = "scheduler"
    WORKER = "worker"
    HISTORY = "history"
    BUS = "nats-server"
    STORE = "store"


class Fault(StrEnum):
    """How."""

    KILL = "kill"
    FREEZE = "freeze"
    FULL = "full"
    CUT = "cut"
    SLOW = "slow"
    AGAIN = "again"


class Moment(StrEnum):
    """How far the job is then."""

    QUEUED = "queued"
    CLONING = "cloning"
    ENCODING = "encoding"
    PUBLISHING = "publishing"
    CANCELLING = "cancelling"


HELD_SECONDS: Final[Mapping[Fault, float]] = {
    Fault.KILL: 0.0,
    Fault.FREEZE: 20.0,
    Fault.FULL: 6.0,
    Fault.CUT: 6.0,
    Fault.SLOW: 8.0,
    Fault.AGAIN: 0.0,
}
"""For how long it lasts. A killed process is started again at once, as `make run` does."""

LATENCY_SECONDS: Final = 0.25
BYTES_PER_SECOND: Final = 256 * 1024
PROCESSOR_SHARE: Final = 0.1

FAULT_WORDS: Final[Mapping[Fault, str]] = {
    Fault.KILL: "kill -9",
    Fault.FREEZE: "SIGSTOP 20 s",
    Fault.FULL: "disk full",
    Fault.CUT: "connection cut",
    Fault.SLOW: "slow",
    Fault.AGAIN: "duplicate delivery",
}

FAULT_MEANING: Final[Mapping[Fault, str]] = {
    Fault.KILL: "`kill -9` of the process (of the scheduler: of the one that leads). It is started again "
    "after 0.2 s, as `make run` does.",
    Fault.FREEZE: "`SIGSTOP`, and `SIGCONT` 20 s later: its connections stand, nothing answers, and then it "
    "goes on where it was.",
    Fault.FULL: f"For {HELD_SECONDS[Fault.FULL]:g} s its file system has not one free block. "
    "A nats-server that could not write once takes nothing for that stream until it is started again (its "
    "`/healthz` says so): for it, being put right includes a restart.",
    Fault.CUT: f"A proxy between it and the bus resets every connection, and every new one for "
    f"{HELD_SECONDS[Fault.CUT]:g} s. What was on its way is lost.",
    Fault.SLOW: f"For {HELD_SECONDS[Fault.SLOW]:g} s whatever passes between it and the bus takes "
    f"{LATENCY_SECONDS * 1000:g} ms more each way, and {BYTES_PER_SECOND // 1024} KiB a second pass. The "
    f"store has no connection: its process gets {PROCESSOR_SHARE:.0%} of the time instead.",
    Fault.AGAIN: "It gets once more what it has got: the same submit and the same cancel (gateway); the "
    "command on Q, and on JOBS what workers said, and the cancel on CONTROL (scheduler); the item on WORK "
    "(worker); every event of JOBS (history); all of these (nats-server).",
}

MOMENT_MEANING: Final[Mapping[Moment, str]] = {
    Moment.QUEUED: "Both slots of the worker are held by other jobs; the job waits.",
    Moment.CLONING: "The worker's git has asked for the repository; nothing has come back yet.",
    Moment.ENCODING: "The first batches of chunks are being encoded.",
    Moment.PUBLISHING: "`item.committing` is stored, and nothing behind it: the dataset's live generation is "
    "still to be set.",
    Moment.CANCELLING: "The job is encoding, and the command to cancel it is stored, and not read yet.",
}

LEFT_OUT: Final[Mapping[tuple[Part, Fault], str]] = {
    (
        Part.GATEWAY,
        Fault.FULL,
    ): "The gateway writes no file. During the whole run its `PHAROS_HOME` is a file "
    "system without one free block, so every other cell is one of a gateway whose disk is full.",
    (
        Part.SCHEDULER,
        Fault.FULL,
    ): "The scheduler writes no file. During the whole run the `PHAROS_HOME` of both "
    "is a file system without one free block.",
    (Part.STORE, Fault.KILL): "The embedded store is a library in the worker's process: see worker.",
    (Part.STORE, Fault.FREEZE): "The embedded store is a library in the worker's process: see worker.",
    (Part.STORE, Fault.CUT): "The embedded store has no connection that could be cut.",
    (Part.STORE, Fault.AGAIN): "What the store gets twice is what the worker does twice: see worker, whose "
    "second slot takes the same item and writes the same points. Points are named by their content.",
}


class Cell(NamedTuple):
    """One square of the matrix."""

    part: Part
    fault: Fault
    moment: Moment

    @property
    def name(self) -> str:
        return f"{self.part}-{self.fault}-{self.moment}"


ALL: Final = tuple(Cell(*each) for each in product(Part, Fault, Moment))
CELLS: Final = tuple(cell for cell in ALL if (cell.part, cell.fault) not in LEFT_OUT)

# One for each way in which a job could be lost or done twice, that takes seconds and not tens of them.
TELLING: Final = (
    Cell(Part.GATEWAY, Fault.KILL, Moment.CANCELLING),
    Cell(Part.SCHEDULER, Fault.KILL, Moment.QUEUED),
    Cell(Part.SCHEDULER, Fault.CUT, Moment.PUBLISHING),
    Cell(Part.BUS, Fault.KILL, Moment.ENCODING),
    Cell(Part.WORKER, Fault.AGAIN, Moment.ENCODING),
    Cell(Part.WORKER, Fault.CUT, Moment.PUBLISHING),
    Cell(Part.HISTORY, Fault.AGAIN, Moment.CLONING),
    Cell(Part.BUS, Fault.AGAIN, Moment.QUEUED),
)
