"""Recurrent layers, one above the other, each forward in time or both ways: one textbook single-network module."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

from pipeline.core.cells import CELLS
from pipeline.core.cells.cell import Cell, States, Weights
from pipeline.core.cells.products import across_replicas, in_full_precision
from pipeline.core.cells.recurrence import Call, Recurrence, is_transformed, refuse_clipping

FORWARD, BACKWARD = "forward", "backward"


class Place(NamedTuple):
    """Which recurrence of a stack: its layer and direction.

    Attributes:
        layer: Counted from 0, the one that sees the inputs.
        direction: "forward" or "backward" in time.
    """

    layer: int
    direction: str

    @property
    def suffix(self) -> str:
        """How torch.nn ends the names of its parameters: "_l0", "_l1_reverse"."""
        return f"_l{self.layer}{'_reverse' if self.direction == BACKWARD else ''}"


class Noise(NamedTuple):
    """What dropout does to one pass of a stack; empty where it does nothing.

    Attributes:
        inputs: What each layer's inputs are multiplied by, (T or 1, B, D); None leaves them.
        fed: Of each layer and direction, what the states are multiplied by in front of their matrices, (B, H · fed).
        kept: Of each layer and direction and each of its states, the share of the state before that stays in the new
            one: a number, or (T, B, H) in the recurrence's own order of time.
    """

    inputs: Sequence[Tensor | None] = ()
    fed: Sequence[Tensor] = ()
    kept: Sequence[Sequence[Tensor | float]] = ()


Fused: TypeAlias = list[tuple[Tensor, Tensor]]
"""The weights of one layer and direction as the fast loops want them, `Cell.fused`, once they have been made."""


class StackRun(NamedTuple):
    """What a stack leaves of a sequence; timestep t of every tensor is timestep t of the input, in both directions.

    Attributes:
        outputs: Of the last layer, (T, B, F); the directions beside each other.
        inputs: Of each layer and direction, (T, B, D).
        states: Of each layer and direction at every timestep, (T, B, H).
        final: Of each layer and direction after its last timestep, (B, H); backward in time that is the first.
    """

    outputs: Tensor
    inputs: tuple[Tensor, ...]
    states: tuple[States, ...]
    final: tuple[States, ...]


class RecurrentStack(nn.Module):
    """`num_layers` layers of a cell over a sequence.

    Parameters have the names, shapes and gate order of `nn.RNN`, `nn.GRU` and `nn.LSTM`, so that state dicts load
    either way. They are drawn from U(-1/√H, 1/√H), torch's rule, with the generator given.

    Args:
        cell: A key of `CELLS`.
        input_size: D.
        hidden_size: H.
        generator: Where the initial weights come from; never torch's global one.
        num_layers: L.
        bidirectional: Whether each layer runs both ways; it then gives the next one 2H numbers a timestep.
    """

    def __init__(
        self,
        cell: str,
        input_size: int,
        hidden_size: int,
        generator: torch.Generator,
        num_layers: int = 1,
        bidirectional: bool = False,
    ) -> None:
        super().__init__()
        self._cell = cell
        self.input_size, self.hidden_size, self.num_layers = input_size, hidden_size, num_layers
        self.places = places_of(num_layers, bidirectional)
        self.num_directions = 2 if bidirectional else 1
        self.output_size = hidden_size * self.cell.num_outputs * self.num_directions
        for place in self.places:
            num_inputs, bound = input_size if place.layer == 0 else self.output_size, hidden_size**-0.5
            for name, shape in self.cell.shapes(num_inputs, hidden_size).items():
                drawn = torch.empty(shape).uniform_(-bound, bound, generator=generator)
                if name == "weight_u" and self.cell.start is not None:
                    drawn = self.cell.start(hidden_size, generator)
                self.register_parameter(f"{name}{place.suffix}", nn.Parameter(drawn))

    @property
    def cell(self) -> Cell:
        """The cell, looked up by name: a network can be pickled, and functions cannot."""
        return CELLS[self._cell]

    def weights(self, place: Place) -> Weights:
        """Return the parameters of one layer and direction."""
        names = self.cell.shapes(1, 1)
        return self.cell.weights({name: getattr(self, f"{name}{place.suffix}") for name in names})

    def forward(
        self,
        x_TBD: Tensor,
        initial: Sequence[States] | None = None,
        taps: Sequence[States] | None = None,
        lengths_B: Tensor | None = None,
        state_threshold: float | None = None,
        noise: Noise | None = None,
        fused: dict[Place, Fused] | None = None,
    ) -> StackRun:
        """Return outputs and states of a sequence.

        Args:
            x_TBD: Inputs.
            initial: States before the first timestep of each layer and direction, (B, H) each; None for zeros.
            taps: Added to the states of each layer and direction, (T, B, H) each; the gradients of zeros are dL/dh_t
                and dL/dc_t.
            lengths_B: After how many timesteps each example ends; what follows is padding that nothing before it
                depends on. An empty one, of length 0, ends in its initial state. None where all have T.
            state_threshold: Clips every example's dL/dh_t to this norm as it flows back; None leaves it alone.
            noise: Of dropout; None is none.
            fused: Of each layer and direction, for the pieces of one pass, empty at the first; None for one piece.
        """
        inputs, states, final = list[Tensor](), list[States](), list[States]()
        dropped, fed, kept = noise or Noise()
        layer_input = x_TBD
        for index, place in enumerate(self.places):
            if index % self.num_directions == 0:
                layer_input = self._beside(states) if index else x_TBD
                if dropped and (factors := dropped[place.layer]) is not None:
                    layer_input = layer_input * factors

            def in_its_time(sequence: Tensor, direction: str = place.direction) -> Tensor:
                return turned_round(sequence, lengths_B) if direction == BACKWARD else sequence

            zeros = States(*(x_TBD.new_zeros(x_TBD.shape[1], self.hidden_size) for _ in self.cell.states))
            start = zeros if initial is None else initial[index]
            tap = None if taps is None else taps[index].map(in_its_time)
            mixing = (fed[index] if fed else None, kept[index] if kept else ())
            given = (self.weights(place), start, tap, state_threshold, *mixing)
            made = None if fused is None else fused.setdefault(place, [])
            run, ends = self._recur(in_its_time(layer_input), *given, fused=made)
            inputs.append(layer_input)
            states.append(run.map(in_its_time))
            if lengths_B is not None:
                pairs = zip(run.tensors(), start.tensors(), strict=True)
                ends = States(*(last_of(state, before, lengths_B) for state, before in pairs))
            final.append(ends)
        return StackRun(
            outputs=self._beside(states),
            inputs=tuple(inputs),
            states=tuple(states),
            final=tuple(final),
        )

    def _recur(
        self,
        x_TBD: Tensor,
        weights: Weights,
        start: States,
        taps: States | None,
        state_threshold: float | None,
        fed: Tensor | None = None,
        kept: Sequence[Tensor | float] = (),
        fused: Fused | None = None,
    ) -> tuple[States, States]:
        """Return the states of one layer and direction at every timestep, (T, B, H), and after the last one, (B, H).

        In its own order of time.
        """
        cell = self.cell
        if torch.is_autocast_enabled(x_TBD.device.type):
            with in_full_precision(x_TBD.device.type):
                return self._recur(x_TBD.float(), weights, start, taps, state_threshold, fed, kept, fused)
        if is_transformed():
            refuse_clipping(state_threshold)
        if fed is not None or kept:
            unrolled = cell.unroll_dropped(x_TBD, start, weights, taps, state_threshold, fed, kept)
            return unrolled, unrolled.map(lambda state: state[-1])
        if is_transformed() or cell.whole_step is not None:
            unrolled = cell.unroll(x_TBD, start, weights, taps, state_threshold)
            return unrolled, unrolled.map(lambda state: state[-1])
        fused = [] if fused is None else fused
        if not fused:
            fused.append(cell.fused(weights))
        given = [None] * len(cell.states) if taps is None else taps.tensors()
        tensors = (x_TBD, *fused[0], *start.tensors(), *given, *weights)
        call = Call(cell, torch.is_grad_enabled(), state_threshold)
        states = across_replicas(Recurrence, call, *tensors)
        return States(*states[: len(cell.states)]), States(*states[len(cell.states) :])

    def _beside(self, states: Sequence[States]) -> Tensor:
        """Return what the directions of the last layer put out beside each other, (T, B, F)."""
        seen = [self.cell.seen(each) for each in states[-self.num_directions :]]
        return seen[0] if len(seen) == 1 else torch.cat(seen, dim=2)


def turned_round(x_TBF: Tensor, lengths_B: Tensor | None) -> Tensor:
    """Return sequences from their last timestep to their first; padding stays behind them."""
    if lengths_B is None:
        return x_TBF.flip(0)
    t_T1 = torch.arange(len(x_TBF), device=x_TBF.device)[:, None]
    source_TB = torch.where(t_T1 < lengths_B, lengths_B - 1 - t_T1, t_T1)
    return x_TBF.gather(0, source_TB[..., None].expand_as(x_TBF))


def last_of(x_TBF: Tensor, initial_BF: Tensor, lengths_B: Tensor | None) -> Tensor:
    """Return what stands at the last timestep of each sequence, (B, F): of an empty one, what was there before it."""
    if lengths_B is None:
        return x_TBF[-1]
    last_B = (lengths_B - 1).clamp_min(0)
    last_BF = x_TBF.gather(0, last_B[None, :, None].expand(1, *x_TBF.shape[1:])).squeeze(0)
    return torch.where(lengths_B[:, None] > 0, last_BF, initial_BF)


def places_of(num_layers: int, bidirectional: bool) -> tuple[Place, ...]:
    """Return layers and directions in the order of torch.nn's states: layer by layer, forward before backward."""
    directions = (FORWARD, BACKWARD) if bidirectional else (FORWARD,)
    return tuple(Place(layer, direction) for layer in range(num_layers) for direction in directions)


def stack_states(states: Sequence[States]) -> list[Tensor]:
    """Return the tensors of the states place by place, h before c."""
    return [tensor for each in states for tensor in each.tensors()]


def unstack_states(tensors: Sequence[Tensor], cell: Cell) -> list[States]:
    """Return the inverse of `stack_states`."""
    size = len(cell.states)
    return [States(*tensors[i : i + size]) for i in range(0, len(tensors), size)]
