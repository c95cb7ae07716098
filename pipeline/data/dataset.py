"""What a dataset is in memory: three splits of equally long sequences, and what a model of them must do.

Sequences of tokens that differ in length are filled up with `PAD` at their end. A target sequence ends with `EOS`, and
`SOS` is what its decoder reads before its first token; it is in no array.

Shapes: N sequences, T timesteps, D input, S source and U target length.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, Literal

import numpy as np

SPLITS = ("train", "validation", "test")

InputKind = Literal["real", "token", "image"]
TargetKind = Literal["value", "class"]
TargetAt = Literal["last", "every", "sequence"]

PAD, SOS, EOS = 0, 1, 2
SPECIAL_TOKENS = ("<pad>", "<sos>", "<eos>")
"""The first tokens of every vocabulary whose sequences differ in length, by id."""
UNKNOWN, UNKNOWN_CHARACTER = "<unk>", "▯"
"""What stands for all tokens that a vocabulary lacks: for words, and for the characters of a text. A vocabulary has one
of them at most, and a text's own is no other token. To answer it is never right, not even where it is the target."""


@dataclass(frozen=True)
class Split:
    """Input sequences, and what a model should answer to them.

    Attributes:
        inputs: (N, T, D) float32 where inputs are real, (N, T) ids where they are tokens, (N, height, width) float32
            where they are images.
        targets: float32 for values, (N, D_out) or (N, T, D_out); ids for classes, (N,), (N, T), or (N, U) where the
            target is a sequence of its own. T where the target is at every timestep. Ids are uint8, of more than 256
            different ones int16.
        alignment: Which source positions each token of a target sequence is made from, Boolean (N, U, S); no position
            where a token has no origin (such as `EOS` and `PAD`). S counts timesteps, or the cells of a grid over an
            image, row by row. None where it is not known. Never used in training.
        images: What input tokens speak of, (N, height, width) float32; the alignment is then theirs, (N, T, S). None
            where there is nothing besides the inputs.
    """

    inputs: np.ndarray
    targets: np.ndarray
    alignment: np.ndarray | None = None
    images: np.ndarray | None = None

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays that there are, by name."""
        return {role: array for role, array in vars(self).items() if array is not None}


@dataclass(frozen=True)
class Task:
    """What goes into a model, what must come out, and what the best memoryless answer costs.

    Attributes:
        length: What a study calls `dataset.length`; mostly, but not always, the number of timesteps.
        input_kind: Real vectors, ids of tokens, or one image.
        input_size: D, the number of different tokens, or the number of channels of an image.
        target_kind: A value (mean squared error) or a class (cross-entropy in nats).
        target_at: Whether the loss is at the last timestep, the mean over every timestep, or of a target sequence that
            a decoder writes once the whole input is read.
        output_size: D_out, or the number of classes.
        baseline_loss: Loss of the best answer that remembers nothing, in the unit of the loss.
        baseline_name: What that answer is.
        token_groups: Where tokens are of several kinds, their ids by kind: errors are told for each. None elsewhere.
        padded: Whether sequences of tokens differ in length: `PAD` fills up the inputs, and the targets where they are
            sequences too.
        input_tokens: The text of every input token, by id. None where inputs are no tokens, or nobody reads them.
        target_tokens: The text of every class of a target, by id.
        frame_shape: Height and width, where every timestep is a frame of that many pixels, row by row; where inputs are
            tokens, of the image that they speak of.
        series_exponent: The largest Lyapunov exponent of the system that the data are orbits of, in nats per timestep.
            None where it is not known.
    """

    length: int
    input_kind: InputKind
    input_size: int
    target_kind: TargetKind
    target_at: TargetAt
    output_size: int
    baseline_loss: float | None
    baseline_name: str | None
    _: KW_ONLY
    token_groups: Mapping[str, tuple[int, ...]] | None = None
    padded: bool = False
    input_tokens: tuple[str, ...] | None = None
    target_tokens: tuple[str, ...] | None = None
    frame_shape: tuple[int, ...] | None = None
    series_exponent: float | None = None


def unknown_id(tokens: Sequence[str] | None) -> int | None:
    """Return the id of the token that stands for all those that a vocabulary lacks; None where there is none."""
    return next((i for i, token in enumerate(tokens or ()) if token in {UNKNOWN, UNKNOWN_CHARACTER}), None)


def make_task(
    length: int,
    *,
    inputs: tuple[InputKind, int],
    targets: tuple[TargetKind, TargetAt, int],
    baseline: tuple[float | None, str | None],
    **more: Any,
) -> Task:
    """Return a task: kind and size of its inputs; kind, place and size of its targets; loss and name of the baseline.

    `more` are further fields.
    """
    target_kind, target_at, output_size = targets
    return Task(length, *inputs, target_kind, target_at, output_size, *baseline, **more)


@dataclass(frozen=True)
class Dataset(Task):
    """A task with its sequences; `digest` changes with any of them, but not with the name.

    `unseen` are test splits of other lengths, to try a trained network on.
    """

    name: str
    digest: str
    splits: Mapping[str, Split]
    unseen: Mapping[int, Split] = field(default_factory=dict)

    @property
    def num_timesteps(self) -> int:
        """T, the number of timesteps of every input sequence; of an image, U of its target."""
        train = self.splits["train"]
        return int((train.targets if self.input_kind == "image" else train.inputs).shape[1])


def assemble(name: str, task: Task, splits: Mapping[str, Split]) -> Dataset:
    """Return the dataset that consists of `task` and `splits`, with its digest."""
    return Dataset(**dataclasses.asdict(task), name=name, digest=_digest(task, splits), splits=splits)


def _digest(task: Task, splits: Mapping[str, Split]) -> str:
    """Return the sha256 of what the arrays say (type, shape, bytes) and of what `task` says about them.

    What is known of the system behind them is no part of it: nothing is trained on that.
    """
    said = dataclasses.asdict(task)
    del said["series_exponent"]
    digest = hashlib.sha256(json.dumps(said, sort_keys=True, allow_nan=False).encode())
    for split in SPLITS:
        for array in splits[split].arrays.values():
            digest.update(f"{split} {array.dtype.str} {array.shape}".encode())
            digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def unknown_shares(task: Task, splits: Mapping[str, Split]) -> dict[str, dict[str, float]]:
    """Return, by role and split, the share of a text's tokens that are unknown; special tokens are none of a text's.

    A role whose vocabulary has no such token is left out.
    """
    shares = {}
    for role, tokens in (("inputs", task.input_tokens), ("targets", task.target_tokens)):
        unknown = unknown_id(tokens)
        if tokens is not None and unknown is not None:
            first = len(SPECIAL_TOKENS) if tokens[: len(SPECIAL_TOKENS)] == SPECIAL_TOKENS else 0
            ids = {split: splits[split].arrays[role] for split in SPLITS}
            shares[role] = {split: float(np.mean(some[some >= first] == unknown)) for split, some in ids.items()}
    return shares


def combined_digest(digests: Sequence[str]) -> str:
    """Return one digest of several; that of a single one is itself."""
    return digests[0] if len(digests) == 1 else hashlib.sha256(" ".join(digests).encode()).hexdigest()
