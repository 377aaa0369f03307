"""How much of a document could be read, as a number."""

from __future__ import annotations

import random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pharos_embedder.documents.quality import quality
from pharos_embedder.documents.reading import read_document
from pharos_embedder.documents.refusals import DocumentRefused

STORY = "The lighthouse stands on a rock in the sea, and its keeper writes: I saw 3 ships (and a boat). " * 30
JAPANESE = "灯台は海の岩の上に立ち、夜に通る船に光を送る。" * 60


def of(text: str, name: str = "a.txt") -> float:
    return quality(read_document(text.encode(), name))


@pytest.mark.parametrize("text", [STORY, JAPANESE, "Short.", "See https://example.org/" + "a/b" * 40 + STORY])
def test_clean_text_is_good(text: str) -> None:
    assert of(text) > 0.95


def test_code_and_tables_are_not_judged_as_prose() -> None:
    assert of("x=lambda a,b:{a:b for a in(1,2)};" * 80, "a.py") == 1.0
    assert of("1,2,3\n" * 80, "a.csv") == 1.0


def test_a_wrong_character_set_lowers_it() -> None:
    picked = random.Random(1)
    broken = "".join("\ufffd" if picked.random() < 0.4 else character for character in STORY)
    assert of(broken) < 0.7


def test_letters_of_a_font_without_names_lower_it() -> None:
    assert of("\ue001\ue002\ue003 \ue004\ue005 " * 100 + "a few words") < 0.2


def test_text_that_was_torn_into_letters_lowers_it() -> None:
    assert of(" ".join(STORY.replace(" ", ""))) < 0.7


def test_text_that_was_guessed_badly_lowers_it() -> None:
    assert of("1h3 l1gh7h0us3 s|~|and$ 0n&*^% r0ck!!~~ {}[]|| ..;;::a " * 60) < 0.7


def test_pages_without_text_lower_it() -> None:
    document = read_document(STORY.encode(), "a.txt")
    assert quality(msgspec.structs.replace(document, pages=10, pages_pictured=4)) == pytest.approx(0.6)


def test_a_long_document_is_judged_by_samples_of_all_of_it() -> None:
    half_broken = "clean words stand here. " * 50_000 + "\ue001\ue002\ue003\ue004\ue005 " * 200_000
    assert 0.4 < of(half_broken) < 0.6


@given(text=st.text(max_size=500), name=st.sampled_from(["a.txt", "a.md", "a.csv", "a.html"]))
def test_it_is_between_0_and_1(text: str, name: str) -> None:
    try:
        document = read_document(text.encode("utf-8", "replace"), name)
    except DocumentRefused:
        return
    assert 0.0 <= quality(document) <= 1.0
