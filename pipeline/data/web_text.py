"""A text from the web, character by character: at every timestep, say the next one.

    inputs   T successive characters of the text
    targets  the same, shifted by one: target_t = input_{t+1}
    baseline the unigram entropy of the training targets, in nats per character

The text is cut into three consecutive parts by `shares`, so no text of the test split is trained on unless the text
repeats itself. Characters are those of `stdlib_text`: printable ASCII, the line feed, and one that stands for all
others. A carriage return before a line feed, and a byte order mark, do not count.

The file is known by its sha256, not by its address: write configs/datasets/<name>.yaml with

    generator: web_text
    seed: 0
    lengths: [100]
    url: https://example.org/corpus.txt
    sha256: <what `sha256sum corpus.txt` prints, of a copy that you have looked at>
    shares: {train: 0.8, validation: 0.1, test: 0.1}

Shapes: N sequences, T timesteps.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from pipeline.config.params import Sizes
from pipeline.config.strict import require
from pipeline.data.dataset import SPLITS, Dataset, Split, assemble
from pipeline.data.digits import Shares
from pipeline.data.download import fetch
from pipeline.data.generator import check_length, num_sequences, require_seed_and_lengths, stream
from pipeline.data.stdlib_text import cut_windows, draw_windows, encode, next_character_task
from pipeline.errors import DatasetError


@dataclass(frozen=True)
class WebText:
    """Windows of the text at `url` whose sha256 is known: as many as the scale wants, or as there are."""

    generator: Literal["web_text"]
    seed: int
    lengths: tuple[int, ...]
    url: str
    sha256: str
    shares: Shares

    natural_length = None

    def __post_init__(self) -> None:
        require_seed_and_lengths(self.seed, self.lengths)
        require(self.url.startswith(("http://", "https://")), "url", "an address with http:// or https://", self.url)
        hexadecimal = re.fullmatch("[0-9a-f]{64}", self.sha256) is not None
        require(hexadecimal, "sha256", "64 hexadecimal digits in small letters", self.sha256)

    @property
    def possible_lengths(self) -> str:
        """Which lengths the text allows, in words."""
        return f"a window lies within the part of its split: from 1 to {self._longest()}"

    def allows(self, length: int) -> bool:
        """Return whether every part has room for a window and the character after it."""
        return 1 <= length <= self._longest()

    def _longest(self) -> int:
        return min(len(part) for part in self.parts().values()) - 1

    def parts(self) -> dict[str, np.ndarray]:
        """Return the ids of the three consecutive parts of the text."""
        ids = encode(self.text())
        cuts = np.rint(np.cumsum([self.shares.train, self.shares.validation]) * len(ids)).astype(int)
        return dict(zip(SPLITS, np.split(ids, cuts), strict=True))

    def text(self) -> str:
        """Return the text of the file.

        Raises:
            DatasetError: If the file cannot be had, is another one, or is not UTF-8.
        """
        try:
            return fetch(self.url, self.sha256).decode("utf-8-sig").replace("\r\n", "\n")
        except UnicodeDecodeError as error:
            raise DatasetError(f"{self.url}: not UTF-8 text ({error.reason} at byte {error.start})") from None

    def generate(self, length: int, sizes: Sizes) -> Dataset:
        """Return windows of `length` characters, drawn without repetition."""
        check_length(self.generator, self, length)
        splits = {}
        for position, (split, part) in enumerate(self.parts().items()):
            windows = cut_windows([part], length)
            chosen = stream(self.seed, length, position).permutation(len(windows))[: num_sequences(sizes, split)]
            splits[split] = Split(windows[chosen, :-1], windows[chosen, 1:])
        return assemble(self.generator, next_character_task(length, splits["train"]), splits)

    def draw(self, dataset: Dataset) -> str:
        """Return windows as text; a bent arrow is the end of a line."""
        return draw_windows(dataset)

    def source(self) -> dict[str, Any]:
        """Return the address and the sha256, which is verified whenever the text is read."""
        return {"url": self.url, "sha256": self.sha256}
