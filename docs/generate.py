"""The parts of the documentation that come from the code.

``python docs/generate.py`` writes them; ``--check`` fails when one of them is stale. Generated parts stand
between two markers, so that people may write around them.
"""

from __future__ import annotations

import json
import re
import sys
from collections import defaultdict
from pathlib import Path

from pharos_contracts.lifecycle import MEANING, SIGNAL_MEANING, mermaid
from pharos_contracts.streams import BusLimits, declare
from pharos_embedder.settings import Settings as EmbedderSettings
from pharos_gateway.rotate_secrets import RotationSettings
from pharos_gateway.settings import Settings as GatewaySettings
from pharos_history.settings import HistorySettings
from pharos_local.settings import LocalSettings
from pharos_scheduler.settings import Settings as SchedulerSettings
from pharos_service.bus_admin import BusSettings
from pharos_service.settings import ServiceSettings, Setting, table
from tests.support.hand_checked import LANGUAGES, Score, checked, files, found

ROOT = Path(__file__).resolve().parent.parent
READERS: dict[str, type[ServiceSettings]] = {
    "gateway": GatewaySettings,
    "scheduler": SchedulerSettings,
    "embedder": EmbedderSettings,
    "history": HistorySettings,
    "bus": BusSettings,
    "secret rotation": RotationSettings,
    "local stack": LocalSettings,
}


def lifecycle() -> str:
    states = "\n".join(f"| `{state}` | {meaning} |" for state, meaning in MEANING.items())
    signals = "\n".join(f"| `{signal}` | {meaning} |" for signal, meaning in SIGNAL_MEANING.items())
    return (
        f"```mermaid\n{mermaid()}\n```\n\n| state | meaning |\n| --- | --- |\n{states}\n\n"
        f"| signal | when |\n| --- | --- |\n{signals}"
    )


def streams() -> str:
    rows = []
    for stream in declare(BusLimits()).streams:
        subjects = ", ".join(f"`{subject}`" for subject in stream.subjects) or "copied from JOBS"
        rows.append(
            f"| **{stream.name}** | {subjects} | {stream.about} | {stream.writers} | {stream.readers} |"
        )
    consumers = "\n".join(
        f"| `{consumer.name}` | {consumer.stream} | {consumer.about} | {consumer.ack_wait_seconds:g} s |"
        for consumer in declare(BusLimits()).consumers
    )
    return (
        "| stream | subjects | what it holds | writers | readers |\n| --- | --- | --- | --- | --- |\n"
        + "\n".join(rows)
        + "\n\n| consumer | of | what it does | acknowledged within |\n| --- | --- | --- | --- |\n"
        + consumers
    )


def settings() -> str:
    rows: dict[str, list[tuple[str, Setting]]] = defaultdict(list)
    for name, kind in READERS.items():
        for setting in table(kind):
            rows[setting.variable].append((name, setting))
    lines = []
    for variable, readers in sorted(rows.items()):
        who = "all" if len(readers) == len(READERS) else ", ".join(name for name, _ in readers)
        first = readers[0][1]
        default = f"`{first.default}`" if first.default else ("secret" if first.secret else "")
        description = " ".join(first.description.split()).replace("|", "\\|")
        lines.append(f"| `{variable}` | {default} | {description} | {who} |")
    return "| variable | default | meaning | read by |\n| --- | --- | --- | --- |\n" + "\n".join(lines)


def hand_checked() -> str:
    rows = []
    for name, title in LANGUAGES.items():
        expected, edges = checked(name).imports, found(name).edges("imports")
        score = Score.of(expected, edges)
        wrong = [f"`{source}` → `{target}`" for source, target in sorted(expected ^ edges)]
        uses, wanted, unwanted = (
            found(name).edges("references"),
            checked(name).references,
            checked(name).not_references,
        )
        rows.append(
            f"| {title} | {files(name)} | {score.expected} | {score.precision:.3f} | {score.recall:.3f} "
            f"| {'; '.join(wrong)} | {len(wanted & uses)} of {len(wanted)} "
            f"| {len(unwanted & uses)} of {len(unwanted)} |"
        )
    return (
        "| language | files | edges | precision | recall | wrong or not found "
        "| references found, of a sample | of those that must not be |\n"
        "| --- | --- | --- | --- | --- | --- | --- | --- |\n" + "\n".join(rows)
    )


def ground_truth() -> str:
    measured = json.loads((ROOT / "bench/results/edges.json").read_text(encoding="utf-8"))
    rows = [
        f"| {one['language']} | {one['project']} {one['version']} | {one['tool']} | {one['files']} | "
        f"{one['expected']} | {one['precision']:.3f} | {one['recall']:.3f} | {one['note']} |"
        for one in measured["projects"]
    ]
    return (
        "| language | project | tool | files | edges by the tool | precision | recall | what differs |\n"
        "| --- | --- | --- | --- | --- | --- | --- | --- |\n" + "\n".join(rows)
    )


PARTS = {
    ("docs/languages.md", "hand-checked"): hand_checked,
    ("docs/languages.md", "ground truth"): ground_truth,
    ("ARCHITECTURE.md", "lifecycle"): lifecycle,
    ("ARCHITECTURE.md", "streams"): streams,
    ("docs/settings.md", "settings"): settings,
}


def put(text: str, name: str, content: str) -> str:
    """*text* with *content* between the markers of *name*."""
    begin, end = f"<!-- generated: {name} -->", f"<!-- end: {name} -->"
    pattern = re.compile(re.escape(begin) + r".*?" + re.escape(end), re.DOTALL)
    if not pattern.search(text):
        raise SystemExit(f"the markers of {name!r} are missing")
    return pattern.sub(lambda _: f"{begin}\n{content}\n{end}", text)


def main() -> None:
    stale = []
    for (file, name), make in PARTS.items():
        path = ROOT / file
        before = path.read_text(encoding="utf-8")
        after = put(before, name, make())
        if after != before:
            stale.append(f"{file}: {name}")
            if "--check" not in sys.argv:
                path.write_text(after, encoding="utf-8")
    if stale and "--check" in sys.argv:
        raise SystemExit(f"stale: {', '.join(stale)}; run `make docs`")
    sys.stdout.write("\n".join(f"written: {part}" for part in stale) or "Everything generated is up to date.")
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
