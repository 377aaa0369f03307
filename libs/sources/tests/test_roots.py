"""Which directories an operator may admit."""

from __future__ import annotations

from pathlib import Path

import pytest

from pharos_sources.roots import InvalidRoot, root_mistakes, root_of


@pytest.mark.parametrize("text", ["/data", "/data/papers/", "//data"])
def test_a_root_is_an_absolute_path(text: str) -> None:
    assert root_of(text) == Path(text)
    assert root_mistakes(text) == []


@pytest.mark.parametrize("text", ["", "data", "./data", "~/data", "/data/../etc", "/", "//", "/."])
def test_neither_a_relative_path_nor_the_whole_machine_is_a_root(text: str) -> None:
    with pytest.raises(InvalidRoot):
        root_of(text)
    (mistake,) = root_mistakes(text)
    assert mistake.startswith(f"PHAROS_LOCAL_ROOTS has {text!r}: it ")
