"""A trial: one setting, trained with all its seeds as replicas of one batched program.

A plain function of (spec, dataset): no Ray, no W&B, no global state. The order of work is `Trial.run`.
"""

from __future__ import annotations

import contextlib
import math
import platform
import time
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pipeline.config.strict import InvalidFieldError
from pipeline.core.measures import locate
from pipeline.core.models import Network, Pass, Replicas, RunOptions, Seq2SeqInputs, build_network
from pipeline.core.models.generation import network_of
from pipeline.core.training.assessment import Assessment
from pipeline.core.training.batches import BatchOrder
from pipeline.core.training.checkpoint import CheckpointSlot, Progress, pack, unpack
from pipeline.core.training.clipping import Ledger, compare
from pipeline.core.training.data import Sequences, aligned_on, interface_of, to_device
from pipeline.core.training.diagnostics import Diagnostics
from pipeline.core.training.ledger import LedgerBuffer
from pipeline.core.training.outcome import ReplicaOutcome, Status, TrialResult
from pipeline.core.training.rows import CurveWriter
from pipeline.core.training.runtime import (
    computing,
    counting_activations,
    keep_freed_memory,
    peak_memory_bytes,
    reset_peak_memory,
)
from pipeline.core.training.sink import MemorySink, Sink
from pipeline.core.training.spec import TrialSpec, check_fit
from pipeline.core.training.truncation import Window, Windows
from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from pipeline.data import Dataset


PIECE = 100
"""Timesteps that are run forward at once where nothing flows back through them."""


def run_trial(
    spec: TrialSpec,
    dataset: Dataset,
    sink: Sink,
    *,
    checkpoints: CheckpointSlot | None = None,
    device: str = "cpu",
    num_threads: int = 1,
    max_wall_time_s: float | None = None,
    checkpoint_interval_s: float = 10.0,
) -> TrialResult:
    """Train every seed of `spec` and return one row a seed; curves and traces go to `sink`.

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
        checkpoint_interval_s: Least seconds between checkpoints.

    Raises:
        GradientCheckError: If the training path's gradient is wrong at initialisation.
        CheckpointError: If the checkpoint in the slot cannot be read.
        ConfigError: If a batch, or the probe, is larger than its split.
    """
    keep_freed_memory()
    with computing(num_threads):
        return Trial(
            spec, dataset, sink, checkpoints, torch.device(device), max_wall_time_s, checkpoint_interval_s
        ).run()


def train_networks(spec: TrialSpec, dataset: Dataset, *, device: str = "cpu", num_threads: int = 1) -> list[Network]:
    """Train as `run_trial` does and return each seed's network with the weights of its best step, on the CPU.

    For use from Python: a sweep keeps what was measured, not the weights.

    Args:
        spec: The setting and its seeds.
        dataset: The prepared data that the spec names.
        device: A torch device, "cpu" or "cuda".
        num_threads: Torch threads on the CPU.
    """
    with computing(num_threads):
        trial = Trial(spec, dataset, MemorySink(), None, torch.device(device), None, math.inf)
        trial.run()
    best_RP = trial.progress.best_RP.cpu()
    return [network_of(trial.replicas, best_RP, r) for r in range(len(spec.seeds))]


class Trial:
    """The state of a trial under way; use `run_trial`."""

    def __init__(
        self,
        spec: TrialSpec,
        dataset: Dataset,
        sink: Sink,
        checkpoints: CheckpointSlot | None,
        device: torch.device,
        max_wall_time_s: float | None,
        checkpoint_interval_s: float,
    ) -> None:
        self.spec, self.sink, self.checkpoints, self.device = spec, sink, checkpoints, device
        self.max_wall_time_s, self.checkpoint_interval_s = max_wall_time_s, checkpoint_interval_s
        self.baseline_loss = dataset.baseline_loss
        self.interface = interface_of(dataset)
        self.splits = {name: to_device(split, self.interface, device) for name, split in dataset.splits.items()}
        unseen = {length: to_device(split, self.interface, device) for length, split in dataset.unseen.items()}
        self._check_fit()
        self.replicas = Replicas([build_network(self.interface, spec.model, seed) for seed in spec.seeds])
        flat = self.replicas.flat_RP.to(device)
        outcomes = [ReplicaOutcome(seed) for seed in spec.seeds]
        active = torch.ones(len(spec.seeds), dtype=torch.bool, device=device)
        num_clipped = torch.zeros_like(active, dtype=torch.int64)
        self.progress = Progress(0, flat, flat.clone(), active, num_clipped, outcomes, [])
        self.optimiser = spec.optimiser.over(flat)
        self.clipper = spec.clipping.clipper(self.replicas.shapes, len(spec.seeds), device)
        self.windows = Windows(spec.training.truncation, dataset.num_timesteps, self.interface.target_at)
        self.order = BatchOrder(spec.seeds, len(self.train.targets), spec.training.batch_size)
        probe = self.splits["validation"].first(spec.diagnostics.probe_size)
        alignment = aligned_on(dataset.splits["validation"], spec.diagnostics.probe_size, device)
        self.diagnostics = Diagnostics(
            spec.diagnostics, spec.training.max_steps, self.replicas, probe, alignment, spec.seeds, sink
        )
        self.curves, self.ledger = CurveWriter(spec.seeds, sink), LedgerBuffer(spec.seeds, sink)
        self.assessment = Assessment(self.replicas, dataset, self.splits, unseen, self.curves)

    def run(self) -> TrialResult:
        """Train to the end and return one row a seed."""
        reset_peak_memory(self.device)
        self.started = self.saved = time.perf_counter()
        resumed = self._resume()
        self.earlier_s = self.progress.wall_time_s
        while True:
            if not resumed:
                stopping = self._evaluate_and_measure()
                if stopping:
                    break
                if time.perf_counter() - self.saved >= self.checkpoint_interval_s:
                    self._checkpoint()
            resumed = False
            self._update()
        return self._finish()

    @property
    def train(self) -> Sequences:
        """The training split."""
        return self.splits["train"]

    def _check_fit(self) -> None:
        try:
            sizes = {name: len(split.targets) for name, split in self.splits.items()}
            check_fit(self.spec, sizes, self.interface)
        except InvalidFieldError as error:
            raise ConfigError(f"{error.field}: expected {error.expected}; got {error.got}") from None

    def _evaluate_and_measure(self) -> bool:
        """Do what is due between two updates; return whether the trial ends here."""
        progress, training = self.progress, self.spec.training
        before, last = self._active(), progress.step >= training.max_steps
        if last or progress.step % training.evaluate_every == 0:
            self.ledger.write(progress.step)
            self._evaluate(before)
        sound = [r for r in before if progress.outcomes[r].status != Status.DIVERGED]
        active = [] if last else self._active()
        ending = [r for r in sound if r not in active]
        scheduled = progress.step in self.diagnostics.steps
        self._measure(sound if scheduled else ending, before if progress.step == 0 else ending)
        if active and self._out_of_time():
            self._checkpoint()  # under a higher limit the trial goes on from here
            self._time_out(active)
            self._measure([] if scheduled else active, [] if progress.step == 0 else active)
            return True
        return not active

    def _evaluate(self, active: list[int]) -> None:
        """Validate; note each replica's best, and freeze those that reached the criterion or are not finite."""
        progress, training = self.progress, self.spec.training
        progress.note_step_time()
        losses, errors = self.assessment.score("validation", progress.flat_RP, active, progress.step)
        losses_R = losses.tolist()
        errors_R = [None] * len(losses_R) if errors is None else errors.tolist()
        judged_R: list[Any] = losses_R if training.stop_on == "validation_loss" else errors_R
        self.curves.write(progress.step, "loss", losses, active, split="validation")
        if errors is not None:
            self.curves.write(progress.step, "error", errors, active, split="validation")
        for r in active:
            outcome = progress.outcomes[r]
            outcome.num_steps = progress.step
            if outcome.saw_validation(progress.step, losses_R[r], errors_R[r], training.stop_on):
                progress.best_RP[r] = progress.flat_RP[r]
            if not math.isfinite(losses_R[r]):
                outcome.diverge(progress.step, None, "validation_loss", f"validation loss {losses_R[r]:g}")
                progress.active_R[r] = False
            elif training.stop_below is not None and judged_R[r] < training.stop_below:
                outcome.criterion_step = progress.step
                outcome.criterion_time_s = progress.training_time_s
                progress.active_R[r] = False

    def _measure(self, which: list[int], rarely: list[int]) -> None:
        """Measure the replicas in `which`, and at length those in `rarely`: at step 0 and where they end."""
        started, progress = time.perf_counter(), self.progress
        if which:
            errors = self.diagnostics.measure(progress.step, progress.flat_RP, which)
            for r, error in zip(which, errors, strict=True):
                progress.outcomes[r].check_gradient(error)
        sound = [r for r in rarely if progress.outcomes[r].status != Status.DIVERGED]
        if sound:
            self.diagnostics.measure_at_length(progress.step, progress.flat_RP, sound)
        progress.diagnostics_time_s += time.perf_counter() - started

    def _update(self) -> None:
        """Make one update of every active replica; freeze those whose loss, gradient or parameters are not finite."""
        started, progress = time.perf_counter(), self.progress
        window = self.windows.at(progress.step)
        batch, forced = self._force(self._batch(window))
        initial = self._state_before(window)
        with counting_activations(progress) if progress.step == 0 else contextlib.nullcontext():
            run = self._backpropagate(batch, window, initial, None)
        grad_RP, penalty = self.spec.regularisation.penalise(self.replicas, progress.flat_RP, run)
        applied_RP, ledger = self._clip(grad_RP, batch, window, initial)
        self.ledger.add(progress.active_R, run.losses, ledger, penalty | forced)
        before_RP = progress.flat_RP.clone()
        progress.flat_RP.grad = applied_RP
        self.optimiser.step()
        progress.step += 1
        progress.carried = self._carry(window, run)
        after_finite_R = progress.flat_RP.isfinite().all(dim=1)
        failed_R = progress.active_R & ~(run.losses.isfinite() & ledger.clipped_grad_norm.isfinite() & after_finite_R)
        progress.active_R = progress.active_R & ~failed_R
        progress.flat_RP[~progress.active_R] = before_RP[~progress.active_R]
        progress.num_clipped_R += progress.active_R & (ledger.clipped_grad_norm < ledger.grad_norm)
        for r in failed_R.nonzero().flatten().tolist():
            self._record_divergence(r, before_RP, batch, initial, window, run.losses, ledger)
        progress.training_time_s += time.perf_counter() - started
        self._measure_update(before_RP)

    def _batch(self, window: Window) -> Sequences:
        """Return the timesteps of a window of each replica's batch, and the targets that are scored."""
        inputs, targets = self.train
        if isinstance(inputs, Seq2SeqInputs) or self.interface.target_at == "sequence":
            return self.train.take(self._chosen(window))
        inputs = inputs[:, window.start : window.stop]
        if window.num_scored is not None:
            targets = targets[:, window.stop - window.num_scored : window.stop]
        return Sequences(inputs, targets).take(self._chosen(window))

    def _force(self, batch: Sequences) -> tuple[Sequences, dict[str, Tensor]]:
        """Return the batch with what the decoders are given at this step, and the probability of the true token."""
        inputs, forcing = batch.inputs, self.spec.training.forcing
        if not isinstance(inputs, Seq2SeqInputs):
            return batch, {}
        epsilon = forcing.schedule.probability(self.progress.step)
        if epsilon < 1.0:
            _, num_examples, num_positions = inputs.decoder_inputs.shape
            coins = forcing.coins(self.spec.seeds, self.progress.step, num_examples, num_positions)
            with torch.no_grad():
                parameters = self.replicas.named(self.progress.flat_RP)
                given, _ = self.replicas.free_running(parameters, inputs, coins.to(self.device))
            batch = Sequences(Seq2SeqInputs(inputs.source, given), batch.targets)
        return batch, {"teacher_forcing_probability": torch.full_like(self.progress.flat_RP[:, 0], epsilon)}

    @torch.no_grad()
    def _state_before(self, window: Window) -> list[Tensor]:
        """Return the states before a window: carried ones, or, where none were, of the timesteps that precede it.

        Those are run forward in pieces: memory does not grow with the sequence.
        """
        if window.start == 0 or self.progress.carried:
            return self.progress.carried
        chosen, parameters = self._chosen(window), self.replicas.named(self.progress.flat_RP)
        states: list[Tensor] = []
        inputs = self.train.inputs
        assert isinstance(inputs, Tensor)  # noqa: S101 - what a decoder reads has no windows
        for piece in inputs[:, : window.start].split(PIECE, dim=1):
            states = self.replicas.advance(parameters, piece[chosen], states)
        return states

    def _chosen(self, window: Window) -> Tensor:
        """Return which sequences each replica's batch is made of, (R, B)."""
        return self.order.indices(window.batch).to(self.device)

    def _carry(self, window: Window, run: Pass) -> list[Tensor]:
        """Return the states from which the next window of the same sequences starts; none where it starts anew."""
        return [state[:, window.carry - 1].clone() for state in run.states] if window.carry else []

    def _backpropagate(
        self, batch: Sequences, window: Window, initial: list[Tensor], state_threshold: float | None
    ) -> Pass:
        return self.replicas.backpropagate(
            self.progress.flat_RP,
            *batch,
            RunOptions(initial=initial, num_scored=window.num_scored, state_threshold=state_threshold),
            coverage_weight=self.spec.regularisation.coverage_weight,
            trace=self.spec.regularisation.traces and state_threshold is None,
        )

    def _clip(self, grad_RP: Tensor, batch: Sequences, window: Window, initial: list[Tensor]) -> tuple[Tensor, Ledger]:
        """Return the gradient to apply and the ledger; a rule inside the recurrence needs a pass of its own."""
        threshold = self.spec.clipping.state_threshold
        if threshold is None:
            return self.clipper.clip(grad_RP, self.progress.flat_RP)
        applied_RP = self._backpropagate(batch, window, initial, threshold).grad_RP
        return applied_RP, compare(grad_RP, applied_RP)

    def _measure_update(self, before_RP: Tensor) -> None:
        started, progress = time.perf_counter(), self.progress
        if progress.step - 1 in self.diagnostics.steps and self._active():
            self.diagnostics.measure_update(progress.step - 1, before_RP, progress.flat_RP, self._active())
            progress.diagnostics_time_s += time.perf_counter() - started

    def _record_divergence(
        self,
        r: int,
        before_RP: Tensor,
        batch: Sequences,
        initial: list[Tensor],
        window: Window,
        losses: Tensor,
        ledger: Ledger,
    ) -> None:
        place = locate(self.replicas, before_RP, *batch, replica=r, initial=initial, num_scored=window.num_scored)
        overflowed = math.isfinite(losses[r].item()) and place.num_nonfinite == 0
        what = (
            "the update overflowed: parameters are not finite"
            if overflowed
            else f"{place.num_nonfinite} of {self.replicas.num_parameters} entries of the gradient are not finite"
        )
        message = f"loss {losses[r].item():.4g}, gradient norm {ledger.grad_norm[r].item():.4g}: {what}"
        quantity = "parameters" if overflowed else place.quantity
        timestep = None if place.timestep is None else window.start + place.timestep
        self.progress.outcomes[r].num_steps = self.progress.step - 1
        self.progress.outcomes[r].diverge(self.progress.step, timestep, quantity, message)

    def _active(self) -> list[int]:
        return self.progress.active_R.nonzero().flatten().tolist()

    def _time_out(self, which: list[int]) -> None:
        for r in which:
            outcome = self.progress.outcomes[r]
            self.progress.active_R[r] = False
            outcome.status, outcome.num_steps = Status.TIMED_OUT, self.progress.step
            outcome.status_message = f"{Status.TIMED_OUT.sentence} (limit {self.max_wall_time_s:g} s)"

    def _out_of_time(self) -> bool:
        return self.max_wall_time_s is not None and self._wall_time_s() > self.max_wall_time_s

    def _wall_time_s(self) -> float:
        return self.earlier_s + time.perf_counter() - self.started

    def _checkpoint(self) -> None:
        if self.checkpoints is None:
            return
        self.ledger.write(self.progress.step)
        self.progress.wall_time_s = self._wall_time_s()
        self.checkpoints.save(pack(self.progress, self.optimiser, self.clipper, self.sink.to_bytes()))
        self.saved = time.perf_counter()

    def _resume(self) -> bool:
        data = None if self.checkpoints is None else self.checkpoints.load()
        if data is None:
            return False
        saved = unpack(data, self.device)
        self.progress = saved.progress
        self.optimiser = self.spec.optimiser.over(self.progress.flat_RP)
        self.optimiser.load_state_dict(saved.optimiser)
        self.clipper.restore(saved.clipper)
        self.sink.restore(saved.rows)
        return True

    def _finish(self) -> TrialResult:
        progress = self.progress
        self.ledger.write(progress.step)
        tested = [r for r, outcome in enumerate(progress.outcomes) if outcome.best_step is not None]
        losses, errors = self.assessment.score("test", progress.best_RP, tested, progress.step)
        losses_R = losses.tolist()
        errors_R = [None] * len(losses_R) if errors is None else errors.tolist()
        sound = [r for r in tested if progress.outcomes[r].status != Status.DIVERGED]
        self.assessment.test_further(progress.best_RP, tested, sound, progress.step)
        progress.wall_time_s = self._wall_time_s()
        common = self._common_columns()
        clipped = progress.num_clipped_R.tolist()
        rows = [o.row(losses_R[r], errors_R[r], clipped[r]) | common for r, o in enumerate(progress.outcomes)]
        return TrialResult(rows)

    def _common_columns(self) -> dict[str, object]:
        progress = self.progress
        working_s = progress.training_time_s + progress.diagnostics_time_s
        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else platform.processor() or "cpu"
        return {
            "baseline_loss": self.baseline_loss,
            "num_parameters": self.replicas.num_parameters,
            "activation_bytes": progress.activation_bytes // self.replicas.num_replicas,
            "wall_time_s": progress.wall_time_s,
            "training_time_s": progress.training_time_s,
            "step_time_s": progress.training_time_s / max(progress.step, 1),
            "step_time_error_s": progress.step_time_error_s(),
            "diagnostics_time_share": progress.diagnostics_time_s / working_s if working_s else 0.0,
            "peak_memory_bytes": peak_memory_bytes(self.device),
            "device": f"{self.device.type} ({name})" if name != self.device.type else name,
            "torch_version": torch.__version__,
            "python_version": platform.python_version(),
        }
