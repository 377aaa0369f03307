"""Pieces of a text put together into chunks, by the cheapest partition.

Every chunk costs something, a cut costs more the deeper in the structure it lies, uneven chunks and chunks
that mix a part of one thing with its neighbours cost extra, and two whole things of some size are never
joined. A small cost taken from the text at the cut (content-defined chunking) makes an edit change the chunks
around it and no others, also where nothing is whole.
"""

from __future__ import annotations

import zlib
from bisect import bisect_left
from collections.abc import Sequence
from typing import Final, NamedTuple

DEPTH_MAX: Final = 5

_CHUNK_COST: Final = 1.0
_DEPTH_COST: Final = 0.15
_JITTER_COST: Final = 0.15
_JITTER_CHARS: Final = 80
_UNEVEN_COST: Final = 0.3
_MIXED_COST: Final = 0.6


class Piece(NamedTuple):
    """What is never cut; pieces in a row tile their text."""

    start: int  # character offset
    end: int
    line: int  # 0-based line of its start
    depth: int  # of the cut before it: 0 between top-level things
    whole: bool  # a thing of its own, such as a definition


def partition(text: str, pieces: Sequence[Piece], size_chars: int) -> list[tuple[int, int]]:
    """The cheapest way to put *pieces* into runs of at most *size_chars*: (first, one past the last) of each.

    Where two pieces meet that have a quarter of the size each, and one is whole, there is always a cut, and
    no run before it depends on what comes after the two, nor the other way round. Elsewhere two neighbouring
    runs have more than the size together, since joining them saves at least 1.0 and costs at most 0.75.

    Dynamic programming over the end of the last run; O(n · pieces per run).
    """
    count = len(pieces)
    small = size_chars // 4
    # No more than the smaller of two things that are never joined: what is after them has no say before them.
    window = min(_JITTER_CHARS, small)
    starts = [piece.start for piece in pieces]
    depths = [piece.depth for piece in pieces]
    seams = [0] * count  # of each piece, the last one not after it before which there is always a cut
    costs = [_CHUNK_COST] * count  # of a run that starts with a piece, and later of all runs before it too
    for index in range(1, count):
        start, end, _, depth, whole = pieces[index]
        last_start, last_end, _, _, last_whole = pieces[index - 1]
        never_joined = (whole or last_whole) and end - start >= small and last_end - last_start >= small
        seams[index] = index if never_joined else seams[index - 1]
        jitter = (zlib.crc32(text[start : start + window].encode()) & 0xFF) / 255
        costs[index] = _CHUNK_COST + (_DEPTH_COST * min(depth, DEPTH_MAX) + _JITTER_COST * jitter)
    uneven = _UNEVEN_COST / size_chars**2
    chosen = [0] * (count + 1)
    for last in range(count):  # plain comparisons: this runs some ten times per piece
        end = pieces[last].end
        after_depth = depths[last + 1] if last + 1 < count else 0
        shallowest = DEPTH_MAX + 1
        cheapest, choice = float("inf"), 0
        for first in range(last, max(seams[last], bisect_left(starts, end - size_chars)) - 1, -1):
            depth = depths[first]
            size = end - starts[first]
            cost = costs[first] + uneven * size * size
            if shallowest < depth or shallowest < after_depth:
                cost += _MIXED_COST
            if cost < cheapest:
                cheapest, choice = cost, first
            if depth < shallowest:  # noqa: PLR1730  a call of min costs as much as all the rest
                shallowest = depth
        chosen[last + 1] = choice
        if last + 1 < count:
            costs[last + 1] = cheapest + costs[last + 1]
    groups: list[tuple[int, int]] = []
    after = count
    while after > 0:
        groups.append((chosen[after], after))
        after = chosen[after]
    return groups[::-1]
