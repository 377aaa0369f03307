"""When expressions come round, against a slow oracle that looks at every minute's clock."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import cache
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pharos_scheduler.cron import InvalidCron, next_run, parse

MINUTE = timedelta(minutes=1)
DAYS = 6
# Days that begin a few days before clocks change: by an hour, by two, by half of one, at midnight, never.
CHANGES = [
    ("Europe/Berlin", datetime(2026, 3, 27)),
    ("Europe/Berlin", datetime(2026, 10, 23)),
    ("America/New_York", datetime(2026, 3, 6)),
    ("America/New_York", datetime(2026, 10, 30)),
    ("Africa/Cairo", datetime(2026, 4, 22)),
    ("Africa/Cairo", datetime(2026, 10, 27)),
    ("Antarctica/Troll", datetime(2026, 3, 27)),
    ("Antarctica/Troll", datetime(2026, 10, 23)),
    ("Asia/Kathmandu", datetime(2026, 6, 1)),
    ("UTC", datetime(2026, 6, 1)),
]
HALF_AN_HOUR = [("Australia/Lord_Howe", datetime(2026, 4, 3)), ("Australia/Lord_Howe", datetime(2026, 10, 2))]


@cache
def clock(zone: str, start: datetime) -> list[tuple[datetime, datetime]]:
    """(instant, what clocks in *zone* show then) for every minute of some days."""
    begin = start.replace(tzinfo=UTC)
    instants = [begin + MINUTE * step for step in range(DAYS * 1440)]
    return [(at, at.astimezone(ZoneInfo(zone)).replace(tzinfo=None, fold=0)) for at in instants]


@cache
def first_shown(zone: str, start: datetime) -> dict[datetime, datetime]:
    """Local minute -> when clocks show it first, or have passed it by."""
    found: dict[datetime, datetime] = {}
    expected = clock(zone, start)[0][1]
    for instant, local in clock(zone, start):
        while expected <= local:
            found.setdefault(expected, instant)
            expected += MINUTE
    return found


def listed(values: set[int]) -> str:
    return ",".join(str(value) for value in sorted(values))


minutes = st.sets(st.integers(0, 59), min_size=1, max_size=5)
hours = st.sets(st.integers(0, 23), min_size=1, max_size=23)
weekdays = st.none() | st.sets(st.integers(0, 6), min_size=1, max_size=3)  # 0 is Sunday
offsets = st.integers(0, 3 * 86_400)


def falls_on(local: datetime, weekdays: set[int] | None) -> bool:
    return weekdays is None or local.isoweekday() % 7 in weekdays


@given(st.sampled_from(CHANGES + HALF_AN_HOUR), minutes, hours, weekdays, offsets)
def test_at_given_hours_every_local_time_runs_once(
    change: tuple[str, datetime],
    minutes: set[int],
    hours: set[int],
    weekdays: set[int] | None,
    offset: int,
) -> None:
    zone, start = change
    moment = start.replace(tzinfo=UTC) + timedelta(days=1, seconds=offset)
    expected = min(
        (
            instant
            for local, instant in first_shown(zone, start).items()
            if instant > moment
            and local.minute in minutes
            and local.hour in hours
            and falls_on(local, weekdays)
        ),
        default=None,
    )
    days = "*" if weekdays is None else listed(weekdays)
    found = parse(f"{listed(minutes)} {listed(hours)} * * {days}", zone).after(moment)
    assert found is not None
    assert found == expected or (expected is None and found > clock(zone, start)[-1][0])


@given(st.sampled_from(CHANGES), minutes, weekdays, offsets, st.sampled_from(["*", "0-23", "*/1"]))
def test_an_expression_of_every_hour_runs_whenever_clocks_show_its_minute(
    change: tuple[str, datetime],
    minutes: set[int],
    weekdays: set[int] | None,
    offset: int,
    every_hour: str,
) -> None:
    zone, start = change
    moment = start.replace(tzinfo=UTC) + timedelta(days=1, seconds=offset)
    expected = min(
        (
            instant
            for instant, local in clock(zone, start)
            if instant > moment and local.minute in minutes and falls_on(local, weekdays)
        ),
        default=None,
    )
    days = "*" if weekdays is None else listed(weekdays)
    found = parse(f"{listed(minutes)} {every_hour} * * {days}", zone).after(moment)
    assert found is not None
    assert found == expected or (expected is None and found > clock(zone, start)[-1][0])


def runs(expression: str, zone: str, start: str, number: int) -> list[str]:
    """The next runs behind the local time *start*, as local times with their offsets."""
    moment = datetime.fromisoformat(start).replace(tzinfo=ZoneInfo(zone)).astimezone(UTC)
    cron = parse(expression, zone)
    found = []
    for _ in range(number):
        following = cron.after(moment)
        assert following is not None
        moment = following
        found.append(moment.astimezone(ZoneInfo(zone)).strftime("%m-%dT%H:%M%z"))
    return found


def test_a_time_that_does_not_exist_runs_once_after_the_gap() -> None:
    assert runs("30 2 * * *", "Europe/Berlin", "2026-03-28T12:00", 2) == [
        "03-29T03:00+0200",
        "03-30T02:30+0200",
    ]
    assert runs("*/20 2,3 * * *", "Europe/Berlin", "2026-03-28T12:00", 4) == [
        "03-29T03:00+0200",
        "03-29T03:20+0200",
        "03-29T03:40+0200",
        "03-30T02:00+0200",
    ]


def test_a_time_that_exists_twice_runs_once() -> None:
    assert runs("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00", 2) == [
        "10-25T02:30+0200",
        "10-26T02:30+0100",
    ]
    assert runs("*/30 2 * * *", "Europe/Berlin", "2026-10-24T12:00", 3) == [
        "10-25T02:00+0200",
        "10-25T02:30+0200",
        "10-26T02:00+0100",
    ]


def test_every_quarter_of_an_hour_goes_on_while_an_hour_is_repeated() -> None:
    found = runs("*/15 * * * *", "Europe/Berlin", "2026-10-25T02:30", 4)
    assert found == ["10-25T02:45+0200", "10-25T02:00+0100", "10-25T02:15+0100", "10-25T02:30+0100"]


@pytest.mark.parametrize("every_hour", ["*", "*/1", "0-23"])
def test_what_runs_every_hour_runs_in_the_repeated_hour_too(every_hour: str) -> None:
    found = runs(f"30 {every_hour} * * *", "Europe/Berlin", "2026-10-25T01:00", 4)
    assert found == ["10-25T01:30+0200", "10-25T02:30+0200", "10-25T02:30+0100", "10-25T03:30+0100"]


def test_a_run_planned_within_the_repeated_hour_is_never_in_the_past() -> None:
    second_pass = datetime(2026, 10, 25, 1, 10, tzinfo=UTC)  # 02:10 again
    assert parse("30 2 * * *", "Europe/Berlin").after(second_pass) == datetime(
        2026, 10, 26, 1, 30, tzinfo=UTC
    )


def test_the_29th_of_february_comes_every_four_years() -> None:
    assert parse("0 0 29 2 *", "UTC").after(datetime(2026, 1, 1, tzinfo=UTC)) == datetime(
        2028, 2, 29, tzinfo=UTC
    )


@pytest.mark.parametrize(
    ("expression", "timezone", "sentence"),
    [
        ("0 3 * *", "UTC", "has five fields"),
        ("0 0 3 * * *", "UTC", "has five fields (minute, hour, day of month, month, day of week), and this"),
        ("@daily", "UTC", "and this one has 1"),
        ("", "UTC", "and this one has 0"),
        ("60 3 * * *", "UTC", "'60 3 * * *' is not a cron expression: bad minute"),
        ("0 24 * * *", "UTC", "bad hour"),
        ("0 3 * * monday", "UTC", "bad day-of-week"),
        ("0 0 30 2 *", "UTC", "bad day-of-month"),
        (f"{'9' * 5000} * * * *", "UTC", "at most 256 characters"),
        ("0 3 * * *", "Europe/Atlantis", "'Europe/Atlantis' is not a time zone"),
        ("0 3 * * *", "Europe", "is not a time zone"),
        ("0 3 * * *", "../../etc/passwd", "is not a time zone"),
        ("0 3 * * *", "localtime", "is not a time zone"),
        ("0 3 * * *", "", "is not a time zone"),
    ],
)
def test_what_nothing_can_run_by_is_refused_with_a_sentence(
    expression: str, timezone: str, sentence: str
) -> None:
    with pytest.raises(InvalidCron) as refusal:
        parse(expression, timezone)
    assert sentence in str(refusal.value)


@given(st.text() | st.lists(st.text("0123456789*/,-#LW", max_size=8), min_size=5, max_size=5).map(" ".join))
def test_whatever_is_written_is_understood_or_refused(expression: str) -> None:
    try:
        cron = parse(expression, "UTC")
    except InvalidCron:
        return
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    run = cron.after(moment)
    assert run is None or run > moment


def test_an_expression_that_no_day_meets_has_no_next_run() -> None:
    # The first of a month is never its second Monday.
    assert parse("0 0 */31 * 1#2", "UTC").after(datetime(2026, 1, 1, tzinfo=UTC)) is None


@given(
    st.sampled_from(["* * * * *", "*/7 * * * *", "0 3 * * *", "0 9,17 * * 1-5", "0 0 1 * *"]),
    st.integers(0, 86_400),
    st.integers(0, 2**64 - 1),
    offsets,
)
def test_jitter_makes_a_run_late_but_no_run_overtakes_another(
    expression: str, jitter_seconds: int, share: int, offset: int
) -> None:
    moment = datetime(2026, 3, 27, tzinfo=UTC) + timedelta(seconds=offset)
    cron = parse(expression, "Europe/Berlin")
    for _ in range(3):
        planned = cron.after(moment)
        run = next_run(cron, moment, jitter_seconds=jitter_seconds, share=share)
        assert planned is not None
        assert run is not None
        following = cron.after(planned)
        assert following is not None
        assert planned <= run < following
        assert (run - planned).total_seconds() < max(1, jitter_seconds)
        moment = run


def test_jitter_spreads_runs_over_all_of_it() -> None:
    midnight, cron = datetime(2026, 6, 2, tzinfo=UTC), parse("0 0 * * *", "UTC")
    before = midnight - timedelta(hours=1)
    runs = [
        next_run(cron, before, jitter_seconds=3600, share=share) for share in (0, 2**62, 2**63, 2**64 - 1)
    ]
    assert [(run - midnight).total_seconds() for run in runs if run] == [0, 900, 1800, 3599]
