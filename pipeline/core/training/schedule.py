"""What happens at which step: which sequences and timesteps an update is made of, and when it is measured.

All of it is a function of the step (and the seed) alone. Step 700 sees the same batch whether or not the trial was
killed at 650, and seed 3 the same in every arm of a study.

Truncated backpropagation through time, TBPTT(k1, k2), makes an update every k1 timesteps, backward through the last k2.
An update scores the newest k1 timesteps and backpropagates through the newest k2, so its memory grows with k2 and not
with the length of the sequence (the probe and the evaluations run whole sequences). What precedes those k2 enters as a
state that is carried from update to update and through which nothing flows back. The k2 timesteps are run again under
the present weights: the gradient is exact for the loss as a function of the weights with the carried state held fixed.
An update's loss weighs in its gradient as the share of the sequence's timesteps that it scores: every timestep weighs
the same, in a window of k1 as in the shorter one that is left where k1 does not divide the sequence, and as much as in
full backpropagation. With k2 no shorter than the sequence and k1 equal to it, it is full backpropagation; with k2 no
shorter and any k1, the gradients of a sequence's updates at fixed weights sum to the full one. (Who trains on the mean
over each window's own k1 timesteps has T/k1 times this gradient.) Where the target stands at the last timestep alone
there is one update per sequence, at its end.

Source: Williams and Peng (1990), BPTT(h; h'), who keep the states of the older weights instead of running them again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pipeline.config.strict import Checked, require
from pipeline.core.models import generator
from pipeline.data.dataset import TargetAt


def log_spaced_steps(max_steps: int, num_traces: int) -> tuple[int, ...]:
    """Return at most `num_traces` steps from 0 to `max_steps`, both among them, evenly spaced in log(1 + step).

    Dense at the start of training, where most changes, sparse at its end. Fewer come back where rounding makes two of
    them equal. `num_traces` is at least 2.
    """
    steps = np.expm1(np.linspace(0.0, np.log1p(max_steps), num_traces)).round().astype(int)
    return tuple(int(step) for step in np.unique(steps))


class BatchOrder:
    """The order in which each seed sees its training sequences: a fresh permutation per epoch.

    Args:
        seeds: One per replica.
        num_sequences: Size of the training split.
        batch_size: Sequences per step; what is left over at the end of an epoch is not used in it.
    """

    def __init__(self, seeds: tuple[int, ...], num_sequences: int, batch_size: int) -> None:
        self._seeds, self._num_sequences, self._batch_size = seeds, num_sequences, batch_size
        self._epoch = -1
        self._order_RN = torch.empty(0)

    def indices(self, batch: int) -> Tensor:
        """Return the sequences of a batch (counted from 0), (R, B)."""
        epoch, position = divmod(batch, self._num_sequences // self._batch_size)
        if epoch != self._epoch:
            orders = [torch.randperm(self._num_sequences, generator=generator(s, "data", epoch)) for s in self._seeds]
            self._epoch, self._order_RN = epoch, torch.stack(orders)
        start = position * self._batch_size
        return self._order_RN[:, start : start + self._batch_size]


@dataclass(frozen=True)
class Truncation(Checked):
    """TBPTT(k1, k2).

    Attributes:
        update_every: k1, timesteps between updates.
        backward_length: k2, timesteps that the gradient flows back through.
    """

    update_every: int
    backward_length: int

    def __post_init__(self) -> None:
        k1, k2 = self.update_every, self.backward_length
        require(k1 >= 1, "update_every", "an integer of at least 1", k1)
        require(k2 >= k1, "backward_length", f"an integer of at least update_every ({k1})", k2)


class Window(NamedTuple):
    """The timesteps of one update; [start, stop), counted from 0.

    Attributes:
        batch: Which batch of sequences, counted from 0.
        start: The first timestep that is run.
        stop: The timestep after the newest one.
        num_scored: How many of the newest ones the loss is over; None where the target stands at the end.
        weight: The share of the sequence's targets that these are: what the loss weighs in the gradient.
        carry: After how many timesteps of this window the next one starts; 0 is the state before the first.
    """

    batch: int
    start: int
    stop: int
    num_scored: int | None
    weight: float
    carry: int


class Windows:
    """Which timesteps of which batch each step runs.

    Args:
        truncation: k1 and k2; None is full backpropagation.
        num_timesteps: T of a sequence.
        target_at: Where the targets of a sequence stand.
    """

    def __init__(self, truncation: Truncation | None, num_timesteps: int, target_at: TargetAt) -> None:
        wanted = truncation or Truncation(update_every=num_timesteps, backward_length=num_timesteps)
        self._scored, self._num_timesteps = target_at == "every", num_timesteps
        self._every = min(wanted.update_every, num_timesteps) if self._scored else num_timesteps
        self._back = min(wanted.backward_length, num_timesteps)
        self.per_batch = -(-num_timesteps // self._every)

    def at(self, step: int) -> Window:
        """Return the window of `step`, counted from 0."""
        batch, chunk = divmod(step, self.per_batch)
        older, stop = chunk * self._every, min((chunk + 1) * self._every, self._num_timesteps)
        start = max(0, stop - self._back)
        last = chunk + 1 == self.per_batch
        following = min(stop + self._every, self._num_timesteps)
        return Window(
            batch=batch,
            start=start,
            stop=stop,
            num_scored=stop - older if self._scored else None,
            weight=(stop - older) / self._num_timesteps if self._scored else 1.0,
            carry=0 if last else max(0, following - self._back) - start,
        )
