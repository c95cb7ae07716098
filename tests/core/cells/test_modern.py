"""Cells that torch.nn has not: their authors' equations as plain loops, closed forms, and the compiled loops.

A second twin is torchrecurrent.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torchrecurrent
from torch import Tensor, nn
from torch.func import jacrev
from torch.nn.functional import layer_norm, logsigmoid, relu

from pipeline.core.cells import CELLS, States
from pipeline.core.cells import recurrence as recurrence_module
from pipeline.core.cells.compiled import compiler
from pipeline.core.cells.elman import antisymmetric
from pipeline.core.cells.lstm import NORMALISED
from pipeline.core.cells.oscillators import CORNN_DAMPING, CORNN_STEP, LEM_STEP
from pipeline.core.cells.recurrence import kernel_of
from pipeline.core.cells.stack import RecurrentStack
from pipeline.core.models.initialisation import Chrono, KeepBias
from tests.core.cells.test_cells import layer_of, randn, run

T, B, D, H = 12, 3, 2, 5
F64 = torch.float64
sigmoid, tanh = torch.sigmoid, torch.tanh
POINTWISE = [name for name, cell in CELLS.items() if cell.pointwise is not None]
GATED = [name for name, cell in CELLS.items() if cell.keep_gate is not None]

# The authors' equations: one timestep of a batch, from rows as they lie in the parameters


def maps(w: SimpleNamespace, x: Tensor, h: Tensor, num: int) -> tuple[Tensor, ...]:
    return (x @ w.weight_ih.T + w.bias_ih + h @ w.weight_hh.T + w.bias_hh).chunk(num, dim=1)


def of_x(w: SimpleNamespace, x: Tensor, num: int) -> tuple[Tensor, ...]:
    return (x @ w.weight_ih.T + w.bias_ih).chunk(num, dim=1)


def peephole(w: Any, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, ...]:
    i, f, g, o = maps(w, x, h, 4)
    p_i, p_f, p_o = w.weight_u
    after = sigmoid(f + p_f * c) * c + sigmoid(i + p_i * c) * tanh(g)
    return sigmoid(o + p_o * after) * tanh(after), after


def coupled(w: Any, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, ...]:
    f, g, o = maps(w, x, h, 3)
    after = sigmoid(f) * c + (1 - sigmoid(f)) * tanh(g)
    return sigmoid(o) * tanh(after), after


def normalised_lstm(w: Any, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, ...]:
    rows = dict(zip(NORMALISED, w.weight_u, strict=True))
    gain_h, gain_x = (torch.cat([rows[f"of_{which}_{gate}"] for gate in "ifgo"]) for which in "hx")
    of_h, of_input = layer_norm(h @ w.weight_hh.T, [4 * H], gain_h), layer_norm(x @ w.weight_ih.T, [4 * H], gain_x)
    i, f, g, o = (of_h + of_input + w.bias_ih + w.bias_hh).chunk(4, dim=1)
    after = sigmoid(f) * c + sigmoid(i) * tanh(g)
    return sigmoid(o) * tanh(layer_norm(after, [H], rows["of_c"], rows["shift_c"])), after


def janet(w: Any, x: Tensor, h: Tensor) -> tuple[Tensor, ...]:
    s_f, s_c = maps(w, x, h, 2)
    return (sigmoid(s_f) * h + (1 - sigmoid(s_f - 1.0)) * tanh(s_c),)


def slstm(w: Any, x: Tensor, h: Tensor, c: Tensor, n: Tensor, m: Tensor) -> tuple[Tensor, ...]:
    i, f, z, o = maps(w, x, h, 4)
    kept = m + logsigmoid(f)
    m_after = i if torch.all(n == 0.0) else torch.max(i, kept)
    i, f = torch.exp(i - m_after), torch.exp(kept - m_after)
    c_after, n_after = f * c + i * tanh(z), f * n + i
    return sigmoid(o) * c_after / n_after, c_after, n_after, m_after


def reset_before(w: Any, x: Tensor, h: Tensor) -> tuple[Tensor, ...]:
    W_r, W_z, W_n = w.weight_hh.chunk(3)
    r, z, n = (x @ w.weight_ih.T + w.bias_ih + w.bias_hh).chunk(3, dim=1)
    r, z = sigmoid(r + h @ W_r.T), sigmoid(z + h @ W_z.T)
    return (z * h + (1 - z) * tanh(n + (r * h) @ W_n.T),)


def ugrnn(w: Any, x: Tensor, h: Tensor) -> tuple[Tensor, ...]:
    c, g = maps(w, x, h, 2)
    return (sigmoid(g) * h + (1 - sigmoid(g)) * tanh(c),)


def min_gru(w: Any, x: Tensor, h: Tensor) -> tuple[Tensor, ...]:
    z, candidate = of_x(w, x, 2)
    return ((1 - sigmoid(z)) * h + sigmoid(z) * candidate,)


def min_lstm(w: Any, x: Tensor, h: Tensor) -> tuple[Tensor, ...]:
    f, i, candidate = of_x(w, x, 3)
    total = sigmoid(f) + sigmoid(i)
    return (sigmoid(f) / total * h + sigmoid(i) / total * candidate,)


def ind_rnn(w: Any, x: Tensor, h: Tensor) -> tuple[Tensor, ...]:
    return (relu(of_x(w, x, 1)[0] + w.weight_u[0] * h),)


def skew(w: Any) -> Tensor:
    A: Tensor = w.weight_hh - w.weight_hh.T - 0.01 * torch.eye(H, dtype=F64)
    return A


def plain_antisymmetric(w: Any, x: Tensor, h: Tensor) -> tuple[Tensor, ...]:
    return (h + 0.01 * tanh(h @ skew(w).T + of_x(w, x, 1)[0]),)


def gated_antisymmetric(w: Any, x: Tensor, h: Tensor) -> tuple[Tensor, ...]:
    a, z = of_x(w, x, 2)
    return (h + 0.01 * sigmoid(h @ skew(w).T + z) * tanh(h @ skew(w).T + a),)


def cornn(w: Any, x: Tensor, y: Tensor, z: Tensor) -> tuple[Tensor, ...]:
    i2h = torch.cat((x, y, z), 1) @ torch.cat((w.weight_ih, w.weight_hh), 1).T + w.bias_ih + w.bias_hh
    z = z + 0.06 * (tanh(i2h) - 66.0 * y - 15.0 * z)
    return y + 0.06 * z, z


def unicornn(w: Any, y_in: Tensor, y: Tensor, z: Tensor) -> tuple[Tensor, ...]:
    weight, c = w.weight_u
    z = z - 0.19 * sigmoid(c) * (tanh(y * weight + of_x(w, y_in, 1)[0]) + 30.65 * y)
    return y + 0.19 * sigmoid(c) * z, z


def lem(w: Any, x: Tensor, y: Tensor, z: Tensor) -> tuple[Tensor, ...]:
    W_1, W_2, W_z, W_y = w.weight_hh.chunk(4)
    i_1, i_2, i_z, i_y = (x @ w.weight_ih.T + w.bias_ih + w.bias_hh).chunk(4, dim=1)
    dt_1, dt_2 = 0.0242 * sigmoid(i_1 + y @ W_1.T), 0.0242 * sigmoid(i_2 + y @ W_2.T)
    z = (1.0 - dt_1) * z + dt_1 * tanh(i_z + y @ W_z.T)
    y = (1.0 - dt_2) * y + dt_2 * tanh(z @ W_y.T + i_y)
    return y, z


def lru(w: Any, x: Tensor, real: Tensor, imaginary: Tensor) -> tuple[Tensor, ...]:
    nu_log, theta_log, gamma_log = w.weight_u
    rate = torch.exp(torch.complex(-torch.exp(nu_log), torch.exp(theta_log)))
    after = rate * torch.complex(real, imaginary) + torch.exp(gamma_log) * torch.complex(*of_x(w, x, 2))
    return after.real, after.imag


AUTHORS: dict[str, Callable[..., tuple[Tensor, ...]]] = {
    "lstm_peephole": peephole,
    "lstm_coupled": coupled,
    "lstm_layer_norm": normalised_lstm,
    "janet": janet,
    "slstm": slstm,
    "gru_reset_before": reset_before,
    "ugrnn": ugrnn,
    "min_gru": min_gru,
    "min_lstm": min_lstm,
    "ind_rnn": ind_rnn,
    "antisymmetric": plain_antisymmetric,
    "antisymmetric_gated": gated_antisymmetric,
    "cornn": cornn,
    "unicornn": unicornn,
    "lem": lem,
    "lru": lru,
}


@pytest.mark.parametrize("name", AUTHORS)
def test_states_and_gradients_are_those_of_the_authors_equations_in_a_plain_loop(name: str) -> None:
    layer, x, weights = layer_of(name), randn(T, B, D), randn(T, B, H, seed=4)
    found = layer(x).states[0]
    actual = torch.autograd.grad((found.h * weights).sum(), list(layer.parameters()))
    named = SimpleNamespace(**{key.removesuffix("_l0"): value for key, value in layer.named_parameters()})
    states = tuple(torch.zeros(B, H, dtype=F64) for _ in CELLS[name].states)
    trace = []
    for x_t in x:
        states = AUTHORS[name](named, x_t, *states)
        trace.append(states)
    for mine, theirs in zip(found.tensors(), zip(*trace, strict=True), strict=True):
        torch.testing.assert_close(mine, torch.stack(theirs), rtol=1e-11, atol=1e-13)
    expected = torch.autograd.grad((torch.stack([h for h, *_ in trace]) * weights).sum(), list(layer.parameters()))
    for mine, theirs in zip(actual, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-12)


# name -> class and options of torchrecurrent, and the order of our blocks of rows; its LEM reads the z before this
# timestep, and is another cell
TWINS: dict[str, tuple[str, dict[str, Any], list[int]]] = {
    "lstm_peephole": ("PeepholeLSTMCell", {}, [0, 1, 2, 3]),
    "janet": ("JANETCell", {}, [0, 1]),
    "ugrnn": ("UGRNNCell", {}, [0, 1]),
    "ind_rnn": ("IndRNNCell", {"nonlinearity": "relu"}, [0]),
    "antisymmetric": ("AntisymmetricRNNCell", {"epsilon": 0.01, "gamma": 0.01}, [0]),
    "antisymmetric_gated": ("GatedAntisymmetricRNNCell", {"epsilon": 0.01, "gamma": 0.01}, [1, 0]),
    "cornn": ("coRNNCell", {"dt": 0.06, "gamma": 66.0, "epsilon": 15.0}, [0]),
    "unicornn": ("UnICORNNCell", {"dt": 0.19, "alpha": 30.65}, [0]),
}


@pytest.mark.parametrize("name", TWINS)
def test_states_are_those_of_torchrecurrent(name: str) -> None:
    kind, options, order = TWINS[name]
    layer, x = layer_of(name), randn(T, B, D)
    twin = getattr(torchrecurrent, kind)(D, H, **options).double()
    own = {key.removesuffix("_l0"): value.detach() for key, value in layer.named_parameters()}

    def in_order(rows: Tensor) -> Tensor:
        blocks = rows.split(H)
        return torch.cat([blocks[index] for index in order]) if len(blocks) > 1 else rows

    unit = own.get("weight_u", torch.empty(0))
    given = {"weight_ih": in_order(own["weight_ih"]), "bias_ih": in_order(own["bias_ih"])}
    if "weight_hh" in own:
        matrices = own["weight_hh"].split(H, dim=1)
        given |= {"weight_hh": in_order(matrices[0])} | ({"weight_ch": matrices[1]} if len(matrices) > 1 else {})
    given |= {"bias_hh": in_order(own["bias_hh"])} if "bias_hh" in own else {}
    given |= {"lstm_peephole": {"weight_ph": unit}, "ind_rnn": {"vector_u": unit}}.get(name, {})
    given |= dict(zip(("weight_hh", "weight_ch"), unit, strict=True)) if name == "unicornn" else {}
    with torch.no_grad():
        for key, parameter in twin.named_parameters():
            parameter.copy_(given.get(key, parameter if key == "beta" else 0 * parameter).reshape(parameter.shape))
        state, trace = None, []
        for x_t in x:
            state = twin(x_t, state)
            trace.append(state[0] if isinstance(state, tuple) else state)
    torch.testing.assert_close(layer(x).states[0].h, torch.stack(trace), rtol=1e-11, atol=1e-13)


# Closed forms


def zeroed(name: str, **biases: float) -> RecurrentStack:
    """A layer whose parameters are all 0 but the biases of these gates."""
    layer = layer_of(name)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.zero_()
        for gate, bias in biases.items():
            CELLS[name].bias_of(layer.weights(layer.places[0]), gate).fill_(bias)
    return layer


def kept(layer: RecurrentStack, which: str, start: States | None = None) -> Tensor:
    """d s_T / d s_{T-k} of unit 0 for k = 0 .. T-1, by taps on the state `which`, s_T being that state."""
    taps = States(*(torch.zeros(T, B, H, dtype=F64, requires_grad=True) for _ in layer.cell.states))
    states, _ = run(layer, randn(T, B, D), start, taps)
    (gradient,) = torch.autograd.grad(getattr(states, which)[-1, 0, 0], getattr(taps, which))
    return gradient[:, 0, 0].flip(0)


def sigma(bias: float) -> float:
    return 1 / (1 + math.exp(-bias))


@pytest.mark.parametrize(
    ("name", "biases", "which", "factor"),
    [
        ("min_gru", {}, "h", 0.5),
        ("min_lstm", {}, "h", 0.5),
        ("min_lstm", {"f": 2.0, "i": -2.0}, "h", sigma(2.0)),
        ("lem", {}, "h", 1 - LEM_STEP / 2),
        ("lem", {}, "c", 1 - LEM_STEP / 2),
        ("janet", {"f": 1.5}, "h", sigma(1.5)),
        ("ugrnn", {"z": -0.7}, "h", sigma(-0.7)),
        ("gru_reset_before", {"z": 1.0}, "h", sigma(1.0)),
        ("lstm_peephole", {"f": 1.0}, "c", sigma(1.0)),
        ("lstm_coupled", {"f": 1.0}, "c", sigma(1.0)),
        ("lstm_layer_norm", {"f": 1.0}, "c", sigma(1.0)),
    ],
)
def test_without_weights_the_gate_alone_decides_how_a_gradient_falls(
    name: str, biases: dict[str, float], which: str, factor: float
) -> None:
    expected = factor ** torch.arange(T, dtype=F64)
    torch.testing.assert_close(kept(zeroed(name, **biases), which), expected, rtol=1e-12, atol=0)


def test_an_active_independent_unit_keeps_its_own_weight_to_the_power_of_the_lag() -> None:
    layer = zeroed("ind_rnn", h=1.0)
    with torch.no_grad():
        layer.weight_u_l0.fill_(0.93)
    torch.testing.assert_close(kept(layer, "h"), 0.93 ** torch.arange(T, dtype=F64), rtol=1e-12, atol=0)


def test_a_unit_of_the_linear_recurrence_keeps_the_modulus_of_its_eigenvalue_whatever_the_inputs() -> None:
    layer = layer_of("lru")
    taps = States(*(torch.zeros(T, B, H, dtype=F64, requires_grad=True) for _ in range(2)))
    states, _ = run(layer, randn(T, B, D), None, taps)
    modulus_H = torch.exp(-torch.exp(layer.weight_u_l0[0].detach()))
    assert ((modulus_H > 0.9) & (modulus_H < 0.999)).all()
    torch.testing.assert_close(layer.weight_u_l0[2].exp(), (1 - modulus_H**2).sqrt(), rtol=1e-5, atol=0)
    for last in states.tensors():
        grads = torch.autograd.grad(last[-1, 0].sum(), taps.tensors(), retain_graph=True)
        size_TH = torch.hypot(*(grad[:, 0] for grad in grads)).flip(0)
        torch.testing.assert_close(size_TH, modulus_H ** torch.arange(T)[:, None], rtol=1e-12, atol=0)


def step_map(layer: RecurrentStack, x: Tensor, before: States) -> Tensor:
    """The Jacobian of one step in all states, (S, S)."""

    def step(joined: Tensor) -> Tensor:
        after = layer.cell.step(x, States(*joined.chunk(len(before.tensors()))), layer.weights(layer.places[0]))
        return torch.cat(after.tensors())

    return jacrev(step)(torch.cat(before.tensors())).detach()


def test_determinants_of_the_oscillators() -> None:
    before = States(randn(H), randn(H, seed=2))
    symplectic = step_map(layer_of("unicornn"), randn(D), before)
    assert torch.linalg.det(symplectic).item() == pytest.approx(1.0, rel=1e-12)
    damped = step_map(zeroed("cornn"), randn(D), before)
    for unit in range(H):
        block = damped[unit::H, unit::H]
        assert torch.linalg.det(block).item() == pytest.approx(1 - CORNN_STEP * CORNN_DAMPING, rel=1e-12)


def test_without_diffusion_the_antisymmetric_step_lengthens_in_the_second_order_of_its_step_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for epsilon in (1e-2, 1e-3):
        monkeypatch.setitem(CELLS, "undamped", antisymmetric(gated=False, epsilon=epsilon, gamma=0.0))
        layer = layer_of("undamped")
        with torch.no_grad():
            layer.bias_ih_l0.zero_()
        jacobian = step_map(layer, torch.zeros(D, dtype=F64), States(torch.zeros(H, dtype=F64)))  # every slope is 1
        W = layer.weight_hh_l0.detach()
        largest = torch.linalg.matrix_norm(W - W.T, ord=2)
        norm = torch.linalg.matrix_norm(jacobian, ord=2)
        torch.testing.assert_close(norm, (1 + (epsilon * largest) ** 2).sqrt(), rtol=1e-13, atol=0)


def test_without_peepholes_it_is_the_lstm() -> None:
    layer, lstm, x = layer_of("lstm_peephole"), layer_of("lstm"), randn(T, B, D)
    with torch.no_grad():
        layer.weight_u_l0.zero_()
    lstm.load_state_dict({key: value for key, value in layer.state_dict().items() if key != "weight_u_l0"})
    for mine, theirs in zip(layer(x).states[0].tensors(), lstm(x).states[0].tensors(), strict=True):
        assert torch.equal(mine, theirs)


def test_the_cell_state_of_coupled_gates_stays_between_itself_and_the_candidate() -> None:
    layer, x = layer_of("lstm_coupled"), 10 * randn(T, B, D)
    c = run(layer, x, States(randn(B, H), 3 * randn(B, H, seed=2)))[0].c
    assert c is not None
    start = 3 * randn(B, H, seed=2)
    assert (c <= start.clamp(min=1.0)).all()
    assert (c >= start.clamp(max=-1.0)).all()


def test_the_state_of_the_slstm_does_not_depend_on_its_stabiliser() -> None:
    layer, x = layer_of("slstm"), randn(T, B, D)
    h, c, n = randn(B, H), randn(B, H, seed=2), randn(B, H, seed=3).abs() + 0.1
    one = run(layer, x, States(h, c, n, torch.zeros_like(c)))[0].h
    shifted = States(h, c * math.exp(3.0), n * math.exp(3.0), torch.full_like(c, -3.0))
    torch.testing.assert_close(run(layer, x, shifted)[0].h, one, rtol=1e-12, atol=1e-13)
    zero = torch.zeros(B, H, dtype=F64)
    plain = run(layer, x)[0].h
    for m in (-50.0, 7.0, 1e4):
        torch.testing.assert_close(
            run(layer, x, States(zero, zero, zero, zero + m))[0].h, plain, rtol=1e-12, atol=1e-13
        )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("i", [-300.0, 300.0])
@pytest.mark.parametrize("f", [-300.0, 300.0])
def test_the_slstm_stays_finite_whatever_its_gates(i: float, f: float, dtype: torch.dtype) -> None:
    layer = zeroed("slstm", i=i, f=f).to(dtype)
    h = layer(randn(T, B, D).to(dtype)).states[0].h
    grads = torch.autograd.grad(h.sum(), list(layer.parameters()))
    assert h.isfinite().all()
    assert all(grad.isfinite().all() for grad in grads)


# Gates that keep


@pytest.mark.parametrize("name", GATED)
def test_the_keeping_gate_says_what_is_left_of_a_state(name: str) -> None:
    cell, layer = CELLS[name], zeroed(name)
    rule, generator = KeepBias(value=2.0), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for gate, values in rule.values(cell, H, generator).items():
            cell.bias_of(layer.weights(layer.places[0]), gate).copy_(values)
    before = States(*(torch.full((H,), value, dtype=F64) for value in (0.3, 0.2, 1.0, 0.0)[: len(cell.states)]))
    x, weights = torch.zeros(D, dtype=F64), layer.weights(layer.places[0])
    value = cell.gate_values(x, before, weights)[str(cell.keep_gate)]
    share = (value if cell.keeps_when_open else 1 - value).detach()
    which = "h" if not cell.keeps_when_open or cell.states == ("h",) else "c"
    rows = slice(*(cell.states.index(which) * H + end for end in (0, H)))
    jacobian = step_map(layer, x, before)[rows, rows]
    torch.testing.assert_close(jacobian.diagonal(), share, rtol=1e-12, atol=0)
    assert share[0] > 0.6  # more than without the bias


@pytest.mark.parametrize("name", GATED)
def test_chrono_keeps_for_as_long_as_it_says(name: str) -> None:
    cell, longest = CELLS[name], 100.0
    biases = Chrono(longest_lag=longest).values(cell, 64, torch.Generator().manual_seed(0))
    sign = 1.0 if cell.keeps_when_open else -1.0
    times = (sign * biases[str(cell.keep_gate)]).exp()
    assert ((times >= 1) & (times <= longest - 1)).all()
    assert times.max() > 0.8 * longest


# The compiled loops

needs_compiler = pytest.mark.skipif(compiler() is None, reason="there is no C compiler")


@needs_compiler
@pytest.mark.parametrize("name", POINTWISE)
def test_every_pointwise_step_compiles(name: str) -> None:
    assert kernel_of(CELLS[name], torch.zeros(1)) == "compiled"


@needs_compiler
@pytest.mark.parametrize(
    "sizes", [(31, 1, 3), *(pytest.param(s, marks=pytest.mark.slow) for s in [(1, 3, 17), (3, 17, 31), (17, 31, 1)])]
)
@pytest.mark.parametrize("name", POINTWISE)
def test_compiled_loops_in_float32_are_the_eager_ones_in_float64(name: str, sizes: tuple[int, int, int]) -> None:
    hidden, examples, inputs = sizes
    layer = layer_of(name, input_size=inputs, hidden_size=hidden).float()
    x, weights = randn(T, examples, inputs).float(), randn(T, examples, hidden, seed=4).float()
    results = []
    for dtype in (torch.float32, torch.float64):
        layer, at = layer.to(dtype), x.to(dtype).requires_grad_()
        taps = States(*(torch.zeros(T, examples, hidden, dtype=dtype, requires_grad=True) for _ in layer.cell.states))
        states, _ = run(layer, at, None, taps)
        total = (states.h * weights.to(dtype)).sum()
        wanted = [at, taps.h, *layer.parameters()]
        results.append([*states.tensors(), *torch.autograd.grad(total, wanted)])
    for mine, expected in zip(*results, strict=True):
        assert (mine.double() - expected).norm() <= 2e-5 * expected.norm() + 1e-6


@needs_compiler
@pytest.mark.parametrize("name", POINTWISE)
def test_a_nan_stays_one_in_compiled_loops_and_stays_in_its_example(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    layer, x = layer_of(name).float(), randn(T, B, D).float()
    x[4, 1, 0] = math.nan
    results = []
    for eager in (False, True):
        monkeypatch.setattr(recurrence_module, "USE_EAGER", eager)
        states = layer(x).states[0]
        grads = torch.autograd.grad(states.h.sum(), list(layer.parameters()))
        results.append([found.isnan() for found in (*states.tensors(), *grads)])
    for mine, expected in zip(*results, strict=True):
        assert torch.equal(mine, expected)
    assert results[0][0][4:, 1].all()
    assert not results[0][0][:, [0, 2]].any()


# What belongs to a cell at its start


def test_units_of_their_own_begin_as_their_authors_let_them() -> None:
    u = layer_of("ind_rnn", hidden_size=4000).weight_u_l0
    assert ((u >= 0) & (u <= 2 ** (1 / 784))).all()
    assert u.mean().item() == pytest.approx(0.5, abs=0.02)
    w, c = layer_of("unicornn", hidden_size=4000).weight_u_l0
    assert ((w >= 0) & (w <= 1) & (c.abs() <= 0.1)).all()
    nu, theta, _ = layer_of("lru", hidden_size=4000).weight_u_l0
    squared = torch.exp(-2 * torch.exp(nu))
    assert squared.mean().item() == pytest.approx((0.9**2 + 0.999**2) / 2, abs=0.003)  # even over the ring's area
    assert theta.exp().mean().item() == pytest.approx(math.pi, abs=0.1)
    rows = dict(zip(NORMALISED, layer_of("lstm_layer_norm").weight_u_l0, strict=True))
    assert all((row == (0 if name == "shift_c" else 1)).all() for name, row in rows.items())


def test_what_a_cell_has_not_is_no_parameter() -> None:
    assert "weight_hh_l0" not in dict(layer_of("min_gru").named_parameters())
    assert isinstance(layer_of("lru").weight_u_l0, nn.Parameter)
