"""Python: `ast` reads the statements, and the finders of `importlib` say which file a module is."""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Iterator, Sequence
from functools import cache
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path


def edges(root: Path, roots: Sequence[str]) -> Iterator[tuple[str, str]]:
    """The imports of every Python file below *root*, with *roots* as the path; a file below none of them is
    looked at as a script.
    """
    path = [str(root / one) for one in roots]
    for file in sorted(root.rglob("*.py")):
        try:
            tree = ast.parse(file.read_bytes())
        except (SyntaxError, ValueError):
            continue
        yield file.relative_to(root).as_posix(), file.relative_to(root).as_posix()  # it could be read
        package = _package(file, path)
        # A script's own folder is on its path too.
        own = path if (file.parent / "__init__.py").exists() else [*path, str(file.parent)]
        for node in ast.walk(tree):
            for target in _targets(node, package, tuple(own)):
                if Path(target).is_relative_to(root) and Path(target) != file:
                    yield file.relative_to(root).as_posix(), Path(target).relative_to(root).as_posix()


def _package(file: Path, path: Sequence[str]) -> str:
    within = [one for one in path if file.is_relative_to(one)]
    parts = file.parent.relative_to(max(within, key=len)).parts if within else ()
    return ".".join(parts)


def _targets(node: ast.AST, package: str, path: tuple[str, ...]) -> Iterator[str]:
    if isinstance(node, ast.Import):
        for alias in node.names:
            if (spec := _spec(alias.name, path)) is not None and spec.origin:
                yield spec.origin
    elif isinstance(node, ast.ImportFrom):
        name = node.module or ""
        if node.level:
            try:
                name = importlib.util.resolve_name("." * node.level + name, package)
            except ImportError:
                return
        spec = _spec(name, path)
        if spec is None:
            return
        for alias in node.names:
            inner = None
            if spec.submodule_search_locations is not None and alias.name not in _bound(spec.origin, name):
                inner = _spec(f"{name}.{alias.name}", path)
            found = inner.origin if inner is not None and inner.origin else spec.origin
            if found:
                yield found


@cache
def _spec(name: str, path: tuple[str, ...]) -> ModuleSpec | None:
    """The spec of the module *name*, found as `import` does but without running anything."""
    parts = name.split(".")
    where: Sequence[str] | None = path
    spec = None
    for count in range(1, len(parts) + 1):
        if where is None:
            return None
        spec = PathFinder.find_spec(parts[count - 1], list(where))  # dotted, it would ask sys.modules
        if spec is None:
            return None
        where = None if spec.submodule_search_locations is None else list(spec.submodule_search_locations)
    return spec


@cache
def _bound(origin: str | None, package: str) -> frozenset[str]:
    """The names that the top level of a package binds to something else than its module of that name."""
    if origin is None:
        return frozenset()
    names: set[str] = set()
    stack: list[ast.AST] = [ast.parse(Path(origin).read_bytes())]
    while stack:
        node = stack.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
            continue
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.ImportFrom):
            of_itself = not node.module if node.level == 1 else node.module == package
            names.update(() if of_itself else (alias.asname or alias.name for alias in node.names))
        stack.extend(ast.iter_child_nodes(node))
    return frozenset(names)
