"""Short English sentences from a grammar, word by word: their sentiment at the end, or a tag for every word.

    inputs   the words of a sentence, at most 12, then padding
    targets  sentiment  negative or positive, once, when the sentence is read (grammar: sentiment.py)
             entities   for every word O, PER, LOC or ORG, then padding (grammar: entities.py)
    baseline sentiment  chance, ln 2: a word alone says nothing
             entities   names guessed, ln 3 each, other words known: ln 3 times the share of ambiguous words

Every sentence of the grammar belongs to one split, and none comes twice, so no test sentence is trained on. Forms of
sentence are drawn alike, however many sentences they have, until they are used up: weighted sampling without
replacement, by the smallest of exponential keys.

Source: grammars made for this project; sampling: Efraimidis & Spirakis 2006. Shapes: N sentences, T words.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import numpy as np

from pipeline.config.params import Sizes
from pipeline.data.dataset import PAD, SPECIAL_TOKENS, Dataset, Split, Task, assemble
from pipeline.data.digits import Shares, split_indices
from pipeline.data.drawing import draw_rows
from pipeline.data.entities import LEFT_NAMES, RIGHT_NAMES, TAGS, tagged_sentences
from pipeline.data.generator import check_length, num_sequences, require_seed_and_lengths, stream
from pipeline.data.sentiment import LABELS, reviews
from pipeline.data.vocabulary import Vocabulary, pad

GRAMMARS = {"sentiment": reviews, "entities": tagged_sentences}
CLASSES = {"sentiment": LABELS, "entities": (SPECIAL_TOKENS[PAD], *TAGS)}
NUM_DRAWN = 4


@dataclass(frozen=True)
class Sentences:
    """Sentences of the grammar of `task`, divided by `shares`: as many as the scale wants, or as there are."""

    generator: Literal["sentences"]
    seed: int
    task: Literal["sentiment", "entities"]
    shares: Shares

    def __post_init__(self) -> None:
        require_seed_and_lengths(self.seed, ())

    @property
    def natural_length(self) -> int:
        """The number of words of the longest sentence."""
        return max(len(words) for _, words, _ in sentences_of(self.task))

    @property
    def lengths(self) -> tuple[int, ...]:
        """The only length."""
        return (self.natural_length,)

    @property
    def possible_lengths(self) -> str:
        """Which lengths are possible, in words."""
        return f"the longest sentence has {self.natural_length} words: write null (or {self.natural_length})"

    def allows(self, length: int) -> bool:
        """Return whether `length` is that of the longest sentence."""
        return length == self.natural_length

    def generate(self, length: int, sizes: Sizes) -> Dataset:
        """Return the sentences, filled up to the longest."""
        check_length(self.generator, self, length)
        forms, words, answers = zip(*sentences_of(self.task), strict=True)
        splits = {}
        for split, order in split_sentences(forms, self.shares, self.seed).items():
            chosen = order[: num_sequences(sizes, split)]
            inputs = pad([vocabulary_of(self.task).encode(words[i]) for i in chosen], length)
            splits[split] = Split(inputs, self._targets([answers[i] for i in chosen], length))
        return assemble(self.generator, self._task(length, splits["train"].inputs), splits)

    def _targets(self, answers: list[tuple[str, ...]], length: int) -> np.ndarray:
        ids = [[CLASSES[self.task].index(answer) for answer in every] for every in answers]
        return pad(ids, length) if self.task == "entities" else np.array(ids, dtype=np.uint8)[:, 0]

    def _task(self, length: int, inputs: np.ndarray) -> Task:
        words, classes = vocabulary_of(self.task).tokens, CLASSES[self.task]
        whole = Task(
            length,
            input_kind="token",
            input_size=len(words),
            target_kind="class",
            target_at="last",
            output_size=len(classes),
            baseline_loss=math.log(2),
            baseline_name="chance",
            padded=True,
            input_tokens=words,
            target_tokens=classes,
        )
        if self.task == "sentiment":
            return whole
        groups = kinds_of(vocabulary_of(self.task))
        ambiguous = np.isin(inputs, groups["left"] + groups["right"])
        baseline = math.log(3) * float(ambiguous.sum() / (inputs != PAD).sum())
        return dataclasses.replace(
            whole, target_at="every", baseline_loss=baseline, baseline_name="memoryless", token_groups=groups
        )

    def draw(self, dataset: Dataset) -> str:
        """Return sentences with the label, or the tags, underneath."""
        train = dataset.splits["train"]
        drawn = []
        for inputs, targets in zip(train.inputs[:NUM_DRAWN], train.targets[:NUM_DRAWN], strict=True):
            words = vocabulary_of(self.task).decode(inputs)
            answers = [CLASSES[self.task][i] for i in np.atleast_1d(targets)[: len(words)]]
            by_word = {"word": words, "target": answers}
            drawn.append(draw_rows(by_word) if self.task == "entities" else f"{' '.join(words)}\ntarget {answers[0]}")
        return "\n\n".join(drawn)

    def source(self) -> dict[str, Any]:
        """Return nothing: every sentence is made."""
        return {}


@cache
def sentences_of(task: str) -> tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...]:
    """Return form, words and answers (a label, or a tag a word) of every sentence of a grammar."""
    return tuple((form, tuple(words.split()), tuple(answers.split())) for form, words, answers in GRAMMARS[task]())


@cache
def vocabulary_of(task: str) -> Vocabulary:
    """Return every word of a grammar, in alphabetical order; it does not depend on which sentences are drawn."""
    return Vocabulary(sorted({word for _, words, _ in sentences_of(task) for word in words}))


def split_sentences(forms: Sequence[str], shares: Shares, seed: int) -> dict[str, np.ndarray]:
    """Return which sentences belong to each split, in the order in which they are taken.

    Args:
        forms: The form of each sentence, (N,).
        shares: Part of each split, of every form.
        seed: Seed of the draw.

    Returns:
        Indices by split; together they are 0..N-1, each once. In any first part of them, forms are about equally
        frequent as far as there are enough of each.
    """
    _, form_ids, num_alike = np.unique(forms, return_inverse=True, return_counts=True)
    keys = stream(seed).exponential(size=len(forms)) * num_alike[form_ids]
    parts = split_indices(form_ids, shares, seed)
    return {split: members[np.argsort(keys[members])] for split, members in parts.items()}


def kinds_of(vocabulary: Vocabulary) -> dict[str, tuple[int, ...]]:
    """Return the ids of words by where their tag is decided: the word itself, its left, or its right."""
    names = {"left": LEFT_NAMES, "right": RIGHT_NAMES}
    plain = set(vocabulary.tokens[len(SPECIAL_TOKENS) :]) - {*LEFT_NAMES, *RIGHT_NAMES}
    return {kind: tuple(vocabulary.encode(words)) for kind, words in {"plain": sorted(plain), **names}.items()}
