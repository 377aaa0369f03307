"""What gateways share of limits, version 1."""

from __future__ import annotations

from datetime import datetime

from pharos_contracts.message import Message


class Allowance(Message, frozen=True, kw_only=True, tag="limits.view.v1.allowance"):
    """What is left of somebody's allowance: ``tokens`` as of ``at``. It is negative where more was used."""

    tokens: float
    at: datetime
