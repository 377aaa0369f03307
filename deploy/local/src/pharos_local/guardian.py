"""Ends the programs of a supervisor that could not end them itself, because it was killed.

Runs as a file, on the standard library alone. Its standard input is a pipe from the supervisor: a line
``+PID`` for each program started, ``-PID`` for each that ended. The pipe's end is the supervisor's end, by
whatever means. It works alike on Linux and macOS, and holds the lock of the home until all is gone.
"""

import contextlib
import os
import signal
import sys
import time

TERM_SECONDS = 3.0
POLL_SECONDS = 0.05


def end_group(leader: int) -> None:
    """SIGTERM, and after three seconds SIGKILL, to the process group that *leader* leads."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGTERM)
        deadline = time.monotonic() + TERM_SECONDS
        while time.monotonic() < deadline:
            os.killpg(leader, 0)
            time.sleep(POLL_SECONDS)
        os.killpg(leader, signal.SIGKILL)


def main() -> None:
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, signal.SIG_IGN)
    running: list[int] = []
    for line in sys.stdin:
        pid = int(line[1:])
        if line.startswith("+"):
            running.append(pid)
        elif pid in running:
            running.remove(pid)
    for leader in reversed(running):
        end_group(leader)


if __name__ == "__main__":
    main()
