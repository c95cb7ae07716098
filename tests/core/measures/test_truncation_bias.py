"""Truncated gradients against a plain loop that detaches, against closed forms, and within the bound."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from pipeline.core.cells import States, Weights
from pipeline.core.measures.truncation_bias import TruncationBias, geometric_lengths, truncation_bias
from pipeline.core.models import Replicas
from tests.core.measures.packs import EVERY, TOKENS, batch, pack
from tests.core.slowly import slowly

T = 9


def test_lengths_are_geometric_and_end_with_the_sequence() -> None:
    assert geometric_lengths(20) == (1, 2, 3, 4, 6, 8, 11, 16, 20)
    assert geometric_lengths(16, per_doubling=1) == (1, 2, 4, 8, 16)
    assert geometric_lengths(1) == (1,)


def test_a_network_that_runs_both_ways_is_refused() -> None:
    replicas = pack("elman", bidirectional=True)
    with pytest.raises(ValueError, match="expected a network forward in time only"):
        truncation_bias(replicas, replicas.flat_RP, *batch(T), [1])


@pytest.mark.parametrize("length", [0, 10])
def test_a_length_out_of_range_is_refused(length: int) -> None:
    replicas = pack("elman")
    with pytest.raises(ValueError, match=rf"expected lengths from 1 to 9, got \[{length}\]"):
        truncation_bias(replicas, replicas.flat_RP, *batch(T), [length])


def slow_loss(
    replicas: Replicas, flat_P: Tensor, inputs: Tensor, target: Tensor, length: int
) -> tuple[Tensor, list[Tensor]]:
    """The last timestep's loss of one example, detached before the newest `length` timesteps, and the cut states."""
    named = {name: view[0] for name, view in replicas.named(flat_P[None]).items()}
    recurrent = replicas.model.recurrent
    packed = [replicas.weights(flat_P[None], place) for place in recurrent.places]
    weights = [Weights(*(weight[0] for weight in mine)) for mine in packed]
    zeros = torch.zeros(recurrent.hidden_size, dtype=torch.float64)
    now = [States(*(zeros.clone() for _ in recurrent.cell.states)) for _ in recurrent.places]
    cut: list[Tensor] = []
    for t in range(T):
        if t == T - length:
            now = [States(*(s if s is None else s.detach().requires_grad_() for s in state)) for state in now]
            cut = [s for state in now for s in state if s is not None]
        x = inputs[t]
        if "embedding.weight" in named:
            x = named["embedding.weight"][x.long()]
        for index in range(len(now)):
            now[index] = recurrent.cell.step(x, now[index], weights[index])
            x = now[index].h
    out = named["readout.weight"] @ x + named["readout.bias"]
    if replicas.interface.target_kind == "class":
        return -out.log_softmax(0)[target.long()], cut
    return ((out - target) ** 2).mean(), cut


def tokens() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    return torch.randint(0, 5, (4, T), generator=generator), torch.randint(0, 5, (4, T), generator=generator)


CASES = [
    (pack("elman", 2), batch(T)),
    (pack("lstm", 2), batch(T)),
    (pack("gru", 2, interface=EVERY), batch(T, target_at="every")),
    (pack("lstm", 2, num_layers=2, interface=TOKENS, embedding_size=3), tokens()),
    (pack("gru", 2, num_layers=3), batch(T)),
]


@pytest.mark.parametrize(("replicas", "data"), CASES, ids=["elman", "lstm", "gru_every", "lstm_2_tokens", "gru_3"])
def test_bias_and_phi_are_those_of_a_plain_loop_that_detaches(replicas: Replicas, data: tuple[Tensor, Tensor]) -> None:
    inputs, targets = data
    lengths = (1, 2, 5, T)
    bias = truncation_bias(replicas, replicas.flat_RP, inputs, targets, lengths)
    assert bias.lengths == lengths
    last = targets if replicas.interface.target_at == "last" else targets[:, -1]
    for r in range(2):
        grads, phis = [], []
        for length in lengths:
            grad, phi = 0.0, 0.0
            for b in range(len(inputs)):
                flat = replicas.flat_RP[r].double().requires_grad_()
                x = inputs[b].double() if inputs.is_floating_point() else inputs[b]
                one, cut = slow_loss(replicas, flat, x, last[b], length)
                mine, *of_cut = torch.autograd.grad(one, [flat, *cut], materialize_grads=True)
                grad, phi = grad + mine / len(inputs), phi + torch.cat(of_cut).norm() / len(inputs)
            grads.append(grad)
            phis.append(phi.log10())
        full = grads[-1]
        cosine = torch.stack([torch.cosine_similarity(grad, full, dim=0) for grad in grads])
        error = torch.stack([(grad - full).norm() / full.norm() for grad in grads])
        torch.testing.assert_close(bias.cosine_RK[r], cosine, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(bias.relative_error_RK[r], error, rtol=1e-8, atol=1e-12)
        torch.testing.assert_close(bias.log10_phi_RK[r], torch.stack(phis), rtol=1e-9, atol=1e-9)
    assert (bias.relative_error_RK[:, -1] == 0).all()
    torch.testing.assert_close(bias.cosine_RK[:, -1], torch.ones(2, dtype=torch.float64))


def test_a_replica_alone_has_the_bits_that_it_has_among_several() -> None:
    """Of sizes that fill no vector: torch computes what is left over by another function."""
    replicas, data = pack("elman", 4, hidden_size=50), batch(6, num_examples=8)
    among = truncation_bias(replicas, replicas.flat_RP, *data, (1, 3, 6))
    for r in range(4):
        alone = truncation_bias(replicas, replicas.flat_RP[[r]], *data, (1, 3, 6))
        for name in ("cosine_RK", "relative_error_RK", "log10_phi_RK", "decay_factor_R", "relative_bias_bound_RK"):
            assert torch.equal(getattr(alone, name)[0].nan_to_num(9.0), getattr(among, name)[r].nan_to_num(9.0)), name


def scalar(a: float, num_timesteps: int) -> tuple[Replicas, Tensor, tuple[Tensor, Tensor]]:
    """A linear network h_t = a h_{t-1} + .5 x_t + .1 y_t, of which 2 h_T - .3 is read out."""
    replicas = pack("elman_linear", 1, hidden_size=1)
    flat_RP = replicas.flat_RP.double()
    for name, view in replicas.named(flat_RP).items():
        values = {"weight_hh_l0": [a], "weight_ih_l0": [0.5, 0.1], "weight": [2.0], "bias": [-0.3]}
        view.copy_(torch.tensor(values.get(name.split(".")[1], [0.0])).view(view.shape))
    return replicas, flat_RP, batch(num_timesteps)


@pytest.mark.parametrize("a", [0.5, -0.8, 0.99])
def test_a_scalar_linear_network_in_closed_form(a: float) -> None:
    replicas, flat_RP, (inputs, targets) = scalar(a, 40)
    a = flat_RP.new_tensor(a).float().item()
    lengths = geometric_lengths(40)
    bias = truncation_bias(replicas, flat_RP, inputs, targets, lengths)
    x = inputs.double()
    w = flat_RP.new_tensor([0.5, 0.1]).float().double()
    c = torch.tensor(-0.3).double()
    h = [torch.zeros(5, dtype=torch.float64)]
    for t in range(40):
        h.append(a * h[-1] + x[:, t] @ w)
    residual = 2 * h[-1] + c - targets[:, 0].double()
    delta = 4 * residual  # dL/dh_T of every example
    one = torch.ones(5, 2, dtype=torch.float64)
    u = torch.stack([torch.cat([h[t][:, None], x[:, t], one], dim=1) for t in range(40)])  # h, x and both biases
    powers = a ** torch.arange(39, -1, -1, dtype=torch.float64)
    readout = torch.stack([(2 * residual * h[-1]).mean(), (2 * residual).mean()])
    by_timestep = powers[:, None] * (delta[:, None] * u).mean(dim=1)
    grads = [torch.cat([by_timestep[40 - length :].sum(dim=0), readout]) for length in lengths]
    errors = torch.stack([(grad - grads[-1]).norm() / grads[-1].norm() for grad in grads])
    torch.testing.assert_close(bias.relative_error_RK[0], errors, rtol=1e-9, atol=1e-14)
    phi = delta.abs().mean().log10() + torch.tensor(lengths, dtype=torch.float64) * math.log10(abs(a))
    torch.testing.assert_close(bias.log10_phi_RK[0], phi, rtol=1e-9, atol=1e-9)
    assert bias.decay_factor_R.item() == pytest.approx(abs(a), rel=1e-9)
    sensitivity = u.norm(dim=2).max()
    assert bias.step_sensitivity_R.item() == pytest.approx(sensitivity.item(), rel=1e-12)
    tails = torch.tensor([sum(abs(a) ** k for k in range(length, 40)) for length in lengths], dtype=torch.float64)
    E = sensitivity * delta.abs().mean() * tails
    norms = torch.stack([grad.norm() for grad in grads])
    expected = torch.where(norms > E, E / (norms - E), torch.nan)
    torch.testing.assert_close(bias.relative_bias_bound_RK[0], expected, rtol=1e-8, atol=1e-14, equal_nan=True)


def test_the_state_that_grows_with_lag_has_no_bound() -> None:
    replicas, flat_RP, data = scalar(1.1, 20)
    bias = truncation_bias(replicas, flat_RP, *data, [1, 5])
    assert bias.decay_factor_R.item() == pytest.approx(1.1, rel=1e-6)
    assert bias.relative_bias_bound_RK.isnan().all()


@pytest.mark.parametrize("cell", ["elman", *slowly("elman_relu", "gru", "lstm")])
@pytest.mark.parametrize("interface", ["real", *slowly("embedded")])
def test_the_bound_bounds_the_relative_error(cell: str, interface: str) -> None:
    if interface == "real":
        replicas, data = pack(cell, 4, hidden_size=6), batch(30, num_examples=3)
    else:
        replicas = pack(cell, 4, hidden_size=6, interface=TOKENS, embedding_size=3)
        generator = torch.Generator().manual_seed(5)
        ids = torch.randint(0, 5, (3, 31), generator=generator)
        data = ids[:, :-1], ids[:, 1:]
    bias = truncation_bias(replicas, replicas.flat_RP, *data, range(1, 31))
    known = ~bias.relative_bias_bound_RK.isnan()
    assert known[:, 15:].all()
    assert (bias.relative_error_RK <= bias.relative_bias_bound_RK + 1e-14)[known].all()
    assert (bias.relative_bias_bound_RK[:, -1] == 0).all()


def test_several_layers_have_no_bound() -> None:
    replicas = pack("elman", num_layers=2)
    bias = truncation_bias(replicas, replicas.flat_RP, *batch(T), [2])
    assert bias.relative_bias_bound_RK.isnan().all()
    assert bias.step_sensitivity_R.isnan().all()
    assert bias.decay_factor_R.isfinite().all()


def test_a_replica_in_a_pack_equals_the_replica_alone() -> None:
    three, one = pack("lstm", 3), pack("lstm", 1)
    packed = truncation_bias(three, three.flat_RP, *batch(T), [1, 3])
    alone = truncation_bias(one, one.flat_RP, *batch(T), [1, 3])
    for name in TruncationBias._fields[1:]:
        assert torch.equal(getattr(packed, name)[:1], getattr(alone, name)), name


def test_where_nothing_flows_back_there_is_no_bias() -> None:
    replicas = pack("elman")
    replicas.named(replicas.flat_RP)["recurrent.weight_hh_l0"].zero_()
    bias = truncation_bias(replicas, replicas.flat_RP, *batch(T), [1])
    assert bias.log10_phi_RK.isneginf().all()
    assert (bias.relative_error_RK == 0).all()
    assert (bias.relative_bias_bound_RK == 0).all()
    assert bias.decay_factor_R.isnan().all()
