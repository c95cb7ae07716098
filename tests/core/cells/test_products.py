"""Products of a replica batch, and the short way under vmap, against torch's own products and its own way."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from pipeline.core.cells.products import across_replicas, matmul

M, K, N, R = 3, 4, 2, 5


class _Scaled(torch.autograd.Function):
    """(a · factor, its sum over all but the replica axis), of a replica batch."""

    @staticmethod
    def forward(a_R: Tensor, factor: float, nothing: None) -> tuple[Tensor, Tensor]:
        assert a_R.dim() == 3 and nothing is None  # noqa: PT018
        return a_R * factor, a_R.sum(dim=(1, 2)) * factor

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.factor, ctx.shape = inputs[1], inputs[0].shape

    @staticmethod
    def backward(ctx: Any, grad_R: Tensor, grad_of_sum_R: Tensor) -> tuple[Tensor, None, None]:
        return ctx.factor * (grad_R + grad_of_sum_R[:, None, None].expand(ctx.shape)), None, None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], a: Tensor, *rest: Any) -> Any:
        within = a.movedim(in_dims[0], 0).flatten(0, 1)
        found = _Scaled.apply(within, *rest)
        return tuple(each.unflatten(0, (info.batch_size, -1)) for each in found), (0, 0)


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).requires_grad_()


def assert_same(found: Tensor, expected: Tensor, *leaves: Tensor) -> None:
    """Compare two results and their gradients."""
    torch.testing.assert_close(found, expected, rtol=1e-13, atol=1e-13)
    weights = torch.linspace(-1, 2, found.numel(), dtype=found.dtype).view_as(found)
    mine, theirs = (
        torch.autograd.grad((each * weights).sum(), leaves, retain_graph=True) for each in (found, expected)
    )
    for one, other in zip(mine, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("dims", [(0, 0), (1, 0), (0, None), (None, 2)])
def test_a_product_under_vmap_is_that_of_each_replica(dims: tuple[int | None, int | None]) -> None:
    shapes = [[M, K], [K, N]]
    for shape, dim in zip(shapes, dims, strict=True):
        if dim is not None:
            shape.insert(dim, R)
    a, b = randn(*shapes[0]), randn(*shapes[1], seed=1)
    assert_same(torch.vmap(matmul, in_dims=dims)(a, b), torch.vmap(torch.matmul, in_dims=dims)(a, b), a, b)


def test_a_product_under_two_vmaps_is_that_of_each_pair() -> None:
    a, b = randn(R, M, K), randn(N, K, 2, seed=1)
    every = torch.vmap(torch.vmap(matmul, in_dims=(None, 0)), in_dims=(0, None))(a, b)
    assert_same(every, torch.einsum("rmk,nkj->rnmj", a, b), a, b)


def test_a_product_is_differentiated_inside_vmap_and_around_it() -> None:
    a, b = randn(R, M, K).detach(), randn(R, K, N, seed=1).detach()

    def square(a: Tensor, b: Tensor) -> Tensor:
        return matmul(a, b).square().sum()

    expected = 2 * (a @ b) @ b.mT
    torch.testing.assert_close(torch.vmap(torch.func.grad(square))(a, b), expected, rtol=1e-13, atol=1e-13)
    around = torch.func.grad(lambda a: torch.vmap(square)(a, b).sum())(a)
    torch.testing.assert_close(around, expected, rtol=1e-13, atol=1e-13)


def test_a_product_under_vmap_can_be_differentiated_twice() -> None:
    a, b = randn(R, M, K), randn(R, K, N, seed=1)
    assert torch.autograd.gradgradcheck(lambda a, b: torch.vmap(matmul)(a, b), (a, b))


@pytest.mark.parametrize("dim", [0, 2])
def test_the_short_way_returns_what_torchs_own_does(dim: int) -> None:
    a = randn(M, K).detach().unsqueeze(dim).repeat_interleave(R, dim) + torch.arange(R).view(
        *(R if d == dim else 1 for d in range(3))
    )
    a.requires_grad_()

    def short(a: Tensor) -> tuple[Tensor, ...]:
        return across_replicas(_Scaled, a, 3.0, None)

    def theirs(a: Tensor) -> tuple[Tensor, ...]:
        return tuple(each[0] for each in _Scaled.apply(a[None], 3.0, None))  # type: ignore[no-untyped-call]

    for found, expected in zip(torch.vmap(short, dim)(a), torch.vmap(theirs, dim)(a), strict=True):
        assert torch.equal(found, expected)
        assert_same(found, expected, a)
    for found, expected in zip(short(a.select(dim, 1)), theirs(a.select(dim, 1)), strict=True):
        assert torch.equal(found, expected)
        assert_same(found, expected, a)


def test_the_short_way_is_taken_under_vmap_and_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any) -> None:
        raise AssertionError("torch's own way")

    monkeypatch.setattr(_Scaled, "apply", refuse)
    a = randn(R, M, K)
    torch.vmap(lambda a: across_replicas(_Scaled, a, 2.0, None))(a)[0].sum().backward()
    assert a.grad is not None and (a.grad == 2.0).all()  # noqa: PT018
    across_replicas(_Scaled, a[0], 2.0, None)
    with pytest.raises(AssertionError, match="torch's own way"):
        torch.vmap(torch.vmap(lambda a: across_replicas(_Scaled, a, 2.0, None)))(a[None])
