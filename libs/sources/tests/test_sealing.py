"""Seals: what opens them, and what does not."""

from __future__ import annotations

import pytest

from pharos_sources.sealing import Sealer, Unopenable, keys_in, mistakes_in

OLD, NEW = "o" * 32, "n" * 32
HERE = {"tenant": "acme", "connection_id": "drive"}


def test_a_secret_opens_for_its_own_connection_only() -> None:
    sealer = Sealer((NEW,))
    sealed = sealer.seal(b"secret", **HERE)
    assert "secret" not in sealed
    assert sealer.open(sealed, **HERE) == b"secret"
    assert sealer.seal(b"secret", **HERE) != sealed
    for other in ({**HERE, "tenant": "other"}, {**HERE, "connection_id": "s3"}):
        with pytest.raises(Unopenable):
            sealer.open(sealed, **other)
    with pytest.raises(Unopenable):
        sealer.open(sealed[:-2] + "AA", **HERE)


def test_all_keys_open_the_newest_seals_and_what_it_sealed_stays_as_it_is() -> None:
    sealed = Sealer((OLD,)).seal(b"secret", **HERE)
    both = Sealer((NEW, OLD))
    assert both.open(sealed, **HERE) == b"secret"
    resealed = both.reseal(sealed, **HERE)
    assert resealed != sealed
    assert Sealer((NEW,)).open(resealed, **HERE) == b"secret"
    assert both.reseal(resealed, **HERE) == resealed
    with pytest.raises(Unopenable):
        Sealer((NEW,)).reseal(sealed, **HERE)


def test_several_secret_keys_are_separated_by_commas() -> None:
    assert keys_in(f"{NEW}, {OLD},") == (NEW, OLD)
    assert keys_in("") == ()
    assert mistakes_in(f"{NEW}, {OLD},") == mistakes_in("") == []
    for text in ("short", f"{NEW},short"):
        (mistake,) = mistakes_in(text)
        assert "5 characters" in mistake and "short" not in mistake
