"""What was indexed is deleted, is found no more, and comes back only when somebody indexes it again."""

from __future__ import annotations

from typing import Any

import httpx

from tests.support.git_server import GitServer
from tests.support.stack import Stack, eventually, search, submit, until_ended

HERE = "/projects/default/ingest/github"


def delete(client: httpx.Client, **body: Any) -> httpx.Response:
    return client.request("DELETE", HERE, json=body, timeout=30)


def stats(client: httpx.Client) -> dict[str, Any]:
    told: dict[str, Any] = client.get("/projects/default/stats").json()
    return told


def test_a_dataset_is_indexed_deleted_and_indexed_again(
    git: GitServer, stack: Stack, client: httpx.Client
) -> None:
    git.add_repository("gone/soon", {"a.py": "def vanishing_platypus():\n    return 1\n"})
    url = git.url("gone/soon")
    first = until_ended(client, submit(client, url)["id"])
    name = first["result"]["dataset"]
    before = stats(client)
    assert any(hit["dataset"] == name for hit in search(client, "vanishing platypus", repo="gone/soon"))

    gone = delete(client, dataset=name)
    assert gone.status_code == 200, gone.text
    assert gone.json()["deletedVectors"] == first["result"]["chunks"]
    assert search(client, "vanishing platypus", repo="gone/soon") == []
    after = stats(client)
    assert (after["datasets"], after["chunks"]) == (
        before["datasets"] - 1,
        before["chunks"] - first["result"]["chunks"],
    )
    assert delete(client, dataset=name).status_code == 404

    again = until_ended(client, submit(client, url)["id"])
    assert again["state"] == "completed", again
    assert again["result"]["generation"] > first["result"]["generation"]
    assert again["result"]["chunks_encoded"] == again["result"]["chunks"]  # nothing was kept for it
    assert any(hit["dataset"] == name for hit in search(client, "vanishing platypus", repo="gone/soon"))


def test_a_running_job_of_the_dataset_is_stopped_and_leaves_nothing(
    git: GitServer, client: httpx.Client
) -> None:
    git.add_repository("gone/slow", {f"f{n}.py": f"def slow_{n}():\n    return {n}\n" for n in range(20)})
    git.delay("gone/slow", 20)
    job_id = submit(client, git.url("gone/slow"))["id"]
    eventually(lambda: client.get(f"/api/v1/jobs/{job_id}").json()["state"] == "running" or None)
    gone = delete(client, repo=git.url("gone/slow"))
    assert gone.status_code == 200, gone.text
    assert (gone.json()["cancelledJobs"], gone.json()["deletedVectors"]) == ([job_id], 0)
    assert client.get(f"/api/v1/jobs/{job_id}").json()["state"] == "cancelled"
    assert delete(client, repo=git.url("gone/slow")).status_code == 404


def test_a_resource_is_found_replaced_and_deleted(stack: Stack, client: httpx.Client) -> None:
    body = {
        "title": "Lighthouse notes",
        "content": "The quokka keeper polishes the lamp.",
        "url": "https://h.example/notes.md",
        "resource_type": "PRACTICE",
    }

    def put(**changes: str) -> dict[str, Any]:
        answer = client.post("/resources", json={**body, **changes})
        assert answer.status_code == 201, answer.text
        path = f"/resources/{answer.json()['id']}"

        def read() -> dict[str, Any] | None:
            told: dict[str, Any] = client.get(path).json()
            return told if told["status"] == "completed" else None

        return eventually(read)

    def texts(words: str) -> list[str]:
        hits = search(client, words, dataset="documents/resources")
        return [hit["chunk"] for hit in hits]

    first = put()
    assert texts("quokka keeper") == [body["content"]]
    second = put(content="The numbat keeper sleeps.")
    assert second["id"] == first["id"]
    assert texts("quokka numbat keeper") == ["The numbat keeper sleeps."]
    gone = client.delete(f"/resources/{first['id']}", timeout=30)
    assert gone.status_code == 204, gone.text
    assert texts("numbat keeper") == []
    assert client.get(f"/resources/{first['id']}").status_code == 404
    assert put()["id"] == first["id"]
    assert texts("quokka keeper") == [body["content"]]
