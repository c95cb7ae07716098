"""A grammar of sentences with names, and a tag for every word: is it a person (PER), a place (LOC), a firm (ORG) or O?

    sentence  [LEAD] NAME [ADVERB] VERB [INTRODUCTION NAME]

    left      a name at the end is what the words before it say: "according to Mr Lincoln", "on the road to Lincoln"
    right     a name at the beginning is what the verb after it says: "Jordan often sings", "Jordan often exports oil"
    plain     every other word has one tag; a lead names somebody or something, and says nothing about what follows

The two places have names of their own, so a word tells on which side its tag is decided. Person, place and firm are
equally frequent: a network that reads from left to right can only guess the right names, at ln 3 nats each.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

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


def tagged_sentences() -> Iterator[tuple[str, str, str]]:
    """Yield every sentence: its form (the tags of its two names), its words, and as many tags."""
    for (lead, lead_tags), (first, verb), (last, ending) in product(LEADS.items(), _verbs(), _endings()):
        for name, adverb in product(RIGHT_NAMES, ADVERBS):
            words = f"{name} {adverb} {verb} {ending}".split()
            tags = [first, *["O"] * (len(words) - 1)]
            if last:
                tags[-1] = last
            yield f"{first} {last}", " ".join([*lead.split(), *words]), " ".join([*lead_tags.split(), *tags])


def _verbs() -> Iterator[tuple[str, str]]:
    for tag, verbs in VERBS.items():
        yield from product([tag], verbs)


def _endings() -> Iterator[tuple[str, str]]:
    """Yield the tag of the last name and the words from its introduction on; nothing for a sentence without."""
    yield "", ""
    for tag, introductions in INTRODUCTIONS.items():
        for introduction, name in product(introductions, LEFT_NAMES):
            yield tag, f"{introduction} {name}"
