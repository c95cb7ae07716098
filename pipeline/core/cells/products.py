"""Products of matrices under vmap, bit for bit what each replica's would be alone.

What torch makes of a product under vmap, one batched product, is added up in an order that depends on the number of
replicas and on where each one's matrices happen to begin. Networks multiply through `matmul` and `Linear` instead.

Under torch.autocast both sides of a product are rounded to its precision, and so is the product; it is then float32
again. Recurrences turn it off: their states are carried on for many timesteps.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch._functorch.pyfunctorch import VmapInterpreter

from pipeline.core.cells import memory

VMAP = torch._C._functorch.TransformType.Vmap


def across_replicas(function: type[torch.autograd.Function], *arguments: Any) -> tuple[Tensor, ...]:
    """Return what an autograd function of a replica batch, (R, ...) each, makes of tensors without that axis.

    Under vmap its axis is that of replicas. Torch's own way from there to the function and back takes longer than most
    of what these functions do, so it is taken only where several transforms are at work.

    Args:
        function: Returns a tuple of tensors; its rule for vmap folds that axis into the first one.
        arguments: Tensors of one network; anything else is handed on as it is.
    """
    transforms = torch._C._functorch.get_interpreter_stack() or []
    if len(transforms) != 1 or transforms[0].key() != VMAP:
        return tuple(each[0] for each in _applied(function, *map(_alone, arguments)))
    vmap = VmapInterpreter(transforms[0])
    level, size = vmap.level(), vmap.batch_size()
    with vmap.lower():
        found = _applied(function, *(_unwrapped(each, level, size) for each in arguments))
    return tuple(torch._C._functorch._add_batch_dim(each, 0, level) for each in found)


def _alone(argument: Any) -> Any:
    return argument[None] if isinstance(argument, Tensor) else argument


def _unwrapped(argument: Any, level: int, size: int) -> Any:
    """Return a tensor under vmap as it is outside, vmap's axis first; all else as it is."""
    if not isinstance(argument, Tensor):
        return argument
    tensor, dim = torch._C._functorch._unwrap_batched(argument, level)
    return tensor.expand(size, *tensor.shape) if dim is None else tensor.movedim(dim, 0) if dim else tensor


def _applied(function: type[torch.autograd.Function], *arguments: Any) -> tuple[Tensor, ...]:
    """Return `function.apply`; where no transform is at work, without a look at the function's signature."""
    found: tuple[Tensor, ...]
    if torch._C._functorch.get_interpreter_stack() is None:
        found = super(torch.autograd.Function, function).apply(*arguments)  # type: ignore[misc]
    else:
        found = function.apply(*arguments)
    return found


class _Product(torch.autograd.Function):
    """a @ b of a replica batch, (R, ...) each; further vmaps are folded into the replicas."""

    @staticmethod
    def forward(a_R: Tensor, b_R: Tensor) -> tuple[Tensor]:  # noqa: D102
        return (memory.product(a_R, b_R),)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: tuple[Tensor]) -> None:  # noqa: D102
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
    def vmap(  # noqa: D102
        info: Any, in_dims: tuple[int | None, ...], *batched: Tensor
    ) -> tuple[tuple[Tensor], tuple[int]]:
        tensors = [memory.folded(each, dim, info.batch_size) for each, dim in zip(batched, in_dims, strict=True)]
        return (_replicated(*tensors).unflatten(0, (info.batch_size, -1)),), (0,)


def _replicated(a_R: Tensor, b_R: Tensor) -> Tensor:
    return _applied(_Product, a_R, b_R)[0]


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
    return across_replicas(_Product, a, b)[0]


def mapped(x: Tensor, weight: Tensor) -> Tensor:
    """Return x (..., K) times the transpose of a weight (N, K), (..., N); of a replica batch each by itself."""
    return matmul(x.reshape(-1, x.shape[-1]), weight.mT).reshape(*x.shape[:-1], len(weight))


class Linear(nn.Linear):
    """`nn.Linear`, by `matmul`."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002, D102 - torch's name
        return mapped(input, self.weight) + self.bias
