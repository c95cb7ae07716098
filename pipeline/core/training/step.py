"""One update of every replica: the state before it in, the state after it and what happened out.

Nothing else is read or changed, but for what torch's optimisers do: they work in place, so a state is used up by its
step. From the evaluation on at which a replica has ended it is not passed through the network any more, and the others
are bit for bit what they would be beside it.

Shapes: R replicas, Q of them passed through, P parameters of one network, B sequences, T timesteps, H hidden, U output
positions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from pipeline.core import clipping
from pipeline.core.clipping import Ledger
from pipeline.core.measures.gradients import locate
from pipeline.core.models import Pass, Replicas, RunOptions, Seq2SeqInputs
from pipeline.core.models.dropout import draw
from pipeline.core.models.network import FREE, NO_OPTIONS
from pipeline.core.training.data import Sequences
from pipeline.core.training.optimisers import CONSTANT_RATE
from pipeline.core.training.runtime import counting_activations
from pipeline.core.training.schedule import BatchOrder, Window, Windows
from pipeline.core.training.spec import TrialSpec

PIECE = 100
"""Timesteps that are run forward at once where nothing flows back through them."""


class State(NamedTuple):
    """What one update makes of another.

    Attributes:
        step: Updates made so far.
        flat_RP: Parameters.
        active_R: Replicas that still train; the others are frozen.
        optimiser: Over `flat_RP`, with its moments.
        clipping: What the clipping rule remembers.
        carried: States before the next window of a truncated pass, (R, B, H) each; none at the start of a batch.
        passed_Q: Indices of the replicas that are passed through the network, all that train among them; None is all.
    """

    step: int
    flat_RP: Tensor
    active_R: Tensor
    optimiser: torch.optim.Optimizer
    clipping: clipping.State
    carried: list[Tensor]
    passed_Q: Tensor | None = None


class Update(NamedTuple):
    """What one update was made of and what came of it.

    Attributes:
        before_RP: Parameters before it.
        passed_Q: Indices of the replicas that were passed through the network; None is all.
        batch: Inputs and targets of the timesteps that it ran, (Q, ...), each replica's own.
        first: The first of these timesteps in its sequence, counted from 0.
        options: Of its pass: the states before them, how many are scored, and what the loss weighs.
        active_R: Replicas that it was made for.
        failed_R: Those among them whose loss, gradient or new parameters are not finite; the state has them frozen.
        clipped_R: Those among them whose gradient was clipped, and which did not fail.
        metrics: The loss before it, the clip ledger and further ones, (R,) each; 0 where a replica was not passed.
        activation_bytes: What the first update of all kept for its way back, per replica; else 0.
    """

    before_RP: Tensor
    passed_Q: Tensor | None
    batch: Sequences
    first: int
    options: RunOptions
    active_R: Tensor
    failed_R: Tensor
    clipped_R: Tensor
    metrics: dict[str, Tensor]
    activation_bytes: int


class Step:
    """Makes updates of a replica batch; holds nothing that changes from one to the next.

    Args:
        spec: How to train.
        replicas: The replica batch.
        train: The training split.
        num_timesteps: T of its sequences.
    """

    def __init__(self, spec: TrialSpec, replicas: Replicas, train: Sequences, num_timesteps: int) -> None:
        self.spec, self.replicas, self.train = spec, replicas, train
        self.device = train.targets.device
        self.order = BatchOrder(spec.seeds, len(train.targets), spec.training.batch_size)
        rule = spec.training.state_forcing
        self.forcing = rule.forcing if rule else FREE if replicas.model.generates else None
        self.windows = Windows(spec.training.truncation, num_timesteps, replicas.interface.target_at)

    def start(self, flat_RP: Tensor) -> State:
        """Return the state before the first update of these parameters."""
        return State(
            step=0,
            flat_RP=flat_RP,
            active_R=torch.ones(len(flat_RP), dtype=torch.bool, device=flat_RP.device),
            optimiser=self.spec.optimiser.over(flat_RP),
            clipping=self.spec.clipping.init(self.replicas.named(flat_RP)),
            carried=[],
        )

    def __call__(self, state: State) -> tuple[State, Update]:
        """Make one update of every active replica; freeze those whose loss, gradient or parameters are not finite."""
        window, passed_Q = self.windows.at(state.step), state.passed_Q
        before = self.states_before(window, state)
        batch, sampled = self.scheduled_sampling(self.batch_of(window, passed_Q), state)
        options = RunOptions(
            initial=before,
            num_scored=window.num_scored,
            loss_weight=window.weight,
            forcing=self.forcing,
            dropout=self.dropped(batch, state.step, window.batch, passed_Q),
        )
        kept: dict[int, int] = {}
        counting = counting_activations(kept) if state.step == 0 else nullcontext()
        flat_QP = of_passed(state.flat_RP, passed_Q)
        run = self.backpropagate(flat_QP, batch, options, counting)
        grad_QP, penalty = self.spec.regularisation.penalise(self.replicas, flat_QP, run)
        grad_RP, losses_R = self._of_all(grad_QP, state), self._of_all(run.losses, state)
        applied_RP, clipping_state, ledger = self._clip(grad_RP, state, batch, options)

        before_RP, flat_RP = state.flat_RP.clone(), state.flat_RP
        flat_RP.grad = applied_RP
        scheduled = self.scheduled_rate(state)
        state.optimiser.step()
        sound_R = losses_R.isfinite() & ledger.clipped_grad_norm.isfinite() & flat_RP.isfinite().all(dim=1)
        active_R = state.active_R & sound_R
        torch.where(active_R[:, None], flat_RP, before_RP, out=flat_RP)

        ends = [states[:, window.carry - 1].clone() for states in run.states] if window.carry else []
        carried = [self._of_all(each, state) for each in ends]
        passed = {name: self._of_all(each, state) for name, each in (penalty | sampled).items()}
        after = state._replace(step=state.step + 1, active_R=active_R, clipping=clipping_state, carried=carried)
        return after, Update(
            before_RP=before_RP,
            passed_Q=passed_Q,
            batch=batch,
            first=window.start,
            options=options,
            active_R=state.active_R,
            failed_R=state.active_R & ~sound_R,
            clipped_R=active_R & ledger.is_clipped,
            metrics={"loss": losses_R, **ledger._asdict(), **passed, **scheduled},
            activation_bytes=sum(kept.values()) // len(flat_QP),
        )

    def scheduled_rate(self, state: State) -> dict[str, Tensor]:
        """Set the learning rate of this update; return it as a metric where it changes from one to the next."""
        training, rate = self.spec.training, self.spec.optimiser.learning_rate
        if training.learning_rate_schedule == CONSTANT_RATE:
            return {}
        rate *= training.learning_rate_schedule.factor(state.step, training.max_steps)
        for group in state.optimiser.param_groups:
            group["lr"] = rate
        return {"learning_rate": torch.full_like(state.flat_RP[:, 0], rate)}

    def _of_all(self, found_Q: Tensor, state: State) -> Tensor:
        """Return what was found of the replicas that were passed, (R, ...); zeros of the others."""
        if state.passed_Q is None:
            return found_Q
        return found_Q.new_zeros(len(state.flat_RP), *found_Q.shape[1:]).index_copy_(0, state.passed_Q, found_Q)

    def batch_of(self, window: Window, passed_Q: Tensor | None = None) -> Sequences:
        """Return the timesteps of a window of each replica's batch, (Q, B, T, ...), and the targets that are scored."""
        inputs, targets = self.train
        if isinstance(inputs, Tensor) and self.replicas.interface.target_at != "sequence":
            inputs = inputs[:, window.start : window.stop]
            if window.num_scored is not None:
                targets = targets[:, window.stop - window.num_scored : window.stop]
        return Sequences(inputs, targets).take(self._chosen(window, passed_Q))

    @torch.no_grad()
    def states_before(self, window: Window, state: State) -> list[Tensor]:
        """Return the states before a window, (Q, B, H): carried ones, or, where none were, of the timesteps before it.

        Those are run forward in pieces: memory does not grow with the sequence.
        """
        if window.start == 0 or state.carried:
            return [of_passed(each, state.passed_Q) for each in state.carried]
        chosen = self._chosen(window, state.passed_Q)
        parameters = self.replicas.named(of_passed(state.flat_RP, state.passed_Q))
        states: list[Tensor] = []
        inputs = self.train.inputs
        assert isinstance(inputs, Tensor)  # noqa: S101 - a decoder's inputs have no windows
        for piece in inputs[:, : window.start].split(PIECE, dim=1):
            states = self.replicas.advance(parameters, piece[chosen], states)
        return states

    def backpropagate(
        self,
        flat_RP: Tensor,
        batch: Sequences,
        options: RunOptions = NO_OPTIONS,
        first: AbstractContextManager[object] = nullcontext(),  # noqa: B008 - it holds nothing
    ) -> Pass:
        """Return the pass forward and back through a batch, traced where the regulariser needs it.

        Args:
            flat_RP: Parameters.
            batch: Each replica's own.
            options: Of the pass.
            first: In which its first portion is passed.
        """
        rule, runs, shares = self.spec.regularisation, list[Pass](), list[Tensor]()
        for portion, own, share_R in self.portions(batch, options):
            with nullcontext() if runs else first:
                run = self.replicas.backpropagate(
                    flat_RP, *portion, own, coverage_weight=rule.coverage_weight, trace=rule.traces, share_R=share_R
                )
            runs.append(run)
            shares += [] if share_R is None else [share_R]
        return joined(runs, torch.stack(shares).to(flat_RP.dtype)) if shares else runs[0]

    def portions(self, batch: Sequences, options: RunOptions) -> list[tuple[Sequences, RunOptions, Tensor | None]]:
        """Return the portions of a batch that are passed one after the other.

        With each its options, and its share of the targets that the loss is over, (R,); None of the whole batch.
        """
        if (count := self.spec.training.accumulation) == 1:
            return [(batch, options, None)]
        size = self.spec.training.batch_size // count
        found = list[tuple[Sequences, RunOptions, Tensor | None]]()
        interface, targets = self.replicas.interface, batch.targets
        scored = targets != interface.ignored if interface.target_kind == "class" else torch.ones_like(targets)
        scored_RB = scored[..., None].flatten(2).sum(dim=2, dtype=torch.float64)
        for at in range(0, self.spec.training.batch_size, size):
            mine = (slice(None), slice(at, at + size))
            coins = [each.transpose(1, 2)[mine].transpose(1, 2) for each in options.dropout]
            own = replace(options, initial=[states[mine] for states in options.initial], dropout=coins)
            share_R = scored_RB[mine].sum(dim=1) / scored_RB.sum(dim=1)
            found.append((batch.take(mine), own, share_R))
        return found

    def dropped(self, batch: Sequences, step: int, index: int, passed_Q: Tensor | None = None) -> list[Tensor]:
        """Return the coins of dropout for the update after `step` others, on the batch of this index, (Q, ...) each."""
        coins = self.replicas.model.dropout_coins(batch.inputs)
        drawn = draw(coins, self.spec.seeds, step, index) if coins else []
        return [of_passed(each.to(self.device), passed_Q) for each in drawn]

    def locate(self, update: Update, r: int) -> tuple[int | None, str, str]:
        """Return where the failed update of replica `r` stopped being finite: timestep, quantity, and a message."""
        passed_Q = update.passed_Q
        place = r if passed_Q is None else passed_Q.tolist().index(r)
        for portion, own, _ in self.portions(update.batch, update.options):
            timestep, quantity, num_nonfinite = locate(
                self.replicas, of_passed(update.before_RP, passed_Q), *portion, replica=place, options=own
            )
            if num_nonfinite:
                break
        loss, grad_norm = update.metrics["loss"][r].item(), update.metrics["grad_norm"][r].item()
        what = f"{num_nonfinite} of {self.replicas.num_parameters} entries of the gradient are not finite"
        if math.isfinite(loss) and num_nonfinite == 0:
            quantity, what = "parameters", "the update overflowed: parameters are not finite"
        message = f"loss {loss:.4g}, gradient norm {grad_norm:.4g}: {what}"
        return None if timestep is None else update.first + timestep, quantity, message

    def _chosen(self, window: Window, passed_Q: Tensor | None) -> Tensor:
        """Return which sequences each replica's batch is made of, (Q, B)."""
        return of_passed(self.order.indices(window.batch).to(self.device), passed_Q)

    def scheduled_sampling(self, batch: Sequences, state: State) -> tuple[Sequences, dict[str, Tensor]]:
        """Return the batch with the decoder inputs of this step, and the probability of the true token as a metric."""
        inputs, forcing = batch.inputs, self.spec.training.forcing
        if not isinstance(inputs, Seq2SeqInputs):
            return batch, {}
        epsilon, flat_QP = forcing.schedule.probability(state.step), of_passed(state.flat_RP, state.passed_Q)
        if epsilon < 1.0:
            _, num_examples, num_positions = inputs.decoder_inputs.shape
            coins_R = forcing.coins(self.spec.seeds, state.step, num_examples, num_positions).to(self.device)
            with torch.no_grad():
                parameters = self.replicas.named(flat_QP)
                decoder_inputs, _ = self.replicas.free_running(parameters, inputs, of_passed(coins_R, state.passed_Q))
            batch = Sequences(Seq2SeqInputs(inputs.source, decoder_inputs), batch.targets)
        return batch, {"teacher_forcing_probability": torch.full_like(flat_QP[:, 0], epsilon)}

    def _clip(
        self, grad_RP: Tensor, state: State, batch: Sequences, options: RunOptions
    ) -> tuple[Tensor, clipping.State, Ledger]:
        """Return the gradient to apply, the rule's state and the ledger; in the recurrence it takes a second pass."""
        rule = self.spec.clipping
        if rule.state_threshold is None:
            return clipping.clip(rule, grad_RP, state.clipping, self.replicas.named(state.flat_RP))
        clipped_inside = replace(options, state_threshold=rule.state_threshold)
        applied_QP = self.backpropagate(of_passed(state.flat_RP, state.passed_Q), batch, clipped_inside).grad_RP
        applied_RP = self._of_all(applied_QP, state)
        return applied_RP, state.clipping, clipping.compare(grad_RP, applied_RP)


def of_passed(tensor_R: Tensor, passed_Q: Tensor | None) -> Tensor:
    """Return the rows of the replicas that are passed; None is all."""
    return tensor_R if passed_Q is None else tensor_R[passed_Q]


def joined(runs: Sequence[Pass], shares_KR: Tensor) -> Pass:
    """Return the pass through a batch from those through its portions: the same, to rounding.

    Args:
        runs: One per portion, in order; their gradients are of their shares already.
        shares_KR: Of the targets of the batch.
    """
    return runs[0]._replace(
        losses=(shares_KR * torch.stack([run.losses for run in runs])).sum(dim=0),
        coverage=torch.stack([run.coverage for run in runs]).mean(dim=0),
        grad_RP=torch.stack([run.grad_RP for run in runs]).sum(dim=0),
        states=tuple(torch.cat(parts, dim=2) for parts in zip(*(run.states for run in runs), strict=True)),
        grad_states={key: torch.cat([run.grad_states[key] for run in runs], dim=2) for key in runs[0].grad_states},
    )
