"""What every kind of network shares: its recurrent parts, what of it can be tapped, and one forward pass.

Shapes: T timesteps, B batch, D input, H hidden, O output, S source and U target length.
"""

from __future__ import annotations

import functools
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from pipeline.core.cells.cell import Cell, States, Weights
from pipeline.core.cells.recurrence import kernel_of
from pipeline.core.cells.stack import Fused, Place, RecurrentStack, StackRun, stack_states, unstack_states
from pipeline.core.models.architecture import ModelSpec
from pipeline.core.models.dropout import Coins
from pipeline.core.models.initialisation import embedding_of, generator
from pipeline.core.models.interface import INPUT, Interface, Prediction, Seq2SeqInputs, StateKey, lengths_of, source_of


class StateForcing(NamedTuple):
    """When and how far the state of a network that generates is moved to one that says what the series is.

    Attributes:
        every: Timesteps from one time to the next.
        share: α, of the way.
    """

    every: int
    share: float


FREE = StateForcing(every=sys.maxsize, share=0.0)
"""Never."""


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Options of one pass through a network.

    Attributes:
        initial: States before the first timestep, (B, H) each, in the order of `Network.state_keys`; none for zeros.
        taps: Added to the states and to the encoded inputs, (T, B, features) each, in the order of `Network.tap_keys`;
            of zeros, the gradients are those of the states. None are no taps.
        num_scored: Of targets at every timestep, how many at the end are predicted; None is all.
        loss_weight: By what the loss is multiplied before it flows back: the share of its sequence's timesteps that it
            is over. The loss itself stays a mean over them.
        state_threshold: Clips every example's dL/dh_t to this norm as it flows back; None leaves it alone.
        coins: Makes a decoder free-running: at which output positions the token of its inputs is its input, as at the
            first; elsewhere the one that it wrote, (B, U). None is teacher-forced.
        forcing: Of the state of a network that generates; None makes forecasts.
        dropout: The coins that were drawn, in the order of `Network.dropout_coins`; none for the network without.
    """

    initial: Sequence[Tensor] = ()
    taps: Sequence[Tensor] = ()
    num_scored: int | None = None
    loss_weight: float = 1.0
    state_threshold: float | None = None
    coins: Tensor | None = None
    forcing: StateForcing | None = None
    dropout: Sequence[Tensor] = ()

    def names(self) -> set[str]:
        """Return the names of the options that are set."""
        tensors = {name for name in ("initial", "taps", "dropout") if len(getattr(self, name))}
        others = ("num_scored", "state_threshold", "coins", "forcing")
        return tensors | {name for name in others if getattr(self, name) is not None}


NO_OPTIONS = RunOptions()


class HiddenWeights(NamedTuple):
    """W_hh of R networks, (R, gates · H, states · H), with the part, the layer and direction, and the cell it is of."""

    part: str
    place: Place
    cell: Cell
    weight_hh: Tensor


class NetworkRun:
    """One pass through a network under way: runs the recurrent parts with its options, and keeps their states.

    A part may be run at once or a few timesteps at a time; each call takes the taps of the timesteps that follow. A
    free-running decoder leaves its inputs in `decoder_inputs`.

    Args:
        network: The network.
        options: Of the pass.
    """

    def __init__(self, network: Network, options: RunOptions) -> None:
        self.options, self._stacks, self._dropout = options, network.stacks, network.dropout
        self.runs: dict[str, list[StackRun]] = {part: [] for part in self._stacks}
        self.decoder_inputs: Tensor | None = None
        self._fused: dict[str, dict[Place, Fused]] = {}
        self._taps: dict[str, list[States]] = {}
        rest = list(options.taps)
        for part, stack in self._stacks.items() if rest else ():
            size = len(stack.places) * len(stack.cell.states)
            self._taps[part], rest = unstack_states(rest[:size], stack.cell), rest[size:]
        self._input_tap = rest[0] if rest else None
        self._coins: dict[str, list[Tensor]] = {}
        drawn = list(options.dropout)
        for part, stack in self._stacks.items() if drawn else ():
            size = len(self._dropout.coins(stack, 1, 1))
            self._coins[part], drawn = drawn[:size], drawn[size:]

    def tap(self, x_BTD: Tensor) -> Tensor:
        """Return the encoded inputs with their tap added."""
        return x_BTD if self._input_tap is None else x_BTD + self._input_tap.transpose(0, 1)

    def recur(
        self, part: str, x_TBD: Tensor, initial: Sequence[States] | None = None, lengths_B: Tensor | None = None
    ) -> StackRun:
        """Run a recurrent part over its next timesteps.

        Args:
            part: A key of the network's `stacks`.
            x_TBD: Its inputs.
            initial: States before them; None takes those of the options.
            lengths_B: After how many timesteps each example ends; None where all have T.
        """
        stack, taps, coins = self._stacks[part], self._taps.get(part), self._coins.get(part, [])
        if initial is None and self.options.initial:
            initial = unstack_states(self.options.initial, stack.cell)
        start = sum(len(run.outputs) for run in self.runs[part])
        now = slice(start, start + len(x_TBD))
        if taps is not None and len(taps[0].h) != len(x_TBD):
            taps = [tap.map(lambda each: each[now]) for tap in taps]
        noise = self._dropout.noise(stack, [each if len(each) == 1 else each[now] for each in coins])
        threshold, fused = self.options.state_threshold, self._fused.setdefault(part, {})
        run: StackRun = stack(x_TBD, initial, taps, lengths_B, threshold, noise, fused)
        self.runs[part].append(run)
        return run

    def states(self) -> list[Tensor]:
        """Return every state at every timestep, (T, B, H) each, in the order of `Network.state_keys`."""
        pieces = [[stack_states(run.states) for run in runs] for runs in self.runs.values()]
        return [each[0] if len(each) == 1 else torch.cat(each) for part in pieces for each in zip(*part, strict=True)]


class Network(nn.Module, ABC):
    """One network, without a replica axis.

    Args:
        interface: Kinds and sizes of inputs and targets.
        spec: What lies between them.
        seed: Where the initial weights come from; each part draws from a stream of its own.

    Attributes:
        options: Names of the `RunOptions` that this kind of network can be run with.
        traces_inputs: Whether its inputs have timesteps, so that ∂L/∂x_t can be traced.
        generates: Whether it says a series by itself, its states forced where the series is seen.
        attends: Whether there are attention weights to look at.
    """

    options: ClassVar[frozenset[str]] = frozenset({"taps", "state_threshold", "dropout"})
    traces_inputs: ClassVar[bool] = True
    generates: ClassVar[bool] = False

    def __init__(self, interface: Interface, spec: ModelSpec, seed: int) -> None:
        super().__init__()
        self.interface, self.attends, self.dropout = interface, spec.attention.name != "none", spec.dropout
        embedding_size = spec.embedding_size if interface.input_kind == "token" else None
        self.embedding = embedding_of(interface.input_size, embedding_size, generator(seed, "embedding"))
        self.input_size = embedding_size or interface.input_size

    @functools.cached_property
    def stacks(self) -> Mapping[str, RecurrentStack]:
        """The recurrent parts by name, in the order in which they are made and run."""
        modules = self.named_modules()
        return {name.partition(".")[0]: module for name, module in modules if isinstance(module, RecurrentStack)}

    @property
    def state_keys(self) -> tuple[StateKey, ...]:
        """Every state of the recurrent parts, in order."""
        return tuple(
            StateKey(place.layer, place.direction, name, part)
            for part, stack in self.stacks.items()
            for place in stack.places
            for name in stack.cell.states
        )

    @property
    def tap_keys(self) -> tuple[StateKey, ...]:
        """What can be tapped: every state, and the encoded inputs."""
        return (*self.state_keys, INPUT) if self.traces_inputs else self.state_keys

    def tap_shapes(self, inputs: Any) -> list[tuple[int, int, int]]:
        """Return the shape of each tap, (T, B, features), for inputs with or without a replica axis."""
        num_examples, lengths = self._num_examples_and_timesteps(inputs)
        sizes = {part: stack.hidden_size for part, stack in self.stacks.items()} | {INPUT.part: self.input_size}
        return [(lengths[key.part], num_examples, sizes[key.part]) for key in self.tap_keys]

    def dropout_coins(self, inputs: Any) -> list[Coins]:
        """Return the coins that dropout asks for in one pass, for inputs with or without a replica axis."""
        num_examples, lengths = self._num_examples_and_timesteps(inputs)
        parts = self.stacks.items()
        return [coins for part, stack in parts for coins in self.dropout.coins(stack, lengths[part], num_examples)]

    def _num_examples_and_timesteps(self, inputs: Any) -> tuple[int, dict[str, int]]:
        """Return B, and T of each part, that of the inputs among them."""
        source = source_of(inputs)
        num_examples, num_timesteps = source.shape[-2:] if self.interface.input_kind == "token" else source.shape[-3:-1]
        lengths = dict.fromkeys([*self.stacks, INPUT.part], num_timesteps)
        return num_examples, lengths | (
            {"decoder": inputs.decoder_inputs.shape[-1]} if isinstance(inputs, Seq2SeqInputs) else {}
        )

    def forward(self, inputs: Any, options: RunOptions = NO_OPTIONS) -> Prediction:
        """Return predictions, and the states that the network went through.

        Args:
            inputs: (B, T, D) real vectors, (B, T) symbol ids, `Seq2SeqInputs` or `Described`.
            options: Of this pass.

        Raises:
            ValueError: If this kind of network cannot be run with one of the options.
        """
        self.check_options(options)
        run = NetworkRun(self, options)
        values, weights = self.predict(inputs, run)
        recurrent = run.runs.get("recurrent", [None])[0]
        return Prediction(
            values=values, states=run.states(), weights=weights, run=recurrent, decoder_inputs=run.decoder_inputs
        )

    def weights(self, named: Mapping[str, Tensor], place: Place, part: str = "recurrent") -> Weights:
        """Return the parameters of one layer and direction of a recurrent part, from all by name."""
        stack = self.stacks[part]
        prefix = next(name for name, module in self.named_modules() if module is stack)
        return stack.cell.weights({name: named[f"{prefix}.{name}{place.suffix}"] for name in stack.cell.shapes(1, 1)})

    def hidden_weights(self, named: Mapping[str, Tensor]) -> Iterator[HiddenWeights]:
        """Yield W_hh of every layer and direction of every recurrent part whose states feed a gate through one.

        Args:
            named: The parameters of R networks by name, (R, ...) each.
        """
        for part, stack in self.stacks.items():
            for place in stack.places if stack.cell.recurrent_gates else ():
                yield HiddenWeights(part, place, stack.cell, self.weights(named, place, part).weight_hh)

    def load_parameters(self, parameters: Mapping[str, Tensor]) -> None:
        """Give the trained parameters other values, in place; each by the first of its names, as they are listed.

        Raises:
            ValueError: If there are others.
        """
        mine = dict(self.named_parameters())
        if mine.keys() != parameters.keys():
            raise ValueError(f"expected parameters {sorted(mine)}, got {sorted(parameters)}")
        with torch.no_grad():
            for name, values in parameters.items():
                mine[name].copy_(values)

    def check_options(self, options: RunOptions) -> None:
        """Check that this kind of network can be run with some options.

        Raises:
            ValueError: If not.
        """
        if not options.names() <= self.options:
            refused = ", ".join(sorted(options.names() - self.options))
            raise ValueError(f"expected none of the options {refused} for a network of the kind {type(self).__name__}")

    def in_turn(self, inputs: Any) -> bool:
        """Return whether replicas are run one after the other, not as one batched program."""
        return False

    def kernel(self, like: Tensor) -> str | None:
        """Return what runs the recurrences for parameters like this one; None where there are none."""
        stack = next(iter(self.stacks.values()), None)  # the stacks of a network share their cell
        if stack is None:
            return None
        return "autograd" if self.dropout.unrolls else kernel_of(stack.cell, like)

    @abstractmethod
    def predict(self, inputs: Any, run: NetworkRun) -> tuple[Tensor, Tensor | None]:
        """Return predictions, and attention weights (B, U, S) where there are any.

        Args:
            inputs: As those of `forward`.
            run: Runs the recurrent parts.
        """

    def encode(self, inputs: Tensor) -> Tensor:
        """Return what the first layer sees of real vectors (B, T, D) or symbol ids (B, T), (B, T, D)."""
        if self.interface.input_kind == "real":
            return inputs
        return embedded(inputs, self.embedding, self.interface.input_size, next(self.parameters()).dtype)

    def lengths(self, inputs: Tensor) -> Tensor | None:
        """Return the number of timesteps of every sequence, (B,); None where all are equally long."""
        return lengths_of(inputs) if self.interface.padded else None


def buffers_in(network: nn.Module, dtype: torch.dtype) -> dict[str, Tensor]:
    """Return the buffers of a network, real ones in a precision."""
    return {name: each.to(dtype) if each.is_floating_point() else each for name, each in network.named_buffers()}


def embedded(tokens: Tensor, embedding: nn.Embedding | None, num_tokens: int, dtype: torch.dtype) -> Tensor:
    """Return the embeddings of symbol ids (…), (…, D), or one-hot vectors where there is no embedding."""
    if embedding is not None:
        return embedding(tokens.long())
    return (tokens[..., None] == torch.arange(num_tokens, device=tokens.device)).to(dtype)
