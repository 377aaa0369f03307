"""Where the encoder runs and in which precision, and why.

`choose_device` looks at the machine once; `decide` is the rule itself, a pure function of what was found.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec
import psutil
import torch

CUDA_PREFIX: Final = "cuda:"

LANES_MAX: Final = 8
"""Passes that go side by side on a CPU."""


Version = tuple[int, int]
"""(major, minor), of a GPU's compute capability."""


class DeviceUnavailable(Exception):
    """The requested device is not on this machine, or is no device that an encoder can run on."""

    def __init__(self, requested: str, available: tuple[str, ...], advice: str = "") -> None:
        self.requested = requested
        self.available = available
        super().__init__(
            f"device {requested!r} is not available here; available: {', '.join(available)}"
            + (f". {advice[0].upper()}{advice[1:]}" if advice else "")
        )


class Gpu(msgspec.Struct, frozen=True):
    """An NVIDIA GPU, or an AMD one under ROCm, as torch sees it; ``capability`` is NVIDIA's alone."""

    name: str
    capability: Version | None = None
    usable: bool = True  # whether this build of torch has code for it


class Capabilities(msgspec.Struct, frozen=True, kw_only=True):
    """What a machine offers, as far as the choice depends on it."""

    gpus: tuple[Gpu, ...] = ()
    nvidia_card: bool = False  # on the machine, whether torch sees it or not
    cuda_build: bool = False
    mps: bool = False
    avx512_bf16: bool = False
    amx_bf16: bool = False
    threads: int = 1  # what this process may use: cores, affinity and container quota all respected

    @property
    def usable_gpus(self) -> tuple[int, ...]:
        return tuple(index for index, gpu in enumerate(self.gpus) if gpu.usable)

    @property
    def devices(self) -> tuple[str, ...]:
        """Every name that may be requested, best first."""
        gpus = tuple(f"{CUDA_PREFIX}{index}" for index in self.usable_gpus)
        return gpus + (("mps",) if self.mps else ()) + ("cpu",)

    @property
    def advice(self) -> str:
        """Why a GPU that is there is not used, and what to do about it; empty where none is."""
        useless = [gpu.name for gpu in self.gpus if not gpu.usable]
        if useless:
            return f"this build of torch has no code for {', '.join(useless)}; install one that has"
        if self.nvidia_card and not self.gpus:
            if not self.cuda_build:
                return (
                    "an NVIDIA GPU is here, and torch was built without CUDA; "
                    "`make setup TORCH=cuda` installs the other build"
                )
            return (
                "an NVIDIA GPU is here, and its driver does not answer this process; look at `nvidia-smi`, "
                "and in a container at whether it was given the GPU"
            )
        return ""


class DeviceChoice(msgspec.Struct, frozen=True, kw_only=True):
    """A device and a precision, in torch's words, with the reason for a log line."""

    device: str  # "cpu", "mps", "cuda:0" …
    dtype: str  # "bfloat16", "float16", "float32"
    why: str
    threads: int = 1  # CPU threads, of all passes together

    @property
    def lanes(self) -> int:
        """Passes that go side by side: on a CPU one for each thread, up to a limit.

        Threads of one pass wait for each other after each product, and the longer the busier the machine is
        (docs/experiments.md). The limit is for memory: each pass has its own intermediate values.
        """
        return min(self.threads, LANES_MAX) if self.device == "cpu" else 1

    @property
    def lane_threads(self) -> int:
        return self.threads // self.lanes


def choose_device(requested: str = "auto", *, worker: int = 0) -> DeviceChoice:
    """The device and dtype for *requested*: `auto`, `cpu`, `cuda`, `cuda:<index>` or `mps`.

    *worker* is which of the workers of this machine asks, from 0: `auto` and `cuda` spread them over its
    GPUs. Raises DeviceUnavailable, naming what is there, when it is none of these or not on this machine.
    """
    return decide(requested, probe(), worker)


def decide(requested: str, found: Capabilities, worker: int = 0) -> DeviceChoice:
    """The rule: a GPU before the CPU, and half precision only where the hardware computes in it.

    On a CPU without AVX512-BF16 or AMX, bf16 is emulated and slower than fp32. On MPS fp32 is kept: fp16
    gains little for small encoders there and overflows in some (activations beyond 65,504).
    """
    wanted = requested.strip().lower()
    spread = wanted in ("auto", "cuda") and bool(found.usable_gpus)
    if spread:
        wanted = f"{CUDA_PREFIX}{found.usable_gpus[worker % len(found.usable_gpus)]}"
    elif wanted == "auto":
        wanted = found.devices[0]
    if wanted not in found.devices:
        raise DeviceUnavailable(requested, found.devices, found.advice)
    if wanted == "cpu":
        return _on_cpu(found, advice=found.advice if requested.strip().lower() != "cpu" else "")
    if wanted == "mps":
        return DeviceChoice(device="mps", dtype="float32", why="Apple GPU; fp32", threads=found.threads)
    dtype, why = _precision(found.gpus[int(wanted.removeprefix(CUDA_PREFIX))])
    if spread and len(found.usable_gpus) > 1:
        why += f"; one of {len(found.usable_gpus)} GPUs, for worker {worker}"
    return DeviceChoice(device=wanted, dtype=dtype, why=why, threads=found.threads)


def _precision(gpu: Gpu) -> tuple[str, str]:
    """The dtype for *gpu*, and why. Source: the throughput table of NVIDIA's CUDA C++ programming guide."""
    if gpu.capability is None:
        return "bfloat16", f"{gpu.name}; bf16"
    shown = f"{gpu.name}, compute capability {gpu.capability[0]}.{gpu.capability[1]}"
    if gpu.capability >= (8, 0):  # Ampere
        return "bfloat16", f"{shown}: bf16"
    if gpu.capability >= (7, 0) or gpu.capability in ((5, 3), (6, 0), (6, 2)):
        return "float16", f"{shown}: it has no bf16, so fp16"
    return "float32", f"{shown}: its fp16 is slower than fp32, so fp32"


def _on_cpu(found: Capabilities, advice: str) -> DeviceChoice:
    if found.amx_bf16:
        dtype, why = "bfloat16", "CPU with AMX: bf16"
    elif found.avx512_bf16:
        dtype, why = "bfloat16", "CPU with AVX512-BF16: bf16"
    else:
        dtype, why = "float32", "CPU without AVX512-BF16 or AMX: bf16 would be emulated, so fp32"
    if advice:
        why += f"; {advice}"
    return DeviceChoice(device="cpu", dtype=dtype, why=why, threads=found.threads)


def probe() -> Capabilities:
    """What this machine offers. Touches no accelerator beyond asking for its properties."""
    flags = cpu_flags(_read(Path("/proc/cpuinfo")))
    gpus: tuple[Gpu, ...] = ()
    if torch.cuda.is_available():
        gpus = tuple(_gpu(index) for index in range(torch.cuda.device_count()))
    return Capabilities(
        gpus=gpus,
        nvidia_card=_nvidia_card(Path("/sys/bus/pci/devices")),
        cuda_build=torch.version.cuda is not None,
        mps=torch.backends.mps.is_available(),
        avx512_bf16="avx512_bf16" in flags,
        amx_bf16="amx_bf16" in flags,
        threads=thread_count(torch.get_num_threads(), _read(Path("/sys/fs/cgroup/cpu.max"))),
    )


def _gpu(index: int) -> Gpu:
    name = torch.cuda.get_device_name(index)
    if torch.version.hip is not None:  # its numbers mean something else; every card that it supports has bf16
        return Gpu(name)
    capability = torch.cuda.get_device_capability(index)
    return Gpu(name, capability, has_code_for(capability, torch.cuda.get_arch_list()))


def has_code_for(capability: Version, architectures: Sequence[str]) -> bool:
    """Whether a build for *architectures*, in torch's words (`sm_86`, `compute_90`), runs on *capability*.

    Binaries run on the same major version from their minor version on, PTX on everything newer. Source:
    NVIDIA's notes on CUDA compatibility.
    """
    for each in architectures:
        kind, _, digits = each.partition("_")
        digits = digits.rstrip("af")  # of one architecture or family alone: as its number for that
        if not digits.isdigit() or len(digits) < 2:
            continue
        built = (int(digits[:-1]), int(digits[-1]))
        same = built[0] == capability[0] and built[1] <= capability[1]
        if same or (kind == "compute" and built <= capability):
            return True
    return False


def _nvidia_card(devices: Path) -> bool:
    """Whether the PCI bus has a display or compute device of NVIDIA's, whatever its driver says."""
    for device in devices.glob("*") if devices.is_dir() else ():
        if _read(device / "vendor").strip() == "0x10de" and _read(device / "class").startswith("0x03"):
            return True
    return False


def cpu_flags(cpuinfo: str) -> frozenset[str]:
    """The feature flags of the first core in the text of /proc/cpuinfo; none where there is no such text."""
    for line in cpuinfo.splitlines():
        name, separator, value = line.partition(":")
        if separator and name.strip() == "flags":
            return frozenset(value.split())
    return frozenset()


def thread_count(threads: int, cpu_max: str) -> int:
    """*threads*, bounded by a container's quota (the text of cgroup v2's cpu.max: "max 100000", "200000
    100000").

    torch counts the cores of the node, not the quota: 64 threads on a quota of 4 spend their time
    throttled.
    """
    quota, _, period = cpu_max.strip().partition(" ")
    if not quota.isdigit() or not period.isdigit() or int(period) == 0:
        return max(1, threads)
    return max(1, min(threads, round(int(quota) / int(period))))


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:  # another operating system, or a container that hides it
        return ""


def memory_of(device: str) -> tuple[int, int]:
    """(used, total) bytes of *device*: of the GPU, or of the machine where the two share it."""
    if device.startswith("cuda"):
        free, total = torch.cuda.mem_get_info(device)
        return int(total - free), int(total)
    memory = psutil.virtual_memory()
    return int(memory.total - memory.available), int(memory.total)


def free_bytes(device: str) -> int:
    """Memory that is free on *device* now: of the GPU, or of the machine where the two share it."""
    if device.startswith("cuda"):
        free, _total = torch.cuda.mem_get_info(device)
        return int(free)
    return int(psutil.virtual_memory().available)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether *error* is a device's or the system's way of saying that memory ran out."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    # The allocators of CPUs and of Apple raise a bare RuntimeError, and so do NVIDIA's libraries for the
    # workspace that they take for themselves (CUBLAS_STATUS_ALLOC_FAILED).
    signs = ("can't allocate memory", "out of memory", "_STATUS_ALLOC_FAILED")
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in signs)


def release_memory() -> None:
    """Give the device back what torch keeps of its memory for later."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    elif torch.backends.mps.is_available():
        torch.mps.empty_cache()
