"""``python -m pharos_gateway.rotate_secrets``: seal all secrets under the newest key.

Put the new key before the old one in ``PHAROS_SECRET_KEY``, separated by a comma, and restart what reads it;
run this; then take the old one away. It may run while everything else does, and again.
"""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Annotated, Final, TypeVar

import msgspec
from msgspec import Meta
from msgspec.structs import replace

from pharos_contracts.connections.v1 import Connection
from pharos_contracts.streams import KV_CONNECTIONS, KV_WATCHES
from pharos_contracts.watches.v1 import Watch
from pharos_service import logs
from pharos_service.buckets import Bucket
from pharos_service.bus import Bus, BusError, connect
from pharos_service.running import EXIT_SETTINGS
from pharos_service.settings import InvalidSettings, Secret, ServiceSettings, load
from pharos_sources.sealing import Sealer, Unopenable, keys_in

CONNECT_SECONDS: Final = 15.0
TRIES_MAX: Final = 5
EXIT_WRONG: Final = 1

V = TypeVar("V", Connection, Watch)


class RotationSettings(ServiceSettings, frozen=True, kw_only=True):
    """What the command reads."""

    secret_key: Annotated[
        Secret, Meta(description="The keys that secrets are sealed under, the newest first.")
    ] = Secret("")

    def __post_init__(self) -> None:
        if not keys_in(self.secret_key.reveal()):
            raise InvalidSettings(["PHAROS_SECRET_KEY is missing: without it there is nothing to seal with."])


class Rotated(msgspec.Struct, frozen=True, kw_only=True):
    """How many were sealed anew, were so already, and could not be opened; those by their ids."""

    anew: int
    already: int
    unopenable: tuple[str, ...]

    def sentence(self) -> str:
        lost = f"; {len(self.unopenable)} cannot be opened: {', '.join(self.unopenable)}"
        return (
            f"{self.anew} sealed under the newest key, {self.already} were already"
            f"{lost if self.unopenable else ''}."
        )


async def rotate(bus: Bus, sealer: Sealer) -> Rotated:
    """Every secret under the newest key. Errors of the bus pass through."""
    of_connections = await _rotate_all(bus, KV_CONNECTIONS, Connection, sealer)
    of_watches = await _rotate_all(bus, KV_WATCHES, Watch, sealer)
    return Rotated(
        anew=of_connections.anew + of_watches.anew,
        already=of_connections.already + of_watches.already,
        unopenable=of_connections.unopenable + of_watches.unopenable,
    )


async def _rotate_all(bus: Bus, name: str, kind: type[V], sealer: Sealer) -> Rotated:
    """What the bucket called *name* holds."""
    bucket = Bucket(bus, name, kind)
    prefix = f"$KV.{name}."
    info = await bus.api(f"STREAM.INFO.KV_{name}", {"subjects_filter": f"{prefix}>"})
    anew, already = 0, 0
    unopenable: list[str] = []
    for subject in sorted(info["state"].get("subjects") or ()):
        key = subject.removeprefix(prefix)
        try:
            changed = await _rotate_one(bucket, sealer, key)
        except Unopenable:
            unopenable.append(key)
            continue
        anew += changed is True
        already += changed is False
    return Rotated(anew=anew, already=already, unopenable=tuple(unopenable))


async def _rotate_one(bucket: Bucket[V], sealer: Sealer, key: str) -> bool | None:
    """Whether it is sealed anew; None where it is gone or has no secret. Unopenable."""
    for _ in range(TRIES_MAX):
        entry = await bucket.get(key)
        if entry is None or entry.value.sealed is None:
            return None
        value = entry.value
        assert value.sealed is not None, "just looked at"
        name = value.watch_id if isinstance(value, Watch) else value.connection_id
        sealed = sealer.reseal(value.sealed, tenant=value.tenant, connection_id=name)
        if sealed == value.sealed:
            return False
        if await bucket.update(key, replace(value, sealed=sealed), entry.revision) is not None:
            return True
    raise BusError(f"The entry {key} is being changed all the time")


async def run(settings: RotationSettings) -> int:
    """Connect, rotate, say what was done; the exit code."""
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            bus = await connect(settings, "pharos-rotate-secrets")
    except (TimeoutError, OSError):
        sys.stderr.write(f"No bus answers at {settings.nats_url}.\n")
        return EXIT_WRONG
    try:
        rotated = await rotate(bus, Sealer(keys_in(settings.secret_key.reveal())))
    except BusError as error:
        sys.stderr.write(f"{error}. Run it again: what is done stays done.\n")
        return EXIT_WRONG
    finally:
        await bus.client.close()
    sys.stdout.write(rotated.sentence() + "\n")
    return EXIT_WRONG if rotated.unopenable else 0


def main() -> int:
    try:
        settings = load(RotationSettings, os.environ)
    except InvalidSettings as error:
        for mistake in error.mistakes:
            sys.stderr.write(f"{mistake}\n")
        return EXIT_SETTINGS
    logs.configure(service="rotate-secrets", level=settings.log_level, format=settings.log_format)
    return asyncio.run(run(settings))


if __name__ == "__main__":
    raise SystemExit(main())
