"""The choice of device and dtype, over the table of machines."""

from pathlib import Path

import pytest

from pharos_embedder.devices import (
    Capabilities,
    DeviceChoice,
    DeviceUnavailable,
    Gpu,
    _nvidia_card,
    choose_device,
    cpu_flags,
    decide,
    has_code_for,
    memory_of,
    thread_count,
)

OLD = Gpu("Old", (7, 5))
NEW = Gpu("New", (9, 0))
ANCIENT = Gpu("Ancient", (6, 1))
STRANGE = Gpu("Strange", (12, 0), usable=False)

PLAIN = Capabilities()
AVX = Capabilities(avx512_bf16=True)
AMX = Capabilities(amx_bf16=True, avx512_bf16=True)
MAC = Capabilities(mps=True)
GPUS = Capabilities(gpus=(OLD, NEW), nvidia_card=True, cuda_build=True, avx512_bf16=True)
MIXED = Capabilities(gpus=(STRANGE, ANCIENT, Gpu("MI300")), nvidia_card=True, cuda_build=True)
NONE = None


@pytest.mark.parametrize(
    ("machine", "requested", "expected"),
    [
        (PLAIN, "auto", ("cpu", "float32")),
        (PLAIN, "cpu", ("cpu", "float32")),
        (PLAIN, "mps", NONE),
        (PLAIN, "cuda", NONE),
        (PLAIN, "cuda:0", NONE),
        (AVX, "auto", ("cpu", "bfloat16")),
        (AVX, "cpu", ("cpu", "bfloat16")),
        (AVX, "mps", NONE),
        (AVX, "cuda", NONE),
        (AMX, "auto", ("cpu", "bfloat16")),
        (AMX, "cpu", ("cpu", "bfloat16")),
        (AMX, "cuda", NONE),
        (MAC, "auto", ("mps", "float32")),
        (MAC, "cpu", ("cpu", "float32")),
        (MAC, "mps", ("mps", "float32")),
        (MAC, "cuda", NONE),
        (MIXED, "auto", ("cuda:1", "float32")),
        (MIXED, "cuda:0", NONE),
        (MIXED, "cuda:2", ("cuda:2", "bfloat16")),
        (GPUS, "auto", ("cuda:0", "float16")),
        (GPUS, "CUDA", ("cuda:0", "float16")),
        (GPUS, "cuda:1", ("cuda:1", "bfloat16")),
        (GPUS, "cuda:2", NONE),
        (GPUS, "cuda:-1", NONE),
        (GPUS, "cpu", ("cpu", "bfloat16")),
        (GPUS, "tpu", NONE),
        (GPUS, "", NONE),
    ],
)
def test_a_machine_and_a_wish_give_a_device_or_a_refusal(
    machine: Capabilities, requested: str, expected: tuple[str, str] | None
) -> None:
    if expected is None:
        with pytest.raises(DeviceUnavailable):
            decide(requested, machine)
        return
    choice = decide(requested, machine)
    assert (choice.device, choice.dtype) == expected
    assert choice.why


def test_a_refusal_says_what_there_is() -> None:
    with pytest.raises(
        DeviceUnavailable, match=r"device 'cuda:7' is not available here; available: mps, cpu"
    ):
        decide("cuda:7", MAC)


@pytest.mark.parametrize("requested", ["auto", "cuda"])
def test_workers_are_spread_over_the_gpus_that_can_be_used(requested: str) -> None:
    assert [decide(requested, GPUS, worker).device for worker in range(4)] == [
        "cuda:0", "cuda:1", "cuda:0", "cuda:1",
    ]  # fmt: skip
    assert [decide(requested, MIXED, worker).device for worker in range(3)] == ["cuda:1", "cuda:2", "cuda:1"]
    assert decide("cuda:1", GPUS, 0).device == decide("cuda:1", GPUS, 2).device == "cuda:1"
    assert decide("auto", AVX, 3).device == "cpu"
    assert "one of 2 GPUs, for worker 3" in decide(requested, GPUS, 3).why


@pytest.mark.parametrize(
    ("capability", "dtype"),
    [
        ((12, 0), "bfloat16"),
        ((9, 0), "bfloat16"),
        ((8, 0), "bfloat16"),
        ((7, 5), "float16"),
        ((7, 0), "float16"),
        ((6, 2), "float16"),
        ((6, 1), "float32"),
        ((6, 0), "float16"),
        ((5, 2), "float32"),
    ],
)
def test_half_precision_is_for_gpus_that_compute_in_it(capability: tuple[int, int], dtype: str) -> None:
    choice = decide("cuda", Capabilities(gpus=(Gpu("G", capability),)))
    assert choice.dtype == dtype
    assert f"{capability[0]}.{capability[1]}" in choice.why


@pytest.mark.parametrize(
    ("machine", "advice"),
    [
        (Capabilities(nvidia_card=True), "make setup TORCH=cuda"),
        (Capabilities(nvidia_card=True, cuda_build=True), "look at `nvidia-smi`"),
        (Capabilities(gpus=(STRANGE,), nvidia_card=True, cuda_build=True), "no code for Strange"),
    ],
)
def test_a_gpu_that_is_not_used_is_told_with_what_to_do(machine: Capabilities, advice: str) -> None:
    assert advice in decide("auto", machine).why
    assert advice not in decide("cpu", machine).why
    with pytest.raises(DeviceUnavailable, match=advice):
        decide("cuda", machine)


@pytest.mark.parametrize(
    ("capability", "architectures", "runs"),
    [
        ((8, 6), ["sm_80", "sm_90"], True),
        ((8, 0), ["sm_86"], False),
        ((9, 0), ["sm_80"], False),
        ((9, 0), ["sm_80", "compute_80"], True),
        ((7, 5), ["compute_80"], False),
        ((12, 0), ["sm_90a", "sm_120"], True),
        ((12, 1), ["sm_120f"], True),
        ((3, 7), ["sm_50", "sm_60"], False),
        ((8, 0), [], False),
        ((8, 0), ["gfx90a", "sm_"], False),
    ],
)
def test_a_build_runs_on_what_it_has_code_for(
    capability: tuple[int, int], architectures: list[str], runs: bool
) -> None:
    assert has_code_for(capability, architectures) is runs


def test_a_card_is_seen_on_the_bus_without_its_driver(tmp_path: Path) -> None:
    assert not _nvidia_card(tmp_path / "no bus")
    for name, vendor, kind in (("0", "0x8086", "0x030000"), ("1", "0x10de", "0x040300")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "vendor").write_text(f"{vendor}\n")
        (tmp_path / name / "class").write_text(f"{kind}\n")
    assert not _nvidia_card(tmp_path)  # somebody else's display, and the sound of one of NVIDIA's
    (tmp_path / "1" / "class").write_text("0x030200\n")
    assert _nvidia_card(tmp_path)


def test_the_reason_names_the_missing_instructions() -> None:
    assert "AVX512-BF16" in decide("cpu", PLAIN).why


def test_the_flags_are_those_of_the_first_core() -> None:
    text = (
        "processor\t: 0\nmodel name\t: X\nflags\t\t: fpu avx512_bf16 amx_bf16\n\nprocessor : 1\nflags : fpu\n"
    )
    assert cpu_flags(text) == {"fpu", "avx512_bf16", "amx_bf16"}
    assert cpu_flags("") == frozenset()
    assert cpu_flags("Features : asimd bf16") == frozenset()


@pytest.mark.parametrize(
    ("threads", "cpu_max", "expected"),
    [
        (64, "400000 100000\n", 4),
        (64, "max 100000\n", 64),
        (64, "", 64),
        (2, "400000 100000", 2),
        (8, "50000 100000", 1),
        (8, "250000 100000", 2),
        (8, "nonsense", 8),
        (8, "100000 0", 8),
        (0, "", 1),
    ],
)
def test_threads_stay_within_the_quota_of_the_container(threads: int, cpu_max: str, expected: int) -> None:
    assert thread_count(threads, cpu_max) == expected


def test_this_machine_has_at_least_a_cpu() -> None:
    choice = choose_device("cpu")
    assert choice.device == "cpu"
    assert choice.dtype in {"bfloat16", "float32"}
    assert choice.threads >= 1
    assert choose_device().why


def test_the_memory_of_a_cpu_is_that_of_the_machine() -> None:
    used, total = memory_of("cpu")
    assert 0 < used < total


@pytest.mark.parametrize(
    ("device", "threads", "lanes", "lane_threads"),
    [
        ("cpu", 1, 1, 1),
        ("cpu", 2, 2, 1),
        ("cpu", 8, 8, 1),
        ("cpu", 20, 8, 2),
        ("cuda:0", 16, 1, 16),
        ("mps", 8, 1, 8),
    ],
)
def test_a_cpu_has_a_lane_for_each_thread_up_to_a_limit(
    device: str, threads: int, lanes: int, lane_threads: int
) -> None:
    choice = DeviceChoice(device=device, dtype="float32", why="", threads=threads)
    assert (choice.lanes, choice.lane_threads) == (lanes, lane_threads)
