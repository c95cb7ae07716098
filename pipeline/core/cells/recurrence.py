"""Explicit backpropagation through time for a leading replica axis, as an ordinary autograd function.

A cell's step, derived forward and backward (`derivation`), becomes two loops over time here; this module adds the
replica axis, the vmap rule and the taps. Timesteps are worked in pieces that stay in the cache: the maps of x before
the loop and the gradients of the weights after it are one product for a piece, and what a timestep needs of its
predecessor alone is left to an engine: `Eager`, in torch's operations, on any device and in any precision;
`pipeline.core.cells.compiled`, in C; or `pipeline.core.cells.captured`, the eager one in a CUDA graph.

The loops work in place, so nothing can be differentiated through them. A derivative of their gradient, or any transform
of torch.func but vmap, goes through the textbook's loop instead, which is made of ordinary operations: the same numbers
to rounding, of any order, and slower.

Shapes: T timesteps, R replicas, B batch, D input, H hidden, N timesteps of a piece, G rows of all blocks together,
Z = H · (states that feed) + D + 1 columns of the fused weights.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor
from torch.autograd import forward_ad

from pipeline.config.strict import require
from pipeline.core.cells import compiled
from pipeline.core.cells.captured import GRAPHS, Captured
from pipeline.core.cells.memory import LINE, Loan, aligned, by_replica, folded, new, product
from pipeline.core.cells.products import VMAP

if TYPE_CHECKING:
    from pipeline.core.cells.cell import Cell

USE_EAGER = False
"""Whether the eager loops run where compiled or captured ones could."""

PIECE_BYTES = 1 << 19
"""Of the gradients of one replica's pre-activations that the eager loops add to those of the weights at once."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """A recurrence of R replicas over T timesteps.

    Attributes:
        x: Inputs, (R, T, B, D).
        weight: Fused weights, (R, G, Z).
        per_unit: Parameters that each unit has for itself, (R, V, H).
        states: Of each state, before the first timestep and after each, (R, T + 1, B, H).
        kept: What each timestep keeps for the way back, (R, T, B, K, H); None where nothing is.
    """

    x: Tensor
    weight: Tensor
    per_unit: Tensor
    states: Sequence[Tensor]
    kept: Tensor | None


@dataclass(frozen=True, kw_only=True)
class Gradients:
    """What goes into the way back, and the places for what comes out.

    Attributes:
        direct: In: what reaches each state from the outputs, (R, T, B, H), or None.
        ends: In: what reaches each state after the last timestep besides, (R, B, H), or None.
        state_threshold: In: what the norm of an example's dL/dh_t is clipped to as it flows back, or None.
        total: Out: dL/ds_t of each state, (R, T, B, H), or None where it is not wanted.
        start: Out: of each state before the first timestep, (R, B, H).
        x: Out: (R, T, B, D), or None where it is not wanted.
        weight: Out: of the fused weights; zeros before. Where a state or x does not feed a row, any number may stand.
        per_unit: Out; zeros before.
    """

    direct: Sequence[Tensor | None]
    ends: Sequence[Tensor | None]
    state_threshold: float | None
    total: Sequence[Tensor | None]
    start: Sequence[Tensor]
    x: Tensor | None
    weight: Tensor
    per_unit: Tensor


class Engine(Protocol):
    """What runs the timesteps, one after the other."""

    @property
    def name(self) -> str:
        """As the tables of results have it."""

    def forward(self, run: Run, taps: Sequence[Tensor | None]) -> None:
        """Fill the states and what is kept; `taps` are (R, T, B, H) each; either all are None or none is."""

    def backward(self, run: Run, grads: Gradients) -> None:
        """Go back through the timesteps, and fill the gradients that are wanted."""


class Eager:
    """The loops in torch's own operations, on any device and in any precision."""

    name = "eager"

    def __init__(self, cell: Cell) -> None:
        self._cell, self._derivation = cell, cell.derivation

    def forward(self, run: Run, taps: Sequence[Tensor | None]) -> None:  # noqa: D102
        (_, num_timesteps, B, D), H = run.x.shape, run.states[0].shape[-1]
        given = [tap for tap in taps if tap is not None]
        step = self._derivation.forward_tapped if given else self._derivation.forward
        per_unit, weights_h, x = run.per_unit.unsqueeze(2).unbind(1), self._weights_h(run), aligned(run.x)
        weight_x = aligned(run.weight[:, :, -1 - D : -1].transpose(1, 2))
        bias_RBG = run.weight[:, None, :, -1].expand(-1, B, -1)
        a_RBG = by_replica(x, *bias_RBG.shape)
        for t in range(num_timesteps):
            torch.baddbmm(bias_RBG, x[:, t], weight_x, out=a_RBG)
            before = [state[:, t] for state in run.states]
            for weight, state in zip(weights_h, before, strict=False):
                a_RBG.narrow(2, 0, weight.shape[1]).baddbmm_(state, weight.transpose(1, 2))
            found = _each(step, *a_RBG.split(H, dim=2), *per_unit, *before, *(tap[:, t] for tap in given))
            for state, after in zip(run.states, found, strict=False):
                state[:, t + 1] = after
            if run.kept is not None:
                for k, value in enumerate(found[len(run.states) :]):
                    run.kept[:, t, :, k] = value

    def backward(self, run: Run, grads: Gradients) -> None:  # noqa: D102
        (R, num_timesteps, B, D), (_, G, _), H = run.x.shape, run.weight.shape, run.states[0].shape[-1]
        first_x = G - len(self._cell.fed_by_x) * H
        weights_h, weight_x, x = self._weights_h(run), aligned(run.weight[:, first_x:, -1 - D : -1]), aligned(run.x)
        carried = [start.zero_() for start in grads.start]
        for carry, end in zip(carried, grads.ends, strict=True):
            if end is not None:
                carry.add_(end)
        piece = max(1, PIECE_BYTES // max(1, B * G * run.x.element_size()))  # of one replica's size, however many
        for stop in range(num_timesteps, 0, -piece):
            now = slice(max(0, stop - piece), stop)
            grad_RNBG = by_replica(run.x, R, now.stop - now.start, B, G)
            for t in reversed(range(now.start, now.stop)):
                self._step_back(t, run, grads, carried, grad_RNBG[:, t - now.start], weights_h)
            grad_RMG = grad_RNBG.flatten(1, 2)
            grad_RGM = grad_RMG.transpose(1, 2)
            for s, weight in enumerate(weights_h):
                before, rows = run.states[s][:, now].flatten(1, 2), weight.shape[1]
                grads.weight[:, :rows, s * H : (s + 1) * H] += product(grad_RGM[:, :rows], before)
            grads.weight[:, first_x:, -1 - D : -1] += product(grad_RGM[:, first_x:], x[:, now].flatten(1, 2))
            grads.weight[:, :, -1] += grad_RMG.sum(dim=1)
            if grads.x is not None:
                grads.x[:, now] = product(grad_RMG[:, :, first_x:], weight_x).unflatten(1, (now.stop - now.start, B))

    def _step_back(
        self,
        t: int,
        run: Run,
        grads: Gradients,
        carried: Sequence[Tensor],
        grad_a_RBG: Tensor,
        weights_h: Sequence[Tensor],
    ) -> None:
        """Go back through timestep t: fill the gradient of its pre-activations, and carry that of the states on."""
        assert run.kept is not None  # noqa: S101 - forward was asked to keep it
        H, V, S = run.states[0].shape[-1], run.per_unit.shape[1], len(run.states)
        for carry, grad in zip(carried, grads.direct, strict=True):
            if grad is not None:
                carry.add_(grad[:, t])
        if grads.state_threshold is not None:
            clip(carried[0], grads.state_threshold)
        before, after = ([state[:, at] for state in run.states] for at in (t, t + 1))
        known = (*run.kept[:, t].unbind(2), *run.per_unit.unsqueeze(2).unbind(1), *before, *after)
        found = _each(self._derivation.backward, *known, *carried)
        of_blocks, of_units, of_before, of_taps = _split(found, self._derivation.num_blocks, V, S, S)
        for block, grad in zip(grad_a_RBG.split(H, dim=2), of_blocks, strict=True):
            block.copy_(grad)
        for v, grad in enumerate(of_units):
            grads.per_unit[:, v] += grad.sum(dim=1)
        for trace, grad in zip(grads.total, of_taps, strict=True):
            if trace is not None:
                trace[:, t] = grad
        # a gradient may be one of those that came in, as it is, and these are written over
        apart = [grad.clone() if any(grad is carry for carry in carried) else grad for grad in of_before]
        for carry, grad in zip(carried, apart, strict=True):
            carry.copy_(grad)
        for carry, weight in zip(carried, weights_h, strict=False):
            carry.baddbmm_(grad_a_RBG.narrow(2, 0, weight.shape[1]), weight)

    def _weights_h(self, run: Run) -> list[Tensor]:
        """Return what each state that feeds is multiplied by, (R, rows, H)."""
        H = run.states[0].shape[-1]
        rows = len(self._cell.fed_by_h) * H
        return [aligned(run.weight[:, :rows, s * H : (s + 1) * H]) for s in range(self._cell.num_feeding)]


def _each(step: Callable[..., Sequence[Tensor]], *values_RBH: Tensor) -> Sequence[Tensor]:
    """Return what a pointwise step makes of blocks and states, the same for a replica whatever stands before it."""
    first = values_RBH[0]
    # torch works two vectors at a time, and by other functions what is left over at the end
    if first.device.type != "cpu" or not first[0].numel() * first.element_size() % (2 * LINE):
        return step(*values_RBH)
    found = [step(*(value[r : r + 1] for value in values_RBH)) for r in range(len(first))]
    return [torch.cat(each) for each in zip(*found, strict=True)]


def _split(values: Sequence[Tensor], *sizes: int) -> list[Sequence[Tensor]]:
    ends = [sum(sizes[: i + 1]) for i in range(len(sizes))]
    return [values[end - size : end] for end, size in zip(ends, sizes, strict=True)]


def clip(grad_BH: Tensor, threshold: float) -> Tensor:
    """Clip the last dimension of a gradient to a norm, in place, and return it."""
    # in float64, as `pipeline.core.clipping` does: squares overflow, and a scale rounded to float32 loses digits
    norm_B1 = torch.linalg.vector_norm(grad_BH, dim=-1, keepdim=True, dtype=torch.float64)
    return grad_BH.mul_((threshold / norm_B1).clamp(max=1.0))


def engine_of(cell: Cell, like: Tensor) -> Engine:
    """Return the engine for tensors of this device and precision: on a GPU the captured one, else in C if it can be."""
    if USE_EAGER:
        return Eager(cell)
    if like.device.type == "cuda":
        return _captured(cell)
    if like.device.type == "cpu" and like.dtype == torch.float32:
        sizes = (len(cell.fed_by_h), len(cell.fed_by_x), cell.num_feeding)
        return compiled.engine(cell.derivation, *sizes) or Eager(cell)
    return Eager(cell)


@functools.cache
def _captured(cell: Cell) -> Captured:
    return Captured(Eager(cell), GRAPHS)


def kernel_of(cell: Cell, like: Tensor) -> str:
    """Return what runs a cell for tensors like this one, as the tables of results name it."""
    return engine_of(cell, like).name if cell.whole_step is None else "autograd"


class Call:
    """One use of a recurrence: what its two passes share.

    Args:
        cell: With a pointwise step.
        keep: Whether there will be a way back.
        state_threshold: Clips every example's dL/dh_t to this norm as it flows back; None leaves it alone.
    """

    def __init__(self, cell: Cell, keep: bool, state_threshold: float | None) -> None:
        self.cell, self.keep, self.state_threshold = cell, keep, state_threshold

    def forward(
        self, x: Tensor, weight: Tensor, per_unit: Tensor, start: Sequence[Tensor], taps: Sequence[Tensor | None]
    ) -> tuple[Tensor, ...]:
        """Return the states after every timestep, (R, T, B, H) each, and once more after the last one, (R, B, H) each.

        What is made of the latter alone has a gradient of their size, and not of that of a whole sequence.
        """
        (R, T, B, _), H = x.shape, start[0].shape[-1]
        states = [by_replica(x, R, T + 1, B, H) for _ in start]
        for state, first in zip(states, start, strict=True):
            state[:, 0] = first
        kept = self._room(x, R, T, B, self.cell.derivation.num_kept, H) if self.keep else None
        self.engine = engine_of(self.cell, x)
        self.run = Run(x=x, weight=weight, per_unit=per_unit, states=states, kept=kept)
        self.engine.forward(self.run, taps)
        return (*(state[:, 1:] for state in states), *(state[:, -1].clone() for state in states))

    def _room(self, like: Tensor, *shape: int) -> Tensor:
        """Return memory for what is kept: on a CPU lent for as long as autograd, or whoever, has it."""
        if like.device.type != "cpu" or not torch.Size(shape).numel():
            return like.new_empty(shape)
        return Loan(like, *shape).tensor

    def backward(
        self, kept: Tensor, reached: Sequence[Tensor | None], x_needed: bool, totals_needed: Sequence[bool]
    ) -> Gradients:
        """Return every gradient, from those of what `forward` returned."""
        run, num_states = replace(self.run, kept=kept), len(self.cell.states)
        totals = zip(run.states, totals_needed, strict=True)
        R, T, B, H = direct_shape = run.states[0][:, 1:].shape
        grads = Gradients(
            direct=reached[:num_states],
            ends=reached[num_states:],
            state_threshold=self.state_threshold,
            total=[new(state, *direct_shape) if needed else None for state, needed in totals],
            start=[by_replica(state, R, B, H) for state in run.states],
            x=new(run.x, *run.x.shape) if x_needed else None,
            weight=run.weight.new_zeros(run.weight.shape),
            per_unit=run.per_unit.new_zeros(run.per_unit.shape),
        )
        self.engine.backward(run, grads)
        return grads


class Recurrence(torch.autograd.Function):
    """A whole sequence: `(call, x, fused, per unit, *first states, *taps, *parameters) -> states`, and their ends.

    Shapes: x (R, T, B, D), fused (R, G, Z), per unit (R, V, H), first states (R, B, H), taps and states (R, T, B, H);
    taps may be None. The parameters are what the fused weights were made of, R leading: the first gradient flows
    through the latter, one that is to be differentiated again through the former. The gradient of a tap is dL/ds_t.
    With a `state_threshold` every example's dL/dh_t is clipped to that norm as it flows back, so what comes out is no
    longer the gradient of the loss.
    """

    @staticmethod
    def forward(call: Call, x: Tensor, fused: Tensor, per_unit: Tensor, *rest: Any) -> tuple[Tensor, ...]:  # noqa: D102
        num_states = len(call.cell.states)
        return call.forward(x, fused, per_unit, rest[:num_states], rest[num_states : 2 * num_states])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:  # noqa: D102
        ctx.call, *tensors = inputs
        states = output[: len(ctx.call.cell.states)]
        kept = ctx.call.run.kept  # autograd holds it, and lets go of it after the way back
        ctx.call.run = replace(ctx.call.run, kept=None)
        ctx.save_for_backward(*tensors, *states, kept)  # outputs too: one changed in place is found out
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> Any:  # noqa: D102
        call, (*saved, kept) = ctx.call, ctx.saved_tensors
        num_states = len(call.cell.states)
        if torch.is_grad_enabled() or _is_batched():
            return None, *differentiable_backward(call, saved[: len(saved) - num_states], grads)
        needed = ctx.needs_input_grad
        found = call.backward(kept, grads, needed[1], needed[4 + num_states : 4 + 2 * num_states])
        parameters = [None] * (len(saved) - 3 - 3 * num_states)
        return None, found.x, found.weight, found.per_unit, *found.start, *found.total, *parameters

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], call: Call, *tensors: Any) -> Any:
        """Fold vmap's axis into the replica axis: R replicas are one call."""
        within = [folded(tensor, dim, info.batch_size) for tensor, dim in zip(tensors, in_dims[1:], strict=True)]
        states = Recurrence.apply(call, *within)  # type: ignore[no-untyped-call]
        return tuple(state.unflatten(0, (info.batch_size, -1)) for state in states), (0,) * len(states)


def differentiable_backward(
    call: Call, saved: Sequence[Tensor | None], grads: Sequence[Tensor | None]
) -> tuple[Tensor | None, ...]:
    """Return the gradients by differentiating the textbook's loop, so that they can be differentiated again."""
    refuse_clipping(call.state_threshold)
    x, _, _, *rest = saved
    again, tensors = torch.is_grad_enabled(), (x, *rest)
    with torch.enable_grad():
        # aliases: where one of them was made from another, the path between them is not this function's
        aliases: list[Any] = [None if tensor is None else tensor.view_as(tensor) for tensor in tensors]
        states = torch.vmap(call.cell.unroll_flat, in_dims=tuple(None if alias is None else 0 for alias in aliases))(
            *aliases
        )
        states = (*states, *(state[:, -1] for state in states))
        reached = [(state, grad) for state, grad in zip(states, grads, strict=True) if grad is not None]
        wanted = [index for index, alias in enumerate(aliases) if alias is not None and alias.requires_grad]
        found = torch.autograd.grad(
            [state for state, _ in reached],
            [aliases[index] for index in wanted],
            [grad for _, grad in reached],
            create_graph=again,
            allow_unused=True,
        )
    by_index = dict(zip(wanted, found, strict=True))
    grad_x, *others = (by_index.get(index) for index in range(len(aliases)))
    return grad_x, None, None, *others


class _ClippedOnItsWayBack(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(h_BH: Tensor, threshold: float) -> Tensor:  # noqa: D102
        return h_BH.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: D102
        ctx.threshold = inputs[1]

    @staticmethod
    def backward(ctx: Any, grad_BH: Tensor) -> tuple[Tensor, None]:  # noqa: D102
        return clip(grad_BH.clone(), ctx.threshold), None


def clipped_on_its_way_back(h_BH: Tensor, threshold: float) -> Tensor:
    """Return h, whose gradient is clipped to this norm, example by example."""
    clipped: Tensor = _ClippedOnItsWayBack.apply(h_BH, threshold)  # type: ignore[no-untyped-call]
    return clipped


def is_transformed() -> bool:
    """Return whether derivatives are being taken by torch.func (grad, jacrev, jvp, …) or forward in mode."""
    transforms = torch._C._functorch.get_interpreter_stack() or []
    return forward_ad._current_level >= 0 or any(transform.key() != VMAP for transform in transforms)


def _is_batched() -> bool:
    """Return whether a vmap is at work, torch.func's or that of autograd's batched gradients."""
    nested = torch._C._vmapmode_increment_nesting()
    torch._C._vmapmode_decrement_nesting()
    return nested > 1 or bool(torch._C._functorch.get_interpreter_stack())


def refuse_clipping(state_threshold: float | None) -> None:
    """Refuse to differentiate a gradient that is clipped on its way.

    Raises:
        InvalidFieldError: If it is.
    """
    expected = "None here: a gradient that is clipped inside the recurrence is no derivative, and has none"
    require(state_threshold is None, "state_threshold", expected, state_threshold)
