"""What is stored of a document, as points. Pure: what was read of it in, points out."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

import msgspec

from pharos_embedder.bm25 import document_terms, document_vector
from pharos_embedder.documents.pool import ReadDocument
from pharos_embedder.documents.splitting import SPLITTER_VERSION, DocumentChunk
from pharos_embedder.points import Origin
from pharos_embedder.vector_cache import vector_key, vector_name
from pharos_embedder.vectors import DocumentFacts, Payload, Point, point_id

CHUNKER: Final = f"document-{SPLITTER_VERSION}"


class Passage(msgspec.Struct, frozen=True, kw_only=True):
    """A chunk of a document, without its vectors. ``path`` is the document's identity."""

    id: str
    chunk: DocumentChunk
    payload: Payload

    @property
    def path(self) -> str:
        return self.payload.path

    @property
    def encoded_text(self) -> str:
        return self.chunk.encoded_text

    @property
    def content_hash(self) -> str:
        return self.chunk.content_hash


def passages(
    read: ReadDocument,
    identity: str,
    origin: Origin,
    *,
    title: str,
    url: str,
    filename: str,
    version: str = "",
    sha256: str = "",
    made_by: str = "",
) -> list[Passage]:
    """The passages of the document *identity*, in order; *title* where it has none of its own.

    The rest as in ``DocumentFacts``.
    """
    summary = read.summary
    found = []
    for chunk in read.chunks:
        facts = DocumentFacts(
            ordinal=chunk.ordinal,
            kind=summary.kind,
            title=summary.title or title,
            headings=chunk.headings,
            page=chunk.page,
            page_end=chunk.page_end,
            natural_language=summary.language,
            date=summary.date,
            url=url,
            filename=filename,
            version=version,
            sha256=sha256,
            made_by=made_by,
        )
        payload = Payload(
            dataset=origin.dataset,
            kind="chunk",
            generation=origin.generation,
            path=identity,
            scope=origin.scope,
            language=chunk.language or summary.kind,
            symbol=chunk.symbol,
            symbol_kind=chunk.kind,
            start_line=chunk.start_line,
            end_line=chunk.end_line,
            text=chunk.text,
            repository=origin.repository,
            content_hash=chunk.content_hash,
            encoder=origin.encoder,
            vector=vector_name(key_of(chunk.content_hash, origin)),
            job=origin.job,
            attempt=origin.attempt,
            document=facts,
        )
        found.append(Passage(id=_id_of(payload, facts, origin), chunk=chunk, payload=payload))
    return found


def key_of(content_hash: str, origin: Origin) -> bytes:
    """The key of the vector of what has that hash, in ``vector_cache``.

    Whatever the options: what is encoded is the content, however it was cut out.
    """
    return vector_key(
        tenant=origin.dataset.tenant, content=content_hash, chunker=CHUNKER, encoder=origin.encoder
    )


def _id_of(payload: Payload, facts: DocumentFacts, origin: Origin) -> str:
    # All that is shown of it is in the hash: a living point is never written over.
    shown = (payload.content_hash, payload.symbol, payload.symbol_kind, payload.language)
    content = hashlib.blake2b("\0".join(shown).encode() + msgspec.json.encode(facts), digest_size=16)
    return point_id(
        origin.dataset,
        kind="chunk",
        path=payload.path,
        start_line=payload.start_line,
        end_line=payload.end_line,
        content_hash=content.hexdigest(),
        chunker_version=origin.chunker,
        encoder_version=origin.encoder,
    )


def terms_of(payload: Payload) -> Counter[int]:
    """The terms of a stored passage, from what is stored of it: so they can be taken away again."""
    facts = payload.document
    about = "" if facts is None else " ".join((facts.title, *facts.headings, facts.filename))
    return document_terms(payload.text, path=about, symbol=payload.symbol)


def points(found: Iterable[Passage], terms: Mapping[str, Mapping[int, int]]) -> Iterator[Point]:
    """A point for each passage, without its dense vector, which follows when it is encoded."""
    for passage in found:
        yield Point(id=passage.id, payload=passage.payload, code_bm25=document_vector(terms[passage.id]))
