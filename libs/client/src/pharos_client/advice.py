"""What to do about a refusal, in sentences. Pure."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit

from pharos_client.discovery import Target
from pharos_client.errors import PharosError

_LOCAL_SUFFIXES: Final = (".local", ".internal", ".lan", ".localdomain")


def sentence(error: PharosError) -> str:
    """What went wrong, with the reason where the gateway gave one."""
    reason = error.body.get("reason")
    return f"{error.detail}: {reason}" if isinstance(reason, str) else error.detail


def for_error(error: PharosError, target: Target) -> tuple[str, ...]:
    """What may help against *error* of the gateway at *target*."""
    if error.unreachable:
        return (
            f"The address comes from {target.url_from}.",
            "Start the local stack with `make run` (or `pharos up`), or name another gateway with --url or "
            "PHAROS_URL.",
            "`pharos doctor` looks for what is wrong.",
        )
    if error.status == 401:
        if target.token is None:
            return (
                f"No token was found ({target.token_from}).",
                "Set PHAROS_ADMIN_TOKEN_FILE, or PHAROS_HOME to the directory of the stack that runs.",
            )
        return (f"The token from {target.token_from} is not one of this gateway at {target.url}.",)
    if error.status == 429 and error.retry_after_seconds is not None:
        return (f"Try again in {error.retry_after_seconds:.0f} s.",)
    return ()


def for_refused_repository(repository: str, error: PharosError) -> tuple[str, ...]:
    """How to admit a host of one's own network, where *repository* is on one."""
    origin = private_origin(repository)
    if error.code != "invalid_repository_url" or origin is None:
        return ()
    return (
        "Only public https hosts are accepted unless the operator names others.",
        f'To admit this one as well, start Pharos with PHAROS_GIT_ALLOWED_HOSTS="*,{origin}"',
        "(`*` keeps every public https host; leave it out to accept nothing else).",
    )


def private_origin(repository: str) -> str | None:
    """``http://host:port`` of an address that is plain http or on a private network; None for public ones."""
    scheme, separator, _ = repository.partition("://")
    try:
        parts = urlsplit(repository if separator else f"https://{repository}")
        host, port = parts.hostname, parts.port
    except ValueError:
        return None
    if not host or (separator and scheme not in {"http", "https"}):
        return None
    if scheme != "http" and not _is_private(host):
        return None
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{port}" if port is not None else f"http://{shown}"


def _is_private(host: str) -> bool:
    try:
        return not ip_address(host).is_global
    except ValueError:
        return host == "localhost" or host.endswith(_LOCAL_SUFFIXES)
