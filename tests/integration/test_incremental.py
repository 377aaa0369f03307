"""An index that was kept up to date, commit by commit, equals one that was made anew of the last commit."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch

from pharos_contracts import streams
from pharos_contracts.datasets.v1 import Dataset, IndexStage
from pharos_contracts.identity import dataset_key
from pharos_contracts.jobs.v1 import IndexResult, Job, Scope
from pharos_contracts.search.v1 import Search, SearchAnswer, SearchMode
from pharos_embedder.answering import Answers
from pharos_embedder.bm25 import query_vector
from pharos_embedder.catalogue import Catalogue
from pharos_embedder.devices import choose_device
from pharos_embedder.model import Pending, load_encoder
from pharos_embedder.parse_pool import ParsePool
from pharos_embedder.pipeline import Target
from pharos_embedder.ports import Check, Failed, unchecked
from pharos_embedder.publishing import Publisher
from pharos_embedder.search import SearchEngine
from pharos_embedder.stages import OVER_CHUNKS
from pharos_embedder.vectors import DatasetKey, Searched, Selection, StoreError
from pharos_service.buckets import Bucket
from pharos_service.bus import Bus
from pharos_service.ending import end
from pharos_sources.hosts import AllowedHosts
from tests.support import reindexing
from tests.support.agreeing import disagreements
from tests.support.git_server import GitServer
from tests.support.histories import History, own_trees, package_files, replayed
from tests.support.polyglot import FILES as POLYGLOT
from tests.support.reindexing import Bench, differences, read_index
from tests.support.workers import DIMENSIONS, CountingEncoder

pytestmark = pytest.mark.anyio

DATASET = DatasetKey("default", "default", "d")
OWN_PATHS = ("libs/service/src",)
SMALL = {
    path: text
    for path, text in POLYGLOT.items()
    if path.startswith(("python/", "web/", "retry/", "cmd/", "go.mod"))
}


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Training is made of small steps, after each of which several threads spin until the last one is there:
    beside other tests on the same cores that takes longer than the steps.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def parse_pool() -> Iterator[ParsePool]:
    with ParsePool(1) as pool:
        yield pool


@pytest.fixture(scope="module")
def server() -> Iterator[GitServer]:
    with GitServer() as running:
        yield running


@pytest.fixture
def bench(tmp_path: Path, parse_pool: ParsePool) -> Iterator[Bench]:
    """Where the index is kept up to date."""
    with Bench(tmp_path / "kept", parse_pool) as made:
        yield made


@pytest.fixture
def anew(tmp_path: Path, parse_pool: ParsePool) -> Iterator[Bench]:
    """Where it is made anew."""
    with Bench(tmp_path / "anew", parse_pool) as made:
        yield made


async def check_equals_rebuild(
    bench: Bench, anew: Bench, bus: Bus, server: GitServer, name: str, branch: str, told: str
) -> None:
    """Index *branch* on top of what there is, and anew; the two must be equal."""
    source = {"allowed_hosts": server.allowed_hosts, "branch": branch}
    result = await bench.index(bus, server.url(name), dataset=DATASET.dataset, force=True, **source)
    assert result is not None
    entry = await Bucket(bus, streams.KV_DATASETS, Dataset).get(dataset_key("default", "default", "d"))
    assert entry is not None and disagreements(bench.store, entry.value) == []
    wanted = await anew.index_anew(server.url(name), DATASET, **source)
    found = differences(read_index(bench, DATASET, result), read_index(anew, DATASET, wanted))
    anew.forget(DATASET)
    assert not found, "\n".join((told, *found))


async def work_at_random(
    bench: Bench, anew: Bench, bus: Bus, server: GitServer, *, seed: int, steps: int, every: int
) -> None:
    chance = random.Random(seed)
    files = package_files()
    chosen = dict(chance.sample(sorted(files.items()), min(len(files), 26)))
    name = f"made/{seed}-{steps}"
    history = History(server, name, chosen, seed)
    for step in range(steps):
        history.go_on()
        told = "\n".join((f"seed {seed}:", *history.told))
        if step % every == every - 1 or step == steps - 1:
            await check_equals_rebuild(bench, anew, bus, server, name, history.branch, told)
        elif step % every == every - 2:
            await index_brokenly(bench, bus, server, name, history.branch, chance)
        else:
            await bench.index(
                bus,
                server.url(name),
                dataset=DATASET.dataset,
                branch=history.branch,
                allowed_hosts=server.allowed_hosts,
            )


async def index_brokenly(
    bench: Bench, bus: Bus, server: GitServer, name: str, branch: str, chance: random.Random
) -> None:
    """An indexing whose store fails at one of its writes, and which nobody tidies up behind."""
    left = chance.randrange(2, 7)

    def fail_in_time() -> None:
        nonlocal left
        left -= 1
        if left <= 0:
            raise StoreError("broken by the test")

    bench.engine.gate.passing = fail_in_time
    try:
        await bench.index(
            bus, server.url(name), dataset=DATASET.dataset, branch=branch, allowed_hosts=server.allowed_hosts
        )
    except (Failed, StoreError):  # the latter where it was done, and only tidying up was left
        pass
    finally:
        bench.engine.gate.passing = lambda: None


@pytest.mark.parametrize(("seed", "steps"), [(1, 9), (2, 6)])
async def test_after_random_work_the_index_is_the_one_of_a_clean_run(
    bench: Bench, anew: Bench, bus: Bus, server: GitServer, seed: int, steps: int
) -> None:
    await work_at_random(bench, anew, bus, server, seed=seed, steps=steps, every=4)


@pytest.mark.chaos
@pytest.mark.parametrize("run", range(12))
async def test_after_much_random_work_the_index_is_the_one_of_a_clean_run(
    bench: Bench, anew: Bench, bus: Bus, server: GitServer, run: int
) -> None:
    seed = random.SystemRandom().randrange(2**32)  # another one each time: what fails says which it was
    await work_at_random(bench, anew, bus, server, seed=seed, steps=40, every=2)


async def test_a_first_index_that_is_over_the_chunk_limit_holds_what_fits(
    bench: Bench, server: GitServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reindexing, "LIMITS", msgspec.structs.replace(reindexing.LIMITS, chunks_max=5))
    server.add_repository("made/limited", {f"{n}.py": f"def named{n}():\n    return {n}\n" for n in range(8)})
    hosts = server.allowed_hosts
    result = await bench.index_anew(server.url("made/limited"), DATASET, allowed_hosts=hosts)
    assert (result.chunks, result.left_out) == (5, {OVER_CHUNKS: 3})
    found = read_index(bench, DATASET, result)
    assert {each.payload.path for each in found.points.values()} == {f"{n}.py" for n in range(5)}
    assert len(found.points) == 10 and not found.leftovers


async def test_a_first_index_may_break_at_any_of_its_writes(
    bench: Bench, anew: Bench, bus: Bus, server: GitServer
) -> None:
    server.add_repository(
        "made/breaking", {f"{n}.py": f"def named{n}():\n    return {n}\n" for n in range(3)}
    )
    url, hosts = server.url("made/breaking"), server.allowed_hosts
    stages_seen = set()
    for number in count(1):
        dataset = DatasetKey("default", "default", f"breaks-{number}")
        left = number

        def fail_in_time() -> None:
            nonlocal left
            left -= 1
            if left <= 0:
                raise StoreError("broken by the test")

        bench.engine.gate.passing = fail_in_time
        with suppress(Failed, StoreError):
            await bench.index(bus, url, dataset=dataset.dataset, allowed_hosts=hosts)
        bench.engine.gate.passing = lambda: None
        entry = await Bucket(bus, streams.KV_DATASETS, Dataset).get(
            dataset_key("default", "default", dataset.dataset)
        )
        stages_seen.add(None if entry is None else entry.value.stage)
        result = await bench.index(bus, url, dataset=dataset.dataset, allowed_hosts=hosts, force=True)
        assert result is not None
        wanted = await anew.index_anew(url, dataset, allowed_hosts=hosts)
        found = differences(read_index(bench, dataset, result), read_index(anew, dataset, wanted))
        assert not found, "\n".join((f"broken at write {number}:", *found))
        anew.forget(dataset)
        if left > 0:
            break
    assert stages_seen == {None, IndexStage.LEXICAL, IndexStage.FULL}, "before words, before the rest, after"


async def test_along_the_history_of_this_repository_the_index_is_the_one_of_a_clean_run(
    bench: Bench, anew: Bench, bus: Bus, server: GitServer, capsys: pytest.CaptureFixture[str]
) -> None:
    trees = own_trees(OWN_PATHS, number=3, bytes_max=9_000)
    if len(trees) < 2:
        with capsys.disabled():
            print(
                "\nThe history of this repository is not here (a shallow clone?): made ones alone are tried."
            )
        await work_at_random(bench, anew, bus, server, seed=3, steps=4, every=4)
        return
    for number, _ in enumerate(replayed(server, "own/history", trees)):
        if number:
            told = f"tree {number} of our own"
            await check_equals_rebuild(bench, anew, bus, server, "own/history", "main", told)
        else:
            await bench.index(
                bus, server.url("own/history"), dataset=DATASET.dataset, allowed_hosts=server.allowed_hosts
            )


@pytest.mark.chaos
async def test_along_much_of_the_history_of_this_repository_the_index_is_the_one_of_a_clean_run(
    bench: Bench, anew: Bench, bus: Bus, server: GitServer
) -> None:
    trees = own_trees(("libs", "services/gpu-embedder"), number=25, bytes_max=100_000)
    assert len(trees) > 1, "this takes a clone with its history"
    for number, _ in enumerate(replayed(server, "own/long", trees)):
        told = f"tree {number} of our own"
        await check_equals_rebuild(bench, anew, bus, server, "own/long", "main", told)


# A commit costs what changed


async def indexed(bench: Bench, bus: Bus, server: GitServer, name: str, **facts: Any) -> IndexResult:
    """Index *name* once more; it has to be necessary."""
    result = await bench.index(bus, server.url(name), allowed_hosts=server.allowed_hosts, **facts)
    assert result is not None
    return result


@pytest.fixture
def repository(server: GitServer, request: pytest.FixtureRequest) -> str:
    name = f"costs/{request.node.name.replace('[', '-').strip(']')}"
    server.add_repository(name, SMALL)
    return name


async def test_a_renamed_folder_is_not_encoded_again(
    bench: Bench, anew: Bench, bus: Bus, server: GitServer, repository: str
) -> None:
    before = await indexed(bench, bus, server, repository, dataset=DATASET.dataset)
    moved = {path: None for path in SMALL if path.startswith("python/harbour/")}
    server.add_commits(
        repository,
        [moved | {f"lib/{path}": text for path, text in SMALL.items() if path.startswith("python/harbour/")}],
    )
    after = await indexed(bench, bus, server, repository, dataset=DATASET.dataset)
    assert (after.chunks, after.chunks_encoded) == (before.chunks, 0)
    await check_equals_rebuild(bench, anew, bus, server, repository, "main", "a folder renamed")


async def test_a_deleted_file_leaves_with_all_that_pointed_at_it(
    bench: Bench, bus: Bus, server: GitServer, repository: str
) -> None:
    gone = "python/harbour/tides.py"
    before = await indexed(bench, bus, server, repository, dataset=DATASET.dataset)
    held = read_index(bench, DATASET, before)
    assert any(gone in each.payload.links for each in held.points.values())
    server.add_commits(repository, [{gone: None}])
    after = await indexed(bench, bus, server, repository, dataset=DATASET.dataset)
    held = read_index(bench, DATASET, after)
    assert after.chunks_encoded == 0
    assert not [each for each in held.points.values() if gone in (each.payload.path, *each.payload.links)]
    assert held.graph is not None and gone not in held.graph.paths
    words = query_vector("next_high_water", [held.lexicon])
    here = Selection(datasets=(Searched(dataset=DATASET, generation=after.generation, has_dense=True),))
    assert gone not in [hit.payload.path for hit in bench.store.sparse(words, here, 10)]


async def test_a_chunk_says_what_now_stands_around_it(
    bench: Bench, anew: Bench, bus: Bus, server: GitServer, repository: str
) -> None:
    """Its function is longer than a chunk, and only the docstring above changes."""
    steps = "".join(f"    value_{number} = transform(value_{number - 1})\n" for number in range(1, 90))
    for words in ("First", "Other"):
        text = f'def transform_all(value_0):\n    """{words} words of it."""\n{steps}    return value_89\n'
        server.add_commits(repository, [{"long.py": text}])
        result = await indexed(bench, bus, server, repository, dataset=DATASET.dataset)
    told = {each.payload.docstring for each in read_index(bench, DATASET, result).points.values()}
    assert "Other words of it." in told and "First words of it." not in told
    await check_equals_rebuild(bench, anew, bus, server, repository, "main", "a docstring edited")


async def test_edges_into_a_changed_file_follow_what_it_defines(
    bench: Bench, bus: Bus, server: GitServer, repository: str
) -> None:
    """The file that uses a name does not change: where the name is defined does."""
    user, first, second = "use.py", "one.py", "two.py"
    defines = "def compute_tide_table(day):\n    return day\n"
    other = "def something_else_entirely():\n    return 1\n"
    server.add_commits(repository, [{user: "print(compute_tide_table(1))\n", first: defines, second: other}])

    async def targets() -> set[str]:
        result = await indexed(bench, bus, server, repository, dataset=DATASET.dataset)
        graph = read_index(bench, DATASET, result).graph
        assert graph is not None
        number = graph.number(user)
        assert number is not None
        return {graph.paths[edge.other] for edge in graph.edges_out_of(number)}

    assert await targets() == {first}
    server.add_commits(repository, [{first: other, second: defines}])
    assert await targets() == {second}
    server.add_commits(repository, [{second: other}])
    assert await targets() == set()


async def test_points_say_what_the_job_said_that_indexed_them_last(
    bench: Bench, bus: Bus, server: GitServer, repository: str
) -> None:
    await indexed(bench, bus, server, repository, dataset=DATASET.dataset)
    after = await indexed(bench, bus, server, repository, dataset=DATASET.dataset, scope=Scope.GLOBAL)
    held = read_index(bench, DATASET, after)
    assert after.chunks_encoded == 0
    assert {each.payload.scope for each in held.points.values()} == {"global"}


async def test_what_the_tenant_has_indexed_once_is_not_encoded_again_and_what_others_have_is(
    bench: Bench, bus: Bus, server: GitServer, repository: str
) -> None:
    first = await indexed(bench, bus, server, repository)
    assert first.chunks_encoded == first.chunks > 0
    fork = f"{repository}-fork"
    server.add_bare_from(server.repository_path(repository), fork)
    server.add_commits(repository, [{}], branch="topic", start="main")
    for again in (
        await indexed(bench, bus, server, fork, dataset="fork"),
        await indexed(bench, bus, server, repository, branch="topic"),
        await indexed(bench, bus, server, repository, dataset="another"),
        await indexed(bench, bus, server, repository, force=True),
    ):
        assert (again.chunks, again.chunks_encoded) == (first.chunks, 0)
    other = await indexed(bench, bus, server, repository, tenant="other")
    assert other.chunks_encoded == first.chunks


# Nothing to do


async def test_who_may_find_what_is_indexed_changes_without_a_new_commit_and_without_force(
    bench: Bench, bus: Bus, server: GitServer, repository: str
) -> None:
    await indexed(bench, bus, server, repository, dataset=DATASET.dataset, scope=Scope.GLOBAL)
    after = await indexed(bench, bus, server, repository, dataset=DATASET.dataset, scope=Scope.LOCAL)
    held = read_index(bench, DATASET, after)
    assert after.chunks_encoded == 0
    assert {each.payload.scope for each in held.points.values()} == {"local"}


@pytest.mark.parametrize("asked_by", ["head", "branch", "tag", "commit"])
async def test_a_commit_that_is_indexed_is_not_fetched_again(
    bench: Bench, bus: Bus, server: GitServer, repository: str, asked_by: str
) -> None:
    commit = server.commit_of(repository)
    server.add_tag(repository, "v1", commit, annotated=True)
    asked = {"branch": {"branch": "main"}, "tag": {"branch": "v1"}, "commit": {"sha": commit}}.get(
        asked_by, {}
    )
    await indexed(bench, bus, server, repository, **asked)
    packs, encoded = server.packs.count(repository), len(bench.given)
    requests = len(server.requests)
    assert (packs, encoded > 0) == (1, True)
    again = await bench.index(bus, server.url(repository), allowed_hosts=server.allowed_hosts, **asked)
    assert again is None
    assert (server.packs.count(repository), len(bench.given)) == (packs, encoded)
    asked_of = [each.path for each in server.requests[requests:]]
    assert len(asked_of) == (0 if asked_by == "commit" else 2), (
        "the server was asked for its references, or not"
    )
    assert not any(bench.workspaces.iterdir())


async def test_what_decides_beside_the_commit_has_it_indexed_again(
    bench: Bench, bus: Bus, server: GitServer, repository: str
) -> None:
    await indexed(bench, bus, server, repository)
    assert (await indexed(bench, bus, server, repository, force=True)).chunks_encoded == 0
    server.add_commits(repository, [{}])
    assert (await indexed(bench, bus, server, repository)).chunks_encoded == 0, "another commit"
    assert server.packs.count(repository) == 3


async def test_who_pushes_between_the_look_and_the_fetch_has_the_newer_commit_indexed(
    bench: Bench, bus: Bus, server: GitServer, repository: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await indexed(bench, bus, server, repository)
    server.add_commits(repository, [{"new.py": "seen = 1\n"}])
    pushed: list[str] = []
    target = Publisher.target

    async def push(self: Publisher, job: Job, name: str) -> Target:
        if not pushed:
            pushed.append(server.add_commits(repository, [{"newer.py": "pushed = 1\n"}]))
        return await target(self, job, name)

    monkeypatch.setattr(Publisher, "target", push)
    result = await indexed(bench, bus, server, repository)
    assert pushed == [result.commit]


async def test_a_server_that_does_not_answer_is_told_of_as_before(
    bench: Bench, bus: Bus, server: GitServer, repository: str
) -> None:
    await indexed(bench, bus, server, repository)
    server.answer(repository, 403)
    with pytest.raises(Failed) as failed:
        await bench.index(bus, server.url(repository), allowed_hosts=server.allowed_hosts)
    assert failed.value.problem.code == "repository_not_found"


# Other machines, other encoders


async def test_a_worker_on_another_machine_does_not_encode_what_the_store_has_vectors_of(
    bench: Bench, bus: Bus, server: GitServer, repository: str, tmp_path: Path, parse_pool: ParsePool
) -> None:
    first = await indexed(bench, bus, server, repository, dataset=DATASET.dataset)
    with Bench(tmp_path / "elsewhere", parse_pool, store=bench.store) as elsewhere:
        again = await indexed(elsewhere, bus, server, repository, dataset="another")
        assert (again.chunks, again.chunks_encoded, elsewhere.given) == (first.chunks, 0, [])
        other = await indexed(elsewhere, bus, server, repository, tenant="other")
        assert other.chunks_encoded == first.chunks, "what another tenant has is not known"
    made, fetched = (
        {
            each.payload.vector: each.text
            for each in read_index(bench, DatasetKey("default", "default", name), result).points.values()
            if each.text is not None
        }
        for name, result in ((DATASET.dataset, first), ("another", again))
    )
    assert made.keys() == fetched.keys()
    assert all(np.allclose(made[name], fetched[name], atol=1e-6) for name in made)


async def test_vectors_of_a_deleted_dataset_are_not_known_any_more(
    bench: Bench, bus: Bus, server: GitServer, repository: str, tmp_path: Path, parse_pool: ParsePool
) -> None:
    first = await indexed(bench, bus, server, repository, dataset=DATASET.dataset)
    bench.forget(DATASET)
    with Bench(tmp_path / "elsewhere", parse_pool, store=bench.store) as elsewhere:
        again = await indexed(elsewhere, bus, server, repository, dataset="another")
    assert again.chunks_encoded == first.chunks


class OtherEncoder(CountingEncoder):
    """Another encoder; *dimensions* tells whether its vectors fit in with those of the first."""

    version = "other@1"

    def __init__(self, dimensions: int) -> None:
        super().__init__()
        self.dimensions = dimensions

    def launch(self, batch: Sequence[Sequence[int]], midway: Check = unchecked) -> Pending:
        first = super().launch(batch, midway)
        scale = np.sqrt(self.dimensions / DIMENSIONS)
        return lambda: np.resize(first()[:, ::-1], (len(batch), self.dimensions)) / scale


@pytest.mark.parametrize("dimensions", [DIMENSIONS, 3 * DIMENSIONS])
async def test_another_encoder_indexes_beside_what_is_live_and_takes_over_when_it_is_whole(
    tmp_path: Path, parse_pool: ParsePool, bus: Bus, server: GitServer, repository: str, dimensions: int
) -> None:
    """An operator sets another encoder and starts again: nothing is lost, and no two vectors are mixed up."""
    home, found_by = tmp_path / "kept", "next high water"
    with Bench(home, parse_pool) as before:
        first = await indexed(before, bus, server, repository, dataset=DATASET.dataset)
        answer = await searched(before, bus, found_by)
        assert answer.results[0].scores.dense is not None
        assert "other_encoder" not in answer.metadata
    with Bench(home, parse_pool, OtherEncoder(dimensions)) as after:
        answer = await searched(after, bus, found_by)
        assert answer.results[0].file == "python/harbour/tides.py"
        assert answer.results[0].scores.dense is None, "vectors of two encoders were compared"
        assert answer.metadata["other_encoder"] == [DATASET.dataset]
        assert "another encoder" in str(answer.metadata["note"])
        assert (await searched(after, bus, found_by, mode=SearchMode.DENSE)).results, "words stand in"

        def fail() -> None:
            raise StoreError("broken by the test")

        after.engine.gate.passing = fail
        with pytest.raises(Failed):
            await indexed(after, bus, server, repository, dataset=DATASET.dataset)
        after.engine.gate.passing = lambda: None
        assert (await searched(after, bus, found_by)).results[0].file == "python/harbour/tides.py"

        second = await indexed(after, bus, server, repository, dataset=DATASET.dataset)
        assert (second.chunks, second.chunks_encoded) == (first.chunks, first.chunks)
        answer = await searched(after, bus, found_by)
        assert answer.results[0].scores.dense is not None
        assert "other_encoder" not in answer.metadata
    with Bench(tmp_path / "anew", parse_pool, OtherEncoder(dimensions)) as anew:
        wanted = await anew.index_anew(server.url(repository), DATASET, allowed_hosts=server.allowed_hosts)
        with Bench(home, parse_pool, OtherEncoder(dimensions)) as after:
            assert not differences(read_index(after, DATASET, second), read_index(anew, DATASET, wanted))
    with Bench(home, parse_pool) as back:
        third = await indexed(back, bus, server, repository, dataset=DATASET.dataset)
        assert third.chunks_encoded == 0, "what the first encoder had encoded is in the cache"
        assert "other_encoder" not in (await searched(back, bus, found_by)).metadata


async def searched(bench: Bench, bus: Bus, text: str, mode: SearchMode = SearchMode.HYBRID) -> SearchAnswer:
    """What a search process with the encoder of *bench* answers."""
    catalogue = Catalogue(bus)
    encoder = bench.tools.encoder
    answers = Answers(
        SearchEngine(bench.store, encoder.encode_queries, encoder=encoder.version),
        catalogue,
        AllowedHosts.parse(""),
        encoder=encoder.version,
    )
    following = asyncio.create_task(catalogue.follow())
    try:
        answer = await answers.answer(Search(tenant="default", project="default", query=text, mode=mode))
    finally:
        await end(following)
    assert isinstance(answer, SearchAnswer)
    return answer


async def test_with_the_real_encoder_the_index_is_the_one_of_a_clean_run(
    tmp_path: Path, parse_pool: ParsePool, bus: Bus, server: GitServer, repository: str
) -> None:
    encoder = load_encoder("", msgspec.structs.replace(choose_device("cpu"), threads=1))
    with (
        Bench(tmp_path / "kept", parse_pool, encoder) as bench,
        Bench(tmp_path / "anew", parse_pool, encoder) as anew,
    ):
        await indexed(bench, bus, server, repository, dataset=DATASET.dataset)
        text = SMALL["python/harbour/tides.py"]
        server.add_commits(
            repository, [{"python/harbour/tides.py": f"# First.\n{text}", "new.py": "a = 1\n"}]
        )
        await check_equals_rebuild(bench, anew, bus, server, repository, "main", "the real encoder")
