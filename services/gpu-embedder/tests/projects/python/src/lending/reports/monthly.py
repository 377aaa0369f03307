"""A module of a folder without an `__init__.py`."""

from .layout import table
from ..fees import fee_for
from lending.absent import gone


def print_report(catalogue: object, fee: object) -> None:
    print(table([str(fee), str(fee_for(1)), gone]))
