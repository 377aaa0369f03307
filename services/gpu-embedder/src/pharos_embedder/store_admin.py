"""What an operator does with the store: ``pharos-store stats | check | snapshot | restore | migrate``.

It asks the process that owns the embedded store, while the service runs; where there is none it opens the
index itself. The records that say what is live are on the bus, which has to run.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Final

import anyio
import anyio.from_thread
import anyio.to_thread

from pharos_contracts import streams
from pharos_contracts.datasets.v1 import Dataset, DatasetRecord
from pharos_contracts.identity import dataset_key
from pharos_contracts.invariants import differences
from pharos_embedder import snapshots
from pharos_embedder.asked_store import asked_store
from pharos_embedder.dataset_locks import DatasetLocks, LockLost
from pharos_embedder.edge_store import edge_store, stored_dimensions
from pharos_embedder.migration import migrate
from pharos_embedder.ports import Check
from pharos_embedder.qdrant_address import InvalidQdrantAddress, check_address, key_in_the_clear
from pharos_embedder.qdrant_store import collection_dimensions, qdrant_store
from pharos_embedder.settings import Settings
from pharos_embedder.snapshot_file import BadSnapshot
from pharos_embedder.snapshots import CannotCopy, opening_of
from pharos_embedder.vectors import (
    DatasetKey,
    DimensionMismatch,
    StoreError,
    StoreFacts,
    StoreUnavailable,
    VectorStore,
)
from pharos_service import logs
from pharos_service.buckets import Bucket, Entry
from pharos_service.bus import Bus, BusError, connect
from pharos_service.pull import CaughtUp
from pharos_service.settings import InvalidSettings, load

CONNECT_SECONDS: Final = 15.0
LIST_SECONDS: Final = 30.0


class Disagreement(Exception):
    """The store has not what the records say; the text says where."""


class BusRecords:
    """``snapshots.Records`` over the bus, asked from a thread of the event loop."""

    def __init__(self, bus: Bus) -> None:
        self._bucket = Bucket[DatasetRecord](bus, streams.KV_DATASETS, DatasetRecord)

    def get(self, key: DatasetKey) -> Entry[DatasetRecord] | None:
        return anyio.from_thread.run(self._bucket.get, _name(key))

    def set(self, key: DatasetKey, record: DatasetRecord, after: Entry[DatasetRecord] | None) -> bool:
        if after is None:
            return anyio.from_thread.run(self._bucket.create, _name(key), record) is not None
        return anyio.from_thread.run(self._bucket.update, _name(key), record, after.revision) is not None

    async def live(self) -> list[Dataset]:
        """Every dataset that is live, by name. TimeoutError where the bus does not tell."""
        found: dict[str, Dataset] = {}
        async with asyncio.timeout(LIST_SECONDS):
            watch = self._bucket.watch()
            try:
                async for change in watch:
                    if isinstance(change, CaughtUp):
                        break
                    if isinstance(change, Entry) and isinstance(change.value, Dataset):
                        found[change.key] = change.value
            finally:
                await watch.aclose()
        return sorted(found.values(), key=snapshots.key_of)


def _name(key: DatasetKey) -> str:
    return dataset_key(key.tenant, key.project, key.dataset)


async def _store(bus: Bus, settings: Settings, made_for: int | None) -> tuple[VectorStore, int]:
    """The store, not opened, and the length of its first text vectors; *made_for* where there is none yet."""
    if settings.uses_server:
        return await anyio.to_thread.run_sync(partial(_server, settings, settings.qdrant_url, made_for))
    asking = asked_store(bus, dimensions=0)
    try:
        await anyio.to_thread.run_sync(asking.open)
    except DimensionMismatch as told:
        return asked_store(bus, dimensions=told.stored), told.stored
    except StoreUnavailable:
        pass
    folder = settings.home_path / "index"
    dimensions = stored_dimensions(folder) or made_for
    if dimensions is None:
        raise StoreError(f"There is no index at {folder}, and no process that owns one answers on the bus.")
    return edge_store(folder, dimensions=dimensions), dimensions


def _server(settings: Settings, url: str, made_for: int | None) -> tuple[VectorStore, int]:
    api_key = settings.qdrant_api_key.reveal() if settings.qdrant_api_key else None
    dimensions = collection_dimensions(url, api_key) or made_for
    if dimensions is None:
        raise StoreError(f"There is no index on the Qdrant server at {url}.")
    return qdrant_store(url, dimensions=dimensions, api_key=api_key), dimensions


@contextmanager
def _opened(store: VectorStore) -> Iterator[VectorStore]:
    store.open()
    try:
        yield store
    finally:
        store.close()


def _wanted(names: Sequence[str], live: Sequence[Dataset]) -> list[Dataset]:
    """Those of *live* that are called like one of *names*, or all. CannotCopy for a name of none."""
    for name in names:
        if not any(each.dataset == name for each in live):
            raise CannotCopy(f"There is no dataset {name}; `pharos-store stats` lists them")
    return [each for each in live if not names or each.dataset in names]


def _stats(live: Sequence[Dataset], store: VectorStore) -> str:
    records = {snapshots.key_of(each): each for each in live}
    with _opened(store):
        lines = [f"{'dataset':<48} {'chunks':>9} {'files':>8} {'points':>9} {'not live':>9} generations"]
        for key in sorted(store.datasets() | records.keys()):
            record, size = records.get(key), store.size(key)
            shown = dict.fromkeys(("chunk", "file", "lexicon", "graph"), 0)
            if record is not None:
                shown = {kind: store.count(key, record.generation, kind) for kind in shown}  # type: ignore[arg-type]
            lines.append(
                f"{_shown(key):<48} {shown['chunk']:>9} {shown['file']:>8} "
                f"{size:>9} {size - sum(shown.values()):>9} {len(store.generations(key)):>11}"
                + ("" if record is not None else "  (no record)")
            )
        lines += ["", _facts(store.facts())]
    return "\n".join(lines)


def _check(live: Sequence[Dataset], store: VectorStore) -> str:
    """Whether the store has what the records say, for a store whose service may rest. Raises Disagreement.

    ``pharos-bus check`` says the same while the service runs, and more: it knows the jobs.
    """
    lines, chunks = [], 0
    with _opened(store):
        for record in live:
            key = snapshots.key_of(record)
            found = store.inspect(key, record.generation)
            chunks += found.chunks
            lines += [f"{_shown(key)}: {each}" for each in differences(record, found)]
        for key in sorted(store.datasets() - {snapshots.key_of(each) for each in live}):
            lines.append(f"{_shown(key)}: {store.size(key)} points, and no record (a job may be at work)")
    if lines:
        raise Disagreement("\n".join(lines))
    return f"{len(live)} datasets, {chunks} chunks: the store has what the records say."


def _shown(key: DatasetKey) -> str:
    return f"{key.tenant}/{key.project}/{key.dataset}"


def _facts(facts: StoreFacts) -> str:
    if facts.bytes_on_disk is None:
        return f"{facts.points} points in all; the server knows the rest."
    at = "never"
    if facts.optimized_at is not None:
        at = datetime.fromtimestamp(facts.optimized_at, UTC).isoformat(timespec="seconds")
    return (
        f"{facts.points} points in all, {facts.bytes_on_disk >> 20} MiB on disk; "
        f"optimized: {at}, and {facts.written} points written since."
    )


def _snapshot(
    path: Path, wanted: Sequence[Dataset], store: VectorStore, records: BusRecords, dimensions: int
) -> str:
    with _opened(store):
        taken = snapshots.take(
            path, [snapshots.key_of(each) for each in wanted], store, records, dimensions=dimensions
        )
    chunks = sum(each.chunks for each in taken.values())
    return f"{path}: {len(taken)} datasets, {chunks} chunks, {path.stat().st_size} bytes"


def _restore(path: Path, store: VectorStore, records: BusRecords, hold: snapshots.Hold, replace: bool) -> str:
    with _opened(store):
        restored = snapshots.restore(
            path,
            store,
            records,
            hold=hold,
            now=lambda: datetime.now(UTC),
            replace=replace,
        )
    return "\n".join(
        f"{key.dataset}: {each.chunks} chunks, {each.files} files" for key, each in restored.items()
    )


def _check_target(url: str, settings: Settings) -> None:
    """Raises CannotCopy; warns of a key that anybody on the way can read."""
    if settings.uses_server:
        raise CannotCopy("PHAROS_QDRANT_URL is set already: unset it to migrate from the embedded index")
    try:
        check_address(url)
    except InvalidQdrantAddress as invalid:
        raise CannotCopy(f"The address of the Qdrant server is not valid: {invalid}") from None
    if key_in_the_clear(url, settings.qdrant_api_key.reveal()):
        print("PHAROS_QDRANT_API_KEY is sent unencrypted: use https.", file=sys.stderr)


def _migrate(
    url: str, wanted: Sequence[Dataset], store: VectorStore, dimensions: int, settings: Settings
) -> str:
    key = settings.qdrant_api_key.reveal() if settings.qdrant_api_key else None
    target = qdrant_store(url, dimensions=dimensions, api_key=key)
    lines = []
    with _opened(store), _opened(target):
        for record in wanted:
            done = migrate(record, store, target)
            lines.append(f"{record.dataset}: {done.points} points, {done.sent} of them sent now")
    lines.append(f"Set PHAROS_QDRANT_URL to {url} and start the service again; the records stay as they are.")
    return "\n".join(lines)


async def _act(bus: Bus, arguments: argparse.Namespace, settings: Settings) -> str:
    records = BusRecords(bus)
    made_for = None
    if arguments.command == "restore":
        made_for = (await anyio.to_thread.run_sync(opening_of, arguments.file)).text_dimensions
    if arguments.command == "migrate":
        _check_target(arguments.to, settings)
    store, dimensions = await _store(bus, settings, made_for)
    live = await records.live()
    match arguments.command:
        case "stats":
            act = partial(_stats, live, store)
        case "check":
            act = partial(_check, live, store)
        case "snapshot":
            wanted = _wanted(arguments.dataset, live)
            act = partial(_snapshot, arguments.file, wanted, store, records, dimensions)
        case "restore":
            hold = partial(_holding, DatasetLocks(bus, "pharos-store"))
            act = partial(_restore, arguments.file, store, records, hold, arguments.replace)
        case _:
            wanted = _wanted(arguments.dataset, live)
            act = partial(_migrate, arguments.to, wanted, store, dimensions, settings)
    return await anyio.to_thread.run_sync(act)


@contextmanager
def _holding(locks: DatasetLocks, key: DatasetKey) -> Iterator[Check]:
    """``snapshots.Hold``, in a thread of the event loop. Raises CannotCopy."""
    holding = locks.hold(key)
    try:
        check = anyio.from_thread.run(holding.__aenter__)
    except TimeoutError:
        raise CannotCopy(f"Others write to the dataset {key.dataset}; try again when they are done") from None
    try:
        yield check
    except LockLost:
        raise CannotCopy(
            f"The bus was away for too long while {key.dataset} was restored; restore it again"
        ) from None
    finally:
        anyio.from_thread.run(holding.__aexit__, None, None, None)


async def _run(arguments: argparse.Namespace, settings: Settings) -> int:
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            bus = await connect(settings, "pharos-store")
    except TimeoutError:
        print(
            f"No NATS server answers at {settings.nats_url} within {CONNECT_SECONDS:.0f} s. Start it, "
            "or set PHAROS_NATS_URL (and PHAROS_NATS_USER, PHAROS_NATS_PASSWORD).",
            file=sys.stderr,
        )
        return 1
    try:
        print(await _act(bus, arguments, settings))
        return 0
    except Disagreement as found:
        print(found)
    except (CannotCopy, BadSnapshot, StoreError) as error:
        print(error, file=sys.stderr)
    except OSError as error:
        print(_told(error), file=sys.stderr)
    except BusError as error:
        print(f"The bus does not answer: {error}", file=sys.stderr)
    finally:
        await bus.client.close()
    return 1


def _told(error: OSError) -> str:
    """What went wrong with which file, without the number that the system has for it."""
    if error.filename is None or error.strerror is None:
        return str(error)
    return f"{error.filename}: {error.strerror}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="pharos-store", description=(__doc__ or "").partition("\n\n")[2])
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("stats", help="say what is stored of each dataset, and how much of it is not live")
    commands.add_parser("check", help="say where the store has not what the records say (exit 1 if anywhere)")
    taking = commands.add_parser("snapshot", help="write datasets to a file, while the service runs")
    taking.add_argument("file", type=Path)
    restoring = commands.add_parser("restore", help="read datasets from such a file and publish them")
    restoring.add_argument("file", type=Path)
    restoring.add_argument("--replace", action="store_true", help="also those that are live")
    migrating = commands.add_parser("migrate", help="bring datasets to a Qdrant server; may be repeated")
    migrating.add_argument("--to", required=True, metavar="URL", help="its key is PHAROS_QDRANT_API_KEY")
    for command in (taking, migrating):
        command.add_argument("--dataset", action="append", default=[], metavar="NAME", help="not all")
    return parser


def main() -> None:
    """The command ``pharos-store``."""
    arguments = _parser().parse_args()
    try:
        settings = load(Settings, os.environ)
    except InvalidSettings as error:
        raise SystemExit("\n".join(error.mistakes)) from None
    logs.configure(service="pharos-store", level="error", format=settings.log_format)
    raise SystemExit(asyncio.run(_run(arguments, settings)))


if __name__ == "__main__":
    main()
