"""A process for what strangers wrote: it can be killed, has little memory and time, and knows no secret.

It is started afresh rather than forked: torch's threads and the bus connection stay with its parent. A
`ConfinedProcess` is how the parent sees it; `confine` and `set_timers` are what it does to itself.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from typing import Final

TIMER_STATUSES: Final = (-signal.SIGPROF, -signal.SIGALRM)
"""How a process ends that took longer than its timers allow."""

_ENVIRONMENT: Final = frozenset(
    {"PATH", "PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "TZ", "VIRTUAL_ENV"}
)
"""All that is inherited: what reads a stranger's file holds no secret."""


def confined_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """What of *environ* a confined process is given."""
    return {name: value for name, value in environ.items() if name in _ENVIRONMENT}


class ConfinedProcess:
    """One process, seen from its parent: pipes that never block, and what is on its way through them."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=dict(environment),
            bufsize=0,
        )
        assert self.process.stdin is not None and self.process.stdout is not None
        self.requests = self.process.stdin.fileno()
        self.answers = self.process.stdout.fileno()
        os.set_blocking(self.requests, False)
        os.set_blocking(self.answers, False)
        self.unsent = bytearray()
        self.received = bytearray()
        self.ready = False
        self.heard_at = time.monotonic()

    def send(self) -> None:
        """Passes on as much of `unsent` as the pipe takes; nothing more where the process is dead."""
        try:
            while self.unsent:
                del self.unsent[: os.write(self.requests, self.unsent)]
        except BlockingIOError:
            pass  # sent on with the next tick or answer
        except BrokenPipeError:
            self.unsent.clear()  # the end of its answers says so

    def end(self, *, grace_seconds: float = 0.0) -> int:
        """Ends the process, by force after *grace_seconds*, and closes its pipes. Returns its exit status."""
        try:
            status = self.process.wait(grace_seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            status = self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        return status


def confine(memory_bytes_max: int) -> None:
    """Called in the process itself, before it reads anything: limits that it cannot lift again."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides, also when Ctrl-C reaches the group
    for timer in (signal.SIGPROF, signal.SIGALRM):
        signal.signal(timer, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    if hard == resource.RLIM_INFINITY or memory_bytes_max < hard:
        resource.setrlimit(resource.RLIMIT_AS, (memory_bytes_max, memory_bytes_max))


def set_timers(seconds: float) -> None:
    """*seconds* of processor time, so that a busy machine fails no file; thrice that on the clock, for a
    disk that hangs. 0 stops them.

    They end the process by signals whose default action needs no interpreter, so they work while a library in
    C holds the lock, and when the parent is gone.
    """
    signal.setitimer(signal.ITIMER_PROF, seconds)
    signal.setitimer(signal.ITIMER_REAL, 3 * seconds)
