"""torch's recurrent operations, run by this project's recurrence with the operation's own weights, and tapped.

`nn.LSTM`, `nn.GRU` and `nn.RNN` end in one operation each (`torch.lstm`, `torch.gru`, …), their cells in another
(`torch.lstm_cell`, …), whose arguments hold everything: inputs, states, weights, packing. What is here takes the
arguments of such an operation and returns what it returns, with a tap on every state of every layer and direction.

Shapes: T timesteps, B batch, D input, H hidden, P of the projected state, N timesteps of all sequences of a pack.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.core.cells import CELLS, Cell, States, Weights
from pipeline.core.cells.cell import APART
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

Seen = Callable[[Tensor], None]
"""What is done with the gradient of a state, (timesteps, B, H), in its recurrence's own order of time."""


Watch = Callable[[Place, str], Seen]
"""What is done with the gradients of a state of one layer and direction."""


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


class _Tap(torch.autograd.Function):
    """A zero that is added to a state; nothing flows on from it."""

    @staticmethod
    def forward(ctx: Any, anchor: Tensor, shape: tuple[int, ...], seen: Seen, owner: object) -> Tensor:  # noqa: D102
        ctx.seen, ctx.owner = seen, owner
        return anchor.new_zeros(()).expand(shape)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, ...]:  # noqa: D102
        ctx.seen(grad.detach())
        return None, None, None, None


def tap(like: Tensor, shape: tuple[int, ...], seen: Seen, owner: object = None) -> Tensor:
    """Return zeros of a shape, whose gradient `seen` gets; `owner_of` finds the owner from what is made of them."""
    zeros: Tensor = _Tap.apply(like.new_zeros((), requires_grad=True), shape, seen, owner)  # type: ignore[no-untyped-call]
    return zeros


NODES_SEARCHED = 200
"""How far `owner_of` looks; between a state and the next call that takes it there are few operations."""


def owner_of(states: Sequence[Tensor], is_wanted: Callable[[object], bool]) -> Any:
    """Return the owner of the nearest tap that the states are made with and that is wanted; None without one."""
    todo: list[Any] = [state.grad_fn for state in states if state.grad_fn is not None]
    met = set(todo)
    for node in todo:  # grows: breadth first
        owner = getattr(node, "owner", None)
        if owner is not None and is_wanted(owner):
            return owner
        if len(todo) < NODES_SEARCHED:
            found = [near for near, _ in node.next_functions if near is not None and near not in met]
            met.update(found)
            todo += found
    return None


class _Seen(torch.autograd.Function):
    """A tensor as it is, whose gradient is seen on its way."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, seen: Seen) -> Tensor:  # noqa: D102
        ctx.seen = seen
        return values.view_as(values)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:  # noqa: D102
        ctx.seen(grad.detach())
        return grad, None


@functools.cache
def _stack(cell: str) -> RecurrentStack:
    """Return a stack of one unit: what runs the cell, whatever the weights."""
    return RecurrentStack(cell, 1, 1, torch.Generator())


def run_sequences(name: str, given: Arguments, watch: Watch, owner: object) -> tuple[Tensor, ...]:
    """Return what torch's operation returns of these arguments: outputs, and the last states.

    Args:
        name: Of the cell.
        given: Of one precision, float32 or float64.
        watch: What is done with the gradients in the states.
        owner: Of the taps.
    """
    cell, lengths_B = CELLS[name], given.lengths
    places = places_of(given.num_layers, given.bidirectional)
    size = len(given.weights) // len(places)
    order, layer_input = _order_of(given), _unpacked(given)
    states, final = list[Tensor](), list[tuple[Tensor, ...]]()
    for index, place in enumerate(places):
        if index and place.layer != places[index - 1].layer:
            layer_input = _dropped(_beside(states), given, order)
            states = []
        x_TBD = _in_its_time(layer_input, place, lengths_B)
        start = tuple(state[index] for state in given.start)
        weights = given.weights[size * index : size * (index + 1)]
        made = _layer(cell, name, x_TBD, start, weights, given.has_biases, functools.partial(watch, place), owner)
        final.append(tuple(last_of(each, before, lengths_B) for each, before in zip(made, start, strict=True)))
        states.append(_in_its_time(made[0], place, lengths_B))
    outputs = _beside(states)
    if given.batch_sizes is not None:
        outputs = outputs.flatten(0, 1) if order is None else outputs.flatten(0, 1).index_select(0, order)
    elif given.batch_first:
        outputs = outputs.transpose(0, 1)
    return (outputs, *(torch.stack(each) for each in zip(*final, strict=True)))


def _layer(
    cell: Cell,
    name: str,
    x_TBD: Tensor,
    start: tuple[Tensor, ...],
    given: Sequence[Tensor],
    has_biases: bool,
    watch: Callable[[str], Seen],
    owner: object,
) -> tuple[Tensor, ...]:
    """Return the states of one layer and direction at every timestep, in its own order of time."""
    weight_ih, weight_hh = given[:2]
    biases = given[2:4] if has_biases else [weight_ih.new_zeros(len(weight_ih))] * 2
    weights = cell.weights(
        dict(zip(("weight_ih", "weight_hh", "bias_ih", "bias_hh"), (*given[:2], *biases), strict=True))
    )
    T, B = x_TBD.shape[:2]
    if len(given) % 2:
        return _projected(name, x_TBD, start, weights, given[-1], watch, owner)
    shape = (T, B, weight_hh.shape[-1])
    taps = States(*(tap(x_TBD, shape, watch(state), owner) for state in cell.states))
    return _recur(name, x_TBD, weights, States(*start), taps)


def _projected(
    name: str,
    x_TBD: Tensor,
    start: tuple[Tensor, ...],
    weights: Weights,
    weight_hr: Tensor,
    watch: Callable[[str], Seen],
    owner: object,
) -> tuple[Tensor, ...]:
    """Return the states of an LSTM whose h is projected, h_t = W_hr (o · tanh(c_t)), by one whose h is not.

    W_hh h_{t-1} is (W_hh W_hr) (o · tanh(c_{t-1})): the recurrence of a plain LSTM. The h before the first timestep,
    which is no projection, enters with the inputs, through the columns of W_hh beside those of W_ih; a tap on the same
    columns at the other timesteps sees what flows from t to h_{t-1}, to which what reaches h_{t-1} otherwise is added.
    """
    (T, B, _), (P, H) = x_TBD.shape, weight_hr.shape
    direct, seen = list[Tensor](), watch("h")

    def total(grad_TBP: Tensor) -> None:
        grad = torch.cat([grad_TBP[1:], grad_TBP.new_zeros(1, B, P)])
        seen(grad + direct.pop() if direct else grad)

    before_TBP = torch.cat([start[0][None], tap(x_TBD, (T, B, P), total, owner)[1:]])
    fused = weights._replace(
        weight_ih=torch.cat([weights.weight_ih, weights.weight_hh], dim=1), weight_hh=weights.weight_hh @ weight_hr
    )
    taps = States(x_TBD.new_zeros(()).expand(T, B, H), tap(x_TBD, (T, B, H), watch("c"), owner))
    begin = States(x_TBD.new_zeros(B, H), start[1])
    h, c = _recur(name, torch.cat([x_TBD, before_TBP], dim=2), fused, begin, taps)
    projected: Tensor = _Seen.apply(h @ weight_hr.T, direct.append)  # type: ignore[no-untyped-call]
    return projected, c


def _recur(name: str, x_TBD: Tensor, weights: Weights, start: States, taps: States) -> tuple[Tensor, ...]:
    """Return the states of a recurrence, (T, B, H) each; threads share the examples, where there are enough."""
    stack, B = _stack(name), x_TBD.shape[1]
    is_shared = x_TBD.device.type == "cpu" and x_TBD.dtype == torch.float32  # what the compiled loops run
    threads = torch.get_num_threads() if is_shared else 1
    num_shares = next(n for n in range(threads, 0, -1) if n == 1 or (B % n == 0 and B // n >= EXAMPLES_OF_A_THREAD))
    if num_shares == 1:
        return stack._recur(x_TBD, weights, start, taps, None).tensors()

    def recur(x: Tensor, start: tuple[Tensor, ...], taps: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return stack._recur(x, weights, States(*start), States(*taps), None).tensors()

    shares = [each.unflatten(-2, (num_shares, -1)) for each in (x_TBD, *start.tensors(), *taps.tensors())]
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


def run_step(name: str, args: Sequence[Tensor | None], watch: Watch, owner: object) -> tuple[Tensor, ...]:
    """Return the states after one timestep of a batch.

    Args:
        name: Of the cell.
        args: x (B, D), the states before (B, H), two weights, and two biases or Nones.
        watch: What is done with the gradients in the states.
        owner: Of the taps.
    """
    cell = CELLS[name]
    size = len(cell.states)
    x, before, (weight_ih, weight_hh, bias_ih, bias_hh) = args[0], args[1 : 1 + size], args[1 + size :]
    assert x is not None and weight_ih is not None and weight_hh is not None and before[0] is not None  # noqa: S101, PT018
    num_gates = len(cell.gates)
    of_x = F.linear(x, weight_ih, bias_ih).chunk(num_gates, dim=1)
    of_h = F.linear(before[0], weight_hh, bias_hh).chunk(num_gates, dim=1)
    blocks: dict[str, Tensor] = {}
    for gate, a_x, a_h in zip(cell.gates, of_x, of_h, strict=True):
        blocks |= {f"{gate}_x": a_x, f"{gate}_h": a_h} if cell.gates[gate] == APART else {gate: a_x + a_h}
    place, shape = Place(0, FORWARD), tuple(before[0].shape)

    def of_one_timestep(seen: Seen) -> Seen:
        return lambda grad: seen(grad[None])

    taps = [tap(x, shape, of_one_timestep(watch(place, state)), owner) for state in cell.states]
    found = cell.derivation.stepped.forward(*(blocks[block] for block in cell.blocks), *before, *taps)
    return tuple(found)
