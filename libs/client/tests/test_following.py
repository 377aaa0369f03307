"""What a watcher knows of a job."""

from __future__ import annotations

import msgspec
import pytest

from pharos_client import Event, Job, Progress, following
from tests.support import fake_gateway as fake


def job(state: str, **more: object) -> Job:
    return msgspec.convert({**fake.JOB, "state": state, **more}, Job)


def progress(percent: float, stage: str = "parse") -> Event:
    return Event(name="job.progress", data={"stage": stage, "percent": percent, "done": 3, "total": 9})


def test_progress_never_goes_back_within_an_attempt() -> None:
    followed = following.begin(job("running", attempt=1))
    for event in (progress(10), progress(40, "link"), progress(30)):
        followed = following.with_event(followed, event)
    assert (followed.percent, followed.stage) == (40, "link")
    followed = following.with_job(
        followed, job("running", attempt=1, progress={"stage": "parse", "percent": 20})
    )
    assert followed.percent == 40


def test_a_new_attempt_begins_anew() -> None:
    followed = following.with_event(following.begin(job("running", attempt=1)), progress(80))
    assert following.with_job(followed, job("running", attempt=2)).percent == 0


def test_stages_are_done_now_or_later() -> None:
    followed = following.with_event(following.begin(job("running")), progress(40, "link"))
    assert followed.stages()[:5] == (
        ("fetch", "done"),
        ("discover", "done"),
        ("parse", "done"),
        ("link", "now"),
        ("train", "later"),
    )
    done = following.begin(msgspec.convert(fake.COMPLETED, Job))
    assert {when for _, when in done.stages()} == {"done"}
    assert done.percent == 100


def test_progress_of_another_shape_is_ignored() -> None:
    followed = following.begin(job("running"))
    assert following.with_event(followed, Event(name="job.progress", data={"percent": "far"})) == followed


@pytest.mark.parametrize(
    ("followed", "headline"),
    [
        (following.begin(job("queued")), "queued"),
        (following.begin(job("queued", waiting_for_worker=True)), "waiting for a worker"),
        (following.begin(job("running", waiting_for_worker=True)), "its worker is gone"),
        (following.begin(job("retrying", error="no route")), "another attempt: no route"),
        (following.begin(job("committing")), "publishing"),
        (following.with_connection(following.begin(job("running")), False), "the job goes on"),
        (
            following.with_event(following.begin(job("running")), progress(40)),
            "parse, 3/9",
        ),
        (
            msgspec.structs.replace(
                following.begin(job("running")),
                progress=Progress(stage="encode", percent=60, current_file="a.py", eta_seconds=12.4),
            ),
            "encode, about 12 s left, a.py",
        ),
    ],
)
def test_a_headline_says_where_it_stands(followed: following.Followed, headline: str) -> None:
    assert headline in followed.headline()
