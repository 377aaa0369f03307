"""Decompression in small pieces, and when it is refused: pure."""

from __future__ import annotations

import gzip

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pharos_sources.decoding import PIECE_BYTES, Gunzip, Undecodable, is_gzip

# The time is left out of it: the names of tests are made of it, and every process has to find the same.
HELLO = gzip.compress(b"hello", mtime=0)


def undone(data: bytes, *, at_a_time: int, ratio_max: int = 200) -> list[bytes]:
    gunzip = Gunzip(ratio_max=ratio_max)
    pieces = [
        piece
        for start in range(0, len(data), at_a_time)
        for piece in gunzip.feed(data[start : start + at_a_time])
    ]
    gunzip.finish()
    return pieces


@given(bodies=st.lists(st.binary(max_size=2_000), min_size=1, max_size=4), at_a_time=st.integers(1, 500))
def test_what_was_compressed_comes_back_however_it_arrives(bodies: list[bytes], at_a_time: int) -> None:
    data = b"".join(gzip.compress(body) for body in bodies)
    assert b"".join(undone(data, at_a_time=at_a_time)) == b"".join(bodies)


@pytest.mark.parametrize("size", [PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 10 * PIECE_BYTES])
def test_pieces_are_small_and_none_is_lost_at_their_edges(size: int) -> None:
    pieces = undone(gzip.compress(bytes(size)), at_a_time=1_000_000)
    assert sum(map(len, pieces)) == size
    assert max(map(len, pieces)) <= PIECE_BYTES


def test_a_little_may_be_as_dense_as_it_likes_and_more_may_not() -> None:
    assert len(b"".join(undone(gzip.compress(bytes(1024 * 1024)), at_a_time=100))) == 1024 * 1024
    with pytest.raises(Undecodable, match="grows more than 200-fold"):
        undone(gzip.compress(bytes(1024 * 1024 + 1)), at_a_time=100)
    assert undone(gzip.compress(bytes(2_000_000)), at_a_time=100, ratio_max=2_000)


def test_a_bomb_is_noticed_while_it_goes_off() -> None:
    came_out = 0
    gunzip = Gunzip(ratio_max=200)
    with pytest.raises(Undecodable):
        for piece in gunzip.feed(gzip.compress(bytes(100_000_000))[:2_000]):
            came_out += len(piece)
    assert came_out <= 1024 * 1024


@pytest.mark.parametrize(
    ("data", "reason", "transient"),
    [
        (b"<html>", "its compression is broken", False),
        (HELLO + b"\0" * 8, "its compression is broken", False),
        (HELLO[:-8] + bytes(8), "its compression is broken", False),
        (gzip.compress(b"", mtime=0) * 1_001, "its compression is broken", False),
        (HELLO[:-1], "its compression ends too early", True),
        (HELLO[:5], "its compression ends too early", True),
        (HELLO + HELLO[:5], "its compression ends too early", True),
    ],
)
def test_what_is_no_whole_gzip_is_refused(data: bytes, reason: str, transient: bool) -> None:
    with pytest.raises(Undecodable) as refusal:
        undone(data, at_a_time=7)
    assert (refusal.value.reason, refusal.value.transient) == (reason, transient)


def test_no_bytes_at_all_are_an_empty_body() -> None:
    assert undone(b"", at_a_time=1) == []


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("", False),
        ("identity", False),
        ("gzip", True),
        ("GZip ", True),
        ("x-gzip", True),
        ("identity, gzip", True),
    ],
)
def test_only_gzip_once_is_undone(header: str, expected: bool) -> None:
    assert is_gzip(header) is expected


@pytest.mark.parametrize(
    "header", ["br", "zstd", "deflate", "compress", "gzip, gzip", "gzip,br", "gzip;q=1", "x"]
)
def test_any_other_encoding_is_refused(header: str) -> None:
    with pytest.raises(Undecodable):
        is_gzip(header)
