"""Updates, measures and evaluations on tensors that claim to be on a GPU: `python -m tests.core.training.fake_gpu`.

Writes as JSON, by case, what went wrong, or null. Run in a process of its own: a device that torch takes for an
accelerator can be registered once, before anything else is done. The tensors have shapes and devices and no values, so
a case is what a GPU would be asked to do as long as no number is asked back. An operation on tensors of two devices is
an error, also where torch would let it pass and copy (a single number, an index, a copy in place); `.to` is how a
tensor moves.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import traceback
import types
import typing
from collections.abc import Callable, Sequence
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch._subclasses import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

from pipeline.config import build
from pipeline.core import clipping
from pipeline.core.attention.score import Feeding
from pipeline.core.cells import CELLS, recurrence
from pipeline.core.clipping import ClippingRule
from pipeline.core.measures import gradients
from pipeline.core.measures.gates import gate_statistics, gate_values, retention
from pipeline.core.measures.gradients import (
    finite_difference_error,
    gradient_check_error,
    in_float64,
    local_smoothness,
    rounding_error,
    trace_gradients,
)
from pipeline.core.measures.jacobians import singular_values_by_lag, step_jacobians
from pipeline.core.measures.lyapunov import log_stretches
from pipeline.core.models import Replicas, build_network
from pipeline.core.models.architecture import AttentionSpec
from pipeline.core.models.custom import CustomNetwork
from pipeline.core.models.dropout import Dropout
from pipeline.core.training import TrialSpec
from pipeline.core.training.data import Sequences, interface_of, to_device
from pipeline.core.training.evaluation import decode, evaluate
from pipeline.core.training.forcing import Forcing, Schedule, StatesForced
from pipeline.core.training.optimisers import Optimiser
from pipeline.core.training.regularisation import Regularisation
from pipeline.core.training.step import Step
from tests.core.training.conftest import RAW, SmallDataset, adding_split, symbols_split
from tests.core.training.sequences import (
    canvases,
    circles,
    described,
    films,
    first_letter,
    letter_before,
    reversal,
    splits_of,
)

GPU = "gpu"
VALUES = {"threshold": 1.0, "clipping": 0.1, "percentile": 10.0, "learning_rate": 0.1, "weight": 1.0, "value": 0.5}
VALUES |= {"start": 0.5, "slope": 0.01, "floor": 0.1, "scale": 2.0, "base": 0.5, "size": 6, "num_heads": 2}
VALUES |= {"feeds": "context", "every": 3}
OTHERS = 0.9
"""Of every other field of a variant."""


class OneDevice(TorchDispatchMode):
    """Refuses operations on tensors of several devices, but for `.to`.

    Args:
        takes_numbers: Whether a tensor of no dimensions may be on the CPU. Of a number beside a scalar of one example
            vmap makes such a tensor, which every device takes; a step that autograd differentiates has some.
    """

    def __init__(self, takes_numbers: bool) -> None:
        super().__init__()
        self._takes_numbers = takes_numbers

    def __torch_dispatch__(self, func: Any, kinds: Any, args: Any = (), kwargs: Any = None) -> Any:
        tensors = [leaf for leaf in tree_leaves((args, kwargs or {})) if isinstance(leaf, Tensor)]
        devices = {tensor.device.type for tensor in tensors if tensor.dim() or not self._takes_numbers}
        if len(devices) > 1 and func is not torch.ops.aten._to_copy.default:
            raise AssertionError(f"{func} of tensors on {' and '.join(sorted(devices))}")
        return func(*args, **(kwargs or {}))


def variants(kinds: Any) -> list[type]:
    """Return the dataclasses of a union, or all that derive from a class and have a name."""
    if isinstance(kinds, types.UnionType):
        return list(typing.get_args(kinds))
    found = [*kinds.__subclasses__()]
    for kind in kinds.__subclasses__():
        found += variants(kind)
    return [kind for kind in found if "name" in {field.name for field in dataclasses.fields(kind)}]


def raw(kind: type, **changes: Any) -> dict[str, Any]:
    """Return a variant as a study would write it."""
    named = {field.name: VALUES.get(field.name, OTHERS) for field in dataclasses.fields(kind)}
    return named | {"name": kind.name} | changes  # type: ignore[attr-defined]


def spec_of(**changes: Any) -> TrialSpec:
    changed = {key: dict(value) if isinstance(value, dict) else value for key, value in RAW.items()}
    for key, value in changes.items():
        section, _, field = key.partition("__")
        if field:
            changed[section][field] = value
        else:
            changed[section] = value
    return build(TrialSpec, changed, "a test")


def adding() -> SmallDataset:
    return SmallDataset(splits_of(lambda size, seed: adding_split(size, 4, seed)))


def symbols() -> SmallDataset:
    return SmallDataset(
        splits_of(lambda size, seed: symbols_split(size, 7, seed)), "token", 4, "every", "class", 4, 1.0
    )


Case = Callable[[], None]
Measure = Callable[[Replicas, Tensor, Sequences], None]


def run(
    make: Callable[[], SmallDataset], num_updates: int = 1, measures: Sequence[Measure] = (), **changes: Any
) -> Case:
    """Return a case: some updates, and evaluations and measures besides."""

    def case() -> None:
        spec, dataset = spec_of(**changes), make()
        interface = interface_of(dataset)  # type: ignore[arg-type]
        replicas = Replicas([build_network(interface, spec.model, seed) for seed in spec.seeds])
        stacks = replicas.model.stacks.values()
        _ = [stack.cell.derivation for stack in stacks if stack.cell.whole_step is None]
        if isinstance(replicas.model, CustomNetwork):
            replicas.model.layout(dataset.num_timesteps)  # found on the CPU, by looking at values
        fake = FakeTensorMode()

        def moved(tensor: Tensor) -> Tensor:
            return fake.from_tensor(tensor).to(GPU)

        splits = {name: on(moved, to_device(s, interface, torch.device("cpu"))) for name, s in dataset.splits.items()}
        flat_RP, some_Q = moved(replicas.flat_RP), moved(torch.tensor([len(spec.seeds) - 1]))
        with fake, OneDevice(takes_numbers=any(stack.cell.whole_step is not None for stack in stacks)):
            step = Step(spec, replicas, splits["train"], dataset.num_timesteps)
            state = step.start(flat_RP)._replace(step=1)  # the first one measures memory, of which there is none
            for left in range(num_updates, 0, -1):
                if left == 1 and num_updates > 1:  # the last one of several is of some replicas alone
                    state = state._replace(passed_Q=some_Q)
                state, update = step(state)
                for tensor in tree_leaves((state[1:], update, state.optimiser.state[flat_RP])):
                    if isinstance(tensor, Tensor) and tensor is not state.optimiser.state[flat_RP].get("step"):
                        assert tensor.device.type == GPU, "a tensor of the state or of the update is on the CPU"
            evaluate(replicas, flat_RP, splits["validation"])
            if interface.decodes:
                decoding = decode(replicas, flat_RP, splits["validation"])
                _ = decoding.sequence_error(), decoding.by_position("free_running")
            for measure in measures:
                measure(replicas, flat_RP, splits["validation"].take(slice(2)))

    return case


def on(function: Callable[[Tensor], Tensor], split: Sequences) -> Sequences:
    """Return a split as it was, of other tensors."""
    inputs = split.inputs
    moved = function(inputs) if isinstance(inputs, Tensor) else type(inputs)(*map(function, inputs))
    return Sequences(moved, function(split.targets))


def on_cpu(found: tuple[Sequences, dict[str, Tensor]]) -> tuple[Sequences, dict[str, Tensor]]:
    """Return a batch whose decoder inputs are on the CPU."""
    (inputs, targets), metrics = found
    return Sequences(inputs._replace(decoder_inputs=inputs.decoder_inputs.cpu()), targets), metrics  # type: ignore[union-attr]


def measure(replicas: Replicas, flat_RP: Tensor, probe: Sequences) -> None:
    """Take the measures of any network, and those of one recurrent stack."""
    trace = trace_gradients(replicas, flat_RP, *probe)
    fast = replicas.backpropagate(flat_RP, *probe, shared=True)
    gradient_check_error(fast.grad_RP, trace.grad_RP)
    finite_difference_error(replicas, flat_RP, trace.grad_RP, *probe)
    rounding_error(replicas, flat_RP, *probe)
    local_smoothness(replicas, flat_RP, flat_RP + 1, *probe)


def measure_recurrence(replicas: Replicas, flat_RP: Tensor, probe: Sequences) -> None:
    """Take the measures of one recurrent stack, as far as they can be.

    Not where a list is an index, of which torch makes a real tensor, nor where vmap makes tensors of numbers: those of
    the truncation, and the running exponents.
    """
    cell, place = replicas.model.stacks["recurrent"].cell, replicas.model.stacks["recurrent"].places[0]
    exact_RP, inputs = flat_RP.double(), in_float64(probe.inputs)
    assert isinstance(inputs, Tensor)
    _, seen, states = replicas.unroll(replicas.named(exact_RP), inputs)
    weights, mine = replicas.weights(exact_RP, place), states[: len(cell.states)]
    values = gate_values(cell, weights, seen[0], mine)
    gate_statistics(values, cell.keep_gate, cell.keeps_when_open)
    retention(next(iter(values.values())))
    jacobians = step_jacobians(cell, weights, seen[0], mine)
    singular_values_by_lag(jacobians, [1, inputs.shape[1]])
    log_stretches(jacobians[0])


CASES: dict[str, Case] = {}
for _name in CELLS:
    CASES[f"cell {_name}"] = run(adding, model__cell=_name, model__num_layers=2)
for _kind in variants(ClippingRule):
    CASES[f"clipping {_kind.name}"] = run(adding, 2, clipping=raw(_kind))  # type: ignore[attr-defined]
for _kind in variants(Optimiser):
    CASES[f"optimiser {_kind.name}"] = run(adding, 2, optimiser=raw(_kind))
for _kind in variants(Dropout):
    _deep = {"model__cell": "lstm", "model__num_layers": 2, "model__dropout": {"name": "none"}}
    CASES[f"dropout {_kind.name}"] = run(adding, **_deep | {"model__dropout": raw(_kind)})  # type: ignore[attr-defined]
for _kind in variants(StatesForced):
    _forced = raw(_kind)
    CASES[f"state forcing {_forced['name']}"] = run(
        lambda: circles(num_timesteps=4), model__generates=2, training__state_forcing=_forced, training__accumulation=2
    )
for _kind in variants(AttentionSpec):
    _fields = {field.name for field in dataclasses.fields(_kind)}
    for _feeds in typing.get_args(Feeding) if "feeds" in _fields else ("",):
        _attention = raw(_kind, **({"feeds": _feeds} if _feeds else {}))
        _make = adding if _kind.name == "self" else reversal
        CASES[f"attention {_kind.name} {_feeds}".strip()] = run(_make, model__attention=_attention)
_coins = typing.get_args(typing.get_type_hints(Forcing)["coin"])
for _kind in variants(Schedule):
    for _coin in _coins if _kind is variants(Schedule)[0] else _coins[:1]:  # coins are tossed after the schedule
        _forcing = {"schedule": raw(_kind), "coin": _coin}
        CASES[f"forcing {_kind.name} {_coin}"] = run(reversal, 2, training__forcing=_forcing)
for _kind in variants(Regularisation):
    _needs: dict[str, Any] = {"model__attention": {"name": "dot", "feeds": "nothing"}}
    _make, _needs = (reversal, _needs) if _kind.name == "doubly_stochastic" else (adding, {})
    CASES[f"regularisation {_kind.name}"] = run(_make, 2, regularisation=raw(_kind), **_needs)
_truncated = {"update_every": 2, "backward_length": 3}
CASES |= {
    "windows": run(symbols, 9, training__truncation=_truncated, model__cell="lstm"),
    "windows and a clipped recurrence": run(
        symbols, 5, training__truncation=_truncated, clipping={"name": "state_norm", "threshold": 1.0}
    ),
    "padded, at the end": run(first_letter, measures=[measure], model__bidirectional=True),
    "padded, at every timestep": run(
        letter_before, measures=[measure], model__bidirectional=True, model__embedding_size=3
    ),
    "measures": run(adding, measures=[measure, measure_recurrence], model__cell="lstm"),
    "measures of a decoder": run(reversal, measures=[measure], model__attention={"name": "dot", "feeds": "nothing"}),
    "captions": run(canvases, model__hidden_size=8, model__attention=raw(variants(AttentionSpec)[3])),
    "a module of one's own": run(
        adding, measures=[measure], model={"name": "custom", "import": "tests.own_models:Last"}
    ),
    "a loop of one's own": run(
        adding,
        clipping={"name": "state_norm", "threshold": 1.0},
        model={"name": "custom", "import": "tests.own_models:Steps"},
    ),
    "texts of images": run(described, measures=[measure], model__attention={"name": "dot", "feeds": "context"}),
    "frames": run(films, measures=[measure], model__code_size=2),
}


PLANTED = "planted: "
"""What a case is called that has to fail."""


def planted(owner: Any, name: str, change: Callable[[Any], Any], case: str) -> Case:
    """Return a case with something left on the CPU: with `change` of what a function returns."""

    def run_with_it() -> None:
        original = getattr(owner, name)
        with mock.patch.object(owner, name, lambda *args, **options: change(original(*args, **options))):
            CASES[case]()

    return run_with_it


CASES |= {
    f"{PLANTED}the mask of active replicas": planted(
        Step, "start", lambda state: state._replace(active_R=state.active_R.cpu()), "clipping none"
    ),
    f"{PLANTED}indices, which torch lets pass": planted(Step, "_chosen", Tensor.cpu, "clipping none"),
    f"{PLANTED}a number, which torch lets pass": planted(
        clipping, "norms", lambda norm_R: norm_R * torch.ones(()), "clipping global_norm"
    ),
    f"{PLANTED}a number inside the recurrence": planted(
        recurrence, "clip", lambda grad: grad.mul_(torch.ones(())), "clipping state_norm"
    ),
    f"{PLANTED}coins": planted(Step, "scheduled_sampling", on_cpu, "forcing linear token"),
    f"{PLANTED}a metric": planted(
        clipping, "compare", lambda ledger: ledger._replace(clip_cosine=ledger.clip_cosine.cpu()), "optimiser sgd"
    ),
}


def main() -> None:
    _setup_privateuseone_for_python_backend(GPU)
    gradients.EPSILONS, gradients.FRACTIONS = gradients.EPSILONS[:1], gradients.FRACTIONS[:1]  # of the same operations
    wanted = sys.argv[1:]
    found: dict[str, str | None] = {}
    for name, case in CASES.items():
        if wanted and name not in wanted:
            continue
        try:
            case()
            found[name] = None
        except Exception:
            found[name] = traceback.format_exc()
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
