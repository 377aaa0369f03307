"""What the local stack reads, on top of what each service reads for itself."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from msgspec import Meta

from pharos_service.settings import InvalidSettings, Secret, ServiceSettings

TOKEN_LENGTH_MIN = 32


class LocalSettings(ServiceSettings, frozen=True, kw_only=True):
    """Settings of ``make run``. They reach the services through their environment."""

    nats_url: Annotated[
        str, Meta(description="A NATS server to use; empty: the stack runs its own on this machine.")
    ] = ""
    host: Annotated[str, Meta(description="Address that the gateway listens on.", min_length=1)] = "127.0.0.1"
    port: Annotated[int, Meta(description="Port that the gateway listens on.", ge=1, le=65535)] = 8000
    nats_port: Annotated[
        int,
        Meta(
            description="Port of the stack's own NATS server, on loopback; "
            "0: a free one from 4322 to 4721, the same at each start if it can be.",
            ge=0,
            le=65535,
        ),
    ] = 0
    demo_git_port: Annotated[
        int,
        Meta(
            description="Port on loopback from which `make demo` may serve a repository: admitted beside "
            "every public host, unless PHAROS_GIT_ALLOWED_HOSTS is set; 0: none.",
            ge=0,
            le=65535,
        ),
    ] = 9418
    admin_token: Annotated[
        Secret,
        Meta(description="The bootstrap admin's credential; empty: generated at the first start."),
    ] = Secret("")
    secret_key: Annotated[
        Secret,
        Meta(
            description="What secrets are sealed with and those that sign callbacks are derived from, at "
            "least 32 characters; empty: generated at the first start."
        ),
    ] = Secret("")
    git_allowed_hosts: Annotated[
        str, Meta(description="Hosts that repositories may come from; empty: any public https host.")
    ] = ""
    worker_slots: Annotated[
        int, Meta(description="Jobs that the worker runs at once; 0: search only, no worker.", ge=0, le=16)
    ] = 1
    workers: Annotated[
        int,
        Meta(
            description="Processes that take jobs. Each beyond the first has an encoder of its own, and asks "
            "the first for the store.",
            ge=1,
            le=8,
        ),
    ] = 1

    def __post_init__(self) -> None:
        given = {"PHAROS_ADMIN_TOKEN": self.admin_token, "PHAROS_SECRET_KEY": self.secret_key}
        short = {name: len(secret.reveal()) for name, secret in given.items()}
        mistakes = [
            f"{name} has {length} characters; it needs at least {TOKEN_LENGTH_MIN}."
            for name, length in short.items()
            if 0 < length < TOKEN_LENGTH_MIN
        ]
        if self.workers > 1 and self.worker_slots == 0:
            mistakes.append(
                f"PHAROS_WORKERS is {self.workers} and PHAROS_WORKER_SLOTS is 0: workers need a slot each."
            )
        if mistakes:
            raise InvalidSettings(mistakes)

    @property
    def home_path(self) -> Path:
        return Path(self.home).expanduser().absolute()

    @property
    def url(self) -> str:
        """The gateway's address, as it is told."""
        return f"http://{_bracketed(self.host)}:{self.port}"

    @property
    def reachable_url(self) -> str:
        """The gateway's address for a client on this machine."""
        anywhere = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 (recognised, not bound)
        return f"http://{_bracketed(anywhere.get(self.host, self.host))}:{self.port}"

    @property
    def hosts_admitted(self) -> str:
        """PHAROS_GIT_ALLOWED_HOSTS of the services."""
        if self.git_allowed_hosts or not self.demo_git_port:
            return self.git_allowed_hosts
        return f"*,http://127.0.0.1:{self.demo_git_port}"


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
