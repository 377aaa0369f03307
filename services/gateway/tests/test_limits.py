"""Rates, guesses and disks: pure rules."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pharos_gateway import rates
from pharos_gateway.disk import Disk, DiskNearlyFull, free_bytes
from pharos_gateway.guesses import FAMILIAR_SECONDS, Guesses
from pharos_gateway.rates import Level, Limit

LIMIT = Limit("key", 60, 60.0)


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def test_an_allowance_of_which_nothing_is_known_is_whole_and_comes_back_with_time() -> None:
    granted, left = rates.take(LIMIT, None, owed=0, wanted=50, now=0)
    assert (granted, left) == (50, Level(10, 0))
    assert rates.tokens_at(LIMIT, left, 20) == 30
    assert rates.tokens_at(LIMIT, left, 1_000) == 60
    assert rates.tokens_at(LIMIT, left, -5) == 10  # another gateway's clock is behind
    assert rates.take(LIMIT, left, owed=15, wanted=3, now=0) == (0, Level(-5, 0))


@given(
    st.lists(st.tuples(st.floats(0, 5), st.floats(0, 80), st.floats(0, 5)), max_size=40),
)
def test_no_order_of_acts_gets_more_than_a_burst_and_the_rate(acts: list[tuple[float, float, float]]) -> None:
    level, now, used = None, 0.0, 0.0
    for waited, wanted, owed in acts:
        now += waited
        granted, level = rates.take(LIMIT, level, owed=owed, wanted=wanted, now=now)
        used += granted + owed
        assert granted <= wanted
        # What is owed was used before anybody asked; the rest never exceeds what had flowed in.
        assert used <= LIMIT.tokens + now * LIMIT.per_second + sum(each[2] for each in acts) + 1e-6
        assert level.tokens <= LIMIT.tokens


def test_who_is_refused_is_told_when_to_come_back() -> None:
    spent = rates.spent(LIMIT, -4.5, allowed=False)
    assert (spent.remaining, spent.retry_seconds, spent.whole_seconds) == (0, 6, 65)
    assert dict(rates.headers(spent))[b"ratelimit"] == b'"key";r=0;t=65'
    assert dict(rates.headers(spent))[b"ratelimit-policy"] == b'"key";q=60;w=60'
    assert rates.spent(LIMIT, 59, allowed=True).retry_seconds == 0


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::1", "2001:db8:1:2::/64"),
        ("unknown", "unknown"),
    ],
)
def test_an_address_stands_for_one_host(address: str, name: str) -> None:
    assert rates.neighbourhood(address) == name


def test_an_address_that_guesses_is_slowed_and_no_other_one() -> None:
    clock = Clock()
    guesses = Guesses(3, clock=clock)
    for _ in range(3):
        assert guesses.wait_seconds("a") == 0
        guesses.failed("a")
    assert guesses.wait_seconds("a") == 20
    assert guesses.wait_seconds("b") == 0
    clock.now += 20
    assert guesses.wait_seconds("a") == 0


def test_a_credential_that_worked_from_an_address_goes_on_working_there_for_an_hour() -> None:
    clock = Clock()
    guesses = Guesses(1, clock=clock)
    guesses.succeeded("a", "key:1")
    assert guesses.is_familiar("a", "key:1")
    assert not guesses.is_familiar("a", "key:2")
    assert not guesses.is_familiar("b", "key:1")
    clock.now += FAMILIAR_SECONDS
    assert not guesses.is_familiar("a", "key:1")


def test_the_table_of_guesses_forgets_the_oldest_address_and_stays_small() -> None:
    guesses = Guesses(1, clock=Clock(), addresses_max=3)
    for address in "abcd":
        guesses.failed(address)
    assert [bool(guesses.wait_seconds(address)) for address in "abcd"] == [False, True, True, True]


def test_without_a_limit_nobody_is_slowed() -> None:
    guesses = Guesses(0)
    for _ in range(100):
        guesses.failed("a")
    assert guesses.wait_seconds("a") == 0


def test_the_disk_is_looked_at_once_a_second_and_says_what_is_missing() -> None:
    clock, looks = Clock(), []

    def free(path: Path) -> int:
        looks.append(path)
        return 97 * 1024 * 1024

    disk = Disk(Path("home"), 512, free=free, clock=clock)
    for _ in range(3):
        with pytest.raises(DiskNearlyFull, match="97 MiB are free and 512 must be"):
            disk.check()
    assert len(looks) == 1
    clock.now += 1
    with pytest.raises(DiskNearlyFull):
        disk.check()
    assert len(looks) == 2
    Disk(Path("home"), 97, free=free).check()
    Disk(Path("home"), 0, free=free).check()
    assert len(looks) == 3


def test_a_home_that_does_not_exist_yet_is_on_the_disk_of_what_does(tmp_path: Path) -> None:
    assert free_bytes(tmp_path / "not" / "there") > 0
