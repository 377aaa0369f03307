import lending.fees as fees
import lending.types, lending.models.member
from helpers import make_book
from lending import fees as same_fees, search
from lending.models import member


def test_fees_grow(catalogue) -> None:
    catalogue.add(make_book("Emma"))
    assert fees.fee_for(2) == same_fees.fee_for(2)
    assert member("x") == lending.models.member("x") and search(catalogue, "x")
