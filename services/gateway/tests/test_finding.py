"""The pages of the list of jobs: each job once, in order, whatever history knows of."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest

from pharos_contracts.history.v1 import JobPage, JobView
from pharos_contracts.jobs.v1 import Job
from pharos_gateway.finding import Finder
from pharos_gateway.sight import Sight
from tests.support.gateway import job

pytestmark = pytest.mark.anyio

AT = datetime(2024, 1, 20, 10, 30, tzinfo=UTC)
ALL = Sight(tenant=None)
JOBS = [job(number, submitted_at=AT + timedelta(seconds=number)) for number in range(1, 13)]


class Lagging(Finder):
    """History knows of the first *known* jobs; the last *waiting* ones wait."""

    def __init__(self, known: int, waiting: int) -> None:
        self.stored = JOBS[:known]
        self.held = JOBS[len(JOBS) - waiting :]

    async def waiting(self, sight: Sight) -> list[Job]:
        return self.held

    async def page(self, sight: Sight, *, states: Sequence[str], limit: int, before: int | None) -> JobPage:
        older = [each for each in reversed(self.stored) if before is None or each.number < before]
        views = tuple(JobView(job=each, sequence=1, changed_at=AT) for each in older[:limit])
        return JobPage(jobs=views, cursor=views[-1].job.number if len(older) > limit else None)


@pytest.mark.parametrize("limit", [1, 3, 5, 12, 100])
@pytest.mark.parametrize(("known", "waiting"), [(12, 0), (12, 7), (10, 7), (10, 2), (6, 6), (0, 12)])
async def test_every_job_is_on_one_page_and_only_what_nobody_told_yet_exceeds_it(
    known: int, waiting: int, limit: int
) -> None:
    finder = Lagging(known, waiting)
    found, cursor = await finder.newest(ALL, states=(), limit=limit)
    assert len(found) <= max(limit, len(JOBS) - known)
    numbers = sorted((each.number for each in found), reverse=True)
    while cursor is not None:
        page = await finder.page(ALL, states=(), limit=limit, before=cursor)
        numbers += [view.job.number for view in page.jobs]
        cursor = page.cursor
    assert numbers == [each.number for each in reversed(JOBS)]
