"""``python -m pharos_local.bus_command``: ``pharos-bus`` for the stack of this home, at its port.

With ``--store`` in front it is ``pharos-store``.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from pharos_local import programs
from pharos_local.home import Home
from pharos_local.settings import LocalSettings
from pharos_service.settings import InvalidSettings, load


def port_of(configuration: str) -> int | None:
    """The port that a ``nats.conf`` of the stack listens on."""
    found = re.search(r'listen: "127\.0\.0\.1:(\d+)"', configuration)
    return int(found[1]) if found else None


def main() -> int:
    try:
        settings = load(LocalSettings, os.environ)
    except InvalidSettings as error:
        print("\n".join(error.mistakes), file=sys.stderr)
        return 1
    home = Home(settings.home_path)
    environ = dict(os.environ)
    if not settings.nats_url:
        try:
            port = port_of(home.bus_configuration.read_text(encoding="utf-8"))
        except OSError:
            port = None
        if port is None:
            print(f"No stack has run in {home.path}: begin with `make run`.", file=sys.stderr)
            return 1
        environ.update(programs.own_bus_environ(home, port))
    name, arguments = "pharos-bus", sys.argv[1:]
    if arguments[:1] == ["--store"]:
        name, arguments = "pharos-store", arguments[1:]
    return subprocess.call([str(Path(sys.executable).with_name(name)), *arguments], env=environ)


if __name__ == "__main__":
    sys.exit(main())
