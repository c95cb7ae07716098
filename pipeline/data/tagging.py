"""Tagging: a tag for every token, which some tokens owe to a token on their left, some to one on their right.

Every token has a context c, a symbol v in 0..S-1 and a distance d in 1..max_distance, all drawn alike:

    inputs   x_t = c_t + 3 (v_t + S (d_t - 1))
    targets  plain (c = 0)  the token's own symbol, v_t
             left  (c = 1)  the symbol of the token d_t before, v_{t - d_t}
             right (c = 2)  the symbol of the token d_t after, v_{t + d_t}
    baseline plain tokens are known, the others any symbol alike: 2/3 (1 - (max_distance + 1) / 2T) ln S

A token that would look beyond an end of the sequence is plain instead. The distance of a plain token says nothing;
it is there so that each context has as many different tokens. What to look at is seen in the token, so nothing but
the context has to be remembered (left) or waited for (right): a network that reads from left to right alone has to
guess where right tokens look and can do no better than half the baseline, one that reads both ways can reach 0.

Source: made for this project; why both directions: Schuster & Paliwal 1997. Shapes: N sequences, T timesteps.
"""

from __future__ import annotations

import math
import string
from dataclasses import dataclass

import numpy as np

from pipeline.data.dataset import Dataset, Split, Task, make_task
from pipeline.data.generator import Sampled, draw_rows, require_between

CONTEXTS = ("plain", "left", "right")
PLAIN = 0
DIRECTIONS = np.array([0, -1, 1])
LETTERS = string.ascii_uppercase
MAX_TOKENS = 256


@dataclass(frozen=True, kw_only=True)
class Tagging(Sampled):
    """Tagging with `num_symbols` tags and looks of at most `max_distance` timesteps."""

    num_symbols: int
    max_distance: int

    length_reason = "a token looks as far as {self.max_distance} timesteps"

    def __post_init__(self) -> None:
        super().__post_init__()
        require_between(2, len(LETTERS), "num_symbols", self.num_symbols)
        most = MAX_TOKENS // (len(CONTEXTS) * self.num_symbols)
        require_between(1, most, "max_distance", self.max_distance, why=f" (with {self.num_symbols} symbols)")

    @property
    def shortest_length(self) -> int:
        """The least length in which every distance fits."""
        return self.max_distance + 1

    def task(self, length: int, train: Split) -> Task:
        """Return the task of tagging `length` tokens."""
        num_tokens = len(CONTEXTS) * self.num_symbols * self.max_distance
        return make_task(
            length,
            inputs=("token", num_tokens),
            targets=("class", "every", self.num_symbols),
            baseline=(memoryless_loss(length, self.num_symbols, self.max_distance), "memoryless"),
            token_groups={name: tuple(range(c, num_tokens, len(CONTEXTS))) for c, name in enumerate(CONTEXTS)},
        )

    def sample(self, rng: np.random.Generator, num: int, length: int) -> Split:
        """Return inputs (N, T) uint8 in 0..3*S*max_distance-1 and targets (N, T) uint8 in 0..S-1."""
        shape, timesteps = (num, length), np.arange(length)
        contexts = rng.integers(0, len(CONTEXTS), shape)
        symbols = rng.integers(0, self.num_symbols, shape)
        distances = rng.integers(1, self.max_distance + 1, shape)
        looked_at = timesteps + DIRECTIONS[contexts] * distances
        inside = (looked_at >= 0) & (looked_at < length)
        contexts = np.where(inside, contexts, PLAIN)
        targets = np.take_along_axis(symbols, np.where(inside, looked_at, timesteps), axis=1)
        inputs = contexts + len(CONTEXTS) * (symbols + self.num_symbols * (distances - 1))
        return Split(inputs.astype(np.uint8), targets.astype(np.uint8))

    def draw_one(self, dataset: Dataset, one: Split) -> str:
        """Return symbols as letters, above where a token looks, above the tags."""
        contexts, symbols, distances = parts_of(one.inputs, self.num_symbols)
        rows = {
            "symbol": [LETTERS[v] for v in symbols],
            "looks": [f"{d:+d}" if d else "" for d in DIRECTIONS[contexts] * distances],
            "target": [LETTERS[v] for v in one.targets],
        }
        return draw_rows(rows)


def parts_of(inputs: np.ndarray, num_symbols: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return context, symbol and distance of each token, c, v and d, in the shape of `inputs`."""
    rest, contexts = np.divmod(inputs, len(CONTEXTS))
    distances, symbols = np.divmod(rest, num_symbols)
    return contexts, symbols, distances + 1


def memoryless_loss(length: int, num_symbols: int, max_distance: int) -> float:
    """Return the loss, in nats per timestep, of the best answer to the present token alone.

    A token is drawn as left or right with 2/3, and at a random timestep of T a look of distance d fits with 1 - d/T.
    """
    return 2 / 3 * (1 - (max_distance + 1) / (2 * length)) * math.log(num_symbols)
