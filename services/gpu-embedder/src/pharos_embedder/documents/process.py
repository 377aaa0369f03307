"""A process of the document pool: reads tasks on stdin, answers each with chunks and a summary on stdout.

A document that takes too long ends the process (`confined`). When the pool is gone, stdin ends and so
does this process.
"""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import BinaryIO, Final

from pharos_embedder.confined import confine, set_timers
from pharos_embedder.documents.blocks import Document
from pharos_embedder.documents.limits import DocumentLimits
from pharos_embedder.documents.protocol import (
    CHUNKS_A_FRAME,
    Answer,
    Chunks,
    Ready,
    Refused,
    Summary,
    Task,
    decode_task,
    frame,
)
from pharos_embedder.documents.quality import quality
from pharos_embedder.documents.reading import read_document
from pharos_embedder.documents.refusals import DocumentRefused
from pharos_embedder.documents.splitting import flat, split_document
from pharos_embedder.frames import LENGTH_BYTES, frame_length

_FILE_BYTES_MAX: Final = 256 * 1024 * 1024
"""Of a file that it writes: py3langid unpacks its model through one, and nothing is to fill the disk."""

Read = Callable[[bytes | Path, str, str, DocumentLimits, bool], Document]


def serve(requests: BinaryIO, answers: BinaryIO, *, read: Read = read_document) -> None:
    """Answers tasks until *requests* ends."""
    answers.write(frame(Ready()))
    answers.flush()
    while len(head := requests.read(LENGTH_BYTES)) == LENGTH_BYTES:
        task = decode_task(requests.read(frame_length(head)))
        set_timers(task.timeout_seconds)
        result = list(_answers(task, read))
        set_timers(0)  # a full pipe is no fault of the document's
        for answer in result:
            answers.write(frame(answer))
        answers.flush()


def _answers(task: Task, read: Read) -> Iterator[Answer]:
    try:
        source = task.content or Path(task.path)
        document = read(source, task.name, task.declared_type, task.limits, task.math)
        cut = document if task.structure else flat(document)
        chunks = split_document(cut, task.chunk_size, task.overlap)
        summary = Summary(
            name=document.name,
            kind=document.kind,
            size=document.size,
            content_hash=document.content_hash,
            characters=len(document.text),
            chunks=len(chunks),
            quality=quality(document),
            title=document.title,
            language=document.language,
            date=document.date,
            charset=document.charset,
            pages=document.pages,
            pages_pictured=document.pages_pictured,
            warnings=document.warnings,
        )
    except DocumentRefused as refused:
        yield Refused(code=refused.code, sentence=refused.sentence)
        return
    except MemoryError:
        sentence = "The document is too large to be read: it takes more memory than one may."
        yield Refused(code="document_too_large", sentence=sentence)
        return
    except Exception as error:  # whatever a stranger's document brings about, the next one is read
        sentence = f"The document could not be cut into chunks ({type(error).__name__})."
        yield Refused(code="document_damaged", sentence=sentence)
        return
    rest = iter(chunks)
    while batch := tuple(islice(rest, CHUNKS_A_FRAME)):
        yield Chunks(chunks=batch)
    yield summary


def main(arguments: list[str], *, read: Read = read_document) -> None:
    """`process MEMORY_BYTES_MAX`: what the pool starts."""
    confine(int(arguments[0]))
    resource.setrlimit(resource.RLIMIT_FSIZE, (_FILE_BYTES_MAX, _FILE_BYTES_MAX))
    try:
        serve(sys.stdin.buffer, sys.stdout.buffer, read=read)
    except BrokenPipeError:
        sys.stderr.close()  # the pool is gone; there is no one to complain to


if __name__ == "__main__":
    main(sys.argv[1:])
