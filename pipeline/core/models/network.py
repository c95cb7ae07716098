"""The face that every kind of network shows: what it is made of, what of it can be tapped, how it is run."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from pipeline.core.cells.stack import RecurrentStack
from pipeline.core.models.interface import INPUT, Interface, Prediction, StateKey


class Network(nn.Module, ABC):
    """One network, with no replica axis in sight.

    Attributes:
        interface: What it meets at its two ends.
        reads_sequence: Whether what it reads has timesteps, so that ∂L/∂x_t can be traced.
    """

    interface: Interface
    reads_sequence = True

    @property
    @abstractmethod
    def stacks(self) -> Mapping[str, RecurrentStack]:
        """The recurrent parts by name, in the order in which they are run."""

    @property
    def attends(self) -> bool:
        """Whether there are weights of attention to look at."""
        return False

    @property
    def state_keys(self) -> tuple[StateKey, ...]:
        """Every state of the recurrent parts, in order."""
        return tuple(key for part, stack in self.stacks.items() for key in state_keys_of(part, stack))

    @property
    def tap_keys(self) -> tuple[StateKey, ...]:
        """What can be tapped: every state, and what is read."""
        return (*self.state_keys, INPUT) if self.reads_sequence else self.state_keys

    @abstractmethod
    def tap_shapes(self, inputs: Any) -> list[tuple[int, int]]:
        """Return timesteps and features of each tap, for inputs with any number of leading axes."""

    @abstractmethod
    def forward(
        self,
        inputs: Any,
        initial: Sequence[Tensor] = (),
        taps: Sequence[Tensor] = (),
        num_scored: int | None = None,
        state_threshold: float | None = None,
    ) -> Prediction:
        """Return predictions, and what the network went through.

        Args:
            inputs: As this kind of network reads them.
            initial: States before the first timestep, (B, H) each, in the order of `state_keys`; none for zeros. Only
                a network with one recurrent stack can be given any.
            taps: Added to the states and to what is read, (T, B, features) each, in the order of `tap_keys`; or none.
            num_scored: Of targets at every timestep, how many at the end are asked for; None is all.
            state_threshold: Clips every example's dL/dh_t to this norm as it flows back; None leaves it alone.
        """


def state_keys_of(part: str, stack: RecurrentStack) -> tuple[StateKey, ...]:
    """Return every state of a recurrent part, in the order of its stack."""
    return tuple(StateKey(place.layer, place.direction, name, part) for place, name in stack.state_keys())
