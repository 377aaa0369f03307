"""The calls of the API as values: what to send, and what the answer is. Both clients send these."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Generic, TypeVar
from urllib.parse import quote

import httpx
import msgspec

from pharos_client.errors import UNREADABLE, PharosError, from_response
from pharos_client.models import (
    Dataset,
    Health,
    History,
    Job,
    JobPage,
    SearchAnswer,
    Submitted,
    Worker,
    WorkerStatus,
)

T = TypeVar("T")


class Call(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """One request. ``inside`` names the field of the answer that holds the value, None for all of it."""

    method: str
    path: str
    answer: Any
    query: dict[str, str | int] = msgspec.field(default_factory=dict)
    body: dict[str, Any] | None = None
    headers: dict[str, str] = msgspec.field(default_factory=dict)
    inside: str | None = None
    also_accept: tuple[int, ...] = ()

    def read(self, response: httpx.Response) -> T:
        """The value in *response*; PharosError where it is a refusal or cannot be understood."""
        if response.status_code >= 400 and response.status_code not in self.also_accept:
            raise from_response(response.status_code, response.content, response.headers)
        try:
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
    branch: str | None,
    ref: str | None,
    force: bool,
    priority: str | None,
    idempotency_key: str | None,
) -> Call[Submitted]:
    query: dict[str, str | int] = {}
    if branch is not None:
        query["branch"] = branch
    if ref is not None:
        query["ref"] = ref
    if force:
        query["force"] = "true"
    if priority is not None:
        query["priority"] = priority
    return Call(
        method="POST",
        path=f"/api/v1/ingestion/ingest/{quote(repository, safe='')}",
        answer=Submitted,
        query=query,
        headers={} if idempotency_key is None else {"Idempotency-Key": idempotency_key},
    )


def job(job_id: str | int) -> Call[Job]:
    return Call(method="GET", path=f"/api/v1/jobs/{quote(str(job_id), safe='')}", answer=Job)


def jobs(*, limit: int, cursor: str | int | None, states: Sequence[str]) -> Call[JobPage]:
    query: dict[str, str | int] = {"limit": limit}
    if cursor is not None:
        query["cursor"] = cursor
    if states:
        query["state"] = ",".join(states)
    return Call(method="GET", path="/api/v1/jobs", answer=JobPage, query=query)


def history(limit: int) -> Call[History]:
    return Call(method="GET", path="/api/v1/ingestion/jobs/history", answer=History, query={"limit": limit})


def worker_status() -> Call[WorkerStatus]:
    return Call(method="GET", path="/api/v1/ingestion/worker/status", answer=WorkerStatus)


def workers() -> Call[tuple[Worker, ...]]:
    return Call(method="GET", path="/api/v1/workers", answer=tuple[Worker, ...], inside="workers")


def datasets() -> Call[tuple[Dataset, ...]]:
    return Call(method="GET", path="/api/v1/datasets", answer=tuple[Dataset, ...], inside="datasets")


def search(
    query: str,
    *,
    k: int,
    project: str | None,
    datasets: Sequence[str],
    repository: str | None,
    languages: Sequence[str],
    path_prefix: str | None,
    mode: str | None,
    threshold: float | None,
) -> Call[SearchAnswer]:
    wanted: dict[str, Any] = {
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
    return Call(
        method="POST",
        path="/api/v1/search",
        answer=SearchAnswer,
        body={key: value for key, value in wanted.items() if value is not None},
    )


def health() -> Call[Health]:
    return Call(method="GET", path="/health", answer=Health, also_accept=(503,))


def events_path(job_id: str | int | None) -> str:
    return "/api/v1/events" if job_id is None else f"/api/v1/jobs/{quote(str(job_id), safe='')}/events"
