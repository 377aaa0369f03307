"""What all manifests of a repository together say of its modules. Pure."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from typing import Self

import msgspec

from pharos_embedder.manifests.c import cmake_folders, command_folders
from pharos_embedder.manifests.cargo import CargoManifest, Crate, cargo_manifest, with_shared
from pharos_embedder.manifests.ecmascript import (
    NodePackage,
    TsConfig,
    TsConfigs,
    Workspace,
    node_package,
    workspace,
)
from pharos_embedder.manifests.go import GoModule, GoWork, go_module, go_work
from pharos_embedder.manifests.paths import above
from pharos_embedder.ports import Check, unchecked


class RepositoryConfigs(msgspec.Struct, frozen=True, kw_only=True):
    """Everything read, keyed for the resolvers. Folders are relative to the root, which is ""."""

    go_modules: tuple[GoModule, ...] = ()
    """By folder."""
    go_works: tuple[GoWork, ...] = ()
    ts_configs: Mapping[str, tuple[TsConfig, ...]] = msgspec.field(default_factory=dict)
    """Folder → what its tsconfig.json says, and those beside it that it refers to; else its jsconfig.json."""
    node_packages: Mapping[str, NodePackage] = msgspec.field(default_factory=dict)
    """Folder → package."""
    workspaces: tuple[Workspace, ...] = ()
    """The workspaces of packages, the innermost first."""
    crates: Mapping[str, Crate] = msgspec.field(default_factory=dict)
    """Folder → crate."""
    include_folders: Mapping[str, tuple[str, ...]] = msgspec.field(default_factory=dict)
    """Folder → where the C and C++ files below it look for headers; an absolute path is one of the machine
    that made a compile_commands.json."""
    python_markers: frozenset[str] = frozenset()
    """The empty `__init__.py` files: no nodes, but their folders are packages."""

    @classmethod
    def read(cls, texts: Mapping[str, str], check: Check = unchecked) -> Self:
        """From path → text of the manifests; other files in *texts* are passed over. *check* is called before
        each; what it raises ends the reading.
        """
        modules: list[GoModule] = []
        works: list[GoWork] = []
        packages: dict[str, NodePackage] = {}
        workspaces: list[Workspace] = []
        ts_paths: dict[str, str] = {}
        cargo: dict[str, CargoManifest] = {}
        includes: dict[str, tuple[str, ...]] = {}
        markers: set[str] = set()
        for path, text in sorted(texts.items()):
            check()
            folder, name = posixpath.split(path)
            if name == "go.mod":
                if (module := go_module(folder, text)) is not None:
                    modules.append(module)
            elif name == "go.work":
                works.append(go_work(folder, text))
            elif name == "tsconfig.json" or (name == "jsconfig.json" and folder not in ts_paths):
                ts_paths[folder] = path
            elif name in {"package.json", "lerna.json", "pnpm-workspace.yaml"}:
                if (found := workspace(path, text)) is not None:
                    workspaces.append(found)
                if name == "package.json" and (package := node_package(folder, text)) is not None:
                    packages[folder] = package
            elif name == "CMakeLists.txt":
                includes[folder] = (*includes.get(folder, ()), *cmake_folders(path, texts))
            elif name == "compile_commands.json":
                includes[folder] = (*includes.get(folder, ()), *command_folders(folder, text))
            elif name in {"__init__.py", "__init__.pyi"}:
                markers.add(path)
            elif name == "Cargo.toml" and (manifest := cargo_manifest(folder, text)) is not None:
                cargo[folder] = manifest
        by_name = {one.name: one.folder for one in reversed(packages.values()) if one.name}
        configs = TsConfigs(texts, by_name)
        ts_configs: dict[str, tuple[TsConfig, ...]] = {}
        for folder, path in ts_paths.items():
            check()
            ts_configs[folder] = configs.at(path)
        workspaces.sort(key=lambda one: -len(one.folder))
        return cls(
            go_modules=tuple(modules),
            go_works=tuple(works),
            ts_configs=ts_configs,
            node_packages=packages,
            workspaces=tuple(workspaces),
            crates={
                folder: with_shared(one.crate, cargo, above(folder))
                for folder, one in cargo.items()
                if one.crate is not None
            },
            include_folders={folder: named for folder, named in includes.items() if named},
            python_markers=frozenset(markers),
        )
