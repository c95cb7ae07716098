"""Memory of activations, which on a CPU costs as much to touch for the first time as to compute with.

Large tensors are asked for in large pages; what a pass kept for its way back is lent to the next one.
"""

from __future__ import annotations

import ctypes
import mmap
import threading
import weakref
from collections import deque
from typing import Any

import torch
from torch import Tensor

LARGE_PAGE = 1 << 21
"""Bytes."""

LINE = 64
"""Bytes of a cache line, and of the widest vector."""


def new(like: Tensor, *shape: int) -> Tensor:
    """Return an uninitialised tensor; a large one on a CPU in large pages, where the system has them."""
    tensor = like.new_empty(shape)
    if tensor.device.type == "cpu" and tensor.nbytes >= 2 * LARGE_PAGE and hasattr(mmap, "MADV_HUGEPAGE"):
        first = -(-tensor.data_ptr() // LARGE_PAGE) * LARGE_PAGE
        length = (tensor.data_ptr() + tensor.nbytes - first) // LARGE_PAGE * LARGE_PAGE
        _LIBC.madvise(ctypes.c_void_p(first), ctypes.c_size_t(length), ctypes.c_int(mmap.MADV_HUGEPAGE))
    return tensor


def by_replica(like: Tensor, num_replicas: int, *shape: int) -> Tensor:
    """Return an uninitialised tensor of (R, ...), on a CPU with each replica at the beginning of a cache line."""
    if like.device.type != "cpu":
        return new(like, num_replicas, *shape)
    size, a_line = torch.Size(shape).numel(), LINE // like.element_size()
    return new(like, num_replicas, -(-size // a_line) * a_line)[:, :size].unflatten(1, shape)


def aligned(tensor: Tensor) -> Tensor:
    """Return the same numbers of (R, ...), on a CPU with each replica's together, from the beginning of a line on."""
    first = tensor[0]
    is_whole = first.is_contiguous()
    if not is_whole and tensor.dim() > 2 and first.mT.is_contiguous():  # noqa: PLR2004 - a matrix
        return aligned(tensor.mT).mT
    begins = (tensor.data_ptr(), tensor.stride(0) * tensor.element_size())
    if tensor.device.type == "cpu" and (not is_whole or any(each % LINE for each in begins)):
        return by_replica(tensor, *tensor.shape).copy_(tensor)
    return tensor if 1 not in tensor.shape[1:] else tensor.flatten(1).unflatten(1, tensor.shape[1:])  # of one stride


def product(a_R: Tensor, b_R: Tensor) -> Tensor:
    """Return a @ b of R replicas, (R, ..., M, K) and (R, ..., K, N), on a CPU bit for bit what each would be alone.

    How MKL adds up a product depends on where its matrices begin, and for a matrix with a single column on how many
    products are asked for at once: so each is asked for by itself, of matrices that begin at a line.
    """
    if a_R.device.type != "cpu" or not len(a_R):
        return a_R @ b_R
    a_R, b_R = aligned(a_R), aligned(b_R)
    found = by_replica(a_R, *a_R.shape[:-1], b_R.shape[-1])
    multiply = torch.mm if a_R.dim() == 3 else torch.matmul  # noqa: PLR2004 - matrices
    for a, b, each in zip(a_R.unbind(), b_R.unbind(), found.unbind(), strict=True):
        multiply(a, b, out=each)
    return found


def folded(argument: Any, dim: int | None, size: int) -> Any:
    """Return a tensor under vmap with vmap's axis folded into its first one, that of replicas; all else as it is."""
    if not isinstance(argument, Tensor):
        return argument
    if dim is None:
        return argument.expand(size, *argument.shape).flatten(0, 1)
    return argument.movedim(dim, 0).flatten(0, 1)


_LIBC = ctypes.CDLL(None)


class Loan:
    """Uninitialised memory on a CPU that goes back when the last tensor that shares it does, to be lent again.

    What lies idle and what is lent are together never more than was once lent at a time.

    Args:
        like: Its precision.
        shape: Of `tensor`.
    """

    _lock = threading.Lock()
    _idle: list[Tensor] = []
    _lent = _most_lent = 0
    _returned = deque[Tensor]()  # filled without the lock: the garbage collector may return memory at any moment

    def __init__(self, like: Tensor, *shape: int) -> None:
        num_bytes = torch.Size(shape).numel() * like.element_size()
        with Loan._lock:
            while Loan._returned:
                Loan._idle.append(Loan._returned.popleft())
                Loan._lent -= Loan._idle[-1].nbytes
            fitting = [index for index, memory in enumerate(Loan._idle) if memory.nbytes == num_bytes]
            empty = torch.empty(0, dtype=torch.uint8, device="cpu")
            memory = Loan._idle.pop(fitting[-1]) if fitting else new(empty, num_bytes)
            Loan._lent += memory.nbytes
            Loan._most_lent = max(Loan._most_lent, Loan._lent)
            while Loan._lent + sum(idle.nbytes for idle in Loan._idle) > Loan._most_lent:
                Loan._idle.pop(0)
        lent = memory.numpy()  # every tensor that shares the memory, whoever has it, holds this array
        weakref.finalize(lent, Loan._returned.append, memory).atexit = False
        self.tensor = torch.from_numpy(lent).view(like.dtype).view(shape)
