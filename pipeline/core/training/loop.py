"""A trial: one setting, trained with all its seeds as replicas of one batched program.

A plain function of (spec, dataset): no Ray, no W&B, no global state. The order of work is `train`.
"""

from __future__ import annotations

import math
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.config.strict import InvalidFieldError
from pipeline.core.identity import code_digest
from pipeline.core.models import Interface, Network, Replicas, build_network
from pipeline.core.models.generation import network_of
from pipeline.core.training.data import Sequences, aligned_on, interface_of, to_device
from pipeline.core.training.diagnostics import Diagnostics
from pipeline.core.training.evaluation import Evaluation
from pipeline.core.training.examples import NUM_EXAMPLES, Examples
from pipeline.core.training.progress import CheckpointSlot, Progress, ReplicaOutcome, Status, TrialResult, pack, unpack
from pipeline.core.training.rows import MemorySink, RowWriter
from pipeline.core.training.runtime import computing, keep_freed_memory, peak_memory_bytes, reset_peak_memory
from pipeline.core.training.schedule import log_spaced_steps
from pipeline.core.training.spec import TrialSpec, check_fit
from pipeline.core.training.step import Step
from pipeline.data import Dataset, Split
from pipeline.errors import ConfigError

PORTIONS = 4
"""In which the updates from one evaluation to the next are timed."""


@dataclass(frozen=True)
class Program:
    """What a trial shares with others that are trained beside it: by default nothing.

    Attributes:
        replicas: From a trial's networks to the replica batch that it trains.
        on_device: From a split to its tensors.
        clock: Seconds that count as the trial's.
    """

    replicas: Callable[[Sequence[Network]], Replicas] = Replicas
    on_device: Callable[[Split, Interface, torch.device], Sequences] = to_device
    clock: Callable[[], float] = time.perf_counter


ALONE = Program()


def train(trial: Trial) -> TrialResult:
    """Train to the end and return one row per seed; a trial that is taken up again starts with an evaluation, too."""
    reset_peak_memory(trial.device)
    while True:
        limit = trial.reached_limit()
        if limit or trial.is_checkpoint_due():
            trial.checkpoint()
        training = trial.progress.active()
        if trial.spec.training.evaluates_at(trial.progress.step):
            trial.evaluate(training)  # freezes those that reached the criterion or are not finite
        if trial.spec.training.is_last(trial.progress.step):
            trial.end()
        elif limit:
            trial.stop(*limit)
        trial.measure(training)
        if not trial.progress.active():
            return trial.finish()
        trial.update()


def run_trial(
    spec: TrialSpec,
    dataset: Dataset,
    sink: MemorySink,
    *,
    checkpoints: CheckpointSlot | None = None,
    device: str = "cpu",
    num_threads: int = 1,
    max_wall_time_s: float | None = None,
    stop_at: int | None = None,
    checkpoint_interval_s: float = 10.0,
    program: Program = ALONE,
) -> TrialResult:
    """Train every seed of `spec` and return one row per seed; curves and traces go to `sink`.

    The rows depend on the spec and the data only. With a checkpoint slot, a trial that was killed goes on from its
    last checkpoint and ends with the same rows, bit for bit. A replica that diverges is a row, not an exception.

    Args:
        spec: The setting and its seeds.
        dataset: The prepared data that the spec names.
        sink: Where curves, traces and eigenvalues are written.
        checkpoints: Where progress is kept, for the caller to clear once the result is safe; None keeps none.
        device: A torch device, "cpu" or "cuda".
        num_threads: Torch threads on the CPU.
        max_wall_time_s: Seconds after which unfinished replicas end as `timed_out`; None for no limit.
        stop_at: Updates after which unfinished replicas end as `censored`; None for no limit but the spec's.
        checkpoint_interval_s: Least seconds between checkpoints.
        program: What it is part of, if other trials are trained beside it.

    Raises:
        GradientCheckError: If the training path's gradient is wrong at initialisation.
        CheckpointError: If the checkpoint in the slot cannot be read.
        ConfigError: If a batch, or the probe, is larger than its split.
    """
    keep_freed_memory()
    with computing(num_threads):
        trial = Trial(
            spec,
            dataset,
            sink,
            checkpoints=checkpoints,
            device=torch.device(device),
            max_wall_time_s=max_wall_time_s,
            stop_at=stop_at,
            checkpoint_interval_s=checkpoint_interval_s,
            program=program,
        )
        return train(trial)


def train_networks(spec: TrialSpec, dataset: Dataset, *, device: str = "cpu", num_threads: int = 1) -> list[Network]:
    """Train as `run_trial` does and return each seed's network with the weights of its best step, on the CPU.

    For use from Python: a sweep keeps what was measured, not the weights.
    """
    with computing(num_threads):
        trial = Trial(spec, dataset, MemorySink(), device=torch.device(device))
        train(trial)
    best_RP = trial.progress.best_RP.cpu()
    return [network_of(trial.replicas, best_RP, r) for r in range(len(spec.seeds))]


class Trial:
    """A trial under way: what it is made of, which does not change, and its `progress`, which does.

    It is made of the arguments of `run_trial`, and taken up from its checkpoint if there is one.
    """

    def __init__(
        self,
        spec: TrialSpec,
        dataset: Dataset,
        sink: MemorySink,
        *,
        checkpoints: CheckpointSlot | None = None,
        device: torch.device,
        max_wall_time_s: float | None = None,
        stop_at: int | None = None,
        checkpoint_interval_s: float = 10.0,
        program: Program = ALONE,
    ) -> None:
        self.spec, self.dataset, self.sink, self.checkpoints, self.device = spec, dataset, sink, checkpoints, device
        self.max_wall_time_s, self.stop_at = max_wall_time_s, stop_at
        self.checkpoint_interval_s = checkpoint_interval_s
        self.clock = program.clock
        interface, splits = interface_of(dataset), dataset.splits
        try:
            numbers = {name: len(split.targets) for name, split in splits.items()}
            check_fit(spec, numbers, interface, dataset.num_timesteps)
        except InvalidFieldError as error:
            raise ConfigError(f"{error.field}: expected {error.expected}; got {error.got}") from None
        self.replicas = program.replicas([build_network(interface, spec.model, seed) for seed in spec.seeds])
        if spec.training.autocast is not None:
            self.replicas.autocast = torch.bfloat16
        sequences = {name: program.on_device(split, interface, device) for name, split in splits.items()}
        self.measured_steps = frozenset(log_spaced_steps(spec.training.max_steps, spec.diagnostics.num_traces))
        self.step = Step(spec, self.replicas, sequences["train"], dataset.num_timesteps)
        self.rows = RowWriter(spec.seeds, sink)
        num_probed = spec.diagnostics.probe_size
        self.diagnostics = Diagnostics(
            spec=spec.diagnostics,
            replicas=self.replicas,
            probe=sequences["validation"].take(slice(num_probed)),
            alignment=aligned_on(splits["validation"], num_probed, device),
            rows=self.rows,
        )
        self.evaluation = Evaluation(replicas=self.replicas, dataset=dataset, splits=sequences, rows=self.rows)
        saved = None if checkpoints is None else checkpoints.load()
        if saved is None:
            state = self.step.start(self.replicas.flat_RP.to(device))
            self.progress = Progress(
                state=state,
                best_RP=state.flat_RP.clone(),
                num_clipped_R=torch.zeros_like(state.active_R, dtype=torch.int64),
                outcomes=[ReplicaOutcome(seed) for seed in spec.seeds],
            )
        else:
            self.progress, rows = unpack(saved, spec.optimiser, device, code_digest(spec))
            sink.restore(rows)
        self.saved = time.perf_counter()
        self.started = self.clock() - self.progress.wall_s  # as if it had never been interrupted

    def wall_time_s(self) -> float:
        """Return the seconds spent, over every time that the trial was taken up."""
        return self.clock() - self.started

    def reached_limit(self) -> tuple[Status, str] | None:
        """Return how unfinished replicas end now, and why; None where they train on."""
        if self.stop_at is not None and self.progress.step >= self.stop_at:
            return Status.CENSORED, f"stopped by the search after {self.progress.step} steps"
        if self.is_out_of_time():
            return Status.TIMED_OUT, "stopped by the time limit"
        return None

    def is_out_of_time(self) -> bool:
        """Return whether the trial has run longer than it may."""
        return self.max_wall_time_s is not None and self.wall_time_s() > self.max_wall_time_s

    def is_checkpoint_due(self) -> bool:
        """Return whether the last checkpoint is old enough for another."""
        return time.perf_counter() - self.saved >= self.checkpoint_interval_s

    def checkpoint(self) -> None:
        """Save what an unfinished trial goes on from, where checkpoints are kept."""
        if self.checkpoints is None:
            return
        self.rows.write_updates(self.progress.step)
        self.progress.wall_s = self.wall_time_s()
        self.checkpoints.save(pack(self.progress, self.sink.to_bytes(), code_digest(self.spec)))
        self.saved = time.perf_counter()

    def evaluate(self, which: list[int]) -> None:
        """Validate; note each replica's best, freeze those that end here, and pass those alone that do not."""
        progress, training = self.progress, self.spec.training
        step = progress.step
        self.rows.write_updates(step)
        scores = self.evaluation.validate(progress.state.flat_RP, which, step) if which else ([], [])
        for r, loss, error in zip(which, *scores, strict=True):
            outcome = progress.outcomes[r]
            outcome.num_steps = step
            if outcome.saw_validation(step, loss, error, training):
                progress.best_RP[r] = progress.state.flat_RP[r]
            if not math.isfinite(loss):
                outcome.diverge(step, None, "validation_loss", f"validation loss {loss:g}")
                progress.freeze([r])
            elif training.is_reached(loss, error):
                outcome.criterion_step, outcome.criterion_time_s = step, step * progress.step_time_s
                progress.freeze([r])
            elif outcome.is_out_of_patience(training):
                outcome.end(training)
                progress.freeze([r])
        progress.regroup()

    def end(self) -> None:
        """End the replicas that still train."""
        active = self.progress.active()
        for r in active:
            self.progress.outcomes[r].end(self.spec.training)
        self.progress.freeze(active)

    def stop(self, status: Status, reason: str) -> None:
        """End the replicas that still train before their time; an exploded one that is censored might yet recover."""
        limit = f" (limit {self.max_wall_time_s:g} s)" if status == Status.TIMED_OUT else ""
        active = self.progress.active()
        for r in active:
            outcome = self.progress.outcomes[r]
            outcome.status, outcome.num_steps = status, self.progress.step
            outcome.status_message = f"{reason}; results are of its best step{limit}"
        if status == Status.CENSORED:
            self.progress.freeze(active)
        else:
            self.end()

    def measure(self, which: list[int]) -> None:
        """Measure each replica at the scheduled steps and where it ends; what costs more at step 0 and where it ends.

        Args:
            which: Replicas that trained up to this step; those of them that have diverged are not measured.
        """
        started, progress, step = self.clock(), self.progress, self.progress.step
        sound = [r for r in which if progress.outcomes[r].is_sound]
        active = progress.active()
        ending = [r for r in sound if r not in active]
        measured = sound if step in self.measured_steps else ending
        if measured:
            errors = self.diagnostics.measure(step, progress.state.flat_RP, measured)
            for r, error in zip(measured, errors, strict=True):
                progress.outcomes[r].check_gradient(error)
        if "maps" in self.spec.diagnostics.measures and (training := [r for r in measured if r in active]):
            self._examples(progress.state.flat_RP, training, NUM_EXAMPLES // 2).write_maps()
        measured = sound if step == 0 else ending
        if measured:
            self.diagnostics.measure_expensive(step, progress.state.flat_RP, measured)
        progress.diagnostics_s += self.clock() - started

    def update(self) -> None:
        """Make one update of every active replica, and record it."""
        started, progress = self.clock(), self.progress
        progress.state, update = self.step(progress.state)
        self.rows.note_update(update.active_R, update.metrics)
        progress.num_clipped_R += update.clipped_R
        progress.activation_bytes += update.activation_bytes
        before = progress.step - 1
        for r in update.failed_R.nonzero().flatten().tolist():
            progress.outcomes[r].num_steps = before
            progress.outcomes[r].diverge(progress.step, *self.step.locate(update, r))
        updated = self.clock()
        progress.training_s += updated - started
        progress.note_step_time(max(1, self.spec.training.evaluate_every // PORTIONS))
        if before in self.measured_steps and (active := progress.active()):
            self.diagnostics.measure_update(before, update.before_RP, progress.state.flat_RP, active)
            progress.diagnostics_s += self.clock() - updated

    def finish(self) -> TrialResult:
        """Test each replica with the weights of its best step and return its row."""
        progress = self.progress
        outcomes, step = progress.outcomes, progress.step
        self.rows.write_updates(step)
        tested = [r for r, outcome in enumerate(outcomes) if outcome.best_step is not None]
        scores = self.evaluation.test(progress.best_RP, tested, step) if tested else ([], [])
        losses, errors = (dict(zip(tested, each, strict=True)) for each in scores)
        if sound := [r for r in tested if outcomes[r].is_sound]:
            self.diagnostics.measure_orbit(step, progress.best_RP, sound, self.evaluation.splits["test"])
            examples = self._examples(progress.best_RP, sound)
            examples.write()
            interface = self.replicas.interface
            if "maps" in self.spec.diagnostics.measures and not (interface.decodes or interface.describes):
                examples.write_maps()
        progress.wall_s = self.wall_time_s()
        common = self._common_columns()
        clipped_R = progress.num_clipped_R.tolist()
        return TrialResult(
            [
                outcome.row(losses.get(r), errors.get(r), clipped_R[r], self.spec.training.convergence) | common
                for r, outcome in enumerate(outcomes)
            ],
            self.replicas.named(progress.best_RP.cpu()),
        )

    def _examples(self, flat_RP: Tensor, which: list[int], num_examples: int = NUM_EXAMPLES) -> Examples:
        """Return what these replicas do, with these parameters, with the first test sequences."""
        return Examples(
            replicas=self.replicas,
            flat_QP=flat_RP[which],
            dataset=self.dataset,
            test=self.evaluation.splits["test"],
            rows=self.rows,
            which=which,
            step=self.progress.step,
            num_examples=num_examples,
        )

    def _common_columns(self) -> dict[str, object]:
        kind = self.device.type
        name = torch.cuda.get_device_name(self.device) if kind == "cuda" else platform.processor() or "cpu"
        return {
            "baseline_loss": self.dataset.baseline_loss,
            "series_exponent": self.dataset.series_exponent,
            "num_parameters": self.replicas.num_parameters,
            "activation_bytes": self.progress.activation_bytes,
            **self.progress.time_columns(),
            "peak_memory_bytes": peak_memory_bytes(self.device),
            "device": f"{kind} ({name})" if name != kind else name,
            "kernel": self.replicas.kernel(self.progress.state.flat_RP),
            "torch_version": torch.__version__,
            "python_version": platform.python_version(),
        }
