"""Dot, general and additive attention against loops over positions; masks, and gradients, in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.func import functional_call

from pipeline.config import build
from pipeline.core.attention.score import Additive, Attention, DecoderAttention, Dot, General
from pipeline.errors import ConfigError
from tests.core.attention.reference import look

B, U, S, H = 3, 4, 5, 6
SPECS = [Dot(feeds="nothing"), General(feeds="nothing"), Additive(feeds="nothing", size=7)]
LENGTHS = [5, 1, 3]
MASK = torch.arange(S) < torch.tensor(LENGTHS)[:, None]


def attention_of(spec: DecoderAttention, seed: int = 0) -> Attention:
    return Attention(spec, H, torch.Generator().manual_seed(seed)).double()


def randn(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("spec", SPECS)
def test_contexts_and_weights_are_the_formula_written_as_loops(spec: DecoderAttention, masked: bool) -> None:
    attention, query, keys = attention_of(spec), randn(B, U, H), randn(B, S, H, seed=2)
    found = attention(query, keys, MASK if masked else None)
    for b, length in enumerate(LENGTHS if masked else [S] * B):
        for u in range(U):
            context, weights = look(attention, query[b, u], list(keys[b, :length]))
            torch.testing.assert_close(found.context_BUH[b, u], context, rtol=1e-12, atol=1e-13)
            torch.testing.assert_close(found.weights_BUS[b, u, :length], weights, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("scale", [1.0, 1e4])  # scores whose exponentials overflow
@pytest.mark.parametrize("spec", SPECS)
def test_masked_positions_weigh_nothing_and_each_row_sums_to_1(spec: DecoderAttention, scale: float) -> None:
    context, weights = attention_of(spec)(scale * randn(B, U, H), randn(B, S, H, seed=2), MASK)
    assert not weights[~MASK[:, None].expand_as(weights)].any()
    torch.testing.assert_close(weights.sum(dim=2), torch.ones(B, U, dtype=torch.float64), rtol=1e-14, atol=0)
    assert context.isfinite().all()


@pytest.mark.parametrize("spec", SPECS)
def test_what_stands_at_a_masked_position_changes_nothing(spec: DecoderAttention) -> None:
    attention, query, keys = attention_of(spec), randn(B, U, H), randn(B, S, H, seed=2)
    other = torch.where(MASK[..., None], keys, 100.0)
    for found, expected in zip(attention(query, other, MASK), attention(query, keys, MASK), strict=True):
        assert torch.equal(found, expected)


@pytest.mark.parametrize("spec", SPECS)
def test_gradients_are_those_of_finite_differences(spec: DecoderAttention) -> None:
    attention = attention_of(spec)
    names = [name for name, _ in attention.named_parameters()]

    def attended(query: Tensor, keys: Tensor, *parameters: Tensor) -> tuple[Tensor, Tensor]:
        named = dict(zip(names, parameters, strict=True))
        context, weights = functional_call(attention, named, (query, keys, MASK))
        return context, weights

    leaves = [randn(B, U, H), randn(B, S, H, seed=2), *(parameter.detach() for parameter in attention.parameters())]
    assert torch.autograd.gradcheck(attended, [leaf.requires_grad_() for leaf in leaves])


def test_equal_annotations_are_looked_at_equally() -> None:
    keys = randn(B, 1, H).expand(B, S, H)
    for spec in SPECS:
        context, weights = attention_of(spec)(randn(B, U, H, seed=2), keys)
        torch.testing.assert_close(weights, torch.full_like(weights, 1 / S), rtol=1e-14, atol=0)
        torch.testing.assert_close(context, keys[:, :1].expand(B, U, H), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(("spec", "shapes"), [*zip(SPECS, [[], [(H, H)], [(7, H), (7, H), (7,)]], strict=True)])
def test_parameters_come_from_the_generator_alone(spec: DecoderAttention, shapes: list[tuple[int, ...]]) -> None:
    first, second, other = ([*attention_of(spec, seed).parameters()] for seed in (3, 3, 4))
    assert [tuple(parameter.shape) for parameter in first] == shapes
    for a, b, c in zip(first, second, other, strict=True):
        assert torch.equal(a, b)
        assert not torch.equal(a, c)
        assert 0.5 < a.abs().max() * a.shape[-1] ** 0.5 <= 1.0 + 1e-6


def test_variants_are_told_apart_by_name_and_out_of_range_is_refused() -> None:
    assert build(DecoderAttention, {"name": "dot", "feeds": "context"}, "a test") == Dot(feeds="context")
    with pytest.raises(ConfigError, match=r"a test\.size: expected an integer of at least 1, got 0"):
        build(DecoderAttention, {"name": "additive", "feeds": "nothing", "size": 0}, "a test")
    with pytest.raises(ConfigError, match="unknown value 'state'; .*known: .*attentional_state"):
        build(DecoderAttention, {"name": "dot", "feeds": "state"}, "a test")


@pytest.mark.parametrize("spec", SPECS)
def test_an_empty_source_weighs_nothing_and_leaves_every_gradient_finite(spec: DecoderAttention) -> None:
    attention, query, keys = (
        attention_of(spec),
        randn(B, U, H).requires_grad_(),
        randn(B, S, H, seed=2).requires_grad_(),
    )
    mask = MASK & torch.tensor([True, False, True])[:, None]
    found = attention(query, keys, mask)
    assert not found.weights_BUS[1].any()
    assert not found.context_BUH[1].any()
    every = torch.autograd.grad(found.context_BUH.square().sum(), [query, keys, *attention.parameters()])
    others = [0, 2]
    alone = attention(query[others], keys[others], MASK[others])
    expected = torch.autograd.grad(alone.context_BUH.square().sum(), [query, keys, *attention.parameters()])
    for grad, wanted in zip(every, expected, strict=True):
        torch.testing.assert_close(grad, wanted, rtol=1e-12, atol=1e-13)
