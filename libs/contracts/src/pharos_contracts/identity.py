"""Names and identifiers that appear in subjects and keys."""

from __future__ import annotations

import hashlib
import re
from typing import Final
from uuid import UUID

TENANT_DEFAULT: Final = "default"
PROJECT_DEFAULT: Final = "default"

_TOKEN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


class InvalidName(ValueError):
    """A tenant, project, worker or pool name that cannot be a token of a subject."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"{name[:80]!r} is not a valid name: use 1 to 64 letters, digits, '-' or '_', "
            "beginning with a letter or a digit"
        )
        self.name = name


def token(name: str) -> str:
    """*name* itself, when it can stand between the dots of a subject; InvalidName otherwise."""
    if not _TOKEN.fullmatch(name):
        raise InvalidName(name)
    return name


def as_token(text: str) -> str:
    """A token made from any text, for host and device names: what does not fit becomes ``-``."""
    cleaned = re.sub(r"[^A-Za-z0-9_-]+", "-", text).strip("-_")[:64]
    return cleaned or "unnamed"


def uuid7(unix_ms: int, random_bytes: bytes) -> UUID:
    """A UUID version 7 (RFC 9562 §5.7): milliseconds, then 74 bits of *random_bytes* (10 bytes)."""
    if len(random_bytes) != 10:
        raise ValueError("a UUIDv7 takes 10 random bytes")
    value = (unix_ms & (2**48 - 1)) << 80 | int.from_bytes(random_bytes, "big")
    value = value & ~(0xF << 76) | (0x7 << 76)
    value = value & ~(0x3 << 62) | (0x2 << 62)
    return UUID(int=value)


def fingerprint(*parts: str) -> str:
    """A 32-digit hexadecimal name for *parts*, for keys and subjects (BLAKE2b, parts kept apart by NUL)."""
    return hashlib.blake2b("\0".join(parts).encode(), digest_size=16).hexdigest()


def work_key(*, project: str, dataset: str | None, repository: str, ref: str | None) -> str:
    """What two submits of one tenant share when they ask for the same thing."""
    return fingerprint(project, dataset or "", repository, ref or "")


def documents_dataset(label: str) -> str:
    """The dataset of the documents that come from *label*."""
    return f"documents/{label}"


def repository_id(tenant: str, repository: str) -> str:
    """What names a tenant's *repository*, ``host/owner/name``, in addresses of the HTTP API."""
    return fingerprint("repository", tenant, repository)


def dataset_key(tenant: str, project: str, dataset: str) -> str:
    """The key of a dataset's record in the bucket ``datasets``: names of datasets are free text."""
    return f"{token(tenant)}.{token(project)}.{fingerprint(dataset)}"
