"""Which gateway, and which token it may see."""

from __future__ import annotations

from pathlib import Path

import pytest

from pharos_client.discovery import InvalidTarget, discover

HOME_TOKEN = "h" * 43


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "admin-token").write_text(HOME_TOKEN + "\n")
    (tmp_path / "endpoint").write_text("http://127.0.0.1:8123\n")
    return tmp_path


def test_the_stack_that_runs_is_found_by_its_home(home: Path) -> None:
    target = discover({"PHAROS_HOME": str(home)})
    assert (target.url, target.token) == ("http://127.0.0.1:8123", HOME_TOKEN)


def test_without_anything_it_is_the_default_port(tmp_path: Path) -> None:
    assert discover({"PHAROS_HOME": str(tmp_path)}).url == "http://127.0.0.1:8000"
    assert discover({"PHAROS_HOME": str(tmp_path), "PHAROS_PORT": "81"}).url == "http://127.0.0.1:81"


def test_options_win_over_variables_and_variables_over_files(home: Path, tmp_path: Path) -> None:
    token_file = tmp_path / "other"
    token_file.write_text("file-token")
    environ = {
        "PHAROS_HOME": str(home),
        "PHAROS_URL": "https://pharos.example",
        "PHAROS_ADMIN_TOKEN_FILE": str(token_file),
    }
    assert discover(environ).url == "https://pharos.example"
    assert discover(environ).token == "file-token"
    assert discover({**environ, "PHAROS_ADMIN_TOKEN": "direct"}).token == "direct"
    chosen = discover(environ, url="http://other:1/", token="option")
    assert (chosen.url, chosen.token) == ("http://other:1", "option")


def test_the_token_of_this_machine_stays_on_this_machine(home: Path) -> None:
    environ = {"PHAROS_HOME": str(home)}
    assert discover(environ, url="https://pharos.example").token is None
    assert discover(environ, url="http://127.0.0.1.example.com:8123").token is None
    assert discover(environ, url="http://localhost:9000").token == HOME_TOKEN


@pytest.mark.parametrize("url", ["ftp://x", "127.0.0.1:8000", "http://", "http://[::1", "http://x:99999"])
def test_an_address_that_is_none_is_refused_with_the_name_of_its_source(url: str) -> None:
    with pytest.raises(InvalidTarget, match="--url"):
        discover({}, url=url)


def test_credentials_in_an_address_are_refused_and_not_repeated() -> None:
    with pytest.raises(InvalidTarget) as refusal:
        discover({"PHAROS_URL": "http://admin:hunter2@x"})
    assert "hunter2" not in str(refusal.value)


def test_a_token_file_that_is_missing_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(InvalidTarget, match="PHAROS_ADMIN_TOKEN_FILE"):
        discover({"PHAROS_ADMIN_TOKEN_FILE": str(tmp_path / "nothing")})


def test_a_target_does_not_show_its_token(home: Path) -> None:
    assert HOME_TOKEN not in repr(discover({"PHAROS_HOME": str(home)}))
