"""Whatever was killed when: in the end the store has what readers see, and nothing else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pharos_contracts.datasets.v1 import Dataset, DatasetRecord, DeletedDataset, IndexStage
from pharos_contracts.jobs.v1 import Scope
from pharos_embedder.bm25 import Lexicon, LexiconChange, document_terms
from pharos_embedder.edge_store import edge_store
from pharos_embedder.sweeping import SETTLED_SECONDS, remove, rubbish
from pharos_embedder.vectors import DatasetKey, Payload, Point, VectorStore, point_id

START = datetime(2026, 6, 1, tzinfo=UTC)
numbers = count(1)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VectorStore]:
    folder: Path = tmp_path_factory.mktemp("orphans")
    opened = edge_store(folder / "index", dimensions=4)
    opened.open()
    yield opened
    opened.close()


class Killed(Exception):
    """The process that did this is gone."""


class World:
    """One dataset, its record, and those who write to it, each of which may be killed at any step."""

    def __init__(self, store: VectorStore) -> None:
        self.key = DatasetKey("acme", "default", f"orphans-{next(numbers)}")
        self.record: DatasetRecord | None = None
        self.seen: set[str] = set()
        self.jobs = 0
        self.now = START
        self._store = store
        self._steps: int | None = None

    def check(self) -> None:
        if self._steps is not None:
            self._steps -= 1
            if self._steps < 0:
                raise Killed

    def mortal(self, steps: int | None) -> VectorStore:
        """The store of a process that dies after so many steps; None is one that does not."""
        self._steps = steps
        return self._store.guarded(self.check)

    @property
    def lived(self) -> bool:
        """Whether the process that was mortal last came to its end."""
        return self._steps is None or self._steps >= 0

    @property
    def live(self) -> int:
        return self.record.generation if isinstance(self.record, Dataset) else 0

    def index(
        self, files: Iterable[str], *, whole: bool, cancelled: bool, cleared: bool, steps: int | None
    ) -> None:
        """A job that stores a generation and publishes it; a *whole* one replaces all, else a group's.

        *cleared*: where it is killed, whoever takes over removes what it left; else nobody does.
        """
        self.jobs += 1
        job, store, live = f"job-{self.jobs}", self.mortal(steps), self.live
        follows = self.record.generation if self.record is not None else 0
        generation = max(follows + 1, int(self.now.timestamp()))
        try:
            store.discard_unpublished(self.key, live)
            alive = store.live_ids(self.key, live, "chunk") if live else set()
            points = {point.id: point for point in (self._point(name, generation, job) for name in files)}
            gone = alive - points.keys() if whole else set()
            added = [point for key, point in points.items() if key not in alive]
            store.upsert(added)
            if whole:
                store.put_lexicon(
                    self.key, generation, Lexicon.of(_terms(points.values())), job=job, attempt=1
                )
            else:
                change = LexiconChange.of(added=_terms(added))
                store.change_lexicon(self.key, generation, change, on=live, job=job, attempt=1)
            store.retire(self.key, gone, generation)
            if cancelled:
                store.undo(self.key, job, 1, live)
                return
            self.check()
            self.record = _record(self.key, generation, self.now)
            self.seen = (alive - gone) | points.keys()
            store.collect(self.key, follows)
        except Killed:
            if cleared:
                self._steps = None
                self._store.undo(self.key, job, 1, self.live)

    def delete(self, steps: int | None) -> None:
        store = self.mortal(steps)
        last = self.record.generation if self.record is not None else 0
        deleted = max(last + 1, int(self.now.timestamp()))
        self.record = DeletedDataset(
            tenant=self.key.tenant, project=self.key.project, dataset=self.key.dataset, generation=deleted,
            deleted_at=self.now,
        )  # fmt: skip
        self.seen = set()
        with suppress(Killed):
            while store.drop(self.key, deleted, most=3, forget=lambda chunks: None).left:
                pass

    def forget(self) -> None:
        """What says that it was deleted goes by itself."""
        if isinstance(self.record, DeletedDataset):
            self.record = None

    def sweep(self, steps: int | None) -> None:
        """No job is open any more."""
        store = self.mortal(steps)
        with suppress(Killed):
            found = rubbish(self.record, store.generations(self.key).keys(), self.now)
            remove(self.key, found, store, None, "")

    def readers_see(self) -> None:
        """Readers see what was published, whole."""
        if self.live:
            assert self._store.live_ids(self.key, self.live, "chunk") == self.seen
            assert self._store.lexicon(self.key, self.live).documents == len(self.seen)

    def nothing_is_left(self) -> None:
        """Once it was swept, every point is one that readers see."""
        self.now += timedelta(seconds=SETTLED_SECONDS + 60)
        self.sweep(None)
        self.readers_see()
        visible = [self._store.count(self.key, self.live, kind) for kind in ("chunk", "lexicon")]
        assert self._store.size(self.key) == (sum(visible) if self.live else 0)

    def _point(self, name: str, generation: int, job: str) -> Point:
        payload = Payload(
            dataset=self.key,
            kind="chunk",
            generation=generation,
            path=name,
            text=name * 3,
            job=job,
            attempt=1,
        )
        key = point_id(
            self.key, kind="chunk", path=name, start_line=1, end_line=1, content_hash=name,
            chunker_version="1", encoder_version="1",
        )  # fmt: skip
        return Point(id=key, payload=payload)


def _terms(points: Iterable[Point]) -> list[Counter[int]]:
    return [document_terms(point.payload.text) for point in points]


def _record(key: DatasetKey, generation: int, at: datetime) -> Dataset:
    return Dataset(
        tenant=key.tenant, project=key.project, dataset=key.dataset, scope=Scope.PROJECT, repository="",
        clone_url="", branch=None, commit="", generation=generation, stage=IndexStage.FULL, job_id="",
        files=1, chunks=1, encoder="", chunker="", published_at=at,
    )  # fmt: skip


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_in_the_end_every_point_is_one_that_readers_see(store: VectorStore, data: st.DataObject) -> None:
    world = World(store)
    acts = st.sampled_from(["index", "index", "group", "group", "delete", "forget", "sweep"])
    for act in data.draw(st.lists(acts, min_size=4, max_size=10)):
        world.now += timedelta(seconds=data.draw(st.sampled_from([0, 1, 2 * SETTLED_SECONDS])))
        steps = data.draw(st.sampled_from([None, *range(20)]), label="steps to live")
        match act:
            case "index" | "group":
                world.index(
                    data.draw(st.sets(st.sampled_from("abcdef"), min_size=1), label="files"),
                    whole=act == "index",
                    cancelled=data.draw(st.sampled_from([False, False, True]), label="cancelled"),
                    cleared=data.draw(st.booleans(), label="cleared"),
                    steps=steps,
                )
            case "delete":
                world.delete(steps)
            case "forget":
                world.forget()
            case "sweep":
                world.sweep(steps)
        world.readers_see()
    world.nothing_is_left()


@pytest.mark.parametrize("indexed", [False, True], ids=["first", "again"])
@pytest.mark.parametrize("act", ["index", "group", "cancelled", "delete"])
def test_whatever_the_step_at_which_it_is_killed(store: VectorStore, act: str, indexed: bool) -> None:
    """And then nothing comes but a sweep, which is killed as well, and the next one."""
    steps, whole = 0, False
    while not whole and steps < 40:
        world = World(store)
        if indexed:
            world.index("abc", whole=True, cancelled=False, cleared=False, steps=None)
        world.now += timedelta(seconds=5)
        if act == "delete":
            world.delete(steps)
        else:
            world.index("cd", whole=act != "group", cancelled=act == "cancelled", cleared=False, steps=steps)
        whole = world.lived
        world.readers_see()
        world.now += timedelta(seconds=2 * SETTLED_SECONDS)
        world.sweep(steps % 7)
        world.nothing_is_left()
        steps += 1
    assert whole and steps > 3
