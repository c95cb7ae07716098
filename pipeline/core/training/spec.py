"""What a trial is: one setting with all its seeds, and the id that is made from its meaning."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pipeline.config.params import MAX_SEEDS, MAX_START
from pipeline.config.strict import Checked, option, plain, require, require_names
from pipeline.core.cells import CELLS
from pipeline.core.clipping import ClippingRule
from pipeline.core.identity import code_digest
from pipeline.core.measures.orbit import MAX_NUMBERS
from pipeline.core.models import AnyModel, CustomModel, Interface, check_custom, check_model
from pipeline.core.models.custom import require_whole
from pipeline.core.training.forcing import Forcing, StatesForced
from pipeline.core.training.optimisers import CONSTANT_RATE, LearningRateSchedule, Optimiser
from pipeline.core.training.regularisation import Regularisation
from pipeline.core.training.schedule import Truncation


@dataclass(frozen=True)
class DatasetRef(Checked):
    """Which prepared data: a name under configs/datasets, and a length where the dataset has several.

    `unseen_lengths` are lengths at which the trained network is tested besides, never having trained on them.
    """

    name: str
    length: int | None
    unseen_lengths: tuple[int, ...]

    def __post_init__(self) -> None:
        require_names((self.name,), "name")
        expected = "lengths, each once, none of them the one of training"
        distinct = len({*self.unseen_lengths, self.length}) == len(self.unseen_lengths) + 1
        require(distinct, "unseen_lengths", expected, list(self.unseen_lengths))


@dataclass(frozen=True)
class Convergence(Checked):
    """When a training that ran out of steps counts as converged: its loss had stopped improving.

    That is, over its `last_share` of steps the lowest validation loss fell by less than the share `improvement`.
    """

    last_share: float
    improvement: float

    def __post_init__(self) -> None:
        for field in ("last_share", "improvement"):
            require(0 < getattr(self, field) < 1, field, "a share between 0 and 1", getattr(self, field))

    def is_reached(self, validation_losses: Sequence[tuple[int, float]]) -> bool:
        """Return whether the lowest of these losses, by step, was all but reached before the last share of steps."""
        if len(validation_losses) < 2:
            return False
        begins = (1 - self.last_share) * validation_losses[-1][0]
        before = min(loss for step, loss in validation_losses if step <= begins)
        lowest = min(loss for _, loss in validation_losses)
        return lowest >= (1 - self.improvement) * before


@dataclass(frozen=True)
class TrainingSpec(Checked):
    """How long, in what portions, and when to stop.

    A replica's best step is the one with the lowest `stop_on`. Below `stop_below` it has reached the criterion and is
    frozen there. `truncation: null` is full backpropagation. `forcing` is of decoders. One whose validation loss ends
    above `explodes_above` times that of the untrained network has diverged; null: only what is not finite has.

    `state_forcing` is of networks that generate; null: their states are never forced. With `patience` a replica is
    frozen, too, after so many evaluations in a row that were not its best; null: never. `accumulation` portions of a
    batch are passed one after the other, and their gradients added up: the same update to rounding, in less memory.
    The `learning_rate_schedule` multiplies the optimiser's learning rate. With `autocast` products outside the
    recurrences are rounded to that precision, in every pass that is in float32.
    """

    batch_size: int
    max_steps: int
    evaluate_every: int
    stop_on: Literal["validation_loss", "validation_error"]
    stop_below: float | None
    explodes_above: float | None
    convergence: Convergence
    truncation: Truncation | None
    forcing: Forcing
    state_forcing: StatesForced | None = option(None)
    patience: int | None = option(None)
    accumulation: int = option(1)
    learning_rate_schedule: LearningRateSchedule = option(CONSTANT_RATE)
    autocast: Literal["bfloat16"] | None = option(None)

    def __post_init__(self) -> None:
        for field in ("batch_size", "max_steps", "evaluate_every"):
            require(1 <= getattr(self, field) <= 10**12, field, "an integer of at least 1", getattr(self, field))
        require(self.stop_below is None or self.stop_below > 0, "stop_below", "null or above 0", self.stop_below)
        explodes = self.explodes_above is None or self.explodes_above > 1
        require(explodes, "explodes_above", "null, or a factor above 1", self.explodes_above)
        patient = self.patience is None or self.patience >= 1
        require(patient, "patience", "null, or an integer of at least 1", self.patience)
        divides = self.accumulation >= 1 and self.batch_size % self.accumulation == 0
        require(divides, "accumulation", f"a divisor of batch_size ({self.batch_size})", self.accumulation)

    def is_last(self, step: int) -> bool:
        """Return whether no update follows."""
        return step >= self.max_steps

    def evaluates_at(self, step: int) -> bool:
        """Return whether replicas are evaluated after so many updates."""
        return self.is_last(step) or step % self.evaluate_every == 0

    def is_reached(self, loss: float, error: float | None) -> bool:
        """Return whether a validation loss and error (None for real targets) are below the criterion."""
        judged = loss if self.stop_on == "validation_loss" else error
        return self.stop_below is not None and judged is not None and judged < self.stop_below


@dataclass(frozen=True)
class DiagnosticsSpec(Checked):
    """How often and on how many sequences the gradient is traced; how far float32 may stray from float64.

    `measures` are taken besides: gates, smoothness and attention maps whenever the gradient is traced; jacobians,
    lyapunov and truncation, which cost more, at step 0 and at a replica's end; orbit, of networks that generate, of the
    weights of the best step.
    """

    num_traces: int
    probe_size: int
    gradient_check_tolerance: float
    measures: tuple[Literal["gates", "jacobians", "lyapunov", "maps", "orbit", "smoothness", "truncation"], ...]

    def __post_init__(self) -> None:
        require(self.num_traces >= 2, "num_traces", "at least 2 (step 0 and the last one)", self.num_traces)
        require(self.probe_size >= 1, "probe_size", "an integer of at least 1", self.probe_size)
        require(len(set(self.measures)) == len(self.measures), "measures", "each measure once", list(self.measures))
        require(self.gradient_check_tolerance > 0, "gradient_check_tolerance", "above 0", self.gradient_check_tolerance)


BFLOAT16_TOLERANCE = 0.03
"""Of the gradient check, at least, where products are rounded to bfloat16."""


@dataclass(frozen=True)
class TrialSpec(Checked):
    """One setting with all its seeds: everything that its result depends on, besides the data and the code."""

    dataset: DatasetRef
    model: AnyModel
    optimiser: Optimiser
    clipping: ClippingRule
    regularisation: Regularisation
    training: TrainingSpec
    diagnostics: DiagnosticsSpec
    seeds: tuple[int, ...]

    def __post_init__(self) -> None:
        require(len(self.seeds) >= 1, "seeds", "at least one seed", list(self.seeds))
        require(len(set(self.seeds)) == len(self.seeds), "seeds", "each seed once", list(self.seeds))
        require(min(self.seeds) >= 0, "seeds", "integers of at least 0", list(self.seeds))
        require(len(self.seeds) <= MAX_SEEDS, "seeds", f"at most {MAX_SEEDS} seeds", len(self.seeds))
        largest = MAX_START + MAX_SEEDS - 1
        require(max(self.seeds) <= largest, "seeds", f"integers of at most {largest}", list(self.seeds))
        tolerance = self.diagnostics.gradient_check_tolerance
        expected = f"at least {BFLOAT16_TOLERANCE}, with training.autocast: its products have 8 bits"
        precise = self.training.autocast is None or tolerance >= BFLOAT16_TOLERANCE
        require(precise, "diagnostics.gradient_check_tolerance", expected, tolerance)
        once = self.training.accumulation == 1 or self.regularisation.coverage_weight == 0.0
        expected = "1, beside a penalty on the attention of a whole batch"
        require(once, "training.accumulation", expected, self.training.accumulation)
        if isinstance(self.model, CustomModel):
            self._check_custom()
            return
        if self.model.bidirectional:
            expected = "false: nothing can be carried into a network that reads backward in time"
            full, unmeasured = self.training.truncation is None, "truncation" not in self.diagnostics.measures
            require(full, "model.bidirectional", f"{expected} (training.truncation)", True)
            require(unmeasured, "model.bidirectional", f"{expected} (diagnostics.measures: truncation)", True)
        expected = "a rule outside the recurrence beside a regulariser, whose gradient a pass clipped inside it lacks"
        alone = self.clipping.state_threshold is None or not self.regularisation.traces
        require(alone, "clipping.name", expected, self.clipping.name)
        gated = bool(CELLS[self.model.cell].gate_names)
        expected = f"measures that the cell {self.model.cell!r} has: it has no gates"
        require(gated or "gates" not in self.diagnostics.measures, "diagnostics.measures", expected, "gates")
        attends = self.model.attention.name != "none"
        expected = "measures that a network without attention has"
        require(attends or "maps" not in self.diagnostics.measures, "diagnostics.measures", expected, "maps")
        self.regularisation.check(self.model)
        dropped = self.model.dropout.name
        expected = "none, beside a penalty on the Jacobians of the network without dropout"
        require(not self.regularisation.traces or dropped == "none", "model.dropout", expected, dropped)
        expected = "measures of a cell's own step, which zoneout mixes with the state before"
        for measure in sorted({"jacobians", "lyapunov"} & {*self.diagnostics.measures}):
            require(dropped != "zoneout", "diagnostics.measures", expected, measure)

    def _check_custom(self) -> None:
        """Check what is asked of a module of one's own, of which only torch's recurrent modules are known.

        Raises:
            InvalidFieldError: If it is too much.
        """
        rule, measures = self.regularisation.name, {*self.diagnostics.measures} - {"smoothness"}
        require(rule == "none", "regularisation.name", "none, for a module of one's own", rule)
        expected = "smoothness alone, for a module of one's own"
        require(not measures, "diagnostics.measures", expected, ", ".join(sorted(measures)))


RECURRENT_MEASURES = {"gates", "jacobians", "lyapunov", "truncation"}
"""Measures of a single recurrent stack."""


def check_fit(spec: TrialSpec, num_sequences: Mapping[str, int], interface: Interface, num_timesteps: int) -> None:
    """Check that a spec fits its data: sizes, what is to stop training, the kind of network, what is measured of it.

    Args:
        spec: What is to be trained.
        num_sequences: N of each split.
        interface: What the dataset asks of a model.
        num_timesteps: T of its sequences.

    Raises:
        InvalidFieldError: If not; the caller knows the file and the dataset.
    """
    for field, asked, split in (
        ("training.batch_size", spec.training.batch_size, "train"),
        ("diagnostics.probe_size", spec.diagnostics.probe_size, "validation"),
    ):
        available = num_sequences[split]
        require(asked <= available, field, f"at most {available}, the {split} sequences", asked)
    stop_on = spec.training.stop_on
    classes = interface.target_kind == "class" or stop_on != "validation_error"
    require(classes, "training.stop_on", "validation_loss, for real targets have no error", stop_on)
    expected = "a constant 1: nothing is decoded, so there is nothing to force"
    forcing = spec.training.forcing
    require(interface.decodes or forcing.is_teacher_forcing, "training.forcing.schedule", expected, forcing.schedule)
    if isinstance(spec.model, CustomModel):
        _check_fit_custom(spec, spec.model, interface, num_timesteps)
        return
    check_model(spec.model, interface)
    recurs = spec.model.attention.name != "self"
    recurrent = recurs and interface.target_at != "sequence"
    expected = "a rule outside the recurrence: self-attention has none"
    require(recurs or spec.clipping.state_threshold is None, "clipping.name", expected, spec.clipping.name)
    expected = "a rule for any network: this one is not one recurrent stack"
    require(recurrent or not spec.regularisation.traces, "regularisation.name", expected, spec.regularisation.name)
    expected = "a rule for any network: this one writes nothing for which it is to look everywhere once"
    written = interface.decodes or spec.regularisation.coverage_weight == 0.0
    require(written, "regularisation.name", expected, spec.regularisation.name)
    generates = spec.model.generates is not None
    forced = spec.training.state_forcing is None or generates
    expected = "null: the network reads its inputs (model.generates is null), so its states are its own"
    require(forced, "training.state_forcing", expected, spec.training.state_forcing)
    expected, autocast = "null: of a network that generates every product is in its recurrence", spec.training.autocast
    require(not (generates and autocast), "training.autocast", expected, autocast)
    expected = "a rule for any network: what is forced has no Jacobian of a recurrence alone"
    require(not (generates and spec.regularisation.traces), "regularisation.name", expected, spec.regularisation.name)
    orbits = generates and spec.model.num_layers == 1 and interface.output_size <= MAX_NUMBERS
    expected = f"no orbit: this is not a network of one layer that generates up to {MAX_NUMBERS} numbers"
    require(orbits or "orbit" not in spec.diagnostics.measures, "diagnostics.measures", expected, "orbit")
    even = recurrent and not interface.padded and not generates and not interface.describes
    for measure in spec.diagnostics.measures:
        expected = "measures of any network: this one is not one recurrent stack that reads sequences of one length"
        require(even or measure not in RECURRENT_MEASURES, "diagnostics.measures", expected, measure)
    truncation = spec.training.truncation
    expected = "null: this is not one recurrent stack that reads sequences of one length"
    require(even or truncation is None, "training.truncation", expected, truncation)
    _check_truncation(truncation, interface)


def _check_fit_custom(spec: TrialSpec, model: CustomModel, interface: Interface, num_timesteps: int) -> None:
    """Check that a trial of a module of one's own fits its data.

    Raises:
        InvalidFieldError: If not.
    """
    layout = check_custom(model, interface, num_timesteps)
    recurs, clips_inside = bool(layout.num_timesteps), spec.clipping.state_threshold is not None
    expected = "a rule outside the recurrence: the module has no recurrent module of torch's"
    require(recurs or not clips_inside, "clipping.name", expected, spec.clipping.name)
    expected = "null: the network reads its inputs, so its states are its own"
    require(spec.training.state_forcing is None, "training.state_forcing", expected, spec.training.state_forcing)
    if (truncation := spec.training.truncation) is None:
        return
    expected = "null: this is no module whose recurrences all run forward in time over sequences of one length"
    carries = layout.is_one_way and not interface.padded
    require(carries, "training.truncation", expected, truncation)
    _check_truncation(truncation, interface)
    for length in sorted({num_timesteps, min(num_timesteps, truncation.backward_length)}):
        require_whole(model, check_custom(model, interface, length), length, "truncation")


def _check_truncation(truncation: Truncation | None, interface: Interface) -> None:
    """Check that a truncation has an update per sequence where the loss has one.

    Raises:
        InvalidFieldError: If not.
    """
    if truncation is not None and interface.target_at == "last":
        expected = f"backward_length ({truncation.backward_length}): a target at the end means one update per sequence"
        once = truncation.update_every == truncation.backward_length
        require(once, "training.truncation.update_every", expected, truncation.update_every)


def trial_id(spec: TrialSpec, dataset_digest: str, code: str | None = None) -> str:
    """Return 16 hexadecimal digits: the same for the same spec, data and code that the spec uses, on any machine.

    Args:
        spec: What is trained.
        dataset_digest: Of the data.
        code: `code_digest(spec)`, where it is known already.

    Raises:
        PipelineError: If a class of the spec has no source file.
    """
    return identity_of(plain(spec), dataset_digest, code or code_digest(spec))


def identity_of(spec: Mapping[str, Any], dataset_digest: str, code: str) -> str:
    """Return the id of a trial from its spec as plain mappings, and the digests of its data and code."""
    meaning = {"spec": spec, "dataset": dataset_digest, "code": code}
    text = json.dumps(meaning, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
