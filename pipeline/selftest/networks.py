"""Networks whose weights are written by hand, in float64, for the measures and the backward pass that ship.

Shapes: R replicas, T timesteps, B batch, D input, H hidden, P parameters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from pipeline.core.cells.stack import FORWARD
from pipeline.core.measures.gradients import trace_gradients
from pipeline.core.measures.jacobians import step_jacobians
from pipeline.core.models import Interface, ModelSpec, Replicas, RunOptions, SequenceModel, StateKey
from pipeline.core.models.initialisation import PLAIN, Initialisation, MatrixRule

F64 = torch.float64
REAL = Interface(input_kind="real", input_size=1, target_at="last", target_kind="value", output_size=1)
EVERY = replace(REAL, target_at="every")


def replicas_of(
    cell: str,
    hidden_size: int,
    initialisations: Sequence[Initialisation] = (PLAIN,),
    *,
    interface: Interface = REAL,
    num_layers: int = 1,
) -> Replicas:
    """Return networks of this cell side by side, one per initialisation; the r-th has seed r."""
    plain = ModelSpec.plain(cell=cell, hidden_size=hidden_size, num_layers=num_layers)
    specs = [replace(plain, initialisation=initialisation) for initialisation in initialisations]
    return Replicas([SequenceModel(interface, spec, seed) for seed, spec in enumerate(specs)])


def parameters(replicas: Replicas, *, W_hh: Tensor, W_ih: Tensor, readout: Tensor) -> Tensor:
    """Return the parameters of one-layer networks with these weights and no biases, (R, P), in float64.

    Args:
        replicas: The networks; their own parameters stay as they are.
        W_hh: Recurrent weights, (R, H, H) or what broadcasts to that; so are the others.
        W_ih: Input weights, (R, H, D).
        readout: (R, 1, H).
    """
    flat_RP = torch.zeros_like(replicas.flat_RP, dtype=F64)
    named = replicas.named(flat_RP)
    named["recurrent.weight_hh_l0"].copy_(W_hh)
    named["recurrent.weight_ih_l0"].copy_(W_ih)
    named["readout.weight"].copy_(readout)
    return flat_RP


def first_unit(hidden_size: int) -> Tensor:
    """Return the readout that answers with h's first unit, (1, H)."""
    return torch.eye(1, hidden_size, dtype=F64)


def draw(*shape: int, seed: int = 0) -> Tensor:
    """Return standard normal numbers in float64."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def matrix(rule: MatrixRule, size: int, seed: int | torch.Generator) -> Tensor:
    """Return a square matrix that the rule drew, in float64."""
    W = torch.empty(size, size, dtype=F64)
    rule.fill(W, torch.Generator().manual_seed(seed) if isinstance(seed, int) else seed)
    return W


def log10_norms(replicas: Replicas, flat_RP: Tensor, inputs: Tensor, targets: Tensor, quantity: str = "h") -> Tensor:
    """Return log10 ‖∂L/∂h_t‖ of the first layer (or of its c_t), (R, T)."""
    return trace_gradients(replicas, flat_RP, inputs, targets).log10_norms[StateKey(0, FORWARD, quantity)]


def answer_gradient(replicas: Replicas, flat_RP: Tensor, inputs: Tensor, initial: Sequence[Tensor] = ()) -> Tensor:
    """Return the gradient of the last answer itself, (R, P).

    The squared error has the slope 1 in an answer that is ½ above its target. The inputs are one sequence for each
    replica, (R, 1, T, D), the initial states (1, 1, H) each, none for zeros.
    """
    named = replicas.named(flat_RP)
    (h_R1H,) = replicas.advance(named, inputs, initial)
    answer_R11 = h_R1H @ named["readout.weight"].mT + named["readout.bias"][:, None]
    return replicas.backpropagate(flat_RP, inputs, answer_R11 - 0.5, RunOptions(initial=initial)).grad_RP


def jacobians_of(replicas: Replicas, flat_RP: Tensor, inputs: Tensor) -> Tensor:
    """Return ∂h_t/∂h_{t-1} along the orbit of the first layer, (R, T, B, H, H), for inputs (B, T, D)."""
    recurrent = replicas.model.stacks["recurrent"]
    _, seen, states = replicas.unroll(replicas.named(flat_RP), inputs)
    return step_jacobians(recurrent.cell, replicas.weights(flat_RP, recurrent.places[0]), seen[0], states)
