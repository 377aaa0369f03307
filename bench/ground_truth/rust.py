"""Rust: what rustc makes of each path, read from the tree (HIR) that it prints while cargo checks a project.

Run as cargo's RUSTC_WRAPPER it checks a crate and then appends what its tree says to the file FACTS: lines
``module, its key, its file`` and ``path, file, key of the last module on it``. `edges` joins them over the
crates. rustc sees what is built here: no other systems, no features that are off.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

FACTS = "PHAROS_RUST_FACTS"
_OWNER = re.compile(r"DefId\(\d+:\d+ ~ (.+?)\) => ")
_KEY = re.compile(r"DefId\(\d+:\d+ ~ (.+)\),?$")
_SPAN = re.compile(r"(?:inner_)?span: (.+?):\d+:\d+: ")


def facts(tree: Iterable[str]) -> Iterator[tuple[str, str, str]]:
    """What the lines of one crate's tree say; files as rustc names them."""
    owner = declared = ""  # declared: the file of a module whose `mod` is still to come
    module_depth = -1
    stack: list[_Path] = []  # those that stand open
    ended: _Path | None = None
    for raw in tree:
        text = raw.strip()
        depth = len(raw) - len(raw.lstrip(" "))
        if ended is not None:
            # The `{…}` of a use is a stem: its names follow, each with its whole path.
            if ended.file and ended.module and text != "ListStem,":
                yield "path", ended.file, ended.module
            ended = None
        if depth == 0 and (found := _OWNER.match(text)):
            owner, declared = found[1], ""
        elif text.startswith("inner_span: ") and (found := _SPAN.match(text)):
            yield "module", owner, found[1]
            declared, module_depth = found[1], depth
        elif declared and depth < module_depth and text.startswith("span: "):
            if (found := _SPAN.match(text)) and found[1] != declared:
                yield "path", found[1], owner
            declared = ""
        elif text.endswith("Path {"):
            stack.append(_Path(depth))
        elif stack and depth == stack[-1].depth and text.startswith("}"):
            ended = stack.pop()
        elif stack:
            stack[-1].take(depth - stack[-1].depth, text)


class _Path:
    """A path of the tree: the file where it is written, and the last module on it."""

    def __init__(self, depth: int) -> None:
        self.depth = depth
        self.file = ""
        self.module = ""
        self._namespace = ""
        self._is_module = False
        self._is_whole = False  # a use says of the whole path what it means

    def take(self, depth: int, text: str) -> None:
        """One line, *depth* deeper than the path."""
        if depth == 4 and text.startswith("span: ") and (found := _SPAN.match(text)):
            self.file = found[1]
        elif depth == 8 and text.endswith("PathSegment {"):
            self._namespace = "segment"
        elif depth == 8:
            self._namespace = text.partition(":")[0]
        elif depth == 12:
            self._is_module = False
        elif depth == 16 and text == "Mod,":
            self._is_module = self._namespace in {"segment", "type_ns"}
        elif depth == 16 and self._is_module and (found := _KEY.match(text)):
            self._is_module = False
            if not self._is_whole:
                self.module = found[1]
            self._is_whole = self._is_whole or self._namespace == "type_ns"


def edges(root: Path, told: Iterable[str]) -> Iterator[tuple[str, str]]:
    """The pairs of files below *root* that facts tell of, and each file that was read with itself."""
    files: dict[str, str] = {}
    paths: list[tuple[str, str]] = []
    for line in told:
        kind, one, other = line.rstrip("\n").split("\t")
        if kind == "module":
            files[one] = other
        else:
            paths.append((one, other))
    inner = {
        name: Path(name).relative_to(root).as_posix()
        for name in {*files.values(), *(one for one, _ in paths)}
        if Path(name).is_relative_to(root)
    }
    yield from ((one, one) for one in inner.values())
    for source, key in paths:
        target = files.get(key, "")
        if source in inner and target in inner:
            yield inner[source], inner[target]


def main() -> int:
    command = sys.argv[1:]
    done = subprocess.run(command, check=False)
    if done.returncode or "--crate-name" not in command or "-" in command:
        return done.returncode
    tree = subprocess.Popen(
        [*command, "-Z", "unpretty=hir-tree"],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        env=os.environ | {"RUSTC_BOOTSTRAP": "1"},
    )  # fmt: skip
    assert tree.stdout is not None
    told = sorted(set(facts(tree.stdout)))
    whole = (
        (kind, os.path.realpath(one), key) if kind == "path" else (kind, one, os.path.realpath(key))
        for kind, one, key in told
    )
    with Path(os.environ[FACTS]).open("a", encoding="utf-8") as into:
        into.write("".join("\t".join(one) + "\n" for one in whole))
    return tree.wait()


if __name__ == "__main__":
    sys.exit(main())
