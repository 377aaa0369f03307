"""Checkouts that are kept between jobs, so that another commit of a repository costs what it changed.

Each is a folder that a `git.fetch` made, with the objects and the files of one commit. Whoever needs it takes
it away by renaming it, so that no two ever use one; kept again is what a fetch has finished. So nothing here
is repaired: what a crash interrupts is lost, and costs a whole fetch. So is what other code than this
release's made.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Final

from pharos_sources.git import Checkout, bytes_in
from pharos_sources.removal import remove_tree

PACKS_MAX: Final = 32
"""Every fetch adds one, and none is ever taken away: a checkout of more begins anew."""

FILE_BYTES: Final = 4_096  # that a file takes on the disk beside what is in it, about
DEPTH_MAX: Final = 256
"""Folders within each other: a thousand end whatever goes through them by calling itself, as many a program
does that is to clean up what somebody left.
"""

SHARE: Final = 4  # one checkout takes at most the limit / this
ENTRIES_MAX: Final = 10_000

_MADE_BY: Final = ("git.py", "git_process.py")
"""The code that decides what a fetch leaves behind, and what the next one takes for granted of it."""

_NAME: Final = re.compile(r"([0-9a-f]{16}-)?[0-9a-f]{40}")
"""Of a checkout that is kept; an earlier release did not say what made it."""

_SIZE: Final = "size"
_GOING: Final = ".going-"

Warn = Callable[[str], None]


@cache
def format_version() -> str:
    """A digest of the code that makes checkouts, 16 characters: nobody has to remember to raise it."""
    digest = hashlib.blake2b(digest_size=8)
    for name in _MADE_BY:
        digest.update(Path(__file__).with_name(name).read_bytes())
    return digest.hexdigest()


class KeptCheckouts:
    """The checkouts in *folder*, one for each tenant and repository; processes of a machine may share it.

    *bytes_max* bounds what they take: those that were used longest ago go first. 0 keeps none. What goes
    wrong with the disk is told to *warn* and costs a whole fetch, nothing else.
    """

    def __init__(self, folder: Path, *, bytes_max: int, warn: Warn) -> None:
        self._folder = folder
        self._bytes_max = bytes_max
        self._warn = warn
        try:
            for left in folder.glob(f"*{_GOING}*"):  # by whoever died over it
                remove_tree(left)
            for other in folder.glob("*"):  # of another format: nobody would ever ask for it, or forget it
                if _NAME.fullmatch(other.name) and not other.name.startswith(f"{format_version()}-"):
                    self._remove(other)
            self._make_room(0)
        except OSError as error:
            self._told(error)

    def path_of(self, tenant: str, repository: str) -> Path:
        """Where the checkout of *repository* is, if there is one; who wants it renames it."""
        digest = hashlib.blake2b(digest_size=20)
        for part in (tenant, repository):
            digest.update(len(part.encode()).to_bytes(4, "big") + part.encode())
        return self._folder / f"{format_version()}-{digest.hexdigest()}"

    def keep(self, tenant: str, repository: str, made: Path, checkout: Checkout) -> bool:
        """Take *made*, the folder of *checkout*, in place of what is kept of *repository*; whether it was."""
        try:
            return self._keep(self.path_of(tenant, repository), made, checkout)
        except OSError as error:
            self._told(error)
            return False

    def _keep(self, place: Path, made: Path, checkout: Checkout) -> bool:
        size = bytes_in(made / "git") + checkout.bytes + FILE_BYTES * checkout.files
        packs = sum(1 for _ in (made / "git" / "objects" / "pack").glob("*.pack"))
        if size > self._bytes_max // SHARE or packs > PACKS_MAX or checkout.depth > DEPTH_MAX:
            return False
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._make_room(size)
        (made / _SIZE).write_text(str(size))
        os.utime(made)
        self._remove(place)
        try:
            made.rename(place)
        except OSError as error:
            if error.errno in (errno.EEXIST, errno.ENOTEMPTY):
                return False  # somebody else has just kept another commit of it
            raise
        return True

    def forget(self, tenant: str, repository: str) -> None:
        """Remove what is kept of *repository*."""
        try:
            self._remove(self.path_of(tenant, repository))
        except OSError as error:
            self._told(error)

    def _make_room(self, size: int) -> None:
        """Remove those that were used longest ago until *size* more bytes are within the limit."""
        kept = sorted(self._kept())
        total = sum(each[1] for each in kept)
        for number, (_, its_size, place) in enumerate(kept):
            if total + size <= self._bytes_max and len(kept) - number < ENTRIES_MAX:
                return
            self._remove(place)
            total -= its_size

    def _kept(self) -> Iterator[tuple[float, int, Path]]:
        """(when it was used, how many bytes it takes, where it is) of each."""
        for place in self._folder.glob("*"):
            if _GOING in place.name:
                continue
            try:
                yield place.stat().st_mtime, int((place / _SIZE).read_text()), place
            except NotADirectoryError:
                continue  # nobody's checkout
            except (FileNotFoundError, ValueError):
                # Somebody has just taken it; or it was not written whole when the power failed.
                self._remove(place)

    def _remove(self, place: Path) -> None:
        going = place.with_name(f"{place.name}{_GOING}{secrets.token_hex(4)}")
        with suppress(FileNotFoundError):
            place.rename(going)  # at once, so that nobody takes half of it
            remove_tree(going)

    def _told(self, error: OSError) -> None:
        self._warn(f"a checkout could not be kept ({type(error).__name__}: {error.strerror})")
