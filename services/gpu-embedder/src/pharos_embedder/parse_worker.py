"""A worker process of the parse pool: reads batches on stdin, parses, writes one answer per file on stdout.

A file that takes too long ends the process (`confined`). When the pool is gone, stdin ends and so does this
process. It imports no torch and opens no socket.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from msgspec.structs import replace

from pharos_embedder.confined import confine, set_timers
from pharos_embedder.frames import LENGTH_BYTES, FrameTooLarge, frame_length
from pharos_embedder.packed_files import PackedFile, pack
from pharos_embedder.parse_protocol import Parsed, Ready, Task, decode_batch, frame
from pharos_embedder.parsing import NotText, parse
from pharos_embedder.reading import read_regular
from pharos_embedder.syntax import ParsedFile, ParseFailure, ParseOptions

Parse = Callable[[str, str, bytes, ParseOptions], ParsedFile]


def serve(
    requests: BinaryIO, answers: BinaryIO, *, timeout_seconds: float, parse_file: Parse = parse
) -> None:
    """Answers batches until *requests* ends."""
    answers.write(frame(Ready()))
    answers.flush()
    while len(head := requests.read(LENGTH_BYTES)) == LENGTH_BYTES:
        batch = decode_batch(requests.read(frame_length(head)))
        for task in batch.tasks:
            set_timers(timeout_seconds)
            answer = _answer(task, Path(batch.root), batch.options, parse_file)
            set_timers(0)  # a full pipe is no fault of the file's
            answers.write(answer)
            answers.flush()


def _answer(task: Task, root: Path, options: ParseOptions, parse_file: Parse) -> bytes:
    began = time.process_time()
    result = _result(task, root, options, parse_file)
    seconds = time.process_time() - began
    parsed = (
        Parsed(index=task.index, seconds=seconds, file=result)
        if isinstance(result, PackedFile)
        else Parsed(index=task.index, seconds=seconds, failure=result)
    )
    try:
        return frame(parsed)
    except FrameTooLarge:
        failure = ParseFailure(path=task.path, reason="What was found in the file is too large to keep.")
        return frame(Parsed(index=task.index, failure=failure))


def _result(task: Task, root: Path, options: ParseOptions, parse_file: Parse) -> PackedFile | ParseFailure:
    source = read_regular(root / task.path, options.file_bytes_max + 1)
    if source is None:
        return ParseFailure(path=task.path, reason="The file cannot be read.")
    if len(source) > options.file_bytes_max:
        return ParseFailure(path=task.path, reason=f"The file is over {options.file_bytes_max} bytes.")
    if task.plain:
        options = replace(options, plain=True)
    try:
        return pack(parse_file(task.path, task.language, source, options))
    except NotText:
        return ParseFailure(path=task.path, reason="The file is not text.")
    except Exception as error:  # whatever a stranger's file brings about, the next file is parsed
        cause = type(error).__name__
        if options.plain:
            return ParseFailure(path=task.path, reason=f"The file could not be split ({cause}).")
    try:
        by_lines = parse_file(task.path, task.language, source, replace(options, plain=True))
        warning = f"Split by lines: the parser failed ({cause})."
        return replace(pack(by_lines), warning=warning, is_settled=False)
    except Exception as error:
        return ParseFailure(path=task.path, reason=f"The file could not be split ({type(error).__name__}).")


def main(arguments: list[str], *, parse_file: Parse = parse) -> None:
    """`parse_worker TIMEOUT_SECONDS MEMORY_BYTES_MAX`: the process that the pool starts."""
    timeout_seconds, memory_bytes_max = float(arguments[0]), int(arguments[1])
    confine(memory_bytes_max)
    try:
        serve(sys.stdin.buffer, sys.stdout.buffer, timeout_seconds=timeout_seconds, parse_file=parse_file)
    except BrokenPipeError:
        sys.stderr.close()  # the pool is gone; there is no one to complain to


if __name__ == "__main__":
    main(sys.argv[1:])
