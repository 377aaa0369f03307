"""Which datasets a search looks at. The choice is pure; the catalogue follows the bucket ``datasets``."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import aclosing
from fnmatch import fnmatchcase
from typing import Final

import structlog

from pharos_contracts import streams
from pharos_contracts.datasets.v1 import Dataset, DatasetRecord
from pharos_contracts.jobs.v1 import Scope
from pharos_contracts.search.v1 import Search
from pharos_embedder.vectors import SELECTION_DATASETS_MAX
from pharos_service.buckets import Bucket, Entry, Gone
from pharos_service.bus import Bus

log = structlog.get_logger()

DATASETS_MAX: Final = SELECTION_DATASETS_MAX


def choose(question: Search, datasets: Iterable[Dataset]) -> list[Dataset]:
    """The datasets that *question* asks for, those published last first."""
    chosen = [dataset for dataset in datasets if _asked_for(question, dataset)]
    chosen.sort(key=lambda dataset: (dataset.published_at, dataset.dataset), reverse=True)
    return chosen


def _asked_for(question: Search, dataset: Dataset) -> bool:
    if dataset.tenant != question.tenant:
        return False
    named = any(fnmatchcase(dataset.dataset, pattern) for pattern in question.datasets)
    if question.datasets and not named:
        return False
    if question.repositories and not any(_is(dataset, name) for name in question.repositories):
        return False
    if _of_the_project(question, dataset):
        return named or dataset.scope is not Scope.LOCAL
    return dataset.scope is Scope.GLOBAL and question.include_global


def _of_the_project(question: Search, dataset: Dataset) -> bool:
    if question.projects is not None and dataset.project not in question.projects:
        return False
    return question.project is None or dataset.project == question.project


def _is(dataset: Dataset, name: str) -> bool:
    """Whether *name* names the dataset's repository: with or without scheme, host and ``.git``."""
    wanted = name.split("://", 1)[-1].removesuffix("/").removesuffix(".git").lower()
    repository = dataset.repository.lower()
    return repository == wanted or repository.partition("/")[2] == wanted


class Catalogue:
    """Every live dataset, as of now."""

    def __init__(self, bus: Bus) -> None:
        self._bucket = Bucket[DatasetRecord](bus, streams.KV_DATASETS, DatasetRecord)
        self._datasets: dict[str, Dataset] = {}
        self._known = asyncio.Event()

    async def known(self, seconds: float) -> bool:
        """Whether the bucket was read once; at the start of a process, waits for that *seconds* at most."""
        try:
            await asyncio.wait_for(self._known.wait(), seconds)
        except TimeoutError:
            return False
        return True

    def all(self) -> list[Dataset]:
        return list(self._datasets.values())

    def note(self, key: str, dataset: Dataset | None) -> None:
        """A record as it is now; None where it is gone."""
        if dataset is None:
            self._datasets.pop(key, None)
        else:
            self._datasets[key] = dataset

    async def follow(self) -> None:
        """Keep up with the bucket until cancelled."""
        async with aclosing(self._bucket.watch()) as changes:
            async for change in changes:
                if isinstance(change, Entry):
                    self.note(change.key, change.value if isinstance(change.value, Dataset) else None)
                elif isinstance(change, Gone):
                    self.note(change.key, None)
                else:
                    self._known.set()
