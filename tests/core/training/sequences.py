"""Small tasks whose inputs or targets are sequences, made here so that training is tested apart from the datasets."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import numpy as np

from pipeline.core.training import MemorySink, TrialResult, TrialSpec, run_trial
from pipeline.core.training.rows import FACTS
from pipeline.data.dataset import EOS, PAD, SPECIAL_TOKENS
from tests.core.training.conftest import SmallDataset, Split

SIZES = {"train": 64, "validation": 24, "test": 24}
LETTERS = (*SPECIAL_TOKENS, "a", "b", "c", "d")
WIDTH = 4
"""Of the longest source."""

SMALL = {
    "model__cell": "gru",
    "model__hidden_size": 8,
    "training__max_steps": 12,
    "training__evaluate_every": 6,
    "diagnostics__num_traces": 3,
}
"""What a spec of these tests has in common."""

ADDITIVE = {"name": "additive", "feeds": "context", "size": 6}
LINEAR = {"schedule": {"name": "linear", "start": 1.0, "slope": 0.06, "floor": 0.1}, "coin": "token"}


def small(spec_of: Callable[..., TrialSpec], **changes: Any) -> TrialSpec:
    """Return a spec of these tests."""
    return spec_of(**SMALL | changes)


def scheduled_sampling(spec_of: Callable[..., TrialSpec]) -> TrialSpec:
    """Return an encoder-decoder with attention under scheduled sampling."""
    writer = {"model__attention": ADDITIVE, "model__bidirectional": True, "training__forcing": LINEAR}
    return small(spec_of, **writer, diagnostics__measures=["smoothness"])


def trial_of(spec: TrialSpec, dataset: SmallDataset) -> tuple[TrialResult, dict[str, dict[str, np.ndarray]]]:
    sink = MemorySink()
    result = run_trial(spec, dataset, sink)
    return result, sink.tables()


_FINISHED: dict[tuple[str, bytes], tuple[TrialResult, MemorySink]] = {}


def finished(spec: TrialSpec, dataset: SmallDataset) -> tuple[TrialResult, MemorySink]:
    """Return a trial that ran once for all tests that look at it: it is a function of spec and dataset alone."""
    key = repr(spec), pickle.dumps(dataset)
    if key not in _FINISHED:
        sink = MemorySink()
        _FINISHED[key] = run_trial(spec, dataset, sink), sink
    return _FINISHED[key]


def rows_about(curves: dict[str, np.ndarray], metric: str, **facts: str | int) -> np.ndarray:
    """Which rows have this metric and exactly these facts: those not named say nothing."""
    wanted = {"metric": metric} | FACTS | facts
    return np.logical_and.reduce([curves[column] == value for column, value in wanted.items()])


def curve(
    tables: dict[str, dict[str, np.ndarray]], metric: str, seed: int = 0, column: str = "value", **facts: str | int
) -> np.ndarray:
    curves = tables["curves"]
    return curves[column][rows_about(curves, metric, **facts) & (curves["seed"] == seed)]


def splits_of(make: Callable[[int, int], Split]) -> dict[str, Split]:
    return {name: make(size, seed) for seed, (name, size) in enumerate(SIZES.items())}


def words(num_sequences: int, seed: int, width: int) -> list[list[int]]:
    random = np.random.default_rng(seed)
    return [random.integers(3, 7, random.integers(1, width + 1)).tolist() for _ in range(num_sequences)]


def filled(rows: list[list[int]], width: int) -> np.ndarray:
    return np.array([row + [PAD] * (width - len(row)) for row in rows], dtype=np.uint8)


def reversed_words(num_sequences: int, seed: int, width: int = WIDTH, further: int = 0) -> Split:
    """A word and the same backwards; `further` columns of padding that nobody needs."""
    sources, alignment = words(num_sequences, seed, width), np.zeros((num_sequences, width + 1, width), dtype=bool)
    for n, word in enumerate(sources):
        for u in range(len(word)):
            alignment[n, u, len(word) - 1 - u] = True
    targets = [[*reversed(word), EOS] for word in sources]
    room = ((0, 0), (0, further), (0, further))
    return Split(filled(sources, width + further), filled(targets, width + 1 + further), np.pad(alignment, room))


def reversal(further: int = 0, **changes: Any) -> SmallDataset:
    """Many-to-many, delayed: write a word backwards."""
    unseen = {6: reversed_words(10, 9, width=6)} if further == 0 else {}
    texts = {"input_tokens": LETTERS, "target_tokens": LETTERS, "unseen": unseen}
    splits = splits_of(lambda size, seed: reversed_words(size, seed, further=further))
    return SmallDataset(splits, "token", 7, "sequence", "class", 7, None, padded=True, **texts | changes)


def lit_cells(num_images: int, seed: int) -> Split:
    """Images of 2 × 3 cells, one or two of them lit, and the lit ones' numbers in reading order."""
    random = np.random.default_rng(seed)
    images, captions = np.zeros((num_images, 8, 12), dtype=np.float32), []
    alignment = np.zeros((num_images, 3, 6), dtype=bool)
    for n in range(num_images):
        cells = sorted(random.choice(6, random.integers(1, 3), replace=False).tolist())
        for u, cell in enumerate(cells):
            i, j = divmod(cell, 3)
            images[n, 4 * i + 1 : 4 * i + 3, 4 * j + 1 : 4 * j + 3] = 1.0
            alignment[n, u, cell] = True
        captions.append([*(3 + cell for cell in cells), EOS])
    return Split(images, filled(captions, 3), alignment)


def canvases() -> SmallDataset:
    """One-to-many: say which cells of an image are lit."""
    names = (*SPECIAL_TOKENS, *(f"cell {cell}" for cell in range(1, 7)))
    return SmallDataset(
        splits_of(lit_cells), "image", 1, "sequence", "class", 9, None, padded=True, target_tokens=names
    )


def described_cells(num_images: int, seed: int, further: int = 0) -> Split:
    """Images of 2 × 3 cells, one of them bright, one dim, and a text that asks for one of the two: which cell is it?"""
    random = np.random.default_rng(seed)
    images, texts, targets = np.zeros((num_images, 8, 12), dtype=np.float32), [], []
    alignment = np.zeros((num_images, 3 + further, 6), dtype=bool)
    for n in range(num_images):
        cells = random.choice(6, 2, replace=False).tolist()
        for cell, brightness in zip(cells, (1.0, 0.4), strict=True):
            i, j = divmod(cell, 3)
            images[n, 4 * i + 1 : 4 * i + 3, 4 * j + 1 : 4 * j + 3] = brightness
        dim, asks = random.integers(0, 2), random.integers(0, 2)
        texts.append([*[3] * asks, 4 + dim, EOS])
        targets.append(cells[dim])
        alignment[n, len(texts[-1]) - 1, cells[dim]] = True
    return Split(filled(texts, 3 + further), np.array(targets, dtype=np.uint8), alignment, images)


def described(further: int = 0) -> SmallDataset:
    """Two kinds of data to one: which cell of an image does a text speak of?"""
    return SmallDataset(
        splits_of(lambda size, seed: described_cells(size, seed, further)),
        "token",
        6,
        "last",
        "class",
        6,
        float(np.log(2)),
        token_groups={"bright": (4,), "dim": (5,)},
        padded=True,
        input_tokens=(*SPECIAL_TOKENS, "the", "bright", "dim"),
        target_tokens=tuple(f"cell {cell}" for cell in range(1, 7)),
        frame_shape=(8, 12),
    )


def moving_dots(num_films: int, seed: int) -> Split:
    random = np.random.default_rng(seed)
    films = np.zeros((num_films, 3, 2, 2), dtype=np.float32)
    for film in films:
        for t, (i, j) in enumerate(random.integers(0, 2, (3, 2))):
            film[t, i, j] = 1.0
    frames = films.reshape(num_films, 3, 4)
    return Split(frames, frames)


def films() -> SmallDataset:
    """Frames, to be drawn again."""
    return SmallDataset(splits_of(moving_dots), "real", 4, "sequence", "value", 4, None, frame_shape=(2, 2))


def first_letter(further: int = 0) -> SmallDataset:
    """Many-to-one: what did a word begin with?"""

    def make(size: int, seed: int) -> Split:
        rows = words(size, seed, WIDTH)
        return Split(filled(rows, WIDTH + further), np.array([row[0] - 3 for row in rows], dtype=np.uint8))

    return SmallDataset(splits_of(make), "token", 7, "last", "class", 4, None, padded=True)


def letter_before(further: int = 0) -> SmallDataset:
    """Many-to-many, in step: what stood before each letter? At the beginning, 3."""

    def make(size: int, seed: int) -> Split:
        rows = words(size, seed, WIDTH)
        return Split(filled(rows, WIDTH + further), filled([[3, *row[:-1]] for row in rows], WIDTH + further))

    return SmallDataset(splits_of(make), "token", 7, "every", "class", 7, None, padded=True)


def alphabet() -> SmallDataset:
    """A language in which a, b, c, d follow each other."""

    def make(size: int, seed: int) -> Split:
        start = np.random.default_rng(seed).integers(0, 4, (size, 1))
        ids = ((start + np.arange(9)) % 4).astype(np.uint8)
        return Split(ids[:, :-1], ids[:, 1:])

    texts = {"input_tokens": LETTERS[3:], "target_tokens": LETTERS[3:]}
    return SmallDataset(splits_of(make), "token", 4, "every", "class", 4, None, **texts)


def circles(num: int = 48, num_timesteps: int = 16) -> SmallDataset:
    """Two numbers that turn round a circle, to say where they go next."""
    phase = np.random.default_rng(0).random((num, 1)) * 2 * np.pi
    at = phase + 0.7 * np.arange(num_timesteps + 1)
    series = np.stack([np.cos(at), np.sin(at)], axis=2).astype(np.float32)
    split = Split(series[:, :-1], series[:, 1:])
    return SmallDataset(dict.fromkeys(SIZES, split), "real", 2, "every", "value", 2, 0.5)
