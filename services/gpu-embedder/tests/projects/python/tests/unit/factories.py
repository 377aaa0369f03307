import lending.loans.loan


def make_loan(book):
    return lending.loans.loan.Loan(book)
