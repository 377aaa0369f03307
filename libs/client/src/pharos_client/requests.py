"""The calls of the API as values: what to send, and what the answer is. Both clients send these.

Each function here is a method of both clients, with these parameters and this documentation.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final, Generic, TypeVar
from urllib.parse import quote

import httpx
import msgspec

from pharos_client.errors import UNREADABLE, PharosError, from_response
from pharos_client.models import (
    CallbackSecret,
    Dataset,
    DeadLetter,
    DeadLetterPage,
    Health,
    History,
    Job,
    JobPage,
    Key,
    Queue,
    Schedule,
    SearchAnswer,
    Submitted,
    Worker,
    WorkerStatus,
)

T = TypeVar("T")

DEAD_LETTERS: Final = "/ops/dead-letters"
SCHEDULES: Final = "/api/v1/schedules"
KEYS: Final = "/api/v1/keys"


class Call(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """One request. ``inside`` names the field of the answer that holds the value, None for all of it.

    An answer with a status among ``nothing_for`` has no value.
    """

    method: str
    path: str
    answer: Any
    query: dict[str, str | int] = msgspec.field(default_factory=dict)
    body: dict[str, Any] | None = None
    headers: dict[str, str] = msgspec.field(default_factory=dict)
    inside: str | None = None
    also_accept: tuple[int, ...] = ()
    nothing_for: tuple[int, ...] = ()

    def read(self, response: httpx.Response) -> T:
        """The value in *response*; PharosError where it is a refusal or cannot be understood."""
        if response.status_code >= 400 and response.status_code not in self.also_accept:
            raise from_response(response.status_code, response.content, response.headers)
        try:
            decoded = None
            if response.status_code not in self.nothing_for:
                decoded = msgspec.json.decode(response.content)
            if self.inside is not None and isinstance(decoded, dict):
                decoded = decoded[self.inside]
            value: T = msgspec.convert(decoded, self.answer)
        except (msgspec.DecodeError, msgspec.ValidationError, KeyError) as error:
            raise PharosError(
                f"The answer to {self.method} {self.path.partition('?')[0][:80]} is not what Pharos answers: "
                f"{error}. Is this address a Pharos gateway of this version?",
                code=UNREADABLE,
                status=response.status_code,
            ) from error
        return value


def submit_repository(
    repository: str,
    *,
    branch: str | None = None,
    ref: str | None = None,
    force: bool = False,
    priority: str | None = None,
    callback_url: str | None = None,
    idempotency_key: str | None = None,
) -> Call[Submitted]:
    """Ask for *repository* (a URL, or ``host/owner/name``) to be indexed.

    *priority* is ``urgent``, ``high``, ``normal`` or ``low``. The end of the job is told to *callback_url*.
    """
    query: dict[str, str | int] = {}
    if branch is not None:
        query["branch"] = branch
    if ref is not None:
        query["ref"] = ref
    if force:
        query["force"] = "true"
    if priority is not None:
        query["priority"] = priority
    if callback_url is not None:
        query["callback_url"] = callback_url
    return Call(
        method="POST",
        path=f"/api/v1/ingestion/ingest/{_segment(repository)}",
        answer=Submitted,
        query=query,
        headers={} if idempotency_key is None else {"Idempotency-Key": idempotency_key},
    )


def job(job_id: str | int) -> Call[Job]:
    """A job by its UUID or its number."""
    return Call(method="GET", path=_job_path(job_id), answer=Job)


def jobs(*, limit: int = 20, cursor: str | int | None = None, states: Sequence[str] = ()) -> Call[JobPage]:
    """The newest jobs that the key may see."""
    query: dict[str, str | int] = {"limit": limit}
    if cursor is not None:
        query["cursor"] = cursor
    if states:
        query["state"] = ",".join(states)
    return Call(method="GET", path="/api/v1/jobs", answer=JobPage, query=query)


def pause(job_id: str | int) -> Call[Job]:
    """Stop a job for now; the job as that left it. It keeps what it has done."""
    return _control(job_id, "pause")


def resume(job_id: str | int) -> Call[Job]:
    """Let a paused job go on; the job as that left it."""
    return _control(job_id, "resume")


def cancel(job_id: str | int) -> Call[Job]:
    """End a job; the job as that left it. Nothing of it stays."""
    return _control(job_id, "cancel")


def retry(job_id: str | int) -> Call[Job]:
    """Try a job that failed or was cancelled once more; the job as that left it."""
    return _control(job_id, "retry")


def _control(job_id: str | int, action: str) -> Call[Job]:
    return Call(method="POST", path=f"{_job_path(job_id)}/{action}", answer=Job)


def history(limit: int = 10) -> Call[History]:
    """The public history of ingestion; *limit* is 1 to 100."""
    return Call(method="GET", path="/api/v1/ingestion/jobs/history", answer=History, query={"limit": limit})


def worker_status() -> Call[WorkerStatus]:
    """What the workers do; needs no token."""
    return Call(method="GET", path="/api/v1/ingestion/worker/status", answer=WorkerStatus)


def workers() -> Call[tuple[Worker, ...]]:
    """Every live worker."""
    return Call(method="GET", path="/api/v1/workers", answer=tuple[Worker, ...], inside="workers")


def datasets() -> Call[tuple[Dataset, ...]]:
    """What can be searched."""
    return Call(method="GET", path="/api/v1/datasets", answer=tuple[Dataset, ...], inside="datasets")


def queue() -> Call[Queue]:
    """What waits in the queue."""
    return Call(method="GET", path="/ops/queue", answer=Queue)


def dead_letters(*, limit: int = 20, before: int | None = None) -> Call[DeadLetterPage]:
    """What will not be tried again by itself, newest first; *before* is the cursor of the page before."""
    query: dict[str, str | int] = {"limit": limit}
    if before is not None:
        query["before"] = before
    return Call(method="GET", path=DEAD_LETTERS, answer=DeadLetterPage, query=query)


def dead_letter(letter_id: str) -> Call[DeadLetter]:
    """One dead letter."""
    return Call(method="GET", path=f"{DEAD_LETTERS}/{_segment(letter_id)}", answer=DeadLetter)


def replay_dead_letter(letter_id: str) -> Call[Job | None]:
    """Try it once more and forget the letter; its job, None where it was a message, which is sent again."""
    return Call(
        method="POST",
        path=f"{DEAD_LETTERS}/{_segment(letter_id)}/replay",
        answer=Job | None,
        nothing_for=(202,),
    )


def purge_dead_letter(letter_id: str) -> Call[None]:
    """Forget one dead letter."""
    return Call(
        method="DELETE", path=f"{DEAD_LETTERS}/{_segment(letter_id)}", answer=None, nothing_for=(204,)
    )


def purge_dead_letters() -> Call[int]:
    """Forget every dead letter that the key may see; how many there were."""
    return Call(method="DELETE", path=DEAD_LETTERS, answer=int, inside="purged")


def schedules() -> Call[tuple[Schedule, ...]]:
    """What is indexed again and again."""
    return Call(method="GET", path=SCHEDULES, answer=tuple[Schedule, ...], inside="schedules")


def schedule(schedule_id: str) -> Call[Schedule]:
    """One schedule."""
    return Call(method="GET", path=f"{SCHEDULES}/{_segment(schedule_id)}", answer=Schedule)


def add_schedule(
    repository: str,
    cron: str,
    *,
    branch: str | None = None,
    timezone: str | None = None,
    jitter_seconds: int | None = None,
    priority: str | None = None,
    project: str | None = None,
    dataset: str | None = None,
    skip_unchanged: bool | None = None,
    schedule_id: str | None = None,
) -> Call[Schedule]:
    """Index *repository* whenever *cron* says, in *timezone*; a schedule of the same id is replaced."""
    wanted = {
        "repo_url": repository,
        "cron": cron,
        "branch": branch,
        "timezone": timezone,
        "jitter_seconds": jitter_seconds,
        "priority": priority,
        "project": project,
        "dataset": dataset,
        "skip_unchanged": skip_unchanged,
        "id": schedule_id,
    }
    return Call(method="POST", path=SCHEDULES, answer=Schedule, body=_given(wanted))


def remove_schedule(schedule_id: str) -> Call[None]:
    """Index it no more by itself. A job that it has started goes on."""
    return Call(method="DELETE", path=f"{SCHEDULES}/{_segment(schedule_id)}", answer=None, nothing_for=(204,))


def keys() -> Call[tuple[Key, ...]]:
    """The keys of every tenant, for an admin."""
    return Call(method="GET", path=KEYS, answer=tuple[Key, ...], inside="keys")


def create_key(
    user: str,
    role: str,
    *,
    tenant: str | None = None,
    projects: Sequence[str] = (),
    name: str | None = None,
    expires_at: datetime | None = None,
) -> Call[Key]:
    """A new key for *user*; ``key`` of the answer is its text, which is not shown again.

    *role* is ``viewer``, ``editor`` or ``admin``; without *projects* it reaches all of the tenant.
    """
    wanted = {
        "user": user,
        "role": role,
        "tenant": tenant,
        "projects": list(projects) or None,
        "name": name,
        "expires_at": None if expires_at is None else expires_at.isoformat(),
    }
    return Call(method="POST", path=KEYS, answer=Key, body=_given(wanted))


def rotate_key(key_id: str, *, grace_seconds: int = 0, expires_at: datetime | None = None) -> Call[Key]:
    """Another secret for a key; the old one is good for *grace_seconds* more."""
    wanted = {
        "grace_seconds": grace_seconds,
        "expires_at": None if expires_at is None else expires_at.isoformat(),
    }
    return Call(method="POST", path=f"{KEYS}/{_segment(key_id)}/rotate", answer=Key, body=_given(wanted))


def disable_key(key_id: str) -> Call[Key]:
    """Make a key good for nothing."""
    return Call(method="POST", path=f"{KEYS}/{_segment(key_id)}/disable", answer=Key)


def delete_key(key_id: str) -> Call[None]:
    """Forget a key, which opens nothing any more."""
    return Call(method="DELETE", path=f"{KEYS}/{_segment(key_id)}", answer=None, nothing_for=(204,))


def callback_secret() -> Call[CallbackSecret]:
    """The secret that signs the callbacks of the key's tenant."""
    return Call(method="GET", path="/api/v1/callbacks/secret", answer=CallbackSecret)


def search(
    query: str,
    *,
    k: int = 10,
    project: str | None = None,
    datasets: Sequence[str] = (),
    repository: str | None = None,
    languages: Sequence[str] = (),
    path_prefix: str | None = None,
    mode: str | None = None,
    threshold: float | None = None,
) -> Call[SearchAnswer]:
    """The *k* files that answer *query* best; *mode* is ``hybrid``, ``dense`` or ``lexical``."""
    wanted = {
        "query": query,
        "k": k,
        "project": project,
        "dataset": list(datasets) or None,
        "repo": repository,
        "lang": list(languages) or None,
        "pathPrefix": path_prefix,
        "mode": mode,
        "threshold": threshold,
    }
    return Call(method="POST", path="/api/v1/search", answer=SearchAnswer, body=_given(wanted))


def health() -> Call[Health]:
    """How the gateway fares, also when that is badly."""
    return Call(method="GET", path="/health", answer=Health, also_accept=(503,))


def events_path(job_id: str | int | None) -> str:
    return "/api/v1/events" if job_id is None else f"{_job_path(job_id)}/events"


def _job_path(job_id: str | int) -> str:
    return f"/api/v1/jobs/{_segment(str(job_id))}"


def _segment(text: str) -> str:
    return quote(text, safe="")


def _given(wanted: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in wanted.items() if value is not None}
