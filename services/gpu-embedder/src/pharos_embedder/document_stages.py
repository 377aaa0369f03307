"""A document into its dataset: its old chunks are retired and its new ones added, beside what is live.

A dataset of documents grows by one document at a time, so all that a job reads and writes is of its own
document. In the dataset's lexicon the old words are taken away and the new ones added.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from pharos_embedder.bm25 import LexiconChange
from pharos_embedder.document_points import Passage, points, terms_of
from pharos_embedder.points import Origin
from pharos_embedder.ports import Check
from pharos_embedder.stages import IndexIncomplete, Live
from pharos_embedder.vectors import Payload, VectorStore


class Placed(msgspec.Struct, frozen=True, kw_only=True):
    """What the dataset has in the new generation; ``replaced`` says that the document was there before."""

    chunks: int
    replaced: bool


def place_stage(
    found: Sequence[Passage], identity: str, live: Live, origin: Origin, store: VectorStore, check: Check
) -> Placed:
    """Write everything but the dense vectors of the document *identity*, beside the live generation."""
    store = store.guarded(check)
    store.discard_unpublished(origin.dataset, live.generation)
    before = store.count(origin.dataset, live.generation, "chunk") if live.generation else 0
    alive = (
        store.live_ids(origin.dataset, live.generation, "chunk", path=identity) if live.generation else set()
    )
    wanted = {passage.id: passage for passage in found}
    gone = alive - wanted.keys()
    added = [passage for key, passage in wanted.items() if key not in alive]
    terms = {}
    for passage in added:
        check()
        terms[passage.id] = terms_of(passage.payload)
    change = LexiconChange.of(
        added=terms.values(),
        removed=[terms_of(payload) for payload in store.payloads(origin.dataset, sorted(gone))],
    )
    store.upsert(points(added, terms))
    # Before anything is retired: who retired it is told by the lexicon, where there is no other new point.
    store.change_lexicon(
        origin.dataset,
        origin.generation,
        change,
        on=live.generation,
        job=origin.job,
        attempt=origin.attempt,
    )
    store.retire(origin.dataset, gone, origin.generation)
    store.flush()
    return Placed(chunks=before - len(gone) + len(added), replaced=bool(alive))


def payloads_of_document(identity: str, live: Live, origin: Origin, store: VectorStore) -> list[Payload]:
    """The chunks of the document *identity* that readers see."""
    if not live.generation:
        return []
    ids = store.live_ids(origin.dataset, live.generation, "chunk", path=identity)
    return store.payloads(origin.dataset, sorted(ids))


def seal_document(
    found: Sequence[Passage], identity: str, placed: Placed, origin: Origin, store: VectorStore, check: Check
) -> None:
    """Make what was stored survive a power loss, and look whether it is whole. Raises IndexIncomplete."""
    store = store.guarded(check)
    store.flush()
    whole = {passage.id for passage in found}
    if (
        store.live_ids(origin.dataset, origin.generation, "chunk", path=identity) != whole
        or store.count(origin.dataset, origin.generation, "chunk") != placed.chunks
        or store.ids_without_text(origin.dataset, origin.generation) & whole
    ):
        raise IndexIncomplete(origin.dataset.dataset)
