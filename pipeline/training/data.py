"""A prepared dataset as tensors on the device of a trial."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from pipeline.models import Interface

if TYPE_CHECKING:
    from pipeline.datasets import Split
    from pipeline.datasets.dataset import Task


class Sequences(NamedTuple):
    """Inputs (N, T, D) or (N, T), and their targets."""

    inputs: Tensor
    targets: Tensor

    def take(self, indices: Tensor) -> Sequences:
        """Return the sequences at `indices`, of any shape."""
        return Sequences(self.inputs[indices], self.targets[indices])

    def first(self, num_sequences: int) -> Sequences:
        """Return the first sequences of the split."""
        return Sequences(self.inputs[:num_sequences], self.targets[:num_sequences])


def interface_of(dataset: Task) -> Interface:
    """Return what a model meets at the two ends of this dataset."""
    return Interface(
        dataset.input_kind, dataset.input_size, dataset.target_at, dataset.target_kind, dataset.output_size
    )


def to_device(split: Split, device: torch.device) -> Sequences:
    """Return a split as tensors; symbol ids keep their small type, classes become int64."""
    inputs = torch.from_numpy(np.array(split.inputs))  # a copy: arrays from an object store are read-only
    targets = torch.from_numpy(np.array(split.targets))
    targets = targets if targets.is_floating_point() else targets.long()
    return Sequences(inputs.to(device), targets.to(device))
