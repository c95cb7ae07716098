"""Explicit backpropagation through time for a leading replica axis, as an ordinary autograd function.

A cell's step, derived forward and backward (`derivation`), becomes two loops over time here; this module adds the
replica axis, the vmap rule and the taps. Timesteps are worked in pieces that stay in the cache: the maps of x before
the loop and the gradients of the weights after it are one product for a piece, and what a timestep needs of its
predecessor alone is left to an engine: `Eager`, in torch's operations, on any device and in any precision, or
`pipeline.core.cells.compiled`, in C.

The loops work in place, so nothing can be differentiated through them. A derivative of their gradient, or any transform
of torch.func but vmap, goes through the textbook's loop instead, which is made of ordinary operations: the same numbers
to rounding, of any order, and slower.

Shapes: T timesteps, R replicas, B batch, D input, H hidden, N timesteps of a piece, G rows of all blocks together,
Z = H · (states that feed) + D + 1 columns of the fused weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor
from torch.autograd import forward_ad

from pipeline.config.strict import require
from pipeline.core.cells import compiled
from pipeline.core.cells.derivation import Derivation

if TYPE_CHECKING:
    from pipeline.core.cells.cell import Cell

USE_EAGER = False
"""Whether the eager loops run where compiled ones could."""

PIECE_BYTES = 1 << 19
"""Of the pre-activations of one replica that are worked at a time: they, and their gradients, stay in the cache."""


@dataclass(frozen=True, kw_only=True)
class Piece:
    """Some timesteps of some replicas.

    Attributes:
        per_unit_RVH: Parameters that each unit has for itself.
        states: Of each state, before the first of the timesteps and after each, (R, N + 1, B, H).
        kept: What is kept of each timestep for the way back, (R, N, B, K, H); None where nothing is.
    """

    per_unit_RVH: Tensor
    states: Sequence[Tensor]
    kept: Tensor | None


class Engine(Protocol):
    """What runs the timesteps of a piece, one after the other.

    Attributes:
        name: As the tables of results have it.
        replicas_at_once: Whether all replicas are worked together, or one after the other.
    """

    name: str
    replicas_at_once: bool

    def padded(self, num_hidden: int) -> int:
        """Return how many columns gradients that are carried have, H of them used."""

    def forward(self, weight_RGZ: Tensor, x_RNBD: Tensor, piece: Piece, taps: Sequence[Tensor | None]) -> None:
        """Fill the states and what is kept; `taps` are (R, N, B, H) each; either all are None or none is."""

    def backward(
        self,
        weight_RGZ: Tensor,
        grad_a_RNBG: Tensor,
        piece: Piece,
        direct: Sequence[Tensor | None],
        total: Sequence[Tensor | None],
        carried: Sequence[Tensor],
        grad_per_unit_RVH: Tensor,
        num_inputs: int,
        state_threshold: float | None,
    ) -> None:
        """Go back through the timesteps.

        Args:
            weight_RGZ: The fused weights.
            grad_a_RNBG: To be filled with the gradients of the pre-activations.
            piece: As `forward` left it.
            direct: What reaches each state from the outputs, (R, N, B, H), or None.
            total: To be filled with dL/ds_t, (R, N, B, H), or None.
            carried: What reaches each state from later timesteps, (R, B, `padded(H)`); it comes out as that of the state before
                the piece.
            grad_per_unit_RVH: What is added to.
            num_inputs: D.
            state_threshold: What the norm of an example's dL/dh_t is clipped to as it flows back, or None.
        """


class Eager:
    """The loops in torch's own operations."""

    name, replicas_at_once = "eager", True

    def __init__(self, cell: Cell) -> None:
        self._cell, self._derivation = cell, cell.derivation

    def padded(self, num_hidden: int) -> int:  # noqa: D102
        return num_hidden

    def forward(self, weight_RGZ: Tensor, x_RNBD: Tensor, piece: Piece, taps: Sequence[Tensor | None]) -> None:  # noqa: D102
        (_, num_timesteps, B, D), H = x_RNBD.shape, piece.states[0].shape[-1]
        given = [tap for tap in taps if tap is not None]
        step = self._derivation.forward_tapped if given else self._derivation.forward
        per_unit = piece.per_unit_RVH.unsqueeze(2).unbind(1)
        weight_x, bias_R1G = weight_RGZ[:, :, -1 - D : -1].transpose(1, 2), weight_RGZ[:, None, :, -1].expand(-1, B, -1)
        weights_h = self._weights_h(weight_RGZ, H)
        for t in range(num_timesteps):
            a_RBG = torch.baddbmm(bias_R1G, x_RNBD[:, t], weight_x)
            before = [state[:, t] for state in piece.states]
            for weight, state in zip(weights_h, before, strict=False):
                a_RBG.narrow(2, 0, weight.shape[1]).baddbmm_(state, weight.transpose(1, 2))
            found = step(*a_RBG.split(H, dim=2), *per_unit, *before, *(tap[:, t] for tap in given))
            for state, after in zip(piece.states, found, strict=False):
                state[:, t + 1] = after
            if piece.kept is not None:
                for k, value in enumerate(found[len(piece.states) :]):
                    piece.kept[:, t, :, k] = value

    def backward(  # noqa: D102
        self,
        weight_RGZ: Tensor,
        grad_a_RNBG: Tensor,
        piece: Piece,
        direct: Sequence[Tensor | None],
        total: Sequence[Tensor | None],
        carried: Sequence[Tensor],
        grad_per_unit_RVH: Tensor,
        num_inputs: int,
        state_threshold: float | None,
    ) -> None:
        assert piece.kept is not None  # noqa: S101 - forward was asked to keep it
        H, V, S = piece.states[0].shape[-1], piece.per_unit_RVH.shape[1], len(piece.states)
        per_unit, weights_h = piece.per_unit_RVH.unsqueeze(2).unbind(1), self._weights_h(weight_RGZ, H)
        for t in reversed(range(grad_a_RNBG.shape[1])):
            for carry, grad in zip(carried, direct, strict=True):
                if grad is not None:
                    carry.add_(grad[:, t])
            if state_threshold is not None:
                clip(carried[0], state_threshold)
            before, after = ([state[:, at] for state in piece.states] for at in (t, t + 1))
            found = self._derivation.backward(*piece.kept[:, t].unbind(2), *per_unit, *before, *after, *carried)
            of_blocks, of_units, of_before, of_taps = _split(found, self._derivation.num_blocks, V, S, S)
            for block, grad in zip(grad_a_RNBG[:, t].split(H, dim=2), of_blocks, strict=True):
                block.copy_(grad)
            for v, grad in enumerate(of_units):
                grad_per_unit_RVH[:, v] += grad.sum(dim=1)
            for trace, grad in zip(total, of_taps, strict=True):
                if trace is not None:
                    trace[:, t] = grad
            for carry, grad in zip(carried, of_before, strict=True):
                carry.copy_(grad)
            for carry, weight in zip(carried, weights_h, strict=False):
                carry.baddbmm_(grad_a_RNBG[:, t].narrow(2, 0, weight.shape[1]), weight)

    def _weights_h(self, weight_RGZ: Tensor, num_hidden: int) -> list[Tensor]:
        """Return what each state that feeds is multiplied by, (R, rows, H)."""
        rows = len(self._cell.fed_by_h) * num_hidden
        feeding = range(self._cell.num_feeding if rows else 0)
        return [weight_RGZ[:, :rows, s * num_hidden : (s + 1) * num_hidden] for s in feeding]


def _split(values: Sequence[Tensor], *sizes: int) -> list[Sequence[Tensor]]:
    ends = [sum(sizes[: i + 1]) for i in range(len(sizes))]
    return [values[end - size : end] for end, size in zip(ends, sizes, strict=True)]


def clip(grad_BH: Tensor, threshold: float) -> Tensor:
    """Clip the last dimension of a gradient to a norm, in place, and return it."""
    # in float64, as `pipeline.core.clipping` does: squares overflow, and a scale rounded to float32 loses digits
    norm_B1 = torch.linalg.vector_norm(grad_BH, dim=-1, keepdim=True, dtype=torch.float64)
    return grad_BH.mul_((threshold / norm_B1).clamp_(max=1.0))


def engine_of(cell: Cell, like: Tensor) -> Engine:
    """Return the engine for tensors of this device and precision: the compiled one where it can be."""
    if like.device.type == "cpu" and like.dtype == torch.float32 and not USE_EAGER:
        sizes = (len(cell.fed_by_h), len(cell.fed_by_x), cell.num_feeding)
        return compiled.engine(cell.derivation, *sizes) or Eager(cell)
    return Eager(cell)


class Call:
    """One run of a recurrence: what its two passes share.

    Args:
        cell: With a pointwise step.
        keep: Whether there will be a way back.
        state_threshold: Clips every example's dL/dh_t to this norm as it flows back; None leaves it alone.
    """

    def __init__(self, cell: Cell, keep: bool, state_threshold: float | None) -> None:
        self.cell, self.keep, self.state_threshold = cell, keep, state_threshold
        self.states: list[Tensor] = []
        self.kept: Tensor | None = None  # for autograd to hold, see `Recurrence.setup_context`

    def forward(
        self, x_RTBD: Tensor, fused_RGZ: Tensor, per_unit_RVH: Tensor, start: Sequence[Tensor], taps: Sequence[Any]
    ) -> tuple[Tensor, ...]:
        """Return the states after every timestep, (R, T, B, H) each."""
        (R, T, B, _), H = x_RTBD.shape, start[0].shape[-1]
        self.engine = engine_of(self.cell, x_RTBD)
        self.states = [x_RTBD.new_empty(R, T + 1, B, H) for _ in start]
        for state, first in zip(self.states, start, strict=True):
            state[:, 0] = first
        self.kept = x_RTBD.new_empty(R, T, B, self.cell.derivation.num_kept, H) if self.keep else None
        for lot in self._lots(R):
            piece = self._piece(lot, slice(0, T), per_unit_RVH, self.kept)
            self.engine.forward(fused_RGZ[lot], x_RTBD[lot], piece, [None if tap is None else tap[lot] for tap in taps])
        return tuple(state[:, 1:] for state in self.states)

    def backward(
        self,
        x_RTBD: Tensor,
        fused_RGZ: Tensor,
        per_unit_RVH: Tensor,
        kept: Tensor,
        direct: Sequence[Tensor | None],
        x_needed: bool,
        taps_needed: Sequence[bool],
    ) -> tuple[Tensor | None, Tensor, Tensor, list[Tensor], list[Tensor | None]]:
        """Return the gradients of x, of the fused weights, per unit, of the first states, and of the taps."""
        (R, T, B, _), H, F = x_RTBD.shape, self.states[0].shape[-1], self.cell.num_feeding
        grad_x = torch.empty_like(x_RTBD, memory_format=torch.contiguous_format) if x_needed else None
        grad_fused, grad_per_unit = torch.zeros_like(fused_RGZ), torch.zeros_like(per_unit_RVH)
        totals = [torch.empty_like(state[:, 1:]) if needed else None for state, needed in zip(self.states, taps_needed, strict=True)]
        carried = [x_RTBD.new_zeros(R, B, self.engine.padded(H)) for _ in self.states]
        rows_h = len(self.cell.fed_by_h) * H
        first_x = fused_RGZ.shape[1] - len(self.cell.fed_by_x) * H
        for lot in self._lots(R):
            weight_x = fused_RGZ[lot, first_x:, F * H : -1]
            for n in reversed(list(self._pieces(T, B, fused_RGZ))):
                num = n.stop - n.start
                grad_a = x_RTBD.new_empty(lot.stop - lot.start, num, B, fused_RGZ.shape[1])
                self.engine.backward(
                    fused_RGZ[lot],
                    grad_a,
                    self._piece(lot, n, per_unit_RVH, kept),
                    [None if grad is None else grad[lot, n] for grad in direct],
                    [None if total is None else total[lot, n] for total in totals],
                    [carry[lot] for carry in carried],
                    grad_per_unit[lot],
                    x_RTBD.shape[-1],
                    self.state_threshold,
                )
                grad_RMG = grad_a.flatten(1, 2)
                grad_RGM = grad_RMG.transpose(1, 2)
                for s, state in enumerate(self.states[:F]):
                    before = state[lot, n].flatten(1, 2)
                    grad_fused[lot, :rows_h, s * H : (s + 1) * H].baddbmm_(grad_RGM[:, :rows_h], before)
                grad_fused[lot, first_x:, F * H : -1].baddbmm_(grad_RGM[:, first_x:], x_RTBD[lot, n].flatten(1, 2))
                grad_fused[lot, :, -1] += grad_RMG.sum(dim=1)
                if grad_x is not None:
                    grad_x[lot, n] = torch.bmm(grad_RMG[:, :, first_x:], weight_x).unflatten(1, (num, B))
        return grad_x, grad_fused, grad_per_unit, [carry[:, :, :H] for carry in carried], totals

    def _lots(self, num_replicas: int) -> Iterator[slice]:
        size = num_replicas if self.engine.replicas_at_once else 1
        return (slice(first, first + size) for first in range(0, num_replicas, size))

    def _pieces(self, num_timesteps: int, num_examples: int, fused_RGZ: Tensor) -> Iterator[slice]:
        """Of one replica's size, so that its numbers do not depend on how many there are."""
        size = max(1, PIECE_BYTES // (num_examples * fused_RGZ.shape[1] * fused_RGZ.element_size()))
        return (slice(first, min(first + size, num_timesteps)) for first in range(0, num_timesteps, size))

    def _piece(self, lot: slice, n: slice, per_unit_RVH: Tensor, kept: Tensor | None) -> Piece:
        states = [state[lot, n.start : n.stop + 1] for state in self.states]
        return Piece(per_unit_RVH=per_unit_RVH[lot], states=states, kept=None if kept is None else kept[lot, n])


class Recurrence(torch.autograd.Function):
    """A whole sequence: `(call, x, fused, per unit, *first states, *taps, *parameters) -> states`.

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
        ctx.save_for_backward(*tensors, *output, ctx.call.kept)  # outputs too: one changed in place is found out
        ctx.call.kept = None
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> Any:  # noqa: D102
        call, (*saved, kept) = ctx.call, ctx.saved_tensors
        num_states = len(call.cell.states)
        if torch.is_grad_enabled() or _is_batched():
            return None, *differentiable_backward(call, saved[: len(saved) - num_states], grads)
        x, fused, per_unit = saved[:3]
        needed = ctx.needs_input_grad
        taps_needed = needed[4 + num_states : 4 + 2 * num_states]
        grad_x, grad_fused, grad_per_unit, grad_start, totals = call.backward(
            x, fused, per_unit, kept, grads, needed[1], taps_needed
        )
        parameters = [None] * (len(saved) - 3 - 3 * num_states)
        return None, grad_x, grad_fused, grad_per_unit, *grad_start, *totals, *parameters

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], call: Call, *tensors: Any) -> Any:
        """Fold vmap's axis into the replica axis: R replicas are one call."""
        folded = [_fold(tensor, dim, info.batch_size) for tensor, dim in zip(tensors, in_dims[1:], strict=True)]
        states = Recurrence.apply(call, *folded)  # type: ignore[no-untyped-call]
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
        states = torch.vmap(call.cell.unroll_flat, in_dims=tuple(None if alias is None else 0 for alias in aliases))(*aliases)
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
    vmap = torch._C._functorch.TransformType.Vmap
    return forward_ad._current_level >= 0 or any(transform.key() != vmap for transform in transforms)


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


def _fold(argument: Any, dim: int | None, size: int) -> Any:
    if not isinstance(argument, Tensor):
        return argument
    if dim is None:
        return argument.expand(size, *argument.shape).flatten(0, 1)
    return argument.movedim(dim, 0).flatten(0, 1)
