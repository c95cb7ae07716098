"""What a person wants to know of a dataset before training on it: lengths, vocabulary, classes, values, leaks.

It stands in the manifest and is printed once the dataset is prepared; the first training sequences stand beside it.
Shapes: N sequences, T timesteps.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from pipeline.data.dataset import PAD, SPECIAL_TOKENS, SPLITS, Split, Task

MAX_CLASSES = 20
"""More classes than this are not counted one by one."""


@dataclass(frozen=True)
class Preview:
    """A dataset at one length, in numbers.

    Attributes:
        lengths: By role and split the fewest, median and most tokens, where sequences are padded.
        vocabulary: By role the number of different tokens, without the special ones.
        classes: By split how often each class is the target, where there are few and one a sequence.
        values: By role and split least, mean and largest, where they are numbers.
        leaks: Of the validation and the test split, how many of `leaks_of` are in training, too.
        leaks_of: What is looked for in training: input sequences, or lines of a text.
    """

    lengths: Mapping[str, Mapping[str, tuple[float, ...]]]
    vocabulary: Mapping[str, int]
    classes: Mapping[str, Mapping[str, int]]
    values: Mapping[str, Mapping[str, tuple[float, ...]]]
    leaks: Mapping[str, int]
    leaks_of: str


def preview_of(task: Task, splits: Mapping[str, Split], leaks: Mapping[str, int], leaks_of: str) -> Preview:
    """Return the preview of a task and its sequences."""
    arrays = {role: {split: getattr(splits[split], role) for split in SPLITS} for role in ("inputs", "targets")}
    texts = {"inputs": task.input_tokens, "targets": task.target_tokens}
    lengths, values = {}, {}
    for role, some in arrays.items():
        if some["train"].dtype.kind == "f":
            values[role] = {
                split: tuple(map(float, (a.min(), a.mean(dtype=np.float64), a.max()))) for split, a in some.items()
            }
        elif task.padded and some["train"].ndim == 2:  # noqa: PLR2004 - a row a sequence
            lengths[role] = {split: _spread((ids != PAD).sum(axis=1)) for split, ids in some.items()}
    one_each = task.target_kind == "class" and task.target_at == "last" and task.output_size <= MAX_CLASSES
    vocabulary = {role: len({*tokens} - {*SPECIAL_TOKENS}) for role, tokens in texts.items() if tokens is not None}
    names = task.target_tokens or tuple(map(str, range(task.output_size)))
    classes = {
        split: {name: int((ids == i).sum()) for i, name in enumerate(names)}
        for split, ids in (arrays["targets"].items() if one_each else ())
    }
    return Preview(lengths, vocabulary, classes, values, dict(leaks), leaks_of)


def _spread(lengths: np.ndarray) -> tuple[float, ...]:
    return float(lengths.min()), float(np.median(lengths)), float(lengths.max())


def shared_inputs(splits: Mapping[str, Split]) -> dict[str, int]:
    """Return how many input sequences of validation and of test are, number by number, in training as well."""
    rows = {split: [hash(row.tobytes()) for row in splits[split].inputs] for split in SPLITS}
    trained = {*rows["train"]}
    return {split: sum(row in trained for row in rows[split]) for split in SPLITS[1:]}


def describe(preview: Preview) -> Iterator[str]:
    """Yield what there is to say, a line each."""
    for role, by_split in preview.lengths.items():
        few, median, most = by_split["train"]
        yield f"{role} of {few:g} to {most:g} tokens, median {median:g}"
    if preview.vocabulary:
        yield "different tokens: " + ", ".join(f"{num} in {role}" for role, num in preview.vocabulary.items())
    for role, by_split in preview.values.items():
        spans = (
            f"{low:.3g} to {high:.3g} in {split}, mean {mean:.3g}" for split, (low, mean, high) in by_split.items()
        )
        yield f"{role} from " + "; ".join(spans)
    for split, counts in preview.classes.items():
        yield f"{split} classes: " + ", ".join(f"{num} {name}" for name, num in counts.items())
    found = [f"{num} {split} {preview.leaks_of}" for split, num in preview.leaks.items() if num]
    said = " and ".join(found) if found else f"no {preview.leaks_of} of validation or test"
    yield f"leak check: {said} are in training, too"
