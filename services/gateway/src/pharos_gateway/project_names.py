"""Names of projects: which are good, and the one that is none. Pure."""

from __future__ import annotations

from typing import Final

from pharos_contracts.identity import token

PROJECT_ALL: Final = "all"


class ReservedProject(ValueError):
    """``all`` means every project, and nothing can be put there."""

    def __init__(self) -> None:
        super().__init__(f"{PROJECT_ALL!r} means every project: name the one that this is for")


def named_project(name: str) -> str | None:
    """The project of that name; None for ``all``. InvalidName."""
    return None if name == PROJECT_ALL else token(name)


def one_project(name: str) -> str:
    """The project of that name, which something is put into. InvalidName, ReservedProject."""
    if name == PROJECT_ALL:
        raise ReservedProject
    return token(name)
