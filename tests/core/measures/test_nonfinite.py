"""Overflows whose place is known."""

from __future__ import annotations

import math

import pytest
import torch

from pipeline.core.measures.gradients import locate
from pipeline.core.models import Replicas
from tests.core.measures.packs import batch, pack


def own(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.expand(3, *tensor.shape)


def test_overflow_is_located_at_the_timestep_where_the_backward_pass_meets_it() -> None:
    replicas, (inputs, targets) = pack("elman_linear", hidden_size=1), batch(30)
    with torch.no_grad():
        replicas.named(replicas.flat_RP)["recurrent.weight_hh_l0"][1] = 1e4
    place = locate(replicas, replicas.flat_RP, own(inputs), own(targets), replica=1)
    assert place.quantity == "grad_h"
    assert place.timestep == 30  # the state itself has overflowed by then
    assert place.num_nonfinite == replicas.flat_RP.shape[1]  # every parameter meets the loss
    healthy = locate(replicas, replicas.flat_RP, own(inputs), own(targets), replica=0)
    assert healthy == (None, "loss", 0)


def test_a_bad_parameter_gradient_is_named() -> None:
    replicas, (inputs, targets) = pack("elman"), batch(5)
    replicas.named(replicas.flat_RP)["recurrent.weight_hh_l0"].fill_(0.0)
    inputs[0, 0, 0] = math.inf  # tanh saturates: every state is finite, dL/dW_ih is inf times 0
    place = locate(replicas, replicas.flat_RP, own(inputs), own(targets), replica=0)
    assert place.timestep is None
    assert place.quantity == "recurrent.weight_ih_l0"


def exploding_gradient(suffix: str) -> Replicas:
    """Two layers both ways whose states stay 0 while dL/dh of one place grows 1e4-fold a timestep."""
    replicas = pack("elman_linear", hidden_size=1, num_layers=2, bidirectional=True)
    for name, view in replicas.named(replicas.flat_RP).items():
        view.fill_(0.0 if "bias" in name and "readout" not in name else 1.0 if "_ih" in name else 0.5)
    replicas.named(replicas.flat_RP)[f"recurrent.weight_hh{suffix}"].fill_(1e4)
    return replicas


@pytest.mark.parametrize(
    ("suffix", "quantity", "timestep"),
    [
        ("_l0", "grad_h (layer 0, forward)", 20),
        ("_l1", "grad_h (layer 1, forward)", 20),
        ("_l1_reverse", "grad_h (layer 1, backward)", 11),
    ],
)
def test_layer_and_direction_are_told_where_there_are_several(suffix: str, quantity: str, timestep: int) -> None:
    replicas = exploding_gradient(suffix)
    inputs, targets = torch.zeros(5, 30, 2), torch.ones(5, 1)
    place = locate(replicas, replicas.flat_RP, own(inputs), own(targets), replica=2)
    assert (place.quantity, place.timestep) == (quantity, timestep)
