"""The choice of device and dtype, over the table of machines."""

import pytest

from pharos_embedder.devices import (
    Capabilities,
    DeviceUnavailable,
    choose_device,
    cpu_flags,
    decide,
    memory_of,
    thread_count,
)

PLAIN = Capabilities()
AVX = Capabilities(avx512_bf16=True)
AMX = Capabilities(amx_bf16=True, avx512_bf16=True)
MAC = Capabilities(mps=True)
GPUS = Capabilities(cuda=("Old", "New"), cuda_bf16=(False, True), avx512_bf16=True)
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
