"""Making the server agree with what the contracts declare: ``pharos-bus apply | diff | status``."""

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
from pharos_service.bus import Bus, BusError, BusRefused, NotFound, connect
from pharos_service.settings import InvalidSettings, ServiceSettings, load

CONNECT_SECONDS: Final = 15.0
NANOSECONDS: Final = 1_000_000_000


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
        fields = differences(config or {}, stream_config(stream, replicas))
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
            await bus.api(f"STREAM.{verb}.{stream.name}", stream_config(stream, replicas))
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


async def _run(command: str, settings: BusSettings) -> int:
    wanted = declared.declare(
        declared.BusLimits(queue_max=settings.queue_max, documents_queue_max=settings.documents_queue_max)
    )
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            bus = await connect(settings, "pharos-bus")
    except TimeoutError:
        print(
            f"No NATS server answers at {settings.nats_url} within {CONNECT_SECONDS:.0f} s. Start it, "
            "or set PHAROS_NATS_URL (and PHAROS_NATS_USER, PHAROS_NATS_PASSWORD).",
            file=sys.stderr,
        )
        return 1
    try:
        if command == "status":
            print("\n".join(await status(bus, wanted)))
            return 0
        act = apply if command == "apply" else diff
        changes = await act(bus, wanted, settings.bus_replicas)
        print("\n".join(change.sentence() for change in changes) or "The bus is as declared.")
        return 1 if changes and command == "diff" else 0
    except BusRefused as error:
        print(f"The server refused: {error}", file=sys.stderr)
        return 1
    except BusError as error:
        print(f"The bus does not answer: {error}", file=sys.stderr)
        return 1
    finally:
        await bus.client.close()


def main() -> None:
    """The command ``pharos-bus``."""
    parser = argparse.ArgumentParser(prog="pharos-bus", description=__doc__)
    parser.add_argument(
        "command",
        choices=["apply", "diff", "status"],
        help="apply: make it so; diff: say what apply would change (exit 1 if anything); status: what is",
    )
    command = parser.parse_args().command
    try:
        settings = load(BusSettings, os.environ)
    except InvalidSettings as error:
        raise SystemExit("\n".join(error.mistakes)) from None
    raise SystemExit(asyncio.run(_run(command, settings)))
