"""What a researcher writes today: a loop over the textbook's step with every state's gradient retained.

Also torch.nn's own version of a cell, where the cell declares one: nothing here asks for a cell by its name.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pipeline.core.cells import CELLS, States
from pipeline.core.cells.stack import RecurrentStack

IN_TORCH = [name for name, cell in CELLS.items() if cell.torch_class is not None]
"""The cells that torch.nn has as well."""


def _first_of_each_form() -> list[Any]:
    seen, cases = set(), list[Any]()
    for name, cell in CELLS.items():
        form = (cell.whole_step is not None, len(cell.states) > 1, cell.num_feeding, cell.num_outputs, cell.shared_map)
        cases.append(pytest.param(name, marks=[pytest.mark.slow] * (form in seen)))
        seen.add(form)
    return cases


FIRST_OF_EACH_FORM = _first_of_each_form()
"""Every cell; of those that take the same way through the loops all but the first are slow."""


def in_torch(name: str, *sizes: int, **options: bool) -> nn.RNNBase:
    """Return torch's layers of this cell, in float64."""
    make = CELLS[name].torch_class
    assert make is not None
    return make(*sizes, **options).double()


def cell_in_torch(name: str, input_size: int, hidden_size: int) -> nn.RNNCellBase:
    """Return torch's single step of this cell, in float64."""
    layer = in_torch(name, input_size, hidden_size)
    kind = {nn.RNN: nn.RNNCell, nn.LSTM: nn.LSTMCell, nn.GRU: nn.GRUCell}[type(layer)]
    options = {"nonlinearity": layer.nonlinearity} if isinstance(layer, nn.RNN) else {}
    return kind(input_size, hidden_size, dtype=torch.float64, **options)


def zero_states(name: str, *shape: int) -> States:
    """Return the states of this cell, all of them zero, in float64."""
    return States(*(torch.zeros(shape, dtype=torch.float64) for _ in CELLS[name].states))


def unrolled(name: str, layer: RecurrentStack, x_TBD: Tensor, initial: States) -> list[list[States]]:
    """Return the states of every timestep of every example, each a leaf of `retain_grad`."""
    weights = layer.weights(layer.places[0])
    examples = []
    for b in range(x_TBD.shape[1]):
        state = initial.map(lambda part, b=b: part[b])  # type: ignore[misc]
        states = []
        for x_t in x_TBD[:, b]:
            state = CELLS[name].step(x_t, state, weights)
            for part in state.tensors():
                part.retain_grad()
            states.append(state)
        examples.append(states)
    return examples


def stacked(examples: list[list[States]], which: str, gradient: bool) -> Tensor:
    """Return the values, or the gradients, of one kind of state as (T, B, H); 0 where nothing depends on it."""
    chosen = [[getattr(state, which) for state in states] for states in examples]
    if gradient:
        chosen = [[torch.zeros_like(s) if s.grad is None else s.grad for s in states] for states in chosen]
    return torch.stack([torch.stack(states) for states in chosen], dim=1)
