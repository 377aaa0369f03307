"""The modules of a Rust repository, from the root of each target down, as `mod` declares them."""

from __future__ import annotations

import posixpath
import sys
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, NamedTuple

from pharos_embedder.manifests.cargo import Crate
from pharos_embedder.manifests.paths import above
from pharos_embedder.resolution.tree import Tree, below
from pharos_embedder.syntax import Import, ParsedFile

_MODULES_MAX: Final = 300_000
"""Of all targets, those with a body in place too: about 200 MB. What only more of them would lead to is not
resolved.
"""
_INLINE_MAX: Final = 1_000
_INLINE_DEPTH_MAX: Final = 32
"""Modules with a body in one file, and one within the other; the rest is part of what stands around it."""
_ROOT_NAMES: Final = frozenset({"lib.rs", "main.rs", "mod.rs", "build.rs"})
_TARGET_FOLDERS: Final = ("src/bin", "tests", "examples", "benches")

Inline = tuple[str, ...]
"""The names of the modules with a body that lie around a line, the outermost first."""
Parts = tuple[str, ...]
"""A path, as in `a::b::c`."""


class Module:
    """One module: its file, the folder in which its own modules lie, and what it has and passes on."""

    __slots__ = (
        "_items",
        "absent",
        "by_path",
        "children",
        "crate",
        "file",
        "folder",
        "globs",
        "parent",
        "root",
        "uses",
    )

    def __init__(self, *, file: str, folder: str, crate: Crate | None, parent: Module | None = None) -> None:
        self.file = file
        self.folder = folder
        self.crate = crate
        self.parent = parent
        self.root: Module = self if parent is None else parent.root
        self.children: dict[str, list[Module]] = {}
        self.by_path: dict[tuple[str, str], list[Module]] = {}
        self.absent: set[str] = set()
        self._items: tuple[str, ...] = ()
        self.uses: dict[str, list[Parts]] = {}
        self.globs: list[Parts] = []

    def take_items(self, names: tuple[str, ...]) -> None:
        """What its file defines outside of modules: *names*, ascending."""
        self._items = names

    def has_item(self, name: str) -> bool:
        place = bisect_left(self._items, name)
        return place < len(self._items) and self._items[place] == name

    def declared(self, name: str, path: str) -> list[Module]:
        """The modules of `mod name;`, with `#[path = path]` where that is not empty."""
        return self.by_path.get((name, path), [])


class Bodies:
    """The modules with a body of one file, by their lines."""

    def __init__(self, file: ParsedFile) -> None:
        self.inlines: list[Inline] = []  # an outer one before those in it
        self._starts: list[int] = []  # lines, ascending
        self._ends: list[int] = []
        self._around: list[int] = []  # which one each lies in; -1 for none
        ends: list[int] = []  # bytes
        modules = (one for one in file.definitions if one.kind == "module")
        innermost = -1
        for one in sorted(modules, key=lambda one: one.start_byte):
            while innermost >= 0 and ends[innermost] < one.end_byte:
                innermost = self._around[innermost]
            around = self.inlines[innermost] if innermost >= 0 else ()
            if len(self.inlines) == _INLINE_MAX or len(around) == _INLINE_DEPTH_MAX:
                continue
            self.inlines.append((*around, sys.intern(one.name)))
            self._starts.append(one.start_line)
            self._ends.append(one.end_line)
            self._around.append(innermost)
            ends.append(one.end_byte)
            innermost = len(ends) - 1

    def around(self, line: int) -> Inline:
        """The modules around *line*."""
        place = bisect_right(self._starts, line) - 1
        while place >= 0 and self._ends[place] < line:
            place = self._around[place]
        return self.inlines[place] if place >= 0 else ()


class _File(NamedTuple):
    bodies: Bodies
    declarations: tuple[tuple[Inline, str, str], ...]  # around it, name, #[path]
    uses: tuple[tuple[Inline, str, Parts], ...]  # around it, name or "*", parts
    items: tuple[str, ...]  # ascending: a quarter of a set's memory


class ModuleTree:
    """All modules. A file that no `mod` leads to (one in a macro does not) belongs where its path puts it."""

    def __init__(self, tree: Tree, files: Iterable[ParsedFile], crates: Mapping[str, Crate]) -> None:
        self._tree = tree
        self._files = {file.path: _read(file) for file in files if file.language == "rust"}
        self._by_file: dict[tuple[str, Inline], list[Module]] = {}
        self._by_folder: dict[str, Module] = {}
        self._count = 0
        for crate in crates.values():
            for root in self._roots(crate):
                self._grow(Module(file=root, folder=posixpath.dirname(root), crate=crate))
        loose = [path for path in self._files if (path, ()) not in self._by_file]
        for path in sorted(loose, key=lambda one: (one.count("/"), not one.endswith("/mod.rs"), one)):
            if (path, ()) not in self._by_file:
                self._adopt(path, crates)

    def of(self, path: str, inline: Inline) -> list[Module]:
        """What the modules *inline* of the file *path* are: several where more than one target has the
        file.
        """
        return self._by_file.get((path, inline), [])

    def inline(self, path: str, line: int) -> Inline:
        """The modules with a body around *line* of the file *path*."""
        return self._files[path].bodies.around(line)

    def _roots(self, crate: Crate) -> Iterator[str]:
        found = [
            crate.library,
            below(crate.folder, "src/main.rs"),
            below(crate.folder, "build.rs"),
            *crate.roots,
        ]
        for name in _TARGET_FOLDERS:
            folder = below(crate.folder, name)
            for path in self._tree.by_folder.get(folder, ()):
                if path.endswith(".rs"):
                    found.append(path)
            found.extend(below(inner, "main.rs") for inner in self._tree.inner.get(folder, ()))
        return (path for path in dict.fromkeys(found) if path in self._files)

    def _adopt(self, path: str, crates: Mapping[str, Crate]) -> None:
        folder, name = posixpath.split(path)
        crate = next((crates[one] for one in above(folder) if one in crates), None)
        own = folder if name in _ROOT_NAMES else below(folder, name.removesuffix(".rs"))
        parent = self._by_folder.get(posixpath.dirname(folder) if name == "mod.rs" else folder)
        if parent is None:
            own = own if own in self._tree.folders else folder
            self._grow(Module(file=path, folder=own, crate=crate))
            return
        made = Module(file=path, folder=own, crate=parent.crate, parent=parent)
        parent.children.setdefault(posixpath.basename(own), []).append(made)
        self._grow(made)

    def _grow(self, root: Module) -> None:
        """Everything that is declared in *root* and below."""
        stack = [root]
        seen: set[tuple[str, str]] = set()
        while stack and self._count < _MODULES_MAX:
            module = stack.pop()
            if (module.file, module.folder) in seen or module.file not in self._files:
                continue  # a file that declares itself
            seen.add((module.file, module.folder))
            self._count += 1
            stack.extend(self._filled(module))

    def _filled(self, module: Module) -> Iterator[Module]:
        read = self._files[module.file]
        inside: dict[Inline, Module] = {(): module}
        for inline in read.bodies.inlines:
            around = inside.get(inline[:-1])
            if around is None:
                continue
            folder = below(around.folder, inline[-1])
            if self._count >= _MODULES_MAX:
                break
            self._count += 1
            made = Module(file=module.file, folder=folder, crate=module.crate, parent=around)
            around.children.setdefault(inline[-1], []).append(made)
            inside[inline] = made
        for inline, one in inside.items():
            self._by_file.setdefault((module.file, inline), []).append(one)
            self._by_folder.setdefault(one.folder, one)
        module.take_items(read.items)
        for inline, name, parts in read.uses:
            user = inside.get(inline, module)
            if name == "*":
                user.globs.append(parts)
            else:
                user.uses.setdefault(name, []).append(parts)
        for inline, name, path in read.declarations:
            owner = inside.get(inline, module)
            found = self._declared(owner, name, path, is_inline=owner is not module)
            if found is None:
                owner.absent.add(name)
                continue
            owner.children.setdefault(name, []).append(found)
            owner.by_path.setdefault((name, path), []).append(found)
            yield found

    def _declared(self, owner: Module, name: str, path: str, *, is_inline: bool) -> Module | None:
        if path:  # such a file has its own modules beside it
            base = owner.folder if is_inline else posixpath.dirname(owner.file)
            file = posixpath.normpath(below(base, path))
            folder = posixpath.dirname(file)
        else:
            file = (
                self._tree.first(below(owner.folder, f"{name}.rs"), below(owner.folder, f"{name}/mod.rs"))
                or ""
            )
            folder = below(owner.folder, name)
        if file not in self._files:
            return None
        return Module(file=file, folder=folder, crate=owner.crate, parent=owner)


def _read(file: ParsedFile) -> _File:
    bodies = Bodies(file)
    imports = file.imports
    return _File(
        bodies=bodies,
        declarations=tuple(
            (bodies.around(one.line), sys.intern(one.module), one.alias)
            for one in imports
            if one.kind == "module"
        ),
        uses=tuple(
            (bodies.around(one.line), _bound(one), tuple(map(sys.intern, one.module.split("::"))))
            for one in imports
            if one.kind == "import"
        ),
        items=tuple(
            sorted(
                {
                    sys.intern(one.name)
                    for one in file.definitions
                    if one.kind != "module" and one.symbol == one.name
                }
            )
        ),
    )


def _bound(one: Import) -> str:
    if one.names:
        return "*"
    return sys.intern(one.alias or one.module.rpartition("::")[2])
