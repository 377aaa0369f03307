"""``python -m pharos_history`` runs the service, ``… rebuild`` makes its views again."""

from __future__ import annotations

import argparse
import sys

from pharos_history import app
from pharos_history.settings import HistorySettings
from pharos_service.running import run


def main() -> None:
    """The command ``pharos-history``."""
    parser = argparse.ArgumentParser(prog="pharos-history", description="The read side of Pharos.")
    parser.add_argument(
        "command",
        nargs="?",
        choices=["serve", "rebuild"],
        default="serve",
        help="serve (default): project the events of JOBS and answer questions; rebuild: fold what JOBS "
        "holds again from its first event, while the service runs or not; older rows stay",
    )
    if parser.parse_args().command == "serve":
        run("history", HistorySettings, app.serve)
        return
    failures: list[str] = []

    async def rebuild(settings: HistorySettings) -> None:
        try:
            await app.rebuild(settings)
        except app.RebuildFailed as error:
            failures.append(str(error))

    run("history-rebuild", HistorySettings, rebuild)
    if failures:
        sys.exit(f"pharos-history: {failures[0]}")


if __name__ == "__main__":
    main()
