"""How much of a document could be read."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from itertools import pairwise
from typing import Final

from pharos_embedder.documents.blocks import Document

_SAMPLES: Final = 20
_SAMPLE_CHARACTERS: Final = 5_000
_WORDS_MIN: Final = 20  # fewer say nothing of the rest
_WORD_CHARACTERS_MAX: Final = 30
_CONTINUOUS: Final = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff]"
)
"""Letters of scripts that put no space between words, or few letters into one."""

_ADDRESS: Final = re.compile(r"\w://|www\.|\w@\w|[/\\]\w")
_SINGLE_SHARE_USUAL: Final = 0.3  # of all words have one letter in ordinary text: articles, initials, sums


def quality(document: Document) -> float:
    """The share of *document* that is there as readable text, from 0 to 1: the product of

    - the share of its pages that are not pictures without text (1 where there are no pages),
    - the share of its characters that are characters: not U+FFFD, not a control, not of a private area, not
      unassigned, which is what a wrong character set or a font without a mapping gives,
    - the share of the words of its prose that look like words: letters and digits for at least half, at most
      30 characters, and no more than three in ten of them a single letter, which is what a broken text layer
      gives. Tables, code, addresses, and scripts without spaces are not judged so.

    It says nothing of what the text is worth. Clean text has more than 0.95, a scan that was recognised badly
    0.3 to 0.8. At most 100,000 characters are looked at, in samples from the whole document.
    """
    return _pages(document) * _characters(document) * _words(document)


def _pages(document: Document) -> float:
    return 1.0 - min(1.0, document.pages_pictured / document.pages) if document.pages else 1.0


def _samples(start: int, end: int, characters: int) -> Iterator[tuple[int, int]]:
    """Evenly spread stretches, or all of it."""
    if end - start <= _SAMPLES * characters:
        yield start, end
        return
    step = (end - start - characters) // (_SAMPLES - 1)
    for number in range(_SAMPLES):
        yield start + number * step, start + number * step + characters


def _characters(document: Document) -> float:
    shown = wrong = 0
    for start, end in _samples(0, len(document.text), _SAMPLE_CHARACTERS):
        for character in document.text[start:end]:
            if character.isspace():
                continue
            shown += 1
            wrong += character == "\ufffd" or (
                not character.isprintable() and unicodedata.category(character) != "Cf"
            )
    return 1.0 - wrong / shown if shown else 0.0


def _words(document: Document) -> float:
    words = good = single = 0
    left = _SAMPLES * _SAMPLE_CHARACTERS
    prose = [block for block in document.blocks if block.kind == "prose"]
    step = max(1, sum(block.end - block.start for block in prose) // left)
    for block in prose[::step]:
        text = document.text[block.start : min(block.end, block.start + left)]
        left -= len(text)
        for word in text.split():
            if _CONTINUOUS.search(word) or _ADDRESS.search(word):
                continue
            letters = sum(character.isalnum() for character in word)
            if not letters:
                continue  # a dash, a sign of a list
            words += 1
            single += letters == 1
            good += len(word) <= _WORD_CHARACTERS_MAX and 2 * letters >= len(word) and _one_kind(word)
        if left <= 0:
            break
    if words < _WORDS_MIN:
        return 1.0
    crowded = max(0.0, single / words - _SINGLE_SHARE_USUAL)
    return max(0.0, good / words - crowded)


def _one_kind(word: str) -> bool:
    """Whether letters and digits do not alternate, as they do where a recognition guessed."""
    kinds = [character.isdigit() for character in word if character.isalnum()]
    changes = sum(before != after for before, after in pairwise(kinds))
    return changes <= 3
