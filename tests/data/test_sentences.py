"""Every answer follows from its sentence by the stated rule, and from no less of it than is stated."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter, defaultdict
from functools import cache

import numpy as np
import pytest

from pipeline.config import InvalidFieldError, Sizes
from pipeline.data import load_dataset, prepare_dataset
from pipeline.data.dataset import PAD, SPLITS, Dataset
from pipeline.data.generator import Shares
from pipeline.data.sentences import LEFT_NAMES, RIGHT_NAMES, Sentences, sentences_of, split_sentences
from pipeline.errors import DatasetError

SHARES = Shares(train=0.7, validation=0.15, test=0.15)
TASKS = {task: Sentences(seed=0, task=task, shares=SHARES) for task in ("sentiment", "entities")}
SIZES = Sizes(num_train=4000, num_validation=300, num_test=300)
PRAISE = {"good", "great", "clever", "moving"}
VERBS = {"sings": "PER", "tells": "PER", "laughs": "PER", "exports": "LOC", "lies": "LOC", "attracts": "LOC"}
VERBS |= {"hires": "ORG", "issues": "ORG", "pays": "ORG"}
INTRODUCED = {"Mr": "PER", "Mrs": "PER", "of": "LOC", "to": "LOC", "bank": "ORG", "called": "ORG"}


@cache
def generated(task: str, sizes: Sizes = SIZES) -> Dataset:
    """A dataset that several tests look at and none changes."""
    return TASKS[task].generate(12, sizes)


def sentiment_of(text: str) -> str:
    """The label, read off the text in another way than the grammar writes it."""
    decisive = text.split(" , ")[-1].split(" but ")[-1].split(" although ")[0]
    words = set(decisive.split())
    return "positive" if bool(words & PRAISE) != bool(words & {"not", "never"}) else "negative"


def entropy(answers: dict[object, Counter[str]]) -> float:
    """The entropy of an answer given what it is filed under, in nats."""
    counts = np.array([[count, sum(some.values())] for some in answers.values() for count in some.values()])
    return float(-(counts[:, 0] * np.log(counts[:, 0] / counts[:, 1])).sum() / counts[:, 0].sum())


def test_sentiment_is_that_of_the_deciding_clause_unless_denied():
    for _, words, (label,) in sentences_of("sentiment"):
        assert label == sentiment_of(" ".join(words))


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("i think the film was not good", "negative"),
        ("the film was good but the music was dull", "negative"),
        ("the music was dull but the film was good", "positive"),
        ("the film was good although the music was dull", "positive"),
        ("although the film was good , the music was never dull", "positive"),
    ],
)
def test_reviews_written_out(text, label):
    labels = {" ".join(words): answers for _, words, answers in sentences_of("sentiment")}
    assert labels[text] == (label,)


def test_the_same_words_in_another_order_are_praise_or_not():
    labels = defaultdict(set)
    for form, words, answers in sentences_of("sentiment"):
        labels[form, tuple(sorted(words))] |= {*answers}
    undecided = [form for (form, _), seen in labels.items() if len(seen) == 2]
    assert len(undecided) / len(labels) == pytest.approx(6240 / 8880)  # the share that the order of words decides


def test_no_word_alone_says_anything_about_sentiment():
    answers = defaultdict(Counter)
    for _, words, (label,) in sentences_of("sentiment"):
        for word in words:
            answers[word][label] += 1
    assert entropy(answers) == pytest.approx(math.log(2), rel=1e-12)


@pytest.mark.slow
def test_tags_are_those_of_the_verb_and_of_the_introduction():
    for _, words, tags in sentences_of("entities"):
        assert len(words) == len(tags)
        first = next(i for i, word in enumerate(words) if word in RIGHT_NAMES)
        assert tags[first] == next(VERBS[word] for word in words if word in VERBS)
        for t, (word, tag) in enumerate(zip(words, tags, strict=True)):
            if word in LEFT_NAMES:
                assert (tag, t) == (INTRODUCED[words[t - 1]], len(words) - 1)
            elif t != first:
                assert tag == {"Einstein": "PER", "Norway": "LOC", "Siemens": "ORG"}.get(word, "O")


@pytest.mark.slow
@pytest.mark.parametrize("seen", ["left", "right"])
def test_a_name_is_known_from_its_own_side_and_guessed_from_the_other(seen):
    answers: dict[str, dict[object, Counter[str]]] = defaultdict(lambda: defaultdict(Counter))
    for _, words, tags in sentences_of("entities"):
        for t, (word, tag) in enumerate(zip(words, tags, strict=True)):
            kind = "left" if word in LEFT_NAMES else "right" if word in RIGHT_NAMES else "plain"
            answers[kind][words[: t + 1] if seen == "left" else words[t:]][tag] += 1
    entropies = {kind: entropy(some) for kind, some in answers.items()}
    other = "left" if seen == "right" else "right"
    assert entropies == pytest.approx({"plain": 0, seen: 0, other: math.log(3)}, rel=1e-12)


@pytest.mark.slow
def test_the_memoryless_loss_of_tags_is_that_of_the_best_answer_to_one_word():
    dataset = generated("entities")
    train, answers = dataset.splits["train"], defaultdict(Counter)
    for word, tag in zip(train.inputs.ravel().tolist(), train.targets.ravel().tolist(), strict=True):
        if word != PAD:
            answers[word][tag] += 1
    assert dataset.baseline_loss == pytest.approx(entropy(answers), abs=0.002)
    assert dataset.baseline_name == "memoryless"


@pytest.mark.parametrize("task", TASKS)
def test_no_sentence_is_in_two_splits_or_twice_in_one(task):
    dataset = generated(task)
    rows = [row.tobytes() for split in SPLITS for row in dataset.splits[split].inputs]
    assert len(set(rows)) == len(rows) == 4600
    assert len({words for _, words, _ in sentences_of(task)}) == len(sentences_of(task)) > 50_000


@pytest.mark.parametrize("task", TASKS)
def test_arrays_are_the_sentences_filled_up(task):
    dataset = generated(task, Sizes(50, 1, 1))
    known, train = {words: answers for _, words, answers in sentences_of(task)}, dataset.splits["train"]
    assert train.inputs.dtype == train.targets.dtype == np.uint8
    for inputs, targets in zip(train.inputs, train.targets, strict=True):
        words = tuple(dataset.input_tokens[i] for i in inputs if i)
        assert (inputs[: len(words)] > 2).all()
        answers = tuple(dataset.target_tokens[i] for i in np.atleast_1d(targets) if task == "sentiment" or i)
        assert answers == known[words]


@pytest.mark.slow
def test_the_tasks_say_what_the_arrays_are():
    sentiment, entities = (generated(task, Sizes(5, 5, 5)) for task in ("sentiment", "entities"))
    assert (sentiment.target_at, sentiment.target_tokens) == ("last", ("negative", "positive"))
    assert (sentiment.baseline_loss, sentiment.baseline_name) == (math.log(2), "chance")
    assert (entities.target_at, entities.target_tokens) == ("every", ("<pad>", "O", "PER", "LOC", "ORG"))
    assert (sentiment.output_size, entities.output_size) == (2, 5)
    for dataset in (sentiment, entities):
        assert (dataset.input_kind, dataset.target_kind, dataset.padded) == ("token", "class", True)
        assert dataset.input_size == len(dataset.input_tokens)
        assert dataset.num_timesteps == dataset.length == 12
    assert sentiment.token_groups is None


def test_the_groups_of_words_are_all_words_by_where_their_tag_is_decided():
    entities = generated("entities", Sizes(5, 5, 5))
    groups = {kind: [entities.input_tokens[i] for i in ids] for kind, ids in entities.token_groups.items()}
    assert (tuple(groups["left"]), tuple(groups["right"])) == (LEFT_NAMES, RIGHT_NAMES)
    assert sorted(sum(groups.values(), [])) == sorted(entities.input_tokens[3:])


def test_forms_are_taken_alike_until_one_is_used_up():
    forms = ["rare"] * 100 + ["common"] * 9900
    order = split_sentences(forms, SHARES, seed=0)["train"]
    rare = order < 100
    assert rare.sum() == 70
    assert 10 <= rare[:40].sum() <= 30
    assert sorted(np.concatenate(list(split_sentences(forms, SHARES, seed=0).values()))) == list(range(10_000))


@pytest.mark.parametrize("task", TASKS)
def test_answers_are_balanced(task):
    targets = generated(task).splits["train"].targets
    counts = np.bincount(targets.ravel())[-3 if task == "entities" else -2 :]
    assert (np.abs(counts / counts.mean() - 1) < 0.06).all()


@pytest.mark.slow
def test_as_many_as_there_are():
    splits = TASKS["entities"].generate(12, Sizes(10**6, 5, 10**6)).splits
    num = {split: len(splits[split].inputs) for split in SPLITS}
    assert num == {"train": 37_044, "validation": 5, "test": 7_938}


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_the_same_again_and_another_seed(task):
    sizes = Sizes(50, 5, 5)
    digests = [TASKS[task].generate(12, sizes).digest for _ in range(2)]
    assert digests[0] == digests[1] != Sentences(seed=1, task=task, shares=SHARES).generate(12, sizes).digest


@pytest.mark.slow
def test_sizes_of_one_split_leave_the_others_alone():
    small, large = (TASKS["sentiment"].generate(12, Sizes(num, 5, 20)) for num in (5, 500))
    np.testing.assert_array_equal(small.splits["test"].inputs, large.splits["test"].inputs)


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_what_is_loaded_is_what_was_generated(task, tmp_path, config_path, sizes):
    prepare_dataset(task, config_path(task), (), sizes, tmp_path / task)
    made, loaded = TASKS[task].generate(12, sizes), load_dataset(tmp_path / task, None)
    assert loaded == dataclasses.replace(made, name=task, splits=loaded.splits)
    for split in SPLITS:
        np.testing.assert_array_equal(loaded.splits[split].targets, made.splits[split].targets)


def test_another_length_than_the_longest():
    with pytest.raises(DatasetError, match=r"'sentences': length 13 is impossible; .* 12 words: write null \(or 12\)"):
        TASKS["sentiment"].generate(13, SIZES)


def test_a_negative_seed():
    with pytest.raises(InvalidFieldError, match="seed: expected an integer of at least 0, got -1"):
        Sentences(seed=-1, task="sentiment", shares=SHARES)


def test_the_drawing_is_the_text_and_its_answer():
    sentiment, entities = (TASKS[task].generate(12, Sizes(9, 1, 1)) for task in ("sentiment", "entities"))
    text, target = TASKS["sentiment"].draw(sentiment).split("\n\n")[0].splitlines()
    assert target == f"target {sentiment_of(text)}"
    words, tags = (line.split() for line in TASKS["entities"].draw(entities).split("\n\n")[0].splitlines())
    assert dict(zip(words[1:], tags[1:], strict=True)).items() <= {
        pair for _, words, tags in sentences_of("entities") for pair in zip(words, tags, strict=True)
    }
