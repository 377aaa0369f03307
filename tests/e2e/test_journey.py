"""HTTP in, search result out, over the whole stack and a real git remote."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.support.git_server import GitServer
from tests.support.polyglot import ANSWERS, FILES
from tests.support.stack import Stack, eventually, search, sse, submit, until_ended


def test_a_repository_in_six_languages_is_indexed(polyglot: dict[str, Any], git: GitServer) -> None:
    assert polyglot["state"] == "completed", polyglot
    result = polyglot["result"]
    assert result["commit"] == git.commit_of("harbour/polyglot")
    assert result["files_processed"] == len(FILES)
    assert result["embeddings_generated"] == len(FILES)
    assert {"python", "javascript", "typescript", "go", "java", "rust"} <= set(result["languages"])
    assert result["edges"] >= 8
    assert len(result["losses"]) > 1
    assert result["losses"][-1] < result["losses"][0]


@pytest.mark.parametrize("question", sorted(ANSWERS))
def test_a_question_in_plain_words_finds_the_function_that_answers_it(
    question: str, polyglot: dict[str, Any], client: httpx.Client
) -> None:
    file, language = ANSWERS[question]
    best = search(client, question, k=3)[0]
    assert (best["file"], best["language"]) == (file, language)
    assert best["commit"] == polyglot["result"]["commit"]
    assert best["url"].startswith("http")
    assert FILES[file].splitlines()[best["lineSpan"]["start"] - 1] in best["chunk"]


def test_history_tells_of_the_job_as_its_clients_expect(
    polyglot: dict[str, Any], stack: Stack, client: httpx.Client
) -> None:
    def read() -> dict[str, Any] | None:
        jobs = httpx.get(f"{stack.url}/api/v1/ingestion/jobs/history?limit=100", trust_env=False).json()[
            "jobs"
        ]
        return next((each for each in jobs if each["job_id"] == polyglot["number"]), None)

    told = eventually(read)
    assert told["status"] == "complete"
    assert told["repo_url"].endswith("/harbour/polyglot")
    assert told["files_processed"] == len(FILES) == told["embeddings_generated"]
    assert told["duration_seconds"] > 0
    assert told["timestamp"].endswith("Z")


def test_filters_filter(polyglot: dict[str, Any], client: httpx.Client) -> None:
    only = search(client, "money", k=20, lang="java")
    assert {each["language"] for each in only} == {"java"}
    under = search(client, "money", k=20, pathPrefix="web/src")
    assert under
    assert all(each["file"].startswith("web/src/") for each in under)
    assert search(client, "money", k=20, dataset="no-such-*") == []
    assert search(client, "money", k=20, repo="harbour/polyglot")
    assert search(client, "money", k=20, repo="harbour/other") == []


def test_a_batch_of_searches_answers_each_as_if_it_were_alone(
    polyglot: dict[str, Any], client: httpx.Client
) -> None:
    questions = sorted(ANSWERS)
    queries: list[dict[str, Any]] = [{"query": question, "k": 1} for question in questions]
    queries += [{"query": "x", "threshold": 2}, {"query": "money", "lang": "java", "k": 20}]
    told = client.post("/api/v1/search/batch", json={"queries": queries, "repo": "harbour/polyglot"})
    assert told.status_code == 200, told.text
    *answers, wrong, java = told.json()["answers"]
    assert [each["results"][0]["file"] for each in answers] == [ANSWERS[each][0] for each in questions]
    assert (wrong["error"]["code"], wrong["results"]) == ("invalid_query", [])
    assert {each["language"] for each in java["results"]} == {"java"}


def test_the_structure_of_a_repository_can_be_read(polyglot: dict[str, Any], client: httpx.Client) -> None:
    def read(address: str, **query: Any) -> dict[str, Any]:
        answer = client.get(f"/api/v1/repositories{address}", params=query)
        assert answer.status_code == 200, answer.text
        body: dict[str, Any] = answer.json()
        return body

    listed = read("")["repositories"]
    repository = next(each for each in listed if each["name"] == "harbour/polyglot")
    assert read(f"/{repository['id']}")["branches"][0]["commit"] == polyglot["result"]["commit"]
    graph = read(f"/{repository['id']}/graph")
    assert [file["path"] for file in graph["files"]] == sorted(FILES)
    assert graph["edges_total"] == len(graph["edges"]) == polyglot["result"]["edges"]
    places = read(f"/{repository['id']}/map")["files"]
    assert [file["path"] for file in places] == sorted(FILES)
    assert len({(file["x"], file["y"]) for file in places}) > len(FILES) / 2
    edge = max(graph["edges"], key=lambda each: each["weight"])
    related = read(f"/{repository['id']}/related", path=edge["source"], k=len(FILES))["related"]
    ties = next(file["ties"] for file in related if file["path"] == edge["target"])
    assert {"kind": edge["kind"], "direction": "out", "weight": edge["weight"]} in ties


def test_a_project_query_answers_in_the_shape_of_its_document(
    polyglot: dict[str, Any], client: httpx.Client
) -> None:
    answer = client.post(
        "/projects/default/query", json={"query": "encrypt text by shifting letters", "k": 5}
    )
    assert answer.status_code == 200
    body = answer.json()
    assert set(body) >= {"request_id", "results", "metadata", "latency_ms"}
    best = body["results"][0]
    assert best["file"] == "src/cipher.rs"
    assert set(best["scores"]) == {"dense", "sparse", "structural", "rerank", "final"}


def test_a_second_submit_while_the_first_runs_is_the_same_job(git: GitServer, client: httpx.Client) -> None:
    git.add_repository("twice/slow", {f"f{n}.py": f"def f{n}():\n    return {n}\n" for n in range(40)})
    git.delay("twice/slow", 30)  # until both are submitted
    first = submit(client, git.url("twice/slow"))
    second = submit(client, git.url("twice/slow"))
    git.delay("twice/slow", 0)
    assert second["job_id"] == first["job_id"]
    assert second["deduplicated"] is True
    assert until_ended(client, first["id"])["state"] == "completed"
    third = submit(client, git.url("twice/slow"))
    assert third["job_id"] > first["job_id"]
    skipped = until_ended(client, third["id"])
    assert skipped["state"] == "skipped"
    assert "indexed already" in skipped["reason"]
    forced = until_ended(client, submit(client, git.url("twice/slow"), force="true")["id"])
    assert forced["state"] == "completed"
    assert forced["result"]["chunks_encoded"] == 0  # every chunk is known by its content
    assert forced["result"]["chunks_reused"] == forced["result"]["chunks"] > 0


def test_a_new_commit_replaces_what_was_there(git: GitServer, client: httpx.Client) -> None:
    git.add_repository(
        "moving/target", {"old.py": "def obsolete_zebra():\n    return 1\n", "kept.py": "KEPT = 1\n"}
    )
    assert until_ended(client, submit(client, git.url("moving/target"))["id"])["state"] == "completed"
    assert any(hit["file"] == "old.py" for hit in search(client, "obsolete zebra", repo="moving/target"))
    git.add_commits(
        "moving/target", [{"old.py": None, "new.py": "def shiny_giraffe():\n    return 2\n"}], branch="main"
    )
    again = until_ended(client, submit(client, git.url("moving/target"))["id"])
    files = {
        hit["file"] for hit in search(client, "obsolete zebra shiny giraffe", k=50, repo="moving/target")
    }
    assert files == {"new.py", "kept.py"}
    assert again["result"]["chunks_reused"] >= 1


def test_another_branch_is_another_dataset(git: GitServer, client: httpx.Client) -> None:
    git.add_repository("two/branches", {"a.py": "MAIN_ONLY = 'walrus'\n"})
    git.add_commits("two/branches", [{"a.py": "BRANCH_ONLY = 'narwhal'\n"}], branch="feature/x", start="main")
    for ref in ({}, {"branch": "feature/x"}):
        assert (
            until_ended(client, submit(client, git.url("two/branches"), **ref)["id"])["state"] == "completed"
        )
    found = {hit["dataset"]: hit["chunk"] for hit in search(client, "walrus narwhal", repo="two/branches")}
    assert len(found) == 2
    assert any("walrus" in chunk for name, chunk in found.items() if name.endswith("@main"))
    assert any("narwhal" in chunk for name, chunk in found.items() if name.endswith("@feature/x"))


def test_the_events_of_a_job_are_told_once_and_in_order_to_a_client_that_is_cut_twice(
    git: GitServer, stack: Stack, client: httpx.Client
) -> None:
    git.add_repository(
        "watched/job", {f"w{n}.py": f"def watched_{n}():\n    return {n}\n" for n in range(30)}
    )
    job_id = submit(client, git.url("watched/job"))["id"]
    seen: list[tuple[int, str]] = []
    for cut_after in (1, 1, 99):
        last = seen[-1][0] if seen else None
        with sse(client, f"/api/v1/jobs/{job_id}/events", last_event_id=last) as events:
            new = 0
            for event in events:
                if "id" in event:
                    seen.append((int(event["id"]), event["event"]))
                    new += 1
                    if new == cut_after:
                        break
        if cut_after == 1:
            stack.kill("gateway")  # the last client also finds another gateway than it began with
            stack.pid("gateway")
            eventually(lambda: _is_ready(stack))
    sequences = [sequence for sequence, _ in seen]
    assert sequences == sorted(set(sequences))
    names = [name for _, name in seen]
    assert names[0] == "job.queued"
    assert names[-1] == "job.completed"
    assert names.count("job.started") == 1


def _is_ready(stack: Stack) -> bool:
    try:
        return httpx.get(f"{stack.url}/readyz", trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


def test_the_worker_says_what_it_is_doing(git: GitServer, stack: Stack, client: httpx.Client) -> None:
    git.add_repository("busy/bee", {"bee.py": "BUSY = True\n"})
    git.delay("busy/bee", 30)  # until that was seen
    job_id = submit(client, git.url("busy/bee"))["id"]

    def training() -> bool:
        status = httpx.get(f"{stack.url}/api/v1/ingestion/worker/status", trust_env=False).json()["status"]
        return bool(status.startswith("Training Graph on ") and status.endswith("busy/bee"))

    eventually(training)
    git.delay("busy/bee", 0)
    until_ended(client, job_id)

    def idle() -> bool:
        return client.get("/api/v1/ingestion/worker/status").json()["status"] == "Idle"

    eventually(idle)


def test_the_gateway_stays_small(stack: Stack, polyglot: dict[str, Any]) -> None:
    import psutil

    assert psutil.Process(stack.pid("gateway")).memory_info().rss < 150 * 1024 * 1024
