"""``make demo``: Pharos reads code of its own, and answers three questions about it.

With ``make run`` in another terminal. It serves its libraries and its scheduler by HTTP on loopback, as any
git host would, asks the running stack to index them, follows the progress, and searches. All of Pharos with
its tests would be six times as much, and minutes on two cores.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final

from rich.console import Console

from pharos_client import Pharos, PharosError, advice, rendering
from pharos_client.discovery import InvalidTarget, discover
from pharos_client.watching import watch
from pharos_local.settings import LocalSettings
from pharos_service.settings import InvalidSettings, load
from tests.support.git_server import GitServer

ROOT: Final = Path(__file__).resolve().parent.parent
NAME: Final = "pharos/pharos"
FILES_MAX: Final = 5_000
FILE_BYTES_MAX: Final = 1024 * 1024
FOLDERS: Final = ("libs", "services/scheduler", "services/history", "deploy/local")
LEFT_OUT: Final = {".venv", "__pycache__", "build", "dist", "tests"}
QUESTIONS: Final = (
    "How is a job prevented from running twice?",
    "Where is a repository URL checked before anything is fetched?",
    "exponential backoff for a crashed program",
)


def main() -> int:
    """The exit code: 0, 1 where the job failed or nothing was found, 2 used wrongly, 3 without a stack."""
    out, err = rendering.consoles()
    try:
        settings = load(LocalSettings, os.environ)
        target = discover(os.environ)
    except (InvalidSettings, InvalidTarget) as error:
        err.print(str(error), markup=False)
        return 2
    if not settings.demo_git_port:
        err.print("PHAROS_DEMO_GIT_PORT is 0, so no repository of this machine is admitted.", markup=False)
        return 2
    with Pharos(target.url, target.token) as client:
        try:
            return _demonstrate(client, settings.demo_git_port, out)
        except PharosError as error:
            err.print(advice.sentence(error), markup=False)
            for hint in (
                *advice.for_refused_repository(_address(settings.demo_git_port), error),
                *advice.for_error(error, target),
            ):
                err.print(f"  {hint}", markup=False)
            return 3 if error.unreachable else 1
        except OSError as error:
            err.print(
                f"The repository cannot be served on port {settings.demo_git_port}: {error}. Set "
                "PHAROS_DEMO_GIT_PORT to a free port, for `make run` as well.",
                markup=False,
            )
            return 2
        except KeyboardInterrupt:
            return 130


def _demonstrate(client: Pharos, port: int, out: Console) -> int:
    reason = client.not_ready()
    if reason is not None:
        raise PharosError(reason, code="unreachable")
    with GitServer(port=port) as server:
        commit = server.add_repository(NAME, _files())
        address = _address(port)
        out.print(
            f"Serving the libraries and the scheduler of Pharos at {address}, commit {commit[:10]}",
            markup=False,
        )
        submitted = client.submit_repository(address)
        out.print(f"Job {submitted.job_id} is accepted; this is how far it is:", markup=False)
        job = watch(client, submitted.job_id, out)
    for line in rendering.job_lines(job):
        out.print(line, markup=False)
    if job.state not in {"completed", "skipped"}:
        return 1
    dataset = job.result.dataset if job.result is not None else None
    found = 0
    for question in QUESTIONS:
        answer = client.search(
            question, k=3, datasets=(dataset,) if dataset else ("127.0.0.1*/" + NAME + "*",)
        )
        found += bool(answer.results)
        out.print(f"\n[bold]{question}[/]")
        rendering.show_search(answer, out)
    out.print(f"{found} of {len(QUESTIONS)} questions found something. Ask your own:")
    out.print(f'  {Path(sys.executable).parent / "pharos"} search "{QUESTIONS[0]}"', markup=False)
    return 0 if found == len(QUESTIONS) else 1


def _address(port: int) -> str:
    return f"http://127.0.0.1:{port}/{NAME}.git"


def _files() -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for folder in FOLDERS:
        for directory, names, files in os.walk(ROOT / folder):
            names[:] = sorted(name for name in names if name not in LEFT_OUT and not name.endswith("_cache"))
            for name in sorted(files):
                path = Path(directory) / name
                if len(found) < FILES_MAX and not path.is_symlink() and path.stat().st_size <= FILE_BYTES_MAX:
                    found[path.relative_to(ROOT).as_posix()] = path.read_bytes()
    return found


if __name__ == "__main__":
    raise SystemExit(main())
