from __future__ import annotations

from typing import Any

import pytest

from pharos_contracts.history.v1 import FindJob, JobPage, ListJobs, ReadLog
from pharos_contracts.lifecycle import JobState
from pharos_contracts.rpc import Refused
from pharos_history.database import DatabaseUnavailable
from pharos_history.questions import Question, Questions, mistake_in

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("question", "code"),
    [
        (ListJobs(tenant="t", limit=0), "invalid_limit"),
        (ListJobs(tenant="t", limit=1001), "invalid_limit"),
        (ListJobs(tenant="t", states=("queued", "lost")), "unknown_state"),
        (FindJob(tenant="t"), "nothing_to_find"),
        (ReadLog(tenant="t", job_id="j", limit=501), "invalid_limit"),
        (ListJobs(tenant=None, limit=1), None),
        (ListJobs(tenant="t", limit=1000, states=tuple(JobState)), None),
        (FindJob(tenant="t", number=1), None),
        (FindJob(tenant="t", job_id="j"), None),
        (ReadLog(tenant="t", job_id="j"), None),
    ],
)
def test_a_question_that_makes_no_sense_is_refused(question: Question, code: str | None) -> None:
    mistake = mistake_in(question)
    assert (mistake and (mistake.code, mistake.status)) == (code and (code, 400))


class Store:
    """Answers one question, and is away for the others."""

    def list_jobs(self, _: ListJobs) -> JobPage:
        return JobPage(jobs=(), sequence=3)

    def find_job(self, _: FindJob) -> JobPage:
        raise DatabaseUnavailable("locked")


async def test_a_database_that_is_away_is_a_refusal_that_says_so() -> None:
    store: Any = Store()
    questions = Questions(store)
    assert await questions.answer(ListJobs(tenant="t")) == JobPage(jobs=(), sequence=3)
    refused = await questions.answer(FindJob(tenant="t", number=1))
    assert isinstance(refused, Refused)
    assert (refused.code, refused.status) == ("history_unavailable", 503)
