"""Whose a message is that nobody can read."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from pharos_scheduler.dead_letters import unreadable


@pytest.mark.parametrize(
    ("subject", "tenant"),
    [
        ("cmd.ingest.acme.normal.k.j", "acme"),
        ("cmd.document.acme.normal.k.j", "acme"),
        ("cmd.control.acme.pause", "default"),
        ("cmd.ingest", "default"),
        ("", "default"),
    ],
)
def test_the_subject_of_a_submit_says_whose_it_is(subject: str, tenant: str) -> None:
    letter = unreadable("Q", 1, subject, b"?", "not JSON", at=datetime(2024, 1, 20, tzinfo=UTC))
    assert letter.tenant == tenant
