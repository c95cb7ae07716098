"""Grids of decoders that never ran: attention, tokens and images of known content."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import polars as pl

from pipeline.quantities import Grid, grids_of
from pipeline.results import SCHEMAS, check

STEPS = (0, 10, 100, 1000)
DATES = (
    ("March 5, 2024", "2024-03-05", [*[(9 + i,) for i in range(4)], (), *[tuple(range(5))] * 2, (), (6,), (6,)]),
    ("2024년 3월 5일", "2024-03-05", [*[(i,) for i in range(4)], (), (6,), (6,), (), (9,), (9,)]),
    ("5 mars 2024", "2024-03-05", [*[(7 + i,) for i in range(4)], (), *[tuple(range(2, 6))] * 2, (), (0,), (0,)]),
)
"""Source, target, and for each letter of the target the source positions, from 0, that it is made from."""

CAPTIONS = ((("three", "nine"), ("three", "nine"), (2, 8)), (("seven", "one"), ("seven", "four"), (1, 10)))
"""Words written, true words, and the cell of a grid of 2 x 6, from 0, of each."""

Pair = tuple[Sequence[str], Sequence[str], Sequence[Sequence[int]]]
Replica = Callable[[str, int], Iterator[tuple[str, Mapping[str, object]]]]


def grid(
    arms: Sequence[str],
    replica: Replica,
    *,
    num_seeds: int = 2,
    broken: Mapping[str, str] | None = None,
    trial: Callable[[str, int], Mapping[str, object]] = lambda arm, seed: {},
) -> Grid:
    """Return a grid with an arm for each name.

    Args:
        arms: Their names, which are trial ids too.
        replica: Yields a table's name and columns, all of one replica of an arm.
        num_seeds: Replicas of an arm.
        broken: Statuses by `arm#seed`; a replica that ended with an error leaves no rows.
        trial: Columns of `trials` of an arm and seed.
    """
    parts = {table: [pl.DataFrame(schema=schema)] for table, schema in SCHEMAS.items()}
    for position, arm in enumerate(arms):
        row = {"study": "s", "grid": "g", "position": position, "trial_id": arm, "label": arm, "variant": arm}
        parts["settings"].append(pl.DataFrame([row | {"selected": True}], schema=SCHEMAS["settings"]))
        for seed in range(num_seeds):
            status = (broken or {}).get(f"{arm}#{seed}", "ok")
            keys = {"trial_id": arm, "seed": seed}
            ended: dict[str, object] = dict.fromkeys(SCHEMAS["trials"]) | keys | {"status": status}
            ended |= {} if status == "error" else dict(trial(arm, seed))
            parts["trials"].append(pl.DataFrame([ended], schema=SCHEMAS["trials"]))
            for table, columns in replica(arm, seed) if status != "error" else ():
                parts[table].append(pl.DataFrame({**columns, **keys}, schema=SCHEMAS[table]))
    tables = {table: pl.concat(frames) for table, frames in parts.items()}
    spec = {"dataset.name": pl.lit("dates"), "dataset.length": pl.lit(None, pl.Int64), "model.cell": pl.lit("lstm")}
    tables["trials"] = tables["trials"].with_columns(**spec)
    tables["settings"] = tables["settings"].with_columns(**{"dataset.length": pl.lit(None, pl.Int64)})
    return grids_of("s", {name: check(name, frame, "synthetic") for name, frame in tables.items()}, ())[0]


def attending(inside: Mapping[str, float], *, dates: Sequence[Pair] = DATES) -> Replica:
    """Return replicas that write dates: the mass inside the alignment by arm; an arm that is not named has none.

    Training takes the entropy from 2 nats to 1 - `inside`, the alignment error from 0.9 to 1 - `inside` + seed/100.
    """

    def replica(arm: str, seed: int) -> Iterator[tuple[str, Mapping[str, object]]]:
        for example, (source, target, alignment) in enumerate(dates):
            yield from _tokens(example, 1000, {"source": source, "target": [*target, "<eos>"]})
            for step in STEPS if arm in inside else ():
                mass = inside[arm] if step == STEPS[-1] else 0.0
                yield "attention", _attention(example, step, [*alignment, ()], len(source), mass)
        if arm in inside:
            done = np.log1p(STEPS) / math.log1p(STEPS[-1])
            for metric, start, end in (("attention_entropy_nats", 2.0, 0.0), ("alignment_error", 0.9, seed / 100)):
                yield "curves", _curve(metric, start + done * (1 - inside[arm] + end - start))

    return replica


def captioning(inside: Mapping[str, float]) -> Replica:
    """Return replicas that caption images of 8 x 24 pixels, with the mass inside the right cell by arm."""

    def replica(arm: str, seed: int) -> Iterator[tuple[str, Mapping[str, object]]]:
        for example, (written, true, cells) in enumerate(CAPTIONS):
            yield from _tokens(example, 1000, {"free_running": [*written, "<eos>"], "target": [*true, "<eos>"]})
            yield "images", _image(example, "input", 1, _squares(cells))
            yield "attention", _attention(example, 1000, [*((cell,) for cell in cells), ()], 12, inside[arm])
        yield "curves", _curve("alignment_share", np.linspace(0.1, inside[arm], len(STEPS)))

    return replica


DESCRIBED = (
    ("left of seven", "three", "three", 4),
    ("last in the upper line", "one", "nine", 2),
    ("above two", "six", "six", 9),
)
"""Texts of images, what is answered, what is right, and the cell where that is."""


def describing(inside: Mapping[str, float]) -> Replica:
    """Return replicas that read texts of images of 8 x 24 pixels, the last look with its mass inside by arm."""

    def replica(arm: str, seed: int) -> Iterator[tuple[str, Mapping[str, object]]]:
        for example, (text, answer, true, cell) in enumerate(DESCRIBED):
            words = [*text.split(), "<eos>"]
            yield from _tokens(example, 1000, {"words": words, "class": [true], "answer": [answer]})
            yield "images", _image(example, "input", 1, _squares([cell]))
            if arm in inside:
                looks = [*[()] * (len(words) - 1), (cell,)]
                yield "attention", _attention(example, 1000, looks, 12, inside[arm])
        if arm in inside:
            yield "curves", _curve("alignment_share", np.linspace(0.1, inside[arm], len(STEPS)))

    return replica


def autoencoding(arm: str, seed: int) -> Iterator[tuple[str, Mapping[str, object]]]:
    """Yield what an autoencoder leaves: a dot that moves for ten frames of 6 x 6, and the same at half brightness."""
    for example, frame in itertools.product(range(3), range(10)):
        pixels = np.zeros((6, 6))
        pixels[example + 1, frame % 6] = 1.0
        yield "images", _image(example, "input", frame + 1, pixels)
        yield "images", _image(example, "reconstruction", frame + 1, pixels / 2)


def writing(arm: str, seed: int) -> Iterator[tuple[str, Mapping[str, object]]]:
    """Yield what a language model leaves: greedy text that repeats four letters, and a sample that repeats nothing."""
    alphabet = [chr(ord("!") + i) for i in range(90)]
    texts = {"prompt": "def ", "greedy": "abcd" * 75, "sample (temperature 1.0)": [*alphabet, "\n", "년"]}
    for example in range(2):
        yield from _tokens(example, 1000, texts)


def _tokens(example: int, step: int, texts: Mapping[str, Sequence[str]]) -> Iterator[tuple[str, Mapping[str, object]]]:
    for sequence, tokens in texts.items():
        columns = {"step": step, "example": example, "sequence": sequence, "position": range(1, len(tokens) + 1)}
        yield "tokens", columns | {"token": list(tokens)}


def _attention(example: int, step: int, alignment: Sequence[Sequence[int]], S: int, inside: float) -> dict[str, object]:
    """Return weights of `inside` on the aligned positions together, the rest evenly over the others."""
    aligned = np.zeros((len(alignment), S), dtype=bool)
    for output, positions in enumerate(alignment):
        aligned[output, list(positions)] = True
    num = aligned.sum(1, keepdims=True)
    weights = np.where(aligned, inside / np.maximum(num, 1), np.where(num > 0, 1 - inside, 1.0) / (S - num))
    output, source = np.divmod(np.arange(weights.size), S) + np.ones((2, 1), dtype=int)
    columns = {"step": step, "example": example, "output_position": output, "source_position": source}
    return columns | {"weight": weights.ravel(), "aligned": aligned.ravel()}


def _curve(metric: str, values: np.ndarray) -> dict[str, object]:
    return dict.fromkeys(SCHEMAS["curves"]) | {"step": STEPS, "metric": metric, "value": values}


def _image(example: int, image: str, frame: int, pixels: np.ndarray) -> dict[str, object]:
    row, column = np.divmod(np.arange(pixels.size), pixels.shape[1])
    columns = {"step": 1000, "example": example, "image": image, "frame": frame, "row": row, "column": column}
    return columns | {"brightness": pixels.ravel()}


def _squares(cells: Sequence[int]) -> np.ndarray:
    """Return an image of 8 x 24 with a frame of ink in each of the cells of 4 x 4."""
    pixels = np.zeros((8, 24))
    for cell in cells:
        row, column = 4 * (cell // 6), 4 * (cell % 6)
        pixels[row : row + 4, column : column + 4] = 1.0
        pixels[row + 1 : row + 3, column + 1 : column + 3] = 0.0
    return pixels
