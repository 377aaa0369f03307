from .loan import *
from .policy import Policy as LendingPolicy
