"""Both clients against a gateway of ours: what they send, what they make of the answers."""

from __future__ import annotations

import inspect
from typing import Any

import httpx
import pytest

from pharos_client import AsyncPharos, Event, Pharos, PharosError, requests
from tests.support import fake_gateway as fake


def client(respond: Any) -> Pharos:
    return Pharos("http://gateway", fake.TOKEN, transport=httpx.MockTransport(respond))


def test_a_submit_sends_the_whole_address_as_one_segment() -> None:
    seen: list[httpx.Request] = []

    def respond(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json=fake.SUBMITTED)

    with client(respond) as pharos:
        submitted = pharos.submit_repository(
            "https://github.com/o/r?x=1#y", branch="fix/a b", force=True, idempotency_key="k1"
        )
    (request,) = seen
    assert request.url.raw_path == (
        b"/api/v1/ingestion/ingest/https%3A%2F%2Fgithub.com%2Fo%2Fr%3Fx%3D1%23y?branch=fix%2Fa+b&force=true"
    ) or request.url.raw_path.endswith(b"?branch=fix%2Fa%20b&force=true")
    assert request.headers["Authorization"] == f"Bearer {fake.TOKEN}"
    assert request.headers["Idempotency-Key"] == "k1"
    assert (submitted.job_id, submitted.queue_position, submitted.deduplicated) == (3, 1, False)


def test_a_refusal_is_one_exception_with_sentence_code_status_and_further_fields() -> None:
    body = {"detail": "Queue is full (10 pending tasks).", "code": "queue_full", "queue_size": 10}

    refuse = httpx.Response(429, json=body, headers={"Retry-After": "7"})
    with client(lambda _: refuse) as pharos, pytest.raises(PharosError) as refusal:
        pharos.submit_repository("github.com/o/r")
    error = refusal.value
    assert (error.detail, error.code, error.status) == (body["detail"], "queue_full", 429)
    assert (error.body["queue_size"], error.retry_after_seconds, error.transient) == (10, 7.0, True)


@pytest.mark.parametrize(
    ("response", "code", "status"),
    [
        (httpx.Response(502, text="<html>Bad Gateway</html>"), "http_502", 502),
        (httpx.Response(404, json=["nothing"]), "http_404", 404),
        (httpx.Response(200, text="<html>a proxy's page</html>"), "unreadable_answer", 200),
        (httpx.Response(200, json={"unexpected": True}), "unreadable_answer", 200),
    ],
)
def test_answers_of_others_than_the_gateway_are_errors_too(
    response: httpx.Response, code: str, status: int
) -> None:
    with client(lambda _: response) as pharos, pytest.raises(PharosError) as refusal:
        pharos.job(3)
    assert (refusal.value.code, refusal.value.status) == (code, status)


def test_no_answer_is_an_error_that_says_so() -> None:
    def respond(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("Connection refused", request=request)

    with client(respond) as pharos, pytest.raises(PharosError, match="No gateway answers at http://gateway"):
        pharos.worker_status()
    with client(respond) as pharos:
        assert "Connection refused" in str(pharos.not_ready())


def test_answers_are_typed_and_fields_of_tomorrow_are_ignored() -> None:
    answers = {
        "/api/v1/jobs/3": fake.COMPLETED,
        "/api/v1/jobs": {"jobs": [fake.COMPLETED], "cursor": None},
        "/api/v1/ingestion/jobs/history": {
            "jobs": [
                {"job_id": 3, "repo_url": "github.com/o/r", "status": "complete", "duration_seconds": 1.5}
            ]
        },
        "/api/v1/ingestion/worker/status": {"status": "Offline", "workers": []},
        "/api/v1/workers": {"workers": [{"name": "box", "status": "Idle", "device": "cpu"}]},
        "/api/v1/datasets": {"datasets": [{"dataset": "github.com/o/r@main", "files": 27}]},
        "/api/v1/search": fake.ANSWER,
    }
    with client(lambda request: httpx.Response(200, json=answers[request.url.path])) as pharos:
        job = pharos.job(3)
        assert (job.number, job.ended, job.repository, job.seconds) == (3, True, "github.com/o/r", 12.5)
        assert job.result is not None and job.result.left_out == {"binary": 3, "generated": 2}
        assert pharos.jobs().jobs == (job,)
        assert pharos.history().jobs[0].duration_seconds == 1.5
        assert pharos.worker_status().offline
        assert pharos.workers()[0].name == "box"
        assert pharos.datasets()[0].files == 27
        assert pharos.search("sign").results[0].line_span.start == 12


def test_health_is_told_when_it_is_bad_too() -> None:
    body = {"status": "degraded", "service": "gateway", "detail": "bus"}
    with client(lambda _: httpx.Response(503, json=body)) as pharos:
        assert pharos.health().status == "degraded"


class Script:
    """Answers to one request for events after another, and what each of them asked."""

    def __init__(self, *responses: Any) -> None:
        self._responses = list(responses)
        self.asked: list[str | None] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request.headers.get("Last-Event-ID"))
        response = self._responses.pop(0)
        if isinstance(response, Exception):
            raise response
        return response  # type: ignore[no-any-return]


def outage() -> Script:
    """A restart of the gateway in the middle, and events that come twice."""
    return Script(
        httpx.Response(
            200,
            stream=fake.Broken(
                fake.sse("job.queued", {"n": 1}, 1),
                b": keep-alive\n\n",
                fake.sse("job.started", {"n": 2}, 2)[:-4],
            ),
        ),
        httpx.ConnectError("Connection refused"),
        httpx.Response(503, json={"detail": "starting", "code": "starting"}),
        httpx.Response(
            200,
            stream=fake.Broken(
                fake.sse("job.queued", {"n": 1}, 1)
                + fake.sse("job.started", {"n": 2}, 2)
                + fake.sse("job.progress", {"percent": 10})
                + fake.sse("job.progress", {"percent": 10})
            ),
        ),
        httpx.Response(
            200, content=fake.sse("job.completed", {"n": 5}, 5) + fake.sse("job.queued", {"n": 6}, 6)
        ),
    )


EXPECTED = ["job.queued", "job.started", "job.progress", "job.progress", "job.completed"]


def test_events_survive_a_restart_each_once_and_in_order() -> None:
    script = outage()
    with client(script) as pharos:
        events = list(pharos.events(3))
    assert [event.name for event in events] == EXPECTED
    assert script.asked == [None, "1", "1", "1", "2"]


@pytest.mark.anyio
async def test_the_async_client_does_the_same() -> None:
    script = outage()
    async with AsyncPharos("http://gateway", fake.TOKEN, transport=httpx.MockTransport(script)) as pharos:
        events: list[Event] = [event async for event in pharos.events(3, connection_events=True)]
    assert [event.name for event in events if event.name.startswith("job.")] == EXPECTED
    assert [event.name for event in events if event.name.startswith("connection.")] == [
        "connection.open",
        *["connection.lost"] * 3,
        "connection.open",
        "connection.lost",
        "connection.open",
    ]


def test_a_stream_that_has_no_more_ends() -> None:
    script = Script(httpx.Response(204))
    with client(script) as pharos:
        assert list(pharos.events(3, last_event_id="5")) == []
    assert script.asked == ["5"]


def test_a_refused_stream_is_not_tried_again() -> None:
    script = Script(httpx.Response(401, json={"detail": "Invalid or missing authentication token"}))
    with client(script) as pharos, pytest.raises(PharosError, match="authentication"):
        list(pharos.events())
    assert len(script.asked) == 1


@pytest.mark.anyio
async def test_the_async_client_makes_the_same_calls() -> None:
    paths: list[str] = []

    def respond(request: httpx.Request) -> httpx.Response:
        paths.append(f"{request.method} {request.url.path}")
        return httpx.Response(
            200,
            json={
                "/api/v1/jobs/3": fake.JOB,
                "/api/v1/jobs": {"jobs": []},
                "/api/v1/ingestion/jobs/history": {"jobs": []},
                "/api/v1/ingestion/worker/status": {"status": "Idle"},
                "/api/v1/workers": {"workers": []},
                "/api/v1/datasets": {"datasets": []},
                "/api/v1/search": fake.ANSWER,
                "/health": {"status": "healthy"},
                "/readyz": {"status": "ready"},
            }.get(request.url.path, fake.SUBMITTED),
        )

    async with AsyncPharos("http://gateway/", transport=httpx.MockTransport(respond)) as pharos:
        await pharos.submit_repository("github.com/o/r")
        await pharos.job(3)
        await pharos.jobs()
        await pharos.history()
        await pharos.worker_status()
        await pharos.workers()
        await pharos.datasets()
        await pharos.search("x", datasets=("a",), languages=("go",), mode="dense")
        await pharos.health()
        assert await pharos.not_ready() is None
    assert paths == [
        "POST /api/v1/ingestion/ingest/github.com/o/r",
        "GET /api/v1/jobs/3",
        "GET /api/v1/jobs",
        "GET /api/v1/ingestion/jobs/history",
        "GET /api/v1/ingestion/worker/status",
        "GET /api/v1/workers",
        "GET /api/v1/datasets",
        "POST /api/v1/search",
        "GET /health",
        "GET /readyz",
    ]


CONTROL: tuple[tuple[str, tuple[Any, ...], dict[str, Any], str, Any], ...] = (
    ("pause", (3,), {}, "POST /api/v1/jobs/3/pause", fake.JOB),
    ("resume", (3,), {}, "POST /api/v1/jobs/3/resume", fake.JOB),
    ("cancel", (3,), {}, "POST /api/v1/jobs/3/cancel", fake.JOB),
    ("retry", ("a/b",), {}, "POST /api/v1/jobs/a%2Fb/retry", fake.JOB),
    ("queue", (), {}, "GET /ops/queue", {"depth": 3, "capacity": 10}),
    ("dead_letters", (), {"before": 7}, "GET /ops/dead-letters?limit=20&before=7", {"dead_letters": []}),
    ("dead_letter", ("Q-17",), {}, "GET /ops/dead-letters/Q-17", fake.DEAD_LETTER),
    ("replay_dead_letter", ("Q-17",), {}, "POST /ops/dead-letters/Q-17/replay", fake.JOB),
    ("purge_dead_letter", ("Q-17",), {}, "DELETE /ops/dead-letters/Q-17", None),
    ("purge_dead_letters", (), {}, "DELETE /ops/dead-letters", {"purged": 3}),
    ("schedules", (), {}, "GET /api/v1/schedules", {"schedules": [fake.SCHEDULE]}),
    ("schedule", ("nightly",), {}, "GET /api/v1/schedules/nightly", fake.SCHEDULE),
    ("add_schedule", ("github.com/o/r", "0 3 * * *"), {}, "POST /api/v1/schedules", fake.SCHEDULE),
    ("remove_schedule", ("nightly",), {}, "DELETE /api/v1/schedules/nightly", None),
    ("keys", (), {}, "GET /api/v1/keys", {"keys": [fake.KEY]}),
    ("create_key", ("ada", "editor"), {}, "POST /api/v1/keys", fake.KEY),
    ("rotate_key", ("k1",), {"grace_seconds": 60}, "POST /api/v1/keys/k1/rotate", fake.KEY),
    ("disable_key", ("k1",), {}, "POST /api/v1/keys/k1/disable", fake.KEY),
    ("delete_key", ("k1",), {}, "DELETE /api/v1/keys/k1", None),
    ("callback_secret", (), {}, "GET /api/v1/callbacks/secret", {"tenant": "default", "secret": "s"}),
)


@pytest.mark.anyio
@pytest.mark.parametrize(("name", "arguments", "named", "sent", "answer"), CONTROL)
async def test_each_call_is_the_same_for_both_clients(
    name: str, arguments: tuple[Any, ...], named: dict[str, Any], sent: str, answer: Any
) -> None:
    seen: list[str] = []

    def respond(request: httpx.Request) -> httpx.Response:
        seen.append(f"{request.method} {request.url.raw_path.decode()}")
        return httpx.Response(204) if answer is None else httpx.Response(200, json=answer)

    with client(respond) as pharos:
        blocking = getattr(pharos, name)(*arguments, **named)
    async with AsyncPharos("http://gateway", transport=httpx.MockTransport(respond)) as pharos:
        awaited = await getattr(pharos, name)(*arguments, **named)
    assert seen == [sent] * 2
    assert blocking == awaited
    assert (blocking is None) == (answer is None)


def test_both_clients_have_the_same_methods_with_the_same_parameters_and_documentation() -> None:
    def methods(kind: type[Any]) -> dict[str, tuple[list[str], str | None]]:
        return {
            name: (list(inspect.signature(method).parameters), method.__doc__)
            for name, method in vars(kind).items()
            if inspect.isfunction(method) and not name.startswith("_")
        }

    blocking, awaiting = methods(Pharos), methods(AsyncPharos)
    del blocking["close"], awaiting["aclose"]
    assert blocking.pop("events")[0] == awaiting.pop("events")[0]
    assert blocking == awaiting
    assert blocking["pause"] == (["self", "job_id"], requests.pause.__doc__)
    assert all(documentation for _, documentation in blocking.values())


def test_a_message_that_is_sent_again_has_no_job_and_a_secret_does_not_show_itself() -> None:
    with client(lambda _: httpx.Response(202, json={"dead_letter": "Q-17", "status": "resent"})) as pharos:
        assert pharos.replay_dead_letter("Q-17") is None
    with client(lambda _: httpx.Response(200, json={"tenant": "a", "secret": "hush"})) as pharos:
        secret = pharos.callback_secret()
    assert secret.secret == "hush"
    assert "hush" not in repr(secret)
