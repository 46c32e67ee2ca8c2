"""The machine at hand: what its device is called, how many there are, and how much memory a process has taken of it."""

import contextlib
import ctypes
import os
import platform
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

CONTEXT = 0.6e9
"""Bytes of a GPU that a process takes beside what torch allocates. Reasoned, not measured."""

PROCESS = 0.5e9
"""Bytes of the machine that a process takes before it trains."""

WORKSPACE = 0.3e9
"""Bytes that torch allocates for the products of cuDNN and cuBLAS, beside tensors: cuBLAS keeps up to 32 MiB a stream;
of cuDNN's ways to convolve torch takes the next if one gets no workspace. Reasoned, not measured."""

CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def gpus() -> tuple[str, int, int] | None:
    """The name of this machine's GPUs, their number and the bytes of memory of one; None if it has none."""
    if Path("/proc/driver/nvidia").exists():  # torch is slow to import
        import torch

        if torch.cuda.is_available():
            return torch.cuda.get_device_name(), torch.cuda.device_count(), memory(torch.device("cuda"))
    return None


def here() -> tuple[str, int]:
    """The name and the number of what trials would run on: this machine's GPUs, else its cores."""
    if found := gpus():
        return found[:2]
    return core(), cores()


def cores() -> int:
    """How many cores of this machine this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def name(device: "torch.device") -> str:
    """The name of a GPU, or of this machine's cores."""
    import torch

    return torch.cuda.get_device_name(device) if device.type == "cuda" else core()


def core() -> str:
    """The name of this machine's cores: "a core of AMD EPYC 9654"."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"a core of {names[0] if names else platform.processor() or platform.machine()}"


def memory(device: "torch.device") -> int:
    """Bytes of memory in all: of a GPU, or of this machine or container."""
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    limits = [Path(file).read_text().strip() for file in CGROUP_LIMITS if Path(file).exists()]
    whole = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min([whole, *(int(limit) for limit in limits if limit.isdigit())])


def available(device: "torch.device") -> float:
    """Bytes that a training may hold in this process: of a GPU its share without a context and workspaces; on a CPU
    what the machine has, or what a limit on the process leaves."""
    import resource

    import torch

    whole = memory(device)
    if device.type == "cuda":
        fraction = getattr(torch.cuda, "get_per_process_memory_fraction", lambda device: 1.0)  # torch 2.6 lacks it
        return min(fraction(device.index) * whole, whole - CONTEXT) - WORKSPACE  # it takes "cuda:0" but not "cuda"
    limits = ((resource.RLIMIT_AS, "VmSize"), (resource.RLIMIT_DATA, "VmData"))
    left = [resource.getrlimit(kind)[0] - _status(held) for kind, held in limits if resource.getrlimit(kind)[0] >= 0]
    return min([whole - PROCESS, *left])


def _status(key: str) -> int:
    """Bytes of an entry of /proc/self/status, 0 where the system has none."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith(key + ":")), 0)


M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3
"""Of glibc's malloc.h."""


def keep_freed_memory() -> None:
    """Let this process keep the memory that it frees for what it needs next, where its C library is glibc, which by
    default returns every large activation to the system."""
    if platform.libc_ver()[0] == "glibc":
        for parameter, value in ((M_MMAP_THRESHOLD, 1 << 30), (M_TRIM_THRESHOLD, -1), (M_TOP_PAD, 256 << 20)):
            ctypes.CDLL(None).mallopt(parameter, value)


def reset_peak(device: "torch.device") -> None:
    """Let `peak_memory` count from here on."""
    import torch

    if device.type == "cuda":
        torch.cuda.empty_cache()  # of the trial before
        torch.cuda.reset_peak_memory_stats(device)
    else:
        with contextlib.suppress(OSError):  # without it the peak counts from the process's start
            Path("/proc/self/clear_refs").write_text("5")


def peak_memory(device: "torch.device") -> int:
    """The most bytes held since `reset_peak`: of a GPU by torch, in use or not; of the whole process on a CPU."""
    import resource

    import torch

    if device.type == "cuda":  # a CUDA graph's launches allocate nothing
        return torch.cuda.max_memory_reserved(device)
    return _status("VmHWM") or 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
