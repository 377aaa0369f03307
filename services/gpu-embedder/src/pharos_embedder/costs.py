"""What a run costs, before it begins: the chunks that are not known yet, their tokens, and a price.

Only a server that is paid by the token has a tariff. Tokens are estimated from characters: the tokenizers of
such servers are not installed here, and the bill is theirs to write.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

ASCII_CHARACTERS_PER_TOKEN: Final = 3
"""Of source code: its tokens are shorter than those of prose, which have about four."""


class Tariff(msgspec.Struct, frozen=True, kw_only=True):
    """What tokens cost, and how many one job and one input of it may have; 0 is: nobody said."""

    price_per_million: float = 0.0
    job_tokens_max: int = 0
    input_tokens_max: int = 0


class JobTooCostly(Exception):
    """The job would encode more tokens than one may."""

    def __init__(self, tokens: int, tokens_max: int) -> None:
        super().__init__(
            f"It would encode about {tokens:,} tokens, and PHAROS_EMBEDDING_JOB_TOKENS_MAX allows "
            f"{tokens_max:,}: raise that setting, or index less"
        )
        self.tokens = tokens


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """Of one run. ``tokens`` is an estimate, of the ``chunks`` that are not known by their content."""

    chunks: int
    known: int
    tokens: int
    price_per_million: float = 0.0

    @property
    def price(self) -> float | None:
        """In whatever the tariff is in; None where there is none."""
        return self.tokens / 1e6 * self.price_per_million if self.price_per_million else None

    @property
    def sentence(self) -> str:
        """For its owner, in a line."""
        text = (
            f"{self.chunks:,} of {self.chunks + self.known:,} chunks to encode: about {self.tokens:,} tokens"
        )
        if self.price is not None:
            text += f", about {self.price:.4f} at {self.price_per_million:g} a million"
        return text


def tokens_of(text: str) -> int:
    """About how many tokens *text* is: an ASCII character counts a third, any other one whole."""
    ascii_characters = len(text) if text.isascii() else len(text.encode("ascii", "ignore"))
    return -(-ascii_characters // ASCII_CHARACTERS_PER_TOKEN) + len(text) - ascii_characters


def cost_of(
    tokens: Sequence[int] | NDArray[np.int64], chunks: int, tariff: Tariff, *, beside: int = 0
) -> Cost:
    """The cost of encoding chunks of *tokens* each, of all the *chunks* of a run, and *beside* more tokens.

    Raises JobTooCostly above the limit of the tariff.
    """
    counts = np.asarray(tokens, dtype=np.int64)
    if tariff.input_tokens_max:
        counts = np.minimum(counts, tariff.input_tokens_max)
    total = int(counts.sum()) + beside
    if 0 < tariff.job_tokens_max < total:
        raise JobTooCostly(total, tariff.job_tokens_max)
    return Cost(
        chunks=len(counts),
        known=chunks - len(counts),
        tokens=total,
        price_per_million=tariff.price_per_million,
    )
