"""Cells whose gradient is known in closed form, and what has been measured of cells at initialisation.

Shapes: R replicas, T timesteps, B batch, D input, H hidden, S = H · (number of states).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from pipeline.config import Sizes
from pipeline.core.cells import States
from pipeline.core.cells.oscillators import CORNN_DAMPING, CORNN_STEP, LEM_STEP
from pipeline.core.cells.stack import RecurrentStack
from pipeline.core.measures.jacobians import step_jacobians
from pipeline.core.models import initialisation as init
from pipeline.core.training.data import interface_of
from pipeline.data.memory import Adding
from pipeline.selftest.check import EXACT, ROUNDING, Number, Tolerance, experiment
from pipeline.selftest.networks import F64, draw, log10_norms, replicas_of

NUM_UNITS, NUM_TIMESTEPS, LAG = 8, 61, 60
PRODUCT = Tolerance("relative", 1e-11, "float64, a product of 60 factors")


def _stack(cell: str, zero: bool = False, inputs: int = 2) -> RecurrentStack:
    """Return one layer in float64, as drawn, or with every parameter 0."""
    stack = RecurrentStack(cell, inputs, NUM_UNITS, torch.Generator().manual_seed(0)).double()
    with torch.no_grad():
        for parameter in stack.parameters() if zero else ():
            parameter.zero_()
    return stack


def _by_lag(stack: RecurrentStack, which: str) -> list[Tensor]:
    """Return ∂s_T/∂s_{T-k} of each unit's own states for `LAG`, (H,) for each state, s_T being the state `which`."""
    taps = States(*(torch.zeros(NUM_TIMESTEPS, 1, NUM_UNITS, dtype=F64, requires_grad=True) for _ in stack.cell.states))
    last = getattr(stack(draw(NUM_TIMESTEPS, 1, 2), None, [taps]).states[0], which)[-1]
    return [grad[-1 - LAG, 0] for grad in torch.autograd.grad(last.sum(), taps.tensors())]


def _step_map(stack: RecurrentStack, before: Sequence[Tensor], x_D: Tensor) -> Tensor:
    """Return the Jacobian of one step in all states, (S, S)."""
    states_RTBH = [torch.stack([state, state])[None, :, None] for state in before]  # the second step is from `before`
    weights = stack.weights(stack.places[0])
    alone = type(weights)(*(weight[None].detach() for weight in weights))
    return step_jacobians(stack.cell, alone, x_D.expand(1, 2, 1, -1), states_RTBH)[0, 1, 0]


@experiment("gates alone", source="closed form: at zero weights a gate is σ of its bias; each cell's authors")
def gates_alone() -> Iterator[Number]:
    """Without weights a state falls by what its gate keeps: 2^-k, (1 - Δt/2)^k, σ(b)^k."""
    sigma = 1 / (1 + math.exp(-1.0))
    known: dict[str, tuple[dict[str, float], str, float]] = {
        "min_gru": ({}, "h", 0.5),
        "min_lstm": ({}, "h", 0.5),
        "lem": ({}, "h", 1 - LEM_STEP / 2),
        "janet": ({"f": 1.0}, "h", sigma),
        "ugrnn": ({"z": 1.0}, "h", sigma),
        "lstm_coupled": ({"f": 1.0}, "c", sigma),
        "lstm_layer_norm": ({"f": 1.0}, "c", sigma),
    }
    for cell, (biases, which, factor) in known.items():
        stack = _stack(cell, zero=True)
        with torch.no_grad():
            for gate, bias in biases.items():
                stack.cell.bias_of(stack.weights(stack.places[0]), gate).fill_(bias)
        kept = _by_lag(stack, which)[stack.cell.states.index(which)][0].item()
        yield Number(f"{cell}: ∂{which}_T/∂{which}_T-k, k={LAG}", expected=factor**LAG, measured=kept, within=PRODUCT)


@experiment("units alone", source="closed form: Li et al. (2018); Orvieto et al. (2023)")
def units_alone() -> Iterator[Number]:
    """Units that do not mix over time: u^k of an active unit of the IndRNN, |λ|^k of a mode of the LRU."""
    stack = _stack("ind_rnn", zero=True)
    with torch.no_grad():
        stack.get_parameter("bias_ih_l0").fill_(1.0)
        stack.get_parameter("weight_u_l0").copy_(torch.linspace(0.9, 1.02, NUM_UNITS, dtype=F64))
    (kept_H,) = _by_lag(stack, "h")
    for unit, u in ((0, 0.9), (-1, 1.02)):
        name, measured = f"ind_rnn: ∂h_T/∂h_T-k, u={u:g}, k={LAG}", kept_H[unit].item()
        yield Number(name, expected=u**LAG, measured=measured, within=PRODUCT)
    stack = _stack("lru")
    modulus_H = torch.exp(-torch.exp(stack.get_parameter("weight_u_l0")[0].detach()))
    size_H = torch.hypot(*_by_lag(stack, "h"))
    for unit in (0, 1):
        name, modulus = f"lru: |∂s_T/∂s_T-k|, k={LAG}, mode {unit}", modulus_H[unit].item()
        yield Number(name, expected=modulus**LAG, measured=size_H[unit].item(), within=PRODUCT)


@experiment("maps of one step", source="closed form: Rusch and Mishra (2021), twice; Chang et al. (2019)")
def maps_of_one_step() -> Iterator[Number]:
    """Determinants of oscillators, the norm of an antisymmetric step, and what must not matter at all.

    The UnICORNN is symplectic: 1. The coRNN at zero weights: 1 - Δt ε. I + ε A with A antisymmetric has the norm
    √(1 + ε² ‖A‖²), which is 1 but for the second order. The peephole LSTM with p = 0 is the LSTM; h of the sLSTM does
    not depend on its stabiliser; c of coupled gates stays where candidates and c_0 are, within ±1.
    """
    y, z = draw(NUM_UNITS, seed=1), draw(NUM_UNITS, seed=2)
    determinant = torch.linalg.det(_step_map(_stack("unicornn"), (y, z), draw(2))).item()
    yield Number("unicornn: determinant of ∂s_t/∂s_t-1", expected=1.0, measured=determinant, within=EXACT)
    block = _step_map(_stack("cornn", zero=True), (y, z), draw(2))[::NUM_UNITS, ::NUM_UNITS]
    damped, determinant = 1 - CORNN_STEP * CORNN_DAMPING, torch.linalg.det(block).item()
    yield Number("cornn: determinant for a unit, zero weights", expected=damped, measured=determinant, within=EXACT)
    stack = _stack("antisymmetric")
    with torch.no_grad():
        stack.get_parameter("bias_ih_l0").zero_()
    zero, W = torch.zeros(NUM_UNITS, dtype=F64), stack.get_parameter("weight_hh_l0").detach()
    A = W - W.T
    jacobian = _step_map(stack, (zero,), torch.zeros(2, dtype=F64))
    shrinks = 1 - 0.01 * 0.01  # γ = .01 takes ε γ off every eigenvalue of ∂h_t/∂h_t-1 = (1 - ε γ) I + ε A
    norm = math.sqrt(shrinks**2 + (0.01 * torch.linalg.matrix_norm(A, ord=2).item()) ** 2)
    measured = torch.linalg.matrix_norm(jacobian, ord=2).item()
    yield Number("antisymmetric: ‖∂h_t/∂h_t-1‖ where every slope is 1", expected=norm, measured=measured, within=EXACT)
    x_TBD, peephole, lstm = draw(NUM_TIMESTEPS, 2, 2), _stack("lstm_peephole"), _stack("lstm")
    with torch.no_grad():
        peephole.get_parameter("weight_u_l0").zero_()
    lstm.load_state_dict({name: value for name, value in peephole.state_dict().items() if name != "weight_u_l0"})
    apart = (peephole(x_TBD).outputs - lstm(x_TBD).outputs).abs().max().item()
    yield Number("lstm_peephole with p = 0: distance from the LSTM", expected=0.0, measured=apart, within=ROUNDING)
    slstm, ones = _stack("slstm"), torch.ones(2, NUM_UNITS, dtype=F64)
    starts = (States(ones, ones, ones, 0 * ones), States(ones, math.e**2 * ones, math.e**2 * ones, -2 * ones))
    h, other = (slstm(x_TBD, [start]).outputs for start in starts)
    apart = (h - other).abs().max().item()
    yield Number("slstm: change of h with m, c and n scaled alike", expected=0.0, measured=apart, within=ROUNDING)
    c = _stack("lstm_coupled")(10 * x_TBD).states[0].c
    within = Tolerance("at most", 0.0, "a bound")
    largest = math.nan if c is None else c.abs().max().item()
    yield Number("lstm_coupled: largest |c_t|", expected=1.0, measured=largest, within=within)


@experiment("cells at initialisation", source="measured for this project by plain autograd, on the adding problem")
def cells_at_initialisation() -> Iterator[Number]:
    """How ‖∂L/∂h_t‖ falls per timestep of lag: H = 32, T = 100, batch 16, the mean of five seeds."""
    dataset = Adding(seed=0, lengths=()).generate(100, Sizes(16, 1, 1))
    train = dataset.splits["train"]
    data = torch.from_numpy(train.inputs).double(), torch.from_numpy(train.targets).double()
    uniform, scaled = init.Uniform(), init.ScaledGaussian(gain=1.0)

    def rules(matrix: init.MatrixRule, bias: init.BiasRule) -> init.Initialisation:
        return init.Initialisation(input=matrix, recurrent=matrix, gates={}, bias=bias, readout=uniform)

    chrono, zero = rules(uniform, init.Chrono(longest_lag=150.0)), rules(scaled, init.ConstantBias(value=0.0))
    seeds = Tolerance("absolute", 0.05, "five seeds, each with a standard deviation of 0.025; other draws")
    few = Tolerance("absolute", 0.005, "five seeds; other draws")
    wide = Tolerance("absolute", 0.07, "five seeds, from .85 to .99; other draws")
    known = [
        ("min_gru", None, 0.656, seeds),
        ("min_lstm", None, 0.655, seeds),
        ("min_gru", chrono, 0.989, few),
        ("min_lstm", chrono, 0.990, few),
        ("lstm_layer_norm", init.PLAIN, 0.924, wide),
        ("antisymmetric", zero, 1.0, Tolerance("absolute", 5e-4, "ε γ = 1e-4 per timestep, and five seeds")),
    ]
    for cell, rule, factor, within in known:
        replicas = replicas_of(cell, 32, [rule or init.PLAIN] * 5, interface=interface_of(dataset))
        flat_RP = replicas.flat_RP.double().clone()
        if rule is None:  # as nn.Linear draws what sees the input alone
            for name, parameter in replicas.named(flat_RP).items():
                if name.startswith("recurrent."):
                    parameter.uniform_(-(2**-0.5), 2**-0.5, generator=torch.Generator().manual_seed(len(name)))
        norms_RT = log10_norms(replicas, flat_RP, *data)
        measured = (10.0 ** ((norms_RT[:, 0] - norms_RT[:, -1]) / (norms_RT.shape[1] - 1))).mean().item()
        label = {"None": "as nn.Linear", str(chrono): "chrono for 150"}.get(str(rule), "as published")
        yield Number(f"factor per timestep, {cell}, {label}", expected=factor, measured=measured, within=within)


EXPERIMENTS = (gates_alone, units_alone, maps_of_one_step, cells_at_initialisation)
