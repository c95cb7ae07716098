"""Sources are dates of Babel, targets the same in ISO 8601, and every aligned digit can be read off its source."""

from __future__ import annotations

import dataclasses
import datetime

import numpy as np
import pytest

from pipeline.config import InvalidFieldError, Sizes
from pipeline.data.dataset import EOS, PAD, SPLITS
from pipeline.data.dates import TARGET, Dates, align, write
from pipeline.data.generator import Shares
from pipeline.errors import DatasetError

pytest.importorskip("babel")

DATES = Dates(
    seed=0,
    locales=("en", "fr", "de", "ko"),
    formats=("full", "long", "medium"),
    first_year=1900,
    last_year=2099,
    shares=Shares(0.8, 0.1, 0.1),
)
LENGTH = len("Donnerstag, 30. September 2099")
WAYS = [(locale, format) for locale in DATES.locales for format in DATES.formats]


def isos(targets: np.ndarray) -> list[str]:
    return ["".join(TARGET.decode(target)).removesuffix("<eos>") for target in targets]


def test_every_target_is_the_date_that_its_source_says(sizes):
    dataset, tokens = DATES.generate(LENGTH, sizes), DATES.vocabulary()
    for split in dataset.splits.values():
        for inputs, iso in zip(split.inputs, isos(split.targets), strict=True):
            date = datetime.date.fromisoformat(iso)
            assert "".join(tokens.decode(inputs)) in {write(date, *way)[0] for way in WAYS}
            assert not inputs[len(tokens.decode(inputs)) :].any()


@pytest.mark.slow
def test_no_date_is_in_two_splits_however_it_is_written():
    small = dataclasses.replace(DATES, first_year=2000, last_year=2000)
    splits = small.generate(LENGTH, Sizes(10**6, 10**6, 10**6)).splits
    found = {split: isos(splits[split].targets) for split in SPLITS}
    dates = [date for split in SPLITS for date in set(found[split])]
    assert len(dates) == len(set(dates)) == 366
    assert [len(found[split]) for split in SPLITS] == [293 * 12, 36 * 12, 37 * 12]
    sources = [source for split in SPLITS for source in {row.tobytes() for row in splits[split].inputs}]
    assert len(sources) == len(set(sources)) > 366 * 11  # a short month is written alike in two formats


@pytest.mark.slow
def test_every_way_and_every_year_is_drawn():
    train = DATES.generate(LENGTH, Sizes(10_000, 1, 1)).splits["train"]
    assert {int(iso[:4]) for iso in isos(train.targets)} == set(range(1900, 2100))
    hangul = DATES.vocabulary().encode("년")[0]
    assert (train.inputs == hangul).any(axis=1).mean() == pytest.approx(2 / 12, abs=0.015)  # full and long of Korean


@pytest.mark.parametrize(
    ("date", "way", "made"),
    [
        ("2024-03-01", ("en", "long"), ["03 03 03 03 03 _ 01 _ _ 2 0 2 4"]),
        ("2024-12-31", ("de", "medium"), ["3 1 _ 1 2 _ 2 0 2 4"]),
        ("2024-03-01", ("de", "medium"), ["0 1 _ 0 3 _ 2 0 2 4"]),
        ("1999-05-06", ("fr", "full"), ["_ _ _ _ _ _ 06 _ 05 05 05 _ 1 9 9 9"]),
        ("1999-12-06", ("ko", "long"), ["1 9 9 9 _ _ 1 2 _ _ 06 _"]),
        ("1999-05-16", ("ko", "full"), ["1 9 9 9 _ _ 05 05 _ 1 6 _ _ _ _ _"]),
    ],
)
def test_what_each_character_is_made_into(date, way, made):
    text, spans = write(datetime.date.fromisoformat(date), *way)
    alignment = align(text, spans, LENGTH)
    assert alignment.shape == (11, LENGTH)
    assert not alignment[:, len(text) :].any()
    columns = ["".join(np.array(list(date))[origins[:10]]) or "_" for origins in alignment.T[: len(text)]]
    assert [" ".join(columns)] == made


def test_hyphens_and_the_end_are_made_of_nothing_and_digits_of_something(sizes):
    alignment = DATES.generate(LENGTH, sizes).splits["train"].alignment
    np.testing.assert_array_equal(alignment.any(axis=2), [[u not in (4, 7, 10) for u in range(11)]] * 40)


def test_a_digit_aligned_to_one_digit_is_the_same_digit(sizes):
    dataset, tokens = DATES.generate(LENGTH, sizes), np.array(DATES.vocabulary().tokens)
    train = dataset.splits["train"]
    n, u = np.nonzero(train.alignment.sum(axis=2) == 1)
    sources = tokens[train.inputs[n, train.alignment[n, u].argmax(axis=1)]]
    targets = np.array(TARGET.tokens)[train.targets[n, u]]
    padded = (u == 5) | (u == 8)
    np.testing.assert_array_equal(sources[~padded], targets[~padded])
    assert ((sources == targets) | (targets == "0"))[padded].all()
    assert np.isin(np.arange(4), u).all()


def test_the_task_says_what_the_arrays_are(sizes):
    dataset = DATES.generate(LENGTH, sizes)
    assert (dataset.input_kind, dataset.target_kind, dataset.target_at) == ("token", "class", "sequence")
    assert (dataset.input_tokens, dataset.target_tokens) == (DATES.vocabulary().tokens, TARGET.tokens)
    assert (dataset.input_size, dataset.output_size) == (len(DATES.vocabulary()), 14)
    assert dataset.length == dataset.num_timesteps == DATES.natural_length == LENGTH
    for split, num in (("train", 40), ("validation", 10), ("test", 20)):
        arrays = dataset.splits[split]
        assert (arrays.inputs.shape, arrays.targets.shape) == ((num, LENGTH), (num, 11))
        assert (arrays.alignment.shape, arrays.alignment.dtype) == ((num, 11, LENGTH), bool)
        assert (arrays.targets[:, -1] == EOS).all()
        assert not (arrays.targets == PAD).any()


def test_the_vocabulary_and_the_length_do_not_depend_on_what_is_drawn():
    few, many = (DATES.generate(LENGTH, Sizes(num, 1, 1)) for num in (1, 100))
    assert few.input_tokens == many.input_tokens
    assert set("년월일é0123456789") < set(few.input_tokens)
    german = dataclasses.replace(DATES, locales=("de",), formats=("medium",), first_year=2000, last_year=2000)
    assert german.natural_length == len("31.12.2000")
    assert german.vocabulary().tokens[3:] == tuple(".0123456789")


def test_the_same_again_and_other_dates_with_another_seed(sizes):
    first, second = (DATES.generate(LENGTH, sizes).digest for _ in range(2))
    assert first == second != dataclasses.replace(DATES, seed=1).generate(LENGTH, sizes).digest


def test_sizes_of_one_split_leave_the_others_alone():
    small, large = (DATES.generate(LENGTH, Sizes(num, 5, 5)).splits["test"] for num in (5, 50))
    np.testing.assert_array_equal(small.inputs, large.inputs)


def test_another_length(sizes):
    with pytest.raises(DatasetError, match=r"dataset 'dates': length 29 is impossible; .* 30 characters: write null"):
        DATES.generate(29, sizes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": -1}, "seed: expected an integer of at least 0, got -1"),
        ({"locales": ()}, r"locales: expected at least one, each once, got \[\]"),
        ({"formats": ("full", "full")}, r"formats: expected at least one, each once, got \['full', 'full'\]"),
        ({"first_year": 999}, "first_year: expected a year from 1000 to 9999, got 999"),
        ({"last_year": 1899}, r"last_year: expected a year from 1900 \(first_year\) to 9999, got 1899"),
        ({"last_year": 10_000}, r"last_year: expected a year from 1900 \(first_year\) to 9999, got 10000"),
        ({"shares": Shares(0.999990, 0.000005, 0.000005)}, "shares: expected at least 2 dates of 200 years in every"),
    ],
)
def test_fields_out_of_range(changes, message):
    with pytest.raises(InvalidFieldError, match=message):
        dataclasses.replace(DATES, **changes)


def test_the_last_possible_year():
    assert dataclasses.replace(DATES, first_year=9999, last_year=9999).generate(LENGTH, Sizes(5, 5, 5)).length == LENGTH


def test_the_drawing_is_the_source_above_what_is_made_of_it(sizes):
    dataset = DATES.generate(LENGTH, sizes)
    first, second = DATES.draw(dataset).split("\n\n")[0].splitlines()
    iso = isos(dataset.splits["train"].targets[:1])[0]
    assert first.startswith(iso)
    text = "".join(DATES.vocabulary().decode(dataset.splits["train"].inputs[0]))
    assert "".join(first.removeprefix(iso).split()) == text.replace(" ", "")
    assert second.split()[:3] == ["made", "of", "it"]
    assert set("".join(second.split()[3:])) == set(iso) - {"-"}
