"""The command line: a name of the package and a module of it in one statement."""

import argparse

import lending.loans.policy as policy
from . import Catalogue, fees


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--report", action="store_true")
    options = parser.parse_args(arguments)
    if options.report:
        from .reports import monthly

        monthly.print_report(Catalogue(), fees.fee_for(policy.LONGEST_DAYS))
    return 0
