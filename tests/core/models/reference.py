"""What a researcher writes today: one sequence alone, torch's own cells in loops over time, neither batch nor padding.

The weights are those of the network under test, so that every gradient can be compared.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from pipeline.core.cells.stack import BACKWARD, Place, RecurrentStack
from pipeline.core.models import INPUT, StateKey
from pipeline.core.models.encoder_decoder import Decoder, EncoderDecoder
from tests.core.attention.reference import look
from tests.core.cells.reference import cell_in_torch

State = tuple[Tensor, ...]
"""The states that the cell declares, (1, H) each: torch's cells make h of this very c, so that dL/dc is whole."""

Notes = dict[StateKey, list[Tensor]]
"""What every state was, timestep by timestep."""


class Written(NamedTuple):
    """Logits (U, O), weights (U, S) or None, and the tokens that were read and said, as a decoder wrote them."""

    logits: Tensor
    weights: Tensor | None
    read: list[int]
    said: list[int]


def step_of(stack: RecurrentStack, cell: str, place: Place) -> Callable[[Tensor, State | None], State]:
    weights = stack.weights(place)
    module = cell_in_torch(cell, weights.weight_ih.shape[1], stack.hidden_size)

    def step(x: Tensor, before: State | None) -> State:
        given = before[0] if before is not None and len(before) == 1 else before
        after = functional_call(module, weights._asdict(), (x[None], given))
        return after if isinstance(after, tuple) else (after,)

    return step


def read(
    stack: RecurrentStack, cell: str, xs: Sequence[Tensor], part: str, notes: Notes
) -> tuple[list[Tensor], list[State]]:
    """Return the last layer's outputs, and where each layer ended; both directions beside each other."""
    ends = []
    for layer in range(1 + max(place.layer for place in stack.places)):
        outputs, last = [], []
        for place in (place for place in stack.places if place.layer == layer):
            turn = -1 if place.direction == BACKWARD else 1
            step, state, states = step_of(stack, cell, place), None, []
            for x in xs[::turn]:
                state = step(x, state)
                states.append(state)
            for name, values in zip(stack.cell.states, zip(*states[::turn], strict=True), strict=True):
                notes[StateKey(layer, place.direction, name, part)] = list(values)
            outputs.append([state[0][0] for state in states[::turn]])
            last.append(states[-1])
        xs = [torch.cat(parts) for parts in zip(*outputs, strict=True)]
        ends.append(tuple(torch.cat(parts, dim=1) for parts in zip(*last, strict=True)))
    return list(xs), ends


def write(
    decoder: Decoder,
    cell: str,
    true: Sequence[int],
    states: list[State],
    keys: list[Tensor],
    notes: Notes,
    coins: Sequence[bool] | None = None,
) -> Written:
    """Return what a decoder writes; where a coin is false, it reads what it said last."""
    steps = [step_of(decoder.stack, cell, place) for place in decoder.stack.places]
    logits, weights = list[Tensor](), list[Tensor]()
    given, said, output = list[int](), list[int](), torch.zeros_like(states[-1][0][0])
    for u, token in enumerate(true):
        given.append(token if u == 0 or coins is None or coins[u] else said[-1])
        x = vector_of(given[-1], decoder.embedding, decoder.num_tokens)
        states, output, looked = step_and_look(decoder, steps, x, states, output, keys)
        weights += [] if looked is None else [looked]
        for layer, state in enumerate(states):
            for name, value in zip(decoder.stack.cell.states, state, strict=True):
                notes.setdefault(StateKey(layer, "forward", name, "decoder"), []).append(value)
        logits.append(decoder.readout.weight @ output + decoder.readout.bias)
        said.append(int(logits[-1].argmax()))
    return Written(torch.stack(logits), torch.stack(weights) if weights else None, given, said)


def step_and_look(
    model: Any,
    steps: Sequence[Callable[[Tensor, State | None], State]],
    x: Tensor,
    states: list[State],
    output: Tensor,
    keys: list[Tensor],
) -> tuple[list[State], Tensor, Tensor | None]:
    """Return the states, h̃ and the weights after one position of what attends, if it does, as it feeds its looks.

    Args:
        model: Has `attention`, `combine` and `feeds`.
        steps: Of its layers.
        x: What is read.
        states: Before it.
        output: h̃ before it.
        keys: What is looked at.
    """
    looked = None
    if model.feeds == "context":
        context, looked = look(model.attention, states[-1][0][0], keys)
        x = torch.cat([x, context])
    elif model.feeds == "attentional_state":
        x = torch.cat([x, output])
    for layer, step in enumerate(steps):
        states = [*states[:layer], step(x, states[layer]), *states[layer + 1 :]]
        x = states[layer][0][0]
    if model.attention is not None:
        if model.feeds != "context":
            context, looked = look(model.attention, x, keys)
        x = torch.tanh(model.combine.weight @ torch.cat([context, x]) + model.combine.bias)
    return states, x, looked


def transduce(
    model: EncoderDecoder,
    cell: str,
    source: Sequence[int],
    true: Sequence[int],
    notes: Notes,
    coins: Sequence[bool] | None = None,
) -> Written:
    """Return what an encoder-decoder writes of a source without padding."""
    notes[INPUT] = [vector_of(token, model.embedding, model.interface.input_size) for token in source]
    keys, ends = read(model.encoder, cell, notes[INPUT], "encoder", notes)
    return write(model.decoder, cell, true, ends, keys, notes, coins)


def vector_of(token: int, embedding: nn.Embedding | None, num_tokens: int) -> Tensor:
    """Return the embedding, or a one-hot vector of which gradients can be asked."""
    if embedding is not None:
        return embedding.weight[token]
    return F.one_hot(torch.tensor(token), num_tokens).double().requires_grad_()


def negative_log_likelihood(logits: Tensor, targets: Sequence[int]) -> Tensor:
    """Return -Σ ln P of the targets, in nats."""
    return sum(torch.logsumexp(row, dim=0) - row[target] for row, target in zip(logits, targets, strict=True))
