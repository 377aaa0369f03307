"""Which language people would say that a text is in, by py3langid (a naive Bayes over byte n-grams)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Final

from pharos_embedder.documents.blocks import Block

if TYPE_CHECKING:
    from py3langid.langid import LanguageIdentifier

_SAMPLE_CHARACTERS: Final = 4_000
_LETTERS_MIN: Final = 25  # fewer say nothing
_PROBABILITY_MIN: Final = 0.9


def language_of_text(text: str, blocks: Sequence[Block]) -> str:
    """The ISO 639-1 code of the language of the prose in *text*; empty where there is too little to tell."""
    taken: list[str] = []
    left = _SAMPLE_CHARACTERS
    for block in blocks:
        if block.kind in ("prose", "heading"):
            taken.append(text[block.start : min(block.end, block.start + left)])
            left -= len(taken[-1])
            if left <= 0:
                break
    sample = " ".join(taken)
    if sum(character.isalpha() for character in sample) < _LETTERS_MIN:
        return ""
    try:
        identifier = _identifier()
    except OSError:  # it is unpacked through a temporary file, and there may be no place for one
        return ""
    code, probability = identifier.classify(sample)
    return str(code) if probability >= _PROBABILITY_MIN else ""


@cache
def _identifier() -> LanguageIdentifier:
    """Loaded once a process, when it is first asked (0.7 s, 100 MB)."""
    from py3langid import langid

    return langid.LanguageIdentifier.from_model_file(langid.MODEL_FILE, norm_probs=True)
