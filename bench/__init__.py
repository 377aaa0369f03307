"""Measurements: ratios within one run, against a named peer or limit, with the machine in the result."""
