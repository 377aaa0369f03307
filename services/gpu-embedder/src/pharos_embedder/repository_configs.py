"""What all manifests of a repository together say of its modules. Pure."""

from __future__ import annotations

import posixpath
import re
import tomllib
from collections.abc import Mapping
from typing import Any, Final, Self

import msgspec

from pharos_embedder.manifests.ecmascript import (
    NodePackage,
    TsConfig,
    Workspace,
    node_package,
    ts_configs,
    workspace,
)
from pharos_embedder.manifests.paths import joined

_GO_MODULE: Final = re.compile(r'^[ \t]*module[ \t]+"?([^\s"]+)', re.MULTILINE)


class Crate(msgspec.Struct, frozen=True, kw_only=True):
    """One Cargo package: its folder, and the paths that it names for its library and its binaries."""

    folder: str
    name: str
    library: str = "src/lib.rs"
    binaries: tuple[str, ...] = ()


class RepositoryConfigs(msgspec.Struct, frozen=True, kw_only=True):
    """Everything read, keyed for the resolvers. Folders are relative to the root, which is ""."""

    go_modules: tuple[tuple[str, str], ...] = ()
    """(module path, folder), the longest path first."""
    ts_configs: Mapping[str, tuple[TsConfig, ...]] = msgspec.field(default_factory=dict)
    """Folder → what its tsconfig.json says, and those beside it that it refers to; else its jsconfig.json."""
    node_packages: Mapping[str, NodePackage] = msgspec.field(default_factory=dict)
    """Folder → package."""
    workspaces: tuple[Workspace, ...] = ()
    """The workspaces of packages, the innermost first."""
    crates: Mapping[str, Crate] = msgspec.field(default_factory=dict)
    """Folder → crate."""
    python_markers: frozenset[str] = frozenset()
    """The empty `__init__.py` files: no nodes, but their folders are packages."""

    @classmethod
    def read(cls, texts: Mapping[str, str]) -> Self:
        """From path → text of the manifests; other files in *texts* are passed over."""
        go: list[tuple[str, str]] = []
        packages: dict[str, NodePackage] = {}
        workspaces: list[Workspace] = []
        ts_paths: dict[str, str] = {}
        crates: dict[str, Crate] = {}
        markers: set[str] = set()
        for path, text in sorted(texts.items()):
            folder, name = posixpath.split(path)
            if name == "go.mod":
                if (module := _GO_MODULE.search(text)) is not None:
                    go.append((module[1], folder))
            elif name == "tsconfig.json" or (name == "jsconfig.json" and folder not in ts_paths):
                ts_paths[folder] = path
            elif name in {"package.json", "lerna.json", "pnpm-workspace.yaml"}:
                if (found := workspace(path, text)) is not None:
                    workspaces.append(found)
                if name == "package.json" and (package := node_package(folder, text)) is not None:
                    packages[folder] = package
            elif name in {"__init__.py", "__init__.pyi"}:
                markers.add(path)
            elif name == "Cargo.toml" and (crate := _crate(folder, text)) is not None:
                crates[folder] = crate
        by_name = {one.name: one.folder for one in reversed(packages.values()) if one.name}
        workspaces.sort(key=lambda one: -len(one.folder))
        go.sort(key=lambda item: (-len(item[0]), item[1]))
        return cls(
            go_modules=tuple(go),
            ts_configs={folder: ts_configs(path, texts, by_name) for folder, path in ts_paths.items()},
            node_packages=packages,
            workspaces=tuple(workspaces),
            crates=crates,
            python_markers=frozenset(markers),
        )


def _section(table: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = table.get(name)
    return value if isinstance(value, dict) else {}


def _crate(folder: str, text: str) -> Crate | None:
    try:
        content = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError):
        return None
    name = _section(content, "package").get("name")
    if not isinstance(name, str):
        return None
    library = _section(content, "lib")
    path = library.get("path")
    binaries = content.get("bin")
    named = library.get("name")
    return Crate(
        folder=folder,
        name=(named if isinstance(named, str) else name).replace("-", "_"),
        library=joined(folder, path if isinstance(path, str) else "src/lib.rs") or "",
        binaries=tuple(
            joined(folder, one["path"]) or ""
            for one in (binaries if isinstance(binaries, list) else [])
            if isinstance(one, dict) and isinstance(one.get("path"), str)
        ),
    )
