"""A connection is kept in two parts, and only its own tenant, id and key put them together again."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from pharos_sources.connections import (
    Installation,
    InvalidConnection,
    config_of,
    parse_connection,
    secrets_of,
)
from pharos_sources.keeping import Kept, NothingToSealWith, keep, kept_connection
from pharos_sources.sealing import Sealer, Unopenable

INSTALLATION = Installation(roots=(Path("/data"),))
SEALER = Sealer(("k" * 32,))
HERE = {"tenant": "acme", "connection_id": "s3_1"}
S3 = {"bucket": "papers", "access_key_id": "AKIA1", "secret_access_key": "canary"}


def kept(source_type: str, fields: dict[str, object]) -> Kept:
    return keep(parse_connection(source_type, fields, installation=INSTALLATION), SEALER, **HERE)


def test_what_is_kept_shows_no_secret_and_names_those_that_are_set() -> None:
    found = kept("s3", S3)
    assert found.secrets == ("secret_access_key",)
    assert b"canary" not in msgspec.json.encode(found)
    again = kept_connection("s3", found.config, found.sealed, SEALER, **HERE, installation=INSTALLATION)
    assert config_of(again) == found.config
    assert secrets_of(again) == {"secret_access_key": "canary"}


def test_several_secrets_of_one_field_are_kept() -> None:
    urls = ["https://example.com/a?token=canary", "https://example.com/b"]
    found = kept("http", {"urls": urls})
    assert found.config == {}
    again = kept_connection("http", found.config, found.sealed, SEALER, **HERE, installation=INSTALLATION)
    assert secrets_of(again) == {"urls": urls}


def test_what_hides_nothing_needs_no_key() -> None:
    directory = parse_connection("local_directory", {"path": "/data/a"}, installation=INSTALLATION)
    found = keep(directory, None, **HERE)
    assert (found.sealed, found.secrets) == (None, ())
    again = kept_connection("local_directory", found.config, None, None, **HERE, installation=INSTALLATION)
    assert again == directory


def test_without_the_key_nothing_is_kept_and_nothing_is_opened() -> None:
    with pytest.raises(NothingToSealWith):
        keep(parse_connection("s3", S3, installation=INSTALLATION), None, **HERE)
    found = kept("s3", S3)
    other = [
        (None, HERE),
        (Sealer(("x" * 32,)), HERE),
        (SEALER, {**HERE, "tenant": "other"}),
        (SEALER, {**HERE, "connection_id": "s3_2"}),
    ]
    for sealer, where in other:
        with pytest.raises(Unopenable):
            kept_connection("s3", found.config, found.sealed, sealer, **where, installation=INSTALLATION)


def test_what_the_operator_no_longer_admits_is_refused_when_it_is_used() -> None:
    found = kept("local_directory", {"path": "/data/a"})
    with pytest.raises(InvalidConnection, match="path"):
        kept_connection("local_directory", found.config, None, SEALER, **HERE, installation=Installation())


def test_more_than_an_entry_holds_is_refused() -> None:
    urls = [f"https://example.com/{number}?{'x' * 1_500}" for number in range(80)]
    with pytest.raises(InvalidConnection, match="urls: together they are too long"):
        kept("http", {"urls": urls})
