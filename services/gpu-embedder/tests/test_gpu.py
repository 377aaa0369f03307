"""What only a GPU shows; and, without one, that its measurement says so and that its parts run."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator

import msgspec
import numpy as np
import pytest
import torch

from bench import bench_gpu
from pharos_embedder.devices import DeviceChoice, choose_device, probe
from pharos_embedder.encoding import EncoderService, EncodingOutOfMemory, encode
from pharos_embedder.model import GPU_WINDOW_TEXTS, Transfers, TransformerEncoder, load_encoder

EXACT = DeviceChoice(device="cpu", dtype="float32", why="tests", threads=2)
TEXTS = [f"def number_{n}(value):\n    return value + {n}\n" * (1 + n % 7) for n in range(60)]


@pytest.fixture(scope="module")
def exact() -> TransformerEncoder:
    return load_encoder("", EXACT)


@pytest.fixture(scope="module")
def on_gpu() -> Iterator[TransformerEncoder]:
    yield load_encoder("", choose_device("cuda"))
    torch.cuda.empty_cache()


# On any machine


def test_what_is_copied_to_a_device_and_back_is_the_same() -> None:
    transfers = Transfers("cpu")
    made, values = transfers.buffer((2, 3), torch.float32)
    values[:] = [[1, 2, 3], [4, 5, 6]]
    pending = transfers.download(transfers.upload(made) * 2)
    assert pending().tolist() == [[2, 4, 6], [8, 10, 12]]


def test_passes_that_are_begun_before_any_is_waited_for_give_the_same_vectors(
    exact: TransformerEncoder,
) -> None:
    ids = exact.tokenize(TEXTS[:9])
    pending = [exact.launch(ids[start : start + 3]) for start in (0, 3, 6)]
    found = np.concatenate([wait() for wait in pending])
    np.testing.assert_array_equal(found, np.concatenate([exact.forward(ids[n : n + 3]) for n in (0, 3, 6)]))


@pytest.mark.skipif(bool(probe().gpus), reason="it would measure")
def test_without_a_gpu_nothing_is_measured_and_nothing_written() -> None:
    before = bench_gpu.RESULT.stat().st_mtime_ns if bench_gpu.RESULT.exists() else None
    ended = subprocess.run(
        [sys.executable, "-m", "bench.bench_gpu"], capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode != 0
    assert "nothing to measure on" in ended.stderr
    assert (bench_gpu.RESULT.stat().st_mtime_ns if bench_gpu.RESULT.exists() else None) == before


def test_the_parts_of_the_measurement_run(exact: TransformerEncoder) -> None:
    contenders = {
        "ours": lambda: encode(TEXTS[:6], exact),
        "bare": bench_gpu.bare_forward(exact, TEXTS[:6]),
    }
    seconds = bench_gpu.seconds_by_turns(contenders, 1)
    assert set(seconds) == {"ours", "bare"}
    rows = bench_gpu.table({"ours": 2.0, "bare": 1.0}, 10, 1000)
    assert rows["ours"] == {
        "chunks_per_second": 5.0,
        "tokens_per_second": 500,
        "ours_is_times_as_fast": 1.0,
    }
    assert rows["bare"]["ours_is_times_as_fast"] == 0.5


# On a GPU


@pytest.mark.gpu
def test_a_gpu_gives_the_vectors_of_the_cpu(on_gpu: TransformerEncoder, exact: TransformerEncoder) -> None:
    assert (encode(TEXTS, on_gpu) * encode(TEXTS, exact)).sum(axis=1).min() > 0.999
    assert on_gpu.window_texts == GPU_WINDOW_TEXTS


@pytest.mark.gpu
def test_many_passes_under_way_do_not_write_into_each_others_buffers(on_gpu: TransformerEncoder) -> None:
    ids = on_gpu.tokenize(TEXTS)
    alone = [on_gpu.forward([each]) for each in ids]
    pending = [on_gpu.launch([each]) for each in ids]
    for wait, expected in zip(pending, alone, strict=True):
        np.testing.assert_array_equal(wait(), expected)


@pytest.mark.gpu
def test_a_gpu_that_runs_out_of_memory_goes_on_with_smaller_batches(on_gpu: TransformerEncoder) -> None:
    device = torch.device(on_gpu.choice.device)
    expected = encode(TEXTS, on_gpu)
    torch.cuda.empty_cache()
    _free, total = torch.cuda.mem_get_info(device)
    budgets: list[int] = []
    many = TEXTS * 200
    torch.cuda.set_per_process_memory_fraction(
        (torch.cuda.memory_reserved(device) + (256 << 20)) / total, device
    )
    try:
        found = encode(many, on_gpu, token_budget=1 << 22, on_budget=budgets.append)
    except EncodingOutOfMemory:
        pytest.fail("even one text did not fit")
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, device)
        torch.cuda.empty_cache()
    assert budgets
    assert (found[: len(TEXTS)] * expected).sum(axis=1).min() > 0.999


@pytest.mark.gpu
def test_a_query_is_answered_while_documents_are_encoded(on_gpu: TransformerEncoder) -> None:
    service = EncoderService(on_gpu)
    done: list[int] = []
    thread = threading.Thread(
        target=lambda: service.encode_documents(TEXTS * 100, on_progress=lambda each, _: done.append(each))
    )
    thread.start()
    answers = [service.encode_queries(["add one to a value"]) for _ in range(5)]
    thread.join()
    assert done[-1] == len(TEXTS) * 100
    for each in answers[1:]:
        np.testing.assert_array_equal(each, answers[0])


@pytest.mark.gpu
def test_each_gpu_of_the_machine_can_be_chosen() -> None:
    for worker, index in enumerate(probe().usable_gpus):
        choice = choose_device("auto", worker=worker)
        assert choice.device == f"cuda:{index}"
        small = load_encoder("", msgspec.structs.replace(choice, threads=1))
        assert encode(TEXTS[:3], small).shape == (3, 384)
