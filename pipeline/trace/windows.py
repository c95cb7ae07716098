"""Truncated backpropagation through time in a loop of one's own, and how wrong its gradient is.

Shapes: T timesteps along the dimension that `windows` is given, P numbers in all parameters together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from pipeline.core.clipping import compare, norms
from pipeline.core.training.schedule import Truncation, Windows
from pipeline.trace.tracing import TraceError

Recurrent = Callable[[Tensor, Any], tuple[Tensor, Any]]
"""Inputs and the states before them (None: those it begins with) -> outputs of each timestep, and the states after."""


class Bias(NamedTuple):
    """How far the gradient through the newest timesteps is from the one through all.

    Attributes:
        backward_length: How many of the newest timesteps it flows back through.
        cosine: Between both; NaN where one of them is zero.
        relative_error: ‖truncated - whole‖ / ‖whole‖; NaN where the whole one is zero.
    """

    backward_length: int
    cosine: float
    relative_error: float


@dataclass
class Window:
    """The timesteps of one update.

    Attributes:
        inputs: Those that are run, the newest k2 or, at the beginning, fewer.
        start: The first of them in the sequence, counted from 0.
        stop: The timestep after the last.
        num_scored: How many of the newest the loss is of: k1, at the end perhaps fewer.
        weight: Their share of the sequence: what to weigh a mean loss by if every timestep is to weigh the same.
        state: Before the first timestep, nothing flows back into it; None where the sequence begins.
        final: After the last timestep, with its history; None before `run`.
    """

    inputs: Tensor
    start: int
    stop: int
    num_scored: int
    weight: float
    state: Any
    final: Any = None
    _sequence: Tensor | None = None
    _dim: int = 0
    _carry: int = 0
    _following: Any = None
    _was_run: bool = False

    def run(self, model: Recurrent) -> Tensor:
        """Return the outputs of the timesteps that are scored, and carry the state on to the next window.

        Args:
            model: Called as `model(inputs, state)`, as `nn.LSTM` is; twice where the next window begins in this one.
        """
        first, rest = (self.inputs[self._along(part)] for part in (slice(self._carry), slice(self._carry, None)))
        state, outputs = self.state, list[Tensor]()
        for part in (first, rest):
            if part.shape[self._dim]:
                made, state = model(part, state)
                outputs.append(made)
            if part is first:
                self._following = _detached(state)
        self.final, self._was_run = state, True
        return torch.cat(outputs, dim=self._dim)[self._along(slice(-self.num_scored, None))]

    def of(self, whole: Tensor) -> Tensor:
        """Return the scored timesteps of something as long as the sequence, such as its targets."""
        return whole[self._along(slice(self.stop - self.num_scored, self.stop))]

    def bias(
        self,
        model: Recurrent,
        loss: Callable[[Tensor], Tensor],
        lengths: Sequence[int] = (),
        parameters: Iterable[Tensor] | None = None,
    ) -> list[Bias]:
        """Return how wrong this window's gradient is, beside the one through all timesteps since the sequence began.

        Both are of this window's loss at the present parameters; a state that is held fixed is computed with them, too.
        It costs as much as the whole sequence up to here, and changes nothing. Dropout would fall differently in both.

        Args:
            model: As for `run`.
            loss: Of the outputs of the scored timesteps.
            lengths: Of the gradient's way back, `num_scored` at least; by default that of this window.
            parameters: Whose gradient is compared; by default all of the model's that want one.

        Raises:
            TraceError: If a length is out of range, or the model is no module and no parameters are given.
        """
        if parameters is None and not isinstance(model, nn.Module):
            raise TraceError("bias: expected `parameters`, since the model is a function, not a module")
        given = model.parameters() if parameters is None and isinstance(model, nn.Module) else parameters or ()
        wanted = [parameter for parameter in given if parameter.requires_grad]
        chosen = sorted({*(lengths or [self.stop - self.start])})
        if not all(self.num_scored <= length <= self.stop for length in chosen):
            raise TraceError(f"bias: expected lengths from {self.num_scored} to {self.stop}, got {list(lengths)}")
        whole_P = self._gradient(model, loss, self.stop, wanted)
        found = []
        for length in chosen:
            grad_P = self._gradient(model, loss, length, wanted)
            error = norms(grad_P - whole_P) / norms(whole_P)
            found.append(Bias(length, compare(whole_P, grad_P).clip_cosine.item(), error.item()))
        return found

    def _gradient(
        self, model: Recurrent, loss: Callable[[Tensor], Tensor], length: int, parameters: Sequence[Tensor]
    ) -> Tensor:
        """Return the gradient through the newest `length` timesteps, (1, P)."""
        assert self._sequence is not None  # noqa: S101 - `windows` gives it
        state, cut = None, self.stop - length
        if cut:
            with torch.no_grad():
                _, state = model(self._sequence[self._along(slice(cut))], None)
        outputs, _ = model(self._sequence[self._along(slice(cut, self.stop))], state)
        of_loss = loss(outputs[self._along(slice(-self.num_scored, None))])
        grads = torch.autograd.grad(of_loss, parameters, allow_unused=True, materialize_grads=True)
        return torch.cat([grad.flatten() for grad in grads])[None]

    def _along(self, part: slice) -> tuple[slice, ...]:
        return (*[slice(None)] * self._dim, part)


def windows(sequence: Tensor, k1: int, k2: int | None = None, *, dim: int = 0) -> Iterator[Window]:
    """Yield the windows of TBPTT(k1, k2): an update every k1 timesteps, backward through the newest k2.

    A window is run under the present parameters from a state that was carried. One update is made of one window:

        for window in windows(x, k1=20, k2=60):
            loss = criterion(window.run(lstm), window.of(targets))

    Args:
        sequence: Inputs, with timesteps along `dim`.
        k1: Timesteps between updates.
        k2: Timesteps that a gradient flows back through, at least k1; by default k1.
        dim: Of time: 0, or 1 where the batch is first.

    Raises:
        InvalidFieldError: If k1 or k2 is out of range.
        TraceError: If a window was not run before the next one is asked for, so that there is no state to carry.
    """
    num_timesteps = sequence.shape[dim]
    schedule = Windows(Truncation(update_every=k1, backward_length=k1 if k2 is None else k2), num_timesteps, "every")
    state = None
    for at in range(schedule.per_batch):
        planned = schedule.at(at)
        inputs = sequence.narrow(dim, planned.start, planned.stop - planned.start)
        window = Window(
            inputs=inputs,
            start=planned.start,
            stop=planned.stop,
            num_scored=planned.num_scored or 0,
            weight=planned.weight,
            state=state,
            _sequence=sequence,
            _dim=dim % sequence.dim(),
            _carry=planned.carry,
        )
        yield window
        if not window._was_run and at + 1 < schedule.per_batch:
            raise TraceError("windows: expected `window.run(model)` in the loop: without it there is no state to carry")
        state = window._following


def _detached(state: Any) -> Any:
    return tree_map_only(Tensor, Tensor.detach, state)
