"""A network that generates against a loop over torch's own cells; what forcing does to states and to gradients."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, jacrev

from pipeline.core.measures.jacobians import step_jacobians
from pipeline.core.measures.orbit import free_orbits, state_space_divergence
from pipeline.core.models import Interface, ModelSpec, Replicas, RunOptions, build_network
from pipeline.core.models.generating import GeneratingModel
from pipeline.core.models.network import FREE, StateForcing
from pipeline.core.training import MemorySink, run_trial
from pipeline.errors import ConfigError
from tests.core.cells.reference import cell_in_torch
from tests.core.training.sequences import circles, curve
from tests.core.training.test_pack import alone, packed, same

B, T, D, H = 3, 11, 2, 5
SERIES = Interface(input_kind="real", input_size=D, target_at="every", target_kind="value", output_size=D)


def model_of(cell: str = "lstm", generates: int = 4, hidden_size: int = H) -> GeneratingModel:
    model = build_network(SERIES, ModelSpec.plain(cell, hidden_size, generates=generates), seed=2)
    assert isinstance(model, GeneratingModel)
    return model.double()


def data() -> tuple[Tensor, Tensor]:
    series = torch.randn(B, T + 1, D, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    return series[:, :-1], series[:, 1:]


def by_hand(model: GeneratingModel, cell: str, x_BTD: Tensor, every: int, share: float) -> Tensor:
    module = cell_in_torch(cell, D, H)
    weights = {n.removesuffix("_l0"): p for n, p in model.recurrent.named_parameters()}
    W, b = model.readout.weight, model.readout.bias
    inverse = torch.linalg.pinv(W)
    h = (x_BTD[:, 0] - b) @ inverse.T
    c, said = torch.zeros_like(h), []
    for t in range(x_BTD.shape[1]):
        after = functional_call(module, weights, (torch.zeros(B, D).double(), (h, c) if cell == "lstm" else h))
        h, c = after if cell == "lstm" else (after, c)
        said.append(h @ W.T + b)
        if (t + 1) % every == 0 and t + 1 < x_BTD.shape[1]:
            h = h + share * (x_BTD[:, t + 1] - said[-1]) @ inverse.T
    return torch.stack(said, dim=1)


@pytest.mark.parametrize("cell", ["lstm", "gru", "elman"])
@pytest.mark.parametrize("forcing", [StateForcing(1, 1.0), StateForcing(3, 1.0), StateForcing(1, 0.2), FREE, None])
def test_what_is_said_and_every_gradient_are_those_of_a_loop(cell: str, forcing: StateForcing | None) -> None:
    model, (x, y) = model_of(cell), data()
    every, share = forcing or StateForcing(4, 1.0)
    expected = by_hand(model, cell, x, every, share)
    torch.testing.assert_close(model(x, RunOptions(forcing=forcing)).values, expected, rtol=1e-11, atol=1e-12)
    loss = nn.functional.mse_loss(expected, y)
    grads = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)
    wanted = torch.cat([
        (torch.zeros_like(p) if g is None else g).flatten() for p, g in zip(model.parameters(), grads, strict=True)
    ])  # fmt: skip
    replicas = Replicas([model])
    run = replicas.backpropagate(replicas.flat_RP, x, y, RunOptions(forcing=forcing), trace=True, shared=True)
    torch.testing.assert_close(run.grad_RP[0], wanted, rtol=1e-8, atol=1e-11)


def test_a_forced_state_says_what_the_series_is() -> None:
    model, (x, _) = model_of("gru"), data()
    inverse = torch.linalg.pinv(model.readout.weight)
    states = model(x, RunOptions(forcing=StateForcing(3, 1.0))).states[0]
    before = states[2]
    forced = before + (x[:, 3] - model.readout(before)) @ inverse.T
    torch.testing.assert_close(model.readout(forced), x[:, 3], rtol=1e-12, atol=1e-12)
    nothing = model.readout.weight @ (torch.eye(H).double() - inverse @ model.readout.weight)
    torch.testing.assert_close(nothing, torch.zeros_like(nothing), rtol=0, atol=1e-14)


@pytest.mark.slow
@pytest.mark.parametrize("gain", [1.5, 4.0])
def test_with_the_share_that_the_jacobians_ask_for_no_product_of_them_grows(gain: float) -> None:
    """α = max(0, 1 - 1/σ̃) with σ̃ the largest singular value of all Jacobians; H = D, so that all of h is forced."""
    model = model_of("elman", hidden_size=D)
    with torch.no_grad():
        model.recurrent.weight_hh_l0.copy_(gain * torch.tensor([[0.6, -0.9], [0.8, 0.7]], dtype=torch.float64))
        model.readout.weight.copy_(torch.eye(D))
    x, _ = data()
    replicas, weights = Replicas([model]), model.recurrent.weights(model.recurrent.places[0])

    def steps(share: float) -> Tensor:
        states = model(x, RunOptions(forcing=StateForcing(1, share))).states[0]
        moved = states[:-1] + share * (x.transpose(0, 1)[1:] - model.readout(states[:-1]))
        before = torch.cat([(x[:, 0] - model.readout.bias)[None], moved])
        found = step_jacobians(
            model.recurrent.cell, type(weights)(*(w[None] for w in weights)), torch.zeros(1, T, B, D).double(),
            [torch.cat([before[1:], before[:1]])[None]],
        )[0]  # fmt: skip
        return found[1:]  # of the states moved, each from the one before

    share = 0.0
    for _ in range(40):  # the Jacobians depend on the orbit, and that on the share
        sigma = torch.linalg.matrix_norm(steps(share).detach(), ord=2).max().item()
        share = max(0.0, 1 - 1 / sigma)
    sigma = torch.linalg.matrix_norm(steps(share).detach(), ord=2).max().item()
    share = max(0.0, 1 - 1 / sigma)
    product = torch.eye(D).double().expand(B, D, D)
    for jacobian_BSS in steps(share).detach():
        product = (1 - share) * jacobian_BSS @ product
        assert torch.linalg.matrix_norm(product, ord=2).max().item() <= 1 + 1e-9
    assert share > 0
    assert replicas.num_replicas == 1


GENERATING = {"model__generates": 4, "model__cell": "gru", "diagnostics__measures": ["orbit"]}


@pytest.mark.slow
def test_a_trial_of_networks_that_generate_trains_and_measures_its_orbits(spec_of: Any) -> None:
    dataset, sink = circles(), MemorySink()
    forcing = {"name": "sparse", "every": 3}
    spec = spec_of(**GENERATING, training__state_forcing=forcing, training__max_steps=60, seeds=[0])
    result = run_trial(spec, dataset, sink)
    assert result.status == "ok"
    losses = curve(sink.tables(), "loss", split="validation")
    assert losses[-1] < losses[0] / 2
    for metric in ("state_space_divergence", "orbit_exponent"):
        values = curve(sink.tables(), metric)
        assert len(values) == 1
        assert math.isfinite(values[0])


@pytest.mark.slow
def test_settings_with_other_forcings_are_packed_bit_for_bit(spec_of: Any) -> None:
    sparse = {"name": "sparse", "every": 3}
    rules = [None, sparse, sparse, {"name": "generalised", "share": 0.2}]
    rates = [0.01, 0.01, 0.1, 0.01]
    specs = [
        spec_of(
            model__generates=4,
            model__cell="gru",
            training__state_forcing=rule,
            training__max_steps=6,
            diagnostics__num_traces=2,
            seeds=[0, 1],
            optimiser={"name": "sgd", "learning_rate": rate},
        )
        for rule, rate in zip(rules, rates, strict=True)
    ]
    for spec, mine in zip(specs, packed(specs, circles()), strict=True):
        assert same(mine, alone(spec, circles()))


def test_orbits_of_a_linear_rotation_have_its_exponent_and_fill_its_circle() -> None:
    model = build_network(SERIES, ModelSpec.plain("elman_linear", D, generates=4), seed=0).double()
    turn = torch.tensor([[math.cos(0.7), -math.sin(0.7)], [math.sin(0.7), math.cos(0.7)]], dtype=torch.float64)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(torch.zeros_like(parameter) if "bias" in name or "ih" in name else torch.eye(D))
        model.recurrent.weight_hh_l0.copy_(turn)
    replicas = Replicas([model])
    series = torch.as_tensor(circles(num=400).splits["test"].targets)
    orbit = free_orbits(replicas, replicas.flat_RP, series)
    assert abs(orbit.exponent_R.item()) < 1e-12
    assert orbit.divergence_R.item() < 0.5
    with torch.no_grad():
        model.recurrent.weight_hh_l0.copy_(0.9 * turn)
    shrinking = Replicas([model])
    orbit = free_orbits(shrinking, shrinking.flat_RP, series)
    assert orbit.exponent_R.item() == pytest.approx(math.log(0.9), rel=1e-9)
    assert orbit.divergence_R.item() > 5


def test_the_divergence_is_the_sum_that_it_says() -> None:
    points = torch.tensor([[0.0], [0.1], [0.9], [1.0]]).double()
    generated = torch.tensor([[0.05], [0.95], [0.97], [0.99], [7.0]]).double()
    expected = 0.5 * math.log(0.5 / (1 / 5)) + 0.5 * math.log(0.5 / (3 / 5))
    assert state_space_divergence(points, generated, bins=2).item() == pytest.approx(expected, rel=1e-5)
    assert state_space_divergence(points, points, bins=2).item() == pytest.approx(0, abs=1e-12)
    assert state_space_divergence(points, generated[-1:], bins=2).item() > 10


def test_the_jacobian_of_a_step_is_that_of_autograd_where_it_starts_from_a_series() -> None:
    model, (x, _) = model_of("elman"), data()
    weights = model.recurrent.weights(model.recurrent.places[0])
    before = x.new_zeros(H).requires_grad_()

    def step(h: Tensor) -> Tensor:
        return torch.tanh(weights.weight_hh @ h + weights.bias_hh + weights.bias_ih)

    exact: Tensor = jacrev(step)(before)
    states = torch.zeros(1, 2, 1, H).double()
    found = step_jacobians(
        model.recurrent.cell, type(weights)(*(w[None] for w in weights)), torch.zeros(1, 2, 1, D).double(), [states]
    )
    torch.testing.assert_close(found[0, 1, 0], exact.detach(), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model__generates": 0}, r"model\.generates: expected null or an integer of at least 1"),
        ({"training__state_forcing": {"name": "sparse", "every": 0}}, r"state_forcing\.every: expected an integer"),
        ({"training__state_forcing": {"name": "sparse", "evry": 2}}, "unknown key 'evry'; did you mean 'every'"),
        ({"training__state_forcing": {"name": "generalised", "share": 0.0}}, r"share: expected a share in \(0, 1\]"),
    ],
)
def test_forcings_that_cannot_be_are_refused_by_key(changes: dict[str, Any], message: str, spec_of: Any) -> None:
    with pytest.raises(ConfigError, match=message):
        spec_of(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model__generates": None}, r"training\.state_forcing: expected null: the network reads its inputs"),
        ({"training__truncation": {"update_every": 4, "backward_length": 4}}, r"training\.truncation: expected null"),
        ({"diagnostics__measures": ["gates"]}, r"diagnostics\.measures: expected measures of any network"),
        ({"model__num_layers": 2, "diagnostics__measures": ["orbit"]}, r"diagnostics\.measures: expected no orbit"),
        ({"model__cell": "lru"}, r"model\.cell: expected a cell that shows h alone"),
        ({"model__hidden_size": 1}, r"model\.hidden_size: expected at least 2, the numbers that are generated"),
        ({"model__bidirectional": True}, r"model\.bidirectional: expected false, for a network that generates"),
    ],
)
def test_networks_that_cannot_generate_are_refused_by_key(changes: dict[str, Any], message: str, spec_of: Any) -> None:
    forced = {"training__state_forcing": {"name": "sparse", "every": 3}, "model__generates": 4, "model__cell": "gru"}
    with pytest.raises(ConfigError, match=message):
        run_trial(spec_of(**forced | changes), circles(), MemorySink())


def test_only_a_series_can_be_generated(adding: Any, spec_of: Any) -> None:
    with pytest.raises(ConfigError, match=r"model\.generates: expected null: only a series of real numbers"):
        run_trial(spec_of(model__generates=4), adding, MemorySink())
