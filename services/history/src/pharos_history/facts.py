"""What was read from JOBS: an event, or something that could not be read, at its place.

A place orders everything that history has ever read. JOBS numbers its messages from 1, and begins again
when the stream is made anew; a place therefore is the epoch (which stream it was) above the sequence.
"""

from __future__ import annotations

import hashlib
from typing import Final

import msgspec

from pharos_contracts.jobs.v1 import AnyEvent
from pharos_contracts.message import UnreadableMessage, decode
from pharos_service.bus import Stored

# 2^40 events an epoch and 2^13 epochs fit in the 53 bits that every JSON reader has for an integer.
SEQUENCE_BITS: Final = 40
SEQUENCE_MAX: Final = 2**SEQUENCE_BITS - 1
EPOCH_MAX: Final = 2**13 - 1

REASON_CHARACTERS_MAX: Final = 500


class Position(msgspec.Struct, frozen=True):
    """How far JOBS has been read: everything up to ``sequence`` of the stream of ``epoch``."""

    epoch: int
    sequence: int

    @property
    def place(self) -> int:
        return place_of(self.epoch, self.sequence)


def place_of(epoch: int, sequence: int) -> int:
    """The place of a sequence of JOBS, comparable over all epochs."""
    assert 0 <= sequence <= SEQUENCE_MAX
    assert 0 <= epoch <= EPOCH_MAX
    return epoch << SEQUENCE_BITS | sequence


def sequence_of(place: int) -> int:
    """The sequence on JOBS of a place."""
    return place & SEQUENCE_MAX


class Fact(msgspec.Struct, frozen=True, kw_only=True):
    """One message of JOBS. ``digest`` names its bytes: a repeated publish has the same one."""

    stored: Stored
    digest: str
    event: AnyEvent

    @property
    def sequence(self) -> int:
        return self.stored.sequence


class Unreadable(msgspec.Struct, frozen=True, kw_only=True):
    """A message of JOBS that is no event that this version knows, or that the database refused."""

    stored: Stored
    reason: str

    @property
    def sequence(self) -> int:
        return self.stored.sequence


def read(stored: Stored) -> Fact | Unreadable:
    """What *stored* says."""
    try:
        event: AnyEvent = decode(stored.data, AnyEvent)
    except UnreadableMessage as error:
        return unreadable(stored, error.reason)
    digest = hashlib.blake2b(stored.data, digest_size=16).hexdigest()
    return Fact(stored=stored, digest=digest, event=event)


def unreadable(stored: Stored, reason: str) -> Unreadable:
    """*stored*, to be kept aside because of *reason*."""
    return Unreadable(stored=stored, reason=reason[:REASON_CHARACTERS_MAX].replace("\0", ""))
