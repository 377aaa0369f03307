"""go.mod and go.work."""

from __future__ import annotations

import re
from typing import Final

import msgspec

from pharos_embedder.manifests.paths import joined

_COMMENT: Final = re.compile(r"//[^\n]*")
_MODULE: Final = re.compile(r'^[ \t]*module[ \t]+"?([^\s"]+)', re.MULTILINE)
_REPLACE: Final = re.compile(
    r'^[ \t]*(?:replace[ \t]+)?"?([^\s"()]+)"?(?:[ \t]+v\S+)?[ \t]+=>[ \t]+"?([^\s"]+)', re.MULTILINE
)
_USED: Final = re.compile(r'^[ \t]*(?:use[ \t]+)?"?(\.[^\s"()]*)"?[ \t]*$', re.MULTILINE)
_REPLACED_MAX: Final = 1_000


class GoModule(msgspec.Struct, frozen=True, kw_only=True):
    """One module: its path, its folder, and the folders that its `replace` lines put in place of others."""

    path: str
    folder: str
    replaced: tuple[tuple[str, str], ...] = ()


class GoWork(msgspec.Struct, frozen=True, kw_only=True):
    """One workspace: the folders of its modules, and what it replaces."""

    folder: str
    used: tuple[str, ...]
    replaced: tuple[tuple[str, str], ...] = ()


def go_module(folder: str, text: str) -> GoModule | None:
    """What the go.mod in *folder* says; None if it names no module."""
    plain = _COMMENT.sub("", text)
    module = _MODULE.search(plain)
    if module is None:
        return None
    return GoModule(path=module[1], folder=folder, replaced=_replaced(folder, plain))


def go_work(folder: str, text: str) -> GoWork:
    """What the go.work in *folder* says."""
    plain = _COMMENT.sub("", text)
    used = [joined(folder, found[1]) for found in _USED.finditer(plain)]
    return GoWork(
        folder=folder,
        used=tuple(one for one in used if one is not None),
        replaced=_replaced(folder, plain),
    )


def _replaced(folder: str, plain: str) -> tuple[tuple[str, str], ...]:
    made = [
        (found[1], target)
        for found in _REPLACE.finditer(plain)
        if found[2].startswith(".") and (target := joined(folder, found[2])) is not None
    ]
    return tuple(made[:_REPLACED_MAX])
