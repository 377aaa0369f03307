"""What a worker reads at its start, and every mistake in it as a sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from pharos_embedder.settings import Settings
from pharos_service.settings import InvalidSettings, load


def test_each_mistake_is_a_sentence_and_shows_no_secret() -> None:
    environ = {
        "PHAROS_CHUNK_OVERLAP": "900",
        "PHAROS_SECRET_KEY": "short-too",
        "PHAROS_LOCAL_ROOTS": "/data, papers, /",
    }
    with pytest.raises(InvalidSettings) as raised:
        load(Settings, environ)
    assert len(raised.value.mistakes) == 4
    assert "short-too" not in str(raised.value)
    for variable in environ:
        assert any(mistake.startswith(variable) for mistake in raised.value.mistakes), variable


def test_roots_and_keys_are_lists() -> None:
    settings = load(
        Settings,
        {"PHAROS_LOCAL_ROOTS": "/data, /mnt/papers", "PHAROS_SECRET_KEY": f"{'n' * 32},{'o' * 32}"},
    )
    assert settings.roots == (Path("/data"), Path("/mnt/papers"))
    assert settings.secret_keys == ("n" * 32, "o" * 32)


@pytest.mark.parametrize("key", ["sk-é", "sk-a\nb", "sk a"])
def test_a_key_that_no_header_can_carry_is_a_mistake_that_does_not_show_it(key: str) -> None:
    with pytest.raises(InvalidSettings) as raised:
        load(Settings, {"OPENAI_API_KEY": key})
    (mistake,) = raised.value.mistakes
    assert mistake.startswith("OPENAI_API_KEY") and key not in mistake
