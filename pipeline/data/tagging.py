"""Tagging: a tag for every token, which some tokens owe to a token on their left, some to one on their right.

Every token has a context c, a symbol v in 0..S-1 and a distance d in 1..max_distance, all drawn alike:

    inputs   x_t = c_t + 3 (v_t + S (d_t - 1))
    targets  plain (c = 0)  the token's own symbol, v_t
             left  (c = 1)  the symbol of the token d_t before, v_{t - d_t}
             right (c = 2)  the symbol of the token d_t after, v_{t + d_t}
    baseline plain tokens are known, the others any symbol alike: 2/3 (1 - (max_distance + 1) / 2T) ln S

A token that would look beyond an end of the sequence is plain instead. The distance of a plain token says nothing;
it is there so that each context has as many different tokens. What to look at is seen in the token, so nothing but
the context has to be remembered (left) or waited for (right): a network that reads from left to right alone can do no
better than `causal_loss`, one that reads both ways can reach 0.

Source: made for this project; why both directions: Schuster & Paliwal 1997. Shapes: N sequences, T timesteps.
"""

from __future__ import annotations

import math
import string
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np

from pipeline.config.params import Sizes
from pipeline.config.strict import require
from pipeline.data.dataset import Dataset, Split, Task, assemble
from pipeline.data.drawing import draw_rows
from pipeline.data.generator import check_length, require_seed_and_lengths, sample_splits

CONTEXTS = ("plain", "left", "right")
PLAIN = 0
DIRECTIONS = np.array([0, -1, 1])
LETTERS = string.ascii_uppercase
MAX_TOKENS = 256
NUM_DRAWN = 3


@dataclass(frozen=True)
class Tagging:
    """Tagging with `num_symbols` tags and looks of at most `max_distance` timesteps."""

    generator: Literal["tagging"]
    seed: int
    lengths: tuple[int, ...]
    num_symbols: int
    max_distance: int

    natural_length = None

    def __post_init__(self) -> None:
        require_seed_and_lengths(self.seed, self.lengths)
        fits = 2 <= self.num_symbols <= len(LETTERS)
        require(fits, "num_symbols", f"an integer from 2 to {len(LETTERS)}", self.num_symbols)
        most = MAX_TOKENS // (len(CONTEXTS) * self.num_symbols)
        expected = f"an integer from 1 to {most} (with {self.num_symbols} symbols)"
        require(1 <= self.max_distance <= most, "max_distance", expected, self.max_distance)

    @property
    def possible_lengths(self) -> str:
        """Which lengths have room for every distance, in words."""
        return f"a token looks as far as {self.max_distance} timesteps: at least {self.max_distance + 1}"

    def allows(self, length: int) -> bool:
        """Return whether every distance fits in the sequence."""
        return length > self.max_distance

    def generate(self, length: int, sizes: Sizes) -> Dataset:
        """Return tagging over `length` timesteps."""
        check_length(self.generator, self, length)
        num_tokens = len(CONTEXTS) * self.num_symbols * self.max_distance
        task = Task(
            length,
            input_kind="token",
            input_size=num_tokens,
            target_kind="class",
            target_at="every",
            output_size=self.num_symbols,
            baseline_loss=memoryless_loss(length, self.num_symbols, self.max_distance),
            baseline_name="memoryless",
            token_groups={name: tuple(range(c, num_tokens, len(CONTEXTS))) for c, name in enumerate(CONTEXTS)},
        )
        draw = partial(sample, num_timesteps=length, num_symbols=self.num_symbols, max_distance=self.max_distance)
        return assemble(self.generator, task, sample_splits(self.seed, length, sizes, draw))

    def draw(self, dataset: Dataset) -> str:
        """Return symbols as letters, above where a token looks, above the tags."""
        train = dataset.splits["train"]
        inputs = train.inputs[:NUM_DRAWN]
        looks = DIRECTIONS[context_of(inputs)] * distance_of(inputs, self.num_symbols)
        symbols = symbol_of(inputs, self.num_symbols)
        drawn = []
        for own, look, tags in zip(symbols.tolist(), looks.tolist(), train.targets.tolist(), strict=False):
            rows = {
                "symbol": [LETTERS[v] for v in own],
                "looks": [f"{d:+d}" if d else "" for d in look],
                "target": [LETTERS[v] for v in tags],
            }
            drawn.append(draw_rows(rows))
        return "\n\n".join(drawn)

    def source(self) -> dict[str, Any]:
        """Return nothing: every token is drawn."""
        return {}


def sample(rng: np.random.Generator, num: int, *, num_timesteps: int, num_symbols: int, max_distance: int) -> Split:
    """Return `num` sequences.

    Args:
        rng: The stream to draw from.
        num: N, the number of sequences.
        num_timesteps: T, above `max_distance`.
        num_symbols: S, different tags.
        max_distance: The farthest that a token looks.

    Returns:
        Inputs (N, T) uint8 in 0..3*S*max_distance-1 and targets (N, T) uint8 in 0..S-1.
    """
    shape, timesteps = (num, num_timesteps), np.arange(num_timesteps)
    contexts = rng.integers(0, len(CONTEXTS), shape)
    symbols = rng.integers(0, num_symbols, shape)
    distances = rng.integers(1, max_distance + 1, shape)
    looked_at = timesteps + DIRECTIONS[contexts] * distances
    inside = (looked_at >= 0) & (looked_at < num_timesteps)
    contexts = np.where(inside, contexts, PLAIN)
    targets = np.take_along_axis(symbols, np.where(inside, looked_at, timesteps), axis=1)
    inputs = contexts + len(CONTEXTS) * (symbols + num_symbols * (distances - 1))
    return Split(inputs.astype(np.uint8), targets.astype(np.uint8))


def context_of(inputs: np.ndarray) -> np.ndarray:
    """Return where each token's tag comes from: 0 itself, 1 its left, 2 its right; in the shape of `inputs`."""
    return inputs % len(CONTEXTS)


def symbol_of(inputs: np.ndarray, num_symbols: int) -> np.ndarray:
    """Return each token's own symbol, 0..num_symbols-1, in the shape of `inputs`."""
    return inputs // len(CONTEXTS) % num_symbols


def distance_of(inputs: np.ndarray, num_symbols: int) -> np.ndarray:
    """Return how far each token looks, in timesteps, in the shape of `inputs`; of a plain token it says nothing."""
    return inputs // (len(CONTEXTS) * num_symbols) + 1


def memoryless_loss(length: int, num_symbols: int, max_distance: int) -> float:
    """Return the loss, in nats per timestep, of the best answer to the present token alone.

    A token is drawn as left or right with 2/3, and at a random timestep of T a look of distance d fits with 1 - d/T.
    """
    return 2 / 3 * (1 - (max_distance + 1) / (2 * length)) * math.log(num_symbols)


def causal_loss(length: int, num_symbols: int, max_distance: int) -> float:
    """Return the loss, in nats per timestep, of the best answer to all tokens so far: right looks are guessed."""
    return memoryless_loss(length, num_symbols, max_distance) / 2
