"""Influence balancing: a linear system whose truncated gradient has the wrong sign until the truncation is long.

    s_t = A s_{t-1} + θ v,   A = ½ I + ½ · superdiagonal (23 × 23),   v = (+1 ×10, -1 ×13),   loss ½ (s_t[0] - 1)²

v[i] reaches s[0] after i timesteps and more: the positive ones come first, the negative ones win in the end. As a
linear Elman network: W_hh = A, W_ih = θ v, x_t = 1, the readout s[0]; ds[0]/dθ is v · ds[0]/dW_ih.

Source: Tallec and Ollivier (2017), «Unbiasing truncated backpropagation through time».
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from pipeline.core.models import Replicas, RunOptions
from pipeline.core.training.optimisers import Sgd
from pipeline.core.training.schedule import Truncation, Windows
from pipeline.selftest.check import Number, Tolerance, experiment, printed
from pipeline.selftest.networks import EVERY, F64, answer_gradient, first_unit, parameters, replicas_of

NUM_UNITS = 23
V = torch.cat([torch.ones(10, dtype=F64), -torch.ones(13, dtype=F64)])
LEARNING_RATE, START = 1e-4, 0.5
NUM_STEPS = 3000
BLOWN_UP, NEAR_OPTIMUM = 10.0, 1e-3
SOURCE = "Tallec and Ollivier (2017), influence balancing"


@experiment("influence balancing", source=SOURCE)
def gradients() -> Iterator[Number]:
    """The gradient ds[0]/dθ through the newest K timesteps; of 400 timesteps nothing is left beyond."""
    exact, equal = Tolerance("absolute", 1e-9, "float64"), Tolerance("absolute", 0.0, "an integer")
    whole, by_length = k_step_gradient(400), {K: k_step_gradient(K) for K in range(1, 101)}
    yield Number("exact ds_0/dθ", expected=-6.0, measured=whole, within=exact)
    yield Number("θ* = 1 / (ds_0/dθ)", expected=-1 / 6, measured=1 / whole, within=exact)
    integer = Tolerance("absolute", 1e-4, "an integer, to four decimals")
    texts = {1: "1", 10: "10", 19: "16.476", 20: "16.476", 40: "0.566", 50: "-4.753", 75: "-5.9993", 100: "-6"}
    for K, text in texts.items():
        name, gradient = f"K-step gradient, K={K}", by_length[K]
        whole_number = Number(name, expected=float(text), measured=gradient, within=integer)
        yield printed(name, text, gradient) if "." in text else whole_number
    largest, first = max(by_length, key=by_length.__getitem__), next(K for K in by_length if by_length[K] < 0)
    yield Number("K of the largest K-step gradient", expected=19, measured=largest, within=equal)
    yield Number("first K with the right sign", expected=41, measured=first, within=equal)


@experiment("influence balancing, trained", source=SOURCE)
def training() -> Iterator[Number]:
    """SGD by TBPTT(1, K) from θ = ½: it diverges where the gradient has the wrong sign."""
    beyond, near = Tolerance("at least", 0.0, "a bound"), Tolerance("absolute", NEAR_OPTIMUM, "where training stops")
    for K in (10, 20, 30):
        name, size = f"|θ| of TBPTT(1, {K}) grows beyond", abs(training_path(K)[-1])
        yield Number(name, expected=BLOWN_UP, measured=size, within=beyond)
    yield Number("θ of TBPTT(1, 100)", expected=-1 / 6, measured=training_path(100)[-1], within=near)


def k_step_gradient(length: int) -> float:
    """Return ds_K[0]/dθ with s_0 = 1 held fixed."""
    replicas = replicas_of("elman_linear", NUM_UNITS)
    start, inputs = torch.ones(1, 1, NUM_UNITS, dtype=F64), torch.ones(1, 1, length, 1, dtype=F64)
    return _along_v(replicas, answer_gradient(replicas, _parameters(replicas, START), inputs, [start])).item()


def training_path(length: int) -> list[float]:
    """Return θ before and after each update of TBPTT(1, length) on one endless sequence, the state carried.

    It ends where |θ| has blown up, and where θ has been near its optimum for as long as a window is.
    """
    replicas = replicas_of("elman_linear", NUM_UNITS, interface=EVERY)
    windows = Windows(Truncation(update_every=1, backward_length=length), NUM_STEPS, "every")
    inputs, target = torch.ones(1, 1, NUM_STEPS, 1, dtype=F64), torch.ones(1, 1, 1, 1, dtype=F64)
    theta, flat_RP = torch.tensor([START], dtype=F64), _parameters(replicas, START)
    W_ih = replicas.named(flat_RP)["recurrent.weight_ih_l0"][0]
    optimiser = Sgd(learning_rate=LEARNING_RATE).over(theta)
    initial, num_near, path = [torch.ones(1, 1, NUM_UNITS, dtype=F64)], 0, [START]
    for step in range(NUM_STEPS):
        window = windows.at(step)
        seen = inputs[:, :, window.start : window.stop]
        options = RunOptions(initial=initial, num_scored=window.num_scored)
        run = replicas.backpropagate(flat_RP, seen, target, options)
        theta.grad = 0.5 * _along_v(replicas, run.grad_RP)  # ours is the whole square, theirs half of it
        optimiser.step()
        W_ih.copy_(theta * V[:, None])
        path.append(theta.item())
        if window.carry:
            initial = [state[:, window.carry - 1] for state in run.states]
        num_near = num_near + 1 if abs(theta.item() + 1 / 6) < NEAR_OPTIMUM else 0
        if abs(theta.item()) > BLOWN_UP or num_near == length:
            break
    return path


def _parameters(replicas: Replicas, theta: float) -> Tensor:
    half = torch.full((NUM_UNITS,), 0.5, dtype=F64)
    A = half.diag() + half[1:].diag(1)
    return parameters(replicas, W_hh=A, W_ih=theta * V[:, None], readout=first_unit(NUM_UNITS))


def _along_v(replicas: Replicas, grad_RP: Tensor) -> Tensor:
    """Return the gradient in θ, (1,)."""
    return V @ replicas.named(grad_RP)["recurrent.weight_ih_l0"][0]


EXPERIMENTS = (gradients, training)
