"""The command ``pharos``: what a person types. Each command is a few calls of the client, shown.

Exit codes: 0 fine, 1 the job failed or something is wrong, 2 used wrongly, 3 no gateway answers,
130 interrupted.
"""

from __future__ import annotations

import os
import sys
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Final, Literal

import msgspec
from cyclopts import App, CycloptsError, Parameter, validators
from rich.console import Console
from rich.markup import escape
from rich.text import Text

from pharos_client import advice, doctor, rendering
from pharos_client.clients import Pharos
from pharos_client.discovery import InvalidTarget, Target, discover
from pharos_client.errors import PharosError
from pharos_client.models import Job, Key, Submitted
from pharos_client.rendering import line
from pharos_client.watching import watch

EXIT_FINE: Final = 0
EXIT_WRONG: Final = 1
EXIT_USAGE: Final = 2
EXIT_UNREACHABLE: Final = 3
EXIT_INTERRUPTED: Final = 130

JOBS_MAX: Final = 100
RESULTS_MAX: Final = 100

app = App(
    name="pharos",
    help="Pharos finds things in code. Begin with `pharos ingest`, then `pharos search`.",
    version_flags=["--version"],
    default_parameter=Parameter(show_default=False),
)


@Parameter(name="*")
@dataclass(frozen=True)
class Gateway:
    """Which gateway to talk to."""

    url: Annotated[str | None, Parameter(help="Where it is; default: PHAROS_URL, or the local stack.")] = None
    token: Annotated[
        str | None,
        Parameter(help="Better given by PHAROS_ADMIN_TOKEN_FILE; default: the one of the local stack."),
    ] = None


Json = Annotated[bool, Parameter(negative=(), help="Print JSON and nothing else.")]
Role = Literal["viewer", "editor", "admin"]
Priority = Literal["urgent", "high", "normal", "low"]

job_app = App(name="job")
dead_letters_app = App(name="dead-letters", help="What will not be tried again by itself.")
keys_app = App(name="keys", help="Who may do what: for admins.")
schedules_app = App(name="schedules", help="Repositories that are indexed again and again.")
for part in (job_app, dead_letters_app, schedules_app, keys_app):
    app.command(part)


class Session:
    """A client and the two streams of a command."""

    def __init__(self, gateway: Gateway | None) -> None:
        chosen = gateway or Gateway()
        self.target: Target = discover(os.environ, url=chosen.url, token=chosen.token)
        self.client = Pharos(self.target.url, self.target.token)
        self.out, self.err = rendering.consoles()

    def say(self, text: str) -> None:
        self.out.print(text, markup=False, soft_wrap=True)

    def json(self, value: object) -> None:
        sys.stdout.write(msgspec.json.encode(value).decode() + "\n")


def _run(gateway: Gateway | None, act: Callable[[Session], int]) -> int:
    """*act* with a session; what goes wrong as a sentence, what to do about it, and an exit code."""
    try:
        session = Session(gateway)
    except InvalidTarget as error:
        Console(stderr=True).print(str(error), markup=False)
        return EXIT_USAGE
    with session.client:
        try:
            return act(session)
        except PharosError as error:
            session.err.print(
                Text("error: ", style="red"), line(advice.sentence(error)), sep="", markup=False
            )
            for hint in advice.for_error(error, session.target):
                session.err.print(f"  {hint}", markup=False)
            return EXIT_UNREACHABLE if error.unreachable else EXIT_WRONG
        except KeyboardInterrupt:
            return EXIT_INTERRUPTED


@app.command
def ingest(
    repository: str,
    /,
    *,
    branch: str | None = None,
    ref: str | None = None,
    watch: Annotated[bool, Parameter(alias="-w", negative=())] = False,
    force: Annotated[bool, Parameter(negative=())] = False,
    priority: Priority | None = None,
    callback_url: str | None = None,
    json: Json = False,
    gateway: Gateway | None = None,
) -> int:
    """Index a repository.

    Parameters
    ----------
    repository
        Its address: https://github.com/owner/name, or github.com/owner/name.
    branch
        Which branch; default: the repository's own.
    ref
        Which commit, by its full id; wins over the branch.
    watch
        Stay and show the progress until the job ends. Ctrl-C leaves the job running.
    force
        Also when this commit is indexed already.
    priority
        Before or after other jobs: urgent, high, normal or low.
    callback_url
        Where the gateway tells that the job has ended, by a signed POST.
    """
    key = str(uuid.uuid4())

    def submit(client: Pharos) -> Submitted:
        return client.submit_repository(
            repository,
            branch=branch,
            ref=ref,
            force=force,
            priority=priority,
            callback_url=callback_url,
            idempotency_key=key,
        )

    def act(session: Session) -> int:
        try:
            submitted = _once_more(session.client, submit)
        except PharosError as error:
            if error.status == 400:
                for hint in advice.for_refused_repository(repository, error):
                    session.err.print(f"  {hint}", markup=False)
            raise
        if not watch:
            if json:
                session.json(submitted)
            else:
                _tell_submitted(session, submitted)
                session.say(f"Follow it with: {rendering.program()} job {submitted.job_id} --watch")
            return EXIT_FINE
        if not json:
            _tell_submitted(session, submitted)
        return _watch(session, submitted.job_id, json=json)

    return _run(gateway, act)


def _once_more(client: Pharos, submit: Callable[[Pharos], Submitted]) -> Submitted:
    """*submit*; when the answer got lost, once more with the same key, which starts nothing twice."""
    try:
        return submit(client)
    except PharosError as error:
        if error.status != 503 or "job_id" not in error.body:
            raise
    return submit(client)


def _tell_submitted(session: Session, submitted: Submitted) -> None:
    place = f", place {submitted.queue_position} in the queue" if submitted.queue_position else ""
    if submitted.deduplicated:
        session.say(f"Job {submitted.job_id} does this already.")
    else:
        session.say(f"Job {submitted.job_id} is queued{place}.")
    if submitted.target == "any":
        session.say("No worker is alive at the moment; it will run when one is.")


def _watch(session: Session, job_id: int | str, *, json: bool) -> int:
    try:
        ended = watch(session.client, job_id, session.err if json else session.out)
    except KeyboardInterrupt:
        session.err.print(
            f"Stopped watching. Job {job_id} goes on; see it again with: "
            f"{rendering.program()} job {job_id} --watch",
            markup=False,
        )
        return EXIT_INTERRUPTED
    except PharosError as error:
        if error.unreachable:
            session.err.print(
                f"Lost sight of job {job_id}, which goes on without this command.", markup=False
            )
        raise
    if json:
        session.json(ended)
    else:
        _tell_ended(session, ended)
    return EXIT_FINE if ended.is_done else EXIT_WRONG


def _tell_ended(session: Session, job: Job) -> None:
    first, *rest = rendering.job_lines(job)
    style = rendering.STATE_STYLE.get(job.state, "")
    session.out.print(f"[{style}]{escape(first)}[/]" if style else escape(first))
    for each in rest:
        session.say(each)
    if job.state == "completed":
        dataset = f' --dataset "{line(job.result.dataset)}"' if job.result and job.result.dataset else ""
        session.say(f'Next: {rendering.program()} search "where are errors handled?"{dataset}')
    elif job.state in {"failed", "cancelled"}:
        when = "Once that is put right" if job.state == "failed" else "Should it run after all"
        session.say(f"{when}: {rendering.program()} job retry {job.number or job.job_id}")
    elif not job.is_done:
        session.say(f"Try again with: {rendering.program()} ingest {line(job.repository)} --watch")


@app.command
def status(*, json: Json = False, gateway: Gateway | None = None) -> int:
    """Show the workers, the queue and the health of the stack."""

    def act(session: Session) -> int:
        workers = session.client.worker_status()
        health = session.client.health()
        not_ready = session.client.not_ready()
        waiting = session.client.history(JOBS_MAX).jobs
        queued = sum(entry.status in {"queued", "retrying"} for entry in waiting)
        running = sum(entry.status in {"running", "committing"} for entry in waiting)
        wrong = not_ready is not None or health.status != "healthy"
        if json:
            session.json(
                {
                    "url": session.target.url,
                    "health": health,
                    "not_ready": not_ready,
                    "worker": workers,
                    "queued": queued,
                    "running": running,
                }
            )
            return EXIT_WRONG if wrong else EXIT_FINE
        session.say(f"gateway   {session.target.url}  {health.status}")
        if not_ready is not None:
            session.say(f"          not ready: {line(not_ready)}")
        session.say(f"queue     {queued} waiting, {running} running")
        session.say(f"workers   {line(workers.status)}")
        for worker in workers.workers:
            device = f" on {line(worker.device)}" if worker.device else ""
            session.say(f"          {line(worker.name)}{device}: {line(worker.status)}")
        return EXIT_WRONG if wrong else EXIT_FINE

    return _run(gateway, act)


@app.command
def jobs(*, limit: int = 20, json: Json = False, gateway: Gateway | None = None) -> int:
    """List the newest jobs.

    Parameters
    ----------
    limit
        How many, from 1 to 100.
    """
    if not 1 <= limit <= JOBS_MAX:
        return _misused(f"--limit is from 1 to {JOBS_MAX}.")

    def act(session: Session) -> int:
        page = session.client.jobs(limit=limit)
        if json:
            session.json(page)
        elif not page.jobs:
            session.say(f"No jobs yet. Begin with: {rendering.program()} ingest URL --watch")
        else:
            session.out.print(rendering.job_table(page.jobs, datetime.now(UTC)))
        return EXIT_FINE

    return _run(gateway, act)


@job_app.default
def job(
    job_id: str,
    /,
    *,
    watch: Annotated[bool, Parameter(alias="-w", negative=())] = False,
    json: Json = False,
    gateway: Gateway | None = None,
) -> int:
    """Show one job, by its number or its id; or pause, resume, cancel or retry it.

    Parameters
    ----------
    watch
        Stay and show the progress until the job ends.
    """

    def act(session: Session) -> int:
        if watch:
            return _watch(session, job_id, json=json)
        found = session.client.job(job_id)
        _show_job(session, found, json=json)
        return EXIT_WRONG if found.state == "failed" else EXIT_FINE

    return _run(gateway, act)


@job_app.command
def pause(job_id: str, /, *, json: Json = False, gateway: Gateway | None = None) -> int:
    """Stop a job for now; it keeps what it has done."""
    return _control(gateway, lambda client: client.pause(job_id), json=json)


@job_app.command
def resume(job_id: str, /, *, json: Json = False, gateway: Gateway | None = None) -> int:
    """Let a paused job go on."""
    return _control(gateway, lambda client: client.resume(job_id), json=json)


@job_app.command
def cancel(job_id: str, /, *, json: Json = False, gateway: Gateway | None = None) -> int:
    """End a job; nothing of it stays."""
    return _control(gateway, lambda client: client.cancel(job_id), json=json)


@job_app.command
def retry(job_id: str, /, *, json: Json = False, gateway: Gateway | None = None) -> int:
    """Try a job that failed or was cancelled once more."""
    return _control(gateway, lambda client: client.retry(job_id), json=json)


def _control(gateway: Gateway | None, control: Callable[[Pharos], Job], *, json: bool) -> int:
    def act(session: Session) -> int:
        _show_job(session, control(session.client), json=json)
        return EXIT_FINE

    return _run(gateway, act)


def _show_job(session: Session, found: Job, *, json: bool) -> None:
    if json:
        session.json(found)
    else:
        for each in rendering.job_lines(found):
            session.say(each)


@dead_letters_app.command(name="list")
def list_dead_letters(
    *, limit: int = 20, before: int | None = None, json: Json = False, gateway: Gateway | None = None
) -> int:
    """List dead letters, newest first.

    Parameters
    ----------
    limit
        How many, from 1 to 100.
    before
        Go on from here: the cursor that the last list ended with.
    """
    if not 1 <= limit <= JOBS_MAX:
        return _misused(f"--limit is from 1 to {JOBS_MAX}.")

    def act(session: Session) -> int:
        page = session.client.dead_letters(limit=limit, before=before)
        if json:
            session.json(page)
        elif not page.dead_letters:
            session.say("There are no dead letters.")
        else:
            session.out.print(rendering.dead_letter_table(page.dead_letters, datetime.now(UTC)))
            if page.cursor is not None:
                session.say(f"More: {rendering.program()} dead-letters list --before {page.cursor}")
        return EXIT_FINE

    return _run(gateway, act)


@dead_letters_app.command
def replay(letter_id: str, /, *, json: Json = False, gateway: Gateway | None = None) -> int:
    """Try what a dead letter holds once more, and forget the letter."""

    def act(session: Session) -> int:
        found = session.client.replay_dead_letter(letter_id)
        if found is not None:
            _show_job(session, found, json=json)
        elif json:
            session.json({"dead_letter": letter_id, "status": "resent"})
        else:
            session.say("It was a message that could not be read, and was sent again as it was.")
        return EXIT_FINE

    return _run(gateway, act)


@dead_letters_app.command
def purge(
    letter_id: str | None = None,
    /,
    *,
    all: Annotated[bool, Parameter(negative=())] = False,
    json: Json = False,
    gateway: Gateway | None = None,
) -> int:
    """Forget a dead letter, or all of them.

    Parameters
    ----------
    all
        Every one that the token may see.
    """
    if (letter_id is None) is not all:
        return _misused("Name one dead letter, or say --all.")

    def act(session: Session) -> int:
        if letter_id is None:
            purged = session.client.purge_dead_letters()
        else:
            session.client.purge_dead_letter(letter_id)
            purged = 1
        if json:
            session.json({"purged": purged})
        else:
            session.say(f"{purged} dead letter{'' if purged == 1 else 's'} forgotten.")
        return EXIT_FINE

    return _run(gateway, act)


@schedules_app.command(name="list")
def list_schedules(*, json: Json = False, gateway: Gateway | None = None) -> int:
    """List what is indexed again and again."""

    def act(session: Session) -> int:
        found = session.client.schedules()
        if json:
            session.json({"schedules": found})
        elif not found:
            session.say(f'No schedules yet. Begin with: {rendering.program()} schedules add URL "0 3 * * *"')
        else:
            session.out.print(rendering.schedule_table(found))
        return EXIT_FINE

    return _run(gateway, act)


@schedules_app.command
def add(
    repository: str,
    cron: str,
    /,
    *,
    id: str | None = None,
    branch: str | None = None,
    timezone: str | None = None,
    jitter_seconds: int | None = None,
    priority: Priority | None = None,
    project: str | None = None,
    dataset: str | None = None,
    always: Annotated[bool, Parameter(negative=())] = False,
    json: Json = False,
    gateway: Gateway | None = None,
) -> int:
    """Index a repository again and again.

    Parameters
    ----------
    repository
        Its address, as for ingest.
    cron
        When, in five fields: "0 3 * * *" is every night at three.
    id
        Its name; one of the same name is replaced. Default: a new one.
    branch
        Which branch; default: the repository's own.
    timezone
        In which time zone: Europe/Berlin. Default: UTC.
    jitter_seconds
        Each run is late by the schedule's own part of this, so that not all run at once.
    always
        Also when the commit is indexed already; otherwise such a run is skipped.
    """

    def act(session: Session) -> int:
        found = session.client.add_schedule(
            repository,
            cron,
            branch=branch,
            timezone=timezone,
            jitter_seconds=jitter_seconds,
            priority=priority,
            project=project,
            dataset=dataset,
            skip_unchanged=False if always else None,
            schedule_id=id,
        )
        if json:
            session.json(found)
        else:
            session.out.print(rendering.schedule_table((found,)))
        return EXIT_FINE

    return _run(gateway, act)


@schedules_app.command
def remove(schedule_id: str, /, *, json: Json = False, gateway: Gateway | None = None) -> int:
    """Index it no more by itself; a job that it has started goes on."""

    def act(session: Session) -> int:
        session.client.remove_schedule(schedule_id)
        if json:
            session.json({"removed": schedule_id})
        else:
            session.say(f"Schedule {line(schedule_id)} is removed.")
        return EXIT_FINE

    return _run(gateway, act)


@keys_app.command(name="list")
def list_keys(*, json: Json = False, gateway: Gateway | None = None) -> int:
    """List the keys; what proves them is not kept."""

    def act(session: Session) -> int:
        found = session.client.keys()
        if json:
            session.json({"keys": [_without_text(key) for key in found]})
        elif not found:
            session.say(f"No keys yet. Begin with: {rendering.program()} keys create USER --role editor")
        else:
            session.out.print(rendering.key_table(found))
        return EXIT_FINE

    return _run(gateway, act)


@keys_app.command
def create(
    user: str,
    /,
    *,
    role: Role = "viewer",
    tenant: str | None = None,
    project: Annotated[list[str] | None, Parameter(negative=())] = None,
    name: str | None = None,
    days: Annotated[int | None, Parameter(validator=validators.Number(gte=1, lte=3650))] = None,
    json: Json = False,
    gateway: Gateway | None = None,
) -> int:
    """Issue a key. Its text is shown this once.

    Parameters
    ----------
    user
        For whom it is.
    role
        What it may: viewer reads, editor also submits, admin everything. Default: viewer.
    tenant
        Of which tenant; default: the one of the token.
    project
        It reaches this project only. May be repeated. Default: all of the tenant.
    name
        To tell it from others.
    days
        After how many days it expires. Default: never.
    """

    def act(session: Session) -> int:
        expires_at = None if days is None else datetime.now(UTC) + timedelta(days=days)
        issued = session.client.create_key(
            user, role, tenant=tenant, projects=project or (), name=name, expires_at=expires_at
        )
        _show_issued(session, issued, json=json)
        return EXIT_FINE

    return _run(gateway, act)


@keys_app.command
def rotate(
    key_id: str,
    /,
    *,
    grace_seconds: int = 0,
    json: Json = False,
    gateway: Gateway | None = None,
) -> int:
    """Give a key another secret. Its text is shown this once.

    Parameters
    ----------
    grace_seconds
        For how long the old one is good as well.
    """

    def act(session: Session) -> int:
        _show_issued(session, session.client.rotate_key(key_id, grace_seconds=grace_seconds), json=json)
        return EXIT_FINE

    return _run(gateway, act)


@keys_app.command
def disable(key_id: str, /, *, json: Json = False, gateway: Gateway | None = None) -> int:
    """Make a key good for nothing, within two seconds."""

    def act(session: Session) -> int:
        disabled = session.client.disable_key(key_id)
        if json:
            session.json(_without_text(disabled))
        else:
            session.say(f"Key {line(disabled.id)} of {line(disabled.user)} opens nothing any more.")
        return EXIT_FINE

    return _run(gateway, act)


@keys_app.command
def delete(key_id: str, /, *, json: Json = False, gateway: Gateway | None = None) -> int:
    """Forget a key, which opens nothing any more."""

    def act(session: Session) -> int:
        session.client.delete_key(key_id)
        if json:
            session.json({"deleted": key_id})
        else:
            session.say(f"Key {line(key_id)} is forgotten.")
        return EXIT_FINE

    return _run(gateway, act)


def _show_issued(session: Session, issued: Key, *, json: bool) -> None:
    if json:
        session.json(issued)
        return
    session.out.print(rendering.key_table((issued,)))
    session.err.print("Keep this, it is not shown again:", markup=False)
    session.say(line(issued.key or ""))


def _without_text(key: Key) -> dict[str, object]:
    return {name: value for name, value in msgspec.structs.asdict(key).items() if name != "key"}


@app.command
def search(
    query: str,
    /,
    *,
    k: Annotated[int, Parameter(name=["-k", "--k"])] = 5,
    project: str | None = None,
    dataset: Annotated[list[str] | None, Parameter(negative=())] = None,
    lang: Annotated[list[str] | None, Parameter(negative=())] = None,
    path: str | None = None,
    mode: Literal["hybrid", "dense", "lexical"] | None = None,
    json: Json = False,
    gateway: Gateway | None = None,
) -> int:
    """Find code by a question or by words.

    Parameters
    ----------
    query
        What to look for: "where are cookies signed?", or names and words.
    k
        How many files to show, from 1 to 100.
    project
        Only in this project.
    dataset
        Only in this dataset; a glob such as "github.com/pallets/*" too. May be repeated.
    lang
        Only in this language. May be repeated.
    path
        Only under this path.
    mode
        By meaning and words together (hybrid), by meaning (dense) or by words (lexical).
    """
    if not 1 <= k <= RESULTS_MAX:
        return _misused(f"-k is from 1 to {RESULTS_MAX}.")
    if not query.strip():
        return _misused("Say what to look for.")

    def act(session: Session) -> int:
        answer = session.client.search(
            query,
            k=k,
            project=project,
            datasets=dataset or (),
            languages=lang or (),
            path_prefix=path,
            mode=mode,
        )
        if json:
            session.json(answer)
            return EXIT_FINE
        rendering.show_search(answer, session.out)
        if not answer.results:
            session.say(f"What can be searched: {rendering.program()} jobs")
        return EXIT_FINE

    return _run(gateway, act)


@app.command
def up() -> int:
    """Run the whole of Pharos on this machine, in the foreground, until Ctrl-C."""
    try:
        from pharos_local.__main__ import main as run_stack
    except ModuleNotFoundError as error:
        if error.name is None or not error.name.startswith("pharos_"):
            raise
        return _misused("The local stack is not installed here. In a checkout of Pharos, run `make run`.")
    return run_stack()


@app.command(name="doctor")
def examine(*, json: Json = False, gateway: Gateway | None = None) -> int:
    """Say what is wrong with this installation, and what to do about it."""
    chosen = gateway or Gateway()
    checks = doctor.examine(os.environ, url=chosen.url, token=chosen.token)
    if json:
        sys.stdout.write(msgspec.json.encode(checks).decode() + "\n")
    else:
        out, _ = rendering.consoles()
        doctor.show(checks, out)
    return EXIT_WRONG if any(check.level == "wrong" for check in checks) else EXIT_FINE


def _misused(sentence: str) -> int:
    Console(stderr=True).print(sentence, markup=False)
    return EXIT_USAGE


def call(arguments: Sequence[str] | None = None) -> int:
    """Run one command; its exit code."""
    try:
        result = app(
            arguments, exit_on_error=False, print_error=True, result_action="return_value", error_console=None
        )
    except CycloptsError:
        return EXIT_USAGE
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader had enough, as `head` does; nothing more can be said to it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FINE
    return result if isinstance(result, int) else EXIT_FINE


def main() -> None:
    """The entry point of the installed command."""
    raise SystemExit(call())
