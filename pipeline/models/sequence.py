"""Recurrent layers between an input encoding and a linear readout, at the last or at every timestep."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.cells import CELLS, States
from pipeline.cells.stack import RecurrentStack, StackRun
from pipeline.models.architecture import ModelSpec
from pipeline.models.initialisation import initialise_readout, initialise_stack
from pipeline.models.randomness import generator


@dataclass(frozen=True)
class Interface:
    """What a model meets at its two ends, as the dataset has it.

    Attributes:
        input_kind: Real vectors, or symbol ids.
        input_size: D, or the size of the vocabulary.
        target_at: Whether the loss stands at the last timestep (many-to-one) or at every one (many-to-many).
        target_kind: A real target under squared error, or a class under cross-entropy.
        output_size: Numbers per prediction.
    """

    input_kind: Literal["real", "token"]
    input_size: int
    target_at: Literal["last", "every"]
    target_kind: Literal["value", "class"]
    output_size: int


class StateKey(NamedTuple):
    """Which state of a network: layer (from 0), "forward" or "backward", and "h" or "c"."""

    layer: int
    direction: str
    quantity: str


class Prediction(NamedTuple):
    """What a network says of a sequence.

    Attributes:
        values: (B, O) of the last timestep, or (B, T, O) of every one; of the newest ones only, where asked.
        run: What its recurrent layers went through.
    """

    values: Tensor
    run: StackRun


class SequenceModel(nn.Module):
    """Encode, recur, read out: one network, with no replica axis in sight.

    Args:
        interface: Kinds and sizes of inputs and targets.
        spec: What lies between them.
        seed: Where the initial weights come from; each part draws from a stream of its own.
    """

    def __init__(self, interface: Interface, spec: ModelSpec, seed: int) -> None:
        super().__init__()
        self.interface = interface
        self.embedding = None
        width = interface.input_size
        if spec.embedding_size is not None:
            width = spec.embedding_size
            weight = torch.empty(interface.input_size, width).normal_(generator=generator(seed, "embedding"))
            self.embedding = nn.Embedding.from_pretrained(weight, freeze=False)
        start = generator(seed, "recurrent")
        self.recurrent = RecurrentStack(spec.cell, width, spec.hidden_size, start, spec.num_layers, spec.bidirectional)
        self.readout = _linear(self.recurrent.output_size, interface.output_size, generator(seed, "readout"))
        initialise_stack(self.recurrent, spec.cell, spec.initialisation, seed)
        initialise_readout(self.readout, spec.initialisation, seed)

    def forward(
        self,
        inputs: Tensor,
        initial: Sequence[States] | None = None,
        taps: Sequence[States] | None = None,
        num_scored: int | None = None,
        state_threshold: float | None = None,
    ) -> Prediction:
        """Return predictions and what the recurrent layers went through.

        Where the target stands at the last timestep, a bidirectional network reads out what each direction ends with.

        Args:
            inputs: (B, T, D) real vectors or (B, T) symbol ids.
            initial: States before the first timestep; see `RecurrentStack`.
            taps: Added to the states.
            num_scored: Of targets at every timestep, how many at the end are asked for; None is all.
            state_threshold: See `RecurrentStack`.
        """
        run = self.recurrent(self.encode(inputs).transpose(0, 1), initial, taps, state_threshold)
        if self.interface.target_at == "last":
            ends = [state.h for state in run.final[-self.recurrent.num_directions :]]
            return Prediction(self.readout(torch.cat(ends, dim=1)), run)
        scored = run.outputs if num_scored is None else run.outputs[-num_scored:]
        return Prediction(self.readout(scored).transpose(0, 1), run)

    def encode(self, inputs: Tensor) -> Tensor:
        """Return what the recurrence sees, (B, T, D)."""
        if self.interface.input_kind == "real":
            return inputs
        if self.embedding is not None:
            return self.embedding(inputs.long())
        one_hot = inputs[..., None] == torch.arange(self.interface.input_size, device=inputs.device)
        return one_hot.to(self.readout.weight.dtype)

    def zero_taps(self, num_replicas: int, num_timesteps: int, num_examples: int, like: Tensor) -> list[Tensor]:
        """Return zeros for every state of R replicas, (R, T, B, H) each, to be differentiated by.

        They are in the order of `state_keys`, and one zero, expanded: reading it costs no memory traffic.

        Args:
            num_replicas: R.
            num_timesteps: T.
            num_examples: B.
            like: Gives type and device.
        """
        shape = (num_replicas, num_timesteps, num_examples, self.recurrent.hidden_size)
        return [like.new_zeros(()).expand(shape).requires_grad_() for _ in self.state_keys]

    @property
    def state_keys(self) -> tuple[StateKey, ...]:
        """Every state of the recurrent layers, in order."""
        return tuple(StateKey(place.layer, place.direction, name) for place, name in self.recurrent.state_keys())


def loss(interface: Interface, predictions: Tensor, targets: Tensor) -> Tensor:
    """Return the mean squared error, or the mean cross-entropy in nats, over examples (and timesteps)."""
    if interface.target_kind == "value":
        return F.mse_loss(predictions, targets.to(predictions.dtype))
    return F.cross_entropy(predictions.flatten(0, -2), targets.flatten())


def num_wrong(predictions: Tensor, targets: Tensor) -> Tensor:
    """Return how many classes were predicted wrong, counted by timestep where every one has a target."""
    return (predictions.argmax(-1) != targets).sum()


def _linear(num_inputs: int, num_outputs: int, start: torch.Generator) -> nn.Linear:
    linear = nn.utils.skip_init(nn.Linear, num_inputs, num_outputs)
    bound = num_inputs**-0.5
    for parameter in linear.parameters():
        nn.init.uniform_(parameter, -bound, bound, generator=start)
    return linear


def count_parameters(interface: Interface, spec: ModelSpec) -> int:
    """Return the number of trained numbers of such a model, without making it."""
    width = interface.input_size if spec.embedding_size is None else spec.embedding_size
    hidden, num_directions = spec.hidden_size, 2 if spec.bidirectional else 1
    num_rows = len(CELLS[spec.cell].gates) * hidden
    widths = [width, *[num_directions * hidden] * (spec.num_layers - 1)]
    recurrent = sum(num_directions * num_rows * (width + hidden + 2) for width in widths)
    embedding = 0 if spec.embedding_size is None else interface.input_size * spec.embedding_size
    return embedding + recurrent + interface.output_size * (num_directions * hidden + 1)
