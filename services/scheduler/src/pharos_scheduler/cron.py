"""When a cron expression comes round next, in a time zone. Pure.

Expressions are read by cronsim, the way Debian's cron reads them. What a change of the clocks does to them is
decided here. At given hours, each local time of a day runs once: one that the clocks skip runs when they are
past the gap, one that they repeat runs the first time. An expression of every hour follows elapsed time
instead: it runs in a repeated hour again, and there is nothing to make up for in a skipped one.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Final
from zoneinfo import ZoneInfo, available_timezones

import msgspec
from cronsim import CronSim, CronSimError

EXPRESSION_CHARACTERS_MAX: Final = 256
FIELDS: Final = "minute, hour, day of month, month, day of week"

_SOME_TIME: Final = datetime(2026, 1, 1)
_MINUTE: Final = timedelta(minutes=1)


class InvalidCron(ValueError):
    """An expression or a time zone that nothing can run by; its text is a sentence for whoever wrote it."""


class Cron(msgspec.Struct, frozen=True):
    """A cron expression of five fields in a time zone: see ``parse``."""

    expression: str
    zone: ZoneInfo
    every_hour: bool

    def after(self, moment: datetime) -> datetime | None:
        """The first time behind *moment* (aware), in UTC; None where there is none within 50 years."""
        local = moment.astimezone(self.zone)
        runs = self._by_elapsed_time(local) if self.every_hour else self._by_local_time(local)
        return next((run for run in runs if run > moment), None)

    def _by_elapsed_time(self, local: datetime) -> Iterator[datetime]:
        for time in CronSim(self.expression, local):
            yield time.astimezone(UTC)

    def _by_local_time(self, local: datetime) -> Iterator[datetime]:
        # Without a time zone, cronsim knows of no clocks that change.
        for time in CronSim(self.expression, local.replace(tzinfo=None, fold=0)):
            yield _first_instant(time, self.zone)


def parse(expression: str, timezone: str) -> Cron:
    """*expression* in the time zone that IANA calls *timezone*; InvalidCron."""
    if len(expression) > EXPRESSION_CHARACTERS_MAX:
        raise InvalidCron(f"A cron expression has at most {EXPRESSION_CHARACTERS_MAX} characters")
    fields = expression.split()
    if len(fields) != 5:
        raise InvalidCron(f"A cron expression has five fields ({FIELDS}), and this one has {len(fields)}")
    try:
        every_hour = len(CronSim(" ".join(fields), _SOME_TIME).hours) == 24
    except CronSimError as error:
        raise InvalidCron(f"{expression!r} is not a cron expression: {str(error).lower()}") from error
    if timezone not in _timezones():
        raise InvalidCron(f"{timezone[:80]!r} is not a time zone: use a name like 'Europe/Berlin' or 'UTC'")
    if every_hour:
        fields[1] = "*"  # cronsim goes by elapsed time where it sees a star
    return Cron(" ".join(fields), ZoneInfo(timezone), every_hour)


def next_run(cron: Cron, after: datetime, *, jitter_seconds: int, share: int) -> datetime | None:
    """The first run planned behind *after*, late by its part of the jitter; None where none follows.

    ``share`` is that part, of 2**64. The jitter counts for no more than the time until the run behind it, so
    that runs never overtake each other.
    """
    run = cron.after(after)
    if run is None or jitter_seconds == 0:
        return run
    following = cron.after(run)
    span = jitter_seconds
    if following is not None:
        span = min(span, int((following - run).total_seconds()))
    return run + timedelta(seconds=(span * share) >> 64)


@cache
def _timezones() -> frozenset[str]:
    # "localtime" is whatever this machine is set to.
    return frozenset(available_timezones() - {"localtime"})


def _first_instant(time: datetime, zone: ZoneInfo) -> datetime:
    """When clocks in *zone* first show *time* (without a zone), or have passed it by; in UTC."""
    while True:
        instant = time.replace(tzinfo=zone, fold=0).astimezone(UTC)
        if instant.astimezone(zone).replace(tzinfo=None, fold=0) == time:
            return instant
        time += _MINUTE
