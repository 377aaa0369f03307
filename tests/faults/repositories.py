"""What the jobs of the matrix index: the same for every cell, each for a tenant of its own.

Vectors are known by tenant and content, so that nothing that one cell encoded helps another one, and all of
them must give the answers that one tenant got in peace.
"""

from __future__ import annotations

import random
from typing import Final

from tests.support.git_server import GitServer

WORDS: Final = ("penguin", "valve", "harbour", "lantern", "glacier", "orchard", "compass", "granite")
VERBS: Final = ("count", "open", "close", "measure")

MAIN: Final = "matrix/main"  # a second or two of encoding
LONG: Final = "matrix/long"  # more than any fault lasts: it is cancelled before its end
SMALL: Final = ("matrix/late", "matrix/first", "matrix/second")  # a moment
QUESTIONS: Final = ("count the penguins", "open the valve", "which harbour is closed")


def files(number: int, seed: int, rounds: int = 1) -> dict[str, str]:
    """*number* files of four functions for each of *rounds*; another *seed*, other code."""
    chance = random.Random(seed)
    found = {}
    for index in range(number):
        first, second = chance.sample(WORDS, 2)
        found[f"src/{first}_{index}.py"] = "".join(
            f"def {verb}_{first}_{index}_{seed}_{turn}(limit):\n"
            f'    """{verb.capitalize()} the {first} beside the {second}, case {chance.random()}."""\n'
            f"    return [{second} for {second} in range(limit + {chance.randrange(999)} * {seed})]\n\n\n"
            for turn in range(rounds)
            for verb in VERBS
        )
    return found


def serve(server: GitServer) -> None:
    server.add_repository(MAIN, files(64, seed=1))
    server.add_repository(LONG, files(100, seed=2, rounds=12))
    for seed, name in enumerate(SMALL, 3):
        server.add_repository(name, files(2, seed=seed))
