"""The LSTM with small weights: the gradient in c_t falls by f = σ(b) a timestep, b being the forget bias.

Its half-life, ln 0.5 / ln f timesteps, is read from the gradient trace and, independently, from the gate's values.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cache, partial

import torch
from torch import Tensor

from pipeline.core.measures import gate_statistics, gate_values, retention, trace_gradients
from pipeline.core.models import Interface, ModelSpec, Replicas, SequenceModel
from pipeline.core.models.initialisation import Gaussian, Initialisation, KeepBias
from pipeline.selftest.check import Check, as_printed, relative
from pipeline.selftest.networks import F64, draw

HALF_LIVES = {0: "1.00", 1: "2.21", 2: "5.46", 3: "14.27", 5: "103.2"}
"""In timesteps, by forget bias."""
SMALL = 1e-6
"""Standard deviation of every weight."""
NUM_HIDDEN, NUM_TIMESTEPS = 8, 80
NEAR, FAR = 10, 60
"""The lags between which the fall is measured."""
SOURCE = "closed form: Gers, Schmidhuber and Cummins (2000), c_t = f c_t-1 + i g"


def checks() -> Iterator[Check]:
    """Yield the checks."""
    inputs = draw(2, NUM_TIMESTEPS, 1)

    @cache
    def replicas() -> Replicas:
        return _replicas()

    @cache
    def factors_from_trace() -> Tensor:
        targets = torch.ones(len(inputs), 1, dtype=F64)
        norms = trace_gradients(replicas(), replicas().flat_RP, inputs, targets).log10_norms
        (c_RT,) = (norm_RT for key, norm_RT in norms.items() if key.quantity == "c")
        return 10.0 ** ((c_RT[:, -1 - FAR] - c_RT[:, -1 - NEAR]) / (FAR - NEAR))

    def factor_from_trace(r: int) -> float:
        return factors_from_trace()[r].item()

    @cache
    def gates() -> dict[str, Tensor]:
        flat_RP, recurrent = replicas().flat_RP.double(), replicas().model.stacks["recurrent"]
        seen, states = replicas().unroll(replicas().named(flat_RP), inputs)
        return gate_values(recurrent.cell, replicas().weights(flat_RP, recurrent.places[0]), seen[0], states)

    def half_life_from_trace(r: int) -> float:
        return math.log(0.5) / math.log(factor_from_trace(r))

    def half_life_from_gates(r: int) -> float:
        (row,) = (row for row in gate_statistics(gates(), "f") if row.quantity == "half_life")
        return row.value_R[r].item()

    def factor_from_retention(r: int) -> float:
        return 10.0 ** (retention(gates()["f"])[r, -1].item() / NUM_TIMESTEPS)

    for r, (bias, printed) in enumerate(HALF_LIVES.items()):
        f = 1 / (1 + math.exp(-bias))
        expected, tolerance = as_printed(printed)
        name = f"small LSTM: fall of ‖∂L/∂c_t‖ a timestep, σ({bias})"
        yield Check(name, f, partial(factor_from_trace, r), relative(1e-5), SOURCE)
        name = f"small LSTM: what f keeps a timestep, σ({bias}), from its values"
        yield Check(name, f, partial(factor_from_retention, r), relative(1e-5), SOURCE)
        name = f"small LSTM: half-life from the gradient trace, b={bias}"
        yield Check(name, expected, partial(half_life_from_trace, r), tolerance, SOURCE)
        name = f"small LSTM: half-life from the gate statistics, b={bias}"
        yield Check(name, expected, partial(half_life_from_gates, r), tolerance, SOURCE)


def _replicas() -> Replicas:
    """Return one replica for each forget bias."""
    interface, models = (
        Interface(input_kind="real", input_size=1, target_at="last", target_kind="value", output_size=1),
        [],
    )
    small, plain = Gaussian(std=SMALL), Gaussian(std=1.0)
    for seed, bias in enumerate(HALF_LIVES):
        rules = Initialisation(input=small, recurrent=small, gates={}, bias=KeepBias(value=float(bias)), readout=plain)
        models.append(
            SequenceModel(interface, ModelSpec(cell="lstm", hidden_size=NUM_HIDDEN, initialisation=rules), seed)
        )
    return Replicas(models)
