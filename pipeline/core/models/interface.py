"""Inputs, targets and predictions of a network: their kinds and sizes, and the loss.

Shapes: T timesteps, B batch, D input, O output, S source and U target length.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.core.cells.stack import StackRun
from pipeline.data.dataset import PAD, SOS, InputKind, TargetAt, TargetKind


@dataclass(frozen=True, kw_only=True)
class Interface:
    """Kinds and sizes of a network's inputs and targets, as the dataset has them.

    Attributes:
        input_kind: Real vectors, symbol ids, or one image.
        input_size: D, the size of the vocabulary, or the channels of an image.
        target_at: Whether the loss stands at the last timestep (many-to-one), at every one (many-to-many in step), or
            over a sequence that a decoder writes once the input is read (many-to-many delayed, one-to-many).
        target_kind: A real target under squared error, or a class under cross-entropy.
        output_size: Numbers per prediction.
        padded: Whether inputs, and targets that are sequences, end with `PAD` where they are shorter than others.
        unknown: The class that stands for all tokens that are not told apart; to answer it is wrong. None where there
            is none.
        describes: Whether the tokens read speak of an image, which comes along.
    """

    input_kind: InputKind
    input_size: int
    target_at: TargetAt
    target_kind: TargetKind
    output_size: int
    padded: bool = False
    unknown: int | None = None
    describes: bool = False

    @property
    def decodes(self) -> bool:
        """Whether a decoder writes tokens, each from the one before."""
        return self.target_at == "sequence" and self.target_kind == "class"

    @property
    def ignored(self) -> int:
        """The class that is in no loss and no error; -100 is none."""
        return PAD if self.decodes or (self.padded and self.target_at == "every") else -100

    def mask(self, source_BS: Tensor) -> Tensor | None:
        """Return which positions of a source are no padding, (B, S); None is all."""
        return source_BS != PAD if self.padded and self.input_kind == "token" else None


class StateKey(NamedTuple):
    """Which state of a network: layer (from 0), "forward" or "backward", "h" or "c", and the part that it belongs to.

    A network with one recurrent stack has the part "recurrent", an encoder-decoder "encoder" and "decoder". The encoded
    inputs are the quantity "x" of the part "input".
    """

    layer: int
    direction: str
    quantity: str
    part: str = "recurrent"


INPUT = StateKey(0, "forward", "x", "input")


class Seq2SeqInputs(NamedTuple):
    """Inputs of a network with a decoder.

    Attributes:
        source: Symbol ids (B, S), or images (B, height, width).
        decoder_inputs: At every output position the token before, (B, U): `SOS` and the true ones if teacher-forced,
            the decoder's own if free-running.
    """

    source: Tensor
    decoder_inputs: Tensor


class Described(NamedTuple):
    """Inputs of a network that reads a text of an image.

    Attributes:
        source: Symbol ids of the words (B, T).
        images: What they speak of, (B, height, width).
    """

    source: Tensor
    images: Tensor


Inputs = Tensor | Seq2SeqInputs | Described
"""Real vectors (B, T, D), symbol ids (B, T), a source and the inputs of a decoder, or words and their image."""


AnyInputs = TypeVar("AnyInputs", bound=Inputs)


def map_inputs(function: Callable[[Tensor], Tensor], inputs: AnyInputs) -> AnyInputs:
    """Return the inputs with `function` applied to each of their tensors."""
    mapped = function(inputs) if isinstance(inputs, Tensor) else type(inputs)(*map(function, inputs))
    return cast(AnyInputs, mapped)


def source_of(inputs: Inputs) -> Tensor:
    """Return what is read: the inputs themselves, the source of a decoder, or the words of a text."""
    return inputs if isinstance(inputs, Tensor) else inputs.source


def teacher_forced(targets: Tensor) -> Tensor:
    """Return the teacher-forced inputs of a decoder of these targets, (…, U): `SOS`, then the targets but the last."""
    return torch.cat([torch.full_like(targets[..., :1], SOS), targets[..., :-1]], dim=-1)


def lengths_of(tokens: Tensor) -> Tensor:
    """Return how many tokens before the padding each row (…, T) has; no prepared dataset has an empty one."""
    return (tokens != PAD).sum(dim=-1)


class Prediction(NamedTuple):
    """Predictions of a network, and the states that it went through.

    Attributes:
        values: (B, O) of the last timestep, or (B, T, O) of every one or of the last `num_scored`, or
            (B, U, O) of an output sequence.
        states: Every state at every timestep, (T, B, H) each, in the order of the model's `state_keys`.
        weights: Of attention, (B, U, S); None without attention.
        run: Of the part "recurrent"; None of networks without it.
        decoder_inputs: What a free-running decoder had as inputs, (B, U); else None.
    """

    values: Tensor
    states: Sequence[Tensor]
    weights: Tensor | None = None
    run: StackRun | None = None
    decoder_inputs: Tensor | None = None


def loss(interface: Interface, predictions: Tensor, targets: Tensor) -> Tensor:
    """Return the mean squared error, or the mean cross-entropy in nats, over examples (and timesteps).

    Padding is in no mean: of sequences that differ in length it is over their tokens.
    """
    if interface.target_kind == "value":
        return F.mse_loss(predictions, targets.to(predictions.dtype))
    return F.cross_entropy(predictions.flatten(0, -2), targets.flatten(), ignore_index=interface.ignored)


def wrong(interface: Interface, classes: Tensor, targets: Tensor) -> Tensor:
    """Return which of the classes answered are wrong, of the shape of both broadcast.

    What is in no loss is never wrong. Where the target is the unknown token, every answer is.
    """
    missed = classes != targets
    if interface.unknown is not None:
        missed = missed | (targets == interface.unknown)
    return missed & (targets != interface.ignored)


def num_wrong(interface: Interface, predictions: Tensor, targets: Tensor) -> Tensor:
    """Return how many classes were predicted wrong, counted by timestep where every one has a target."""
    return wrong(interface, predictions.argmax(-1), targets).sum()


def num_scored(interface: Interface, targets: Tensor) -> Tensor:
    """Return how many predictions the loss of these targets is over."""
    return (targets != interface.ignored).sum()


def coverage_penalty(weights_BUS: Tensor, targets_BU: Tensor, mask_BS: Tensor | None = None) -> Tensor:
    """Return Σ_s (1 - Σ_u weight_us)², mean over examples: 0 where every source position has weight 1 in all.

    Source: Xu et al. (2015), section 4.2.1, doubly stochastic attention.

    Args:
        weights_BUS: Of attention.
        targets_BU: Padding among them is not counted.
        mask_BS: Which source positions are no padding; None is all.
    """
    total_BS = (weights_BUS * (targets_BU != PAD)[..., None]).sum(dim=1)
    missed_BS = (1.0 - total_BS).square()
    return (missed_BS if mask_BS is None else missed_BS * mask_BS).sum(dim=1).mean()
