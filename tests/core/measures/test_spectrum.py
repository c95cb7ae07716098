"""Singular values and eigenvalues of matrices that are known, and which blocks of a stack they are of."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pipeline.core.cells.stack import Place
from pipeline.core.measures.spectrum import eigenvalues, recurrent_blocks, sigma_max, spectral_radius
from tests.core.measures.packs import pack


def test_spectrum_of_known_matrices() -> None:
    rotation = torch.tensor([[0.0, -2.0], [2.0, 0.0]])
    shear = torch.tensor([[0.5, 3.0], [0.0, -0.25]])
    block = torch.stack([rotation, shear]).double()
    assert spectral_radius(block).tolist() == pytest.approx([2.0, 0.5])
    assert sigma_max(block).tolist() == pytest.approx([2.0, np.linalg.norm(shear, 2)])
    values = eigenvalues(block)
    assert values[0].tolist() == pytest.approx([-2j, 2j])
    assert values[1].tolist() == pytest.approx([0.5, -0.25])


@pytest.mark.parametrize(("cell", "gates"), [("elman", "h"), ("lstm", "ifgo"), ("gru", "rzn")])
def test_blocks_are_the_gates_of_weight_hh_in_order(cell: str, gates: str) -> None:
    replicas = pack(cell)
    blocks = recurrent_blocks(replicas, replicas.flat_RP)
    assert list(blocks) == [("recurrent", Place(0, "forward"), gate) for gate in gates]
    weight = replicas.named(replicas.flat_RP)["recurrent.weight_hh_l0"]
    torch.testing.assert_close(torch.cat(list(blocks.values()), dim=1), weight.double(), rtol=0, atol=0)


def test_every_place_of_a_stack_has_its_blocks() -> None:
    replicas = pack("gru", num_layers=2, bidirectional=True)
    blocks = recurrent_blocks(replicas, replicas.flat_RP)
    places = [(layer, direction) for layer in (0, 1) for direction in ("forward", "backward")]
    assert [(*place, gate) for _, place, gate in blocks] == [(*place, gate) for place in places for gate in "rzn"]
    weight = replicas.named(replicas.flat_RP)["recurrent.weight_hh_l1_reverse"].double()
    torch.testing.assert_close(blocks["recurrent", Place(1, "backward"), "z"], weight[:, 4:8], rtol=0, atol=0)
