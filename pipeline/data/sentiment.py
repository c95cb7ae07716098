"""A grammar of short reviews, and whether they praise: what counts is which clause decides, and what is denied in it.

    clause    SUBJECT was [really | not | never] ADJECTIVE
    polarity  that of the adjective, turned round by "not" and "never"
    review    [LEAD] clause                     the polarity of the clause
              clause but clause                 that of the second
              clause although clause            that of the first
              although clause , clause          that of the second

The two clauses of a review differ in subject and adjective, and are praise or not independently. Half of all clauses
are denied, so no word alone says anything: "the film was good but the music was dull" is negative, and with its two
clauses exchanged, the same words, positive.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import permutations, product

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
LEADS = ("", "i think", "my friends say that")
CONNECTED = {"{} but {}": 1, "{} although {}": 0, "although {} , {}": 1}
"""How two clauses are joined, and which of them decides."""


def reviews() -> Iterator[tuple[str, str, str]]:
    """Yield every review: its form (how its clauses are joined), its words and its label."""
    for lead, subject, adjective in product(LEADS, SUBJECTS, ADJECTIVES):
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
