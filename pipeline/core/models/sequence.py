"""Recurrent layers between an input encoding and a linear readout, at the last or at every timestep."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pipeline.core.cells.stack import RecurrentStack, stack_states, unstack_states
from pipeline.core.models.architecture import ModelSpec
from pipeline.core.models.initialisation import initialise_readout, initialise_stack
from pipeline.core.models.interface import Interface, Prediction
from pipeline.core.models.network import Network
from pipeline.core.models.randomness import generator
from pipeline.data.dataset import PAD


class SequenceModel(Network):
    """Encode, recur, read out: one network, with no replica axis in sight.

    Args:
        interface: Kinds and sizes of inputs and targets.
        spec: What lies between them.
        seed: Where the initial weights come from; each part draws from a stream of its own.
    """

    def __init__(self, interface: Interface, spec: ModelSpec, seed: int) -> None:
        super().__init__()
        self.interface = interface
        self.embedding = embedding_of(interface.input_size, spec.embedding_size, generator(seed, "embedding"))
        self.input_size = spec.embedding_size or interface.input_size
        start = generator(seed, "recurrent")
        self.recurrent = RecurrentStack(
            spec.cell, self.input_size, spec.hidden_size, start, spec.num_layers, spec.bidirectional
        )
        self.readout = linear(self.recurrent.output_size, interface.output_size, generator(seed, "readout"))
        initialise_stack(self.recurrent, spec.cell, spec.initialisation, seed)
        initialise_readout(self.readout, spec.initialisation, seed)

    @property
    def stacks(self) -> dict[str, RecurrentStack]:
        """The recurrent parts by name."""
        return {"recurrent": self.recurrent}

    def tap_shapes(self, inputs: Tensor) -> list[tuple[int, int]]:
        """Return timesteps and features of each tap for inputs (…, T, D) or (…, T)."""
        num_timesteps = inputs.shape[-1 if self.interface.input_kind == "token" else -2]
        return [
            *[(num_timesteps, self.recurrent.hidden_size) for _ in self.state_keys],
            (num_timesteps, self.input_size),
        ]

    def forward(
        self,
        inputs: Tensor,
        initial: Sequence[Tensor] = (),
        taps: Sequence[Tensor] = (),
        num_scored: int | None = None,
        state_threshold: float | None = None,
    ) -> Prediction:
        """Return predictions and what the recurrent layers went through.

        Where the target stands at the last timestep, a bidirectional network reads out what each direction ends with.

        Args:
            inputs: (B, T, D) real vectors or (B, T) symbol ids.
            initial: States before the first timestep, (B, H) each, in the order of `state_keys`; none for zeros.
            taps: Added to the states and to what is read, (T, B, features) each, in the order of `tap_keys`; or none.
            num_scored: Of targets at every timestep, how many at the end are asked for; None is all.
            state_threshold: See `RecurrentStack`.
        """
        cell, lengths_B = self.recurrent.cell, self.lengths(inputs)
        x_TBD = self.encode(inputs).transpose(0, 1)
        start = unstack_states(initial, cell) if initial else None
        tapped = None
        if taps:
            *state_taps, input_tap = taps
            tapped, x_TBD = unstack_states(state_taps, cell), x_TBD + input_tap
        run = self.recurrent(x_TBD, start, tapped, state_threshold, lengths_B)
        states = stack_states(run.states)
        if self.interface.target_at == "last":
            ends = [state.h for state in run.final[-self.recurrent.num_directions :]]
            return Prediction(self.readout(torch.cat(ends, dim=1)), states, None, run)
        scored = run.outputs if num_scored is None else run.outputs[-num_scored:]
        values = self.readout(scored.contiguous())  # a product with a transposed view is another one in a pack
        return Prediction(values.transpose(0, 1), states, None, run)

    def encode(self, inputs: Tensor) -> Tensor:
        """Return what the recurrence sees, (B, T, D)."""
        if self.interface.input_kind == "real":
            return inputs
        return embedded(inputs, self.embedding, self.interface.input_size, self.readout.weight.dtype)

    def lengths(self, inputs: Tensor) -> Tensor | None:
        """Return the number of timesteps of every sequence, (B,); None where all are equally long."""
        return lengths_of(inputs) if self.interface.padded else None


def lengths_of(tokens: Tensor) -> Tensor:
    """Return how many tokens before the padding each row (…, T) has, at least 1."""
    return (tokens != PAD).sum(dim=-1).clamp_min(1)


def embedding_of(num_tokens: int, size: int | None, start: torch.Generator) -> nn.Embedding | None:
    """Return an embedding drawn from N(0, 1), torch's rule; None for one-hot inputs."""
    if size is None:
        return None
    weight = torch.empty(num_tokens, size).normal_(generator=start)
    return nn.Embedding.from_pretrained(weight, freeze=False)


def embedded(tokens: Tensor, embedding: nn.Embedding | None, num_tokens: int, dtype: torch.dtype) -> Tensor:
    """Return what stands for symbol ids (…), (…, D): their embedding, or one-hot vectors where there is none."""
    if embedding is not None:
        return embedding(tokens.long())
    return (tokens[..., None] == torch.arange(num_tokens, device=tokens.device)).to(dtype)


def linear(num_inputs: int, num_outputs: int, start: torch.Generator) -> nn.Linear:
    """Return a linear layer drawn from U(-1/√n, 1/√n), torch's rule, with the generator given."""
    layer = nn.utils.skip_init(nn.Linear, num_inputs, num_outputs)
    bound = num_inputs**-0.5
    for parameter in layer.parameters():
        nn.init.uniform_(parameter, -bound, bound, generator=start)
    return layer
