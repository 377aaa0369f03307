"""What everybody who needs vectors asks of whoever makes them: a model in this process, or a server.

``encoding.EncoderService`` and ``provider.ProviderEncoder`` are the two. Nothing heavy is imported here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import IntEnum
from typing import TYPE_CHECKING, Protocol

from pharos_embedder.ports import Check, unchecked

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pharos_embedder.costs import Tariff

Progress = Callable[[int, int], None]
"""Called with (done, total) texts after each batch; done never falls and ends at total."""

OnBatch = Callable[[Sequence[int], "NDArray[np.float32]"], None]
"""Called after each batch with the indexes of its texts and their vectors."""


class Priority(IntEnum):
    """Who goes first when several wait for the encoder."""

    QUERY = 0  # someone waits for search results
    NOTE = 1  # a text, a page or a file: seconds of work
    REPOSITORY = 2  # minutes of work


class EncoderBusy(Exception):
    """As many callers wait for the encoder as may, or one waited as long as it would; try again later."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(f"the encoder is busy: {reason}")


class TextEncoder(Protocol):
    """Texts in, unit vectors out, for several threads at once."""

    @property
    def version(self) -> str: ...  # changes whenever the same text may give another vector
    @property
    def dimensions(self) -> int: ...
    @property
    def token_budget(self) -> int: ...  # tokens of a batch, where nobody says otherwise
    @property
    def window_texts(self) -> int: ...  # that keep it busy between two checkpoints
    @property
    def tariff(self) -> Tariff | None: ...  # what tokens cost; None where they cost time only

    def encode_documents(
        self,
        texts: Sequence[str],
        *,
        priority: Priority = Priority.REPOSITORY,
        token_budget: int | None = None,
        on_progress: Progress | None = None,
        on_batch: OnBatch | None = None,
        on_budget: Callable[[int], None] | None = None,
        check: Check = unchecked,
        midway: Check = unchecked,
    ) -> NDArray[np.float32]:
        """(N, D) unit vectors, in the order of *texts*. Blocks.

        *check* is called before each batch, *midway* also within one; what they raise ends the call.
        """
        ...

    def encode_queries(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """(N, D) unit vectors of search queries, in their order. Raises EncoderBusy after a while."""
        ...
