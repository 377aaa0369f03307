"""A push at GitHub, over the whole stack: what changed is indexed, and nothing else."""

from __future__ import annotations

import hashlib
import hmac
import json

import httpx

from tests.support.git_server import GitServer
from tests.support.stack import eventually, job, search, submit, until_ended


def push(client: httpx.Client, secret: str, url: str, before: str, after: str) -> str:
    """GitHub tells that ``main`` moved; the id of the job that follows."""
    body = json.dumps(
        {
            "ref": "refs/heads/main",
            "before": before,
            "after": after,
            "repository": {"clone_url": url, "default_branch": "main"},
        }
    ).encode()
    signature = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    answer = client.post(
        "/webhooks/github",
        content=body,
        headers={"X-Hub-Signature-256": f"sha256={signature}", "X-GitHub-Event": "push"},
    )
    assert answer.status_code == 202, answer.text
    job_id: str = answer.json()["job_id"]
    return job_id


def test_a_push_indexes_what_changed_into_the_dataset_of_its_branch(
    git: GitServer, client: httpx.Client
) -> None:
    files = {f"f{number}.py": f"def walrus_{number}():\n    return {number}\n" for number in range(8)}
    git.add_repository("pushed/often", files)
    url = git.url("pushed/often")
    assert until_ended(client, submit(client, url)["id"])["state"] == "completed"
    before = git.commit_of("pushed/often")
    made = client.post("/api/v1/webhooks", json={"repo_url": url})
    assert made.status_code == 201, made.text
    git.add_commits("pushed/often", [{"f0.py": "def narwhal():\n    return 0\n"}], branch="main")
    after = git.commit_of("pushed/often")
    job_id = push(client, made.json()["secret"], url, before, after)
    eventually(lambda: job(client, job_id), seconds=30)
    ended = until_ended(client, job_id)
    assert (ended["state"], ended["trigger"], ended["result"]["commit"]) == ("completed", "webhook", after)
    assert ended["result"]["chunks_reused"] >= 7
    assert ended["result"]["chunks_encoded"] <= 2
    hits = search(client, "narwhal walrus", k=50, repo="pushed/often")
    assert {hit["file"] for hit in hits if "narwhal" in hit["chunk"]} == {"f0.py"}
    assert {hit["commit"] for hit in hits} == {after}
    assert len({hit["dataset"] for hit in hits}) == 1
