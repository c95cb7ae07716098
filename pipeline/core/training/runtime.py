"""How this process computes: threads, denormal numbers, memory, and what that cost."""

from __future__ import annotations

import contextlib
import ctypes
import platform
import resource
import sys
from collections.abc import Iterator
from pathlib import Path

import torch

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4  # malloc.h


@contextlib.contextmanager
def computing(num_threads: int) -> Iterator[None]:
    """Use `num_threads` torch threads and flush denormals to zero; put both back at the end.

    A vanished gradient is full of denormal numbers, and a CPU step on them is five to ten times slower. The flag is
    each thread's own and inherited at its start: torch's further threads keep what held when they were first used.
    """
    threads, flushed = torch.get_num_threads(), denormals_are_flushed()
    torch.set_num_threads(num_threads)
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.set_flush_denormal(flushed)


def denormals_are_flushed() -> bool:
    """Return whether float32 arithmetic on this thread rounds denormal numbers to zero."""
    smallest_normal = torch.tensor(torch.finfo(torch.float32).tiny)
    return (smallest_normal * 0.5).item() == 0.0


def keep_freed_memory() -> None:
    """Ask glibc to keep what is freed for the next step (nothing happens on other platforms).

    A step frees tens of megabytes and asks for them again; returned to the system in between, every page comes back
    as a page fault, which costs more than writing it.
    """
    if sys.platform == "linux" and platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_MAX, 0)
        libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
        libc.mallopt(_M_TOP_PAD, 64 * 2**20)


@contextlib.contextmanager
def counting_activations(kept: dict[int, int]) -> Iterator[None]:
    """Note in `kept`, by address, the bytes that a pass inside keeps for its way back; shared memory counts once."""

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        yield


def reset_peak_memory(device: torch.device) -> None:
    """Start counting peak memory anew, where the platform can."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif sys.platform == "linux":
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")


def peak_memory_bytes(device: torch.device) -> int:
    """Return the most memory in use since `reset_peak_memory`: the GPU allocator's, or the process's resident set."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
