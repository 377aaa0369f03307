from __future__ import annotations

from pathlib import Path

import pytest

from pharos_history.settings import HistorySettings, parse_database_url
from pharos_service.settings import InvalidSettings, Secret, load, table


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("", "sqlite:////home/x/history.sqlite3"),
        ("sqlite:////data/h.db", "sqlite:////data/h.db"),
        ("postgresql://ann:p%40ss@db/h", "postgresql+psycopg://ann:***@db/h"),
        ("postgres://ann@db/h?sslmode=require", "postgresql+psycopg://ann@db/h?sslmode=require"),
        ("postgresql+asyncpg://db/h", "postgresql+psycopg://db/h"),
    ],
)
def test_a_database_url_names_the_driver_that_is_used(given: str, shown: str) -> None:
    assert parse_database_url(Secret(given), Path("/home/x")).render_as_string() == shown


@pytest.mark.parametrize(
    "given",
    [
        "nonsense secret",
        "sqlite://",
        "sqlite:///:memory:",
        "mysql://u:secret@h/d",
        "postgresql://u:secret@h:x/d",
    ],
)
def test_a_database_url_that_cannot_work_is_a_sentence_without_its_password(given: str) -> None:
    with pytest.raises(InvalidSettings) as caught:
        load(HistorySettings, {"PHAROS_DATABASE_URL": given})
    [mistake] = caught.value.mistakes
    assert mistake.startswith("PHAROS_DATABASE_URL")
    assert "secret" not in mistake


def test_the_password_is_never_shown() -> None:
    settings = load(HistorySettings, {"PHAROS_DATABASE_URL": "postgresql://u:hunter2@h/d"})
    assert "hunter2" not in repr(settings)
    [row] = [row for row in table(HistorySettings) if row.variable == "PHAROS_DATABASE_URL"]
    assert row.secret


@pytest.mark.parametrize("days", ["0", "-1", "x", "36501"])
def test_a_retention_out_of_range_is_refused(days: str) -> None:
    with pytest.raises(InvalidSettings, match="PHAROS_HISTORY_RETENTION_DAYS"):
        load(HistorySettings, {"PHAROS_HISTORY_RETENTION_DAYS": days})


def test_the_defaults_need_no_server() -> None:
    settings = load(HistorySettings, {})
    assert (settings.history_retention_days, bool(settings.database_url)) == (90, False)
