"""What linking costs grows with the repository and not with its square, also where it was written to hurt."""

from __future__ import annotations

import tracemalloc
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pharos_embedder import linking
from pharos_embedder.linking import link
from pharos_embedder.parsing import parse
from pharos_embedder.repository_configs import RepositoryConfigs
from pharos_embedder.resolution import resolvers, tree
from pharos_embedder.resolution.python import PythonResolver
from pharos_embedder.resolution.rust_modules import Bodies
from pharos_embedder.resolution.tree import SameNamed, shared_folders
from pharos_embedder.syntax import Definition, Import, ParsedFile

FOLDERS = st.lists(st.sampled_from("abc"), max_size=4).map(lambda parts: "/".join((*parts, "X.java")))


def file(path: str, language: str, **facts: Any) -> ParsedFile:
    return ParsedFile(path=path, language=language, size=1, line_count=9, content_hash="0", **facts)


def definition(name: str, kind: str, start: int = 0, end: int = 1) -> Definition:
    return Definition(
        name=name, symbol=name, kind=kind, start_line=start + 1, end_line=end + 1, start_byte=start,
        end_byte=end,
    )  # fmt: skip


@settings(deadline=None)
@given(paths=st.sets(FOLDERS, min_size=1), asked=FOLDERS, few=st.sampled_from((0, 16)))
def test_the_nearest_shares_the_most_folders_and_is_the_first_of_those(
    paths: set[str], asked: str, few: int
) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(tree, "_FEW", few)
        same = SameNamed()
        for path in paths:
            same.add(path)

        def nearest(among: set[str]) -> str | None:
            return min(among, key=lambda one: (-shared_folders(one, asked), one), default=None)

        assert same.nearest(asked) == nearest(paths)
        assert same.nearest_other(asked) == nearest(paths - {asked})


def test_a_class_that_every_folder_has_is_not_compared_with_all_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compared = 0

    def counted(one: str, other: str) -> int:
        nonlocal compared
        compared += 1
        return shared_folders(one, other)

    monkeypatch.setattr(tree, "shared_folders", counted)
    mains = [
        file(
            f"m{number % 10}/n{number}/Main.java",
            "java",
            package="acme",
            definitions=(definition("Main", "class"),),
        )
        for number in range(400)
    ]
    users = [file(f"m{number % 10}/n{number}/User.java", "java", package="other") for number in range(400)]
    files = [*mains, *users]
    found = resolvers([one.path for one in files], lambda _: files, RepositoryConfigs())["java"]
    for main, user in zip(mains, users, strict=True):
        assert len(found.neighbours(main)) == 1
        assert found.resolve(user, Import(module="acme.Main")) == (main.path,)
    assert compared <= 16 * len(files)  # one by one it was 2 × 400 × 400


@pytest.mark.parametrize("language", ["java", "go"])
def test_in_a_package_of_very_many_files_names_are_linked_where_they_are_defined_once(
    language: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def neighbours(files: Sequence[ParsedFile]) -> int:
        found = resolvers([one.path for one in files], lambda _: files, RepositoryConfigs())[language]
        return sum(len(found.neighbours(one)) for one in files)

    files = [file(f"p/F{number}.{language}", language, package="p") for number in range(40)]
    assert neighbours(files) == 40 * 39
    for module in ("java", "go"):
        monkeypatch.setattr(f"pharos_embedder.resolution.{module}.NEIGHBOURS_MAX", 1_000)
    assert neighbours(files) == 0
    assert neighbours(files[:31]) == 31 * 30


def test_of_very_many_headers_of_one_name_only_those_beside_are_looked_at(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pharos_embedder.resolution.c._LOOKED_AT_MAX", 10)
    include = Import(module="core.h", kind="include")
    for folders, nearest in ((5, ("f0/inc/core.h",)), (11, ())):
        paths = [f"f{number}/{path}" for number in range(folders) for path in ("inc/core.h", "src/core.c")]
        paths += ["g/core.h"] * (folders > 10)
        found = resolvers(paths, lambda _: (), RepositoryConfigs())["c"]
        assert found.resolve(file("f0/src/core.c", "c"), include) == nearest
        assert found.neighbours(file("f0/src/core.c", "c")) == nearest
        if folders > 10:
            assert found.resolve(file("g/core.c", "c"), include) == ("g/core.h",)
            assert found.neighbours(file("g/core.c", "c")) == ("g/core.h",)


def test_the_neighbours_that_are_held_at_once_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[int] = []
    meant = linking._meant

    def watched(names: Any, uses: Any, rows: Any, users: Any, near: Any, *rest: Any) -> Any:
        held.append(sum(map(len, near)))
        return meant(names, uses, rows, users, near, *rest)

    monkeypatch.setattr(linking, "_PAIRS_MAX", 500)
    monkeypatch.setattr(linking, "_meant", watched)
    texts = {f"p/F{n}.java": f"package p; class F{n} {{ void f() {{ new F{n + 1}(); }} }}" for n in range(60)}
    link([parse(path, "java", text.encode()) for path, text in texts.items()])
    assert len(held) > 1 and max(held) <= 500


def test_an_import_of_python_is_looked_for_where_its_name_is_and_in_so_many_roots_at_most(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = 0
    module = PythonResolver._module

    def counted(one: PythonResolver, target: str) -> str | None:
        nonlocal asked
        asked += 1
        return module(one, target)

    monkeypatch.setattr(PythonResolver, "_module", counted)
    monkeypatch.setattr("pharos_embedder.resolution.python._ROOTS_MAX", 10)
    projects = [f"p{number}" for number in range(200)]
    paths = [f"{one}/{path}" for one in projects for path in ("setup.py", f"{one}_own/a.py", "tests/b.py")]
    found = resolvers(paths, lambda _: (), RepositoryConfigs())["python"]
    for number, one in enumerate(projects):
        other = projects[number - 1]
        user = file(f"{one}/tests/b.py", "python")
        assert found.resolve(user, Import(module=f"{other}_own.a")) == (f"{other}/{other}_own/a.py",)
        assert found.resolve(user, Import(module=f"elsewhere{number}.x")) is None
        assert found.resolve(file(f"{one}/c.py", "python"), Import(module="tests.b")) != ()
        assert found.resolve(user, Import(module="tests.gone")) == ()
    assert asked < 60 * len(projects)  # in every root it was 200 for each name, and for each import
    nested = ["p/" * depth for depth in range(1, 30)]
    found = resolvers(
        [f"{one}{path}" for one in nested for path in ("setup.py", "x.py")], lambda _: (), RepositoryConfigs()
    )["python"]
    assert found.resolve(file(f"{nested[-1]}y.py", "python"), Import(module="x")) == (f"{nested[-1]}x.py",)


@pytest.mark.parametrize("is_workspace", [False, True])
def test_modules_of_go_share_what_they_all_see(is_workspace: bool) -> None:
    def peak(modules: int) -> int:
        texts = {f"m{number}/go.mod": f"module example.com/m{number}\n" for number in range(modules)}
        if is_workspace:
            used = "".join(f"\t./m{number}\n" for number in range(modules))
            texts["go.work"] = f"go 1.22\nuse (\n{used})\n"
        configs = RepositoryConfigs.read(texts)
        files = [
            file(f"m{number}/a.go", "go", package="a", imports=(Import(module="example.com/m0"),))
            for number in range(modules)
        ]
        found = resolvers([one.path for one in files], lambda _: files, configs)["go"]
        tracemalloc.start()
        try:
            for one in files:
                assert found.resolve(one, one.imports[0]) == ("m0/a.go",)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert peak(400) < 8 * peak(100)  # with a map of all for each it was 16 times


def test_modules_in_modules_in_one_file_of_rust_are_followed_for_a_while() -> None:
    deep = [definition(f"d{number}", "module", number, 5_000 - number) for number in range(2_000)]
    bodies = Bodies(file("lib.rs", "rust", definitions=tuple(deep)))
    assert max(map(len, bodies.inlines)) == 32
    assert bodies.around(20) == tuple(f"d{number}" for number in range(20))
    assert bodies.around(1_000) == tuple(f"d{number}" for number in range(32))
    wide = [definition(f"w{number}", "module", 2 * number, 2 * number + 1) for number in range(2_000)]
    bodies = Bodies(file("lib.rs", "rust", definitions=tuple(wide)))
    assert len(bodies.inlines) == 1_000
    assert (bodies.around(401), bodies.around(2_001)) == (("w200",), ())
