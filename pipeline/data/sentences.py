"""Short English sentences from a grammar, word by word: their sentiment at the end, or a tag for every word.

    inputs   the words of a sentence, at most 12, then padding
    targets  sentiment  negative or positive, once, when the sentence is read
             entities   for every word O, PER, LOC or ORG, then padding
    baseline sentiment  chance, ln 2: a word alone says nothing
             entities   names guessed, ln 3 each, other words known: ln 3 times the share of ambiguous words

Reviews: what counts is which clause decides, and what is denied in it.

    clause    SUBJECT was [really | not | never] ADJECTIVE
    polarity  that of the adjective, turned round by "not" and "never"
    review    [LEAD] clause                     the polarity of the clause
              clause but clause                 that of the second
              clause although clause            that of the first
              although clause , clause          that of the second

The two clauses of a review differ in subject and adjective, and are praise or not independently. Half of all clauses
are denied, so no word alone says anything: "the film was good but the music was dull" is negative, and with its two
clauses exchanged, the same words, positive.

Names: is each a person (PER), a place (LOC), a firm (ORG)?

    sentence  [LEAD] NAME [ADVERB] VERB [INTRODUCTION NAME]
    left      a name at the end is what the words before it say: "according to Mr Lincoln", "on the road to Lincoln"
    right     a name at the beginning is what the verb after it says: "Jordan often sings", "Jordan often exports oil"
    plain     every other word has one tag; a lead names somebody or something, and says nothing about what follows

The two places have names of their own, so a word tells on which side its tag is decided. Person, place and firm are
equally frequent: a network that reads from left to right can only guess the right names, at ln 3 nats each.

Every sentence of the grammar belongs to one split, and none comes twice, so no test sentence is trained on. Forms of
sentence are drawn alike, however many sentences they have, until they are used up: weighted sampling without
replacement, by the smallest of exponential keys.

Source: grammars made for this project; sampling: Efraimidis & Spirakis 2006. Shapes: N sentences, T words.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import permutations, product
from typing import Literal

import numpy as np

from pipeline.config.params import Sizes
from pipeline.data.dataset import PAD, SPECIAL_TOKENS, Dataset, Split, TargetAt, Task, make_task
from pipeline.data.generator import Drawn, Shares, draw_rows, num_sequences, split_indices, stream
from pipeline.data.vocabulary import Vocabulary, pad

LABELS = ("negative", "positive")
SUBJECTS = ("the film", "the music", "the story", "the ending", "the acting")
MANNERS = {"": False, "really": False, "not": True, "never": True}
ADJECTIVES = {
    "good": True,
    "great": True,
    "clever": True,
    "moving": True,
    "bad": False,
    "dull": False,
    "weak": False,
    "silly": False,
}
REVIEW_LEADS = ("", "i think", "my friends say that")
CONNECTED = {"{} but {}": 1, "{} although {}": 0, "although {} , {}": 1}
"""How two clauses are joined, and which of them decides."""

TAGS = ("O", "PER", "LOC", "ORG")
LEFT_NAMES = ("Carolina", "Charlotte", "Dallas", "Houston", "Jackson", "Lincoln", "Madison", "Savannah")
RIGHT_NAMES = ("Austin", "Chelsea", "Florence", "Georgia", "Jordan", "Paris", "Victoria", "Washington")
LEADS = {"": "", "last year": "O O", "unlike Einstein": "O PER", "unlike Norway": "O LOC", "unlike Siemens": "O ORG"}
ADVERBS = ("", "often", "once again")
VERBS = {
    "PER": ("sings", "tells stories", "laughs loudly"),
    "LOC": ("exports oil", "lies inland", "attracts tourists"),
    "ORG": ("hires engineers", "issues shares", "pays dividends"),
}
INTRODUCTIONS = {
    "PER": ("according to Mr", "like young Mrs"),
    "LOC": ("near the town of", "on the road to"),
    "ORG": ("according to the bank", "unlike the firm called"),
}

CLASSES = {"sentiment": LABELS, "entities": (SPECIAL_TOKENS[PAD], *TAGS)}


@dataclass(frozen=True, kw_only=True)
class Sentences(Drawn):
    """Sentences of the grammar of `task`, divided by `shares`: as many as the scale wants, or as there are."""

    task: Literal["sentiment", "entities"]
    shares: Shares

    length_reason = "the longest sentence has {self.natural_length} words"
    num_drawn = 4

    @property
    def natural_length(self) -> int:
        """The number of words of the longest sentence."""
        return max(len(words) for _, words, _ in sentences_of(self.task))

    def make(self, length: int, sizes: Sizes) -> tuple[Task, dict[str, Split]]:
        """Return the sentences, filled up to the longest."""
        vocabulary, classes = vocabulary_of(self.task), CLASSES[self.task]
        forms, words, answers = zip(*sentences_of(self.task), strict=True)
        splits = {}
        for split, order in split_sentences(forms, self.shares, self.seed).items():
            chosen = order[: num_sequences(sizes, split)]
            ids = [[classes.index(answer) for answer in answers[i]] for i in chosen]
            targets = pad(ids, length) if self.task == "entities" else np.array(ids, dtype=np.uint8)[:, 0]
            splits[split] = Split(pad([vocabulary.encode(words[i]) for i in chosen], length), targets)
        at: TargetAt = "last"
        baseline, groups = (math.log(2), "chance"), None
        if self.task == "entities":
            plain = sorted({*vocabulary.tokens[len(SPECIAL_TOKENS) :]} - {*LEFT_NAMES, *RIGHT_NAMES})
            names = {"plain": plain, "left": LEFT_NAMES, "right": RIGHT_NAMES}
            groups = {kind: tuple(vocabulary.encode(some)) for kind, some in names.items()}
            inputs = splits["train"].inputs
            share = float(np.isin(inputs, groups["left"] + groups["right"]).sum() / (inputs != PAD).sum())
            at, baseline = "every", (math.log(3) * share, "memoryless")
        task = make_task(
            length,
            inputs=("token", len(vocabulary)),
            targets=("class", at, len(classes)),
            baseline=baseline,
            token_groups=groups,
            padded=True,
            input_tokens=vocabulary.tokens,
            target_tokens=classes,
        )
        return task, splits

    def draw_one(self, dataset: Dataset, one: Split) -> str:
        """Return a sentence with the label, or the tags, underneath."""
        words = vocabulary_of(self.task).decode(one.inputs)
        answers = [CLASSES[self.task][i] for i in np.atleast_1d(one.targets)[: len(words)]]
        if self.task == "entities":
            return draw_rows({"word": words, "target": answers})
        return f"{' '.join(words)}\ntarget {answers[0]}"


@cache
def sentences_of(task: str) -> tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...]:
    """Return form, words and answers (a label, or a tag a word) of every sentence of a grammar."""
    grammar = reviews() if task == "sentiment" else tagged_sentences()
    return tuple((form, tuple(words.split()), tuple(answers.split())) for form, words, answers in grammar)


@cache
def vocabulary_of(task: str) -> Vocabulary:
    """Return every word of a grammar, in alphabetical order; it does not depend on which sentences are drawn."""
    return Vocabulary(sorted({word for _, words, _ in sentences_of(task) for word in words}))


def reviews() -> Iterator[tuple[str, str, str]]:
    """Yield every review: its form (how its clauses are joined), its words and its label."""
    for lead, subject, adjective in product(REVIEW_LEADS, SUBJECTS, ADJECTIVES):
        for text, positive in clauses(subject, adjective):
            yield "{}", f"{lead} {text}".strip(), LABELS[positive]
    for pair in product(permutations(SUBJECTS, 2), permutations(ADJECTIVES, 2)):
        both = [list(clauses(subject, adjective)) for subject, adjective in zip(*pair, strict=True)]
        for chosen, (form, decisive) in product(product(*both), CONNECTED.items()):
            yield form, form.format(*(text for text, _ in chosen)), LABELS[chosen[decisive][1]]


def clauses(subject: str, adjective: str) -> Iterator[tuple[str, bool]]:
    """Yield every clause that says `adjective` of `subject`, or denies it, and whether it is praise."""
    for manner, denies in MANNERS.items():
        yield " ".join(f"{subject} was {manner} {adjective}".split()), ADJECTIVES[adjective] != denies


def tagged_sentences() -> Iterator[tuple[str, str, str]]:
    """Yield every sentence: its form (the tags of its two names), its words, and as many tags."""
    verbs = [(tag, verb) for tag, some in VERBS.items() for verb in some]
    endings = [(tag, f"{intro} {name}") for tag, some in INTRODUCTIONS.items() for intro in some for name in LEFT_NAMES]
    for (lead, lead_tags), (first, verb), (last, ending) in product(LEADS.items(), verbs, [("", ""), *endings]):
        for name, adverb in product(RIGHT_NAMES, ADVERBS):
            words = f"{name} {adverb} {verb} {ending}".split()
            tags = [first, *["O"] * (len(words) - 1)]
            if last:
                tags[-1] = last
            yield f"{first} {last}", " ".join([*lead.split(), *words]), " ".join([*lead_tags.split(), *tags])


def split_sentences(forms: Sequence[str], shares: Shares, seed: int) -> dict[str, np.ndarray]:
    """Return the indices of each split's sentences, in the order in which they are taken; together 0..N-1, each once.

    Every one of the `forms`, (N,), is divided by the same shares. In any first part of a split, forms are about equally
    frequent as far as there are enough of each.
    """
    _, form_ids, num_alike = np.unique(forms, return_inverse=True, return_counts=True)
    keys = stream(seed).exponential(size=len(forms)) * num_alike[form_ids]
    parts = split_indices(form_ids, shares, seed)
    return {split: members[np.argsort(keys[members])] for split, members in parts.items()}
