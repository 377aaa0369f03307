"""Watches: repositories that are indexed when somebody pushes to them. Kept in the bucket ``watches``."""

from __future__ import annotations

from base64 import urlsafe_b64encode
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from pharos_contracts.identity import PROJECT_DEFAULT, InvalidName, token
from pharos_contracts.jobs.v1 import Priority, RepositorySource, Scope
from pharos_contracts.streams import KV_WATCHES
from pharos_contracts.watches.v1 import Watch
from pharos_gateway.addressing import repository_dataset
from pharos_gateway.entries import entries
from pharos_gateway.keys import RandomBytes
from pharos_gateway.project_names import one_project
from pharos_gateway.resolving import Address
from pharos_gateway.scheduling import NO_CONTROLS
from pharos_gateway.sight import Sight
from pharos_gateway.watch_store import WatchStore
from pharos_service.buckets import Bucket, Entry
from pharos_service.bus import Bus, BusRefused, StreamFull
from pharos_sources.hosts import AllowedHosts
from pharos_sources.repository_url import parse_repository_url
from pharos_sources.sealing import Sealer

WATCHES_PER_TENANT_MAX: Final = 1_000
WATCHES_PER_REPOSITORY_MAX: Final = 10  # of one tenant: what is sent is compared with each
BRANCHES_MAX: Final = 20
SECRET_BYTES: Final = 32
TRIES_MAX: Final = 5
# A gateway that was away for longer looks a watch up before anything follows from it.
TOMBSTONE_SECONDS: Final = 86_400
PATH: Final = "/webhooks/github"

_Name = Annotated[str, Meta(min_length=1, max_length=64)]
_Pattern = Annotated[str, Meta(min_length=1, max_length=255, pattern=NO_CONTROLS)]


class WatchRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which repository to watch, and where its commits go."""

    repo_url: Annotated[str, Meta(max_length=2_048, description="As for a submit, without a branch.")]
    branches: Annotated[
        list[_Pattern],
        Meta(
            max_length=BRANCHES_MAX,
            description="Patterns, one of which must fit: `*` is any text, slashes too, `?` one character. "
            "Default: the repository's default branch.",
        ),
    ] = []
    project: _Name = PROJECT_DEFAULT
    dataset: (
        Annotated[
            str,
            Meta(
                min_length=1,
                max_length=512,
                pattern=NO_CONTROLS,
                description="Only where at most one branch is watched. Default: one for each branch.",
            ),
        ]
        | None
    ) = None
    scope: Scope = Scope.PROJECT
    priority: Priority = Priority.NORMAL


class WatchView(msgspec.Struct, frozen=True, kw_only=True):
    """A watch, without what proves who pushes. ``path`` is where GitHub is to send to, at this gateway."""

    id: str
    tenant: str
    repository: str
    branches: tuple[str, ...]
    project: str
    dataset: str | None
    scope: Scope
    priority: Priority
    path: str
    created_at: datetime
    created_by: str


class CreatedWatch(WatchView, frozen=True, kw_only=True):
    """A watch and the secret to give to GitHub, which is shown this once."""

    secret: str


class WatchList(msgspec.Struct, frozen=True, kw_only=True):
    """By tenant and id; ``truncated`` where there are more than 1,000."""

    webhooks: tuple[WatchView, ...]
    truncated: bool


class WebhooksDisabled(Exception):
    """There is nothing to seal their secrets with."""

    def __init__(self) -> None:
        super().__init__("Webhooks need the setting PHAROS_SECRET_KEY, which this installation does not have")


class InvalidWatch(ValueError):
    """A watch cannot be as it was asked for; ``field`` names what is wrong."""

    def __init__(self, field: str, detail: str) -> None:
        super().__init__(detail)
        self.field = field
        self.detail = detail


class TooManyWatches(Exception):
    """There is no room for another watch; the text says of what there are too many."""


class Watching:
    """The use cases. Errors of the bus pass through."""

    def __init__(
        self,
        bus: Bus,
        bucket: Bucket[Watch],
        store: WatchStore,
        sealer: Sealer | None,
        *,
        allowed_hosts: AllowedHosts,
        check_host: Callable[[Address], Awaitable[None]],
        now: Callable[[], datetime],
        new_id: Callable[[], str],
        random: RandomBytes,
    ) -> None:
        self._bus = bus
        self._bucket = bucket
        self._store = store
        self._sealer = sealer
        self._allowed_hosts = allowed_hosts
        self._check_host = check_host
        self._now = now
        self._new_id = new_id
        self._random = random

    async def create(self, request: WatchRequest, *, tenant: str, by: str, quota: str | None) -> CreatedWatch:
        """A new watch.

        WebhooksDisabled, InvalidWatch, ReservedDataset, TooManyWatches, InvalidRepositoryUrl, InvalidName,
        ReservedProject, HostRefused.
        """
        if self._sealer is None:
            raise WebhooksDisabled
        address = parse_repository_url(request.repo_url, allowed_hosts=self._allowed_hosts)
        if address.branch is not None:
            raise InvalidWatch("repo_url", "Name branches in branches, not in repo_url")
        if request.dataset is not None and not _is_one_branch(request.branches):
            raise InvalidWatch(
                "dataset",
                "Several branches would overwrite each other in one dataset: watch one, or name none",
            )
        repository_dataset(request.dataset)
        one_project(request.project)
        self._check_room(tenant, address.key)
        await self._check_host(address)
        watch_id = self._new_id()
        secret = urlsafe_b64encode(self._random(SECRET_BYTES)).rstrip(b"=")
        watch = Watch(
            watch_id=watch_id,
            tenant=tenant,
            source=RepositorySource(identity=address.identity, clone_url=address.clone_url),
            repository_key=address.key,
            branches=tuple(dict.fromkeys(request.branches)),
            project=request.project,
            dataset=request.dataset,
            scope=request.scope,
            priority=request.priority,
            sealed=self._sealer.seal(secret, tenant=tenant, connection_id=watch_id),
            quota=quota,
            created_at=self._now(),
            created_by=by,
        )
        key = key_of(tenant, watch_id)
        try:
            revision = await self._bucket.create(key, watch)
        except StreamFull as error:
            raise TooManyWatches("There is no room for more webhooks") from error
        assert revision is not None, "a UUID does not come twice"
        self._store.note(Entry(key, watch, revision))
        return CreatedWatch(**_shown(watch), secret=secret.decode())

    def _check_room(self, tenant: str, repository_key: str) -> None:
        watches = self._store.of_tenant(tenant)
        if len(watches) >= WATCHES_PER_TENANT_MAX:
            raise TooManyWatches(f"A tenant has at most {WATCHES_PER_TENANT_MAX} webhooks")
        same = sum(watch.repository_key == repository_key for watch in watches)
        if same >= WATCHES_PER_REPOSITORY_MAX:
            raise TooManyWatches(f"A repository has at most {WATCHES_PER_REPOSITORY_MAX} webhooks")

    async def list(self, sight: Sight) -> WatchList:
        """Those that *sight* shows."""
        tenant = "*" if sight.tenant is None else token(sight.tenant)
        found, truncated = await entries(self._bus, KV_WATCHES, self._bucket, f"{tenant}.*")
        shown = (watch for watch in found if sight.project(watch.project))
        return WatchList(webhooks=tuple(WatchView(**_shown(watch)) for watch in shown), truncated=truncated)

    async def one(self, sight: Sight, watch_id: str) -> WatchView | None:
        """The one of that id in the tenant of *sight*, if it is shown."""
        entry = await self._entry(sight, watch_id)
        return None if entry is None else WatchView(**_shown(entry.value))

    async def remove(self, sight: Sight, watch_id: str) -> bool:
        """Whether it was there, and is no more. A job that a push has started goes on."""
        for _ in range(TRIES_MAX):
            entry = await self._entry(sight, watch_id)
            if entry is None:
                return False
            if await self._bucket.delete(entry.key, entry.revision, tombstone_seconds=TOMBSTONE_SECONDS):
                self._store.forget(entry.key)
                return True
        raise BusRefused("The webhook is being changed by somebody else")

    async def _entry(self, sight: Sight, watch_id: str) -> Entry[Watch] | None:
        assert sight.tenant is not None, "an id is looked for in one tenant"
        try:
            entry = await self._bucket.get(key_of(sight.tenant, watch_id))
        except InvalidName:
            return None
        return entry if entry is not None and sight.project(entry.value.project) else None


def key_of(tenant: str, watch_id: str) -> str:
    """The key of a watch in its bucket. InvalidName."""
    return f"{token(tenant)}.{token(watch_id)}"


def _is_one_branch(patterns: list[str]) -> bool:
    """Whether at most one branch fits."""
    return len(patterns) <= 1 and not any(character in pattern for pattern in patterns for character in "*?[")


def _shown(watch: Watch) -> dict[str, Any]:
    return {
        "id": watch.watch_id,
        "tenant": watch.tenant,
        "repository": watch.source.identity,
        "branches": watch.branches,
        "project": watch.project,
        "dataset": watch.dataset,
        "scope": watch.scope,
        "priority": watch.priority,
        "path": PATH,
        "created_at": watch.created_at,
        "created_by": watch.created_by,
    }
