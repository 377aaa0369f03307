"""Questions that services ask each other over the bus, and the refusal that any of them may answer with."""

from __future__ import annotations

from typing import Final

from pharos_contracts.message import Message

SEARCH: Final = "rpc.search"
HISTORY: Final = "rpc.history"
SCHEDULER: Final = "rpc.scheduler"
STORE: Final = "rpc.store"
# Between processes of the embedder alone, in its own words: see ``pharos_embedder.store_protocol``.
POINTS: Final = "rpc.points"

RPC_SUBJECTS: Final = (SEARCH, HISTORY, SCHEDULER, STORE, POINTS)


class Refused(Message, frozen=True, kw_only=True, tag="rpc.view.v1.refused"):
    """The question could not be answered. ``status`` is the HTTP status that says so best."""

    code: str
    detail: str
    status: int
