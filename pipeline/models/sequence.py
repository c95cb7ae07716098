"""A recurrent layer between an input encoding and a linear readout, at the last or at every timestep."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.cells import CELLS
from pipeline.cells.layer import RecurrentLayer, States
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


class SequenceModel(nn.Module):
    """Encode, recur, read out: one network, with no replica axis in sight.

    Args:
        interface: Kinds and sizes of inputs and targets.
        cell: A key of `CELLS`.
        hidden_size: H.
        embedding_size: For symbols: width of a learned embedding, or None for one-hot vectors.
        seed: Where the initial weights come from; each part draws from a stream of its own.
    """

    def __init__(
        self, interface: Interface, cell: str, hidden_size: int, embedding_size: int | None, seed: int
    ) -> None:
        super().__init__()
        self.interface = interface
        self.embedding = None
        if embedding_size is not None:
            weight = torch.empty(interface.input_size, embedding_size).normal_(generator=generator(seed, "embedding"))
            self.embedding = nn.Embedding.from_pretrained(weight, freeze=False)
        width = interface.input_size if embedding_size is None else embedding_size
        self.recurrent = RecurrentLayer(cell, width, hidden_size, generator(seed, "recurrent"))
        self.readout = _linear(hidden_size, interface.output_size, generator(seed, "readout"))

    def forward(self, inputs: Tensor, taps: States | None = None) -> Tensor:
        """Return predictions, (B, O) at the last timestep or (B, T, O) at every one.

        Args:
            inputs: (B, T, D) real vectors or (B, T) symbol ids.
            taps: Added to the states; see `RecurrentLayer`.
        """
        states, final = self.recurrent(self.encode(inputs).transpose(0, 1), taps=taps)
        if self.interface.target_at == "last":
            return self.readout(final.h)
        return self.readout(states.h).transpose(0, 1)

    def encode(self, inputs: Tensor) -> Tensor:
        """Return what the recurrence sees, (B, T, D)."""
        if self.interface.input_kind == "real":
            return inputs
        if self.embedding is not None:
            return self.embedding(inputs.long())
        one_hot = inputs[..., None] == torch.arange(self.interface.input_size, device=inputs.device)
        return one_hot.to(self.readout.weight.dtype)

    def zero_taps(self, num_replicas: int, num_timesteps: int, num_examples: int, like: Tensor) -> States:
        """Return zeros for every state of R replicas, (R, T, B, H) each, to be differentiated by.

        They are one zero, expanded: reading it costs no memory traffic.

        Args:
            num_replicas: R.
            num_timesteps: T.
            num_examples: B.
            like: Gives type and device.
        """
        shape = (num_replicas, num_timesteps, num_examples, self.recurrent.hidden_size)
        return States(*(like.new_zeros(()).expand(shape).requires_grad_() for _ in self.state_names))

    @property
    def state_names(self) -> tuple[str, ...]:
        """("h",), or ("h", "c")."""
        return self.recurrent.cell.states


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


def count_parameters(interface: Interface, cell: str, hidden_size: int, embedding_size: int | None) -> int:
    """Return the number of trained numbers of such a model, without making it."""
    width = interface.input_size if embedding_size is None else embedding_size
    num_rows = len(CELLS[cell].gates) * hidden_size
    recurrent = num_rows * (width + hidden_size + 2)
    embedding = 0 if embedding_size is None else interface.input_size * embedding_size
    return embedding + recurrent + interface.output_size * (hidden_size + 1)
