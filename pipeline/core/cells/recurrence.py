"""Explicit backpropagation through time for a leading replica axis, as an ordinary autograd function.

A cell supplies two pure loops over time, forward and backward; this module adds the replica axis, the vmap rule and the
taps. Everything that multiplies the weights at timestep t stands in one column, u_t = [h_{t-1}; x_t; 1], so input,
recurrence and bias are one matrix product per timestep, and the gradient of the weights is one more, accumulated while
its factors are still in the cache. (Large products outside the time loop need the pre-activations of all timesteps in
memory twice; on a CPU that traffic costs more than it saves.)

The loops work in place, so nothing can be differentiated through them. A derivative of their gradient, or any transform
of torch.func but vmap, goes through the textbook's loop instead, which is made of ordinary operations: the same numbers
to rounding, of any order, and slower.

Shapes: T timesteps, R replicas, B batch, D input, H hidden, Z = H + D + 1 rows of u_t. Inside the loops the batch
is the last axis, so that a gate, a block of rows, is contiguous.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from pipeline.config.strict import require

sigmoid_backward = torch.ops.aten.sigmoid_backward.grad_input
tanh_backward = torch.ops.aten.tanh_backward.grad_input


@dataclass(kw_only=True)
class Forward:
    """The work of a cell's forward loop: it fills the h rows of `u_TRZB[1:]`.

    Attributes:
        weight_RGZ: [W_hh | W_ih | b], the gates as blocks of H rows.
        u_TRZB: u_1 .. u_T and, for h_T, one more; (T+1, R, Z, B).
        c_0: Initial cell state (R, H, B), or None where the cell has none.
        taps: Added to h_t and to c_t, (T, R, H, B) each, or None.
        num_hidden: H.
        num_kept: Timesteps whose activations are kept for the backward loop: T, or 1 when nothing is.
    """

    weight_RGZ: Tensor
    u_TRZB: Tensor
    c_0: Tensor | None
    taps: tuple[Tensor | None, Tensor | None]
    num_hidden: int
    num_kept: int

    def empty(self, num_rows: int, num_timesteps: int | None = None) -> Tensor:
        """Return an uninitialised (timesteps, R, rows, B) buffer beside `u_TRZB`."""
        _, num_replicas, _, num_examples = self.u_TRZB.shape
        kept = self.num_kept if num_timesteps is None else num_timesteps
        return self.u_TRZB.new_empty(kept, num_replicas, num_rows, num_examples)

    def timesteps(self, *kept: Tensor) -> Any:
        """Yield (t, u_t, h_t to be written, the slice of each kept buffer for t) in order of time."""
        for t, (u_t, u_next) in enumerate(zip(self.u_TRZB[:-1].unbind(0), self.u_TRZB[1:].unbind(0), strict=True)):
            yield t, u_t, u_next.narrow(1, 0, self.num_hidden), *(buffer[t % self.num_kept] for buffer in kept)


@dataclass(kw_only=True)
class Backward:
    """The work of a cell's backward loop: it turns `grad_h_TRHB` from the direct into the total gradient.

    The loop begins with `last_state_gradient` and calls `through_weights` once a timestep.

    Attributes:
        weight_RGZ: As in `Forward`.
        u_TRZB: As `Forward` left it.
        saved: What the forward loop returned.
        grad_h_TRHB: On entry the gradient that reaches h_t from the outputs; on exit dL/dh_t.
        grad_c_TRHB: The same for c_t; None where the cell has none, or where it is neither needed nor given.
        grad_x_TRDB: To be filled with dL/dx_t, or None.
        num_hidden: H.
        num_rows: Rows of `weight_RGZ` that h_{t-1} enters, the first ones.
        state_threshold: What the norm of an example's dL/dh_t is clipped to as it flows back, or None.
    """

    weight_RGZ: Tensor
    u_TRZB: Tensor
    saved: Sequence[Tensor]
    grad_h_TRHB: Tensor
    grad_c_TRHB: Tensor | None
    grad_x_TRDB: Tensor | None
    num_hidden: int
    num_rows: int
    state_threshold: float | None

    def __post_init__(self) -> None:
        self.grad_weight_RGZ, H = torch.zeros_like(self.weight_RGZ), self.num_hidden
        self._grad_rows = self.grad_weight_RGZ[:, : self.num_rows]
        self._Wh_T = self.weight_RGZ[:, : self.num_rows, :H].transpose(1, 2)
        self._Wx_T = self.weight_RGZ[:, :, H:-1].transpose(1, 2)

    def last_state_gradient(self) -> Tensor:
        """Return dL/dh_T, where the loop begins."""
        return self._clipped(self.grad_h_TRHB[-1])

    def through_weights(self, t: int, grad_a: Tensor, grad_h_carry: Tensor | None = None) -> Tensor:
        """Add to the gradient of the weights, fill dL/dx_t, and return dL/dh_{t-1}.

        The last is what reached h_{t-1} directly, plus `grad_h_carry`, plus what comes through the weights.

        Args:
            t: Timestep, counted from 0.
            grad_a: dL/d(pre-activations of t), (R, G, B).
            grad_h_carry: A path from h_t to h_{t-1} around the weights, or None.
        """
        rows = grad_a.narrow(1, 0, self.num_rows)
        self._grad_rows.baddbmm_(rows, self.u_TRZB[t].transpose(1, 2))
        if self.grad_x_TRDB is not None:
            torch.bmm(self._Wx_T, grad_a, out=self.grad_x_TRDB[t])
        if t == 0:
            grad = torch.bmm(self._Wh_T, rows)
            return grad if grad_h_carry is None else grad.add_(grad_h_carry)
        grad = self.grad_h_TRHB[t - 1]
        if grad_h_carry is not None:
            grad.add_(grad_h_carry)
        return self._clipped(torch.baddbmm(grad, self._Wh_T, rows, out=grad))

    def _clipped(self, grad_RHB: Tensor) -> Tensor:
        if self.state_threshold is None:
            return grad_RHB
        # in float64, as `pipeline.core.clipping` does: squares overflow, and a scale rounded to float32 loses digits
        norm_R1B = torch.linalg.vector_norm(grad_RHB, dim=1, keepdim=True, dtype=torch.float64)
        return grad_RHB.mul_((self.state_threshold / norm_R1B).clamp_(max=1.0))


ForwardLoop = Callable[[Forward], tuple[Tensor, ...]]
"""Fills h and returns what the backward loop needs; of a cell with a cell state first c_0 .. c_T, (T + 1, R, H, B)."""
BackwardLoop = Callable[[Backward], tuple[Tensor, Tensor | None]]
"""Returns the gradients of h_0 and of c_0, (R, H, B); that of the weights is left in `grad_weight_RGZ`."""


def swapped(tensor: Tensor) -> Tensor:
    """Return (R, T, B, F), the layout outside, as a (T, R, F, B) view, the layout of the loops; or the other way."""
    return tensor.permute(1, 0, 3, 2)


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


def recurrence(
    forward_loop: ForwardLoop,
    backward_loop: BackwardLoop,
    unroll: Callable[..., tuple[Tensor, ...]],
    num_states: int,
    num_gates: int,
) -> type[torch.autograd.Function]:
    """Return the autograd function of a whole sequence.

    Its arguments are `(x, weight, h_0, c_0, tap_h, tap_c, keep, state_threshold, *parameters)` of shapes (R, T, B, D),
    (R, G, Z), (R, B, H), (R, B, H), (R, T, B, H), (R, T, B, H); c_0 and the taps may be None. The parameters are what
    `weight` was fused of, R leading: the first gradient flows through `weight`, one that is to be differentiated again
    through them. It returns `(h, c, *kept)`, h and c of shape (R, T, B, H), c an empty tensor where the cell has a
    single state. The gradient of a tap is dL/dh_t (dL/dc_t). With a `state_threshold` every example's dL/dh_t is
    clipped to that norm as it flows back, so what comes out is no longer the gradient of the loss.

    Args:
        forward_loop: The cell's loop forward in time.
        backward_loop: The cell's loop backward in time.
        unroll: The textbook's loop of one replica, `(x, h_0, c_0, tap_h, tap_c, *parameters) -> states`.
        num_states: 1 for h alone, 2 for h and c.
        num_gates: Blocks of H rows of the weights that h_{t-1} enters, the first ones.
    """

    def differentiable_backward(ctx: Any, grad_h: Tensor | None, grad_c: Tensor | None) -> tuple[Tensor | None, ...]:
        """Return the gradients by differentiating the textbook's loop, so that they can be differentiated again."""
        refuse_clipping(ctx.state_threshold)
        _, x, h_0, c_0, *rest = ctx.saved_tensors
        u, *kept = rest[2 + ctx.num_parameters :]
        if x is None:  # a constant, and as good as what it was copied to
            x = swapped(u[:-1, :, ctx.num_hidden : -1])
        if h_0 is None:
            h_0 = u[0, :, : ctx.num_hidden].transpose(1, 2)
        if c_0 is None and num_states > 1:
            c_0 = kept[0][0].transpose(1, 2)
        again, tensors = torch.is_grad_enabled(), (x, h_0, c_0, *rest[: 2 + ctx.num_parameters])
        with torch.enable_grad():
            # aliases: where one of them was made from another, the path between them is not this function's
            aliases: list[Any] = [None if tensor is None else tensor.view_as(tensor) for tensor in tensors]
            states = torch.vmap(unroll, in_dims=tuple(None if alias is None else 0 for alias in aliases))(*aliases)
            reached = [(s, grad) for s, grad in zip(states, (grad_h, grad_c), strict=False) if grad is not None]
            wanted = [index for index, alias in enumerate(aliases) if alias is not None and alias.requires_grad]
            found = torch.autograd.grad(
                [state for state, _ in reached],
                [aliases[index] for index in wanted],
                [grad for _, grad in reached],
                create_graph=again,
                allow_unused=True,
            )
        by_index = dict(zip(wanted, found, strict=True))
        grad_x, *grads = (by_index.get(index) for index in range(len(aliases)))
        return grad_x, None, *grads[:4], None, None, *grads[4:]

    class Recurrence(torch.autograd.Function):
        @staticmethod
        def forward(  # noqa: D102
            x: Tensor,
            weight: Tensor,
            h_0: Tensor,
            c_0: Tensor | None,
            tap_h: Tensor | None,
            tap_c: Tensor | None,
            keep: bool,
            state_threshold: float | None,
            *parameters: Tensor,
        ) -> tuple[Tensor, ...]:
            num_hidden, num_timesteps = h_0.shape[-1], x.shape[1]
            u = _augmented_state(x, h_0)
            run = Forward(
                weight_RGZ=weight,
                u_TRZB=u,
                c_0=None if c_0 is None else c_0.transpose(1, 2),
                taps=(None if tap_h is None else swapped(tap_h), None if tap_c is None else swapped(tap_c)),
                num_hidden=num_hidden,
                num_kept=num_timesteps if keep else 1,
            )
            kept = forward_loop(run)
            h = swapped(u[1:, :, :num_hidden])
            c = swapped(kept[0][1:]) if num_states > 1 else u.new_empty(x.shape[0], 0)
            return h, c, u, *kept

        @staticmethod
        def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:  # noqa: D102
            _, _, u, *kept = output
            x, weight, h_0, c_0, tap_h, tap_c, _, _, *parameters = inputs
            ctx.mark_non_differentiable(u, *kept, *((output[1],) if num_states == 1 else ()))
            trained = (tensor if tensor is not None and tensor.requires_grad else None for tensor in (x, h_0, c_0))
            ctx.save_for_backward(weight, *trained, tap_h, tap_c, *parameters, u, *kept)
            ctx.num_parameters = len(parameters)
            ctx.set_materialize_grads(False)
            ctx.num_hidden = inputs[2].shape[-1]
            ctx.input_size = inputs[0].shape[-1]
            ctx.state_threshold = inputs[7]

        @staticmethod
        def backward(ctx: Any, grad_h: Tensor | None, grad_c: Tensor | None, *_: Any) -> Any:  # noqa: D102
            if torch.is_grad_enabled() or _is_batched():
                return differentiable_backward(ctx, grad_h, grad_c)
            weight, *rest = ctx.saved_tensors
            u, *saved = rest[5 + ctx.num_parameters :]
            x_needed, _, _, _, tap_h_needed, tap_c_needed, *_ = ctx.needs_input_grad
            shape = (u.shape[0] - 1, u.shape[1], ctx.num_hidden, u.shape[3])
            grads = Backward(
                weight_RGZ=weight,
                u_TRZB=u,
                saved=saved,
                grad_h_TRHB=_own_copy(grad_h, u, shape),
                grad_c_TRHB=_own_copy(grad_c, u, shape) if grad_c is not None or tap_c_needed else None,
                grad_x_TRDB=u.new_empty(shape[0], shape[1], ctx.input_size, shape[3]) if x_needed else None,
                num_hidden=ctx.num_hidden,
                num_rows=num_gates * ctx.num_hidden,
                state_threshold=ctx.state_threshold,
            )
            grad_h_0, grad_c_0 = backward_loop(grads)
            return (
                None if grads.grad_x_TRDB is None else swapped(grads.grad_x_TRDB),
                grads.grad_weight_RGZ,
                grad_h_0.transpose(1, 2),
                None if grad_c_0 is None else grad_c_0.transpose(1, 2),
                swapped(grads.grad_h_TRHB) if tap_h_needed else None,
                swapped(grads.grad_c_TRHB) if tap_c_needed and grads.grad_c_TRHB is not None else None,
                *[None] * (2 + ctx.num_parameters),
            )

        @staticmethod
        def vmap(info: Any, in_dims: tuple[Any, ...], *args: Any) -> Any:
            """Fold vmap's axis into the replica axis: R replicas are one call."""
            folded = [_fold(arg, dim, info.batch_size) for arg, dim in zip(args, in_dims, strict=True)]
            h, c, *kept = Recurrence.apply(*folded)  # type: ignore[no-untyped-call]
            outside = [tensor.unflatten(0, (info.batch_size, -1)) for tensor in (h, c)]
            inside = [tensor.unflatten(1, (info.batch_size, -1)) for tensor in kept]
            return (*outside, *inside), (0, 0, *([1] * len(inside)))

    return Recurrence


def _augmented_state(x: Tensor, h_0: Tensor) -> Tensor:
    num_replicas, num_timesteps, num_examples, num_inputs = x.shape
    num_hidden = h_0.shape[-1]
    u = x.new_empty(num_timesteps + 1, num_replicas, num_hidden + num_inputs + 1, num_examples)
    u[:-1, :, num_hidden:-1] = swapped(x)
    u[:, :, -1] = 1.0
    u[0, :, :num_hidden] = h_0.transpose(1, 2)
    return u


def _own_copy(grad_RTBH: Tensor | None, like: Tensor, shape: tuple[int, ...]) -> Tensor:
    if grad_RTBH is None:
        return like.new_zeros(shape)
    return swapped(grad_RTBH).clone(memory_format=torch.contiguous_format)


def _fold(argument: Any, dim: int | None, size: int) -> Any:
    if not isinstance(argument, Tensor):
        return argument
    if dim is None:
        return argument.expand(size, *argument.shape).flatten(0, 1)
    return argument.movedim(dim, 0).flatten(0, 1)
