"""Loss and error of every replica on a whole split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from pipeline.core.models import Replicas, loss, num_scored, num_wrong
from pipeline.core.training.data import Sequences

CHUNK = 128
"""Sequences evaluated at once: bounds memory, changes nothing else."""


@torch.no_grad()
def evaluate(replicas: Replicas, flat_RP: Tensor, split: Sequences) -> tuple[Tensor, Tensor | None]:
    """Return mean loss (R,), and the share of wrong classes (R,) or None for real targets.

    Of sequences that differ in length both are means over their tokens; a decoder is given the true ones.

    Args:
        replicas: The pack.
        flat_RP: Parameters.
        split: Inputs and targets; every replica sees the same.
    """
    interface, parameters = replicas.interface, replicas.named(flat_RP)
    total_loss = torch.zeros(replicas.num_replicas, dtype=torch.float64, device=flat_RP.device)
    total_wrong, total = torch.zeros_like(total_loss), torch.zeros_like(total_loss[0])
    for chunk in split.split(CHUNK):
        weight = num_scored(interface, chunk.targets) if interface.target_kind == "class" else len(chunk.targets)
        total += weight
        for r, prediction in enumerate(replicas.predict(parameters, chunk.inputs)):
            total_loss[r] += loss(interface, prediction, chunk.targets).double() * weight
            if interface.target_kind == "class":
                total_wrong[r] += num_wrong(interface, prediction, chunk.targets)
    if interface.target_kind == "value":
        return total_loss / total, None
    error = torch.where(total_loss.isfinite(), total_wrong / total, torch.nan)  # argmax of NaN is no answer
    return total_loss / total, error


@torch.no_grad()
def error_on_tokens(
    replicas: Replicas, flat_RP: Tensor, split: Sequences, groups: Mapping[str, Sequence[int]]
) -> dict[str, Tensor]:
    """Return by group the share of wrong classes, (R,), at the timesteps whose input is in it; NaN where none is.

    Args:
        replicas: The pack.
        flat_RP: Parameters.
        split: Symbol ids, (N, T), and classes at every timestep, (N, T).
        groups: The ids of each group, by its name; without any nothing is predicted.
    """
    if not groups:
        return {}
    parameters = replicas.named(flat_RP)
    members = {group: torch.tensor(tokens, device=flat_RP.device) for group, tokens in groups.items()}
    zeros = torch.zeros(replicas.num_replicas, dtype=torch.float64, device=flat_RP.device)
    wrong, num_timesteps = {group: zeros.clone() for group in groups}, {group: zeros[0].clone() for group in groups}
    for inputs, targets in split.split(CHUNK):
        assert isinstance(inputs, Tensor)  # noqa: S101 - token groups are of what is read
        missed = replicas.predict(parameters, inputs).argmax(-1) != targets
        for group, tokens in members.items():
            chosen = torch.isin(inputs.long(), tokens)
            wrong[group] += (missed & chosen).flatten(1).sum(dim=1)
            num_timesteps[group] += chosen.sum()
    return {group: wrong[group] / num_timesteps[group] for group in groups}
