"""Initial weights: torch's rules for most layers, and for the recurrence and the readout those that a spec names.

A matrix rule fills one gate's block; a bias rule fills the biases of all gates. Every draw comes from (seed, purpose,
layer and direction, gate), so that arms of a study are paired. Shapes: H hidden, D input.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.config.strict import Checked, InvalidFieldError, require
from pipeline.core.attention.multihead import drawn_linear
from pipeline.core.cells import CELLS, Cell
from pipeline.core.cells.stack import RecurrentStack
from pipeline.errors import unknown_name

MAX_GATES = 8
"""Of a cell: gate g of the layer and direction numbered p draws with the counter MAX_GATES · p + g."""

MAX_PLACES = 200
"""Layers and directions of a stack: those of a network's second stack are numbered from here."""

STREAMS = (
    *("embedding", "recurrent", "readout", "data", "input_weight", "recurrent_weight", "bias", "readout_weight"),
    *("decoder", "decoder_embedding", "attention", "combine", "features", "begin", "code", "forcing", "sample"),
    *("dropout", "custom"),
)
"""Every random number of a trial comes from one of these streams of its seed.

A stream is a pure function of (seed, its index here, counter): no generator state to lose, and arms are paired. Seed 3
begins with the same readout and the same embedding, and sees the same batches, whatever the cell between them.
"""


def generator(seed: int, stream: str, counter: int = 0) -> torch.Generator:
    """Return a CPU generator for one purpose of one seed.

    Args:
        seed: The replica's seed, at least 0.
        stream: One of `STREAMS`.
        counter: For instance the epoch.
    """
    entropy = np.random.SeedSequence([seed, STREAMS.index(stream), counter])
    return torch.Generator().manual_seed(int(entropy.generate_state(1, np.uint64)[0]))


def linear(num_inputs: int, num_outputs: int, start: torch.Generator) -> nn.Linear:
    """Return a linear layer with weights and biases from U(-1/√num_inputs, 1/√num_inputs), torch's rule."""
    layer = drawn_linear(num_inputs, num_outputs, start)
    nn.init.uniform_(layer.bias, -(num_inputs**-0.5), num_inputs**-0.5, generator=start)
    return layer


def embedding_of(num_tokens: int, size: int | None, start: torch.Generator) -> nn.Embedding | None:
    """Return an embedding drawn from N(0, 1), torch's rule; None for one-hot inputs."""
    if size is None:
        return None
    return nn.Embedding.from_pretrained(torch.empty(num_tokens, size).normal_(generator=start), freeze=False)


@dataclass(frozen=True, kw_only=True)
class Uniform(Checked):
    """U(-1/√H, 1/√H), as torch.nn draws them."""

    name: Literal["uniform"] = "uniform"

    def fill(self, block: Tensor, start: torch.Generator) -> None:
        """Leave the block as the stack or the layer drew it."""


class _NotNegative(Checked):
    """Every number of the rule is at least 0."""

    def __post_init__(self) -> None:
        for key, value in vars(self).items():
            require(key == "name" or value >= 0, key, "a number of at least 0", value)


@dataclass(frozen=True, kw_only=True)
class Gaussian(_NotNegative):
    """N(0, std²), every entry alone."""

    name: Literal["gaussian"] = "gaussian"
    std: float

    def fill(self, block: Tensor, start: torch.Generator) -> None:
        """Draw the block anew."""
        block.normal_(0.0, self.std, generator=start)


@dataclass(frozen=True, kw_only=True)
class ScaledGaussian(_NotNegative):
    """N(0, g²/n) with n the number of columns: a square block has spectral radius near g (Girko's circle)."""

    name: Literal["scaled_gaussian"] = "scaled_gaussian"
    gain: float

    def fill(self, block: Tensor, start: torch.Generator) -> None:
        """Draw the block anew."""
        block.normal_(0.0, self.gain / math.sqrt(block.shape[1]), generator=start)


@dataclass(frozen=True, kw_only=True)
class Identity(Checked):
    """The identity times `scale` (Le, Jaitly and Hinton, 2015); ones on the diagonal of a block that is not square."""

    name: Literal["identity"] = "identity"
    scale: float

    def fill(self, block: Tensor, start: torch.Generator) -> None:
        """Write the block."""
        nn.init.eye_(block).mul_(self.scale)


@dataclass(frozen=True, kw_only=True)
class Orthogonal(Checked):
    """A random orthogonal matrix times `gain` (Saxe et al., 2014): all singular values are the gain."""

    name: Literal["orthogonal"] = "orthogonal"
    gain: float

    def fill(self, block: Tensor, start: torch.Generator) -> None:
        """Draw the block anew."""
        nn.init.orthogonal_(block, self.gain, generator=start)


@dataclass(frozen=True, kw_only=True)
class SpectralRadius(_NotNegative):
    """Gaussian, scaled so that the largest modulus of an eigenvalue is `radius`; square blocks only."""

    name: Literal["spectral_radius"] = "spectral_radius"
    radius: float

    def fill(self, block: Tensor, start: torch.Generator) -> None:
        """Draw the block anew."""
        drawn = torch.empty(block.shape, dtype=torch.float64).normal_(generator=start)
        block.copy_(drawn * (self.radius / torch.linalg.eigvals(drawn).abs().amax()))


@dataclass(frozen=True, kw_only=True)
class Glorot(_NotNegative):
    """U(-a, a) with a = gain · √(6 / (rows + columns)) of a gate's block (Glorot and Bengio, 2010)."""

    name: Literal["glorot"] = "glorot"
    gain: float

    def fill(self, block: Tensor, start: torch.Generator) -> None:
        """Draw the block anew."""
        bound = self.gain * math.sqrt(6.0 / sum(block.shape))
        block.uniform_(-bound, bound, generator=start)


@dataclass(frozen=True, kw_only=True)
class FanIn(Checked):
    """U(-1/√n, 1/√n) with n the number of columns, as nn.Linear draws its matrix: that of minGRU and minLSTM."""

    name: Literal["fan_in"] = "fan_in"

    def fill(self, block: Tensor, start: torch.Generator) -> None:
        """Draw the block anew."""
        bound = block.shape[1] ** -0.5
        block.uniform_(-bound, bound, generator=start)


MatrixRule = Uniform | Gaussian | ScaledGaussian | Identity | Orthogonal | SpectralRadius | Glorot | FanIn
"""The variants that a spec may name for a matrix."""


@dataclass(frozen=True, kw_only=True)
class UniformBias(Checked):
    """U(-1/√H, 1/√H) in both biases, as torch.nn draws them."""

    name: Literal["uniform"] = "uniform"

    def values(self, cell: Cell, hidden_size: int, start: torch.Generator) -> dict[str, Tensor] | None:
        """Return None: the biases stay as the module drew them."""
        return None


@dataclass(frozen=True, kw_only=True)
class ConstantBias(Checked):
    """One value in every bias; 0 is the usual choice. In the GRU that of n stands inside the reset product."""

    name: Literal["constant"] = "constant"
    value: float

    def values(self, cell: Cell, hidden_size: int, start: torch.Generator) -> dict[str, Tensor] | None:
        """Return the bias of every gate, (H,) each."""
        return {gate: torch.full((hidden_size,), self.value) for gate in cell.gates}


@dataclass(frozen=True, kw_only=True)
class KeepBias(Checked):
    """`value` in the gate that keeps the past (f of the LSTM, z of the GRU), 0 elsewhere (Gers et al., 2000).

    It is -`value` in a gate that keeps where it is shut (z of the minGRU).
    """

    name: Literal["forget_bias"] = "forget_bias"
    value: float

    def values(self, cell: Cell, hidden_size: int, start: torch.Generator) -> dict[str, Tensor] | None:
        """Return the bias of the keeping gate."""
        sign = 1.0 if cell.keeps_when_open else -1.0
        return {str(cell.keep_gate): torch.full((hidden_size,), sign * self.value)}


@dataclass(frozen=True, kw_only=True)
class Chrono(Checked):
    """b_f ~ ln U[1, T_max - 1], b_i = -b_f, 0 elsewhere (Tallec and Ollivier, 2018).

    A unit then forgets after a time drawn between 1 and T_max timesteps. In the GRU b_z takes the place of b_f; in a
    cell that keeps where its gate is shut, -b_z.
    """

    name: Literal["chrono"] = "chrono"
    longest_lag: float

    def __post_init__(self) -> None:
        require(self.longest_lag > 2, "longest_lag", "a number of timesteps above 2", self.longest_lag)

    def values(self, cell: Cell, hidden_size: int, start: torch.Generator) -> dict[str, Tensor] | None:
        """Return the bias of the keeping gate, and of the input gate where there is one."""
        keep = torch.empty(hidden_size).uniform_(1.0, self.longest_lag - 1.0, generator=start).log()
        of_gate = keep if cell.keeps_when_open else -keep
        return {str(cell.keep_gate): of_gate} | ({"i": -keep} if "i" in cell.gates else {})


@dataclass(frozen=True, kw_only=True)
class PowerLaw(Checked):
    """From `first` to `last` along the units in the gate that keeps the past, 0 elsewhere (Beck et al., 2024).

        b_j = first + (last - first) · (j / (H - 1))^exponent

    The sLSTM of the authors has 5, -7 and 0.3 in its first block. A gate that keeps where it is shut has -b_j.
    """

    name: Literal["power_law"] = "power_law"
    first: float
    last: float
    exponent: float

    def __post_init__(self) -> None:
        require(self.exponent > 0, "exponent", "a number above 0", self.exponent)

    def values(self, cell: Cell, hidden_size: int, start: torch.Generator) -> dict[str, Tensor] | None:
        """Return the bias of the keeping gate."""
        bias = self.first + (self.last - self.first) * torch.linspace(0.0, 1.0, hidden_size) ** self.exponent
        return {str(cell.keep_gate): bias if cell.keeps_when_open else -bias}


BiasRule = UniformBias | ConstantBias | KeepBias | Chrono | PowerLaw
"""The variants that a spec may name for the biases."""


@dataclass(frozen=True, kw_only=True)
class Initialisation(Checked):
    """How every weight of a network begins.

    Attributes:
        input: W_ih, gate by gate.
        recurrent: W_hh, gate by gate.
        gates: Rules of W_hh for single gates by name, in place of `recurrent`.
        bias: Of the recurrence; the sum of torch's two, where it is not their own rule.
        readout: The readout's matrix; its bias is 0, where that is not torch's own rule.
    """

    input: MatrixRule
    recurrent: MatrixRule
    gates: Mapping[str, MatrixRule] = field(hash=False)
    bias: BiasRule
    readout: MatrixRule

    def __post_init__(self) -> None:
        for name in ("input", "readout"):
            square_only = isinstance(getattr(self, name), SpectralRadius)
            require(not square_only, name, "a rule for blocks that need not be square", "spectral_radius")

    def check(self, cell: str) -> None:
        """Check that the cell has the gates that the rules speak of.

        Raises:
            InvalidFieldError: If it has not.
        """
        for gate in self.gates:
            if gate not in CELLS[cell].recurrent_gates:
                expected = unknown_name("gate", gate, CELLS[cell].recurrent_gates)
                raise InvalidFieldError("initialisation.gates", f"gates of the cell {cell!r} ({expected})", gate)
        suits = CELLS[cell].keep_gate is not None or not isinstance(self.bias, KeepBias | Chrono | PowerLaw)
        expected = f"a rule for {cell!r}, which lacks a gate that keeps the past"
        require(suits, "initialisation.bias", expected, self.bias.name)


PLAIN = Initialisation(input=Uniform(), recurrent=Uniform(), gates={}, bias=UniformBias(), readout=Uniform())
"""As torch.nn draws everything."""


@torch.no_grad()
def initialise_stack(stack: RecurrentStack, rules: Initialisation, seed: int, part: int = 0) -> None:
    """Give the recurrent weights of one network their initial values, in place.

    Args:
        stack: As its constructor drew it.
        rules: What is drawn from which distribution.
        seed: The replica's.
        part: Which of a network's stacks this is, counted from 0: each draws anew.
    """
    for number, place in enumerate(stack.places, MAX_PLACES * part):
        cell, weights = stack.cell, stack.weights(place)
        counters = {gate: MAX_GATES * number + g for g, gate in enumerate(cell.gates)}
        for gate, block in cell.input_blocks(weights.weight_ih).items():
            rules.input.fill(block, generator(seed, "input_weight", counters[gate]))
        for (gate, _), block in cell.recurrent_blocks(weights.weight_hh).items():
            rule = rules.gates.get(gate, rules.recurrent)
            rule.fill(block, generator(seed, "recurrent_weight", counters[gate]))
        biases = rules.bias.values(cell, stack.hidden_size, generator(seed, "bias", number))
        if biases is not None:
            weights.bias_ih.zero_()
            weights.bias_hh.zero_()
            for gate, values in biases.items():
                cell.bias_of(weights, gate).copy_(values)


@torch.no_grad()
def readout_of(num_inputs: int, num_outputs: int, rules: Initialisation, seed: int) -> nn.Linear:
    """Return the readout of one network with its initial values."""
    readout = linear(num_inputs, num_outputs, generator(seed, "readout"))
    rules.readout.fill(readout.weight, generator(seed, "readout_weight"))
    if not isinstance(rules.readout, Uniform):
        readout.bias.zero_()
    return readout
