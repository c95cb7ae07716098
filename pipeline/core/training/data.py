"""A prepared dataset as tensors on the device of a trial."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pipeline.core.models import Described, Inputs, Interface, Seq2SeqInputs, map_inputs, teacher_forced
from pipeline.data import Split
from pipeline.data.dataset import Task, unknown_id


class Sequences(NamedTuple):
    """Inputs (N, T, D) or (N, T), with what teacher forcing gives the decoder or with images; and their targets."""

    inputs: Inputs
    targets: Tensor

    def take(self, indices: Tensor | slice | tuple[slice, ...]) -> Sequences:
        """Return the sequences at `indices`, of any shape; of a replica batch (R, B, ...) at a slice of both axes."""
        return Sequences(map_inputs(lambda tensor: tensor[indices], self.inputs), self.targets[indices])

    def split(self, num_sequences: int) -> list[Sequences]:
        """Return the split in portions, in order."""
        return [self.take(slice(at, at + num_sequences)) for at in range(0, len(self.targets), num_sequences)]


def interface_of(dataset: Task) -> Interface:
    """Return what a model meets at the two ends of this dataset."""
    return Interface(
        input_kind=dataset.input_kind,
        input_size=dataset.input_size,
        target_at=dataset.target_at,
        target_kind=dataset.target_kind,
        output_size=dataset.output_size,
        padded=dataset.padded,
        unknown=unknown_id(dataset.target_tokens),
        describes=dataset.input_kind == "token" and dataset.frame_shape is not None,
    )


def to_device(split: Split, interface: Interface, device: torch.device) -> Sequences:
    """Return a split as tensors; symbol ids keep their small type, classes become int64."""
    inputs = torch.from_numpy(np.array(split.inputs)).to(device)  # a copy: arrays from an object store are read-only
    targets = torch.from_numpy(np.array(split.targets)).to(device)
    targets = targets if targets.is_floating_point() else targets.long()
    if interface.decodes:
        return Sequences(Seq2SeqInputs(inputs, teacher_forced(targets)), targets)
    if split.images is not None:
        return Sequences(Described(inputs, torch.from_numpy(np.array(split.images)).to(device)), targets)
    return Sequences(inputs, targets)


def aligned_on(split: Split, num_sequences: int, device: torch.device) -> Tensor | None:
    """Return which source positions each output token, or word, of the first sequences is made from, (B, U, S)."""
    return None if split.alignment is None else torch.from_numpy(np.array(split.alignment[:num_sequences])).to(device)
