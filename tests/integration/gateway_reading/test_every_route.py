"""What every route has in common: errors, headers, credentials, origins, and the document of the API."""

from __future__ import annotations

import gzip
import importlib
import pkgutil
from typing import Any

import httpx
import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator
from structlog.testing import capture_logs

import pharos_contracts
from pharos_contracts.message import Message
from pharos_gateway.app import serving
from tests.support.answering_services import HISTORY, INGEST, Answers
from tests.support.gateway import BEARER, TOKEN, client, settings, until_ready
from tests.support.nats_server import NatsServer

pytestmark = pytest.mark.anyio


def sent_as(content_type: str) -> dict[str, Any]:
    return {"content": b'{"query":"x"}', "headers": {**BEARER, "Content-Type": content_type}}


async def test_what_is_wrong_with_a_body_is_said_in_a_sentence(http: httpx.AsyncClient) -> None:
    for content, detail in (
        (b"", "The request has no body"),
        (b"{", "The body of the request is not valid JSON"),
        (b"[]", "Invalid request: Expected `object`, got `array`"),
        (b'{"query":"x","k":"5"}', "Invalid request: 'k': Expected `int | null`, got `str`"),
        (b'{"query":"x","lang":["a",""]}', "Invalid request: 'lang[1]': Expected `str` of length >= 1"),
    ):
        answer = await http.post("/api/v1/search", content=content, headers=BEARER)
        assert (answer.status_code, answer.json()["detail"]) == (400, detail)


async def test_options_names_every_method_of_a_path(http: httpx.AsyncClient) -> None:
    for path, methods in (
        ("/api/v1/keys", "GET, OPTIONS, POST"),
        ("/api/v1/schedules/nightly", "DELETE, GET, OPTIONS"),
        ("/api/v1/search", "OPTIONS, POST"),
    ):
        answer = await http.options(path)
        assert (answer.status_code, answer.headers["Allow"]) == (204, methods)


async def test_every_error_has_one_shape_and_every_answer_its_headers(http: httpx.AsyncClient) -> None:
    search = "/api/v1/search"
    for status, method, path, others in (
        (404, "GET", "/nothing/here", {}),
        (404, "GET", "/schema/nothing", {}),
        (405, "DELETE", "/health", {}),
        (405, "GET", "/api/v1/ingestion/ingest/x", {}),
        (401, "GET", "/api/v1/jobs", {}),
        (401, "POST", f"{INGEST}/o/r", {}),
        (400, "POST", search, {"content": b"{", "headers": BEARER}),
        (400, "POST", search, {"content": b"\xff\xfe", "headers": BEARER}),
        (400, "POST", search, {"content": b'{"query":"\xed\xa0\x80"}', "headers": BEARER}),
        (400, "POST", search, {"content": b'{"query":"\\ud800"}', "headers": BEARER}),
        (400, "POST", search, {"content": b'{"query":"x","threshold":NaN}', "headers": BEARER}),
        (400, "POST", search, {"content": b"", "headers": BEARER}),
        (400, "POST", search, {"content": b"[" * 100_000, "headers": BEARER}),
        (400, "POST", search, {"content": b'{"dataset":' + b"[" * 100_000, "headers": BEARER}),
        (400, "POST", search, {"json": {"query": "x", "k": "5"}, "headers": BEARER}),
        (400, "POST", search, {"json": {"query": "x", "includeGlobal": 0}, "headers": BEARER}),
        (415, "POST", search, {"data": {"query": "x"}, "headers": BEARER}),
        (415, "POST", search, sent_as("text/plain")),
        (415, "POST", search, sent_as("application/x-www-form-urlencoded")),
        (415, "POST", search, sent_as("application/jsonp")),
        (503, "POST", search, sent_as("application/json; charset=utf-8")),
        (503, "POST", search, sent_as("application/problem+json")),
        (503, "POST", search, {"content": b'{"query":"x"}', "headers": BEARER}),
        (413, "POST", search, {"content": b"x" * 1_048_577, "headers": BEARER}),
        (503, "POST", search, {"json": {"query": "x"}, "headers": BEARER}),
        (400, "GET", "/api/v1/events?last_event_id=x", {"headers": BEARER}),
        (400, "GET", "/api/v1/jobs", {"headers": {**BEARER, "x-role": "king"}}),
        (400, "GET", "/api/v1/jobs", {"headers": {**BEARER, "x-tenant": "a.b"}}),
    ):
        response = await http.request(method, path, **others)
        assert response.status_code == status, (method, path, response.text)
        body = response.json()
        assert isinstance(body["detail"], str)
        assert isinstance(body["code"], str)
        assert response.headers["Cache-Control"] == "no-store"
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert "server" not in response.headers


async def test_credentials_are_taken_from_three_headers_and_roles_only_lowered(
    answers: Answers, http: httpx.AsyncClient
) -> None:
    jobs = "/api/v1/jobs"
    for headers in (
        BEARER,
        {"x-api-key": TOKEN},
        {"x-admin-key": TOKEN},
        {"Authorization": f"bearer {TOKEN}"},
    ):
        assert (await http.get(jobs, headers=headers)).status_code == 200
    for headers in (
        {},
        {"Authorization": f"Bearer {TOKEN}x"},
        {"Authorization": f"Basic {TOKEN}"},
        {"x-api-key": ""},
        {"x-api-key": "é".encode()},
    ):
        response = await http.get(jobs, headers=headers)
        assert response.status_code == 401
        assert response.json()["detail"] == "Invalid or missing authentication token"
        assert response.headers["WWW-Authenticate"] == "Bearer"
    assert (await http.get(HISTORY, headers={"x-api-key": "wrong"})).status_code == 401
    viewer = {**BEARER, "x-role": "viewer"}
    assert (await http.get(jobs, headers=viewer)).status_code == 200
    assert (await http.post(f"{INGEST}/o/r", headers=viewer)).status_code == 403


async def test_a_forwarded_address_is_believed_only_from_a_trusted_proxy_and_no_token_is_logged(
    nats_server: NatsServer,
) -> None:
    wrong = {"Authorization": "Bearer not-the-token-but-secret", "X-Forwarded-For": "203.0.113.9"}
    for proxies, address in (((), "127.0.0.1"), (("127.0.0.0/8",), "203.0.113.9")):
        async with (
            serving(settings(nats_server.url, trusted_proxies=proxies)) as running,
            client(running.address) as http,
        ):
            with capture_logs() as lines:
                await http.post(f"{INGEST}/o/r", headers=wrong)
        refused = [line for line in lines if line["event"] == "authentication_failed"]
        assert [line["client"] for line in refused] == [address]
        assert "secret" not in str(lines)


async def test_origins_are_answered_only_when_they_are_listed(http: httpx.AsyncClient) -> None:
    preflight = {"Origin": "https://ui.example", "Access-Control-Request-Method": "POST"}
    allowed = await http.options("/api/v1/search", headers=preflight)
    assert allowed.headers["Access-Control-Allow-Origin"] == "https://ui.example"
    simple = await http.get("/health", headers={"Origin": "https://ui.example"})
    assert simple.headers["Access-Control-Allow-Origin"] == "https://ui.example"
    other = await http.get("/health", headers={"Origin": "https://evil.example"})
    assert "Access-Control-Allow-Origin" not in other.headers


async def test_anonymous_requests_act_as_configured_and_public_routes_can_be_closed(
    answers: Answers, nats_server: NatsServer
) -> None:
    closed = settings(nats_server.url, public_status=False)
    opened = settings(nats_server.url, anonymous="acme:editor", git_allowed_hosts="http://git.test:9418")
    async with serving(closed) as running, client(running.address) as http:
        await until_ready(http)
        for path in (HISTORY, "/api/v1/ingestion/worker/status", "/api/v1/ingestion/events"):
            assert (await http.get(path)).status_code == 401
        assert (await http.get(HISTORY, headers=BEARER)).status_code == 200
    async with serving(opened) as running, client(running.address) as http:
        await until_ready(http)
        submitted = (await http.post(f"{INGEST}/o/r")).json()
        shown = (await http.get(f"/api/v1/jobs/{submitted['id']}")).json()
        assert (shown["tenant"], shown["submitted_by"]) == ("acme", "anonymous")
        foreign = await http.post(f"{INGEST}/o/other", headers={"Origin": "https://evil.example"})
        assert foreign.status_code == 401
        own = await http.post(f"{INGEST}/o/r", headers={"Origin": running.address})
        assert own.json()["id"] == submitted["id"]
        assert (await http.get("/api/v1/jobs", headers={"x-role": "admin"})).status_code == 200


async def test_the_documents_are_valid_and_have_the_examples(http: httpx.AsyncClient) -> None:
    document = (await http.get("/schema")).json()
    assert document["openapi"].startswith("3.1")
    OpenAPIV31SpecValidator(document).validate()
    operation = document["paths"]["/api/v1/ingestion/ingest/{repo_url}"]["post"]
    for status, word in (("200", "RTX-4070-Node"), ("400", "credentials in a URL"), ("429", "Queue is full")):
        assert word in str(operation["responses"][status]["content"]["application/json"]["examples"])
    assert operation["security"] == [{"bearer": []}, {"apiKey": []}, {"adminKey": []}]
    assert "Task exceeded TTL" in str(document["paths"][HISTORY])
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            for status, response in operation["responses"].items():
                content = response.get("content", {}).get("application/json", {})
                if status.startswith("2") and path not in ("/livez", "/readyz"):
                    assert not content or content.get("examples"), (method, path, status)
    messages = (await http.get("/schema/messages")).json()
    assert "ingest.command.v1.submit" in str(messages["$defs"]["SubmitJob"])
    told = {each["$ref"].rpartition("/")[2] for each in messages["oneOf"]}
    assert {kind.__name__ for kind in contracted()} == told


def contracted() -> list[type[Message]]:
    """Every message that the contracts define, but those that are only the base of others."""
    names = [each.name for each in pkgutil.walk_packages(pharos_contracts.__path__, "pharos_contracts.")]
    return [
        value
        for module in map(importlib.import_module, names)
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Message) and value.__module__ == module.__name__
        if "." in str(value.__struct_config__.tag)
    ]


async def test_a_compressed_body_is_refused_in_a_sentence(http: httpx.AsyncClient) -> None:
    packed = gzip.compress(b'{"text":"x"}')
    headers = {**BEARER, "Content-Type": "application/json", "Content-Encoding": "gzip"}
    answer = await http.post("/knowledge/ingest-text-async", content=packed, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_content_encoding")
    assert answer.headers["Accept-Encoding"] == "identity"
    assert "without Content-Encoding" in answer.json()["detail"]


async def test_every_body_in_json_has_an_example_that_its_schema_allows(http: httpx.AsyncClient) -> None:
    document = (await http.get("/schema")).json()
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            content = operation.get("requestBody", {}).get("content", {}).get("application/json")
            if content is not None:
                schema = {**content["schema"], "components": document["components"]}
                assert not [*Draft202012Validator(schema).iter_errors(content["example"])], (method, path)


async def test_what_a_route_takes_is_described_by_what_reads_it(http: httpx.AsyncClient) -> None:
    document = (await http.get("/schema")).json()
    wanted = document["components"]["schemas"]["RepositoryJob"]
    assert wanted["properties"]["kind"] == {"enum": ["repository"]}
    assert "kind" in wanted["required"]
    assert wanted["additionalProperties"] is False
    submit = document["paths"]["/api/v1/jobs"]["post"]
    assert {"400", "413", "415"} <= set(submit["responses"])
    listing = document["paths"]["/api/v1/jobs"]["get"]
    by_name = {parameter["name"]: parameter["schema"] for parameter in listing["parameters"]}
    assert by_name["cursor"]["minimum"] == 0
    assert {"431"} <= set(listing["responses"])
    stats = document["paths"]["/projects/{project}/stats"]["get"]
    assert stats["parameters"][0]["schema"]["pattern"].startswith("^[A-Za-z0-9]")
