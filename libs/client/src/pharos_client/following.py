"""What is known of a job while it is watched: a pure fold of events and views. No terminal, no network."""

from __future__ import annotations

from typing import Final

import msgspec

from pharos_client.models import Event, Job, Progress

STAGES: Final = ("fetch", "discover", "parse", "link", "train", "store", "encode", "publish")


class Followed(msgspec.Struct, frozen=True, kw_only=True):
    """A job as its watcher knows it. ``connected`` is whether news can arrive."""

    job: Job
    progress: Progress | None = None
    connected: bool = True

    @property
    def percent(self) -> float:
        if self.job.state == "completed":
            return 100.0
        return min(100.0, max(0.0, self.progress.percent)) if self.progress is not None else 0.0

    @property
    def stage(self) -> str:
        return self.progress.stage if self.progress is not None else ""

    def stages(self) -> tuple[tuple[str, str], ...]:
        """Each stage with ``done``, ``now`` or ``later``."""
        if self.job.state == "completed":
            return tuple((stage, "done") for stage in STAGES)
        position = STAGES.index(self.stage) if self.stage in STAGES else -1
        return tuple(
            (stage, "done" if place < position else "now" if place == position else "later")
            for place, stage in enumerate(STAGES)
        )

    def headline(self) -> str:
        """Where it stands, in a few words."""
        if not self.connected:
            return "connection lost, trying again; the job goes on"
        job = self.job
        match job.state:
            case "queued" if job.waiting_for_worker:
                return "queued, and waiting for a worker: none is alive"
            case "running" | "committing" if job.waiting_for_worker:
                return "its worker is gone; the next one goes on where it stopped"
            case "retrying":
                return f"waiting for another attempt: {job.error or 'the last one failed'}"
            case "running" if self.progress is not None:
                return _running(self.progress)
            case "committing":
                return "publishing"
            case _:
                return job.state


def _running(progress: Progress) -> str:
    parts = [progress.stage]
    if progress.total:
        parts.append(f"{progress.done}/{progress.total}")
    if progress.eta_seconds is not None:
        parts.append(f"about {progress.eta_seconds:.0f} s left")
    if progress.detail:
        parts.append(progress.detail)
    if progress.current_file:
        parts.append(progress.current_file)
    return ", ".join(parts)


def begin(job: Job) -> Followed:
    return Followed(job=job, progress=job.progress)


def with_job(followed: Followed, job: Job) -> Followed:
    """After a fresh view of the job; a new attempt begins its progress anew."""
    keep = followed.progress if job.attempt == followed.job.attempt else None
    return Followed(job=job, progress=_further(keep, job.progress), connected=followed.connected)


def with_event(followed: Followed, event: Event) -> Followed:
    """After *event*, as far as it tells of progress; state changes are read from the job itself."""
    if event.name != "job.progress":
        return followed
    try:
        progress = msgspec.convert(event.data.get("progress", event.data), Progress)
    except msgspec.ValidationError:
        return followed
    return msgspec.structs.replace(followed, progress=_further(followed.progress, progress))


def with_connection(followed: Followed, connected: bool) -> Followed:
    return msgspec.structs.replace(followed, connected=connected)


def _further(known: Progress | None, news: Progress | None) -> Progress | None:
    """The one that is further on: news may arrive late."""
    if known is None or news is None:
        return news if known is None else known
    return news if news.percent >= known.percent else known
