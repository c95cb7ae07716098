"""What a network must know of a cell; each cell's own file declares one of these.

A cell is its textbook step: linear maps of states and input into pre-activation blocks, and a pointwise function of
blocks and states. The loops over time, forward and backward, are derived from it (`derivation`, `recurrence`). A cell
that is not of this form declares its step whole and is differentiated by autograd: slower, and as exact.

Shapes: D input, H hidden. A step is of one example at one timestep, as in the textbook, without batch, time or
replicas: it is the reference of the loops, and what Jacobians are taken of.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from pipeline.core.cells.derivation import Derivation, derive
from pipeline.core.cells.memory import LINE
from pipeline.core.cells.products import matmul
from pipeline.core.cells.recurrence import clipped_on_its_way_back

H_AND_X, APART, H_ONLY, X_ONLY = "h + x", "h, x", "h", "x"
"""What feeds a gate: the sum of a map of h and one of x, the two apart (as `name_h` and `name_x`), or one alone."""


class States(NamedTuple):
    """A state of the network, a tap on it, or a gradient in it: h, and as many of the others as the cell has."""

    h: Tensor
    c: Tensor | None = None
    n: Tensor | None = None
    m: Tensor | None = None

    def tensors(self) -> tuple[Tensor, ...]:
        """Return the states that the cell has, in the order in which it declares them."""
        return tuple(state for state in self if state is not None)

    def map(self, function: Callable[[Tensor], Tensor]) -> States:
        """Return `function` of each state that the cell has."""
        return States(*map(function, self.tensors()))

    @staticmethod
    def concatenate(states: Sequence[States], dim: int) -> States:
        """Return the states of one cell beside each other along `dim`."""
        return States(*(torch.cat(each, dim=dim) for each in zip(*(s.tensors() for s in states), strict=True)))


class Weights(NamedTuple):
    """The parameters of one layer and direction, with the names, shapes and gate order of torch.nn.

    What a cell has not is empty: a tensor of no rows.

    Attributes:
        weight_ih: A block of H rows for each gate that x feeds, D columns.
        weight_hh: A block of H rows for each gate that states feed, H columns for each such state.
        bias_ih: As many rows as `weight_ih`.
        bias_hh: As many rows as `weight_hh`; added to `bias_ih`, except where a gate needs them apart.
        weight_u: A row of H for each parameter that a unit has for itself.
    """

    weight_ih: Tensor
    weight_hh: Tensor
    bias_ih: Tensor
    bias_hh: Tensor
    weight_u: Tensor


Named: TypeAlias = Any
"""Tensors by name, as attributes: pre-activations `a.f`, `a.n_h`, per-unit parameters `a.p_i`, states `s.c`."""
Stepped: TypeAlias = tuple[tuple[Tensor, ...], Mapping[str, Tensor]]
"""What a step returns: the states after it, and the values of the gates that open and close, by name."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Cell:
    """A recurrent cell.

    Attributes:
        gates: What feeds each gate, by name, in the order of the rows of the weights.
        states: Names of its states, the first ones of `States`.
        pointwise: (blocks, states before) -> `Stepped`, of elementwise operations alone.
        per_unit: Names of the parameters that each unit has for itself; `pointwise` finds them beside the blocks.
        num_feeding: How many of the states `weight_hh` multiplies: the first ones; 0 where no gate has rows in it.
        num_outputs: How many of the states the next layer and the readout see: the first ones.
        shared_map: Whether all gates that states feed share one map: `weight_hh` is then a single block.
        prepare: Weights as trained -> as the step multiplies by them; None where they are the same.
        whole_step: (x_t, states before, weights, taps) -> `Stepped`, in place of `pointwise`, for a cell that is not of
            that form. It adds the taps, zeros where there are none, to the states where it makes them.
        start: Function of (H, generator) that draws `weight_u`, (rows, H); None draws as torch.nn does.
        keep_gate: The gate that says how much of the past is kept: f of the LSTM, z of the GRU.
        keeps_when_open: Whether that gate keeps where it is open (f), or where it is shut.
        derivative: φ'(a) in terms of h = φ(a), where h_t = φ(W_hh h_{t-1} + …); None for gated cells.
        torch_class: (input size, hidden size, ...) -> the same cell of torch.nn; None where torch has none.
    """

    gates: Mapping[str, str]
    states: tuple[str, ...] = ("h",)
    pointwise: Callable[[Named, Named], Stepped] | None = None
    per_unit: tuple[str, ...] = ()
    num_feeding: int = 1
    num_outputs: int = 1
    shared_map: bool = False
    prepare: Callable[[Weights], Weights] | None = None
    whole_step: Callable[[Tensor, States, Weights, States], Stepped] | None = None
    start: Callable[[int, torch.Generator], Tensor] | None = None
    keep_gate: str | None = None
    keeps_when_open: bool = True
    derivative: Callable[[Tensor], Tensor] | None = None
    torch_class: Callable[..., nn.RNNBase] | None = None

    def __post_init__(self) -> None:
        if not self.fed_by_h:
            object.__setattr__(self, "num_feeding", 0)

    @functools.cached_property
    def fed_by_x(self) -> tuple[str, ...]:
        """The gates that have rows in `weight_ih`."""
        return tuple(gate for gate, feeds in self.gates.items() if feeds != H_ONLY)

    @functools.cached_property
    def fed_by_h(self) -> tuple[str, ...]:
        """The gates that states feed; each has rows in `weight_hh`, if the map is not shared."""
        return tuple(gate for gate, feeds in self.gates.items() if feeds != X_ONLY)

    @functools.cached_property
    def recurrent_gates(self) -> tuple[str, ...]:
        """The gates that have rows in `weight_hh`; a shared map stands under the first."""
        return self.fed_by_h[:1] if self.shared_map else self.fed_by_h

    def input_blocks(self, weight_ih: Tensor) -> dict[str, Tensor]:
        """Return the rows of each gate that x feeds, (..., H, D)."""
        return dict(zip(self.fed_by_x, weight_ih.chunk(len(self.fed_by_x), dim=-2), strict=True))

    def recurrent_blocks(self, weight_hh: Tensor) -> dict[tuple[str, str], Tensor]:
        """Return the square block of each gate and state that feeds it, (..., H, H)."""
        blocks: dict[tuple[str, str], Tensor] = {}
        for gate, rows in zip(
            self.recurrent_gates, weight_hh.chunk(max(1, len(self.recurrent_gates)), dim=-2), strict=False
        ):
            columns = rows.chunk(self.num_feeding, dim=-1)
            blocks |= {(gate, state): block for state, block in zip(self.states, columns, strict=False)}
        return blocks

    def bias_of(self, weights: Weights, gate: str) -> Tensor:
        """Return a gate's bias, (..., H): of torch's two, the one beside `weight_hh`, where there is one."""
        if gate in self.fed_by_h and not self.shared_map:
            return weights.bias_hh.chunk(len(self.fed_by_h), dim=-1)[self.fed_by_h.index(gate)]
        return weights.bias_ih.chunk(len(self.fed_by_x), dim=-1)[self.fed_by_x.index(gate)]

    @functools.cached_property
    def blocks(self) -> tuple[str, ...]:
        """The names of the pre-activation blocks: those that states alone feed first, those that x alone feeds last."""
        kinds: dict[str, list[str]] = {H_ONLY: [], H_AND_X: [], X_ONLY: []}
        for gate, feeds in self.gates.items():
            if feeds == APART:
                kinds[H_ONLY].append(f"{gate}_h")
                kinds[X_ONLY].append(f"{gate}_x")
            else:
                kinds[feeds].append(gate)
        return tuple(name for names in kinds.values() for name in names)

    def shapes(self, input_size: int, hidden_size: int) -> dict[str, tuple[int, ...]]:
        """Return the shape of every parameter that the cell has, by name."""
        rows_x = len(self.fed_by_x) * hidden_size
        rows_h = (min(1, len(self.fed_by_h)) if self.shared_map else len(self.fed_by_h)) * hidden_size
        shapes: dict[str, tuple[int, ...]] = {
            "weight_ih": (rows_x, input_size),
            "weight_hh": (rows_h, self.num_feeding * hidden_size),
            "bias_ih": (rows_x,),
            "bias_hh": (0 if self.shared_map else rows_h,),
            "weight_u": (len(self.per_unit), hidden_size),
        }
        return {name: shape for name, shape in shapes.items() if shape[0]}

    def weights(self, named: Mapping[str, Tensor]) -> Weights:
        """Return the parameters of `shapes` as weights; those that the cell has not are empty."""
        like = named["weight_ih"]
        no_rows, no_bias = like.new_zeros(like.shape[:-2] + (0, 0)), like.new_zeros(like.shape[:-2] + (0,))
        return Weights(*(named.get(n, no_bias if n.startswith("bias") else no_rows) for n in Weights._fields))

    def seen(self, states: States) -> Tensor:
        """Return what the next layer and the readout see of the states, (..., num_outputs · H)."""
        outputs = states.tensors()[: self.num_outputs]
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=-1)

    @functools.cached_property
    def derivation(self) -> Derivation:
        """The step as two graphs of elementwise operations, forward and backward, that the fast loops are made of."""
        sizes = (len(self.blocks), len(self.per_unit), len(self.states))

        def flat(*tensors: Tensor) -> tuple[Tensor, ...]:
            blocks, per_unit, before = (tensors[: sizes[0]], tensors[sizes[0] : -sizes[2]], tensors[-sizes[2] :])
            return self._pointwise([*blocks, *per_unit], States(*before))[0]

        with ThreadPoolExecutor(1) as clean:  # a thread of its own: no transform, mode or hook of torch's is on in it
            return clean.submit(derive, flat, *sizes).result()

    def _pointwise(self, values: Sequence[Tensor], before: States) -> Stepped:
        assert self.pointwise is not None  # noqa: S101 - whoever calls has seen to it
        names = (*self.blocks, *self.per_unit)
        return self.pointwise(SimpleNamespace(**dict(zip(names, values, strict=True))), before)

    def fused(self, weights: Weights) -> tuple[Tensor, Tensor]:
        """Return the weights as the loops want them.

        Returns:
            [W_h | W_x | b], (H · blocks, H · num_feeding + D + 1), rows in the order of `blocks`; and the per-unit
            parameters, (len(per_unit), H).
        """
        ih, hh, bias_ih, bias_hh, per_unit = weights if self.prepare is None else self.prepare(weights)
        num_blocks, num_x, num_h = len(self.blocks), len(self.fed_by_x), len(self.fed_by_h)
        H = len(ih) // num_x
        weight_x, bias_x = _rows(ih, bias_ih, self.fed_by_x, self.blocks[num_blocks - num_x :])
        above = (num_blocks - num_x) * H
        weight_x, bias = _padded(weight_x, (0, 0, above, 0)), _padded(bias_x, (above, 0))
        if num_h:
            if self.shared_map:
                hh, bias_hh = hh.repeat(num_h, 1), bias_hh.new_zeros(num_h * H)
            weight_h, bias_h = _rows(hh, bias_hh, self.fed_by_h, self.blocks[:num_h])
            below = (num_blocks - num_h) * H
            weight_h, bias = _padded(weight_h, (0, 0, 0, below)), bias + _padded(bias_h, (0, below))
        else:
            weight_h = ih.new_zeros(len(ih), 0)
        return torch.cat([weight_h, weight_x, bias[:, None]], dim=1), per_unit

    def step(self, x_t: Tensor, before: States, weights: Weights) -> States:
        """Return the states after one timestep of one example, from x_t (D,) and the states before it, (H,) each."""
        return States(*self._stepped(x_t, before, weights)[0])

    def gate_values(self, x_t: Tensor, before: States, weights: Weights) -> dict[str, Tensor]:
        """Return the value (H,) of every gate that opens and closes, by name; the arguments are those of `step`."""
        return dict(self._stepped(x_t, before, weights)[1])

    @functools.cached_property
    def gate_names(self) -> tuple[str, ...]:
        """The gates that open and close."""
        weights = self.weights({name: torch.zeros(shape) for name, shape in self.shapes(1, 1).items()})
        return tuple(self.gate_values(torch.zeros(1), States(*(torch.zeros(1) for _ in self.states)), weights))

    def _stepped(self, x_t: Tensor, before: States, weights: Weights) -> Stepped:
        if self.whole_step is not None:
            return self.whole_step(x_t, before, weights, before.map(torch.zeros_like))
        fused, per_unit = self.fused(weights)
        return self._pointwise([*self._blocks(x_t, before, fused), *per_unit], before)

    def _blocks(self, x_t: Tensor, before: States, fused: Tensor) -> tuple[Tensor, ...]:
        column = torch.cat([*before.tensors()[: self.num_feeding], x_t])
        return (fused[:, :-1] @ column + fused[:, -1]).chunk(len(self.blocks))

    def unroll(
        self,
        x_TBD: Tensor,
        start: States,
        weights: Weights,
        taps: States | None = None,
        state_threshold: float | None = None,
    ) -> States:
        """Return the states at every timestep, (T, B, H), by the textbook's step, in ordinary operations.

        It is what the fast loops compute, slower, and can be differentiated as often and in any way that torch knows.
        Of a cell that is made of its whole step a replica's are bit for bit what they would be alone: its examples are
        filled up to whole cache lines.

        Args:
            x_TBD: Inputs.
            start: States before the first timestep, (B, H).
            weights: Of one replica.
            taps: Added to the states where they are made, (T, B, H) each.
            state_threshold: Clips every example's dL/dh_t to this norm as it flows back; None leaves it alone.
        """
        if self.whole_step is None:
            fused, per_unit = self.fused(weights)

        def of_one(x_t: Tensor, before: tuple[Tensor, ...], taps_t: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            state = States(*before)
            if self.whole_step is not None:
                tapped = States(*taps_t) if taps_t else state.map(torch.zeros_like)
                return self.whole_step(x_t, state, weights, tapped)[0]
            blocks = self._blocks(x_t, state, fused)
            if not taps_t:
                return self._pointwise([*blocks, *per_unit], state)[0]
            return tuple(self.derivation.stepped(*blocks, *per_unit, *before, *taps_t))

        num_examples, missing = x_TBD.shape[1], 0 if self.whole_step is None else _num_missing(start.h)
        filled = functools.partial(_filled, missing=missing)
        batched, before, found = torch.vmap(of_one), tuple(map(filled, start.tensors())), []
        tapped = [] if taps is None else [filled(tap) for tap in taps.tensors()]
        for t, x_t in enumerate(filled(x_TBD).unbind(0)):
            h, *others = batched(x_t, before, tuple(tap[t] for tap in tapped))
            before = (h if state_threshold is None else clipped_on_its_way_back(h, state_threshold), *others)
            found.append(before)
        whole = (torch.stack(each) for each in zip(*found, strict=True))
        return States(*(each[:, :num_examples] if missing else each for each in whole))

    def unroll_dropped(
        self,
        x_TBD: Tensor,
        start: States,
        weights: Weights,
        taps: States | None,
        state_threshold: float | None,
        fed: Tensor | None,
        kept: Sequence[Tensor | float],
    ) -> States:
        """Return the states of `unroll`, (T, B, H), where some of a state is dropped on its way to the next timestep.

        A replica's are bit for bit what they would be alone: its examples are filled up to whole cache lines.

        Args:
            x_TBD: Inputs.
            start: States before the first timestep, (B, H).
            weights: Of one replica, of a cell of blocks.
            taps: Added to the states where they are made, (T, B, H) each.
            state_threshold: Clips every example's dL/dh_t to this norm as it flows back; None leaves it alone.
            fed: What the states that feed are multiplied by in front of their matrices, beside each other, (B, ...).
            kept: Of each state, the share of the one before that stays in the new one, (T, B, H) or a number.
        """
        num_examples = x_TBD.shape[1]
        filled = functools.partial(_filled, missing=_num_missing(start.h))
        fused, per_unit = self.fused(weights)
        before = tuple(map(filled, start.tensors()))
        tapped = [filled(tap) for tap in taps.tensors()] if taps is not None else []
        shares = [share if isinstance(share, float) else filled(share) for share in kept]
        masks = None if fed is None else filled(fed).chunk(self.num_feeding, dim=-1)
        found = []
        for t, x_t in enumerate(filled(x_TBD).unbind(0)):
            feeding, taps_t = before[: self.num_feeding], [tap[t] for tap in tapped]
            if masks is not None:
                feeding = tuple(state * mask for state, mask in zip(feeding, masks, strict=True))
            columns = torch.cat([*feeding, x_t], dim=1)
            blocks = (matmul(columns, fused[:, :-1].mT) + fused[:, -1]).chunk(len(self.blocks), dim=1)
            if taps_t and not shares:
                h, *others = self.derivation.stepped(*blocks, *per_unit, *before, *taps_t)
            else:
                h, *others = self._pointwise([*blocks, *per_unit], States(*before))[0]
            if shares:
                now = [share if isinstance(share, float) else share[t] for share in shares]
                mixed = [k * old + (1 - k) * new for k, old, new in zip(now, before, (h, *others), strict=True)]
                h, *others = (state + tap for state, tap in zip(mixed, taps_t, strict=True)) if taps_t else mixed
            before = (h if state_threshold is None else clipped_on_its_way_back(h, state_threshold), *others)
            found.append(before)
        return States(*(torch.stack(each)[:, :num_examples] for each in zip(*found, strict=True)))

    def unroll_flat(self, x_TBD: Tensor, *values: Tensor | None) -> tuple[Tensor, ...]:
        """Return the states of `unroll` from inputs, first states, taps (or None for each) and parameters, in a row."""
        size = len(self.states)
        start, taps, parameters = values[:size], values[size : 2 * size], values[2 * size :]
        known = [tap for tap in taps if tap is not None]
        states, weights = States(*start), Weights(*parameters)  # type: ignore[arg-type]
        return self.unroll(x_TBD, states, weights, States(*known) if known else None).tensors()


def _rows(weight: Tensor, bias: Tensor, gates: Sequence[str], blocks: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Return the rows of `gates` and their biases in the order of `blocks`; n_h and n_x are blocks of the gate n."""
    wanted = [block if block in gates else block.rpartition("_")[0] for block in blocks]
    if wanted == list(gates):
        return weight, bias
    by_gate = dict(zip(gates, zip(weight.chunk(len(gates)), bias.chunk(len(gates)), strict=True), strict=True))
    return torch.cat([by_gate[gate][0] for gate in wanted]), torch.cat([by_gate[gate][1] for gate in wanted])


def _num_missing(h_BH: Tensor) -> int:
    """Return how many examples more fill whole cache lines, two by two: torch's loops take two vectors at a time."""
    numbers = 2 * LINE // h_BH.element_size()
    return -len(h_BH) % (numbers // math.gcd(numbers, h_BH.shape[1]))


def _filled(tensor: Tensor, missing: int) -> Tensor:
    """Return a tensor (..., B, F) with its first example again at its end, `missing` times.

    One of zeros may have no derivative.
    """
    if not missing:
        return tensor
    return torch.cat([tensor, tensor.narrow(-2, 0, 1).expand(*tensor.shape[:-2], missing, -1)], dim=-2)


def _padded(tensor: Tensor, sizes: tuple[int, ...]) -> Tensor:
    return pad(tensor, sizes) if any(sizes) else tensor
