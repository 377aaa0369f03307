from helpers import make_book
from lending.loans import Loan
from unit import factories
from unit.factories import make_loan

from .factories import make_loan as same


def test_a_loan_keeps_its_book() -> None:
    book = make_book("Persuasion")
    assert make_loan(book).get() is book and isinstance(same(book), Loan) and factories
