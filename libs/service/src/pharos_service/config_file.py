"""The YAML file that ``PHAROS_CONFIG`` names: settings by their names, and the sections of older files.

The sections are those of configurations that were written for batches; what they say is told to the settings
of today. Every service reads the same file, each what is its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import yaml

BYTES_MAX: Final = 1024 * 1024
TOKENS_PER_CHUNK: Final = 256  # the most that the packaged encoder reads of one

Meaning = Callable[[Any], dict[str, Any]]


class InvalidConfigFile(Exception):
    """One sentence that says what is wrong with it."""


def _named(setting: str) -> Meaning:
    return lambda value: {setting: value}


def _no_model(value: Any) -> dict[str, Any]:
    if value is not False:
        raise InvalidConfigFile("use_marker_llm can only be false: no language model reads files here")
    return {}


def _batch(value: Any) -> dict[str, Any]:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise InvalidConfigFile("batch_size must be a number of chunks, 1 or more")
    return {"embedding_batch_tokens": str(value * TOKENS_PER_CHUNK)}


def _device(value: Any) -> dict[str, Any]:
    if not isinstance(value, bool):
        raise InvalidConfigFile("use_gpu must be true or false")
    return {"device": "auto" if value else "cpu"}


SECTIONS: Final[Mapping[str, Mapping[str, Meaning]]] = {
    "processing": {
        "use_marker_llm": _no_model,
        "chunk_size": _named("chunk_size"),
        "chunk_overlap": _named("chunk_overlap"),
        "max_file_size_mb": _named("max_file_size_mb"),
    },
    "embeddings": {
        "openai_model": _named("openai_model"),
        "batch_size": _batch,
        "use_gpu": _device,
    },
}


def read(path: str) -> dict[str, Any]:
    """The settings in the file at *path*, by their names without ``PHAROS_``. InvalidConfigFile."""
    try:
        text = Path(path).read_text(encoding="utf-8")
        if len(text) > BYTES_MAX:
            raise ValueError("it is larger than 1 MiB")
        content = yaml.safe_load(text) or {}
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise InvalidConfigFile(f"cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise InvalidConfigFile("is not a mapping of settings")
    found: dict[str, Any] = {}
    for key, value in content.items():
        name = str(key).lower().removeprefix("pharos_")
        told = _section(name, value) if name in SECTIONS else {name: value}
        for setting in told.keys() & found.keys():
            raise InvalidConfigFile(f"says twice what {setting} is")
        found |= told
    return found


def _section(name: str, value: Any) -> dict[str, Any]:
    known = SECTIONS[name]
    if not isinstance(value, dict):
        raise InvalidConfigFile(f"has a section {name} that is not a mapping")
    found: dict[str, Any] = {}
    for key, each in value.items():
        if key not in known:
            raise InvalidConfigFile(
                f"has {str(key)[:40]!r} in its section {name}, which has only {', '.join(known)}"
            )
        try:
            found |= known[key](each)
        except InvalidConfigFile as error:
            raise InvalidConfigFile(f"has a mistake in its section {name}: {error}") from error
    return found
