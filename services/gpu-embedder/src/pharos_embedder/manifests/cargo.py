"""Cargo.toml."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import msgspec

from pharos_embedder.manifests.paths import joined

_DEPENDENCIES: Final = ("dependencies", "dev-dependencies", "build-dependencies")
_TARGETS: Final = ("bin", "example", "test", "bench")
_DEPENDENCIES_MAX: Final = 2_000


class Dependency(msgspec.Struct, frozen=True, kw_only=True):
    """What a crate calls another: the name of its package, and its folder where a path is given."""

    package: str
    folder: str | None = None
    inherited: bool = False  # what the workspace says of it


class Crate(msgspec.Struct, frozen=True, kw_only=True):
    """One Cargo package: its folder, its name, its library's name and path, the roots of other targets that
    it names, and what it depends on by the name that its code uses.
    """

    folder: str
    name: str
    library_name: str
    library: str
    roots: tuple[str, ...] = ()
    is_first_edition: bool = False  # 2015: paths of `use` begin at the root of the crate
    dependencies: Mapping[str, Dependency] = msgspec.field(default_factory=dict)


class CargoManifest(msgspec.Struct, frozen=True, kw_only=True):
    """One Cargo.toml: the package, and what a workspace has for its members; either may be lacking."""

    folder: str
    crate: Crate | None
    shared: Mapping[str, Dependency]


def cargo_manifest(folder: str, text: str) -> CargoManifest | None:
    """What the Cargo.toml in *folder* says; None if it cannot be read."""
    try:
        content = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError):
        return None
    shared = dict(_dependencies(folder, _section(_section(content, "workspace"), "dependencies")))
    return CargoManifest(folder=folder, crate=_crate(folder, content), shared=shared)


def with_shared(crate: Crate, manifests: Mapping[str, CargoManifest], above: Iterable[str]) -> Crate:
    """*crate* with what the workspace says of its dependencies; *above* are the folders up to the root."""
    shared = next((manifests[one].shared for one in above if one in manifests and manifests[one].shared), {})
    return msgspec.structs.replace(
        crate,
        dependencies={
            name: shared.get(name, one) if one.inherited else one for name, one in crate.dependencies.items()
        },
    )


def _section(table: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = table.get(name)
    return value if isinstance(value, dict) else {}


def _crate(folder: str, content: Mapping[str, Any]) -> Crate | None:
    package = _section(content, "package")
    name = package.get("name")
    if not isinstance(name, str):
        return None
    library = _section(content, "lib")
    path, library_name = library.get("path"), library.get("name")
    named = [package.get("build")]
    for kind in _TARGETS:
        targets = content.get(kind)
        named += (
            [one.get("path") for one in targets if isinstance(one, dict)] if isinstance(targets, list) else []
        )
    roots = (joined(folder, one) for one in named if isinstance(one, str))
    tables = [content, *(one for one in _section(content, "target").values() if isinstance(one, dict))]
    dependencies: dict[str, Dependency] = {}
    for table in tables:
        for kind in _DEPENDENCIES:
            dependencies.update(_dependencies(folder, _section(table, kind)))
    edition = package.get("edition", "2015")
    return Crate(
        folder=folder,
        name=name,
        library_name=(library_name if isinstance(library_name, str) else name).replace("-", "_"),
        library=joined(folder, path if isinstance(path, str) else "src/lib.rs") or "",
        roots=tuple(one for one in roots if one),
        is_first_edition=edition == "2015",
        dependencies=dependencies,
    )


def _dependencies(folder: str, table: Mapping[str, Any]) -> Iterator[tuple[str, Dependency]]:
    for key, value in list(table.items())[:_DEPENDENCIES_MAX]:
        said = value if isinstance(value, dict) else {}
        package, path = said.get("package"), said.get("path")
        yield (
            key.replace("-", "_"),
            Dependency(
                package=package if isinstance(package, str) else key,
                folder=joined(folder, path) if isinstance(path, str) else None,
                inherited=said.get("workspace") is True,
            ),
        )
