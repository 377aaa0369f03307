"""A client of the documents family: a text, a page and a file go in, and each is waited for.

    python -m examples.documents http://127.0.0.1:8000 KEY https://example.com/docs document.pdf

KEY is an admin's: the roles of editor and viewer are asked for with ``x-role``, as the family's clients do.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import httpx

ENDED: Final = frozenset({"finished", "failed"})
WAIT_SECONDS: Final = 120
POLL_SECONDS: Final = 0.5
UNKNOWN: Final = "018d2f5e-3a7b-7c41-9f60-2b1d5c8e4a90"


def main(base: str, key: str, url: str, file: str) -> int:
    """The exit code: 0 where everything went as it should."""
    editor = {"x-api-key": key, "x-role": "editor"}
    viewer = {"x-api-key": key, "x-role": "viewer"}
    with httpx.Client(base_url=base, timeout=60) as http:

        def ingest_text() -> bool:
            body = {"text": "The lighthouse keeper trims the lamp at dusk.", "source": "docs"}
            return _goes_well(http, key, http.post("/knowledge/ingest-text-async", headers=editor, json=body))

        def ingest_url() -> bool:
            body = {"url": url, "source": "web"}
            return _goes_well(http, key, http.post("/knowledge/ingest-url-async", headers=editor, json=body))

        def ingest_file() -> bool:
            with Path(file).open("rb") as content:
                answer = http.post(
                    "/knowledge/ingest-file-async",
                    headers=editor,
                    files={"file": (Path(file).name, content)},
                    data={"source": "uploads"},
                )
            return _goes_well(http, key, answer)

        def job_not_found() -> bool:
            return http.get(f"/ops/jobs/{UNKNOWN}", headers={"x-admin-key": key}).status_code == 404

        def viewer_blocked() -> bool:
            body = {"text": "x", "source": "docs"}
            return http.post("/knowledge/ingest-text-async", headers=viewer, json=body).status_code == 403

        tests: dict[str, Callable[[], bool]] = {
            "Async text ingest": ingest_text,
            "Async URL ingest": ingest_url,
            "Async file ingest": ingest_file,
            "Job not found": job_not_found,
            "Viewer blocked": viewer_blocked,
        }
        passed = 0
        print("🔄 Background Ingestion Tests")
        for name, test in tests.items():
            well = test()
            passed += well
            print("✅ PASS " if well else "❌ FAIL ", name)
    print(f"Score: {passed}/{len(tests)} tests passed")
    if passed == len(tests):
        print("🎉 ALL BACKGROUND INGESTION TESTS PASSED!")
    return 0 if passed == len(tests) else 1


def _goes_well(http: httpx.Client, key: str, answer: httpx.Response) -> bool:
    """Whether the job of *answer* ends with some chunks."""
    queued: dict[str, Any] = answer.json()
    print(queued)
    if answer.status_code != 200 or not (queued["ok"] and queued["queued"]):
        return False
    deadline = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < deadline:
        status = http.get(f"/ops/jobs/{queued['job_id']}", headers={"x-admin-key": key}).json()
        if status["status"] in ENDED:
            print(status)
            return bool(status["status"] == "finished" and status["result"]["ingested_chunks"] > 0)
        time.sleep(POLL_SECONDS)
    return False


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:5]))
