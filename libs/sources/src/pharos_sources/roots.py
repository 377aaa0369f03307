"""Below which directories of this machine may local directories be? Reads ``PHAROS_LOCAL_ROOTS``. Pure."""

from __future__ import annotations

from pathlib import Path, PurePosixPath


class InvalidRoot(ValueError):
    """A directory cannot be a root; the text is a clause that says why."""


def root_of(text: str) -> Path:
    """The directory *text*. Raises `InvalidRoot`."""
    path = PurePosixPath(text)
    if not path.is_absolute() or ".." in path.parts:
        raise InvalidRoot("it must be an absolute path without '..'")
    if len(path.parts) == 1:
        raise InvalidRoot("it is the whole machine: name the directories below it that are meant")
    return Path(path)


def root_mistakes(text: str) -> list[str]:
    """A sentence for what is wrong with *text* as an entry of ``PHAROS_LOCAL_ROOTS``."""
    try:
        root_of(text)
    except InvalidRoot as error:
        return [f"PHAROS_LOCAL_ROOTS has {text[:80]!r}: {error}."]
    return []
