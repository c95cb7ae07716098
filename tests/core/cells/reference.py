"""What a researcher writes today: a loop over the textbook's step with every state's gradient retained."""

import torch
from torch import Tensor

from pipeline.core.cells import CELLS, States
from pipeline.core.cells.stack import RecurrentStack


def unrolled(name: str, layer: RecurrentStack, x_TBD: Tensor, initial: States) -> list[list[States]]:
    """Return the states of every timestep of every example, each a leaf of `retain_grad`."""
    weights = layer.weights(layer.places[0])
    examples = []
    for b in range(x_TBD.shape[1]):
        state = States(*(None if part is None else part[b] for part in initial))
        states = []
        for x_t in x_TBD[:, b]:
            state = CELLS[name].step(x_t, state, weights)
            for part in state:
                if part is not None:
                    part.retain_grad()
            states.append(state)
        examples.append(states)
    return examples


def stacked(examples: list[list[States]], which: str, gradient: bool) -> Tensor:
    """Return the values, or the gradients, of one kind of state as (T, B, H)."""
    chosen = [[getattr(state, which) for state in states] for states in examples]
    return torch.stack([torch.stack([s.grad if gradient else s for s in states]) for states in chosen], dim=1)
