"""History and search as the gateway sees them, told what to answer."""

from __future__ import annotations

from datetime import UTC, datetime

from pharos_contracts.history.v1 import FindJob, JobPage, JobView, ListJobs
from pharos_contracts.jobs.v1 import Job, JobKind
from pharos_contracts.message import Message
from pharos_contracts.search.v1 import (
    LineSpan,
    Scores,
    Search,
    SearchAnswer,
    SearchBatch,
    SearchBatchAnswer,
    SearchResult,
)

INGEST = "/api/v1/ingestion/ingest/http://git.test:9418"
HISTORY = "/api/v1/ingestion/jobs/history"
AT = datetime(2024, 1, 20, 10, 0, 0, tzinfo=UTC)


class Answers:
    """The history and search services, as far as the gateway can tell."""

    def __init__(self) -> None:
        self.jobs: list[Job] = []
        self.listed: list[ListJobs] = []
        self.searched: list[Search] = []

    async def history(self, question: ListJobs | FindJob) -> Message:
        if isinstance(question, ListJobs):
            self.listed.append(question)
            found = [
                each
                for each in self.jobs
                if question.tenant in (None, each.tenant) and each.kind in (question.kinds or JobKind)
            ]
        else:
            found = [
                each
                for each in self.jobs
                if question.tenant in (None, each.tenant)
                and (each.job_id == question.job_id or each.number == question.number)
            ]
        views = tuple(JobView(job=each, sequence=1, changed_at=AT) for each in found)
        return JobPage(jobs=views[:100], cursor=None)

    async def search(self, question: Search | SearchBatch) -> Message:
        if isinstance(question, SearchBatch):
            answers = [await self.search(each) for each in question.queries]
            return SearchBatchAnswer(
                answers=tuple(each for each in answers if isinstance(each, SearchAnswer)), latency_ms=3
            )
        self.searched.append(question)
        return SearchAnswer(
            results=(
                SearchResult(
                    id="r1",
                    chunk="class Context:",
                    file="src/context.py",
                    line_span=LineSpan(start=12, end=48),
                    symbol="Context",
                    kind="class",
                    language="python",
                    project="default",
                    dataset="github.com/o/r@main",
                    repository="github.com/o/r",
                    commit="c" * 40,
                    url=None,
                    scores=Scores(dense=0.5, final=0.03),
                ),
            ),
            metadata={"mode": question.mode.value},
            latency_ms=1.5,
        )
