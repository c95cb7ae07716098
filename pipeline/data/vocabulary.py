"""Tokens as ids, and sequences of ids as one array: how texts that differ in length become what a network reads.

Ids 0, 1 and 2 are the special tokens of every vocabulary, so symbols begin at 3.
Shapes: N sequences, U target length.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from pipeline.data.dataset import PAD, SPECIAL_TOKENS, Task, make_task
from pipeline.errors import DatasetError, unknown_name

MAX_TOKENS = 2**15
"""As many ids as int16 has."""
IDS_AT_ONCE = 2**22


class Vocabulary:
    """The special tokens, then `symbols` in their order; `tokens` is the text of every id."""

    def __init__(self, symbols: Iterable[str]) -> None:
        self.tokens: tuple[str, ...] = (*SPECIAL_TOKENS, *symbols)
        repeated = [token for token, count in Counter(self.tokens).items() if count > 1]
        if repeated:
            raise DatasetError(f"vocabulary: expected every token once, got {repeated[0]!r} more than once")
        if len(self.tokens) > MAX_TOKENS:
            message = f"vocabulary: expected at most {MAX_TOKENS} tokens with {', '.join(SPECIAL_TOKENS)}"
            raise DatasetError(f"{message}, got {len(self.tokens)}")
        self._ids = {symbol: i for i, symbol in enumerate(self.tokens) if i >= len(SPECIAL_TOKENS)}

    def __len__(self) -> int:
        return len(self.tokens)

    def __contains__(self, symbol: object) -> bool:
        return symbol in self._ids

    def encode(self, sequence: Iterable[str]) -> list[int]:
        """Return the id of every symbol; the special tokens are none, whatever a text says.

        Raises:
            DatasetError: If a symbol is not in the vocabulary; the message names the nearest.
        """
        try:
            return [self._ids[symbol] for symbol in sequence]
        except KeyError as error:
            raise DatasetError(unknown_name("token", error.args[0], self._ids)) from None

    def decode(self, ids: np.ndarray | Sequence[int]) -> tuple[str, ...]:
        """Return the text of every id of one sequence, without its padding."""
        return tuple(self.tokens[i] for i in ids if i != PAD)


def pad(rows: Sequence[Sequence[int]], width: int, num_tokens: int = 256) -> np.ndarray:
    """Return rows of ids, each filled up with `PAD` at its end, (N, width) uint8; int16 of more than 256 `num_tokens`.

    Raises:
        DatasetError: If a row is empty or longer than `width`.
    """
    padded = np.full((len(rows), width), PAD, dtype=dtype_of(num_tokens))
    for i, row in enumerate(rows):
        if not 1 <= len(row) <= width:
            raise DatasetError(f"sequence {i}: expected 1 to {width} tokens, got {len(row)}")
        padded[i, : len(row)] = row
    return padded


def dtype_of(num_tokens: int) -> type[np.uint8 | np.int16]:
    """Return the type of ids of so many tokens."""
    return np.uint8 if num_tokens <= 256 else np.int16  # noqa: PLR2004 - as many as a byte tells apart


def translation_task(length: int, source: Vocabulary, target: Vocabulary, targets: np.ndarray) -> Task:
    """Return the task of turning a sequence of `source` tokens into one of `target` tokens.

    The baseline is the unigram entropy of the training `targets`, (N, U), in nats per token that is no padding.
    """
    return make_task(
        length,
        inputs=("token", len(source)),
        targets=("class", "sequence", len(target)),
        baseline=(unigram_entropy(targets[targets != PAD]), "unigram"),
        padded=True,
        input_tokens=source.tokens,
        target_tokens=target.tokens,
    )


def unigram_entropy(ids: np.ndarray) -> float:
    """Return the entropy -sum p ln p of the ids' frequencies, in nats."""
    most = int(ids.max(initial=0)) + 1
    counts = np.zeros(most, dtype=np.int64)
    for some in np.array_split(ids, max(1, ids.size // IDS_AT_ONCE)):  # numpy counts int64s: eight bytes an id
        counts += np.bincount(some.ravel(), minlength=most)
    shares = counts[counts > 0] / ids.size
    return float(-(shares * np.log(shares)).sum())
