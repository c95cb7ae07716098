"""torch's recurrent operations, run by this project's recurrence with the operation's own weights, and tapped.

`nn.LSTM`, `nn.GRU` and `nn.RNN` end in one operation each (`torch.lstm`, `torch.gru`, …), their cells in another
(`torch.lstm_cell`, …), whose arguments hold everything: inputs, states, weights, packing. What is here takes the
arguments of such an operation and returns what it returns, with a tap on every state of every layer and direction.
So somebody's own network runs on the loops of this project, its code as it is.

Shapes: T timesteps, B batch, D input, H hidden, P of the projected state, N timesteps of all sequences of a pack.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.config.strict import require
from pipeline.core.cells import CELLS, Cell, States, Weights
from pipeline.core.cells.cell import APART
from pipeline.core.cells.recurrence import clipped_on_its_way_back
from pipeline.core.cells.stack import BACKWARD, FORWARD, Place, RecurrentStack, last_of, places_of, turned_round

SEQUENCES = {
    torch._VF.lstm: "lstm",
    torch._VF.gru: "gru",
    torch._VF.rnn_tanh: "elman",
    torch._VF.rnn_relu: "elman_relu",
}
"""Operations over whole sequences, and the cells that they are of."""
STEPS = {
    torch._VF.lstm_cell: "lstm",
    torch._VF.gru_cell: "gru",
    torch._VF.rnn_tanh_cell: "elman",
    torch._VF.rnn_relu_cell: "elman_relu",
}
"""Operations of one timestep."""

Tap = Callable[[Place, str, Tensor, tuple[int, ...]], Tensor | None]
"""What is added to a state: of a layer and direction, a state's name, a tensor like it, and a shape, (timesteps, B, H)
in the recurrence's own order of time; None is nothing. The gradient of zeros is dL/ds_t. All states of a place have
a tap, or none."""


class SequencesRun(NamedTuple):
    """What an operation over whole sequences comes to.

    Attributes:
        found: What torch's operation returns: outputs, and the last states.
        states: Of each layer and direction, (T, B, H or P) each; timestep t of every one is timestep t of the input.
    """

    found: tuple[Tensor, ...]
    states: tuple[tuple[Tensor, ...], ...]


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """The arguments of an operation over whole sequences, in torch's order.

    Attributes:
        x: (T, B, D), (B, T, D) where `batch_first`, or the (N, D) of a pack.
        batch_sizes: Of a pack, how many sequences have each timestep; None where there is none.
        start: States before the first timestep, (places, B, H or P) each.
        weights: Of every layer and direction.
        has_biases: Whether there are biases among them.
        num_layers: L.
        dropout: Between layers, while training.
        training: Whether it is.
        bidirectional: Whether each layer runs both ways.
        batch_first: How x lies.
    """

    x: Tensor
    batch_sizes: Tensor | None
    start: tuple[Tensor, ...]
    weights: Sequence[Tensor]
    has_biases: bool
    num_layers: int
    dropout: float
    training: bool
    bidirectional: bool
    batch_first: bool = False

    @staticmethod
    def of(args: Sequence[Any]) -> Arguments:
        """Return the arguments by name."""
        packed = not isinstance(args[3], bool)
        x, batch_sizes, start, weights, *rest = args if packed else (args[0], None, *args[1:])
        start = tuple(start) if isinstance(start, tuple | list) else (start,)
        return Arguments(
            **dict(zip(Arguments.__dataclass_fields__, (x, batch_sizes, start, weights, *rest), strict=False))
        )

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """Everything that a gradient may flow into."""
        return (self.x, *self.start, *self.weights)

    @property
    def lengths(self) -> Tensor | None:
        """How many timesteps each sequence of a pack has, longest first, (B,); None where all have T."""
        if self.batch_sizes is None or self.batch_sizes[0] == self.batch_sizes[-1]:
            return None
        examples = torch.arange(int(self.batch_sizes[0]))
        return (self.batch_sizes[:, None] > examples).sum(dim=0).to(self.x.device)


@functools.cache
def _stack(cell: str) -> RecurrentStack:
    """Return a stack of one unit: what runs the cell, whatever the weights."""
    return RecurrentStack(cell, 1, 1, torch.Generator())


def run_sequences(
    name: str, given: Arguments, tap: Tap, *, state_threshold: float | None = None, shares: bool = True
) -> SequencesRun:
    """Return what torch's operation comes to with these arguments.

    Args:
        name: Of the cell.
        given: Of one precision, float32 or float64.
        tap: What is added to each state.
        state_threshold: Clips every example's dL/dh_t to this norm as it flows back; None leaves it alone.
        shares: Whether threads share the examples, where there are enough.
    """
    cell, lengths_B = CELLS[name], given.lengths
    places = places_of(given.num_layers, given.bidirectional)
    size = len(given.weights) // len(places)
    order, layer_input = _order_of(given), _unpacked(given)
    states, final = list[tuple[Tensor, ...]](), list[tuple[Tensor, ...]]()
    for index, place in enumerate(places):
        if index and place.layer != places[index - 1].layer:
            above = [each[0] for each in states[-2 if given.bidirectional else -1 :]]
            layer_input = _dropped(_beside(above), given, order)
        start = tuple(state[index] for state in given.start)
        weights = given.weights[size * index : size * (index + 1)]
        layer = _Layer(cell, name, functools.partial(tap, place), state_threshold, shares)
        made = layer.run(_in_its_time(layer_input, place, lengths_B), start, weights, given.has_biases)
        final.append(tuple(last_of(each, before, lengths_B) for each, before in zip(made, start, strict=True)))
        states.append(tuple(_in_its_time(each, place, lengths_B) for each in made))
    outputs = _beside([each[0] for each in states[-2 if given.bidirectional else -1 :]])
    if given.batch_sizes is not None:
        outputs = outputs.flatten(0, 1) if order is None else outputs.flatten(0, 1).index_select(0, order)
    elif given.batch_first:
        outputs = outputs.transpose(0, 1)
    return SequencesRun((outputs, *(torch.stack(each) for each in zip(*final, strict=True))), tuple(states))


class _Layer(NamedTuple):
    """How one layer and direction of an operation is run, in its own order of time; see `run_sequences`."""

    cell: Cell
    name: str
    tap: Callable[[str, Tensor, tuple[int, ...]], Tensor | None]
    state_threshold: float | None
    shares: bool

    def run(
        self, x_TBD: Tensor, start: tuple[Tensor, ...], given: Sequence[Tensor], has_biases: bool
    ) -> tuple[Tensor, ...]:
        """Return the states at every timestep."""
        weight_ih, weight_hh = given[:2]
        biases = given[2:4] if has_biases else [weight_ih.new_zeros(len(weight_ih))] * 2
        weights = self.cell.weights(
            dict(zip(("weight_ih", "weight_hh", "bias_ih", "bias_hh"), (*given[:2], *biases), strict=True))
        )
        if len(given) % 2:
            return self._projected(x_TBD, start, weights, given[-1])
        shape = (*x_TBD.shape[:2], weight_hh.shape[-1])
        taps = [self.tap(state, x_TBD, shape) for state in self.cell.states]
        given_taps = None if taps[0] is None else States(*taps)  # type: ignore[arg-type]
        return self._recur(x_TBD, weights, States(*start), given_taps)

    def _projected(
        self, x_TBD: Tensor, start: tuple[Tensor, ...], weights: Weights, weight_hr: Tensor
    ) -> tuple[Tensor, ...]:
        """Return the states of an LSTM whose h is projected, h_t = W_hr (o · tanh(c_t)), by one whose h is not.

        W_hh h_{t-1} is (W_hh W_hr) (o · tanh(c_{t-1})): the recurrence of a plain LSTM. The h before the first
        timestep, which is no projection, enters with the inputs, through the columns of W_hh beside those of W_ih; and
        so does, a timestep later, what is added to h.
        """
        expected = "None: an LSTM with a projection is run by another recurrence, in which nothing is clipped"
        require(self.state_threshold is None, "state_threshold", expected, self.state_threshold)
        (T, B, _), (P, H) = x_TBD.shape, weight_hr.shape
        tapped, nothing = self.tap("h", x_TBD, (T, B, P)), x_TBD.new_zeros(())
        tapped = nothing.expand(T, B, P) if tapped is None else tapped
        before_TBP = torch.cat([start[0][None], tapped[:-1]])
        fused = weights._replace(
            weight_ih=torch.cat([weights.weight_ih, weights.weight_hh], dim=1), weight_hh=weights.weight_hh @ weight_hr
        )
        tap_c = self.tap("c", x_TBD, (T, B, H))
        taps = None if tap_c is None else States(nothing.expand(T, B, H), tap_c)
        begin = States(x_TBD.new_zeros(B, H), start[1])
        h, c = self._recur(torch.cat([x_TBD, before_TBP], dim=2), fused, begin, taps)
        return h @ weight_hr.T + tapped, c

    def _recur(self, x_TBD: Tensor, weights: Weights, start: States, taps: States | None) -> tuple[Tensor, ...]:
        """Return the states of a recurrence, (T, B, H) each; threads share the examples, where there are enough."""
        stack, B = _stack(self.name), x_TBD.shape[1]
        is_shared = self.shares and x_TBD.device.type == "cpu" and x_TBD.dtype == torch.float32  # the compiled loops
        threads = torch.get_num_threads() if is_shared else 1
        num_shares = next(n for n in range(threads, 0, -1) if n == 1 or (B % n == 0 and B // n >= EXAMPLES_OF_A_THREAD))
        if num_shares == 1:
            return stack._recur(x_TBD, weights, start, taps, self.state_threshold)[0].tensors()

        def recur(x: Tensor, start: tuple[Tensor, ...], taps: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            given = States(*taps) if taps else None
            return stack._recur(x, weights, States(*start), given, self.state_threshold)[0].tensors()

        added = () if taps is None else taps.tensors()
        shares = [each.unflatten(-2, (num_shares, -1)) for each in (x_TBD, *start.tensors(), *added)]
        size = len(stack.cell.states)
        states = torch.vmap(recur, (1, 0, 1), 1)(shares[0], tuple(shares[1 : 1 + size]), tuple(shares[1 + size :]))
        return tuple(state.flatten(1, 2) for state in states)


EXAMPLES_OF_A_THREAD = 8
"""At least: the compiled loops multiply so many rows at once."""


def _beside(states: Sequence[Tensor]) -> Tensor:
    return states[0] if len(states) == 1 else torch.cat(list(states), dim=2)


def _in_its_time(sequence: Tensor, place: Place, lengths_B: Tensor | None) -> Tensor:
    return turned_round(sequence, lengths_B) if place.direction == BACKWARD else sequence


def _order_of(given: Arguments) -> Tensor | None:
    """Return where the timesteps of a ragged pack lie in (T · B), (N,); None where nothing is ragged."""
    if given.lengths is None or given.batch_sizes is None:
        return None
    examples = torch.arange(int(given.batch_sizes[0]))
    return (given.batch_sizes[:, None] > examples).flatten().nonzero().squeeze(1).to(given.x.device)


def _unpacked(given: Arguments) -> Tensor:
    """Return the inputs as (T, B, D), zeros behind sequences that are shorter than others."""
    if given.batch_sizes is None:
        return given.x.transpose(0, 1) if given.batch_first else given.x
    T, B = len(given.batch_sizes), int(given.batch_sizes[0])
    order = _order_of(given)
    padded = given.x if order is None else given.x.new_zeros(T * B, given.x.shape[1]).index_copy(0, order, given.x)
    return padded.unflatten(0, (T, B))


def _dropped(outputs_TBF: Tensor, given: Arguments, order: Tensor | None) -> Tensor:
    """Return the outputs of a layer as the next one sees them; coins fall as torch's do, on a pack's own timesteps."""
    if not (given.dropout and given.training):
        return outputs_TBF
    if order is None:
        return F.dropout(outputs_TBF, given.dropout, training=True)
    flat = outputs_TBF.flatten(0, 1)
    dropped = F.dropout(flat.index_select(0, order), given.dropout, training=True)
    return torch.zeros_like(flat).index_copy(0, order, dropped).view_as(outputs_TBF)


def run_step(
    name: str, args: Sequence[Tensor | None], tap: Tap, *, state_threshold: float | None = None
) -> tuple[Tensor, ...]:
    """Return the states after one timestep of a batch.

    Args:
        name: Of the cell.
        args: x (B, D), the states before (B, H), two weights, and two biases or Nones.
        tap: What is added to each state; shapes are (1, B, H).
        state_threshold: Clips every example's dL/dh_t to this norm as it flows back; None leaves it alone.
    """
    cell = CELLS[name]
    size = len(cell.states)
    x, before, (weight_ih, weight_hh, bias_ih, bias_hh) = args[0], args[1 : 1 + size], args[1 + size :]
    assert x is not None and weight_ih is not None and weight_hh is not None and before[0] is not None  # noqa: S101, PT018
    num_gates = len(cell.gates)
    of_x = F.linear(x, weight_ih, bias_ih).chunk(num_gates, dim=-1)
    of_h = F.linear(before[0], weight_hh, bias_hh).chunk(num_gates, dim=-1)
    blocks: dict[str, Tensor] = {}
    for gate, a_x, a_h in zip(cell.gates, of_x, of_h, strict=True):
        blocks |= {f"{gate}_x": a_x, f"{gate}_h": a_h} if cell.gates[gate] == APART else {gate: a_x + a_h}
    place, shape = Place(0, FORWARD), (1, *before[0].shape)
    taps = [x.new_zeros(()) if (each := tap(place, state, x, shape)) is None else each[0] for state in cell.states]
    h, *others = cell.derivation.stepped.forward(*(blocks[block] for block in cell.blocks), *before, *taps)
    return (h if state_threshold is None else clipped_on_its_way_back(h, state_threshold)), *others
