"""Text is read in whatever character set it is, and what is no text is told apart."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pharos_embedder.documents.charset import decode

FRENCH = "Déjà vu : la fête était très réussie, où êtes-vous allés à Noël ? Ça va bien, garçon.\n" * 3
GERMAN = "Größere Übungen für Mädchen und Jungen: die Straße führt über den Fluß.\n"
POLISH = "Zażółć gęślą jaźń. Wszystkie książki są już w bibliotece, proszę się nie spóźnić.\n" * 3
RUSSIAN = "Это простой русский текст, в котором говорится о документах и их кодировках.\n" * 2
JAPANESE = "これは日本語の文書です。文字コードの自動判別を試験しています。カタカナも含みます。\n" * 2
CHINESE = "这是一个中文文件，用来测试字符编码的自动检测功能。我们希望它能够正确识别。\n" * 2
KOREAN = "이것은 한국어 문서입니다. 문자 인코딩 자동 감지를 테스트합니다.\n" * 2


@pytest.mark.parametrize(
    ("text", "charset"),
    [
        (FRENCH, "cp1252"),
        (FRENCH, "iso8859-1"),
        (GERMAN, "cp1252"),
        (POLISH, "cp1250"),
        (RUSSIAN, "cp1251"),
        (RUSSIAN, "koi8_r"),
        (JAPANESE, "cp932"),
        (JAPANESE, "euc_jp"),
        (JAPANESE, "iso2022_jp"),
        (JAPANESE, "utf-16"),
        (JAPANESE, "utf-16-le"),
        (JAPANESE, "utf-16-be"),
        (CHINESE, "gb18030"),
        (CHINESE, "utf-16-le"),
        (KOREAN, "cp949"),
        (GERMAN, "utf-8"),
        (GERMAN, "utf-8-sig"),
        (GERMAN, "utf-16-le"),
        (GERMAN, "utf-16-be"),
        (GERMAN, "utf-32"),
        (GERMAN, "utf-32-be"),
        ("café", "cp1252"),
    ],
)
def test_text_is_read_without_being_told_its_set(text: str, charset: str) -> None:
    decoded = decode(text.encode(charset))
    assert decoded is not None
    assert (decoded.text, decoded.replaced) == (text, 0)


def test_what_was_declared_decides_between_sets_that_both_fit() -> None:
    data = "naïve".encode("cp1252")
    assert decode(data, "iso-8859-1") == ("naïve", "cp1252", 0)
    assert decode(data, "cp437") == (data.decode("cp437"), "cp437", 0)


@pytest.mark.parametrize("declared", ["utf-8", "no-such-set", "hex", "idna", "\0", "utf-16", "x" * 5_000])
def test_a_declaration_that_is_wrong_does_no_harm(declared: str) -> None:
    decoded = decode(FRENCH.encode("cp1252"), declared)
    assert decoded is not None and decoded.text == FRENCH


def test_what_is_valid_utf_8_is_that_whatever_was_declared() -> None:
    assert decode(GERMAN.encode(), "iso-8859-1") == (GERMAN, "utf-8", 0)


def test_utf_8_that_was_cut_in_a_character_is_utf_8_still() -> None:
    decoded = decode((GERMAN * 20).encode()[:-1] + b"\xc3")
    assert decoded is not None
    assert (decoded.charset, decoded.replaced) == ("utf-8", 1)


@pytest.mark.parametrize(
    "data",
    [b"\0\1\2abc", bytes(range(256)) * 20, b"\x7fELF\2\1\1" + b"\0" * 90, b"text\0with\0nulls", b"\0" * 64],
)
def test_what_is_binary_is_no_text(data: bytes) -> None:
    assert decode(data) is None


def test_noise_is_no_text() -> None:
    assert decode(os.urandom(5_000)) is None


@given(
    data=st.binary(max_size=400), declared=st.sampled_from(["", "utf-8", "utf-16", "shift_jis", "latin-1"])
)
def test_no_bytes_bring_it_down(data: bytes, declared: str) -> None:
    decoded = decode(data, declared)
    assert decoded is None or isinstance(decoded.text, str)


@given(text=st.text(alphabet=st.characters(exclude_categories=["Cs", "Cc"])))
def test_utf_8_comes_back_as_it_was(text: str) -> None:
    decoded = decode(text.encode("utf-8"))
    assert decoded is not None and decoded.text == text.removeprefix("\ufeff")
