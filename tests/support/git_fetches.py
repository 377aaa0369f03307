"""What tests of fetches ask of a git server and of a checkout."""

from __future__ import annotations

from pathlib import Path

from pharos_sources.git import Checkout
from pharos_sources.repository_url import AllowedHosts, RepositoryAddress, parse_repository_url
from tests.support.git_server import GitServer


def address_of(server: GitServer, name: str, suffix: str = "") -> RepositoryAddress:
    """The repository *name* of *server*, whose host is admitted; *suffix* names a branch or a commit."""
    allowed = AllowedHosts.parse(server.allowed_hosts)
    return parse_repository_url(server.url(name) + suffix, allowed_hosts=allowed)


def files_in(checkout: Checkout) -> dict[str, bytes]:
    """The content of every file, by its path; a link is a mistake."""
    found = {}
    for path in checkout.root.rglob("*"):
        assert not path.is_symlink()
        if path.is_file():
            found[str(path.relative_to(checkout.root))] = path.read_bytes()
    return found


def git_processes(marker: str) -> list[str]:
    """Command lines of living processes whose environment or arguments mention *marker*."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            if marker.encode() in (entry / "environ").read_bytes():
                found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue
    return found
