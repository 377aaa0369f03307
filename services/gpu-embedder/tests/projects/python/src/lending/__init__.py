"""A library that lends books."""

from . import fees
from .catalogue import Catalogue, search
from .loans import Loan

__all__ = ["Catalogue", "Loan", "fees", "search"]
