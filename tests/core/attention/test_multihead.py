"""Multi-head attention against `nn.MultiheadAttention`: outputs, weights and every gradient, in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state

from pipeline.core.attention.multihead import MultiHeadAttention

B, U, S, H, N = 3, 5, 7, 12, 4
LENGTHS = torch.tensor([7, 2, 4])


def module_of(query_size: int, key_size: int, seed: int = 0) -> MultiHeadAttention:
    generator = torch.Generator().manual_seed(seed)
    module = MultiHeadAttention(query_size, key_size, H, N, generator).double()
    for parameter in module.parameters():  # biases too, which are 0 to begin with
        nn.init.normal_(parameter, generator=generator)
    return module


def randn(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def in_torch(module: MultiHeadAttention) -> nn.MultiheadAttention:
    """The same layer of torch; it asks with H numbers, and keeps three matrices apart where keys have another size."""
    key_size = module.key.in_features
    plain = nn.MultiheadAttention(H, N, kdim=key_size, vdim=key_size, batch_first=True, dtype=torch.float64)
    parts = {"q": module.query, "k": module.key, "v": module.value}
    weights: dict[str, Tensor] = {f"{letter}_proj_weight": part.weight for letter, part in parts.items()}
    if key_size == H:
        weights = {"in_proj_weight": torch.cat(list(weights.values()))}
    weights["in_proj_bias"] = torch.cat([part.bias for part in parts.values()])
    plain.load_state_dict(weights | {f"out_proj.{name}": value for name, value in module.output.state_dict().items()})
    return plain


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("key_size", [H, 9])
def test_outputs_weights_and_gradients_are_those_of_torch(key_size: int, masked: bool, causal: bool) -> None:
    module = module_of(H, key_size)
    plain = in_torch(module)
    inputs = [randn(B, U, H).requires_grad_(), randn(B, S, key_size, seed=2).requires_grad_()]
    mask = torch.arange(S) < LENGTHS[:, None] if masked else None
    later = torch.ones(U, S, dtype=torch.bool).triu(1) if causal else None
    output, weights = module(*inputs, mask, causal)
    padding = None if mask is None else ~mask
    expected = plain(
        inputs[0], inputs[1], inputs[1], key_padding_mask=padding, attn_mask=later, average_attn_weights=False
    )
    torch.testing.assert_close(output, expected[0], rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(weights, expected[1], rtol=1e-9, atol=1e-12)
    direction = randn(B, U, H, seed=3)
    mine = torch.autograd.grad((output * direction).sum(), [*inputs, *module.parameters()])
    theirs = torch.autograd.grad((expected[0] * direction).sum(), [*inputs, *plain.parameters()])
    for found, wanted in zip(mine[:2], theirs[:2], strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-12)
    grads = {name: grad for (name, _), grad in zip(module.named_parameters(), mine[2:], strict=True)}
    for (name, _), wanted in zip(plain.named_parameters(), theirs[2:], strict=True):
        torch.testing.assert_close(gradient_named(name, grads), wanted, rtol=1e-9, atol=1e-12)


def gradient_named(name: str, grads: dict[str, Tensor]) -> Tensor:
    """The gradient of what torch calls `name`."""
    parts = {"q": "query", "k": "key", "v": "value"}
    if name.startswith("in_proj_"):
        return torch.cat([grads[f"{part}.{name.removeprefix('in_proj_')}"] for part in parts.values()])
    if name.endswith("_proj_weight"):
        return grads[f"{parts[name[0]]}.weight"]
    return grads[name.replace("out_proj", "output")]


def test_two_kinds_of_data_meet_in_a_space_of_their_own() -> None:
    """Neither side has H numbers; with one head and plain matrices the formula is one line."""
    module = MultiHeadAttention(3, 2, H, 1, torch.Generator().manual_seed(0)).double()
    x, y = randn(1, U, 3), randn(1, S, 2, seed=2)
    output, weights = module(x, y)
    q, k, v = (x[0] @ module.query.weight.T, y[0] @ module.key.weight.T, y[0] @ module.value.weight.T)
    expected = torch.softmax(q @ k.T / H**0.5, dim=1)
    torch.testing.assert_close(weights[0, 0], expected, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(output[0], expected @ v @ module.output.weight.T, rtol=1e-12, atol=1e-14)


def test_padding_weighs_nothing_and_changes_nothing() -> None:
    module, x, y = module_of(H, 9), randn(B, U, H), randn(B, S, 9, seed=2)
    output, weights = module(x, y, torch.arange(S) < LENGTHS[:, None])
    for i, length in enumerate(LENGTHS.tolist()):
        alone = module(x[i : i + 1], y[i : i + 1, :length])
        torch.testing.assert_close(output[i], alone.output_BUH[0], rtol=1e-12, atol=1e-13)
        torch.testing.assert_close(weights[i, :, :, :length], alone.weights_BNUS[0], rtol=1e-12, atol=1e-13)
        assert not weights[i, :, :, length:].any()


def test_a_causal_query_does_not_see_what_comes_later() -> None:
    module, x = module_of(H, H), randn(B, U, H)
    changed = x.clone()
    changed[:, 3:] += 1.0
    before, after = module(x, x, causal=True), module(changed, changed, causal=True)
    torch.testing.assert_close(before.output_BUH[:, :3], after.output_BUH[:, :3], rtol=0, atol=0)
    assert (before.output_BUH[:, 3:] - after.output_BUH[:, 3:]).abs().min() > 0


def test_a_pack_of_replicas_gives_what_each_gives_alone() -> None:
    modules = [module_of(H, 9, seed) for seed in range(3)]
    parameters, buffers = stack_module_state(modules)
    x, y, mask = randn(B, U, H), randn(B, S, 9, seed=2), torch.arange(S) < LENGTHS[:, None]

    def one(mine: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        output, weights = functional_call(modules[0], (mine, buffers), (x, y, mask, True))
        return output, weights

    outputs, weights = torch.vmap(one)(parameters)
    for r, module in enumerate(modules):
        alone = module(x, y, mask, True)
        torch.testing.assert_close(outputs[r], alone.output_BUH, rtol=1e-12, atol=1e-13)
        torch.testing.assert_close(weights[r], alone.weights_BNUS, rtol=1e-12, atol=1e-13)


def test_parameters_come_from_the_generator_alone() -> None:
    first, second, other = (MultiHeadAttention(4, 9, H, N, torch.Generator().manual_seed(seed)) for seed in (3, 3, 4))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    for name, parameter in first.named_parameters():
        if name.endswith("bias"):
            assert not parameter.any()
        else:
            assert not torch.equal(parameter, other.get_parameter(name))
            assert 0.9 < parameter.abs().max() * parameter.shape[1] ** 0.5 <= 1.0


@pytest.mark.parametrize("num_heads", [0, 5])
def test_heads_share_the_units_equally(num_heads: int) -> None:
    with pytest.raises(ValueError, match=f"num_heads: expected a divisor of hidden_size, 12; got {num_heads}"):
        MultiHeadAttention(H, H, H, num_heads, torch.Generator())


@pytest.mark.parametrize("causal", [False, True])
def test_an_empty_source_weighs_nothing_and_leaves_every_gradient_finite(causal: bool) -> None:
    module, x, y = module_of(H, H), randn(B, U, H).requires_grad_(), randn(B, S, H, seed=2).requires_grad_()
    mask = torch.arange(S) < torch.tensor([7, 0, 4])[:, None]
    output, weights = module(x, y, mask, causal)
    assert not weights[1].any()
    direction = randn(2, U, H, seed=3)
    every = torch.autograd.grad((output[[0, 2]] * direction).sum(), [x, y, *module.parameters()], retain_graph=True)
    assert all(grad.isfinite().all() for grad in torch.autograd.grad(output.sum(), [x, y, *module.parameters()]))
    alone, _ = module(x[[0, 2]], y[[0, 2]], mask[[0, 2]], causal)
    expected = torch.autograd.grad((alone * direction).sum(), [x, y, *module.parameters()])
    for grad, wanted in zip(every, expected, strict=True):
        torch.testing.assert_close(grad, wanted, rtol=1e-9, atol=1e-12)
