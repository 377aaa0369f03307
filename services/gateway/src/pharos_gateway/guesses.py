"""Guesses at a credential, slowed for each address. Pure but for its tables, which are bounded.

While an address is slowed, nothing that it presents is judged, so that it learns nothing; except that a
credential which worked from there within the hour goes on working. Other addresses are not concerned.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from time import monotonic
from typing import Final

from pharos_gateway import rates
from pharos_gateway.rates import Level, Limit

ADDRESSES_MAX: Final = 10_000
FAMILIAR_MAX: Final = 10_000
FAMILIAR_SECONDS: Final = 3600.0


class Guesses:
    """The wrong guesses of each address, *per_minute* of which are free; 0: all of them."""

    def __init__(
        self,
        per_minute: int,
        *,
        clock: Callable[[], float] = monotonic,
        addresses_max: int = ADDRESSES_MAX,
    ) -> None:
        self._limit = Limit("guesses", max(per_minute, 1), rates.MINUTE_SECONDS) if per_minute else None
        self._clock = clock
        self._addresses_max = addresses_max
        self._levels: OrderedDict[str, Level] = OrderedDict()
        self._familiar: OrderedDict[tuple[str, str], float] = OrderedDict()

    def wait_seconds(self, address: str) -> int:
        """For how long *address* is not listened to; 0: it is."""
        level = self._levels.get(rates.neighbourhood(address))
        if self._limit is None or level is None:
            return 0
        tokens = rates.tokens_at(self._limit, level, self._clock())
        return 0 if tokens >= 1 else rates.spent(self._limit, tokens, allowed=False).retry_seconds

    def failed(self, address: str) -> None:
        """*address* presented a credential that is not valid."""
        if self._limit is None:
            return
        name = rates.neighbourhood(address)
        _, left = rates.take(self._limit, self._levels.pop(name, None), owed=1, wanted=0, now=self._clock())
        self._levels[name] = left
        while len(self._levels) > self._addresses_max:
            self._levels.popitem(last=False)

    def succeeded(self, address: str, credential: str) -> None:
        """*credential*, by its name, was proved from *address*."""
        familiar = (address, credential)
        self._familiar[familiar] = self._clock()
        self._familiar.move_to_end(familiar)
        while len(self._familiar) > FAMILIAR_MAX:
            self._familiar.popitem(last=False)

    def is_familiar(self, address: str, credential: str) -> bool:
        """Whether *credential* was proved from *address* within the hour."""
        at = self._familiar.get((address, credential))
        return at is not None and self._clock() - at < FAMILIAR_SECONDS
