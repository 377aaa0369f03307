"""Making the server agree with what the contracts declare, and seeing that what it holds agrees with itself:
``pharos-bus apply | diff | status | check``.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Mapping
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from pharos_contracts import streams as declared
from pharos_contracts.invariants import GRACE_SECONDS
from pharos_service import logs
from pharos_service.bus import Bus, BusError, BusRefused, NotFound, connect
from pharos_service.bus_check import SETTLE_SECONDS, Unanswered, check, report
from pharos_service.settings import InvalidSettings, ServiceSettings, load

CONNECT_SECONDS: Final = 15.0
EXIT_WRONG: Final = 1
EXIT_UNKNOWN: Final = 2
NANOSECONDS: Final = 1_000_000_000
# How a stream is written to disk is decided when it is made.
PERSIST_MODE: Final = "persist_mode"


class BusSettings(ServiceSettings, frozen=True, kw_only=True):
    """What ``pharos-bus`` reads."""

    queue_max: Annotated[
        int,
        Meta(
            description="How many repository jobs may wait; a submit beyond is answered with 429.",
            ge=1,
            le=10_000,
        ),
    ] = 10
    documents_queue_max: Annotated[
        int, Meta(description="How many documents may wait.", ge=1, le=1_000_000)
    ] = 1000
    bus_replicas: Annotated[
        int, Meta(description="Copies of every stream in a NATS cluster: 1, 3 or 5.", ge=1, le=5)
    ] = 1


class Difference(msgspec.Struct, frozen=True):
    """One thing to change: ``fields`` maps what differs to (what is, what should be)."""

    kind: str
    name: str
    exists: bool
    fields: dict[str, tuple[Any, Any]]

    def sentence(self) -> str:
        if not self.exists:
            return f"{self.kind} {self.name}: missing"
        changes = ", ".join(f"{key}: {old!r} -> {new!r}" for key, (old, new) in sorted(self.fields.items()))
        return f"{self.kind} {self.name}: {changes}"


def _ns(seconds: float) -> int:
    return int(seconds * NANOSECONDS)


def stream_config(stream: declared.Stream, replicas: int) -> dict[str, Any]:
    """*stream* in the words of JetStream's API."""
    config: dict[str, Any] = {
        "name": stream.name,
        "description": stream.about,
        "subjects": list(stream.subjects),
        "retention": stream.retention.value,
        "discard": stream.discard.value,
        "storage": stream.storage.value,
        "num_replicas": replicas,
        "max_bytes": stream.max_bytes,
        "max_msgs": stream.max_messages or -1,
        "max_msgs_per_subject": stream.max_messages_per_subject or -1,
        "max_msg_size": stream.max_message_bytes or -1,
        "max_age": _ns(stream.max_age_seconds),
        "duplicate_window": _ns(stream.duplicate_window_seconds),
        "allow_msg_ttl": stream.message_ttl,
        "subject_delete_marker_ttl": _ns(stream.marker_ttl_seconds),
        "allow_msg_schedules": stream.schedules,
        "allow_direct": stream.direct,
        "allow_rollup_hdrs": stream.rollup,
        "deny_delete": stream.deny_delete,
    }
    if stream.derived and replicas == 1:  # the server does not have it for replicated streams
        config[PERSIST_MODE] = "async"
    if stream.republish is not None:
        config["republish"] = {"src": stream.republish.source, "dest": stream.republish.destination}
    if stream.source is not None:
        config["sources"] = [
            {
                "name": stream.source.stream,
                "subject_transforms": [
                    {"src": each.source, "dest": each.destination} for each in stream.source.transforms
                ],
            }
        ]
    return config


def _as_it_can_be(config: dict[str, Any], now: dict[str, Any] | None) -> dict[str, Any]:
    """*config*, but with what a stream keeps for ever of the one that is there *now*."""
    if now is None:
        return config
    kept = {key: value for key, value in config.items() if key != PERSIST_MODE}
    return kept | ({PERSIST_MODE: now[PERSIST_MODE]} if PERSIST_MODE in now else {})


def consumer_config(consumer: declared.Consumer) -> dict[str, Any]:
    """*consumer* in the words of JetStream's API."""
    config: dict[str, Any] = {
        "name": consumer.name,
        "durable_name": consumer.name,
        "description": consumer.about,
        "deliver_policy": "all",
        "ack_policy": "explicit",
        "ack_wait": _ns(consumer.ack_wait_seconds),
        "max_deliver": consumer.max_deliver,
        "max_ack_pending": consumer.max_ack_pending,
    }
    if consumer.filters:
        config["filter_subjects"] = list(consumer.filters)
    return config


def differences(actual: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The fields of *wanted* that *actual* has otherwise; the server leaves out what is zero or empty."""
    found: dict[str, tuple[Any, Any]] = {}
    for key, value in wanted.items():
        is_now = actual.get(key)
        if key == "filter_subjects" and is_now is None and "filter_subject" in actual:
            is_now = [actual["filter_subject"]]
        if (is_now or None) == (value or None):
            continue
        if key == "sources" and _sources(is_now) == _sources(value):
            continue
        found[key] = (is_now, value)
    return found


def _sources(sources: Any) -> Any:
    """Without what the server adds by itself."""
    return [
        {"name": each["name"], "subject_transforms": each["subject_transforms"]} for each in sources or ()
    ]


async def diff(bus: Bus, wanted: declared.Bus, replicas: int) -> list[Difference]:
    """What ``apply`` would change."""
    found = []
    for stream in wanted.streams:
        config = await _config(bus, f"STREAM.INFO.{stream.name}")
        fields = differences(config or {}, _as_it_can_be(stream_config(stream, replicas), config))
        if config is None or fields:
            found.append(Difference("stream", stream.name, config is not None, fields))
    for consumer in wanted.consumers:
        config = await _config(bus, f"CONSUMER.INFO.{consumer.stream}.{consumer.name}")
        fields = differences(config or {}, consumer_config(consumer))
        if config is None or fields:
            name = f"{consumer.stream}/{consumer.name}"
            found.append(Difference("consumer", name, config is not None, fields))
    return found


async def _config(bus: Bus, subject: str) -> dict[str, Any] | None:
    try:
        answer = await bus.api(subject)
    except NotFound:
        return None
    config: dict[str, Any] = answer["config"]
    return config


async def apply(bus: Bus, wanted: declared.Bus, replicas: int) -> list[Difference]:
    """Create what is missing, change what differs; what was done. Nothing is ever deleted."""
    changed = await diff(bus, wanted, replicas)
    names = {(each.kind, each.name): each for each in changed}
    for stream in wanted.streams:
        change = names.get(("stream", stream.name))
        if change is not None:
            verb = "UPDATE" if change.exists else "CREATE"
            now = await _config(bus, f"STREAM.INFO.{stream.name}")
            config = _as_it_can_be(stream_config(stream, replicas), now)
            await bus.api(f"STREAM.{verb}.{stream.name}", config)
    for consumer in wanted.consumers:
        if ("consumer", f"{consumer.stream}/{consumer.name}") in names:
            await bus.api(
                f"CONSUMER.CREATE.{consumer.stream}.{consumer.name}",
                {"stream_name": consumer.stream, "config": consumer_config(consumer)},
            )
    return changed


async def status(bus: Bus, wanted: declared.Bus) -> list[str]:
    """A line per stream and consumer: what it holds, what is waiting."""
    lines = []
    for stream in wanted.streams:
        try:
            state = (await bus.api(f"STREAM.INFO.{stream.name}"))["state"]
        except NotFound:
            lines.append(f"{stream.name:<16} missing")
            continue
        limit = f" of {stream.max_messages}" if stream.max_messages else ""
        lines.append(
            f"{stream.name:<16} {state['messages']:>8}{limit} messages, {state['bytes'] / 1024:.0f} KiB, "
            f"last sequence {state['last_seq']}"
        )
    for consumer in wanted.consumers:
        try:
            info = await bus.api(f"CONSUMER.INFO.{consumer.stream}.{consumer.name}")
        except NotFound:
            lines.append(f"{consumer.stream}/{consumer.name}  missing")
            continue
        lines.append(
            f"{consumer.stream}/{consumer.name:<22} {info['num_pending']} not delivered, "
            f"{info['num_ack_pending']} in hand, {info['num_redelivered']} redelivered"
        )
    return lines


async def _check(bus: Bus, arguments: argparse.Namespace) -> int:
    try:
        findings = await check(
            bus,
            settle_seconds=arguments.settle_seconds,
            grace_seconds=arguments.grace_seconds,
            history=not arguments.without_history,
            index=not arguments.without_index,
        )
    except Unanswered as error:
        print(error, file=sys.stderr)
        return EXIT_UNKNOWN
    print(report(findings, as_json=arguments.json))
    return EXIT_WRONG if findings.violations else 0


async def _agree(bus: Bus, command: str, settings: BusSettings) -> int:
    wanted = declared.declare(
        declared.BusLimits(queue_max=settings.queue_max, documents_queue_max=settings.documents_queue_max)
    )
    if command == "status":
        print("\n".join(await status(bus, wanted)))
        return 0
    act = apply if command == "apply" else diff
    changes = await act(bus, wanted, settings.bus_replicas)
    print("\n".join(change.sentence() for change in changes) or "The bus is as declared.")
    return EXIT_WRONG if changes and command == "diff" else 0


async def _run(arguments: argparse.Namespace, settings: BusSettings) -> int:
    failed = EXIT_UNKNOWN if arguments.command == "check" else EXIT_WRONG
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            bus = await connect(settings, "pharos-bus")
    except TimeoutError:
        print(
            f"No NATS server answers at {settings.nats_url} within {CONNECT_SECONDS:.0f} s. Start it, "
            "or set PHAROS_NATS_URL (and PHAROS_NATS_USER, PHAROS_NATS_PASSWORD).",
            file=sys.stderr,
        )
        return failed
    try:
        if arguments.command == "check":
            return await _check(bus, arguments)
        return await _agree(bus, arguments.command, settings)
    except BusRefused as error:
        print(f"The server refused: {error}", file=sys.stderr)
        return failed
    except BusError as error:
        print(f"The bus does not answer: {error}", file=sys.stderr)
        return failed
    finally:
        await bus.client.close()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="pharos-bus", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("apply", help="make it so")
    commands.add_parser("diff", help="say what apply would change (exit 1 if anything)")
    commands.add_parser("status", help="say what is")
    checking = commands.add_parser(
        "check",
        help="say what in streams, history and index cannot be true (exit 1 if anything, 2 if unknown)",
        description="Read the streams, the buckets, history and the index, and say what in them cannot be "
        "true: a job that nobody owns, one that ended twice, points of a cancelled job, ... Reads only. "
        "Exit 0: everything agrees; 1: something does not; 2: something could not be read.",
    )
    checking.add_argument("--json", action="store_true", help="for programs")
    checking.add_argument(
        "--settle-seconds",
        type=float,
        default=SETTLE_SECONDS,
        help="look twice, so far apart, and say only what is wrong both times (default: %(default)s)",
    )
    checking.add_argument(
        "--grace-seconds",
        type=float,
        default=GRACE_SECONDS,
        help="leave alone what changed within so many seconds (default: %(default)s)",
    )
    checking.add_argument("--without-history", action="store_true", help="do not ask history")
    checking.add_argument("--without-index", action="store_true", help="do not ask who has the index")
    return parser


def main() -> None:
    """The command ``pharos-bus``."""
    arguments = _parser().parse_args()
    try:
        settings = load(BusSettings, os.environ)
    except InvalidSettings as error:
        raise SystemExit("\n".join(error.mistakes)) from None
    # What goes wrong is said by the command itself; its output is for people or for a program to read.
    logs.configure(service="pharos-bus", level="error", format=settings.log_format)
    raise SystemExit(asyncio.run(_run(arguments, settings)))
