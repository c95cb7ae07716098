"""Products of matrices under vmap, bit for bit what each replica's would be alone.

What torch makes of a product under vmap, one batched product, is added up in an order that depends on the number of
replicas and on where each one's matrices happen to begin. Networks multiply through `matmul` and `Linear` instead.

Under torch.autocast both sides of a product are rounded to its precision, and so is the product; it is then float32
again. Recurrences turn it off: their states are carried on for many timesteps.
"""

from __future__ import annotations

import inspect
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from pipeline.core.cells import memory

FunctionClass = TypeVar("FunctionClass", bound=type[torch.autograd.Function])


def read_once(function: FunctionClass) -> FunctionClass:
    """Keep the signature of an autograd function's `forward`, which torch takes apart anew at each call."""
    function.forward.__signature__ = inspect.signature(function.forward)  # type: ignore[attr-defined]
    return function


@read_once
class _Product(torch.autograd.Function):
    """a @ b of a replica batch, (R, ...) each; further vmaps are folded into the replicas."""

    @staticmethod
    def forward(a_R: Tensor, b_R: Tensor) -> Tensor:  # noqa: D102
        return memory.product(a_R, b_R)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:  # noqa: D102
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad_R: Tensor) -> tuple[Tensor | None, Tensor | None]:  # noqa: D102
        a_R, b_R = ctx.saved_tensors
        a_needed, b_needed = ctx.needs_input_grad
        return (
            _replicated(grad_R, b_R.mT) if a_needed else None,
            _replicated(a_R.mT, grad_R) if b_needed else None,
        )

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *batched: Tensor) -> tuple[Tensor, int]:  # noqa: D102
        tensors = [memory.folded(each, dim, info.batch_size) for each, dim in zip(batched, in_dims, strict=True)]
        return _replicated(*tensors).unflatten(0, (info.batch_size, -1)), 0


def _replicated(a_R: Tensor, b_R: Tensor) -> Tensor:
    found: Tensor = _Product.apply(a_R, b_R)  # type: ignore[no-untyped-call]
    return found


def in_full_precision(kind: str) -> AbstractContextManager[Any]:
    """Return a context without torch.autocast on a kind of device."""
    return torch.autocast(kind, enabled=False) if torch.is_autocast_enabled(kind) else nullcontext()


def matmul(a: Tensor, b: Tensor) -> Tensor:
    """Return a @ b, matrices or as many of them on both sides; of a replica batch each by itself."""
    if torch.is_autocast_enabled(kind := a.device.type):
        dtype = torch.get_autocast_dtype(kind)
        with in_full_precision(kind):
            return matmul(a.to(dtype), b.to(dtype)).float()
    if torch._C._functorch.maybe_current_level() is None:
        return a @ b
    return _replicated(a[None], b[None])[0]


def mapped(x: Tensor, weight: Tensor) -> Tensor:
    """Return x (..., K) times the transpose of a weight (N, K), (..., N); of a replica batch each by itself."""
    return matmul(x.reshape(-1, x.shape[-1]), weight.mT).reshape(*x.shape[:-1], len(weight))


class Linear(nn.Linear):
    """`nn.Linear`, by `matmul`."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002, D102 - torch's name
        return mapped(input, self.weight) + self.bias
