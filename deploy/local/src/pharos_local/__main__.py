"""``python -m pharos_local``: run the stack in the foreground."""

from __future__ import annotations

import os
import sys

import anyio

from pharos_local import stack
from pharos_local.home import Home, HomeInUse, HomeUnusable, Lock
from pharos_local.nats_server import ServerMissing
from pharos_local.ports import AddressUnusable, PortTaken
from pharos_local.reporting import Reporter
from pharos_local.settings import LocalSettings
from pharos_local.supervisor import Guardian
from pharos_service import logs
from pharos_service.running import EXIT_SETTINGS
from pharos_service.settings import InvalidSettings, load


def main() -> int:
    """Run until Ctrl-C or SIGTERM; the exit code. What prevents a start is said in a sentence."""
    os.umask(0o077)
    logs.configure(service="pharos", level="error")  # the supervisor speaks for itself
    try:
        settings = load(LocalSettings, os.environ)
        home = Home(settings.home_path)
        home.create()
        with Lock(home) as lock, Guardian(lock.fileno()) as guardian, Reporter(home.logs) as reporter:
            return anyio.run(stack.run, settings, home, dict(os.environ), reporter, guardian)
    except InvalidSettings as error:
        print("\n".join(error.mistakes), file=sys.stderr)
        return EXIT_SETTINGS
    except (HomeInUse, HomeUnusable, PortTaken, AddressUnusable, ServerMissing) as error:
        print(error, file=sys.stderr)
        return 1


def entry() -> None:
    """The entry point of the installed command."""
    raise SystemExit(main())


if __name__ == "__main__":
    entry()
