"""An engine's two passes captured in a CUDA graph for each shape, and replayed: one launch in place of thousands.

The operations of a timestep are so small that a GPU waits for the processor that launches them. A graph holds all
launches of a pass, at fixed addresses: inputs are copied to these, the graph is replayed, results are copied from them.

Nothing of a pass stays at the fixed addresses: its states, and what it keeps for the way back, are copied to the
caller's tensors. So one graph serves two layers of one shape, and a batch whose way back comes later, and all graphs
share the same memory, as much as the largest of them needs. The price is one more copy of what a pass reads and writes.
The passes of a process must follow each other on one stream, as they do in a trial.

A capture that fails loses nothing: the pass runs launch by launch, as do all that follow.
"""

from __future__ import annotations

import functools
import logging
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias

import torch
from torch import Tensor

if TYPE_CHECKING:
    from pipeline.core.cells.recurrence import Engine, Gradients, Run

LOG = logging.getLogger(__name__)

NUM_WARM_UPS = 3
"""Runs before a capture, as torch's `make_graphed_callables` has them: libraries start up outside of it."""

MAX_GRAPHS = 32
"""Held at a time."""

MIN_TIMESTEPS = 4
"""Of a pass that is worth the copies; a decoder that attends at every token makes passes of one."""

ALIGNMENT = 512
"""Bytes, that of torch's CUDA allocator."""


class Graph(Protocol):
    """What holds the launches of one pass."""

    def capture(self, work: Callable[[], None]) -> None:
        """Record `work`, which may run for it; a RuntimeError says that it cannot be recorded."""

    def replay(self) -> None:
        """Do the work again, on the same tensors."""


class CudaGraph:
    """A graph of torch's, of work on one device."""

    def __init__(self, device: torch.device) -> None:
        self._device, self._graph = device, torch.cuda.CUDAGraph()

    def capture(self, work: Callable[[], None]) -> None:  # noqa: D102
        here, side = torch.cuda.current_stream(self._device), _side_stream(self._device)
        side.wait_stream(here)
        try:
            with torch.cuda.stream(side):  # left by this line: a capture that fails does not leave its stream
                for _ in range(NUM_WARM_UPS):
                    work()
                with torch.cuda.graph(self._graph, stream=side):
                    work()
        finally:
            here.wait_stream(side)

    def replay(self) -> None:  # noqa: D102
        self._graph.replay()


@functools.cache
def _side_stream(device: torch.device) -> torch.cuda.Stream:
    """Return the one on which passes are captured: a stream has a workspace of its own, of megabytes."""
    return torch.cuda.Stream(device)


class Captured:
    """The passes of another engine, from graphs; an `Engine` of `pipeline.core.cells.recurrence`.

    Args:
        engine: Whose passes are the same launches whenever the shapes are.
        graphs: Where they are held.
    """

    def __init__(self, engine: Engine, graphs: Graphs) -> None:
        self._engine, self._graphs = engine, graphs

    @property
    def name(self) -> str:
        """That of the other engine once a capture has failed."""
        return "captured" if self._graphs.works else self._engine.name

    def forward(self, run: Run, taps: Sequence[Tensor | None]) -> None:  # noqa: D102
        self._run(self._engine.forward, _of_forward, run, taps)

    def backward(self, run: Run, grads: Gradients) -> None:  # noqa: D102
        self._run(self._backward_from_zero, _of_backward, run, grads)

    def _run(self, work: Callable[..., None], places: Places, run: Run, other: Any) -> None:
        if run.x.shape[1] < MIN_TIMESTEPS or not self._graphs.run(work, places, run, other):
            work(run, other)

    def _backward_from_zero(self, run: Run, grads: Gradients) -> None:
        grads.weight.zero_()
        grads.per_unit.zero_()
        self._engine.backward(run, grads)


Places: TypeAlias = Callable[[Any, Any], tuple[Sequence[Tensor | None], Sequence[Tensor | None]]]
"""(arguments of a pass) -> what of them it reads, and what it fills."""


def _of_forward(run: Run, taps: Sequence[Tensor | None]) -> tuple[Sequence[Tensor | None], Sequence[Tensor | None]]:
    first, after = [state[:, 0] for state in run.states], [state[:, 1:] for state in run.states]
    return (run.x, run.weight, run.per_unit, *first, *taps), (*after, run.kept)


def _of_backward(run: Run, grads: Gradients) -> tuple[Sequence[Tensor | None], Sequence[Tensor | None]]:
    read = (run.x, run.weight, run.per_unit, *run.states, run.kept, *grads.direct, *grads.ends)
    return read, (*grads.total, *grads.start, grads.x, grads.weight, grads.per_unit)


class _Pass(NamedTuple):
    """A pass at fixed addresses: what it reads, what it fills, and the graph that does it."""

    read: Sequence[Tensor | None]
    filled: Sequence[Tensor | None]
    graph: Graph


class Graphs:
    """The graphs of a process; the one that has not been used for longest goes first.

    Args:
        make: Device -> a graph with nothing in it.
        limit: How many are held.

    Attributes:
        works: Whether no capture has failed.
    """

    def __init__(self, make: Callable[[torch.device], Graph] = CudaGraph, limit: int = MAX_GRAPHS) -> None:
        self._make, self._limit, self.works = make, limit, True
        self._passes: OrderedDict[Hashable, _Pass] = OrderedDict()
        self._memory: Tensor | None = None

    def run(self, work: Callable[..., None], places: Places, *arguments: Any) -> bool:
        """Do `work(*arguments)` from a graph; return whether it was done.

        Args:
            work: Reads and fills tensors of its arguments in place; hashable.
            places: Which.
            arguments: Tensors, numbers, None, and sequences and dataclasses of them.
        """
        leaves = _leaves(arguments)
        key = (work, *((leaf.shape, leaf.dtype, leaf.device) if isinstance(leaf, Tensor) else leaf for leaf in leaves))
        if key not in self._passes and not self._capture(key, work, places, arguments):
            return False
        self._passes.move_to_end(key)
        known, (read, filled) = self._passes[key], places(*arguments)
        _copy(read, known.read)
        known.graph.replay()
        _copy(known.filled, filled)
        return True

    def _capture(self, key: Hashable, work: Callable[..., None], places: Places, arguments: Sequence[Any]) -> bool:
        """Return whether there is a graph now."""
        if not self.works:
            return False
        try:
            fixed = self._at_fixed_addresses(arguments)
            while len(self._passes) >= self._limit:
                self._passes.popitem(last=False)
            graph = self._make(fixed[0].x.device)
            graph.capture(lambda: work(*fixed))
        except RuntimeError as error:
            self.works, self._memory = False, None
            self._passes.clear()
            LOG.warning("recurrences run launch by launch, several times slower, for a CUDA graph failed: %s", error)
            return False
        self._passes[key] = _Pass(*places(*fixed), graph)
        return True

    def _at_fixed_addresses(self, arguments: Sequence[Any]) -> Any:
        """Return the arguments with other tensors, of what values may be; memory that is too small is replaced."""
        tensors = [leaf for leaf in _leaves(arguments) if isinstance(leaf, Tensor)]
        sizes = [-(-tensor.nbytes // ALIGNMENT) * ALIGNMENT for tensor in tensors]
        if self._memory is None or self._memory.nbytes < sum(sizes) or self._memory.device != tensors[0].device:
            self._memory = None
            self._passes.clear()  # their addresses were in it
            self._memory = torch.empty(sum(sizes), dtype=torch.uint8, device=tensors[0].device)
        parts = iter(self._memory[: sum(sizes)].split(sizes))
        return _mapped(arguments, lambda tensor: next(parts)[: tensor.nbytes].view(tensor.dtype).view(tensor.shape))


def _copy(sources: Sequence[Tensor | None], targets: Sequence[Tensor | None]) -> None:
    for source, target in zip(sources, targets, strict=True):
        if source is not None and target is not None:
            target.copy_(source)


def _mapped(value: Any, function: Callable[[Tensor], Tensor]) -> Any:
    """Return the arguments of a pass with other tensors."""
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, Sequence):
        return [_mapped(each, function) for each in value]
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{field.name: _mapped(getattr(value, field.name), function) for field in fields(value)})
    return value


def _leaves(value: Any) -> Iterator[Any]:
    """Return the tensors of the arguments of a pass, and all else that is in them, in the order of `_mapped`."""
    if isinstance(value, Sequence):
        for each in value:
            yield from _leaves(each)
    elif is_dataclass(value):
        for field in fields(value):
            yield from _leaves(getattr(value, field.name))
    else:
        yield value


GRAPHS = Graphs()
"""Those of this process."""
