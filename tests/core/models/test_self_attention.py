"""Self-attention in place of recurrence: against torch's encoder layers; padding, order, and replica batches."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pipeline.core.models import INPUT, Interface, ModelSpec, Replicas, RunOptions, count_parameters, loss
from pipeline.core.models.architecture import SelfAttention
from pipeline.core.models.self_attention import SelfAttentionLayer, SelfAttentionModel, positions

B, T, H, N, L = 3, 6, 8, 2, 2
REAL_LAST = Interface(input_kind="real", input_size=2, target_at="last", target_kind="value", output_size=1)
TOKEN_EVERY = Interface(
    input_kind="token", input_size=7, target_at="every", target_kind="class", output_size=7, padded=True
)
TOKEN_LAST = dataclasses.replace(TOKEN_EVERY, target_at="last", output_size=3)
PADDED = torch.tensor([[3, 4, 5, 6, 3, 4], [5, 6, 0, 0, 0, 0], [4, 3, 4, 6, 0, 0]], dtype=torch.uint8)


def model_of(interface: Interface, seed: int = 0, **changes: Any) -> SelfAttentionModel:
    spec = ModelSpec.plain(
        cell="elman", hidden_size=H, num_layers=L, bidirectional=True, attention=SelfAttention(num_heads=N)
    )
    return SelfAttentionModel(interface, dataclasses.replace(spec, **changes), seed).double()


def randn(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def in_torch(layer: SelfAttentionLayer) -> nn.TransformerEncoderLayer:
    """The same layer of torch, without its dropout and layer normalisation."""
    plain = nn.TransformerEncoderLayer(H, N, H, dropout=0.0, batch_first=True, dtype=torch.float64)
    attention = layer.attention
    parts = (attention.query, attention.key, attention.value)
    plain.self_attn.in_proj_weight = nn.Parameter(torch.cat([part.weight for part in parts]))
    plain.self_attn.in_proj_bias = nn.Parameter(torch.cat([part.bias for part in parts]))
    plain.self_attn.out_proj.load_state_dict(attention.output.state_dict())
    plain.linear1.load_state_dict(layer.inner.state_dict())
    plain.linear2.load_state_dict(layer.outer.state_dict())
    plain.norm1 = plain.norm2 = nn.Identity()
    return plain


@pytest.mark.parametrize("interface", [TOKEN_LAST, TOKEN_EVERY])
def test_an_empty_sequence_leaves_every_gradient_finite_and_the_others_alone(interface: Interface) -> None:
    model, tokens = model_of(interface), PADDED.masked_fill(torch.tensor([[False], [True], [False]]), 0)
    values = model(tokens).values
    torch.testing.assert_close(values[[0, 2]], model(PADDED[[0, 2]]).values, rtol=1e-12, atol=1e-13)
    gradients = torch.autograd.grad(values.square().sum(), list(model.parameters()))
    assert all(gradient.isfinite().all() for gradient in gradients)


@pytest.mark.parametrize("bidirectional", [True, False])
def test_values_and_input_gradients_are_those_of_torch_layer_by_layer(bidirectional: bool) -> None:
    model, x = model_of(REAL_LAST, bidirectional=bidirectional), randn(B, T, 2).requires_grad_()
    later = None if bidirectional else torch.ones(T, T, dtype=torch.bool).triu(1)
    h = x @ model.projection.weight.T + model.projection.bias
    h = h + torch.tensor(
        [[(math.cos if j % 2 else math.sin)(t / 10000 ** (j // 2 * 2 / H)) for j in range(H)] for t in range(T)],
        dtype=torch.float64,
    )
    for layer in model.layers:
        h = in_torch(layer)(h, src_mask=later)
    expected = model.readout(h[:, -1])
    found = model(x).values
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
    mine, theirs = (torch.autograd.grad(values.square().sum(), x)[0] for values in (found, expected))
    torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-12)


def test_one_layer_is_the_formula_written_as_loops() -> None:
    layer, h = SelfAttentionLayer(H, N, torch.Generator().manual_seed(0)).double(), randn(1, T, H)
    output, weights = layer(h)
    attention, d = layer.attention, H // N
    for t in range(T):
        heads = []
        for n in range(N):
            rows = slice(n * d, (n + 1) * d)
            scores = [(attention.query(h[0, t])[rows] @ attention.key(h[0, s])[rows]) / d**0.5 for s in range(T)]
            share = torch.stack(scores).softmax(dim=0)
            torch.testing.assert_close(weights[0, n, t], share, rtol=1e-9, atol=1e-12)
            heads.append(sum(share[s] * attention.value(h[0, s])[rows] for s in range(T)))
        between = h[0, t] + attention.output(torch.cat(heads))
        expected = between + layer.outer(layer.inner(between).clamp_min(0))
        torch.testing.assert_close(output[0, t], expected, rtol=1e-9, atol=1e-12)


def test_a_layer_knows_no_order_but_the_model_does() -> None:
    layer, h = SelfAttentionLayer(H, N, torch.Generator().manual_seed(0)).double(), randn(B, T, H)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    output, weights = layer(h)
    permuted = layer(h[:, order])
    torch.testing.assert_close(permuted.output_BUH, output[:, order], rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(permuted.weights_BNUS, weights[:, :, order][..., order], rtol=1e-12, atol=1e-13)
    model, x = model_of(REAL_LAST), randn(B, T, 2)
    assert (model(x).values - model(torch.cat([x[:, [1, 0]], x[:, 2:]], dim=1)).values).abs().min() > 1e-6


@pytest.mark.parametrize("interface", [TOKEN_EVERY, TOKEN_LAST])
def test_padding_never_changes_a_result(interface: Interface) -> None:
    model = model_of(interface, embedding_size=4)
    together = model(PADDED)
    for i, tokens in enumerate(PADDED):
        length = int((tokens != 0).sum())
        alone = model(PADDED[i : i + 1, :length])
        values = together.values[i, :length] if interface is TOKEN_EVERY else together.values[i]
        torch.testing.assert_close(values, alone.values[0], rtol=1e-12, atol=1e-13)
        torch.testing.assert_close(together.weights[i, :length, :length], alone.weights[0], rtol=1e-12, atol=1e-13)
        assert not together.weights[i, :, length:].any()


def test_read_forward_in_time_a_timestep_sees_none_after_it() -> None:
    forward, both = model_of(TOKEN_EVERY, bidirectional=False), model_of(TOKEN_EVERY)
    tokens, changed = PADDED[:1], PADDED[:1].clone()
    changed[0, -1] = 6
    assert torch.equal(forward(tokens).values[:, :-1], forward(changed).values[:, :-1])
    assert not torch.isclose(both(tokens).values[:, :-1], both(changed).values[:, :-1]).any()
    torch.testing.assert_close(
        forward(tokens, RunOptions(num_scored=2)).values, forward(tokens).values[:, -2:], rtol=1e-12, atol=1e-13
    )


def test_every_layer_shows_what_each_of_its_heads_looked_at() -> None:
    model = model_of(REAL_LAST)
    _, weights = model.attend(randn(B, T, 2))
    assert [tuple(each.shape) for each in weights] == [(B, N, T, T)] * L
    torch.testing.assert_close(model(randn(B, T, 2)).weights, weights[-1].mean(dim=1), rtol=0, atol=0)


@pytest.mark.parametrize("interface", [TOKEN_EVERY, TOKEN_LAST])
def test_a_replica_batch_gives_what_its_networks_give_one_by_one(interface: Interface) -> None:
    models = [model_of(interface, seed) for seed in range(3)]
    replicas, targets = Replicas(models), PADDED.long() if interface is TOKEN_EVERY else torch.tensor([0, 2, 1])
    run = replicas.backpropagate(replicas.flat_RP, PADDED, targets, trace=True, shared=True)
    for r, model in enumerate(models):
        x_TBD = model.encode(PADDED).transpose(0, 1)
        tap = torch.zeros_like(x_TBD).requires_grad_()
        alone = loss(interface, model(PADDED, RunOptions(taps=[tap])).values, targets)
        torch.testing.assert_close(run.losses[r], alone, rtol=1e-12, atol=0)
        grads = torch.autograd.grad(alone, [tap, *model.parameters()])
        torch.testing.assert_close(run.grad_states[INPUT][r], grads[0], rtol=1e-10, atol=1e-14)
        flat = torch.cat([grad.flatten() for grad in grads[1:]])
        torch.testing.assert_close(run.grad_RP[r], flat, rtol=1e-10, atol=1e-14)


def test_positions_differ_at_lengths_far_beyond_training() -> None:
    table = positions(torch.arange(3000), H)
    assert table.shape == (3000, H)
    assert table.abs().max() <= 1.0
    assert torch.pdist(table).min() > 1e-3
    assert torch.equal(table[:T], positions(torch.arange(T), H))


@pytest.mark.parametrize("embedding_size", [None, 4])
def test_parameters_are_counted_without_making_the_model_and_drawn_from_the_seed(embedding_size: int | None) -> None:
    first, second, other = (model_of(TOKEN_EVERY, seed, embedding_size=embedding_size) for seed in (3, 3, 4))
    spec = ModelSpec.plain(
        cell="elman",
        hidden_size=H,
        num_layers=L,
        bidirectional=True,
        embedding_size=embedding_size,
        attention=SelfAttention(num_heads=N),
    )
    assert count_parameters(TOKEN_EVERY, spec) == sum(parameter.numel() for parameter in first.parameters())
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    pairs = [pair for pair in zip(first.parameters(), other.parameters(), strict=True) if pair[0].any()]
    assert not any(torch.equal(*pair) for pair in pairs)
