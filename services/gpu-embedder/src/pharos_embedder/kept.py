"""What a machine keeps between jobs, each within a limit of its own, and how it forgets what was deleted.

Nothing here is the only copy of anything: what is gone is fetched, parsed or encoded again.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import msgspec

from pharos_embedder import document_points
from pharos_embedder.bounded_cache import owner_of
from pharos_embedder.chunking import CHUNKER_VERSION
from pharos_embedder.parse_cache import ParseCache
from pharos_embedder.path_vectors import path_key
from pharos_embedder.trained_graphs import key_of_graph
from pharos_embedder.vector_cache import VectorCache, vector_key
from pharos_embedder.vectors import DatasetKey, Forget, Payload
from pharos_sources.kept_checkouts import KeptCheckouts


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """What was encoded, what was parsed, and the repositories that were fetched last."""

    vectors: VectorCache
    parsed: ParseCache
    checkouts: KeptCheckouts

    def forget_points(self, encoder: str, points: Sequence[Payload]) -> None:
        """Remove what *points* were made of. *encoder* is that of chunks which do not say it."""
        forget_chunks(self.vectors, encoder, [each for each in points if each.kind == "chunk"])
        forget_files(self.parsed, [each for each in points if each.kind == "file"])
        for tenant, repository in {(each.dataset.tenant, each.repository) for each in points}:
            self.checkouts.forget(tenant, repository)

    def forget_dataset(self, dataset: DatasetKey) -> None:
        """Remove what was made for earlier commits of *dataset*, and its graph."""
        owner = owner_of(dataset.tenant, dataset.project, dataset.dataset)
        for cache in (self.vectors, self.parsed):
            cache.forget_owner(owner)
        self.parsed.remove([key_of_graph(dataset)])


def forgetting(kept: Kept | None, encoder: str) -> Forget:
    """What hears of points before they go, so that this machine forgets them, if it keeps anything at all."""
    return (lambda points: None) if kept is None else partial(kept.forget_points, encoder)


def forget_chunks(cache: VectorCache, encoder: str, chunks: Sequence[Payload]) -> None:
    """Remove their vectors and those of their paths from the cache of this machine.

    Others of the tenant are encoded again. *encoder* is that of chunks which do not say it.
    """
    contents = [
        vector_key(
            tenant=chunk.dataset.tenant,
            content=chunk.content_hash,
            chunker=CHUNKER_VERSION if chunk.document is None else document_points.CHUNKER,
            encoder=chunk.encoder or encoder,
        )
        for chunk in chunks
    ]
    paths = {
        path_key(chunk.path, tenant=chunk.dataset.tenant, encoder=chunk.encoder or encoder)
        for chunk in chunks
        if chunk.document is None
    }
    cache.remove(contents + sorted(paths))


def forget_files(cache: ParseCache, files: Sequence[Payload]) -> None:
    """Remove what they were parsed to from this machine. Others of the tenant parse them again."""
    cache.remove(
        [
            cache.key_of(
                tenant=file.dataset.tenant,
                path=file.path,
                language=file.language,
                content_hash=file.content_hash,
            )
            for file in files
        ]
    )
