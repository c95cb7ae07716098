"""The configuration of a network, and which networks a dataset can use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from pipeline.config.strict import Checked, InvalidFieldError, option, require
from pipeline.core.attention.score import NO_ATTENTION, Additive, Dot, General, NoAttention
from pipeline.core.cells import CELLS
from pipeline.core.models.dropout import NO_DROPOUT, Dropout
from pipeline.core.models.initialisation import PLAIN, Initialisation
from pipeline.core.models.interface import Interface
from pipeline.errors import unknown_name


@dataclass(frozen=True, kw_only=True)
class SelfAttention(Checked):
    """Layers in which every timestep attends to itself and the earlier ones, in place of the recurrent ones.

    A bidirectional network attends to all timesteps. No cell is used.
    """

    name: Literal["self"] = "self"
    num_heads: int

    def __post_init__(self) -> None:
        require(self.num_heads >= 1, "num_heads", "an integer of at least 1", self.num_heads)


AttentionSpec = NoAttention | Dot | General | Additive | SelfAttention
"""The variants that a spec may name."""


@dataclass(frozen=True, kw_only=True)
class ModelSpec(Checked):
    """A network, whose kind follows from the dataset's targets.

    A target at the last or at every timestep: a stack of recurrent layers (with `attention: self` of self-attention)
    between an input encoding and a linear readout; where the tokens read speak of an image, with or without attention
    to its cells. A target sequence of tokens: an encoder-decoder, or of images a captioner, with or without attention.
    A target sequence of frames: an autoencoder through a code of `code_size` numbers.

    `embedding_size` is of tokens, read or written: null encodes them one-hot. For a real input without a token it must
    be null. With `generates` the network reads where a series begins, and no more of it: it says what follows, and is
    evaluated by forecasts of so many timesteps. A bidirectional layer has `hidden_size` units in each direction, in an
    encoder half of them.
    """

    name: Literal["built_in"] = option("built_in")
    cell: str
    hidden_size: int
    num_layers: int
    bidirectional: bool
    embedding_size: int | None
    attention: AttentionSpec
    code_size: int | None
    initialisation: Initialisation
    dropout: Dropout = option(NO_DROPOUT)
    generates: int | None = option(None)

    def __post_init__(self) -> None:
        if self.cell not in CELLS:
            raise InvalidFieldError("cell", f"a cell of the list ({unknown_name('cell', self.cell, CELLS)})", self.cell)
        require(self.hidden_size >= 1, "hidden_size", "an integer of at least 1", self.hidden_size)
        require(1 <= self.num_layers <= 100, "num_layers", "an integer from 1 to 100", self.num_layers)
        for field in ("embedding_size", "code_size", "generates"):
            size = getattr(self, field)
            require(size is None or size >= 1, field, "null or an integer of at least 1", size)
        self.initialisation.check(self.cell)
        recurs = not isinstance(self.attention, SelfAttention)
        require(recurs or self.dropout == NO_DROPOUT, "dropout.name", "none, where nothing recurs", self.dropout.name)
        self.dropout.check(self.cell, self.num_layers)

    @classmethod
    def plain(cls, cell: str, hidden_size: int, **changes: Any) -> ModelSpec:
        """Return one layer forward in time, on one-hot or real inputs, initialised as torch does; with `changes`."""
        fields = {"num_layers": 1, "bidirectional": False, "embedding_size": None, "code_size": None}
        rules = {"attention": NO_ATTENTION, "initialisation": PLAIN}
        return cls(cell=cell, hidden_size=hidden_size, **(fields | rules | changes))


def check_model(spec: ModelSpec, interface: Interface) -> None:
    """Check that a network of this spec fits a dataset's inputs and targets.

    Raises:
        InvalidFieldError: If not; the caller knows the file and the dataset.
    """
    transduces, attention = interface.target_at == "sequence", spec.attention.name
    expected = "for this dataset's targets"
    if interface.decodes or interface.describes:
        require(attention != "self", "model.attention.name", f"none, dot, general or additive, {expected}", attention)
    else:
        one_of = "none" if transduces else "none or self"
        fits = attention in one_of.split(" or ")
        require(fits, "model.attention.name", f"{one_of}: nothing is decoded from a source, {expected}", attention)
    if transduces and interface.input_kind == "token":
        even = not spec.bidirectional or spec.hidden_size % 2 == 0
        halves = "an even number: a bidirectional encoder has half of the units in each direction"
        require(even, "model.hidden_size", halves, spec.hidden_size)
    elif transduces or interface.describes:
        sees = interface.input_kind == "image" or interface.describes
        what = "a text of an image" if interface.describes else "an image" if sees else "an autoencoder"
        one_way = f"false: {what} is not read both ways"
        require(not spec.bidirectional, "model.bidirectional", one_way, spec.bidirectional)
        enough = not sees or spec.hidden_size >= 4
        quarter = "an integer of at least 4: an image is first read by a quarter of the units"
        require(enough, "model.hidden_size", quarter, spec.hidden_size)
    coded = transduces and not interface.decodes
    wanted = "an integer of at least 1, for an autoencoder's code" if coded else f"null: nothing is coded, {expected}"
    require((spec.code_size is not None) == coded, "model.code_size", wanted, spec.code_size)
    tokens = interface.input_kind == "token" or interface.decodes
    embedding = spec.embedding_size
    require(tokens or embedding is None, "model.embedding_size", "null, for the real inputs", embedding)
    if spec.generates is not None:
        _check_generates(spec, interface)
    if isinstance(spec.attention, SelfAttention):
        heads, size = spec.attention.num_heads, spec.hidden_size
        require(size % heads == 0, "model.attention.num_heads", f"a divisor of hidden_size ({size})", heads)


def _check_generates(spec: ModelSpec, interface: Interface) -> None:
    """Check that a network can generate what a dataset has.

    Raises:
        InvalidFieldError: If not.
    """
    size = interface.output_size
    series = interface.input_kind == "real" and interface.target_at == "every" and interface.target_kind == "value"
    series = series and interface.input_size == size and not interface.padded
    expected = "null: only a series of real numbers is generated, whose targets are its inputs a timestep later"
    require(series, "model.generates", expected, spec.generates)
    require(spec.attention.name == "none", "model.attention.name", "none, for a network that generates", "self")
    require(not spec.bidirectional, "model.bidirectional", "false, for a network that generates", True)
    wide = spec.hidden_size >= size
    require(wide, "model.hidden_size", f"at least {size}, the numbers that are generated", spec.hidden_size)
    alone = CELLS[spec.cell].num_outputs == 1
    require(alone, "model.cell", "a cell that shows h alone, for a network that generates", spec.cell)
