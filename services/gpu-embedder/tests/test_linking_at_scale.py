"""The arrays in which files are linked give what the definition of the edges gives, to the last bit."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pharos_embedder import linking
from pharos_embedder.linking import FileEdge, LinkStats, link
from pharos_embedder.repository_configs import RepositoryConfigs
from pharos_embedder.resolution import Resolver, resolvers
from pharos_embedder.syntax import DECLARATION, Definition, Import, ImportedName, ParsedFile, Reference

Weights = list[dict[int, float]]


def defined_edges(files: Sequence[ParsedFile]) -> tuple[list[FileEdge], LinkStats]:
    """The edges as the head of the module describes them, file by file and name by name."""
    files = sorted(files, key=lambda file: file.path)
    numbers = {file.path: number for number, file in enumerate(files)}
    by_language = resolvers(
        list(numbers),
        lambda language: [file for file in files if file.language == language],
        RepositoryConfigs(),
    )
    imports, stats = imported(files, by_language, numbers)
    references = referenced(files, by_language, numbers, imports)
    edges = [*finished(imports, "imports"), *finished(references, "references")]
    return sorted(edges), stats


def imported(
    files: Sequence[ParsedFile], by_language: Mapping[str, Resolver], numbers: Mapping[str, int]
) -> tuple[Weights, LinkStats]:
    weights: Weights = [{} for _ in files]
    resolved = external = missing = 0
    for number, file in enumerate(files):
        for one in file.imports if file.language in by_language else ():
            targets = by_language[file.language].resolve(file, one)
            if not targets:
                external += targets is None
                missing += targets is not None and one.kind != "path"
                continue
            resolved += 1
            for path in targets[: linking._TARGETS_MAX]:
                if numbers[path] != number:
                    own = weights[number]
                    own[numbers[path]] = own.get(numbers[path], 0.0) + 1.0 / len(targets)
    return weights, LinkStats(imports_resolved=resolved, imports_external=external, imports_missing=missing)


def referenced(
    files: Sequence[ParsedFile],
    by_language: Mapping[str, Resolver],
    numbers: Mapping[str, int],
    imports: Weights,
) -> Weights:
    defined: dict[tuple[str, str], set[int]] = {}
    declared: dict[tuple[str, str], set[int]] = {}
    users: dict[tuple[str, str], int] = {}
    elsewhere: list[set[str]] = [set() for _ in files]
    for number, file in enumerate(files):
        for one in file.imports if file.language in by_language else ():
            if by_language[file.language].resolve(file, one) is None:
                elsewhere[number].update(linking.bound_names(one))
        for definition in file.definitions:
            known = declared if definition.kind == DECLARATION else defined
            known.setdefault((family(file), definition.name), set()).add(number)
        for reference in file.references:
            if reference.name in elsewhere[number]:
                continue
            users[family(file), reference.name] = users.get((family(file), reference.name), 0) + 1
    for key, declarers in declared.items():
        defined.setdefault(key, declarers)
    users_max = max(linking._UNIQUE_USERS_MAX, int(linking._UNIQUE_USERS_SHARE_MAX * len(files)))
    weights: Weights = [{} for _ in files]
    for number, file in enumerate(files):
        near = set(imports[number])
        for target in imports[number]:
            path = f"/{files[target].path}"
            says_so = path.endswith(linking._REEXPORTERS) or path.rpartition("/")[2] in linking._INDEX_FILES
            language = files[target].language
            if says_so or (
                language in by_language and any(i.kind == "export" for i in files[target].imports)
            ):
                near.update(imports[target])
        near.discard(number)
        if file.language in by_language:
            near.update(numbers[path] for path in by_language[file.language].neighbours(file))
        for reference in file.references:
            key = family(file), reference.name
            candidates = defined.get(key, set())
            if not candidates or number in candidates or reference.name in elsewhere[number]:
                continue
            strength = math.log2(1 + reference.count) / (1 + math.log2(users[key]))
            meant = candidates & near
            if not meant:
                if len(candidates) > 1 or len(reference.name) < 4 or users[key] > users_max:
                    continue
                meant, strength = candidates, strength * linking._UNIQUE_WEIGHT
            for target in meant:
                weights[number][target] = weights[number].get(target, 0.0) + strength / len(meant)
    return weights


def family(file: ParsedFile) -> str:
    return linking._FAMILIES.get(file.language, file.language)


def finished(weights: Weights, kind: linking.EdgeKind) -> list[FileEdge]:
    degrees: dict[int, int] = {}
    for own in weights:
        for target in own:
            degrees[target] = degrees.get(target, 0) + 1
    edges = []
    for source, own in enumerate(weights):
        damped = sorted((-(weight / (1 + math.log(degrees[to]))), to) for to, weight in own.items())
        edges += [
            FileEdge(source=source, target=target, kind=kind, weight=-weight)
            for weight, target in damped[: linking.EDGES_PER_FILE_MAX]
        ]
    return edges


FOLDERS = ("", "a", "a/b", "lib")
STEMS = ("__init__", "one", "two", "three", "index")
NAMES = ("run", "load", "Config", "handle_it", "go", "x")
ENDINGS = {
    "c": ".c",
    "cpp": ".hpp",
    "python": ".py",
    "go": ".go",
    "java": ".java",
    "javascript": ".js",
    "typescript": ".ts",
}


@st.composite
def projects(draw: st.DrawFn) -> list[ParsedFile]:
    """A few files that define, use and import each other's names at random."""
    languages = st.sampled_from(sorted(ENDINGS))
    places = st.tuples(st.sampled_from(FOLDERS), st.sampled_from(STEMS), languages)
    files = []
    for folder, stem, language in draw(st.lists(places, max_size=24, unique=True)):
        names = draw(st.lists(st.sampled_from(NAMES), max_size=4))
        used = draw(st.lists(st.sampled_from(NAMES), max_size=5, unique=True))
        imports = draw(
            st.lists(
                st.tuples(st.sampled_from((*STEMS, ".", "./one", "../lib", "a", "a.b")), st.integers(0, 2)),
                max_size=4,
            )
        )
        files.append(
            ParsedFile(
                path="/".join(part for part in (folder, stem + ENDINGS[language]) if part),
                language=language,
                size=1,
                line_count=1,
                content_hash="0",
                package=draw(st.sampled_from(("", "a"))),
                definitions=tuple(
                    Definition(
                        name=name, symbol=name, kind=draw(st.sampled_from(("class", DECLARATION))),
                        start_line=1, end_line=1, start_byte=0, end_byte=1,
                    )
                    for name in names
                ),
                references=tuple(
                    Reference(name=name, line=1, count=draw(st.integers(1, 9))) for name in used
                ),
                imports=tuple(
                    Import(
                        module=module,
                        level=level if language == "python" else 0,
                        kind=draw(st.sampled_from(("import", "export"))),
                        names=(ImportedName(name=draw(st.sampled_from((*STEMS, *NAMES, "*")))),),
                    )
                    for module, level in imports
                ),
            )
        )  # fmt: skip
    return files


@settings(deadline=None, max_examples=150)
@given(files=projects(), pairs_max=st.sampled_from((1, 7, 2_000_000)), users_max=st.sampled_from((1, 20)))
def test_arrays_give_the_edges_of_the_definition_to_the_last_bit(
    files: list[ParsedFile], pairs_max: int, users_max: int
) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(linking, "_PAIRS_MAX", pairs_max)
        patched.setattr(linking, "_UNIQUE_USERS_MAX", users_max)
        graph = link(files)
        edges, stats = defined_edges(files)
    assert graph.paths == tuple(sorted(file.path for file in files))
    assert list(graph.edges) == edges
    assert graph.stats == stats
