"""Networks whose weights are written by hand, in float64, for the measures and the backward pass that ship.

Shapes: R replicas, T timesteps, B batch, D input, H hidden, P parameters.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from pipeline.core.cells.stack import FORWARD
from pipeline.core.measures import step_jacobians
from pipeline.core.models import Interface, ModelSpec, Replicas, RunOptions, SequenceModel, StateKey
from pipeline.core.models.initialisation import PLAIN, Initialisation

F64 = torch.float64
FIRST = StateKey(0, FORWARD, "h")
SEED = 0


def replicas_of(
    cell: str,
    hidden_size: int,
    *,
    num_replicas: int = 1,
    input_size: int = 1,
    num_layers: int = 1,
    target_at: Literal["last", "every"] = "last",
    initialisation: Initialisation = PLAIN,
) -> Replicas:
    """Return a pack that reads real inputs and answers with one real number; replica r has seed r."""
    interface = Interface(
        input_kind="real", input_size=input_size, target_at=target_at, target_kind="value", output_size=1
    )
    spec = ModelSpec(cell=cell, hidden_size=hidden_size, num_layers=num_layers, initialisation=initialisation)
    return Replicas([SequenceModel(interface, spec, seed) for seed in range(num_replicas)])


def parameters(replicas: Replicas, *, W_hh: Tensor, W_ih: Tensor, readout: Tensor) -> Tensor:
    """Return the parameters of one-layer networks with these weights and no biases, (R, P), in float64.

    Args:
        replicas: The pack; its own parameters stay as they are.
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


def draw(*shape: int, seed: int = SEED) -> Tensor:
    """Return standard normal numbers in float64."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def answer_gradient(replicas: Replicas, flat_RP: Tensor, inputs: Tensor, initial: Sequence[Tensor] = ()) -> Tensor:
    """Return the gradient of the last answer itself, (R, P), of networks that answer with `first_unit`.

    The squared error has the slope 1 in an answer that is ½ above its target.

    Args:
        replicas: The pack, with the target at the last timestep.
        flat_RP: Parameters.
        inputs: One sequence for each replica, (R, 1, T, D).
        initial: States before the first timestep, (1, 1, H) each; none for zeros.
    """
    (h_R1H,) = replicas.advance(replicas.named(flat_RP), inputs, initial)
    return replicas.backpropagate(flat_RP, inputs, h_R1H[:, :, :1] - 0.5, RunOptions(initial=initial)).grad_RP


def jacobians_of(replicas: Replicas, flat_RP: Tensor, inputs: Tensor) -> Tensor:
    """Return ∂h_t/∂h_{t-1} along the orbit of the first layer, (R, T, B, S, S).

    Args:
        replicas: The pack.
        flat_RP: Parameters.
        inputs: (B, T, D), the same for all replicas.
    """
    recurrent = replicas.model.stacks["recurrent"]
    seen, states = replicas.unroll(replicas.named(flat_RP), inputs)
    return step_jacobians(recurrent.cell, replicas.weights(flat_RP, recurrent.places[0]), seen[0], states)
