"""Chrono initialisation: b_f ~ ln U[1, T_max - 1], b_i = -b_f, all else 0, read from the network that was made."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cache, partial

import torch
from torch import Tensor

from pipeline.core.models.initialisation import Chrono, Initialisation, Uniform
from pipeline.selftest.check import Check, absolute, at_least, at_most
from pipeline.selftest.networks import replicas_of

T_MAX = 200
NUM_HIDDEN, NUM_REPLICAS = 64, 32
NUM_DRAWN = NUM_HIDDEN * NUM_REPLICAS
STANDARD_ERRORS = 4
KOLMOGOROV = 1.95 / math.sqrt(NUM_DRAWN)
"""A distance from the distribution function that one sample in a thousand has by chance."""
SOURCE = "Tallec and Ollivier (2018)"


def checks() -> Iterator[Check]:
    """Yield the checks."""
    biases = cache(_biases)
    longest = T_MAX - 1

    def times() -> Tensor:
        return biases()["f"].exp().flatten().sort().values

    def distance() -> float:
        expected = (times() - 1) / (longest - 1)
        steps = torch.arange(NUM_DRAWN + 1, dtype=expected.dtype) / NUM_DRAWN
        return torch.maximum((expected - steps[:-1]).abs(), (expected - steps[1:]).abs()).max().item()

    def largest(of: str) -> float:
        gates = biases()
        return (gates["i"] + gates["f"] if of == "i" else torch.stack([gates["g"], gates["o"]])).abs().max().item()

    yield Check("chrono: smallest exp(b_f)", 1.0, lambda: times()[0].item(), at_least(1e-6), SOURCE)
    yield Check(f"chrono: largest exp(b_f), T_max={T_MAX}", longest, lambda: times()[-1].item(), at_most(1e-4), SOURCE)
    name = f"chrono: mean exp(b_f), T_max/2 (± {STANDARD_ERRORS} s.e.)"
    standard_error = (longest - 1) / math.sqrt(12 * NUM_DRAWN)
    yield Check(name, T_MAX / 2, lambda: times().mean().item(), absolute(STANDARD_ERRORS * standard_error), SOURCE)
    name = "chrono: Kolmogorov distance of exp(b_f) from uniform"
    yield Check(name, KOLMOGOROV, distance, at_most(), SOURCE)
    yield Check("chrono: largest |b_i + b_f|", 0.0, partial(largest, "i"), absolute(0), SOURCE)
    yield Check("chrono: largest bias of g and o", 0.0, partial(largest, "g, o"), absolute(0), SOURCE)


def _biases() -> dict[str, Tensor]:
    """Return the bias of every gate, (R, H), float64."""
    plain = Uniform()
    rules = Initialisation(input=plain, recurrent=plain, gates={}, bias=Chrono(longest_lag=float(T_MAX)), readout=plain)
    replicas = replicas_of("lstm", NUM_HIDDEN, num_replicas=NUM_REPLICAS, initialisation=rules)
    weights = replicas.weights(replicas.flat_RP.double(), replicas.model.stacks["recurrent"].places[0])
    blocks = (weights.bias_ih + weights.bias_hh).chunk(4, dim=1)
    return dict(zip(replicas.model.stacks["recurrent"].cell.gates, blocks, strict=True))
