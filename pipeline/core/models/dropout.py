"""Dropout in recurrent networks: between layers, variational, and zoneout; what is drawn for it, and where it goes.

The coins of an update are a pure function of seed and step, so that a trial that was killed draws the same ones again,
and a replica's are its own. Evaluations, traces and every other measurement are of the network without coins.

Shapes: T timesteps, B examples, H hidden, F features of a layer's input.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from pipeline.config.strict import Checked, require
from pipeline.core.cells import CELLS
from pipeline.core.cells.stack import Noise, RecurrentStack
from pipeline.core.models.initialisation import generator


class Coins(NamedTuple):
    """Coins that a recurrent part needs for one pass: what each comes to, and how many.

    Attributes:
        shape: (T or 1, B, features); with 1, the same coins hold at every timestep of a sequence.
        probability: Of heads.
        heads: What heads stands for; tails is 0.
    """

    shape: tuple[int, int, int]
    probability: float
    heads: float

    @property
    def is_of_sequences(self) -> bool:
        """Whether a sequence keeps its coins."""
        return self.shape[0] == 1

    def drawn(self, source: torch.Generator) -> Tensor:
        """Return them, drawn."""
        return (torch.rand(self.shape, generator=source) < self.probability) * self.heads


class _Rates(Checked):
    """Every rate is in [0, 1), and at least one is above 0."""

    def __post_init__(self) -> None:
        rates = {field: rate for field, rate in vars(self).items() if field != "name"}
        for field, rate in rates.items():
            require(0 <= rate < 1, field, "a probability in [0, 1)", rate)
        field, rate = next(iter(rates.items()), ("", 1.0))
        require(max(rates.values(), default=1.0) > 0, field, "a rate above 0, or the name 'none'", rate)


@dataclass(frozen=True, kw_only=True)
class NoDropout(_Rates):
    """The network as it is."""

    name: Literal["none"] = "none"

    unrolls = False

    def check(self, cell: str, num_layers: int) -> None:
        """Accept any network."""

    def coins(self, stack: RecurrentStack, num_timesteps: int, num_examples: int) -> list[Coins]:
        """Return none."""
        return []

    def noise(self, stack: RecurrentStack, coins: Sequence[Tensor]) -> Noise | None:
        """Return None: nothing is dropped."""
        return None


@dataclass(frozen=True, kw_only=True)
class LayerDropout(_Rates):
    """Between layers, as `dropout` of `nn.LSTM`: every output of every layer but the last is 0 with this `rate`.

    Each timestep has its own coins; what stays is divided by 1 - rate. Source: Zaremba, Sutskever and Vinyals (2014).
    """

    name: Literal["layers"] = "layers"
    rate: float

    unrolls = False

    def check(self, cell: str, num_layers: int) -> None:
        """Check that there is something between layers.

        Raises:
            InvalidFieldError: If not.
        """
        require(num_layers > 1, "num_layers", "at least 2, for dropout between layers", num_layers)

    def coins(self, stack: RecurrentStack, num_timesteps: int, num_examples: int) -> list[Coins]:
        """Return those of one pass: of each layer but the first, on what it reads."""
        shape = (num_timesteps, num_examples, stack.output_size)
        return [Coins(shape, 1 - self.rate, 1 / (1 - self.rate))] * (stack.num_layers - 1)

    def noise(self, stack: RecurrentStack, coins: Sequence[Tensor]) -> Noise | None:
        """Return what the drawn coins do; None of none, in an evaluation."""
        return Noise(inputs=(None, *coins)) if len(coins) else None


@dataclass(frozen=True, kw_only=True)
class VariationalDropout(_Rates):
    """One mask for all timesteps of a sequence: on what each layer reads, and on the states that feed back.

    Inputs are dropped at the rate `inputs`, h_{t-1} before its matrices at the rate `states`, alike for all gates; what
    stays is divided by 1 - rate. With `states` above 0 the loops are torch's own, and slower.

    Source: Gal and Ghahramani (2016), with tied weights.
    """

    name: Literal["variational"] = "variational"
    inputs: float
    states: float

    @property
    def unrolls(self) -> bool:
        """Whether the loops are torch's own."""
        return self.states > 0

    def check(self, cell: str, num_layers: int) -> None:
        """Check that the cell has h_{t-1} in front of matrices of its own.

        Raises:
            InvalidFieldError: If not.
        """
        fits = self.states == 0 or (CELLS[cell].whole_step is None and CELLS[cell].num_feeding > 0)
        require(fits, "cell", "a cell of blocks that h feeds, for variational dropout of states", cell)

    def coins(self, stack: RecurrentStack, num_timesteps: int, num_examples: int) -> list[Coins]:
        """Return those of one pass: of each layer on what it reads, then of each layer and direction on its states."""
        widths = [stack.input_size, *[stack.output_size] * (stack.num_layers - 1)] if self.inputs else []
        fed = [stack.hidden_size * stack.cell.num_feeding] * len(stack.places) if self.states else []
        kept, fed_kept = 1 - self.inputs, 1 - self.states
        return [
            *(Coins((1, num_examples, width), kept, 1 / kept) for width in widths),
            *(Coins((1, num_examples, width), fed_kept, 1 / fed_kept) for width in fed),
        ]

    def noise(self, stack: RecurrentStack, coins: Sequence[Tensor]) -> Noise | None:
        """Return what the drawn coins do; None of none, in an evaluation."""
        if not len(coins):
            return None
        split = stack.num_layers if self.inputs else 0
        return Noise(inputs=tuple(coins[:split]), fed=tuple(coin[0] for coin in coins[split:]))


@dataclass(frozen=True, kw_only=True)
class Zoneout(_Rates):
    """A unit keeps its state of the timestep before: of h at the rate `hidden`, of every other state at `cell`.

    Each unit and timestep has its own coin. Without coins, in an evaluation, a state is the mean over them: rate times
    the one before and 1 - rate times the new one. A new h is made of the new c, kept or not. The loops are torch's own,
    and slower.

    Source: Krueger et al. (2017).
    """

    name: Literal["zoneout"] = "zoneout"
    hidden: float
    cell: float

    unrolls = True

    def check(self, cell: str, num_layers: int) -> None:
        """Check that a cell without other states keeps none.

        Raises:
            InvalidFieldError: If it were to.
        """
        states = CELLS[cell].states
        plain = CELLS[cell].whole_step is None and {*states} <= {"h", "c"}
        require(plain, "cell", "a cell of blocks whose states are h, or h and c, for zoneout", cell)
        expected = f"0: the cell {cell!r} has no state but h"
        require(self.cell == 0 or len(states) > 1, "dropout.cell", expected, self.cell)

    def _rates(self, stack: RecurrentStack) -> Iterator[float]:
        return (self.hidden if state == "h" else self.cell for _ in stack.places for state in stack.cell.states)

    def coins(self, stack: RecurrentStack, num_timesteps: int, num_examples: int) -> list[Coins]:
        """Return those of one pass: of each layer and direction, of each state, heads where it is kept."""
        shape = (num_timesteps, num_examples, stack.hidden_size)
        return [Coins(shape, rate, 1.0) for rate in self._rates(stack)]

    def noise(self, stack: RecurrentStack, coins: Sequence[Tensor]) -> Noise | None:
        """Return what the drawn coins do, or what they do on average."""
        kept = list(coins) if len(coins) else [*self._rates(stack)]
        size = len(stack.cell.states)
        return Noise(kept=tuple(tuple(kept[at : at + size]) for at in range(0, len(kept), size)))


Dropout = NoDropout | LayerDropout | VariationalDropout | Zoneout
"""The variants that a spec may name."""

NO_DROPOUT = NoDropout()


def draw(coins: Sequence[Coins], seeds: Sequence[int], step: int, batch: int) -> list[Tensor]:
    """Return the coins of every replica, (R, ...) each, on the CPU.

    Args:
        coins: Of one pass of one replica.
        seeds: One per replica.
        step: Of the update: coins of timesteps depend on it.
        batch: Of the sequences: coins that a sequence keeps depend on it, whatever the window of it.
    """
    per_replica = []
    for seed in seeds:
        of_step, of_batch = generator(seed, "dropout", 2 * step), generator(seed, "dropout", 2 * batch + 1)
        per_replica.append([each.drawn(of_batch if each.is_of_sequences else of_step) for each in coins])
    return [torch.stack(each) for each in zip(*per_replica, strict=True)]
