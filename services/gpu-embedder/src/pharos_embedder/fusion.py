"""From the hits of several channels to files in one order, each with its reasons.

Every channel ranks the files twice, by their best chunk and by the mean of their best three; all rankings are
joined by Reciprocal Rank Fusion (Cormack, Clarke and Büttcher, SIGIR 2009, k = 60). On 822 real commit
messages this had the best recall of what was tried: 0.890 at 10, against 0.863 for words alone and 0.821 for
meaning alone.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Final, Literal

import msgspec

from pharos_embedder.vectors import DatasetKey, Hit

RRF_K: Final = 60
MEAN_OF: Final = 3

Channel = Literal["dense", "sparse"]
By = Literal["best", "mean"]
FileKey = tuple[DatasetKey, str]


class Reason(msgspec.Struct, frozen=True, kw_only=True):
    """One ranking that put a file forward: its place, from 1, and the score that gave it."""

    channel: Channel
    by: By
    rank: int
    score: float


class FoundChunk(msgspec.Struct, frozen=True, kw_only=True):
    """A chunk of a found file with its score in each channel that found it."""

    hit: Hit
    scores: dict[Channel, float]
    fused: float


class FoundFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file, its chunks from the best on, and why it is where it is.

    `score` is in (0, 1]: 1 for a file that is first in every ranking.
    """

    dataset: DatasetKey
    path: str
    score: float
    chunks: tuple[FoundChunk, ...]
    reasons: tuple[Reason, ...]


def fuse(channels: Mapping[Channel, Sequence[Hit]]) -> list[FoundFile]:
    """The files of the hits, best first; each channel's hits may come in any order.

    The order depends on the scores alone and, where they are equal, on dataset and path.
    """
    reasons: dict[FileKey, list[Reason]] = defaultdict(list)
    for channel in sorted(channels):
        by_file = _scores_by_file(channels[channel])
        best = {file: scores[0] for file, scores in by_file.items()}
        mean = {file: _mean(scores[:MEAN_OF]) for file, scores in by_file.items()}
        rankings: tuple[tuple[By, dict[FileKey, float]], ...] = (("best", best), ("mean", mean))
        for by, scored in rankings:
            for rank, (file, score) in enumerate(_ranked(scored), start=1):
                reasons[file].append(Reason(channel=channel, by=by, rank=rank, score=score))
    chunks = _chunks_by_file(channels)
    most = sum(2 for hits in channels.values() if hits) / (RRF_K + 1)
    totals = {file: sum(1 / (RRF_K + reason.rank) for reason in why) / most for file, why in reasons.items()}
    return [
        FoundFile(
            dataset=file[0], path=file[1], score=score, chunks=chunks[file], reasons=tuple(reasons[file])
        )
        for file, score in _ranked(totals)
    ]


def _ranked(scored: Mapping[FileKey, float]) -> list[tuple[FileKey, float]]:
    return sorted(scored.items(), key=lambda entry: (-entry[1], entry[0]))


def _mean(scores: Sequence[float]) -> float:
    """Over the chunks that were found: a file of one chunk does not lose to a long one for being short."""
    return sum(scores) / len(scores)


def _file(hit: Hit) -> FileKey:
    return hit.payload.dataset, hit.payload.path


def _scores_by_file(hits: Sequence[Hit]) -> dict[FileKey, list[float]]:
    found: dict[FileKey, list[float]] = defaultdict(list)
    for hit in hits:
        found[_file(hit)].append(hit.score)
    return {file: sorted(scores, reverse=True) for file, scores in found.items()}


def _chunks_by_file(channels: Mapping[Channel, Sequence[Hit]]) -> dict[FileKey, tuple[FoundChunk, ...]]:
    """The chunks of each file by RRF over the chunks' own ranks; ties go to the earlier lines."""
    hits: dict[str, Hit] = {}
    scores: dict[str, dict[Channel, float]] = defaultdict(dict)
    fused: dict[str, float] = defaultdict(float)
    for channel in sorted(channels):
        for rank, hit in enumerate(sorted(channels[channel], key=lambda hit: (-hit.score, hit.id)), start=1):
            hits[hit.id] = hit
            scores[hit.id][channel] = hit.score
            fused[hit.id] += 1 / (RRF_K + rank)
    found: dict[FileKey, list[FoundChunk]] = defaultdict(list)
    for name, hit in hits.items():
        found[_file(hit)].append(FoundChunk(hit=hit, scores=scores[name], fused=fused[name]))
    return {
        file: tuple(
            sorted(chunks, key=lambda chunk: (-chunk.fused, chunk.hit.payload.start_line, chunk.hit.id))
        )
        for file, chunks in found.items()
    }
