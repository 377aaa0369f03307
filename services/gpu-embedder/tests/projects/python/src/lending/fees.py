from decimal import Decimal

from . import types as own_types
from .logging import get_logger

log = get_logger(__name__)


def fee_for(days: int, options: own_types.Options | None = None) -> Decimal:
    log.info("fee of %s days", days)
    return Decimal(days) / 10
