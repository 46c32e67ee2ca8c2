"""The machine at hand: what its device is called, how many there are, and how much memory a process has taken of it."""

import contextlib
import ctypes
import os
import platform
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

CONTEXT = 0.8e9
"""Bytes of a GPU that a process takes beside its tensors."""


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
    """Bytes of memory in all: of a GPU, or of this machine."""
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


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
        torch.cuda.reset_peak_memory_stats(device)
    else:
        with contextlib.suppress(OSError):  # without it the peak counts from the process's start
            Path("/proc/self/clear_refs").write_text("5")


def peak_memory(device: "torch.device") -> int:
    """The most bytes held since `reset_peak`: of tensors on a GPU, of the whole process on a CPU."""
    import resource

    import torch

    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    peaks = [int(line.split()[1]) for line in lines if line.startswith("VmHWM")]
    return 1024 * (peaks[0] if peaks else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
