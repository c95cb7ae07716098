"""The operator norm against the whole Jacobian in every parameter, for every cell."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pipeline.core.cells import CELLS, States, Weights
from pipeline.core.cells.stack import Place
from pipeline.core.measures.truncation_bias import step_sensitivity
from tests.core.cells.reference import FIRST_OF_EACH_FORM
from tests.core.measures.packs import TOKENS, batch, pack


def whole_jacobian(cell: str, x_t: Tensor, before: States, weights: Weights, with_input: bool) -> Tensor:
    def run(x_t: Tensor, *weights: Tensor) -> Tensor:
        after = CELLS[cell].step(x_t, before, Weights(*weights))
        return torch.cat([tensor for tensor in after if tensor is not None])

    x_part, *parts = torch.autograd.functional.jacobian(run, (x_t, *weights))
    return torch.cat([part.flatten(1) for part in parts] + ([x_part] if with_input else []), dim=1)


@pytest.mark.parametrize("embedded", [False, True])
@pytest.mark.parametrize("cell", FIRST_OF_EACH_FORM)
def test_sensitivity_is_the_largest_operator_norm(cell: str, embedded: bool) -> None:
    replicas, (inputs, _) = pack(cell, 2), batch(4, num_examples=3)
    inputs = inputs.double() * 2
    if embedded:
        replicas = pack(cell, 2, interface=TOKENS, embedding_size=3)
        inputs = torch.randint(0, 5, (3, 4), generator=torch.Generator().manual_seed(0))
    flat_RP = replicas.flat_RP.double() * 3
    _, seen, states = replicas.unroll(replicas.named(flat_RP), inputs)
    found = step_sensitivity(replicas, flat_RP, seen, states)
    weights, form = replicas.weights(flat_RP, Place(0, "forward")), CELLS[cell]
    if form.pointwise is None or form.prepare or form.per_unit or form.shared_map:
        assert found.isnan().all()  # a cell of another form has none
        return
    for r in range(2):
        mine = Weights(*(weight[r] for weight in weights))
        norms = []
        for b in range(3):
            for t in range(4):
                before = States(*(s[r, t - 1, b] if t else torch.zeros_like(s[r, 0, b]) for s in states))
                jacobian = whole_jacobian(cell, seen[0][r, t, b], before, mine, embedded)
                norms.append(torch.linalg.matrix_norm(jacobian, ord=2).item())
        if embedded:
            assert max(norms) <= found[r].item() <= 1.3 * max(norms)
        else:
            assert found[r].item() == pytest.approx(max(norms), rel=1e-10)


def test_several_recurrences_have_none() -> None:
    replicas, (inputs, _) = pack("lstm", num_layers=2), batch(4)
    _, seen, states = replicas.unroll(replicas.named(replicas.flat_RP), inputs)
    assert step_sensitivity(replicas, replicas.flat_RP, seen, states).isnan().tolist() == [True] * 3
