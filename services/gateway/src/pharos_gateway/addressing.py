"""Which repository, branch and commit a request names. Pure."""

from __future__ import annotations

import re
from typing import Final

from pharos_contracts.batches.v1 import connection_dataset
from pharos_contracts.identity import documents_dataset
from pharos_sources.repository_url import InvalidRef, RepositoryAddress, parse_ref, parse_sha

RESERVED: Final = (documents_dataset(""), connection_dataset(""))
_SHA: Final = re.compile(r"[0-9a-fA-F]{40}|[0-9a-fA-F]{64}")


def rest_of_path(raw_path: bytes, segments: int) -> str:
    """What follows the first *segments* segments of a path, as it was sent: ``https://`` keeps its slashes.

    Empty segments before that do not count, as the router does not count them either.
    """
    match = re.match(rb"(?:/+[^/]+){%d}/?" % segments, raw_path)
    return "" if match is None else raw_path[match.end() :].decode("utf-8", "surrogateescape")


class ReservedDataset(ValueError):
    """Other things than repositories are in datasets of such names, and one would replace them."""

    def __init__(self, name: str) -> None:
        kind = name.partition("/")[0]
        super().__init__(f"Datasets whose names begin with '{kind}/' are for {kind}; choose another name")


def repository_dataset(name: str | None) -> str | None:
    """*name*, as a dataset that a repository may be indexed into. ReservedDataset."""
    if name is not None and name.startswith(RESERVED):
        raise ReservedDataset(name)
    return name


def revision(
    address: RepositoryAddress, *, branch: str | None, ref: str | None
) -> tuple[str | None, str | None]:
    """(branch, commit) that are asked for; None is the remote's default. InvalidRef.

    A *ref* of 40 or 64 hexadecimal digits is a commit, any other one is a branch.
    """
    sha = parse_sha(ref) if ref is not None and _SHA.fullmatch(ref) else None
    named = [address.branch]
    if branch is not None:
        named.append(parse_ref(branch))
    if ref is not None and sha is None:
        named.append(parse_ref(ref))
    branches = {name for name in named if name is not None}
    if len(branches) > 1:
        raise InvalidRef("two different branches are named")
    return next(iter(branches), None), sha
