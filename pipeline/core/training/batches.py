"""Which sequences each seed sees at each step: a pure function of (seed, step).

Step 700 sees the same batch whether or not the trial was killed at 650, and seed 3 the same in every arm of a study.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pipeline.core.models import generator


class BatchOrder:
    """The order in which each seed sees its training sequences: a fresh permutation an epoch.

    Args:
        seeds: One a replica.
        num_sequences: Size of the training split.
        batch_size: Sequences a step; what is left over at the end of an epoch is not used in it.
    """

    def __init__(self, seeds: tuple[int, ...], num_sequences: int, batch_size: int) -> None:
        self._seeds, self._num_sequences, self._batch_size = seeds, num_sequences, batch_size
        self._epoch = -1
        self._order_RN = torch.empty(0)

    def indices(self, step: int) -> Tensor:
        """Return the sequences of `step` (counted from 0), (R, B)."""
        epoch, position = divmod(step, self._num_sequences // self._batch_size)
        if epoch != self._epoch:
            orders = [torch.randperm(self._num_sequences, generator=generator(s, "data", epoch)) for s in self._seeds]
            self._epoch, self._order_RN = epoch, torch.stack(orders)
        start = position * self._batch_size
        return self._order_RN[:, start : start + self._batch_size]
