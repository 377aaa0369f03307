from ... import too_far_up
from .nowhere import Rule

LONGEST_DAYS = 28


class Policy:
    rule: Rule = too_far_up
