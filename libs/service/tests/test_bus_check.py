"""How findings are told. Pure; what is read and found is met in tests/integration."""

from __future__ import annotations

import json

from pharos_contracts.lifecycle import JobState
from pharos_contracts.violations import PointsLeft, SecondEnd
from pharos_service.bus_check import Findings, report

FOUND = (
    SecondEnd(job_id="j", sequence=7, was=JobState.FAILED, became=JobState.CANCELLED),
    PointsLeft(tenant="t", project="p", dataset="d", generation=3, points=8),
)


def test_a_report_for_people_says_of_each_violation_what_it_is_and_what_to_do() -> None:
    shown = report(Findings(violations=FOUND, jobs=2, events=9), as_json=False).splitlines()
    assert shown[0] == "Violations: 2. Jobs: 2. Events: 9."
    assert shown[2] == f"second_end: {FOUND[0].sentence()}"
    assert shown[3] == f"  {FOUND[0].remedy}"
    assert shown[5] == f"points_left: {FOUND[1].sentence()}"
    assert report(Findings(violations=(), jobs=2, events=9), as_json=False) == (
        "Everything agrees. Jobs: 2. Events: 9."
    )


def test_a_report_for_programs_has_the_facts_of_each_violation() -> None:
    shown = json.loads(report(Findings(violations=FOUND, jobs=2, events=9), as_json=True))
    assert (shown["jobs"], shown["events"]) == (2, 9)
    second_end, points_left = shown["violations"]
    assert (second_end["violation"], second_end["was"], second_end["became"]) == (
        "second_end",
        "failed",
        "cancelled",
    )
    assert (points_left["dataset"], points_left["sentence"]) == ("d", FOUND[1].sentence())
