"""From an import statement to the files of the repository that it means, by the rules of its language. Pure.

A resolver answers with paths, the importing file's own among them where it is meant; with an empty tuple for
something that must lie in the repository but has no file here (a broken relative import, a package whose only
file is empty); with None for what comes from elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

from pharos_embedder.repository_configs import RepositoryConfigs
from pharos_embedder.resolution.c import CResolver
from pharos_embedder.resolution.ecmascript import EcmaScriptResolver
from pharos_embedder.resolution.go import GoResolver
from pharos_embedder.resolution.java import JavaResolver
from pharos_embedder.resolution.python import PythonResolver
from pharos_embedder.resolution.rust import RustResolver
from pharos_embedder.resolution.tree import Tree
from pharos_embedder.syntax import Import, ParsedFile

Targets = tuple[str, ...] | None


class Resolver(Protocol):
    """The import rules of one language."""

    def resolve(self, file: ParsedFile, one: Import) -> Targets:
        """The files that the import *one* of *file* means."""

    def neighbours(self, file: ParsedFile) -> Sequence[str]:
        """The files whose names *file* may use without an import: those of its package, where there is
        such.
        """


def resolvers(
    paths: Sequence[str], files: Callable[[str], Iterable[ParsedFile]], configs: RepositoryConfigs
) -> Mapping[str, Resolver]:
    """Language → its resolver, for the languages that have imports here.

    *paths* are all that there are; *files* gives those of a language, and each call may cost their reading.
    """
    tree = Tree(paths)
    ecmascript = EcmaScriptResolver(tree, configs)
    c = CResolver(tree, configs)
    return {
        "python": PythonResolver(tree, files("python"), configs),
        "javascript": ecmascript,
        "typescript": ecmascript,
        "tsx": ecmascript,
        "go": GoResolver(tree, files("go"), configs),
        "java": JavaResolver(files("java")),
        "rust": RustResolver(tree, files("rust"), configs),
        "c": c,
        "cpp": c,
    }
