"""A function that has the name of its module: whoever imports it from the package means the function."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lending.loans import Loan


def member(name: str) -> "list[Loan]":
    return []
