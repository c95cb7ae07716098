"""Labelled and tagged sequences are those of their files, read again here by csv, numpy and plain loops."""

from __future__ import annotations

import csv
import dataclasses
import itertools
import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from pipeline.config import Sizes
from pipeline.data import load_dataset, prepare_dataset, read_manifest
from pipeline.data.dataset import PAD, SPLITS, UNKNOWN, Dataset, unknown_shares
from pipeline.data.generator import Shares
from pipeline.data.labelled import Labelled, Tagged, in_order
from pipeline.errors import DatasetError

SHARES = Shares(train=0.6, validation=0.2, test=0.2)
SIZES = Sizes(1, 1, 1)
NOUNS, VERBS = ("cat", "dog", "cow", "hen", "fox"), ("sleeps", "eats", "runs", "sings")
SENTENCES = [f"the {noun} {verb}{end}" for noun in NOUNS for verb in VERBS for end in ("", " now", " not", " here")]


@pytest.fixture(autouse=True)
def _beside_the_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def write(rows: list[dict[str, object]], name: str = "a.csv") -> None:
    with Path(name).open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def read(name: str = "a.csv") -> list[dict[str, str]]:
    with Path(name).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def texts(**changes) -> Labelled:
    fields = {"data_file": "a.csv", "inputs": "text", "targets": "label", "unit": "word", "max_length": 4}
    return Labelled(**(fields | {"shares": SHARES} | changes))


def given(**changes) -> dict[str, object]:
    files = {"train_file": "a.csv", "validation_file": "b.csv", "test_file": "c.csv"}
    return {"data_file": None, "shares": None} | files | changes


def text_of(dataset: Dataset, ids: np.ndarray) -> str:
    return " ".join(dataset.input_tokens[i] for i in ids if i != PAD)


def pairs_of(dataset: Dataset, split: str) -> list[tuple[str, str]]:
    """The texts and the classes of a split, read off the arrays."""
    arrays = dataset.splits[split]
    answers = (dataset.target_tokens[i] for i in arrays.targets)
    return [(text_of(dataset, ids), answer) for ids, answer in zip(arrays.inputs, answers, strict=True)]


def entropy(names: list[str]) -> float:
    return -sum(n / len(names) * math.log(n / len(names)) for n in Counter(names).values())


# Texts with a class


def sentences(label=lambda i: "abc"[i % 3]) -> list[dict[str, object]]:
    return [{"label": label(i), "text": text} for i, text in enumerate(SENTENCES)]


def test_every_row_of_the_file_is_in_one_split_with_its_class():
    write(sentences())
    dataset = texts().generate(4, SIZES)
    found = [pair for split in SPLITS for pair in pairs_of(dataset, split)]
    assert sorted(found) == sorted((row["text"], row["label"]) for row in read())
    assert (dataset.input_kind, dataset.target_kind, dataset.target_at, dataset.output_size) == (
        *("token", "class", "last"),
        3,
    )
    assert dataset.splits["train"].inputs.shape == (48, 4)
    assert dataset.splits["train"].targets.shape == (48,)
    assert dataset.baseline_loss == pytest.approx(entropy([answer for _, answer in pairs_of(dataset, "train")]))
    assert dataset.baseline_name == "class frequencies"
    assert texts().generate(4, Sizes(9, 9, 9)).digest == dataset.digest
    assert texts(seed=1).generate(4, SIZES).digest != dataset.digest


def test_classes_are_divided_alike():
    write(sentences(lambda i: "rare" if i % 8 == 0 else "common"))
    for seed in range(5):
        dataset = texts(seed=seed).generate(4, SIZES)
        counts = [Counter(answer for _, answer in pairs_of(dataset, split)) for split in SPLITS]
        assert counts == [{"rare": 6, "common": 42}, {"rare": 2, "common": 14}, {"rare": 2, "common": 14}]


def test_texts_that_are_the_same_belong_to_one_split():
    write(sentences(lambda i: "ab"[i % 2]) * 3)
    for seed in range(5):
        dataset = texts(seed=seed).generate(4, SIZES)
        splits = [{text for text, _ in pairs_of(dataset, split)} for split in SPLITS]
        assert [len(split) for split in splits] == [48, 16, 16]
        assert len(set.union(*splits)) == 80
        assert sum(len(pairs_of(dataset, split)) for split in SPLITS) == 240


def test_texts_that_read_the_same_belong_to_one_split_and_are_counted():
    rows = [f"seen {often} {end}" for often in ("often", "always", "never", "soon") for end in "abcdefgh"]
    rows += [f"seen once{i} {'abcdefgh'[i % 8]}" for i in range(60)]
    write([{"label": "xy"[i % 2], "text": text} for i, text in enumerate(rows)])
    made = texts(min_count=2)
    dataset = made.generate(4, SIZES)
    splits = [{text for text, _ in pairs_of(dataset, split)} for split in SPLITS]
    assert set.union(*splits) == {*rows[:32], *(f"seen {UNKNOWN} {end}" for end in "abcdefgh")}
    assert sum(map(len, splits)) == 32 + 8
    num_moved, _, said = made.remarks()[-1].partition(" ")
    assert said == "moved to an earlier split, as their sequences read the same with <unk> in them"
    assert 0 < int(num_moved) <= 24


def test_a_group_is_whole_in_a_split_and_counts_as_what_most_of_it_is():
    rows = [row | {"who": f"p{i // 4}", "label": "ab"[i // 4 % 2]} for i, row in enumerate(sentences())]
    write([row | {"label": "b"} if i == 0 else row for i, row in enumerate(rows)])
    dataset = texts(group="who").generate(4, SIZES)
    who = {row["text"]: row["who"] for row in read()}
    groups = [Counter(who[text] for text, _ in pairs_of(dataset, split)) for split in SPLITS]
    assert [len(some) for some in groups] == [12, 4, 4]
    assert {*sum(groups, Counter()).values()} == {4}
    odd = [sum(int(name[1:]) % 2 for name in some) for some in groups]
    assert odd == [6, 2, 2]


def test_of_groups_what_reads_like_an_earlier_split_is_left_out_and_counted():
    own = [row | {"who": f"p{i // 4}"} for i, row in enumerate(sentences())]
    thanks = [{"who": f"p{i}", "label": "abc"[i % 3], "text": "thanks"} for i in range(20)]
    rare = [{"who": f"p{i}", "label": "abc"[i % 3], "text": f"dear x{i}"} for i in range(20)]
    write([*own, *thanks, *rare])
    made = texts(group="who", min_count=2)
    dataset = made.generate(4, SIZES)
    read = [{text for text, _ in pairs_of(dataset, split)} for split in SPLITS]
    assert sum(map(len, read)) == len(set.union(*read))
    assert read[0] >= {"thanks", f"dear {UNKNOWN}"}
    who = {row["text"]: row["who"] for row in own}
    groups = [{who[text] for text in some if text in who} for some in read]
    assert sum(map(len, groups)) == len(set.union(*groups)) == 20
    assert [len(dataset.splits[split].inputs) for split in SPLITS] == [
        6 * len(groups[0]),
        *(4 * len(some) for some in groups[1:]),
    ]
    left_out = "sequences left out, as they read like one of an earlier split"
    expected = [f"{2 * len(some)} {split} {left_out}" for some, split in zip(groups, SPLITS, strict=True)]
    assert made.remarks() == tuple(expected[1:])


def test_groups_that_leave_nothing_are_an_error():
    write([{"who": f"p{i}", "label": "ab"[i % 2], "text": "thanks"} for i in range(20)])
    with pytest.raises(DatasetError, match=r"all sequences of the validation split read like those of another split"):
        texts(group="who").generate(4, SIZES)


def test_given_splits_stay_as_they_are():
    rows = sentences()
    for name, some in (("a.csv", rows), ("b.csv", rows[:10]), ("c.csv", rows[70:])):
        write(some, name)
    dataset = texts(**given()).generate(4, SIZES)
    for split, name in zip(SPLITS, ("a.csv", "b.csv", "c.csv"), strict=True):
        assert pairs_of(dataset, split) == [(row["text"], row["label"]) for row in read(name)]


def test_words_are_those_that_training_has_often_enough():
    write([{"label": "ab"[i % 2], "text": text} for i, text in enumerate(["a a b", "b c", "a b c d", "d e"])])
    write([{"label": "a", "text": "a e"}, {"label": "b", "text": "f"}], "b.csv")
    write([{"label": "a", "text": "d ▯ <unk>"}], "c.csv")
    dataset = texts(**given(min_count=2)).generate(4, SIZES)
    counts = Counter(word for row in read() for word in row["text"].split())
    assert dataset.input_tokens == ("<pad>", "<sos>", "<eos>", UNKNOWN, *sorted(w for w, n in counts.items() if n >= 2))
    assert pairs_of(dataset, "train")[3] == ("d <unk>", "b")
    assert [text for text, _ in pairs_of(dataset, "validation")] == ["a <unk>", "<unk>"]
    assert [text for text, _ in pairs_of(dataset, "test")] == ["d <unk> <unk>"]
    shares = unknown_shares(dataset, dataset.splits)["inputs"]
    assert shares == pytest.approx({"train": 1 / 11, "validation": 2 / 3, "test": 2 / 3})


def test_characters_and_capitals():
    write([{"label": "ab"[i % 2], "text": "Ab c".replace("b", "bde"[i % 3])} for i in range(6)])
    write([{"label": "a", "text": " aB "}, {"label": "b", "text": "C"}], "b.csv")
    write([{"label": "a", "text": "b"}], "c.csv")
    dataset = texts(**given(unit="character", lower_case=True)).generate(4, SIZES)
    assert dataset.input_tokens[3:] == (UNKNOWN, " ", "a", "b", "c", "d", "e")
    assert [text for text, _ in pairs_of(dataset, "validation")] == ["a b", "c"]


def test_at_most_so_many_are_kept_in_order_and_the_rest_is_counted():
    write(sentences(lambda i: "ab"[i % 2]))
    whole, made = texts().generate(4, SIZES), texts(max_train=10, max_evaluated=5)
    some = made.generate(4, SIZES)
    for split, num in zip(SPLITS, (10, 5, 5), strict=True):
        kept, everything = pairs_of(some, split), pairs_of(whole, split)
        assert len(kept) == num
        places = [everything.index(pair) for pair in kept]
        assert places == sorted(places)
    left_out = [f"{num} {split} sequences left out, beyond" for num, split in zip((38, 11, 11), SPLITS, strict=True)]
    assert [remark.rsplit(" ", 2)[0] for remark in made.remarks()] == left_out


@pytest.mark.parametrize("kind", ["texts", "tagged"])
def test_the_vocabulary_is_that_of_what_is_trained_on(kind):
    lines = [f"seen {i} {end}" for i in range(200) for end in ("now", "here")]
    write([{"label": "ab"[i % 2], "text": text} for i, text in enumerate(lines)])
    content = conll(lines, lambda i, word: f"{word} {'AB'[i % 2]}")
    made = texts(max_train=20) if kind == "texts" else tagged(content, max_train=20)
    dataset = made.generate(4, SIZES)
    train = dataset.splits["train"].inputs
    assert len(train) == 20
    assert {*np.unique(train)} - {PAD} == {*range(4, len(dataset.input_tokens))}  # none but <unk> is never trained on
    read = [{text_of(dataset, row) for row in dataset.splits[split].inputs} for split in SPLITS]
    assert sum(map(len, read)) == len(set.union(*read))


def test_long_texts_are_left_out_by_choice_and_counted():
    write(sentences())
    made = texts(max_length=3, too_long="leave_out")
    dataset = made.generate(3, SIZES)
    found = sorted(pair for split in SPLITS for pair in pairs_of(dataset, split))
    assert found == sorted((row["text"], row["label"]) for row in read() if len(row["text"].split()) <= 3)
    assert made.remarks()[0] == "a.csv: 60 of 80 texts left out, longer than max_length 3"


def test_classes_that_are_numbers_are_in_order_of_size():
    write(sentences(lambda i: (10, 9, 2)[i % 3]))
    assert texts().generate(4, SIZES).target_tokens == ("2", "9", "10")


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["1.0", "01", "1", "0"], ["0", "01", "1", "1.0"]),
        ([str(2**63 - i) for i in range(3)], [str(2**63 - i) for i in (2, 1, 0)]),  # one number as float64
        (["10", "9", "nan", "NaN"], ["10", "9", "NaN", "nan"]),
        (["10", "9", "a"], ["10", "9", "a"]),
    ],
)
def test_classes_have_one_order_however_a_set_holds_them(names, expected):
    assert all(in_order(dict.fromkeys(some)) == expected for some in itertools.permutations(names))


def test_a_text_may_be_the_name_nan_and_be_nothing_as_programs_write_it():
    write(sentences(lambda i: ("Ann", "Nan")[i % 2]))
    assert texts().generate(4, SIZES).target_tokens == ("Ann", "Nan")
    for nothing in ("nan", "NaN", "NAN", ""):
        write(sentences(lambda i, nothing=nothing: ("Ann", nothing)[i % 2]))
        with pytest.raises(DatasetError, match="line 3, column 'label': expected a label, got nothing"):
            texts().generate(4, SIZES)


def test_a_field_of_a_table_may_be_long():
    limit = csv.field_size_limit()
    long = " ".join(["letters"] * 20_000)
    write([*sentences(), {"label": "a", "text": long}])
    assert len(long) > limit == csv.field_size_limit()
    made = texts(too_long="leave_out")
    assert made.generate(4, SIZES).splits["train"].inputs.shape == (48, 4)
    assert made.remarks() == ("a.csv: 1 of 81 texts left out, longer than max_length 4",)
    assert csv.field_size_limit() == limit


def test_parquet_is_the_csv():
    polars = pytest.importorskip("polars")
    write(sentences())
    polars.read_csv("a.csv").write_parquet("a.parquet")
    assert texts(data_file="a.parquet").generate(4, SIZES).digest == texts().generate(4, SIZES).digest


def test_what_is_loaded_is_what_was_generated(config_path):
    write(sentences())
    keys = "data_file: a.csv\ninputs: text\ntargets: label\nunit: word\nmax_length: 4\n"
    shares = "shares: {train: 0.6, validation: 0.2, test: 0.2}\n"
    prepare_dataset(
        "mine", config_path("mine", f"generator: labelled\n{keys}{shares}"), (), SIZES, Path("mine").absolute()
    )
    assert load_dataset(Path("mine"), None).digest == texts().generate(4, SIZES).digest
    preview = read_manifest(Path("mine")).variant(4).preview
    assert preview.classes["train"] == {"a": 16, "b": 16, "c": 16}
    assert preview.lengths["inputs"]["train"][2] == 4
    assert (preview.leaks, preview.leaks_of) == ({"validation": 0, "test": 0}, "sequences")


# Texts with a value


def test_values_are_scaled_by_what_training_says():
    write(sentences(lambda i: i * i / 7))
    made = texts(kind="value")
    dataset = made.generate(4, SIZES)
    value = {row["text"]: float(row["label"]) for row in read()}
    train = np.array([value[text_of(dataset, ids)] for ids in dataset.splits["train"].inputs])
    for split in SPLITS:
        arrays = dataset.splits[split]
        expected = [(value[text_of(dataset, ids)] - train.mean()) / train.std() for ids in arrays.inputs]
        np.testing.assert_allclose(arrays.targets[:, 0], expected, rtol=1e-6)
    assert (dataset.target_kind, dataset.output_size, dataset.baseline_name) == ("value", 1, "training mean")
    assert dataset.baseline_loss == pytest.approx(
        float((dataset.splits["test"].targets.astype(float) ** 2).mean()), 1e-6
    )
    assert made.source()["scaling"] == {"label": {"minus": train.mean(), "divided_by": train.std()}}
    assert texts(kind="value", scaling="none").generate(4, SIZES).splits["train"].targets.max() == np.float32(
        train.max()
    )


# Numbers


def numbers(num: int = 40, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(3.0, 2.0, (num, 6, 2)), np.arange(num) % 2


def of_npz(**changes) -> Labelled:
    return Labelled(**({"data_file": "a.npz", "inputs": "x", "targets": "y", "shares": SHARES} | changes))


def test_numbers_are_scaled_by_the_timesteps_of_training_and_stand_at_the_end():
    x, y = numbers()
    lengths = np.arange(len(x)) % 5 + 2
    for i, length in enumerate(lengths):
        x[i, length:] = np.nan  # what is not there is never looked at
    x[:, 0, 0] = np.arange(len(x))  # tells the rows apart
    np.savez("a.npz", x=x, y=y, n=lengths)
    made = of_npz(lengths="n")
    dataset = made.generate(6, SIZES)
    scale = made.source()["scaling"]["x"]
    rows = {}
    for split in SPLITS:
        for inputs, target in zip(dataset.splits[split].inputs, dataset.splits[split].targets, strict=True):
            there = inputs[:, 2] == 1
            row = round(float(inputs[there][0, 0] * scale["divided_by"][0] + scale["minus"][0]))
            rows.setdefault(split, []).append(row)
            assert there.tolist() == [t >= 6 - lengths[row] for t in range(6)]
            assert not inputs[~there].any()
            expected = (x[row, : lengths[row]] - scale["minus"]) / scale["divided_by"]
            np.testing.assert_allclose(inputs[there, :2], expected, atol=1e-5)
            assert dataset.target_tokens[target] == str(y[row])
    train = np.concatenate([x[row, : lengths[row]] for row in rows["train"]])
    np.testing.assert_allclose(scale["minus"], train.mean(axis=0))
    np.testing.assert_allclose(scale["divided_by"], train.std(axis=0))
    assert sorted(sum(rows.values(), [])) == list(range(40))
    assert made.remarks() == ("shorter sequences stand behind zeros; input 3 is 1 where a timestep is there",)
    assert made.natural_length == 6


def test_numbers_of_one_length_have_no_further_input():
    x, y = numbers()
    np.savez("a.npz", x=x[..., 0], y=np.array(["no", "yes"])[y])
    dataset = of_npz(scaling="none").generate(6, SIZES)
    assert dataset.splits["train"].inputs.shape == (24, 6, 1)
    assert dataset.target_tokens == ("no", "yes")
    found = {row.tobytes() for split in SPLITS for row in dataset.splits[split].inputs}
    assert found == {row.tobytes() for row in x[..., :1].astype(np.float32)}


def test_sequences_of_numbers_that_are_the_same_belong_to_one_split():
    x, y = numbers()
    np.savez("a.npz", x=np.repeat(x, 2, axis=0), y=np.repeat(y, 2))
    dataset = of_npz().generate(6, SIZES)
    rows = [{row.tobytes() for row in dataset.splits[split].inputs} for split in SPLITS]
    assert [len(some) for some in rows] == [24, 8, 8]
    assert len(set.union(*rows)) == 40


def test_of_groups_of_numbers_what_is_in_an_earlier_split_is_left_out_and_counted():
    x, y = numbers()
    who = np.array([f"p{i}" for i in range(40)])
    shared = np.zeros_like(x)
    np.savez("a.npz", x=np.concatenate([x, shared]), y=np.append(y, y), who=np.append(who, who))
    made = of_npz(group="who")
    dataset = made.generate(6, SIZES)
    rows = [[row.tobytes() for row in dataset.splits[split].inputs] for split in SPLITS]
    assert len(set.union(*map(set, rows))) == sum(len({*some}) for some in rows) == 41
    assert [remark.split(" left out")[0] for remark in made.remarks()] == ["8 validation sequences", "8 test sequences"]


# Tagged words

TAGS = {**dict.fromkeys(NOUNS, "N"), **dict.fromkeys(VERBS, "V"), "the": "D"}


def conll(lines: list[str] = SENTENCES, row=lambda i, word: f"{word} {TAGS.get(word, 'A')}") -> str:
    return "".join("".join(f"{row(i, word)}\n" for i, word in enumerate(text.split())) + "\n" for text in lines)


def tagged(content: str = "", **changes) -> Tagged:
    if content:
        Path("a.conll").write_text(content, encoding="utf-8")
    return Tagged(**({"data_file": "a.conll", "max_length": 4, "shares": SHARES} | changes))


def sentences_of(dataset: Dataset, split: str) -> list[list[tuple[str, str]]]:
    arrays = dataset.splits[split]
    assert ((arrays.inputs == PAD) == (arrays.targets == PAD)).all()
    return [
        [(dataset.input_tokens[i], dataset.target_tokens[t]) for i, t in zip(*row, strict=True) if i != PAD]
        for row in zip(arrays.inputs, arrays.targets, strict=True)
    ]


def expected(lines: list[str] = SENTENCES) -> list[list[tuple[str, str]]]:
    return sorted([(word, TAGS.get(word, "A")) for word in text.split()] for text in lines)


def test_every_sentence_is_in_one_split_with_its_tags():
    dataset = tagged(conll()).generate(4, SIZES)
    found = [sentence for split in SPLITS for sentence in sentences_of(dataset, split)]
    assert sorted(found) == expected()
    assert [len(dataset.splits[split].inputs) for split in SPLITS] == [48, 16, 16]
    assert dataset.target_tokens == ("<pad>", "A", "D", "N", "V")
    assert (dataset.target_at, dataset.padded, dataset.output_size) == ("every", True, 5)
    train = [tag for sentence in sentences_of(dataset, "train") for _, tag in sentence]
    assert dataset.baseline_loss == pytest.approx(entropy(train))
    assert dataset.splits["train"].inputs[0].tolist().count(PAD) in {0, 1}


def test_sentences_that_are_the_same_belong_to_one_split():
    dataset = tagged(conll(SENTENCES * 2)).generate(4, SIZES)
    splits = [{tuple(sentence) for sentence in sentences_of(dataset, split)} for split in SPLITS]
    assert sum(map(len, splits)) == len(set.union(*splits)) == 80


@pytest.mark.parametrize(
    ("row", "changes"),
    [
        (lambda i, word: f"{word}\t{TAGS.get(word, 'A')}", {}),
        (lambda i, word: f"{word} x O {TAGS.get(word, 'A')}", {}),
        (lambda i, word: f"{TAGS.get(word, 'A')} {word}", {"word_column": 2, "tag_column": 1}),
        (lambda i, word: f"{i + 1}\t{word}\t_\t{TAGS.get(word, 'A')}\t_", {"word_column": 2, "tag_column": 4}),
    ],
)
def test_which_columns(row, changes):
    dataset = tagged(conll(row=row), **changes).generate(4, SIZES)
    assert sorted(sentence for split in SPLITS for sentence in sentences_of(dataset, split)) == expected()


def test_what_conll_u_has_besides_words_is_left_out_and_counted():
    content = conll(row=lambda i, word: f"{i + 1}\t{word}\t_\t{TAGS.get(word, 'A')}\t_")
    content = content.replace("1\tthe", "# text = x\n1-2\tthex\t_\t_\t_\n1\tthe").replace(
        "\n\n", "\n8.1\tthen\t_\t_\t_\n\n"
    )
    made = tagged(content, word_column=2, tag_column=4, comments=True)
    dataset = made.generate(4, SIZES)
    assert sorted(sentence for split in SPLITS for sentence in sentences_of(dataset, split)) == expected()
    assert made.remarks() == ("a.conll: 160 lines left out, ranges of words or empty nodes",)


def test_what_is_no_sentence_or_too_long_is_counted():
    content = "-DOCSTART- -X-\n\n" + conll() + "-DOCSTART- -X-\n\n"
    made = tagged(content, max_length=3, too_long="leave_out")
    dataset = made.generate(3, SIZES)
    short = [text for text in SENTENCES if len(text.split()) <= 3]
    assert sorted(sentence for split in SPLITS for sentence in sentences_of(dataset, split)) == expected(short)
    assert made.remarks() == (
        "a.conll: 60 sentences left out, longer than max_length 3",
        "a.conll: 2 sentences left out, -DOCSTART- alone",
    )


def test_rare_words_are_unknown_and_keep_their_tags():
    files = given(train_file="a.conll", validation_file="b.conll", test_file="c.conll", min_count=2)
    Path("b.conll").write_text("the D\nram N\n\n")
    Path("c.conll").write_text("fox N\nruns V\n")
    dataset = tagged("the D\nfox N\nruns V\n\nthe D\nowl N\nruns V\n", **files).generate(4, SIZES)
    assert dataset.input_tokens[3:] == (UNKNOWN, "runs", "the")
    assert sentences_of(dataset, "train")[1] == [("the", "D"), (UNKNOWN, "N"), ("runs", "V")]
    assert sentences_of(dataset, "validation") == [[("the", "D"), (UNKNOWN, "N")]]
    assert sentences_of(dataset, "test") == [[(UNKNOWN, "N"), ("runs", "V")]]


def test_the_drawing_has_tags_under_words():
    made = tagged(conll(["the cat sleeps"] * 3 + SENTENCES))
    drawn = made.draw(made.generate(4, SIZES)).split("\n\n")[0].splitlines()
    words, tags = (line.split()[1:] for line in drawn)
    assert [TAGS.get(word, "A") for word in words] == tags
    assert [line.split()[0] for line in drawn] == ["word", "tag"]


def test_the_same_again_and_another_seed():
    made = tagged(conll())
    assert made.generate(4, SIZES).digest == tagged().generate(4, Sizes(9, 9, 9)).digest
    assert dataclasses.replace(made, seed=1).generate(4, SIZES).digest != made.generate(4, SIZES).digest
