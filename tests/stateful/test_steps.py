"""Histories as they are drawn and printed."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings

from tests.stateful import steps
from tests.stateful.steps import STEPS, History, histories


@settings(max_examples=25, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(history=histories())
def test_a_history_is_printed_as_a_test_can_play_it(history: History) -> None:
    assert eval(history.sentence(), vars(steps)) == history
    assert len(history.steps) == STEPS
