"""Settings: read once from the environment, a YAML file and secret files, with a sentence for every mistake.

A service declares one frozen struct; each field's ``msgspec.Meta(description=...)`` is its documentation.
The variable is ``PHAROS_<FIELD>`` unless the Meta's ``extra={"variable": ...}`` names another. Every
variable may also be given as ``<VARIABLE>_FILE``. The environment wins over the file that
``PHAROS_CONFIG`` names.
"""

from __future__ import annotations

import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta

from pharos_service import config_file
from pharos_service.config_file import InvalidConfigFile


class Secret:
    """A value that shows itself only when asked."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        return self._value

    def __repr__(self) -> str:
        return "Secret(***)"

    def __bool__(self) -> bool:
        return bool(self._value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(self._value)


class InvalidSettings(Exception):
    """At least one setting is wrong; ``mistakes`` has a sentence for each."""

    def __init__(self, mistakes: list[str]) -> None:
        super().__init__("\n".join(mistakes))
        self.mistakes = mistakes


class ServiceSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What every service reads."""

    home: Annotated[
        str,
        Meta(
            description="Directory for everything that a one-machine installation writes.",
        ),
    ] = "./.pharos"
    nats_url: Annotated[str, Meta(description="Where the bus is. `make run` sets it to its own server.")] = (
        "nats://127.0.0.1:4222"
    )
    nats_user: Annotated[str, Meta(description="User name for the bus; empty for none.")] = ""
    nats_password: Annotated[Secret, Meta(description="Password for the bus.")] = Secret("")
    log_level: Annotated[
        str,
        Meta(
            description="Least severe log line shown: `debug`, `info`, `warning` or `error`.",
            pattern="^(debug|info|warning|error)$",
        ),
    ] = "info"
    log_format: Annotated[
        str,
        Meta(
            description="`console`, `json`, or `auto`: console on a terminal, JSON elsewhere.",
            pattern="^(console|json|auto)$",
        ),
    ] = "auto"
    health_host: Annotated[
        str, Meta(description="Address for `/livez` and `/readyz` of a service that has no HTTP of its own.")
    ] = "127.0.0.1"
    health_port: Annotated[int, Meta(description="Port for those probes; 0 for none.", ge=0, le=65535)] = 0


S = TypeVar("S", bound=msgspec.Struct)


class Setting(msgspec.Struct, frozen=True):
    """One row of the settings table."""

    variable: str
    default: str
    description: str
    secret: bool


def _described(annotation: Any) -> tuple[str, Mapping[str, Any]]:
    for part in typing.get_args(annotation):
        if isinstance(part, Meta):
            return part.description or "", part.extra or {}
    return "", {}


def _bare(annotation: Any) -> Any:
    return typing.get_args(annotation)[0] if typing.get_origin(annotation) is Annotated else annotation


def _variables(cls: type[msgspec.Struct]) -> dict[str, tuple[str, Any, str]]:
    """Field name -> (variable, annotation, description)."""
    hints = typing.get_type_hints(cls, include_extras=True)
    found: dict[str, tuple[str, Any, str]] = {}
    for field in msgspec.structs.fields(cls):
        description, extra = _described(hints[field.name])
        found[field.name] = (
            str(extra.get("variable", f"PHAROS_{field.name.upper()}")),
            hints[field.name],
            description,
        )
    return found


def table(cls: type[msgspec.Struct]) -> tuple[Setting, ...]:
    """The documentation of *cls*, field by field."""
    rows = []
    variables = _variables(cls)
    for field in msgspec.structs.fields(cls):
        variable, annotation, description = variables[field.name]
        secret = _bare(annotation) is Secret
        default = "" if secret or field.default in ("", (), None) else str(field.default)
        rows.append(Setting(variable, default, description, secret))
    return tuple(rows)


def load(cls: type[S], environ: Mapping[str, str]) -> S:
    """*cls* filled from *environ*; InvalidSettings with every mistake at once."""
    mistakes: list[str] = []
    from_file = _config_file(environ, mistakes)
    values: dict[str, Any] = {}
    for name, (variable, annotation, _) in _variables(cls).items():
        raw = _raw(variable, environ, mistakes)
        if raw is None:
            raw = from_file.get(name)
        if raw is None:
            continue
        try:
            values[name] = _convert(raw, annotation)
        except (msgspec.ValidationError, ValueError) as error:
            shown = "" if _bare(annotation) is Secret else f" (it is {str(raw)[:80]!r})"
            mistakes.append(f"{variable} is not valid{shown}: {error}.")
    if mistakes:
        raise InvalidSettings(mistakes)
    try:
        return cls(**values)
    except ValueError as error:  # from a ``__post_init__``, for what no single field can tell
        raise InvalidSettings([str(error)]) from error


def _raw(variable: str, environ: Mapping[str, str], mistakes: list[str]) -> str | None:
    direct, path = environ.get(variable), environ.get(f"{variable}_FILE")
    if direct is not None and path is not None:
        mistakes.append(f"{variable} and {variable}_FILE are both set; keep one of them.")
        return None
    if path is None:
        return direct
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        mistakes.append(f"{variable}_FILE names {path!r}, which cannot be read: {error}.")
        return None


def _config_file(environ: Mapping[str, str], mistakes: list[str]) -> dict[str, Any]:
    path = environ.get("PHAROS_CONFIG")
    if not path:
        return {}
    try:
        return config_file.read(path)
    except InvalidConfigFile as error:
        mistakes.append(f"PHAROS_CONFIG names {path!r}, which {error}.")
        return {}


def _convert(raw: Any, annotation: Any) -> Any:
    bare = _bare(annotation)
    if bare is Secret:
        return Secret(str(raw))
    if typing.get_origin(bare) is tuple and isinstance(raw, str):
        raw = [part.strip() for part in raw.split(",") if part.strip()]
    if isinstance(raw, str) and bare is not str:
        raw = raw.strip()
    return msgspec.convert(raw, annotation, strict=False)
