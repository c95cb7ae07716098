"""Influence balancing: a linear system whose truncated gradient has the wrong sign until the truncation is long.

    s_t = A s_{t-1} + θ v,   A = ½ I + ½ · superdiagonal (23 × 23),   v = (+1 ×10, -1 ×13),   loss ½ (s_t[0] - 1)²

v[i] reaches s[0] after i timesteps and more: the positive ones come first, the negative ones win in the end. As a
linear Elman network: W_hh = A, W_ih = θ v, x_t = 1, the readout s[0]; ds[0]/dθ is v · ds[0]/dW_ih.

Source: Tallec and Ollivier (2017), «Unbiasing truncated backpropagation through time».
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache, partial

import torch
from torch import Tensor

from pipeline.core.models import Replicas, RunOptions
from pipeline.core.training.optimisers import Sgd
from pipeline.core.training.truncation import Truncation, Windows
from pipeline.selftest.check import Check, absolute, as_printed, at_least
from pipeline.selftest.networks import F64, answer_gradient, first_unit, parameters, replicas_of

NUM_POSITIVE, NUM_NEGATIVE = 10, 13
NUM_UNITS = NUM_POSITIVE + NUM_NEGATIVE
K_STEP_GRADIENTS = {1: "1", 10: "10", 19: "16.476", 20: "16.476", 40: "0.566", 50: "-4.753", 75: "-5.9993", 100: "-6"}
"""ds[0]/dθ through the newest K timesteps."""
EXACT = -6.0
LONGEST = 400
"""A^K is 2^-K times a polynomial in K: nothing is left of it after so many timesteps."""
LEARNING_RATE, START = 1e-4, 0.5
BLOWN_UP = 10.0
NEAR_OPTIMUM = 1e-3
NUM_STEPS = 3000
SOURCE = "Tallec and Ollivier (2017), influence balancing"


def checks() -> Iterator[Check]:
    """Yield the checks."""
    k_step = cache(k_step_gradient)

    def largest() -> tuple[float, int]:
        return max((k_step(length), -length) for length in range(1, 101))

    yield Check("influence balancing: exact ds_0/dθ", EXACT, partial(k_step, LONGEST), absolute(1e-9), SOURCE)
    yield Check("influence balancing: θ* = 1 / (ds_0/dθ)", -1 / 6, lambda: 1 / k_step(LONGEST), absolute(1e-9), SOURCE)
    for length, printed in K_STEP_GRADIENTS.items():
        expected, tolerance = as_printed(printed)
        if "." not in printed:
            tolerance = absolute(1e-4)
        name = f"influence balancing: K-step gradient, K={length}"
        yield Check(name, expected, partial(k_step, length), tolerance, SOURCE)
    name = "influence balancing: K of the largest K-step gradient"
    yield Check(name, 19, lambda: -largest()[1], absolute(0), SOURCE)
    name = "influence balancing: first K with the right sign"
    yield Check(name, 41, lambda: next(K for K in range(1, 101) if k_step(K) < 0), absolute(0), SOURCE)
    for length in (10, 20, 30):
        name = f"influence balancing: |θ| of TBPTT(1, {length}) grows beyond"
        yield Check(name, BLOWN_UP, partial(_trained_size, length), at_least(), SOURCE)
    name = "influence balancing: θ of TBPTT(1, 100)"
    yield Check(name, -1 / 6, lambda: training_path(100)[-1], absolute(NEAR_OPTIMUM), SOURCE)


def _system(num_timesteps: int, target_at: str) -> tuple[Replicas, Tensor, Tensor]:
    """Return the network, v (23,), and its inputs (1, 1, T, 1)."""
    replicas = replicas_of("elman_linear", NUM_UNITS, target_at="every" if target_at == "every" else "last")
    v = torch.cat([torch.ones(NUM_POSITIVE, dtype=F64), -torch.ones(NUM_NEGATIVE, dtype=F64)])
    return replicas, v, torch.ones(1, 1, num_timesteps, 1, dtype=F64)


def _parameters(replicas: Replicas, v: Tensor, theta: float) -> Tensor:
    half = torch.full((NUM_UNITS,), 0.5, dtype=F64)
    A = half.diag() + half[1:].diag(1)
    return parameters(replicas, W_hh=A, W_ih=theta * v[:, None], readout=first_unit(NUM_UNITS))


def _along_v(replicas: Replicas, grad_RP: Tensor, v: Tensor) -> Tensor:
    """Return the gradient in θ, (1, 1)."""
    return v @ replicas.named(grad_RP)["recurrent.weight_ih_l0"][0]


def k_step_gradient(length: int) -> float:
    """Return ds_K[0]/dθ with s_0 = 1 held fixed."""
    replicas, v, inputs = _system(length, "last")
    start = torch.ones(1, 1, NUM_UNITS, dtype=F64)
    grad_RP = answer_gradient(replicas, _parameters(replicas, v, START), inputs, [start])
    return _along_v(replicas, grad_RP, v).item()


def _trained_size(length: int) -> float:
    return abs(training_path(length)[-1])


def training_path(length: int) -> list[float]:
    """Return θ before and after each update of TBPTT(1, length) on one endless sequence, the state carried.

    It ends where |θ| has blown up, and where θ has been near its optimum for as long as a window is.
    """
    replicas, v, inputs = _system(NUM_STEPS, "every")
    windows = Windows(Truncation(1, length), NUM_STEPS, "every")
    theta = torch.tensor([START], dtype=F64)
    flat_RP = _parameters(replicas, v, START)
    W_ih = replicas.named(flat_RP)["recurrent.weight_ih_l0"][0]
    optimiser = Sgd("sgd", LEARNING_RATE).over(theta)
    initial, target = [torch.ones(1, 1, NUM_UNITS, dtype=F64)], torch.ones(1, 1, 1, 1, dtype=F64)
    num_near, path = 0, [START]
    for step in range(NUM_STEPS):
        window = windows.at(step)
        run = replicas.backpropagate(
            flat_RP,
            inputs[:, :, window.start : window.stop],
            target,
            RunOptions(initial=initial, num_scored=window.num_scored),
        )
        theta.grad = 0.5 * _along_v(replicas, run.grad_RP, v)  # ours is the whole square, theirs half of it
        optimiser.step()
        W_ih.copy_(theta * v[:, None])
        path.append(theta.item())
        if window.carry:
            initial = [state[:, window.carry - 1] for state in run.states]
        num_near = num_near + 1 if abs(theta.item() + 1 / 6) < NEAR_OPTIMUM else 0
        if abs(theta.item()) > BLOWN_UP or num_near == length:
            break
    return path
