"""What the doctor finds on a machine and in an installation."""

from __future__ import annotations

from pathlib import Path

import pytest

from pharos_local import checks
from pharos_local.checks import (
    checks as examine,
)
from pharos_local.checks import (
    disk_of,
    gpu_with_build,
    packages,
    processor_of,
    secrecy,
    unknown_keys,
    unknown_variables,
)
from pharos_local.home import Home


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("PHAROS_PROT", "PHAROS_PORT"),
        ("PHAROS_GIT_ALLOW_HOSTS", "PHAROS_GIT_ALLOWED_HOSTS"),
        ("PHAROS_ADMIN_TOKN_FILE", "PHAROS_ADMIN_TOKEN_FILE"),
        ("PHAROS_ZZZZZZZZZZZZ", "Unset it."),
    ],
)
def test_a_variable_that_nothing_reads_is_named_with_the_nearest_one(name: str, advice: str) -> None:
    (check,) = unknown_variables({name: "x", "HOME": "/", "PHAROS_HOME": "y"})
    assert check.level == "wrong"
    assert name in check.found and advice in check.advice


def test_a_key_of_the_configuration_file_that_nothing_reads_is_named(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(
        "queue_max: 9\nPHAROS_PORT: 1\ngithub_token: x\nque_max: 9\nprocessing: {chunk_size: 900}\n"
    )
    (check,) = unknown_keys({"PHAROS_CONFIG": str(file)})
    assert (check.level, "que_max" in check.found, check.advice) == (
        "wrong",
        True,
        "Did you mean PHAROS_QUEUE_MAX?",
    )
    assert unknown_keys({}) == unknown_keys({"PHAROS_CONFIG": "/no/such/file"}) == []


def test_every_documented_variable_is_known() -> None:
    known = checks.known_variables()
    for name in (
        "PHAROS_HOME",
        "PHAROS_PORT",
        "PHAROS_NATS_PORT",
        "PHAROS_QUEUE_MAX",
        "PHAROS_WORKER_SLOTS",
        "PHAROS_ENCODER",
        "PHAROS_DATABASE_URL",
        "PHAROS_URL",
        "PHAROS_CONFIG",
        "PHAROS_ADMIN_TOKEN_FILE",
    ):
        assert name in known


@pytest.mark.parametrize(
    ("check", "level", "words"),
    [
        (packages(lambda name: name != "torch"), "wrong", "missing: torch"),
        (packages(lambda _: True), "fine", "installed"),
        (
            processor_of("flags : avx2 avx512_bf16 amx_bf16", 4),
            "fine",
            "4 cores, bf16 (amx_bf16, avx512_bf16)",
        ),
        (processor_of("flags : avx2", 4), "note", "no bf16"),
        (gpu_with_build(["RTX 4070"], "2.13.0+cpu, built for CPU"), "note", "torch is built for CPU"),
        (gpu_with_build(["RTX 4070"], "2.13.0, built for CUDA 13.0"), "fine", "RTX 4070"),
        (disk_of(0.4, Path("/x")), "wrong", "0.4 GiB free"),
        (disk_of(3.0, Path("/x")), "note", "3.0 GiB"),
        (disk_of(300.0, Path("/x")), "fine", "300.0 GiB"),
    ],
)
def test_a_finding_has_its_level_and_its_advice(check: checks.Check, level: str, words: str) -> None:
    assert (check.level, words in check.found) == (level, True)
    assert bool(check.advice) == (level != "fine")


def test_a_secret_that_others_may_read_is_wrong(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.token_file.write_text("x")
    home.token_file.chmod(0o640)
    (check,) = secrecy(home)
    assert check.level == "wrong" and "chmod 600" in check.advice


def test_a_machine_where_nothing_runs_yet_is_told_how_to_start(tmp_path: Path) -> None:
    found = examine({"PHAROS_HOME": str(tmp_path / "home"), "PHAROS_PORT": "1"})
    (stack,) = [check for check in found if check.name == "stack"]
    assert stack.level == "note" and "make run" in stack.advice
    assert all(check.advice for check in found if check.level != "fine")
    assert not (tmp_path / "home").exists()


def test_settings_that_are_wrong_are_each_told(tmp_path: Path) -> None:
    found = examine({"PHAROS_HOME": str(tmp_path), "PHAROS_PORT": "many", "PHAROS_NATS_PORT": "-1"})
    assert sum(check.name == "settings" and check.level == "wrong" for check in found) == 2
