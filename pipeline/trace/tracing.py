"""`trace(model)`: the gradient in every state of somebody's own recurrent network, at every timestep.

While a trace is on, a call of a recurrent module runs its own code; only torch's operation at the end of it is replaced
(`core/cells/operations`). Nothing is put on a module. Norms are kept by timestep, not gradients.
"""

from __future__ import annotations

import math
import re
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple

import polars as pl
import torch
from torch import Tensor, nn
from torch._compile import _disable_dynamo as uncompiled  # torch.compiler.disable, imported at the first call
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.overrides import TorchFunctionMode, _get_current_function_mode_stack
from torch.utils.weak import WeakTensorKeyDictionary

from pipeline.config import write_whole
from pipeline.core.cells.operations import SEQUENCES, STEPS, Arguments, Tap, run_sequences, run_step
from pipeline.core.cells.stack import FORWARD, Place
from pipeline.core.measures.gradients import log10_norm
from pipeline.errors import PipelineError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMNS: dict[str, pl.DataType] = {
    "backward": pl.Int64(),
    "call": pl.Int64(),
    "module": pl.String(),
    "layer": pl.Int64(),
    "direction": pl.String(),
    "state": pl.String(),
    "example": pl.Int64(),
    "timestep": pl.Int64(),
    "lag": pl.Int64(),
    "log10_norm": pl.Float64(),
}
"""Columns of `Traced.table`; `example` only where it was asked for."""

TRACEABLE = (nn.RNNBase, nn.RNNCellBase)
LOOKS_RECURRENT = re.compile(r"RNN|LSTM|GRU|Recurrent", re.IGNORECASE)


class TraceError(PipelineError):
    """A model cannot be traced, or nothing of it was; the message names the modules."""


class _Piece(NamedTuple):
    """Norms of one state of some timesteps in a row: (timesteps,), or (timesteps, B), in the recurrence's own order."""

    first: int
    log10_norms: Tensor


@dataclass(eq=False)
class _Sequence:
    """A recurrence of one module over timesteps, in one call or in several that go on from each other.

    Attributes:
        module: Its name.
        lengths: Of sequences that differ in length, (B,).
        examples: Which example each of the batch is, (B,); None where they are in order.
        num_timesteps: Before it began and run so far.
        pieces: By backward pass, layer and direction, and state.
    """

    module: str
    lengths: Tensor | None = None
    examples: Tensor | None = None
    num_timesteps: int = 0
    pieces: dict[tuple[int, Place, str], list[_Piece]] = field(default_factory=dict)


class _End(NamedTuple):
    """Where a call came to in a sequence: behind so many timesteps."""

    sequence: _Sequence
    num_timesteps: int


class Traced:
    """What a trace has seen; a context manager that can be entered again, and goes on then."""

    def __init__(self, model: nn.Module, *, per_example: bool = False, float64: bool = False) -> None:
        self.model, self.per_example, self.float64 = model, per_example, float64
        self.thread = 0
        self._names = _names_of(model)
        self._sequences: list[_Sequence] = []
        self._passes: dict[int, int] = {}
        self._foreign = _foreign(self._names)
        self._skipped: dict[str, str] = {}
        if not any(isinstance(module, TRACEABLE) for module in self._names):
            found = _listed(self._foreign) or f"{type(model).__name__} has none"
            raise TraceError(f"expected a model with nn.RNN, nn.LSTM, nn.GRU or their cells in it: {found}")

    def __enter__(self) -> Traced:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()
        if kind is None and self.untraced:
            warnings.warn(f"not traced: {_listed(self.untraced)}", stacklevel=2)

    def start(self) -> None:
        """Trace from now on what this thread calls."""
        self.thread = threading.get_ident()
        _HOOKS.add(self)

    def stop(self) -> None:
        """Trace no more calls; the gradients of those that were made are still seen when the backward pass comes."""
        _HOOKS.remove(self)

    @property
    def untraced(self) -> dict[str, str]:
        """Why a recurrent module of the model has not been traced, by its name."""
        seen = {sequence.module for sequence in self._sequences}
        mine = [name for module, name in self._names.items() if isinstance(module, TRACEABLE) and name not in seen]
        return self._foreign | {name: self._skipped.get(name, "it was not called") for name in mine}

    @property
    def table(self) -> pl.DataFrame:
        """The norms, a row per backward pass, call, module, layer, direction, state and timestep (and example).

        `backward` counts the backward passes from 1, `call` the module's calls that a pass reached: calls that go on
        from the last states of an earlier one, as a cell's in a loop do, are one. `layer` counts from 0, `timestep`
        from 1, `lag` how many timesteps later, in the recurrence's own direction, the last state is that the pass
        reached. `log10_norm` is of dL/ds_t over the batch (Frobenius), or of each `example`, counted from 0; -inf is
        exactly 0.
        Sequences of a pack end together where they are added up: `timestep` is then that of the longest one.

        Raises:
            TraceError: If there is no row; it says why.
        """
        pieces = list(self._columns())
        if not pieces:
            why = "no backward pass has reached a traced call" if self._sequences else _listed(self.untraced)
            raise TraceError(f"no gradient was traced: {why}")
        columns = [name for name in COLUMNS if self.per_example or name != "example"]
        joined = {name: list(chain.from_iterable(piece[name] for piece in pieces)) for name in columns}
        return pl.DataFrame(joined, schema={name: COLUMNS[name] for name in columns}).sort(columns[:-1])

    def plot(self, path: str | Path | None = None) -> Figure:
        """Return a figure of the norms against lag, of the newest backward pass; of several, a heat map beside it.

        Args:
            path: Where to save it, too, as PNG or SVG by its ending.

        Raises:
            TraceError: If there is no row, or the file cannot be written.
        """
        from pipeline.figures.style import to_png, to_svg  # what draws is needed here alone
        from pipeline.figures.traced import draw_traces

        formats, figure = {".png": to_png, ".svg": to_svg}, draw_traces(self.table)
        if path is not None:
            if Path(path).suffix not in formats:
                raise TraceError(f"{path}: expected a name that ends in .png or .svg")
            write_whole(Path(path), formats[Path(path).suffix](figure), TraceError)
        return figure

    def name_of(self, module: nn.Module) -> str | None:
        """Return the name of a recurrent module of the model; None of another's."""
        if module not in self._names:  # it may have been made since
            self._names = _names_of(self.model)
        return self._names.get(module)

    def skip(self, module: str, reason: str) -> None:
        """Take note of why a call of a module could not be traced."""
        self._skipped[module] = reason

    def sequence(self, module: str, earlier: Sequence[_End]) -> _Sequence:
        """Return the sequence of a call: that of an earlier one whose end it goes on from, or a new one.

        One that goes on from a state which another call has gone on from begins at that timestep.
        """
        mine = (each for each in earlier if each.sequence.module == module and each.sequence in self._sequences)
        end = next(mine, None)
        if end is not None and end.num_timesteps == end.sequence.num_timesteps and end.sequence.lengths is None:
            return end.sequence
        self._sequences.append(_Sequence(module, num_timesteps=0 if end is None else end.num_timesteps))
        return self._sequences[-1]

    def seen(self, sequence: _Sequence, first: int, place: Place, state: str, grad_TBH: Tensor) -> None:
        """Keep the norms of a gradient that begins at a timestep of a sequence, both in its own order of time."""
        number = self._passes.setdefault(torch._C._current_graph_task_id(), len(self._passes) + 1)
        logs_TB = _log10_norm(grad_TBH)
        if sequence.lengths is not None:  # to the end, what follows each sequence before it
            steps_T1 = torch.arange(len(logs_TB), device=logs_TB.device)[:, None]
            logs_TB = logs_TB.gather(0, (steps_T1 + sequence.lengths) % len(logs_TB))
        kept = logs_TB if self.per_example else torch.logsumexp(2 * math.log(10) * logs_TB, 1) / (2 * math.log(10))
        sequence.pieces.setdefault((number, place, state), []).append(_Piece(first, kept.cpu()))

    def _columns(self) -> Iterator[dict[str, list[Any]]]:
        """Yield the columns of each state of each sequence and pass."""
        calls: dict[tuple[int, str], int] = {}
        for sequence in self._sequences:
            for number in sorted({number for number, *_ in sequence.pieces}):
                calls[number, sequence.module] = calls.get((number, sequence.module), 0) + 1
                found = {key: pieces for key, pieces in sequence.pieces.items() if key[0] == number}
                num_reached = max(piece.first + len(piece.log10_norms) for each in found.values() for piece in each)
                for (_, place, state), pieces in found.items():
                    facts = {
                        "backward": number,
                        "call": calls[number, sequence.module],
                        "module": sequence.module,
                        "layer": place.layer,
                        "direction": place.direction,
                        "state": state,
                    }
                    for piece in pieces:
                        yield _columns_of(piece, sequence, num_reached, facts)


def trace(model: nn.Module, *, per_example: bool = False, float64: bool = False) -> Traced:
    """Return a trace of every nn.RNN, nn.LSTM, nn.GRU and cell of them in a model, to be entered with `with`.

        with trace(model) as traced:
            criterion(model(x), y).backward()
        traced.table
        traced.plot()

    The model's code runs as it is: layers, directions, dropout, projections, packed sequences, cells in a loop, several
    calls and backward passes. A recurrence is computed by this project's loops with the module's own parameters, so
    outputs and gradients of parameters are equal within rounding (relative 1e-5 in float32, 1e-11 in float64), not to
    the bit. Coins of dropout fall as they would have. After the `with` nothing is left on the model.

    - A gradient in a state is the whole dL/ds_t, of c_t along the path through h_t, too: more than an `nn.LSTMCell`'s
      `c.retain_grad()` shows. It is of what `backward()` was called on (a GradScaler's loss is scaled), and seen by
      `backward()`, not by `torch.autograd.grad` of other tensors alone. The backward pass may follow the `with`.
    - Under torch.no_grad, and where nothing needs a gradient, a module runs as ever, and is not traced.
    - Under torch.autocast a traced recurrence runs in float32, and its outputs are float32.
    - A trace sees the calls of the thread that entered it. Of nested ones each sees what is in its own model.
    - A function that torch.compile made runs a traced module as it is, unless it was compiled before with a cell in it.
    - A module whose forward does not end in torch's own recurrence (another package's cell, a quantised or scripted
      module, a forward of one's own) runs as ever: `untraced` and a warning at the end of the `with` name it.

    Args:
        model: Of any kind; one with a recurrence that is compiled is refused.
        per_example: Whether `table` has a row per example rather than the norm over the batch.
        float64: Whether recurrences run in float64, so that a vanished gradient is a number. What passes from one to
            the next as it is stays in float64; operations between them are the model's, in its precision. For all of
            a model in float64 call `model.double()`.

    Raises:
        TraceError: If nothing in the model can be traced; it names what looks recurrent, and why.
    """
    return Traced(model, per_example=per_example, float64=float64)


def _columns_of(piece: _Piece, sequence: _Sequence, num_reached: int, facts: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Return the columns of a piece."""
    logs_TE = piece.log10_norms.reshape(len(piece.log10_norms), -1)
    T, E = logs_TE.shape
    lag_TE = (num_reached - 1 - piece.first - torch.arange(T))[:, None].expand(T, E)
    of_example = piece.log10_norms.dim() > 1
    ends = sequence.lengths.cpu() if of_example and sequence.lengths is not None else torch.tensor(num_reached)
    timestep_TE = ends - lag_TE if facts["direction"] == FORWARD else lag_TE + 1
    columns: dict[str, Any] = {"timestep": timestep_TE, "lag": lag_TE, "log10_norm": logs_TE.double()}
    if of_example:
        columns["example"] = (torch.arange(E) if sequence.examples is None else sequence.examples.cpu()).expand(T, E)
    is_there = lag_TE < ends
    listed = {name: values[is_there].tolist() for name, values in columns.items()}
    return listed | {name: [value] * len(listed["lag"]) for name, value in facts.items()}


def _log10_norm(grad_TBH: Tensor) -> Tensor:
    if grad_TBH.dtype == torch.float64:
        return log10_norm(grad_TBH)
    return torch.linalg.vector_norm(grad_TBH, dim=-1, dtype=torch.float64).log10()  # no float32 squares to 0 in it


def _names_of(model: nn.Module) -> dict[nn.Module, str]:
    return {module: name or type(model).__name__ for name, module in model.named_modules()}


def _foreign(names: Mapping[nn.Module, str]) -> dict[str, str]:
    """Return why modules that look recurrent, and are none of torch.nn's nor contain one, are not traced, by name.

    Raises:
        TraceError: If the model is compiled, or a part of it that has a recurrence in it.
    """
    found: dict[str, str] = {}
    for module, name in names.items():
        kind = getattr(module, "original_name", type(module).__name__)
        is_torchs = any(isinstance(part, TRACEABLE) for part in module.modules())
        is_compiled = type(module).__name__ == "OptimizedModule" or module._compiled_call_impl is not None
        if is_torchs and is_compiled:
            instead = "the one that torch.compile was given, or one whose compile() was not called"
            raise TraceError(f"{name}: expected a model that is not compiled: trace {instead}")
        is_inside = any(name.startswith(f"{outer}.") for outer in found)
        if LOOKS_RECURRENT.search(kind) and not is_inside and not is_torchs:
            how = "a scripted module" if isinstance(module, torch.jit.ScriptModule) else type(module).__module__
            found[name] = f"{kind} ({how}) is none of torch.nn's recurrent modules"
    return found


def _listed(reasons: Mapping[str, str]) -> str:
    return "; ".join(f"{name}: {reason}" for name, reason in reasons.items())


Seen = Callable[[Tensor], None]
"""What is done with the gradient of a state, (timesteps, B, H), in its recurrence's own order of time."""


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


def _tapped(like: Tensor, shape: tuple[int, ...], seen: Seen, owner: object) -> Tensor:
    """Return zeros of a shape, whose gradient `seen` gets; `_owner_of` finds the owner from what is made of them."""
    zeros: Tensor = _Tap.apply(like.new_zeros((), requires_grad=True), shape, seen, owner)  # type: ignore[no-untyped-call]
    return zeros


_NODES_SEARCHED = 200
"""How far `_owner_of` looks; between a state and the next call that takes it there are few operations."""


def _owner_of(states: Sequence[Tensor], is_wanted: Callable[[object], bool]) -> Any:
    """Return the owner of the nearest tap that the states are made with and that is wanted; None without one."""
    todo: list[Any] = [state.grad_fn for state in states if state.grad_fn is not None]
    met = set(todo)
    for node in todo:  # grows: breadth first
        owner = getattr(node, "owner", None)
        if owner is not None and is_wanted(owner):
            return owner
        if len(todo) < _NODES_SEARCHED:
            found = [near for near, _ in node.next_functions if near is not None and near not in met]
            met.update(found)
            todo += found
    return None


class _Hooks:
    """The traces that are on, and the two hooks on calls of modules that they share; none while no trace is on.

    A recurrent module of a traced model runs in a mode of torch that replaces the operation it ends in.
    """

    def __init__(self) -> None:
        self._traces: list[Traced] = []
        self._handles: list[Any] = []
        self._running: list[tuple[nn.Module, _Replacing]] = []

    def add(self, traced: Traced) -> None:
        if not self._traces:
            self._handles = [
                register_module_forward_pre_hook(self._before),
                register_module_forward_hook(self._after, always_call=True),
            ]
        if traced not in self._traces:
            self._traces.append(traced)

    def remove(self, traced: Traced) -> None:
        self._traces = [each for each in self._traces if each is not traced]
        if not self._traces:
            for handle in self._handles:
                handle.remove()
            self._running.clear()
            for mode in reversed(_get_current_function_mode_stack()):  # what a forward that was interrupted left there
                if not isinstance(mode, _Replacing):
                    break
                mode.__exit__(None, None, None)  # type: ignore[no-untyped-call]

    def is_on(self, traced: Traced) -> bool:
        """Return whether a trace is on."""
        return traced in self._traces

    def _before(self, module: nn.Module, args: Any) -> None:
        if isinstance(module, TRACEABLE):
            self._enter(module)

    def _after(self, module: nn.Module, args: Any, output: Any) -> None:
        if isinstance(module, TRACEABLE):
            self._leave(module)

    @uncompiled
    def _enter(self, module: nn.Module) -> None:
        mine = [each for each in self._traces if each.thread == threading.get_ident()]
        listening = [(each, name) for each in mine if (name := each.name_of(module)) is not None]
        if listening:
            mode = _Replacing(listening)
            mode.__enter__()  # type: ignore[no-untyped-call]
            self._running.append((module, mode))

    @uncompiled
    def _leave(self, module: nn.Module) -> None:
        if self._running and self._running[-1][0] is module:
            _, mode = self._running.pop()
            mode.__exit__(None, None, None)  # type: ignore[no-untyped-call]
            if not mode.was_used:
                reason = f"{type(module).__name__}.forward does not end in torch's own recurrence"
                for traced, name in mode.listening:
                    traced.skip(name, reason)


_HOOKS = _Hooks()

_TWINS: Any = WeakTensorKeyDictionary()
"""By state or output that was rounded, its version and its node of the graph then, and itself in float64."""


def _twin_of(tensor: Tensor) -> Tensor | None:
    """Return a tensor as it was before it was rounded; None if anything has been done to it since."""
    version, node, twin = _TWINS.get(tensor, (None, None, None))
    if twin is None or version != tensor._version or node is not tensor.grad_fn:
        return None
    if tensor._backward_hooks or tensor.retains_grad:
        return None
    return twin if torch.equal(twin.detach().to(tensor.dtype), tensor) else None  # writes to `.data` have no version


class _Replacing(TorchFunctionMode):
    """Runs a recurrent operation of torch by this project's recurrence, with a tap on every state.

    Args:
        listening: Who is interested in the module, and its name there.
    """

    def __init__(self, listening: Sequence[tuple[Traced, str]]) -> None:
        super().__init__()
        self.listening, self.was_used = listening, False
        self._of_pack: tuple[Tensor, tuple[_Sequence, ...]] | None = None

    @uncompiled
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if any(not _HOOKS.is_on(traced) for traced, _ in self.listening):  # left behind by an interrupted forward
            self.listening = [each for each in self.listening if _HOOKS.is_on(each[0])]
        if not self.listening:
            return func(*args, **(kwargs or {}))
        if func in SEQUENCES:
            self.was_used = True
            given = Arguments.of(args)
            if self._can_trace(given.tensors):
                return self._run_sequences(SEQUENCES[func], given)
        elif func in STEPS:
            self.was_used = True
            start = args[1] if isinstance(args[1], tuple) else (args[1],)
            tensors = (args[0], *start, *args[2:])
            if self._can_trace([each for each in tensors if each is not None]):
                return self._run_step(STEPS[func], tensors, start)
        elif func is Tensor.index_select:
            self._note_order(*args)
        return func(*args, **(kwargs or {}))

    def _can_trace(self, tensors: Sequence[Tensor]) -> bool:
        """Return whether a call can be traced; where it cannot, say why."""
        reason = None
        if not torch.is_grad_enabled():
            reason = "it ran under torch.no_grad"
        elif torch._C._functorch.get_interpreter_stack():
            reason = "it ran inside a transform of torch.func"
        elif not any(each.requires_grad for each in tensors):
            reason = "nothing in it requires a gradient"
        for traced, name in self.listening if reason else ():
            traced.skip(name, str(reason))
        is_mixed = len({each.dtype for each in tensors}) > 1 and not _is_autocast(tensors[0])  # torch says so itself
        return reason is None and not is_mixed

    def _run_sequences(self, name: str, given: Arguments) -> tuple[Tensor, ...]:
        can_go_on = given.lengths is None and not given.bidirectional
        sequences = self._sequences(given.start if can_go_on else ())
        T = len(given.batch_sizes) if given.batch_sizes is not None else given.x.shape[1 if given.batch_first else 0]
        for sequence in sequences:
            sequence.lengths = given.lengths

        def run(x: Tensor, start: Sequence[Tensor], weights: Sequence[Tensor]) -> tuple[Tensor, ...]:
            cast = replace(given, x=x, start=tuple(start), weights=weights)
            return run_sequences(name, cast, self._tap(sequences)).found

        found = self._in_precision(run, given.x, given.start, given.weights)
        for sequence in sequences:
            sequence.num_timesteps += T
        self._of_pack = None if given.batch_sizes is None else (found[1], sequences)
        return found

    def _note_order(self, states: Tensor, dim: int = 0, order: Tensor | None = None) -> None:
        """Keep which example each of a pack's is, where torch brings the last states back into the examples' order."""
        if self._of_pack is not None and states is self._of_pack[0] and dim == 1 and order is not None:
            for sequence in self._of_pack[1]:
                sequence.examples = order.argsort()

    def _run_step(self, name: str, tensors: Sequence[Tensor | None], start: Sequence[Tensor]) -> Any:
        sequences = self._sequences(start)

        def run(x: Tensor, before: Sequence[Tensor], weights: Sequence[Tensor | None]) -> tuple[Tensor, ...]:
            return run_step(name, (x, *before, *weights), self._tap(sequences))

        x = tensors[0]
        assert x is not None  # noqa: S101 - only biases may be missing
        found = self._in_precision(run, x, start, tensors[1 + len(start) :])
        for sequence in sequences:
            sequence.num_timesteps += 1
        return found if len(start) > 1 else found[0]

    def _sequences(self, start: Sequence[Tensor]) -> tuple[_Sequence, ...]:
        names = {name for _, name in self.listening}

        def is_mine(owner: Any) -> bool:
            return any(end.sequence.module in names for end in owner)

        earlier = _owner_of(start, is_mine) or ()
        return tuple(traced.sequence(name, earlier) for traced, name in self.listening)

    def _tap(self, sequences: Sequence[_Sequence]) -> Tap:
        """Return what hands the gradient of every state on to the traces."""
        listening, firsts = self.listening, [sequence.num_timesteps for sequence in sequences]

        def tap(place: Place, state: str, like: Tensor, shape: tuple[int, ...]) -> Tensor:
            def seen(grad_TBH: Tensor) -> None:
                for (traced, _), sequence, first in zip(listening, sequences, firsts, strict=True):
                    traced.seen(sequence, first, place, state, grad_TBH)

            ends = [_End(each, first + shape[0]) for each, first in zip(sequences, firsts, strict=True)]
            return _tapped(like, shape, seen, ends)

        return tap

    def _in_precision(
        self,
        run: Callable[..., tuple[Tensor, ...]],
        x: Tensor,
        start: Sequence[Tensor],
        weights: Sequence[Tensor | None],
    ) -> tuple[Tensor, ...]:
        """Run in float32, or in float64 where that is asked for; return what comes out as torch would, but not rounded.

        A tensor that comes out of one run in float64 and goes into another as it is goes there in float64.
        """
        asked = any(traced.float64 for traced, _ in self.listening) or x.dtype == torch.float64
        dtype = torch.float64 if asked else torch.float32

        def cast(tensor: Tensor | None) -> Tensor | None:
            if tensor is None or tensor.dtype == dtype:
                return tensor
            twin = _twin_of(tensor) if asked else None
            return tensor.to(dtype) if twin is None else twin

        out_dtype = torch.float32 if _is_autocast(x) else x.dtype
        with torch.autocast(x.device.type, enabled=False):
            found = run(cast(x), [cast(each) for each in start], [cast(each) for each in weights])
            if dtype == out_dtype:  # torch's outputs are nobody's view, and may be changed in place
                return tuple(each.clone() if each._is_view() else each for each in found)
            rounded = tuple(each.to(out_dtype) for each in found)
        for each, twin in zip(rounded, found, strict=True) if asked else ():
            _TWINS[each] = (each._version, each.grad_fn, twin)
        return rounded


def _is_autocast(tensor: Tensor) -> bool:
    return torch.is_autocast_enabled(tensor.device.type)
