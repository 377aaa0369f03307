"""The lexicon that a generation sees is that of its documents, whatever became of the ones around it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pharos_embedder import stored_lexicon
from pharos_embedder.bm25 import Lexicon, LexiconChange
from pharos_embedder.generations import GenerationStore
from pharos_embedder.vectors import DatasetKey, VectorStore
from tests.support.vector_stores import PLACES, made

# Terms of 0 to 7 change a lot, and those from 100 on make most of the lexicon.
documents = st.dictionaries(
    st.one_of(st.integers(0, 7), st.integers(100, 300), st.just(2**32 - 1)), st.integers(1, 9), max_size=12
)
numbers = count(1)


@pytest.fixture(scope="module", params=PLACES)
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[VectorStore]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stored_lexicon, "SHARD_TERMS", 16)
        for place in made(request.param, tmp_path_factory.mktemp("lexicons")):
            opened = place.store(passing=True)
            opened.open()
            yield opened
            opened.close()


class Killed(Exception):
    """The process that wrote is gone."""


class Death:
    """A check that lets so many steps of a store pass."""

    def __init__(self, steps: int) -> None:
        self._left = steps

    def __call__(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise Killed


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_generation_sees_the_words_of_its_documents(store: VectorStore, data: st.DataObject) -> None:
    dataset = DatasetKey("acme", "default", f"words-{next(numbers)}")
    live, generation, alive = 0, 0, list[dict[int, int]]()
    readers: dict[int, Lexicon] = {}
    first = data.draw(st.lists(documents, max_size=30))
    for step in range(data.draw(st.integers(1, 8))):
        generation += data.draw(st.integers(1, 3))
        added = first if step == 0 else data.draw(st.lists(documents, max_size=4))
        gone = data.draw(st.sets(st.integers(0, len(alive) - 1), max_size=4)) if alive else set()
        after = [each for place, each in enumerate(alive) if place not in gone] + added
        change = LexiconChange.of(added=added, removed=[alive[place] for place in gone])
        end = data.draw(st.sampled_from(["published", "published", "undone", "killed"]))
        writer = store.guarded(Death(data.draw(st.integers(0, 8)))) if end == "killed" else store
        store.discard_unpublished(dataset, live)
        try:
            writer.change_lexicon(dataset, generation, change, on=live, job=f"job-{step}", attempt=1)
            assert store.lexicon(dataset, generation) == Lexicon.of(after)
        except Killed:
            pass
        if end == "published":
            live, alive = generation, after
            readers[live] = Lexicon.of(alive)
            if data.draw(st.booleans()):
                oldest = data.draw(st.sampled_from(sorted(readers)))
                store.collect(dataset, oldest)
                readers = {number: each for number, each in readers.items() if number >= oldest}
        elif end == "undone":
            store.undo(dataset, f"job-{step}", 1, live)
        for number, seen in readers.items():
            assert store.lexicon(dataset, number) == seen
    store.discard_unpublished(dataset, live)
    store.collect(dataset, live)
    assert isinstance(store, GenerationStore)
    parts = store._lexicon_head(dataset, live).parts
    shards = sum(max(1, -(-part.terms // stored_lexicon.SHARD_TERMS)) for part in parts)
    assert store.size(dataset) == (shards + 1 if live else 0)  # nothing of what was taken in


def test_a_few_documents_more_cost_a_part_and_a_head(store: VectorStore) -> None:
    dataset = DatasetKey("acme", "default", "cost")
    many = [dict.fromkeys(range(start, start + 16), 1) for start in range(0, 320, 16)]
    store.put_lexicon(dataset, 1, Lexicon.of(many))
    before = store.size(dataset)
    store.change_lexicon(dataset, 2, LexiconChange.of(added=[{1: 1, 999: 2}]), on=1)
    assert store.size(dataset) == before + 2
    assert store.lexicon(dataset, 2) == Lexicon.of([*many, {1: 1, 999: 2}])
    store.collect(dataset, 2)
    assert store.size(dataset) == before + 1


def test_a_lexicon_that_is_written_whole_replaces_all_parts(store: VectorStore) -> None:
    dataset = DatasetKey("acme", "default", "whole")
    store.put_lexicon(dataset, 1, Lexicon.of([dict.fromkeys(range(100), 1)]))
    store.change_lexicon(dataset, 2, LexiconChange.of(added=[{1: 1}]), on=1)
    store.put_lexicon(dataset, 3, Lexicon.of([{5: 1}]))
    assert store.lexicon(dataset, 3) == Lexicon.of([{5: 1}])
    assert store.lexicon(dataset, 2).documents == 2
    store.collect(dataset, 3)
    assert store.size(dataset) == 2
    assert store.lexicon(dataset, 2).documents == 0


def test_a_lexicon_without_its_head_is_none(store: VectorStore) -> None:
    dataset = DatasetKey("acme", "default", "headless")
    store.put_lexicon(dataset, 1, Lexicon.of([dict.fromkeys(range(100), 1)]))
    store.change_lexicon(dataset, 2, LexiconChange.of(added=[{1: 1}]), on=1)
    store.collect(dataset, 2)  # the head of 1, whose part lives on
    assert store.lexicon(dataset, 1).documents == 0
