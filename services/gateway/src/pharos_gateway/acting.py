"""As which user a request of batches is made: the key's own, or the one that is named. Pure."""

from __future__ import annotations

import msgspec

from pharos_gateway.authentication import Caller, OtherUser, Role
from pharos_gateway.batches import UNKEYED
from pharos_gateway.sight import Sight


class Acting(msgspec.Struct, frozen=True):
    """Whose batches the request is about, and what is shown of them."""

    owner: str
    sight: Sight

    def within(self, tenant: str) -> Sight:
        """What is shown of them in one tenant."""
        return msgspec.structs.replace(self.sight, tenant=tenant)


def acting(caller: Caller, named: str | None) -> Acting:
    """*caller* as the user that they *named*. OtherUser.

    Who sends no key acts as whom they name, and sees nothing that belongs to a key.
    """
    if caller.key is None:
        owner = f"{UNKEYED}{named or caller.user}"
        return Acting(owner, msgspec.structs.replace(caller.sight_in_tenant, user=owner))
    is_admin = caller.may(Role.ADMIN)
    if named not in (None, caller.user) and not is_admin:
        raise OtherUser
    if named is None and is_admin:
        return Acting(caller.user, caller.sight)
    owner = named or caller.user
    return Acting(owner, msgspec.structs.replace(caller.sight, user=owner))
