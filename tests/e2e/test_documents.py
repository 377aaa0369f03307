"""Documents over the whole stack: they go in by HTTP, and a search finds where in them the answer is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
from fpdf import FPDF

from tests.support.stack import Stack, eventually, search
from tests.support.web_server import WebServer, answer

GUIDE = """<html lang="en"><head><title>The harbour guide</title></head><body><main>
<h1>Tides</h1><p>The walrus sleeps on the northern pier whenever the tide is low and the wind is calm.</p>
<h1>Ferries</h1><p>{}</p></main></body></html>"""
OLD, NEW = "Ferries leave from the eastern quay.", "Zeppelins leave from the roof of the customs house."


def manual() -> bytes:
    made = FPDF()
    made.set_title("Lamp manual")
    made.set_font("Helvetica", size=12)
    for text in (
        "This manual tells how the lamp of the lighthouse is kept.",
        "The wick is trimmed with brass scissors before every dusk, by the keeper alone.",
    ):
        made.add_page()
        made.multi_cell(0, text=text)
    return bytes(made.output())


def ended(client: httpx.Client, submitted: httpx.Response) -> dict[str, Any]:
    assert submitted.status_code == 200, submitted.text
    path = f"/ops/jobs/{submitted.json()['job_id']}"

    def read() -> dict[str, Any] | None:
        found: dict[str, Any] = client.get(path).json()
        return found if found["status"] in ("finished", "failed") else None

    return eventually(read)


def finished(client: httpx.Client, submitted: httpx.Response) -> dict[str, Any]:
    found = ended(client, submitted)
    assert found["status"] == "finished", found
    result: dict[str, Any] = found["result"]
    return result


def hits(client: httpx.Client, query: str) -> list[dict[str, Any]]:
    return search(client, query, dataset="documents/*", mode="lexical")


def test_a_text_is_found_and_its_upload_is_gone(client: httpx.Client) -> None:
    text = "# Keeper's diary\n\nA narwhal surfaced beside the pilot boat."
    submitted = client.post("/knowledge/ingest-text-async", json={"text": text, "source": "diary"})
    result = finished(client, submitted)
    assert (result["ok"], result["ingested_chunks"], result["source"]) == (True, 1, "diary")
    (hit,) = hits(client, "narwhal")
    assert (hit["dataset"], hit["url"], hit["commit"]) == ("documents/diary", None, "")
    assert (hit["document"]["kind"], hit["document"]["language"]) == ("text", "en")
    public = client.get("/api/v1/ingestion/jobs/history?limit=100").json()["jobs"]
    assert all(row["job_id"] > 0 for row in public)


def test_a_page_is_found_and_the_same_page_again_replaces_it(web: WebServer, client: httpx.Client) -> None:
    url = f"{web.url}/guide"
    web.answers["/guide"] = answer(body=GUIDE.format(OLD).encode(), content_type="text/html; charset=utf-8")

    def ingest() -> dict[str, Any]:
        return finished(
            client, client.post("/knowledge/ingest-url-async", json={"url": url, "source": "web"})
        )

    first = ingest()
    assert (first["title"], first["lang"], first["url"]) == ("The harbour guide", "en", url)
    assert {hit["url"] for hit in hits(client, "ferries quay")} == {url}
    (walrus,) = hits(client, "walrus")
    assert walrus["document"]["headings"][-1:] == ["Tides"]
    web.answers["/guide"] = answer(body=GUIDE.format(NEW).encode(), content_type="text/html; charset=utf-8")
    second = ingest()
    assert second["ingested_chunks"] == first["ingested_chunks"]
    assert [hit["file"] for hit in hits(client, "zeppelins")] == [url]
    assert hits(client, "quay") == []


def test_a_page_that_is_not_there_has_failed_in_the_words_of_its_server(
    web: WebServer, client: httpx.Client
) -> None:
    submitted = client.post("/knowledge/ingest-url-async", json={"url": f"{web.url}/gone", "source": "web"})
    found = ended(client, submitted)
    assert (found["status"], found["error"]) == ("failed", "HTTPError: 404 Not Found")
    assert "result" not in found


def test_a_pdf_is_found_by_its_page(client: httpx.Client) -> None:
    submitted = client.post(
        "/knowledge/ingest-file-async",
        files={"file": ("lamp.pdf", manual(), "application/pdf")},
        data={"source": "manuals"},
    )
    result = finished(client, submitted)
    assert (result["title"], result["filename"]) == ("Lamp manual", "lamp.pdf")
    found = hits(client, "brass scissors wick")[0]
    document = found["document"]
    assert (found["file"], document["kind"], document["title"]) == ("manuals/lamp.pdf", "pdf", "Lamp manual")
    assert document["page"] <= 2 <= (document["page_end"] or document["page"])
    assert "brass scissors" in found["chunk"]


def test_the_clients_of_the_family_run(web: WebServer, stack: Stack, tmp_path: Path) -> None:
    web.answers["/docs"] = answer(body=GUIDE.format(OLD).encode(), content_type="text/html")
    file = tmp_path / "document.pdf"
    file.write_bytes(manual())
    arguments = [stack.url, stack.token, f"{web.url}/docs", str(file)]
    for command in ([sys.executable, "-m", "examples.documents"], ["sh", "examples/documents.sh"]):
        done = subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=90, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stdout.count("'status': 'finished'" if "-m" in command else '"status":"finished"') == 3
        if "-m" in command:
            assert done.stdout.endswith("🎉 ALL BACKGROUND INGESTION TESTS PASSED!\n")
