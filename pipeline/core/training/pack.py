"""Settings packed together: several trials as one batched program of settings times seeds replicas.

Every trial runs as it would alone, in a thread of its own, one thread at a time, and keeps what is its own: batches,
clipping, optimiser, schedule, checkpoint, rows. Only the passes through networks are shared. A trial that asks for one
waits until all others that still train have asked for theirs; those of one architecture and one shape are then one
pass over all their replicas. Replicas never meet in it, so each is bit for bit what it would be alone, and a trial may
begin, end or be killed without the others taking note. What is shared is the overhead of a pass, which for small
networks is most of it, and on a GPU the launch of every kernel.

A trial's seconds are what its own work took, and of a shared pass the share that its replicas are: a larger one where
seeds of others have ended.
"""

from __future__ import annotations

import copy
import dataclasses
import logging
import sys
import threading
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map, tree_unflatten

from pipeline.core.models import CustomModel, Inputs, Interface, Network, Pass, Replicas, RunOptions, Seq2SeqInputs
from pipeline.core.models.initialisation import PLAIN
from pipeline.core.models.network import NO_OPTIONS
from pipeline.core.training.data import Sequences, to_device
from pipeline.core.training.loop import Program
from pipeline.core.training.runtime import computing
from pipeline.core.training.spec import TrialSpec
from pipeline.data import Split

Result = TypeVar("Result")

_log = logging.getLogger(__name__)


def architecture(spec: TrialSpec) -> Hashable:
    """Return what two trials must have in common to share passes: data and networks, but for their first weights."""
    model = spec.model
    if not isinstance(model, CustomModel):
        model = dataclasses.replace(model, initialisation=PLAIN)
    return spec.dataset, model, spec.training.autocast


def train_pack(
    specs: Sequence[TrialSpec], work: Callable[[int, Program], Result], *, num_threads: int = 1
) -> list[Result]:
    """Return `work(i, program)` of every trial i, all of them run beside each other.

    Args:
        specs: Of the trials.
        work: Trains trial i as `run_trial` does, as a part of the program. It is called from a thread of its own, and
            never runs while another does.
        num_threads: Torch threads of the shared passes.

    Raises:
        BaseException: The first that a trial raised, after the others have ended; an interrupt at once, after they
            have been stopped as a kill would: where they were last checkpointed.
    """
    pack = _Pack[Result]()
    pack.members = [_Member(pack, spec, i, work) for i, spec in enumerate(specs)]
    with computing(num_threads):
        pack.run()
    for member in pack.members:
        if member.error is not None:
            raise member.error
    return [member.result for member in pack.members]  # type: ignore[misc]


class _StoppedError(BaseException):
    """Ends the thread of a trial whose program was interrupted; no `except Exception` is to catch it."""


@dataclasses.dataclass(frozen=True)
class _Call:
    """A pass that a trial asks for.

    Attributes:
        key: What must be equal for two calls to be one.
        own: Tensors in any nesting, with a replica axis.
        same: Tensors without one: calls whose tensors differ are not one.
        run: (own, same) -> tensors with a replica axis, in any nesting.
    """

    key: Hashable
    own: Any
    same: Any
    run: Callable[[Any, Any], Any]

    @property
    def num_replicas(self) -> int:
        """R."""
        return len(tree_leaves(self.own)[0])

    def goes_with(self, other: _Call) -> bool:
        """Return whether the two are one pass."""
        if self.key != other.key:
            return False
        pairs = zip(tree_leaves(self.same), tree_leaves(other.same), strict=True)
        return all(a.data_ptr() == b.data_ptr() or torch.equal(a, b) for a, b in pairs)


def _together(calls: Sequence[_Call]) -> list[Any]:
    """Return what each of some calls that go together comes to, from one pass."""
    first, sizes = calls[0], [call.num_replicas for call in calls]
    own = tree_map(lambda *parts: torch.cat(parts), *(call.own for call in calls)) if len(calls) > 1 else first.own
    found = first.run(own, first.same)
    leaves, form = tree_flatten(found)
    parts = [leaf.split(sizes) if isinstance(leaf, Tensor) else [leaf] * len(calls) for leaf in leaves]
    return [tree_unflatten(list(mine), form) for mine in zip(*parts, strict=True)]


class _Member(Generic[Result]):
    """One trial of a pack: its thread, what it asks for, what it is given, and its seconds."""

    def __init__(self, pack: _Pack[Result], spec: TrialSpec, index: int, work: Callable[[int, Program], Result]):
        self.pack, self.architecture = pack, architecture(spec)
        self.result: Result | None = None
        self.error: BaseException | None = None
        self.call: _Call | None = None
        self.answer: Any = None
        self.refusal: BaseException | None = None
        self.is_done = False
        self.go = threading.Semaphore(0)
        self.seconds, self.since = 0.0, 0.0
        program = Program(
            replicas=lambda models: _SharedReplicas(models, self), on_device=pack.on_device, clock=self.clock
        )
        self.thread = threading.Thread(target=self._run, args=(work, index, program), daemon=True)

    def clock(self) -> float:
        """Return the trial's seconds; it is this trial's thread that asks."""
        return self.seconds + time.perf_counter() - self.since

    def _run(self, work: Callable[[int, Program], Result], index: int, program: Program) -> None:
        try:
            self._wait()
            self.result = work(index, program)
        except _StoppedError:
            pass
        except BaseException as error:  # noqa: BLE001 - the thread that waits for all of them raises it
            self.error = error
        self.is_done = True
        self.pack.back.release()

    def _wait(self) -> None:
        self.go.acquire()
        if self.pack.is_stopping:
            raise _StoppedError
        self.since = time.perf_counter()

    def ask(self, call: _Call) -> Any:
        """Return what a call comes to, after the others have been given the chance to take part in it."""
        self.call, self.seconds = call, self.clock()
        self.pack.back.release()
        self._wait()
        answer, refusal, self.answer, self.refusal = self.answer, self.refusal, None, None
        if refusal is not None:
            raise refusal
        return answer


class _Pack(Generic[Result]):
    """Lets the trials run by turns, and makes one pass of those that they ask for."""

    def __init__(self) -> None:
        self.members: list[_Member[Result]] = []
        self.back = threading.Semaphore(0)
        self.is_stopping = False
        self._largest = sys.maxsize  # calls of one pass, once there was not the memory for more
        self._on_device: dict[Hashable, tuple[Split, Sequences]] = {}

    def on_device(self, split: Split, interface: Interface, device: torch.device) -> Sequences:
        """Return `to_device` of a split, once for all trials."""
        key = (id(split.inputs), id(split.targets), str(device))
        if key not in self._on_device:
            self._on_device[key] = (split, to_device(split, interface, device))  # the split, too, so that ids stay its
        return self._on_device[key][1]

    def run(self) -> None:
        """Run every trial to its end."""
        for member in self.members:
            member.thread.start()
        try:
            while active := [member for member in self.members if not member.is_done]:
                for member in active:
                    member.go.release()
                    self.back.acquire()
                self._answer([member for member in active if not member.is_done])
        except BaseException:
            self._stop()
            raise

    def _stop(self) -> None:
        self.is_stopping = True
        for member in self.members:
            if not member.is_done:
                member.go.release()
        for member in self.members:
            member.thread.join()

    def _answer(self, asking: Sequence[_Member[Result]]) -> None:
        groups: list[list[_Member[Result]]] = []
        for member in asking:
            fitting = (group for group in groups if _call_of(group[0]).goes_with(_call_of(member)))
            if (group := next(fitting, None)) is None:
                groups.append([member])
            else:
                group.append(member)
        for group in groups:
            self._pass(group)

    def _pass(self, group: Sequence[_Member[Result]]) -> None:
        """Make one pass of a group's calls; in halves where there is not the memory for it, alone where it fails."""
        if len(group) > self._largest:
            self._pass(group[: self._largest])
            self._pass(group[self._largest :])
            return
        calls, started = [_call_of(member) for member in group], time.perf_counter()
        try:
            answers = _together(calls)
        except Exception as error:  # noqa: BLE001 - it is the trial's, which has it as its own
            if len(group) == 1:
                group[0].refusal = error
                return
            middle = 1
            if isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error):
                self._largest = middle = len(group) // 2
                _log.warning("%d trials together do not fit into memory; from now on at most %d", len(group), middle)
            self._pass(group[:middle])
            self._pass(group[middle:])
            return
        seconds = (time.perf_counter() - started) / sum(call.num_replicas for call in calls)
        for member, call, answer in zip(group, calls, answers, strict=True):
            member.answer, member.call = answer, None
            member.seconds += seconds * call.num_replicas


def _call_of(member: _Member[Any]) -> _Call:
    assert member.call is not None  # noqa: S101 - it has asked
    return member.call


class _SharedReplicas(Replicas):
    """The replica batch of one trial of a pack, whose passes the pack makes."""

    def __init__(self, models: Sequence[Network], member: _Member[Any]) -> None:
        super().__init__(models)
        self._member, self._has_trained = member, False

    def predict(self, parameters: Mapping[str, Tensor], inputs: Inputs) -> Tensor:  # noqa: D102
        def run(own: Any, same: Any) -> Tensor:
            parameters, *read = own
            return Replicas.predict(self, parameters, Seq2SeqInputs(same, *read) if read else same)

        if isinstance(inputs, Seq2SeqInputs) and inputs.decoder_inputs.dim() > 2:  # noqa: PLR2004 - (B, U), or its own
            return self._ask(run, (dict(parameters), inputs.decoder_inputs), inputs.source)
        return self._ask(run, (dict(parameters),), inputs)

    def backpropagate(  # noqa: D102
        self,
        flat_RP: Tensor,
        inputs: Inputs,
        targets: Tensor,
        options: RunOptions = NO_OPTIONS,
        *,
        shared: bool = False,
        share_R: Tensor | None = None,
        **said: Any,
    ) -> Pass:
        plain = dataclasses.replace(options, initial=(), dropout=())

        def run(own: Any, same: Any) -> Pass:
            together = copy.copy(self)
            together.flat_RP, initial, coins, share, *data = own
            inputs, targets = same if shared else data
            options = dataclasses.replace(plain, initial=initial, dropout=coins)
            more = {"shared": shared, "share_R": share[0] if share else None, **said}
            return Replicas.backpropagate(together, together.flat_RP, inputs, targets, options, **more)

        share = [] if share_R is None else [share_R]
        own, data = (flat_RP, list(options.initial), list(options.dropout), share), (inputs, targets)
        if not (shared or self._has_trained):
            self._has_trained = True
            return run((*own, *data), ())  # in this thread, which counts the activations that the first update keeps
        fixed = (repr(plain), *sorted(said.items()))
        found: Pass = self._ask(run, own if shared else (*own, *data), data if shared else (), *fixed)
        return found

    def _ask(self, run: Callable[[Any, Any], Any], own: Any, same: Any, *fixed: Hashable) -> Any:
        is_differentiated = torch.is_grad_enabled()

        def run_so(own: Any, same: Any) -> Any:
            with torch.set_grad_enabled(is_differentiated):
                return run(own, same)

        forms = (_forms(tree_map(lambda tensor: tensor[0], own)), _forms(same))
        key = (self._member.architecture, run.__qualname__, is_differentiated, fixed, forms)
        return self._member.ask(_Call(key, own, same, run_so))


def _forms(tensors: Any) -> Hashable:
    """Return nesting, shapes, precisions and devices of tensors."""
    leaves, form = tree_flatten(tensors)
    return str(form), *((leaf.shape, leaf.dtype, leaf.device) for leaf in leaves)
