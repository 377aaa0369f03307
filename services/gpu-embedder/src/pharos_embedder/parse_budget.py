"""How long the files of one tree that are hard to parse may take together. Pure.

Parsing goes by the byte, but there are files that a grammar takes seconds or for ever over. A few of them are
nobody's fault; thousands would hold a worker for days, ten seconds each. So what such files take is added up,
and when it is spent, files like them are split by lines without a try.
"""

from __future__ import annotations

from typing import Final

from pharos_embedder.discovery import SourceFile

HARD_SECONDS: Final = 2.0
"""A file of a megabyte, which is the largest, takes about one."""
_SIZE_SHARE: Final = 4


class ParseBudget:
    """*seconds* of the processor for all files of a tree that take HARD_SECONDS and more."""

    def __init__(self, seconds: float) -> None:
        self._left = seconds
        self._smallest: dict[str, int] = {}

    def took(self, file: SourceFile, seconds: float) -> None:
        """*file* was parsed, or was tried to be, in *seconds*."""
        if seconds >= HARD_SECONDS:
            self._left -= seconds
            self._smallest[file.language] = min(file.size, self._smallest.get(file.language, file.size))

    def refuses(self, file: SourceFile) -> bool:
        """Whether everything is spent and *file* is like one of those: of its language, and at least a
        quarter as large as the smallest of them. So each further one makes the next ones fewer.
        """
        smallest = self._smallest.get(file.language)
        return self._left <= 0 and smallest is not None and file.size * _SIZE_SHARE >= smallest
