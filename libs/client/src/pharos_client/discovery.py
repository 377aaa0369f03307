"""Where the gateway is and which token to show it: options, the environment, then what the stack wrote."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import msgspec

TOKEN_FILE: Final = "admin-token"  # noqa: S105 (a file's name)
ENDPOINT_FILE: Final = "endpoint"
FILE_BYTES_MAX: Final = 4096


class InvalidTarget(Exception):
    """An option or a variable names something that cannot be used; the message is a sentence."""


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """Which gateway, and how we know. ``token`` None: none was found, or none that this address may see."""

    url: str
    url_from: str
    token: str | None
    token_from: str
    home: Path

    def __repr__(self) -> str:
        return f"Target(url={self.url!r}, token={'***' if self.token else None})"


def home_directory(environ: Mapping[str, str]) -> Path:
    """Where the local stack keeps its files."""
    return Path(environ.get("PHAROS_HOME") or "./.pharos").expanduser().absolute()


def discover(environ: Mapping[str, str], *, url: str | None = None, token: str | None = None) -> Target:
    """The gateway to talk to. InvalidTarget where what was given cannot be used.

    The token in ``PHAROS_HOME`` goes to the stack that wrote it, or to another on this machine: never to a
    host that merely was named.
    """
    home = home_directory(environ)
    endpoint = _read(home / ENDPOINT_FILE)
    address, url_from = _address(environ, url, endpoint, home)
    found, token_from = _token(environ, token)
    if found is None:
        if address == (endpoint or "").rstrip("/") or _is_loopback(address):
            found = _read(home / TOKEN_FILE)
            token_from = str(home / TOKEN_FILE)
        else:
            token_from = f"{home / TOKEN_FILE} is for this machine only; set PHAROS_ADMIN_TOKEN_FILE"
    return Target(url=address, url_from=url_from, token=found, token_from=token_from, home=home)


def _address(
    environ: Mapping[str, str], option: str | None, endpoint: str | None, home: Path
) -> tuple[str, str]:
    if option:
        return _checked(option, "--url"), "--url"
    if environ.get("PHAROS_URL"):
        return _checked(environ["PHAROS_URL"], "PHAROS_URL"), "PHAROS_URL"
    if endpoint is not None:
        return _checked(endpoint, str(home / ENDPOINT_FILE)), str(home / ENDPOINT_FILE)
    port = environ.get("PHAROS_PORT") or "8000"
    return _checked(f"http://127.0.0.1:{port}", "PHAROS_PORT"), "the default"


def _checked(address: str, named_by: str) -> str:
    try:
        parts = urlsplit(address)
        valid = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not valid:
        raise InvalidTarget(
            f"{named_by} is not the address of a gateway: {address[:80]!r}. Write it like http://127.0.0.1:8000."
        )
    if parts.username or parts.password:
        raise InvalidTarget(
            f"{named_by} contains credentials; give the token by PHAROS_ADMIN_TOKEN_FILE instead."
        )
    return address.rstrip("/")


def _token(environ: Mapping[str, str], option: str | None) -> tuple[str | None, str]:
    if option:
        return _printable(option, "--token"), "--token"
    if environ.get("PHAROS_ADMIN_TOKEN"):
        return _printable(environ["PHAROS_ADMIN_TOKEN"], "PHAROS_ADMIN_TOKEN"), "PHAROS_ADMIN_TOKEN"
    path = environ.get("PHAROS_ADMIN_TOKEN_FILE")
    if not path:
        return None, ""
    found = _read(Path(path))
    if found is None:
        raise InvalidTarget(f"PHAROS_ADMIN_TOKEN_FILE names {path!r}, which cannot be read or is empty.")
    return found, f"PHAROS_ADMIN_TOKEN_FILE ({path})"


def _printable(token: str, named_by: str) -> str:
    token = token.strip()
    if not token.isascii() or not token.isprintable():
        raise InvalidTarget(f"{named_by} has characters that no token has.")
    return token


def _read(path: Path) -> str | None:
    """The text in a small file of ours, None where there is none."""
    try:
        with path.open("rb") as file:
            text = file.read(FILE_BYTES_MAX).decode("ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None
    return text or None


def _is_loopback(address: str) -> bool:
    host = urlsplit(address).hostname or ""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
