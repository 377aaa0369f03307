"""How many jobs a user may start a day."""

from __future__ import annotations

from pharos_gateway import rates
from pharos_gateway.allowances import Allowances
from pharos_gateway.authentication import Caller, Role
from pharos_gateway.rates import Limit


class TooManyJobs(Exception):
    """The user has started as many jobs as may be started in a day."""

    def __init__(self, per_day: int, retry_seconds: int) -> None:
        super().__init__(f"You have started as many jobs as you may in a day ({per_day}).")
        self.retry_seconds = retry_seconds


class JobQuota:
    """A day's jobs of each user, at all gateways together; they come back over the day. 0: no limit."""

    def __init__(self, allowances: Allowances, per_day: int) -> None:
        self._allowances = allowances
        self._limit = Limit("jobs", per_day, rates.DAY_SECONDS) if per_day else None

    async def spend(self, user: str) -> None:
        """One job of *user*, by the name that ``subject_of`` gives. TooManyJobs."""
        if self._limit is not None:
            spent = await self._allowances.spend(self._limit, user)
            if not spent.allowed:
                raise TooManyJobs(self._limit.tokens, spent.retry_seconds)

    def give_back(self, user: str) -> None:
        """The job was not started after all."""
        if self._limit is not None:
            self._allowances.give_back(self._limit, user)


def subject_of(caller: Caller) -> str | None:
    """Whose jobs are counted; None of an admin, who is not limited. Anonymous ones go by their address."""
    if caller.may(Role.ADMIN):
        return None
    return (
        f"{caller.tenant}/{caller.user}" if caller.key is not None else f"{caller.tenant}/{caller.credential}"
    )
