"""Where the encoder runs and in which precision, and why.

`choose_device` looks at the machine once; `decide` is the rule itself, a pure function of what was found.
"""

from pathlib import Path
from typing import Final

import msgspec
import psutil
import torch

CUDA_PREFIX: Final = "cuda:"


class DeviceUnavailable(Exception):
    """The requested device is not on this machine, or is no device that an encoder can run on."""

    def __init__(self, requested: str, available: tuple[str, ...]) -> None:
        self.requested = requested
        self.available = available
        super().__init__(f"device {requested!r} is not available here; available: {', '.join(available)}")


class Capabilities(msgspec.Struct, frozen=True, kw_only=True):
    """What a machine offers, as far as the choice depends on it."""

    cuda: tuple[str, ...] = ()  # the name of each GPU, by index
    cuda_bf16: tuple[bool, ...] = ()  # whether each computes in bf16
    mps: bool = False
    avx512_bf16: bool = False
    amx_bf16: bool = False
    threads: int = 1  # what this process may use: cores, affinity and container quota all respected

    @property
    def devices(self) -> tuple[str, ...]:
        """Every name that may be requested, best first."""
        gpus = tuple(f"{CUDA_PREFIX}{index}" for index in range(len(self.cuda)))
        return gpus + (("mps",) if self.mps else ()) + ("cpu",)


class DeviceChoice(msgspec.Struct, frozen=True, kw_only=True):
    """A device and a precision, in torch's words, with the reason for a log line."""

    device: str  # "cpu", "mps", "cuda:0" …
    dtype: str  # "bfloat16", "float16", "float32"
    why: str
    threads: int = 1  # CPU threads of one forward pass


def choose_device(requested: str = "auto") -> DeviceChoice:
    """The device and dtype for *requested*: `auto`, `cpu`, `cuda`, `cuda:<index>` or `mps`.

    Raises DeviceUnavailable, naming what is there, when it is none of these or not on this machine.
    """
    return decide(requested, probe())


def decide(requested: str, found: Capabilities) -> DeviceChoice:
    """The rule: a GPU before the CPU, and half precision only where the hardware computes in it.

    On a CPU without AVX512-BF16 or AMX, bf16 is emulated and slower than fp32. On MPS fp32 is kept: fp16
    gains little for small encoders there and overflows in some (activations beyond 65,504).
    """
    wanted = requested.strip().lower()
    if wanted == "auto":
        wanted = found.devices[0]
    elif wanted == "cuda":
        wanted = f"{CUDA_PREFIX}0"
    if wanted not in found.devices:
        raise DeviceUnavailable(requested, found.devices)
    if wanted == "cpu":
        return _on_cpu(found)
    if wanted == "mps":
        return DeviceChoice(device="mps", dtype="float32", why="Apple GPU; fp32", threads=found.threads)
    index = int(wanted.removeprefix(CUDA_PREFIX))
    if found.cuda_bf16[index]:
        dtype, why = "bfloat16", f"{found.cuda[index]}; it computes in bf16"
    else:
        dtype, why = "float16", f"{found.cuda[index]}; it has no bf16, so fp16"
    return DeviceChoice(device=wanted, dtype=dtype, why=why, threads=found.threads)


def _on_cpu(found: Capabilities) -> DeviceChoice:
    if found.amx_bf16:
        dtype, why = "bfloat16", "CPU with AMX: bf16"
    elif found.avx512_bf16:
        dtype, why = "bfloat16", "CPU with AVX512-BF16: bf16"
    else:
        dtype, why = "float32", "CPU without AVX512-BF16 or AMX: bf16 would be emulated, so fp32"
    return DeviceChoice(device="cpu", dtype=dtype, why=why, threads=found.threads)


def probe() -> Capabilities:
    """What this machine offers. Touches no accelerator beyond asking for its properties."""
    flags = cpu_flags(_read(Path("/proc/cpuinfo")))
    names: tuple[str, ...] = ()
    bf16: tuple[bool, ...] = ()
    if torch.cuda.is_available():
        indexes = range(torch.cuda.device_count())
        names = tuple(torch.cuda.get_device_name(index) for index in indexes)
        # Compute capability 8.0 (Ampere) is the first with bf16 units; torch's own test also accepts
        # emulation. ROCm reports its own numbers there, and every card that torch supports has bf16.
        hip = torch.version.hip is not None
        bf16 = tuple(hip or torch.cuda.get_device_capability(index) >= (8, 0) for index in indexes)
    return Capabilities(
        cuda=names,
        cuda_bf16=bf16,
        mps=torch.backends.mps.is_available(),
        avx512_bf16="avx512_bf16" in flags,
        amx_bf16="amx_bf16" in flags,
        threads=thread_count(torch.get_num_threads(), _read(Path("/sys/fs/cgroup/cpu.max"))),
    )


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
