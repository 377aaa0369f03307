"""What the gateway reads at its start, and every mistake in it as a sentence."""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Final
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from pharos_contracts.identity import InvalidName, token
from pharos_contracts.keys.v1 import Role
from pharos_service.settings import InvalidSettings, Secret, ServiceSettings
from pharos_sources import sealing
from pharos_sources.hosts import AllowedHosts, InvalidAllowedHost
from pharos_sources.roots import root_mistakes, root_of

MiB: Final = 1024 * 1024
TOKEN_LENGTH_MIN: Final = 32
TTL_SECONDS_MAX: Final = 86_400 * 30


class Anonymous(msgspec.Struct, frozen=True):
    """As whom a request without a credential acts."""

    tenant: str
    role: Role


class Settings(ServiceSettings, frozen=True, kw_only=True):
    """The gateway's settings."""

    host: Annotated[str, Meta(description="Address that the gateway listens on.")] = "127.0.0.1"
    port: Annotated[int, Meta(description="Port that the gateway listens on.", ge=0, le=65535)] = 8000
    admin_token: Annotated[
        Secret,
        Meta(
            description="The bootstrap admin's credential, at least 32 characters. "
            "`make run` generates one at its first start."
        ),
    ] = Secret("")
    git_allowed_hosts: Annotated[
        str,
        Meta(
            description="Hosts that repositories may come from: `host`, `host:port`, `https://host`, or "
            "`http://host:port`, which admits plain http and private addresses; `*` for every public https "
            "host beside them. Empty: any public https host."
        ),
    ] = ""
    web_allowed_hosts: Annotated[
        str,
        Meta(
            description="Hosts that documents and connections of the types `http`, `s3` and `google_drive` "
            "may be read from, written as in `PHAROS_GIT_ALLOWED_HOSTS`. Empty: any public https host."
        ),
    ] = ""
    upload_max_bytes: Annotated[
        int,
        Meta(
            description="Bytes that an uploaded file may have; a larger one is answered with 413.",
            ge=1,
            le=1_024 * MiB,
        ),
    ] = 100 * MiB
    local_roots: Annotated[
        tuple[str, ...],
        Meta(
            description="Directories of this machine below which connections of the type `local_directory` "
            "may read, whoever made them, as absolute paths, the same at gateways and workers. Empty: "
            "none may."
        ),
    ] = ()
    tenant_archives_max_mb: Annotated[
        int,
        Meta(
            description="MiB that the archives uploaded for connections of one tenant may have together.",
            ge=1,
            le=1_000_000,
        ),
    ] = 1_024
    source_seconds_max: Annotated[
        float,
        Meta(
            description="How long a request that tests a connection or lists its files may take, in seconds.",
            ge=0.1,
            le=300,
        ),
    ] = 20.0
    callback_allowed_hosts: Annotated[
        str,
        Meta(
            description="Hosts that callbacks may be sent to, written as in `PHAROS_GIT_ALLOWED_HOSTS`. "
            "Empty: any public https host."
        ),
    ] = ""
    secret_key: Annotated[
        Secret,
        Meta(
            description="What the secrets of connections and webhooks are sealed with and those that sign "
            "callbacks are derived from, at least 32 characters, the same at gateways and workers. Several, "
            "separated by commas: the newest first, which seals and signs, all open. Empty: jobs with a "
            "callback, connections with a secret and webhooks are refused."
        ),
    ] = Secret("")
    tenant_queue_max: Annotated[
        int,
        Meta(
            description="Repositories of one tenant that may wait at once, and as many documents; 0: as many "
            "as fit.",
            ge=0,
        ),
    ] = 0
    task_ttl_seconds: Annotated[
        int,
        Meta(
            description="How long a job may wait before it is skipped instead of run.",
            ge=1,
            le=TTL_SECONDS_MAX,
        ),
    ] = 86_400
    public_status: Annotated[
        bool,
        Meta(description="Whether worker status and history of tenant `default` are shown without a key."),
    ] = True
    anonymous: Annotated[
        str,
        Meta(
            description="`<tenant>:<role>`: as whom requests without a credential act, but for those of "
            "pages from elsewhere than PHAROS_CORS_ORIGINS admits. Empty: they get 401."
        ),
    ] = ""
    trusted_proxies: Annotated[
        tuple[str, ...],
        Meta(description="Addresses or networks of proxies whose `X-Forwarded-*` headers are believed."),
    ] = ()
    cors_origins: Annotated[
        tuple[str, ...],
        Meta(description="Origins whose browsers may call the API; `*` for all. Empty: none."),
    ] = ()
    streams_max: Annotated[
        int,
        Meta(
            description="Event streams and WebSockets that may be open at once, all together.",
            ge=1,
            le=100_000,
        ),
    ] = 2_000
    streams_per_key_max: Annotated[
        int,
        Meta(
            description="Event streams and WebSockets that one key, or one address without a key, "
            "may have open.",
            ge=1,
            le=100_000,
        ),
    ] = 500
    rate_limit_key_per_minute: Annotated[
        int,
        Meta(
            description="Requests a minute that one key may make, at all gateways together; 0: as many as it "
            "likes. A burst may have as many.",
            ge=0,
            le=10_000_000,
        ),
    ] = 6_000
    rate_limit_address_per_minute: Annotated[
        int,
        Meta(
            description="Requests a minute without a key from one address (with IPv6: from one /64); 0: as "
            "many as it likes.",
            ge=0,
            le=10_000_000,
        ),
    ] = 6_000
    rate_limit_guesses_per_minute: Annotated[
        int,
        Meta(
            description="Credentials that are not valid, which one address may present a minute before it is "
            "not listened to for a while; 0: as many as it likes.",
            ge=0,
            le=1_000_000,
        ),
    ] = 20
    rate_limit_jobs_per_day: Annotated[
        int,
        Meta(
            description="Jobs that one user who is no admin may start a day, each push to a branch that they "
            "watch for one; 0: as many as they like.",
            ge=0,
            le=10_000_000,
        ),
    ] = 1_000
    disk_free_min_mb: Annotated[
        int,
        Meta(
            description="MiB that must be free on the disk of `PHAROS_HOME` for a job to be taken; below, a "
            "submit is answered with 507. 0: never.",
            ge=0,
            le=100_000_000,
        ),
    ] = 512

    def __post_init__(self) -> None:
        mistakes = [
            *_token_mistakes(self.admin_token),
            *_anonymous_mistakes(self.anonymous),
            *_hosts_mistakes("PHAROS_GIT_ALLOWED_HOSTS", self.git_allowed_hosts),
            *_hosts_mistakes("PHAROS_WEB_ALLOWED_HOSTS", self.web_allowed_hosts),
            *_hosts_mistakes("PHAROS_CALLBACK_ALLOWED_HOSTS", self.callback_allowed_hosts),
            *sealing.mistakes_in(self.secret_key.reveal()),
            *(mistake for root in self.local_roots for mistake in root_mistakes(root)),
            *(mistake for proxy in self.trusted_proxies for mistake in _proxy_mistakes(proxy)),
            *(mistake for origin in self.cors_origins for mistake in _origin_mistakes(origin)),
        ]
        if mistakes:
            raise InvalidSettings(mistakes)

    @property
    def allowed_hosts(self) -> AllowedHosts:
        return AllowedHosts.parse(self.git_allowed_hosts)

    @property
    def web_hosts(self) -> AllowedHosts:
        return AllowedHosts.parse(self.web_allowed_hosts)

    @property
    def roots(self) -> tuple[Path, ...]:
        return tuple(root_of(root) for root in self.local_roots)

    @property
    def callback_hosts(self) -> AllowedHosts:
        return AllowedHosts.parse(self.callback_allowed_hosts)

    @property
    def secret_keys(self) -> tuple[str, ...]:
        return sealing.keys_in(self.secret_key.reveal())

    @property
    def anonymous_caller(self) -> Anonymous | None:
        if not self.anonymous:
            return None
        tenant, _, role = self.anonymous.partition(":")
        return Anonymous(tenant, Role(role))


def _token_mistakes(admin_token: Secret) -> list[str]:
    length = len(admin_token.reveal())
    if length == 0:
        return [
            f"PHAROS_ADMIN_TOKEN is missing: set it, or PHAROS_ADMIN_TOKEN_FILE, to a random text of at "
            f"least {TOKEN_LENGTH_MIN} characters."
        ]
    if length < TOKEN_LENGTH_MIN:
        return [f"PHAROS_ADMIN_TOKEN has {length} characters; it needs at least {TOKEN_LENGTH_MIN}."]
    return []


def _anonymous_mistakes(text: str) -> list[str]:
    if not text:
        return []
    tenant, _, role = text.partition(":")
    try:
        token(tenant)
        Role(role)
    except (InvalidName, ValueError):
        return [
            f"PHAROS_ANONYMOUS is {text[:80]!r}; it must be <tenant>:<role> with the role viewer, editor "
            "or admin."
        ]
    return []


def _hosts_mistakes(variable: str, text: str) -> list[str]:
    try:
        AllowedHosts.parse(text)
    except InvalidAllowedHost as error:
        return [f"{variable}: {error.entry!r}: {error.reason}."]
    return []


def _proxy_mistakes(proxy: str) -> list[str]:
    if proxy == "*":
        return []
    try:
        ip_network(proxy)
    except ValueError:
        return [f"PHAROS_TRUSTED_PROXIES has {proxy[:80]!r}, which is neither an address nor a network."]
    return []


def _origin_mistakes(origin: str) -> list[str]:
    parts = urlsplit(origin)
    if origin == "*" or (parts.scheme in ("http", "https") and parts.netloc and not parts.path):
        return []
    return [f"PHAROS_CORS_ORIGINS has {origin[:80]!r}, which is not an origin such as https://example.com."]
