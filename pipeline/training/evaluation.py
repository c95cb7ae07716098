"""Loss and error of every replica on a whole split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from pipeline.models import Replicas, loss, num_wrong

CHUNK = 128
"""Sequences evaluated at once: bounds memory, changes nothing else."""


@torch.no_grad()
def evaluate(replicas: Replicas, flat_RP: Tensor, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor | None]:
    """Return mean loss (R,), and the share of wrong classes (R,) or None for real targets.

    Args:
        replicas: The pack.
        flat_RP: Parameters.
        inputs: The split's inputs, (N, T, D) or (N, T); every replica sees the same.
        targets: The split's targets.
    """
    interface, parameters = replicas.interface, replicas.named(flat_RP)
    total_loss = torch.zeros(replicas.num_replicas, dtype=torch.float64, device=flat_RP.device)
    total_wrong = torch.zeros_like(total_loss)
    for chunk_inputs, chunk_targets in zip(inputs.split(CHUNK), targets.split(CHUNK), strict=True):
        predictions = replicas.predict(parameters, chunk_inputs)
        for r, prediction in enumerate(predictions):
            total_loss[r] += loss(interface, prediction, chunk_targets).double() * len(chunk_inputs)
            if interface.target_kind == "class":
                total_wrong[r] += num_wrong(prediction, chunk_targets)
    if interface.target_kind == "value":
        return total_loss / len(inputs), None
    error = total_wrong / targets.numel()
    return total_loss / len(inputs), torch.where(total_loss.isfinite(), error, torch.nan)  # argmax of NaN is no answer


@torch.no_grad()
def error_on_tokens(
    replicas: Replicas, flat_RP: Tensor, inputs: Tensor, targets: Tensor, groups: Mapping[str, Sequence[int]]
) -> dict[str, Tensor]:
    """Return by group the share of wrong classes, (R,), at the timesteps whose input is in it; NaN where none is.

    Args:
        replicas: The pack.
        flat_RP: Parameters.
        inputs: Symbol ids, (N, T).
        targets: Classes at every timestep, (N, T).
        groups: The ids of each group, by its name; without any nothing is predicted.
    """
    if not groups:
        return {}
    parameters = replicas.named(flat_RP)
    members = {group: torch.tensor(tokens, device=inputs.device) for group, tokens in groups.items()}
    zeros = torch.zeros(replicas.num_replicas, dtype=torch.float64, device=flat_RP.device)
    wrong, num_timesteps = {group: zeros.clone() for group in groups}, {group: zeros[0].clone() for group in groups}
    for chunk_inputs, chunk_targets in zip(inputs.split(CHUNK), targets.split(CHUNK), strict=True):
        missed = replicas.predict(parameters, chunk_inputs).argmax(-1) != chunk_targets
        for group, tokens in members.items():
            chosen = torch.isin(chunk_inputs.long(), tokens)
            wrong[group] += (missed & chosen).flatten(1).sum(dim=1)
            num_timesteps[group] += chosen.sum()
    return {group: wrong[group] / num_timesteps[group] for group in groups}
