"""Every rule of initialisation against what its name promises."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from pipeline.config import build
from pipeline.core.cells import CELLS
from pipeline.core.models import Interface, ModelSpec, SequenceModel
from pipeline.errors import ConfigError

H = 48
RULES: dict[str, Any] = {
    "input": {"name": "uniform"},
    "recurrent": {"name": "uniform"},
    "gates": {},
    "bias": {"name": "uniform"},
    "readout": {"name": "uniform"},
}


def model_of(cell: str = "elman", seed: int = 0, num_layers: int = 1, **rules: Any) -> SequenceModel:
    raw = {
        "cell": cell,
        "hidden_size": H,
        "num_layers": num_layers,
        "bidirectional": False,
        "embedding_size": None,
        "attention": {"name": "none"},
        "code_size": None,
        "initialisation": RULES | rules,
    }
    return SequenceModel(
        Interface(input_kind="real", input_size=3, target_at="last", target_kind="value", output_size=2),
        build(ModelSpec, raw, "here"),
        seed,
    )


def recurrent(model: SequenceModel) -> Tensor:
    return model.recurrent.weight_hh_l0.detach().double()


def test_gaussian_has_its_standard_deviation() -> None:
    W = recurrent(model_of(recurrent={"name": "gaussian", "std": 0.3}))
    assert W.std().item() == pytest.approx(0.3, rel=0.05)
    assert abs(W.mean().item()) < 0.02


def test_scaled_gaussian_has_a_standard_deviation_of_gain_over_root_of_h_and_a_spectral_radius_near_its_gain() -> None:
    matrices = [recurrent(model_of(seed=s, recurrent={"name": "scaled_gaussian", "gain": 1.5})) for s in range(5)]
    four_standard_errors = 4 / math.sqrt(2 * 5 * H * H)
    assert torch.stack(matrices).std().item() == pytest.approx(1.5 / math.sqrt(H), rel=four_standard_errors)
    radii = [torch.linalg.eigvals(W).abs().max() for W in matrices]
    assert torch.stack(radii).mean().item() == pytest.approx(1.5, rel=0.15)


def test_identity_orthogonal_and_spectral_radius_are_exact() -> None:
    W = recurrent(model_of(recurrent={"name": "identity", "scale": 0.5}))
    assert torch.equal(W, 0.5 * torch.eye(H, dtype=torch.float64))
    W = recurrent(model_of(recurrent={"name": "orthogonal", "gain": 1.2}))
    torch.testing.assert_close(torch.linalg.svdvals(W), torch.full((H,), 1.2, dtype=torch.float64), rtol=1e-5, atol=0)
    W = recurrent(model_of(recurrent={"name": "spectral_radius", "radius": 0.7}))
    assert torch.linalg.eigvals(W).abs().max().item() == pytest.approx(0.7, rel=1e-5)


def test_glorot_is_bounded_by_its_formula_gate_by_gate() -> None:
    model = model_of("lstm", input={"name": "glorot", "gain": 1.0})
    bound = math.sqrt(6 / (H + 3))
    largest = model.recurrent.weight_ih_l0.abs().max().item()
    assert 0.95 * bound < largest <= bound


def test_fan_in_is_bounded_by_the_root_of_the_columns_as_a_linear_layer_is() -> None:
    largest = model_of("min_gru", input={"name": "fan_in"}).recurrent.weight_ih_l0.abs().max().item()
    assert 0.95 * 3**-0.5 < largest <= 3**-0.5


@pytest.mark.parametrize("name", [name for name, cell in CELLS.items() if cell.keep_gate is not None])
@pytest.mark.parametrize(
    ("rule", "first", "last"),
    [
        ({"name": "forget_bias", "value": 3.0}, 3.0, 3.0),
        ({"name": "power_law", "first": 5.0, "last": -7.0, "exponent": 0.3}, 5.0, -7.0),
        ({"name": "chrono", "longest_lag": 3.0}, None, None),
    ],
)
def test_every_cell_that_keeps_has_its_bias_where_it_keeps(
    name: str, rule: dict[str, Any], first: float | None, last: float | None
) -> None:
    stack = model_of(name, bias=rule).recurrent
    cell, weights = stack.cell, stack.weights(stack.places[0])
    total = cell.bias_of(weights, str(cell.keep_gate)).detach() * (1 if cell.keeps_when_open else -1)
    if first is None or last is None:
        assert ((total >= 0) & (total <= math.log(2.0))).all()
    else:
        assert total[[0, -1]].tolist() == pytest.approx([first, last])
        everything = weights.bias_ih.detach().sum() + weights.bias_hh.detach().sum()
        assert everything.abs().item() == pytest.approx(total.sum().abs().item(), rel=1e-5)


def test_a_gate_may_have_a_rule_of_its_own() -> None:
    model = model_of(
        "lstm", recurrent={"name": "gaussian", "std": 0.0}, gates={"f": {"name": "identity", "scale": 2.0}}
    )
    i, f, g, o = recurrent(model).chunk(4)
    assert torch.equal(f, 2 * torch.eye(H).double())
    assert not torch.cat([i, g, o]).any()


@pytest.mark.parametrize(("cell", "gate"), [("lstm", 1), ("gru", 1)])
def test_forget_bias_is_the_sum_of_both_biases(cell: str, gate: int) -> None:
    model = model_of(cell, bias={"name": "forget_bias", "value": 3.0})
    total = (model.recurrent.bias_ih_l0 + model.recurrent.bias_hh_l0).detach().chunk(len(model.recurrent.cell.gates))
    for number, part in enumerate(total):
        assert torch.equal(part, torch.full((H,), 3.0 if number == gate else 0.0))


def test_constant_bias_and_readout() -> None:
    model = model_of(bias={"name": "constant", "value": 0.0}, readout={"name": "gaussian", "std": 0.001})
    assert not (model.recurrent.bias_ih_l0 + model.recurrent.bias_hh_l0).any()
    assert not model.readout.bias.any()
    assert model.readout.weight.std().item() == pytest.approx(0.001, rel=0.2)


def test_arms_are_paired_another_rule_for_one_matrix_leaves_the_others() -> None:
    plain, other = model_of(seed=3), model_of(seed=3, recurrent={"name": "orthogonal", "gain": 1.0})
    for name in ("weight_ih_l0", "bias_ih_l0", "bias_hh_l0"):
        assert torch.equal(getattr(plain.recurrent, name), getattr(other.recurrent, name))
    assert torch.equal(plain.readout.weight, other.readout.weight)
    small, large = (model_of(seed=3, recurrent={"name": "scaled_gaussian", "gain": g}) for g in (1.0, 2.0))
    torch.testing.assert_close(2 * recurrent(small), recurrent(large))
    different = model_of(seed=4, recurrent={"name": "scaled_gaussian", "gain": 1.0})
    assert not torch.equal(recurrent(different), recurrent(small))


def test_every_layer_is_initialised_with_draws_of_its_own() -> None:
    model = model_of("gru", num_layers=2, recurrent={"name": "orthogonal", "gain": 1.0})
    first, second = (getattr(model.recurrent, f"weight_hh_l{layer}")[:H].detach() for layer in (0, 1))
    assert not torch.equal(first, second)
    for W in (first, second):
        torch.testing.assert_close(W @ W.T, torch.eye(H), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("cell", "rules", "told"),
    [
        ("elman", {"bias": {"name": "chrono", "longest_lag": 10}}, "'elman', which lacks a gate that keeps the past"),
        (
            "slstm",
            {"bias": {"name": "power_law", "first": 5.0, "last": -7.0, "exponent": 0.0}},
            "exponent: expected a number above 0",
        ),
        ("lstm", {"gates": {"z": {"name": "uniform"}}}, "gates of the cell 'lstm'.*unknown gate 'z'"),
        ("elman", {"input": {"name": "spectral_radius", "radius": 1.0}}, "input: expected a rule for blocks"),
        ("lstm", {"bias": {"name": "chrono", "longest_lag": 1}}, "longest_lag: expected a number of timesteps above 2"),
        ("elman", {"recurrent": {"name": "gaussian", "std": -1.0}}, "std: expected a number of at least 0"),
        ("elman", {"recurrent": {"name": "orthogonl", "gain": 1.0}}, "did you mean 'orthogonal'"),
        ("elman", {"recurrent": {"name": "scaled_gaussian", "gain": -1.0}}, "gain: expected a number of at least 0"),
        ("elman", {"recurrent": {"name": "glorot", "gain": -1.0}}, "gain: expected a number of at least 0"),
        (
            "elman",
            {"recurrent": {"name": "spectral_radius", "radius": -1.0}},
            "radius: expected a number of at least 0",
        ),
    ],
)
def test_impossible_rules_are_refused(cell: str, rules: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        model_of(cell, **rules)
