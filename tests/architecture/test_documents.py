"""What the documents say of the code: each module, path, command, setting, route and limit that they name is
there, and codemaps leave no module out.

What one says in words no machine can check; what it names in backticks and blocks of code it can.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from nats.aio.client import Client

from docs.generate import READERS
from pharos_client.command import app as pharos
from pharos_gateway.app import Parts, application
from pharos_gateway.settings import Settings
from pharos_service.bus import Bus
from pharos_service.settings import Secret, table
from tests.support.workspace import ROOT, Package, packages

TOP: Final = "deploy|docs|examples|libs|services|tests|bench"
CODE: Final = re.compile(r"```.*?```|`[^`]+`", re.DOTALL)
SETTING: Final = re.compile(r"\b(?:PHAROS|OPENAI|EMBEDDING)_[A-Z_]+\b")

DOCUMENTS: Final = tuple(
    sorted(
        path
        for pattern in (
            "*.md",
            "docs/*.md",
            "docs/decisions/*.md",
            "bench/*.md",
            "deploy/*/*.md",
            "*/*/README.md",
        )
        for path in ROOT.glob(pattern)
    )
)
SOURCES: Final = tuple(
    sorted(
        path
        for folder in ("libs", "services", "deploy", "examples", "bench", "tests", "docs")
        for path in (ROOT / folder).rglob("*.py")
        if "tests/projects" not in str(path)
    )
)
# A diary tells what was there on its day.
DIARY: Final = ROOT / "docs/experiments.md"

each_document = pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
each_package = pytest.mark.parametrize("package", packages().values(), ids=lambda package: package.name)


def code_in(text: str) -> list[str]:
    """What stands in backticks, and in blocks of code."""
    return [found.strip("`") for found in CODE.findall(text)]


def rows(text: str, heading: str) -> Iterator[list[str]]:
    """The rows of the tables of *text* that have a column *heading*, as cells, that column first."""
    place: int | None = None
    for line in text.splitlines():
        if not line.startswith("|"):
            place = None
            continue
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if heading in cells:
            place = cells.index(heading)
        elif place is not None and not set(cells[0]) <= set("- "):
            yield [cells[place], *cells[:place], *cells[place + 1 :]]


# --- modules -----------------------------------------------------------------------------------------------


def modules(package: Package) -> set[str]:
    """The modules and folders right below *package*, apart from those that every program has."""
    folder = ROOT / package.folder / "src" / package.module
    files = {path.stem for path in folder.glob("*.py")} - {"__init__", "__main__"}
    return files | {
        path.name for path in folder.iterdir() if any(path.glob("*.*")) and path.name != "__pycache__"
    }


def named_modules(text: str) -> set[str]:
    """The modules, or the folders of modules, among what *text* has in backticks."""
    return {name.removesuffix(".py").split("/")[0] for name in code_in(text)}


@each_package
def test_a_readme_names_every_module_of_its_package(package: Package) -> None:
    text = (ROOT / package.folder / "README.md").read_text()
    assert modules(package) - named_modules(text) == set()


@each_package
def test_a_codemap_names_modules_that_are_there(package: Package) -> None:
    text = (ROOT / package.folder / "README.md").read_text()
    folder = ROOT / package.folder / "src"
    gone = [
        name
        for heading in ("module", "file")
        for row in rows(text, heading)
        for name in code_in(row[0])
        for place in [name.removesuffix(".py").replace(".", "/").strip("/")]
        if not any(
            path.exists()
            for whole in (place, f"{package.module}/{place}")
            for path in (folder / whole, folder / f"{whole}.py", *ROOT.glob(f"libs/*/src/{whole}.py"))
        )
    ]
    assert gone == []


def test_the_measurements_are_named_with_what_they_measure_against() -> None:
    text = (ROOT / "bench/README.md").read_text()
    assert {path.stem for path in (ROOT / "bench").glob("bench_*.py")} - named_modules(text) == set()


# --- paths, commands, settings, routes ---------------------------------------------------------------------


def found(name: str, *folders: Path) -> bool:
    """Whether a path begins with *name* in one of *folders*: `docs/decisions/0012` is enough of one."""
    return any(next(folder.glob(f"{name.rstrip('/.')}*"), None) for folder in folders)


@each_document
def test_every_path_that_a_document_names_exists(path: Path) -> None:
    text = path.read_text()
    paths = {name for code in code_in(text) for name in re.findall(rf"(?<![\w./-])(?:{TOP})/[\w./-]+", code)}
    links = {link for link in re.findall(r"\]\(([^)#\s]+)", text) if "://" not in link}
    gone = set() if path == DIARY else {name for name in paths if not found(name, ROOT, path.parent)}
    gone |= {link for link in links if not (path.parent / link).exists()}
    assert gone == set()


def test_every_page_that_the_code_names_exists() -> None:
    gone = {
        f"{path.relative_to(ROOT)}: {name}"
        for path in SOURCES
        if "tests" not in path.parts
        for name in re.findall(r"\bdocs/(?:decisions/[\w-]+|[\w-]+\.md)", path.read_text())
        if not found(name, ROOT)
    }
    assert gone == set()


@each_document
def test_every_make_target_that_a_document_names_exists(path: Path) -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z][a-z0-9-]*):", makefile, re.MULTILINE))
    named = {name for code in code_in(path.read_text()) for name in re.findall(r"\bmake ([a-z][\w-]*)", code)}
    assert named - targets == set()


def test_no_file_stands_in_the_way_of_a_make_target() -> None:
    makefile = (ROOT / "Makefile").read_text()
    (phony,) = re.findall(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    assert set(re.findall(r"^([a-z][a-z0-9-]*):", makefile, re.MULTILINE)) == set(phony.split())


@functools.cache
def defaults() -> dict[str, str]:
    """Each setting of a service with its default."""
    return {setting.variable: setting.default for reader in READERS.values() for setting in table(reader)}


@functools.cache
def variables() -> set[str]:
    """What is read of the environment: settings, files with one, and what programs read by name."""
    product = (path for path in SOURCES if "/src/" in str(path))
    by_name = {
        name for path in product for name in re.findall(r'"((?:PHAROS|OPENAI)_[A-Z_]+)"', path.read_text())
    }
    settings = set(defaults()) | by_name
    return settings | {f"{setting}_FILE" for setting in settings}


@each_document
def test_every_setting_that_a_document_names_is_read(path: Path) -> None:
    known = variables()
    named = set(SETTING.findall(path.read_text()))
    # A name that ends with a line stands for all that begin with it.
    assert {
        name
        for name in named - known
        if not (name.endswith("_") and any(each.startswith(name) for each in known))
    } == set()


def test_every_command_that_a_document_names_exists_and_each_is_documented() -> None:
    commands = {name for name in pharos if not name.startswith("-")}
    told = re.compile(r"(?:^|[\s/])pharos ([a-z][a-z-]*)")
    named = {
        (path.name, name)
        for path in DOCUMENTS
        for code in code_in(path.read_text())
        if "kubectl" not in code and "helm" not in code
        for name in told.findall(code)
    }
    assert {pair for pair in named if pair[1] not in commands} == set()
    assert commands - {name for _, name in named} == set()


def test_every_route_that_a_document_names_exists() -> None:
    chosen = Settings(admin_token=Secret("0123456789abcdef" * 2))
    routes = {
        re.sub(r"\{[^}]*\}", "{}", route.path_format)
        for route in application(chosen, Parts.on(Bus(Client()), chosen)).routes
    }
    families = {route.split("/")[1] for route in routes}
    spoken = re.compile(r"(?:(GET|POST|PUT|DELETE) )?(/[a-z][\w/{},-]*)(?:/…)?")
    gone = set()
    for path in DOCUMENTS:
        for match in filter(None, map(spoken.fullmatch, code_in(path.read_text()))):
            if match[1] or match[2].split("/")[1] in families:
                for route in spelled_out(match[2]):
                    known = re.sub(r"\{[^}]*\}", "{}", route)
                    if not any(each == known or each.startswith(f"{known}/") for each in routes):
                        gone.add((path.name, route))
    assert gone == set()


def spelled_out(route: str) -> list[str]:
    """``/x-{a,b}`` as ``/x-a`` and ``/x-b``."""
    found = re.search(r"\{(\w+(?:,\w+)+)\}", route)
    return [route.replace(found[0], each) for each in found[1].split(",")] if found else [route]


# --- limits and words --------------------------------------------------------------------------------------


def written(variable: str, default: str) -> set[str]:
    """How a page may write the *default* of *variable*: 2048 of a `_MB` is 2 GiB."""
    number = float(default)
    if number == 0:
        return {"as many as"}
    if "SECONDS" in variable:
        units = {"s": 1, "min": 60, "hour": 3600, "day": 86400}
    elif variable.endswith(("_MB", "_BYTES")):
        bytes_each = 1 if variable.endswith("_BYTES") else 1 << 20
        units = {name: size // bytes_each or 1 for name, size in (("MiB", 1 << 20), ("GiB", 1 << 30))}
    else:
        return {f"{int(number):,}"}
    exact = {f"{number / size:g} {unit}" for unit, size in units.items() if number % size == 0}
    return exact | {f"a{'n' * (unit == 'hour')} {unit}" for unit, size in units.items() if number == size}


def test_the_page_of_limits_says_what_the_settings_say() -> None:
    text = (ROOT / "docs/limits.md").read_text()
    checked, wrong = set(), []
    for setting, _, amount, *_ in rows(text, "setting"):
        for variable in code_in(setting):
            checked.add(variable)
            if not any(re.search(rf"\b{form}\b", amount) for form in written(variable, defaults()[variable])):
                wrong.append((variable, amount, defaults()[variable]))
    assert wrong == []
    assert len(checked) > 20


def test_every_code_of_a_refusal_that_the_page_of_limits_names_exists() -> None:
    text = (ROOT / "docs/limits.md").read_text()
    answers = [cell for heading in ("answer", "beyond") for cell, *_ in rows(text, heading)]
    named = {code for cell in answers for code in code_in(cell) if re.fullmatch(r"[a-z]+(_[a-z]+)+", code)}
    product = "".join(path.read_text() for path in SOURCES if "/src/" in str(path))
    assert {code for code in named if f'"{code}"' not in product} == set()
    assert len(named) > 20


@pytest.mark.parametrize("page", ["deploy/local/README.md", "services/history/README.md"])
def test_a_readme_says_the_defaults_of_settings_as_they_are(page: str) -> None:
    for setting, default, *_ in rows((ROOT / page).read_text(), "setting"):
        (variable,) = code_in(setting)
        if default.isdigit():
            assert default == defaults()[variable], variable


def test_the_glossary_has_each_word_once() -> None:
    words = [
        word
        for cell, *_ in rows((ROOT / "GLOSSARY.md").read_text(), "word")
        for bold in re.findall(r"\*\*(.+?)\*\*", cell)
        for word in bold.split(", ")
    ]
    assert sorted(words) == sorted(set(words))
    assert len(words) > 80


def test_decisions_are_numbered_as_their_files_are() -> None:
    for path in sorted((ROOT / "docs/decisions").iterdir()):
        number = re.match(r"# (\d+)\. ", path.read_text())
        assert number, path.name
        assert path.name.startswith(f"{int(number[1]):04}-")
