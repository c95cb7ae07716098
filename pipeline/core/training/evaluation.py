"""How good replicas are on sequences that they do not train on: validation on the way, tests at the end.

A decoder is always evaluated teacher-forced and free-running. One that writes every token right under teacher forcing
does so free-running as well, and the other way round, for then its inputs are the same: whole sequences have one error.
What teacher forcing hides shows token by token, after the first mistake.

Shapes: R replicas, Q of them, P parameters of one network, N sequences, B at once, T timesteps, U output positions, O
numbers per prediction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.core.models import (
    Described,
    Interface,
    Replicas,
    Seq2SeqInputs,
    lengths_of,
    loss,
    num_scored,
    num_wrong,
    source_of,
    wrong,
)
from pipeline.core.training.data import Sequences, to_device
from pipeline.core.training.rows import RowWriter
from pipeline.data import EOS, PAD, Dataset

MAX_SEQUENCES_AT_ONCE = 128
MAX_NUMBERS_AT_ONCE = 2**26
"""Sequences evaluated at once, and numbers held for them, 256 MiB in float32: both bound memory."""

TEACHER_FORCED, FREE_RUNNING = "teacher_forced", "free_running"
MODES = (TEACHER_FORCED, FREE_RUNNING)


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Scores a replica batch on the splits of a dataset, and writes what is more than the results of a trial.

    Its methods take the parameters, (R, P), which replicas are evaluated, and the step under which their rows stand.
    They return the loss and the error of each of these; errors are None for real targets. Of a decoder they are the
    teacher-forced loss and the free-running error of whole sequences.

    Attributes:
        replicas: The replica batch.
        dataset: What is known of the data besides, and test splits of other lengths.
        splits: Validation and test among them, on the device.
        rows: Where they go.
    """

    replicas: Replicas
    dataset: Dataset
    splits: Mapping[str, Sequences]
    rows: RowWriter

    def validate(self, flat_RP: Tensor, which: list[int], step: int) -> tuple[list[float], list[float | None]]:
        """Return losses and errors of the replicas in `which` on the validation split, and write them."""
        losses, errors = self._score("validation", flat_RP[which], which, step)
        self._write_scores(losses, errors, which, step, split="validation")
        return losses.tolist(), _listed(errors, losses)

    def test(self, flat_RP: Tensor, which: list[int], step: int) -> tuple[list[float], list[float | None]]:
        """Return the same of the test split; write what is tested besides, unseen lengths, kinds of token."""
        flat_QP = flat_RP[which]
        losses, errors = self._score("test", flat_QP, which, step)
        for length, unseen in self.dataset.unseen.items():
            split = to_device(unseen, self.replicas.interface, flat_QP.device)
            unseen_losses, unseen_errors = evaluate(self.replicas, flat_QP, split)
            if self.replicas.interface.decodes:
                unseen_errors = decode(self.replicas, flat_QP, split).sequence_error()
            self._write_scores(unseen_losses, unseen_errors, which, step, split="test", tested_length=length)
        groups = self.dataset.token_groups or {}
        for group, error_Q in error_by_group(self.replicas, flat_QP, self.splits["test"], groups).items():
            self.rows.curve(step, "error", error_Q, which, split="test", group=group)
        return losses.tolist(), _listed(errors, losses)

    def _score(self, name: str, flat_QP: Tensor, which: list[int], step: int) -> tuple[Tensor, Tensor | None]:
        split = self.splits[name]
        if not self.replicas.interface.decodes:
            return evaluate(self.replicas, flat_QP, split)
        decoding = decode(self.replicas, flat_QP, split)
        self.rows.curve(step, "loss", decoding.losses[FREE_RUNNING], which, split=name, mode=FREE_RUNNING)
        for mode in MODES:
            self.rows.curve(step, "token_error", decoding.token_error(mode), which, split=name, mode=mode)
        if name == "test":
            self._write_breakdown(decoding, split, which, step)
        return decoding.losses[TEACHER_FORCED], decoding.sequence_error()

    def _write_scores(
        self, losses: Tensor, errors: Tensor | None, which: list[int], step: int, **facts: str | int
    ) -> None:
        self.rows.curve(step, "loss", losses, which, **facts)
        if errors is not None:
            self.rows.curve(step, "error", errors, which, **facts)

    def _write_breakdown(self, decoding: Decoding, split: Sequences, which: list[int], step: int) -> None:
        """Write where decoders err: tokens by output position in both modes, sequences by source length."""
        parts = []
        for mode in MODES:
            error_QU, num_U = decoding.by_position(mode)
            occurs = num_U > 0
            positions = np.arange(1, len(num_U) + 1)[occurs.cpu().numpy()]
            parts.append((mode, "output_position", positions, error_QU[:, occurs], num_U[occurs]))
        assert isinstance(split.inputs, Seq2SeqInputs)  # noqa: S101 - so decoders' are
        source = split.inputs.source
        if source.dim() == 2:  # noqa: PLR2004 - an image has no length
            lengths_K, error_QK, num_K = decoding.by_length(lengths_of(source))
            parts.append((FREE_RUNNING, "source_length", lengths_K.cpu().numpy(), error_QK, num_K))
        for mode, by, at, error_QK, num_K in parts:
            values = {"error": error_QK.double(), "num": num_K.expand(len(which), -1)}
            self.rows.write("breakdown", values, which, {"at": at}, mode=mode, by=by, step=step)


def num_at_once(num_replicas: int, numbers_per_sequence: int) -> int:
    """Return how many sequences are evaluated at once: 128, or as many as `MAX_NUMBERS_AT_ONCE` allow, at least one."""
    return max(1, min(MAX_SEQUENCES_AT_ONCE, MAX_NUMBERS_AT_ONCE // (num_replicas * max(1, numbers_per_sequence))))


def portions(replicas: Replicas, split: Sequences) -> list[Sequences]:
    """Return a split in portions that fit into memory together with the replicas' states, weights and predictions.

    They are the same whichever of the replicas are evaluated: what is added up over them has the same bits.
    """
    inputs, targets = split.take(slice(0, 1))
    numbers = sum(num * size for num, _, size in replicas.model.tap_shapes(inputs))
    numbers += replicas.interface.output_size * (1 if replicas.interface.target_at == "last" else targets.shape[1])
    if replicas.model.attends:
        seen, asking = (inputs, inputs) if isinstance(inputs, Tensor) else inputs
        if isinstance(inputs, Described):
            seen, asking = inputs.images, inputs.source
        numbers += seen[0].numel() * asking.shape[1]
    return split.split(num_at_once(replicas.num_replicas, numbers))


def _listed(errors: Tensor | None, losses: Tensor) -> list[float | None]:
    return [None] * len(losses) if errors is None else errors.tolist()


@torch.no_grad()
def evaluate(replicas: Replicas, flat_RP: Tensor, split: Sequences) -> tuple[Tensor, Tensor | None]:
    """Return mean loss (R,), and the share of wrong classes (R,) or None for real targets, of a split.

    Of sequences that differ in length both are means over their tokens; a decoder is teacher-forced.
    """
    interface, parameters = replicas.interface, replicas.named(flat_RP)
    classes = interface.target_kind == "class"
    total_loss = torch.zeros(len(flat_RP), dtype=torch.float64, device=flat_RP.device)
    total_wrong, total = torch.zeros_like(total_loss), torch.zeros_like(total_loss[0])
    for chunk in portions(replicas, split):
        weight = num_scored(interface, chunk.targets) if classes else len(chunk.targets)
        total += weight
        for r, prediction in enumerate(replicas.predict(parameters, chunk.inputs)):
            total_loss[r] += loss(interface, prediction, chunk.targets).double() * weight
            if classes:
                total_wrong[r] += num_wrong(interface, prediction, chunk.targets)
    if not classes:
        return total_loss / total, None
    error = torch.where(total_loss.isfinite(), total_wrong / total, torch.nan)  # argmax of NaN is no answer
    return total_loss / total, error


@torch.no_grad()
def error_by_group(
    replicas: Replicas, flat_RP: Tensor, split: Sequences, groups: Mapping[str, Sequence[int]]
) -> dict[str, Tensor]:
    """Return by group the share of wrong classes, (R,), at the timesteps whose input is in it; NaN where none is.

    The split has symbol ids, (N, T), and classes at every timestep, (N, T), or one a sequence, (N,): then it counts in
    the groups that any token of the sequence is in. Without any group nothing is predicted.
    """
    if not groups:
        return {}
    tokens_NT, at_every = source_of(split.inputs).long(), split.targets.dim() > 1
    parameters, errors = replicas.named(flat_RP), {}
    missed = [
        wrong(replicas.interface, replicas.predict(parameters, part.inputs).argmax(-1), part.targets)
        for part in portions(replicas, split)
    ]
    missed_R = torch.cat(missed, dim=1)
    for group, tokens in groups.items():
        chosen = torch.isin(tokens_NT, torch.tensor(tokens, device=flat_RP.device))
        chosen = chosen if at_every else chosen.any(dim=1)
        errors[group] = (missed_R & chosen).flatten(1).sum(dim=1).double() / chosen.sum()
    return errors


class Decoding(NamedTuple):
    """What R decoders did with a split.

    Attributes:
        tokens: By mode the most probable token at every position, (R, N, U); free-running, `PAD` after the first `EOS`.
        losses: By mode the cross-entropy of the true tokens in nats per token, (R,).
        targets: (N, U).
        interface: Which of them are padding, and which unknown.
    """

    tokens: dict[str, Tensor]
    losses: dict[str, Tensor]
    targets: Tensor
    interface: Interface

    def wrong(self, mode: str) -> Tensor:
        """Return which tokens are not the true ones, (R, N, U); padding never is, an unknown target always."""
        return wrong(self.interface, self.tokens[mode], self.targets)

    def token_error(self, mode: str) -> Tensor:
        """Return the share of wrong tokens, (R,); NaN where the loss is not finite."""
        return self._where_finite(self.wrong(mode).sum(dim=(1, 2)) / (self.targets != PAD).sum())

    def sequence_error(self) -> Tensor:
        """Return the share of sequences with a wrong token, (R,), free-running; NaN where the loss is not finite."""
        return self._where_finite(self.wrong(FREE_RUNNING).any(dim=2).double().mean(dim=1))

    def by_position(self, mode: str) -> tuple[Tensor, Tensor]:
        """Return the share of wrong tokens at each output position, (R, U), and how many there are, (U,)."""
        num_U = (self.targets != PAD).sum(dim=0)
        return self.wrong(mode).sum(dim=1) / num_U, num_U

    def by_length(self, lengths_N: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the source lengths that occur, the share of sequences with a wrong token, (R, K), and their number."""
        lengths_K, index_N = lengths_N.unique(return_inverse=True)
        wrong_RN, num_K = self.wrong(FREE_RUNNING).any(dim=2).double(), index_N.bincount()
        total_RK = wrong_RN.new_zeros(len(wrong_RN), len(lengths_K)).index_add_(1, index_N, wrong_RN)
        return lengths_K, total_RK / num_K, num_K

    def _where_finite(self, error_R: Tensor) -> Tensor:
        return torch.where(self.losses[TEACHER_FORCED].isfinite(), error_R.double(), torch.nan)


@torch.no_grad()
def decode(replicas: Replicas, flat_RP: Tensor, split: Sequences) -> Decoding:
    """Return what every replica's decoder does with one split, in both modes."""
    parameters = replicas.named(flat_RP)
    tokens: dict[str, list[Tensor]] = {mode: [] for mode in MODES}
    losses: dict[str, list[Tensor]] = {mode: [] for mode in MODES}
    for inputs, targets in portions(replicas, split):
        assert isinstance(inputs, Seq2SeqInputs)  # noqa: S101 - so decoders' are
        never = torch.zeros_like(inputs.decoder_inputs, dtype=torch.bool)
        read_RBU, free_RBU = replicas.free_running(parameters, inputs, never, shared=True)
        forced_RBUO = replicas.predict(parameters, inputs)
        free_RBUO = replicas.predict(parameters, Seq2SeqInputs(inputs.source, read_RBU))
        tokens[TEACHER_FORCED].append(forced_RBUO.argmax(dim=-1))
        tokens[FREE_RUNNING].append(ended(free_RBU))
        losses[TEACHER_FORCED].append(_summed_loss(forced_RBUO, targets))
        losses[FREE_RUNNING].append(_summed_loss(free_RBUO, targets))
    num_tokens = (split.targets != PAD).sum()
    return Decoding(
        tokens={mode: torch.cat(parts, dim=1) for mode, parts in tokens.items()},
        losses={mode: torch.stack(parts).sum(dim=0) / num_tokens for mode, parts in losses.items()},
        targets=split.targets,
        interface=replicas.interface,
    )


def _summed_loss(logits_RBUO: Tensor, targets_BU: Tensor) -> Tensor:
    """Return the cross-entropy summed over all tokens, (R,), in float64."""
    targets = targets_BU.flatten()
    sums = [F.cross_entropy(x.flatten(0, 1), targets, ignore_index=PAD, reduction="sum") for x in logits_RBUO]
    return torch.stack(sums).double()


def ended(tokens: Tensor) -> Tensor:
    """Return tokens (…, U) with `PAD` in place of all that follows the first `EOS`."""
    after = (tokens == EOS).cumsum(dim=-1).roll(1, dims=-1)
    after[..., 0] = 0
    return tokens.masked_fill(after > 0, PAD)
