"""The Python standard library's own source, character by character: at every timestep, say the next one.

    inputs   T successive characters of one module
    targets  the same, shifted by one: target_t = input_{t+1}
    baseline the unigram entropy of the training targets, in nats per character

A module belongs to one split, so no text of the test split is trained on. Text differs between versions of Python:
the version and every file's sha256 are recorded with the data. Shapes: N sequences, T timesteps.
"""

from __future__ import annotations

import hashlib
import platform
import string
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from pipeline.config.params import Sizes
from pipeline.config.strict import require
from pipeline.data.dataset import SPLITS, Dataset, Split, Task, assemble
from pipeline.data.generator import check_length, num_sequences, require_seed_and_lengths, stream
from pipeline.errors import DatasetError, unknown_name

PRINTABLE = string.digits + string.ascii_letters + string.punctuation + " "
VOCABULARY = "\n" + "".join(sorted(PRINTABLE))
OTHER = len(VOCABULARY)
DRAWN = VOCABULARY.replace("\n", "⏎") + "▯"
NUM_DRAWN = 3


@dataclass(frozen=True)
class Modules:
    """Files below the standard library's folder, by split; a file belongs to one split only."""

    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]

    def __post_init__(self) -> None:
        seen: set[str] = set()
        for split in SPLITS:
            files = getattr(self, split)
            require(len(files) > 0, split, "at least one file", list(files))
            for file in files:
                require(file not in seen, split, "files that are listed once, in one split only", file)
                seen.add(file)


@dataclass(frozen=True)
class StdlibText:
    """Windows of the source text of `modules`: as many as the scale wants, or as there are."""

    generator: Literal["stdlib_text"]
    seed: int
    lengths: tuple[int, ...]
    modules: Modules

    natural_length = None

    def __post_init__(self) -> None:
        require_seed_and_lengths(self.seed, self.lengths)

    @property
    def possible_lengths(self) -> str:
        """Which lengths the text allows, in words."""
        return f"a window lies within one module of its split: from 1 to {self._longest()}"

    def allows(self, length: int) -> bool:
        """Return whether every split has a module with room for a window and the character after it."""
        return 1 <= length <= self._longest()

    def _longest(self) -> int:
        return min(max(len(ids) for ids in self._texts(split)) - 1 for split in SPLITS)

    def _texts(self, split: str) -> list[np.ndarray]:
        return [encode(_read(file).decode("utf-8", errors="replace")) for file in getattr(self.modules, split)]

    def generate(self, length: int, sizes: Sizes) -> Dataset:
        """Return windows of `length` characters, drawn without repetition."""
        check_length(self.generator, self, length)
        splits = {}
        for position, split in enumerate(SPLITS):
            windows = cut_windows(self._texts(split), length)
            chosen = stream(self.seed, length, position).permutation(len(windows))[: num_sequences(sizes, split)]
            splits[split] = Split(windows[chosen, :-1], windows[chosen, 1:])
        return assemble(self.generator, next_character_task(length, splits["train"]), splits)

    def draw(self, dataset: Dataset) -> str:
        """Return windows as text; a bent arrow is the end of a line."""
        return draw_windows(dataset)

    def source(self) -> dict[str, Any]:
        """Return the version of Python and the sha256 of every file, and of all of them together."""
        files = {file: _read(file) for split in SPLITS for file in getattr(self.modules, split)}
        checksums = {file: hashlib.sha256(content).hexdigest() for file, content in files.items()}
        together = hashlib.sha256("".join(checksums.values()).encode()).hexdigest()
        return {"python_version": platform.python_version(), "sha256": together, "files": checksums}


def next_character_task(length: int, train: Split) -> Task:
    """Return the task of windows of `length` characters, whose training split gives the baseline."""
    texts = (*VOCABULARY, DRAWN[OTHER])
    baseline = unigram_entropy(train.targets)
    return Task(
        length,
        input_kind="token",
        input_size=len(texts),
        target_kind="class",
        target_at="every",
        output_size=len(texts),
        baseline_loss=baseline,
        baseline_name="unigram",
        input_tokens=texts,
        target_tokens=texts,
    )


def draw_windows(dataset: Dataset) -> str:
    """Return a few training windows as text."""
    windows = dataset.splits["train"].inputs[:NUM_DRAWN]
    return "\n\n".join("".join(DRAWN[symbol] for symbol in window) for window in windows)


def encode(text: str) -> np.ndarray:
    """Return the ids, (len(text),) uint8, of characters in `VOCABULARY`; any other character is `OTHER`."""
    table = np.full(128, OTHER, dtype=np.uint8)
    table[[ord(character) for character in VOCABULARY]] = np.arange(len(VOCABULARY))
    codes = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)
    return np.where(codes < 128, table[np.minimum(codes, 127)], np.uint8(OTHER))


def cut_windows(texts: list[np.ndarray], length: int) -> np.ndarray:
    """Return every window of `length` ids and the one after it, (N, length + 1), none across two texts.

    Windows follow each other, so no character is the target of two of them.
    """
    windows = [np.zeros((0, length + 1), dtype=np.uint8)]
    for ids in texts:
        if len(ids) > length:
            windows.append(np.lib.stride_tricks.sliding_window_view(ids, length + 1)[::length])
    return np.concatenate(windows)


def unigram_entropy(ids: np.ndarray) -> float:
    """Return the entropy -sum p ln p of the ids' frequencies, in nats."""
    counts = np.bincount(ids.ravel())
    shares = counts[counts > 0] / ids.size
    return float(-(shares * np.log(shares)).sum())


def _read(file: str) -> bytes:
    folder = Path(sysconfig.get_path("stdlib"))
    try:
        return (folder / file).read_bytes()
    except OSError as error:
        beside = [str(path.relative_to(folder)) for path in (folder / file).parent.glob("*.py")]
        message = f"dataset 'stdlib_text': {folder / file}: {error.strerror}; {unknown_name('module', file, beside)}"
        raise DatasetError(message) from None
