"""The lifecycle, over every state and every signal."""

from __future__ import annotations

from itertools import product

import pytest

from pharos_contracts.jobs.v1 import EVENT_OF_STATE
from pharos_contracts.lifecycle import (
    MEANING,
    SIGNAL_MEANING,
    TERMINAL,
    TRANSITIONS,
    IllegalTransition,
    JobState,
    Signal,
    advance,
    mermaid,
)

# The same table drawn by hand, as a grid: rows are states, columns signals, "." is refused.
GRID = """
           enqueue start      commit     complete  back_off fail   skip    expire  pause  resume cancel    retry
pending    queued  .          .          .         .        .      .       skipped .      .      cancelled .
queued     .       running    .          .         .        failed .       skipped paused .      cancelled .
running    .       running    committing completed retrying failed skipped .       paused .      cancelled .
paused     .       .          .          .         .        .      .       .       .      queued cancelled .
retrying   .       .          .          .         .        failed .       .       .      .      cancelled queued
committing .       committing .          completed .        failed .       .       .      .      .         .
completed  .       .          .          .         .        .      .       .       .      .      .         retrying
failed     .       .          .          .         .        .      .       .       .      .      .         retrying
cancelled  .       .          .          .         .        .      .       .       .      .      .         retrying
skipped    .       .          .          .         .        .      .       .       .      .      .         .
"""


def _drawn() -> dict[tuple[str, str], str]:
    head, *rows = [line.split() for line in GRID.strip().splitlines()]
    return {
        (row[0], signal): target
        for row in rows
        for signal, target in zip(head, row[1:], strict=True)
        if target != "."
    }


@pytest.mark.parametrize(("state", "signal"), list(product(JobState, Signal)))
def test_a_signal_moves_the_job_or_is_refused(state: JobState, signal: Signal) -> None:
    expected = _drawn().get((state, signal))
    if expected is None:
        with pytest.raises(IllegalTransition, match=f"Cannot {signal} a {state} job"):
            advance(state, signal, batch=True)
    else:
        assert advance(state, signal, batch=True) == expected


@pytest.mark.parametrize(("state", "signal"), list(product(JobState, Signal)))
def test_only_a_batch_is_ever_pending_or_tried_again_when_it_is_done(state: JobState, signal: Signal) -> None:
    is_of_batches = state is JobState.PENDING or (state, signal) == (JobState.COMPLETED, Signal.RETRY)
    expected = None if is_of_batches else _drawn().get((state, signal))
    if expected is None:
        with pytest.raises(IllegalTransition):
            advance(state, signal)
    else:
        assert advance(state, signal) == expected


def test_the_grid_names_every_state_and_signal() -> None:
    head, *rows = [line.split() for line in GRID.strip().splitlines()]
    assert {row[0] for row in rows} == {state.value for state in JobState}
    assert set(head) == {signal.value for signal in Signal}


def test_every_state_and_signal_has_its_sentence() -> None:
    assert set(MEANING) == set(JobState)
    assert set(SIGNAL_MEANING) == set(Signal)
    assert all(sentence.endswith(".") for sentence in MEANING.values())


def test_every_state_can_end() -> None:
    ending = set(TERMINAL)
    for _ in JobState:
        ending |= {state for (state, _), target in TRANSITIONS.items() if target in ending}
    assert ending == set(JobState)


def test_what_ended_goes_on_only_by_a_retry() -> None:
    assert {signal for (state, signal) in TRANSITIONS if state in TERMINAL} == {Signal.RETRY}


def test_publishing_cannot_be_cancelled() -> None:
    with pytest.raises(IllegalTransition):
        advance(JobState.COMMITTING, Signal.CANCEL)


def test_every_state_that_a_job_can_enter_has_its_event() -> None:
    assert set(EVENT_OF_STATE) == set(TRANSITIONS.values()) | {JobState.QUEUED, JobState.PENDING}


def test_the_picture_shows_every_row() -> None:
    picture = mermaid()
    for (state, signal), target in TRANSITIONS.items():
        arrow = next(line for line in picture.splitlines() if f"{state.value} --> {target.value}:" in line)
        assert signal.value in arrow
