"""Pairs are those of the user's files, no source is in two splits, and every mistake is named with file and line."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import re
from pathlib import Path

import numpy as np
import pytest

from pipeline.config import InvalidFieldError, Sizes
from pipeline.data import describe, load_dataset, prepare_dataset, read_generator, read_manifest
from pipeline.data.dataset import EOS, PAD, SPLITS, unknown_id
from pipeline.data.generator import Shares
from pipeline.data.pairs import Pair, Pairs
from pipeline.data.preview import shared_inputs
from pipeline.data.vocabulary import unigram_entropy
from pipeline.errors import ConfigError, DatasetError

SHARES = Shares(train=0.6, validation=0.2, test=0.2)
SIZES = Sizes(1, 1, 1)
ONES = ("", "i", "ii", "iii", "iv", "v", "vi", "vii", "viii", "ix")
ROMAN = {"x" * (number // 10) + ONES[number % 10]: str(number) for number in range(1, 40)}


@pytest.fixture(autouse=True)
def _beside_the_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def pairs(file, *, unit="word", max_length=9, min_count=0, **changes) -> Pairs:
    fields = {"data_file": file, "unit": unit, "max_length": max_length, "min_count": min_count, "shares": SHARES}
    return Pairs(**(fields | {"max_evaluated": None} | changes))


def of_tsv(content: str | bytes, unit="character", **changes) -> Pairs:
    Path("pairs.tsv").write_bytes(content if isinstance(content, bytes) else content.encode())
    return pairs("pairs.tsv", unit=unit, **changes)


def of_two_files(source: str, target: str) -> Pairs:
    Path("a.fr").write_text(source, encoding="utf-8")
    Path("a.en").write_text(target, encoding="utf-8")
    return pairs(["a.fr", "a.en"])


def read(made: Pairs) -> list[Pair]:
    return made.read(made.paths("data_file"))


def pairs_of(dataset, split: str) -> list[tuple[str, str]]:
    """The texts of a split, read off the arrays."""
    arrays, tokens = dataset.splits[split], (dataset.input_tokens, dataset.target_tokens)
    return [
        tuple("".join(tokens[side][i] for i in row if i > EOS) for side, row in enumerate(rows))
        for rows in zip(arrays.inputs, arrays.targets, strict=True)
    ]


def tsv(pairs: dict[str, str]) -> str:
    return "".join(f"{source}\t{target}\n" for source, target in pairs.items())


def test_the_pairs_are_those_of_the_file_each_in_one_split():
    dataset = of_tsv(tsv(ROMAN)).generate(9, SIZES)
    found = [pair for split in SPLITS for pair in pairs_of(dataset, split)]
    assert sorted(found) == sorted(ROMAN.items())
    assert [len(dataset.splits[split].inputs) for split in SPLITS] == [23, 8, 8]


def test_arrays_are_filled_up_to_the_longest_and_targets_end():
    dataset = of_tsv(tsv(ROMAN)).generate(9, SIZES)
    for split in dataset.splits.values():
        assert (split.inputs.shape[1], split.targets.shape[1]) == (7, 3)
        assert split.inputs.dtype == split.targets.dtype == np.uint8
        assert split.alignment is None
        for row in split.targets.tolist():
            text, end = row[: row.index(EOS)], row[row.index(EOS) + 1 :]
            assert min(text) > EOS
            assert set(end) <= {0}


def test_the_task_says_what_the_arrays_are():
    dataset = of_tsv(tsv(ROMAN)).generate(9, SIZES)
    assert (dataset.input_kind, dataset.target_kind, dataset.target_at) == ("token", "class", "sequence")
    assert (dataset.length, dataset.num_timesteps, dataset.padded) == (9, 7, True)
    assert dataset.input_tokens == ("<pad>", "<sos>", "<eos>", "i", "v", "x")
    assert dataset.target_tokens == ("<pad>", "<sos>", "<eos>", *"0123456789")
    assert (dataset.input_size, dataset.output_size) == (6, 13)
    targets = dataset.splits["train"].targets
    assert (dataset.baseline_loss, dataset.baseline_name) == (unigram_entropy(targets[targets > 0]), "unigram")


def test_two_files_of_words():
    source = "".join(f"le {word}  noir\n" for word in ["chat"] * 3 + ["chien"] * 2 + ["ours"])
    lines = read(of_two_files(source, source.replace("noir", "black").replace("le", "the")))
    assert (lines[0].source, lines[5].target) == (("le", "chat", "noir"), ("the", "ours", "black"))
    assert (lines[5].where, lines[5].target_where) == (f"{Path('a.fr')}, line 6", f"{Path('a.en')}, line 6")


def test_marks_of_other_systems_and_outer_white_space_do_not_count():
    content = "\ufeffun deux\t 1 2 \r\ntrois\t3\r\nquatre\u2028\t4".encode()
    found = read(of_tsv(content))
    assert [("".join(pair.source), "".join(pair.target)) for pair in found] == [
        ("un deux", "1 2"),
        ("trois", "3"),
        ("quatre", "4"),
    ]


def test_pairs_with_the_same_source_stay_together():
    content = "".join(f"{source}\t{target}\n" for source in ROMAN for target in ("a", "b", "a"))
    dataset = of_tsv(content).generate(9, SIZES)
    sources = {split: {source for source, _ in pairs_of(dataset, split)} for split in SPLITS}
    assert [len(sources[split]) for split in SPLITS] == [23, 8, 8]
    assert [len(dataset.splits[split].inputs) for split in SPLITS] == [69, 24, 24]
    assert set.union(*sources.values()) == set(ROMAN)


def test_the_same_again_and_another_seed():
    text = of_tsv(tsv(ROMAN))
    other = pairs("pairs.tsv", unit="character", seed=3)
    assert text.generate(9, SIZES).digest == text.generate(9, Sizes(7, 7, 7)).digest != other.generate(9, SIZES).digest


def test_the_source_is_the_checksum_of_every_file():
    files = of_two_files("un\n", "one\n").source()["files"]
    assert files == {file: hashlib.sha256(Path(file).read_bytes()).hexdigest() for file in ("a.fr", "a.en")}


def test_the_drawing_is_the_text():
    text = of_tsv(tsv(ROMAN))
    dataset = text.generate(9, SIZES)
    drawn = [[line.split()[1] for line in pair.splitlines()] for pair in text.draw(dataset).split("\n\n")]
    assert drawn == [list(pair) for pair in pairs_of(dataset, "train")[:5]]


def test_a_missing_file_and_the_nearest_beside_it():
    of_tsv(tsv(ROMAN))
    missing = pairs("pair.tsv")
    with pytest.raises(DatasetError, match=r"pair.tsv: no such file; unknown file .* did you mean 'pairs.tsv'"):
        missing.generate(9, SIZES)
    with pytest.raises(DatasetError, match="pair.tsv: no such file"):
        missing.source()


def test_a_folder_instead_of_a_file(tmp_path):
    folder = pairs(str(tmp_path))
    with pytest.raises(DatasetError, match=f"{tmp_path}: expected a file, got a folder"):
        read(folder)


def test_files_with_different_numbers_of_lines():
    with pytest.raises(DatasetError, match=r"a.fr has 2 lines, a.en has 3; expected as many in both"):
        read(of_two_files("un\ndeux\n", "one\ntwo\nthree\n"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("i\t1\n \t2\n", r"pairs.tsv, line 2: the source is empty; expected at least one character"),
        ("i\t1\nv\t\n", r"pairs.tsv, line 2: the target is empty; expected at least one character"),
        ("i\t1\nv\t1234567890\n", r"pairs.tsv, line 2: the target has 10 characters, more than max_length 9"),
        ("i\t1\nv\n", r"pairs.tsv, line 2: expected two columns, source and target with a tab between, got 1"),
        ("i\t1\tone\n", r"pairs.tsv, line 1: expected two columns, source and target with a tab between, got 3"),
        ("", r"pairs.tsv: expected text, got an empty file"),
        (b"i\t1\nv\t\xff\n", r"pairs.tsv, line 2: not UTF-8 text \(invalid start byte at byte 6\); `iconv"),
        ("i\t1\rv\t5\r", r"pairs.tsv, line 1: expected lines that end with a line feed, got stray carriage ret.*`tr"),
        ("i\t1\r\nv\t5\rx\t10\n", r"pairs.tsv, line 2: expected lines that end with a line feed"),
        ("\ufeff \n\n", r"pairs.tsv: expected text, got an empty file"),
    ],
)
def test_lines_that_are_no_pairs(content, message):
    with pytest.raises(DatasetError, match=message):
        of_tsv(content).generate(9, SIZES)


def test_an_empty_line_in_one_of_two_files():
    with pytest.raises(DatasetError, match=r"a.en, line 2: the target is empty; expected at least one word"):
        read(of_two_files("un\ndeux\n", "one\n\n"))


def test_too_few_sources_for_three_splits():
    with pytest.raises(DatasetError, match=r"pairs.tsv: 2 different sources, too few for a share of 0.\d; \w+ needs"):
        of_tsv("i\t1\nv\t5\ni\t2\ni\t3\n").generate(9, SIZES)


NAMED = {f"the word {chr(97 + i)}" + " again" * j: f"das {i}" for i in range(8) for j in range(4)}
"""Thirty-two sources, every letter in four of them."""


def test_rare_words_are_one_token():
    rare = {f"{source} x{i}": target for i, (source, target) in enumerate(NAMED.items())}
    dataset = of_tsv(tsv(rare), unit="word", min_count=2).generate(9, SIZES)
    assert dataset.input_tokens[3:6] == ("<unk>", "a", "again")
    assert not any(token.startswith("x") for token in dataset.input_tokens)
    for split in dataset.splits.values():
        last = split.inputs[np.arange(len(split.inputs)), (split.inputs > 0).sum(axis=1) - 1]
        assert (last == 3).all()


def sources_read(dataset) -> dict[str, set[tuple[int, ...]]]:
    return {split: {*map(tuple, dataset.splits[split].inputs.tolist())} for split in SPLITS}


@pytest.mark.parametrize("seed", range(4))
def test_no_source_is_in_two_splits_once_rare_tokens_are_unknown(seed: int):
    rare = {f"the {chr(97 + i)} x{i}{j}": f"das {i}" for i in range(9) for j in range(3)} | NAMED
    text = of_tsv(tsv(rare), unit="word", min_count=2, seed=seed)
    dataset = text.generate(9, SIZES)
    read = sources_read(dataset)
    assert sum(map(len, read.values())) == len(set.union(*read.values()))
    assert sum(len(dataset.splits[split].inputs) for split in SPLITS) == len(rare)
    counts = [len(part) for part in text.divide(text.read, lambda pair: pair.source).values()]
    num_moved = int(re.match(r"(\d+) moved to an earlier split", text.remarks()[0])[1])
    assert num_moved >= len(dataset.splits["train"].inputs) - counts[0] > 0


def test_no_source_is_in_two_splits_once_letters_are_composed():
    content = "".join(f"{accented}{source}\t1\n" for source in ROMAN for accented in ("\u00ee", "i\u0302"))
    dataset = of_tsv(content).generate(9, SIZES)
    read = sources_read(dataset)
    assert [len(read[split]) for split in SPLITS] == [23, 8, 8]
    assert sum(map(len, read.values())) == len(set.union(*read.values())) == len(ROMAN)
    assert "\u00ee" in dataset.input_tokens
    assert "\u0302" not in dataset.input_tokens


def test_a_split_of_which_nothing_is_left_once_rare_tokens_are_unknown():
    text = of_tsv(tsv({f"the word {chr(97 + i)}": f"das {i}" for i in range(20)}), unit="word", min_count=2)
    with pytest.raises(
        DatasetError, match=r"all sources of the validation split read like those of another .*lower min"
    ):
        text.generate(9, SIZES)


@pytest.mark.parametrize("min_count", [0, 1, 3])
@pytest.mark.parametrize("mark", ["<unk>", "▯"])
def test_a_texts_own_unknown_token_is_the_unknown_token(min_count: int, mark: str):
    own = {f"{mark} {source}": f"{target} {mark}" for source, target in NAMED.items()}
    dataset = of_tsv(tsv(own), unit="word", min_count=min_count).generate(9, SIZES)
    for tokens in (dataset.input_tokens, dataset.target_tokens):
        assert tokens[3] == "<unk>"
        assert tokens.count("<unk>") == 1
        assert "▯" not in tokens
    assert unknown_id(dataset.target_tokens) == 3
    for split in dataset.splits.values():
        assert (split.inputs[:, 0] == 3).all()
        assert (split.targets[:, 2] == 3).all()


def test_a_min_count_above_every_count_leaves_no_vocabulary():
    text = of_tsv(tsv(NAMED), unit="word", min_count=10**6)
    with pytest.raises(
        DatasetError, match=r"sources of .* expected a token that occurs min_count 1000000 times, got <unk>"
    ):
        text.generate(9, SIZES)


def test_a_text_of_unknown_tokens_alone():
    text = of_tsv(tsv({f"{i} a": "<unk>" for i in range(9)}), unit="word", min_count=0)
    with pytest.raises(DatasetError, match=r"targets of the training split: expected any other token, got <unk> alone"):
        text.generate(9, SIZES)


def test_the_share_of_unknown_tokens_is_that_of_the_texts(config_path, tmp_path):
    of_tsv(tsv({f"{source} <unk>": f"{target}" for source, target in NAMED.items()}))
    prepare_dataset("mine", config_path("mine", FIELDS + "unit: word\n"), (), SIZES, tmp_path / "mine")
    (variant,) = read_manifest(tmp_path / "mine").variants.values()
    parts = of_tsv(Path("pairs.tsv").read_bytes(), unit="word").division.parts
    expected = {split: len(pairs) / sum(len(pair.source) for pair in pairs) for split, pairs in parts.items()}
    assert variant.unknown_shares == {"inputs": pytest.approx(expected)}
    said = ", ".join(f"{100 * share:.2g} % of {split}" for split, share in expected.items())
    assert read_manifest(tmp_path / "mine").remarks == (f"length 9, unknown tokens among the inputs: {said}",)


def test_more_pairs_to_evaluate_on_than_asked_are_left_out_and_counted():
    every, some = of_tsv(tsv(ROMAN)), of_tsv(tsv(ROMAN), max_evaluated=3)
    all_of, kept = every.generate(9, SIZES), some.generate(9, SIZES)
    assert [len(kept.splits[split].inputs) for split in SPLITS] == [23, 3, 3]
    assert pairs_of(kept, "train") == pairs_of(all_of, "train")
    assert {*pairs_of(kept, "test")} < {*pairs_of(all_of, "test")}
    left_out = "pairs left out, beyond max_evaluated 3"
    assert some.remarks() == (f"5 validation {left_out}", f"5 test {left_out}")
    assert every.remarks() == ()


def test_an_evaluation_of_nothing():
    with pytest.raises(InvalidFieldError, match="max_evaluated: expected an integer of at least 1, or null, got 0"):
        of_tsv(tsv(ROMAN), max_evaluated=0)


def test_a_token_that_training_lacks():
    text = of_tsv(tsv({f"a{i}": "x" for i in range(5)}), unit="word")
    message = r"line (\d): in the validation split, with a token that the training split lacks: 'a(\d)'"
    with pytest.raises(DatasetError, match=f"pairs.tsv, {message}; leave it out, or set min") as got:
        text.generate(9, SIZES)
    line, number = map(int, re.search(message, str(got.value)).groups())
    assert number == line - 1


def of_characters(num: int) -> Pairs:
    """Sources of `num` different characters, each of them in every source."""
    alphabet = "".join(chr(0x4E00 + i) for i in range(num))
    return of_tsv(tsv({alphabet + alphabet[:i]: "1" for i in range(9)}), max_length=300)


@pytest.mark.parametrize(("num", "dtype"), [(253, np.uint8), (254, np.int16)])
def test_more_characters_than_a_byte_can_tell_apart(num: int, dtype: type):
    split = of_characters(num).generate(300, SIZES).splits["test"]
    assert split.inputs.dtype == dtype
    assert split.inputs.max() == num + 2
    assert split.targets.dtype == np.uint8


def test_a_word_that_is_a_special_token():
    text = of_tsv(tsv({f"a {'a ' * i}": "x" for i in range(5)} | {"b <pad>": "y"}), unit="word", min_count=2)
    with pytest.raises(
        DatasetError, match=r"pairs.tsv, line 6: the source has the word '<pad>', which the network reads"
    ):
        text.generate(9, SIZES)


def test_another_length_than_max_length():
    with pytest.raises(DatasetError, match=r"'pairs': length 8 is impossible; .* write null \(or 9\)"):
        of_tsv(tsv(ROMAN)).generate(8, SIZES)


def test_a_length_without_a_token():
    with pytest.raises(InvalidFieldError, match="max_length: expected an integer from 1 to 100000, got 0"):
        of_tsv(tsv(ROMAN), max_length=0)


@pytest.mark.parametrize("file", [None, "", [], ["a", "b", "c"], 7, ["a", 7]])
def test_neither_one_file_nor_two(file):
    with pytest.raises(
        InvalidFieldError, match="data_file: expected (the path of a file, or a list of 2|either data_f)"
    ):
        pairs(file)


def given_splits(**changes) -> Pairs:
    for split, some in zip(("train", "valid", "test"), ("abc", "ab", "ad"), strict=True):
        Path(f"{split}.tsv").write_text("".join(f"the {word}\tdas {word}\tCC-BY\n" for word in some))
    files = {"train_file": "train.tsv", "validation_file": "valid.tsv", "test_file": "test.tsv"}
    return pairs(None, **({"shares": None, "columns": [1, 2], "min_count": 1} | files | changes))


def test_given_splits_stay_as_they_are_and_leaks_are_counted(config_path, tmp_path):
    made = given_splits().generate(9, SIZES)
    assert pairs_of(made, "validation") == [("thea", "dasa"), ("theb", "dasb")]
    assert pairs_of(made, "test") == [("thea", "dasa"), ("the<unk>", "das<unk>")]
    assert shared_inputs(made.splits) == {"validation": 2, "test": 1}
    files = "train_file: train.tsv\nvalidation_file: valid.tsv\ntest_file: test.tsv\ncolumns: [1, 2]\nmax_length: 9\n"
    prepare_dataset("mine", config_path("mine", "generator: pairs\n" + files), (), SIZES, tmp_path / "mine")
    preview = read_manifest(tmp_path / "mine").variant(9).preview
    assert (preview.leaks, preview.vocabulary) == ({"validation": 2, "test": 1}, {"inputs": 5, "targets": 5})
    assert list(describe(preview))[-1].startswith(
        "leak check: 2 validation sequences and 1 test sequences are in train"
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shares": SHARES}, "shares: expected null, as every split has its own file"),
        ({"test_file": None}, "test_file: expected a file, as the other splits have one"),
        ({"data_file": "pairs.tsv"}, "data_file: expected either data_file alone, or train_file, validation_file and"),
        ({"columns": [1, 1]}, "columns: expected two different columns, from 1"),
        ({"columns": [0, 1]}, "columns: expected two different columns, from 1"),
        ({"max_train": 0}, "max_train: expected an integer of at least 1, or null, got 0"),
    ],
)
def test_splits_that_are_neither_given_nor_divided(changes, message):
    with pytest.raises(InvalidFieldError, match=message):
        given_splits(**changes)


def test_which_of_three_columns():
    content = "".join(f"{source}\t{target}\tCC-BY 2.0 (France)\n" for source, target in ROMAN.items())
    dataset = of_tsv(content, columns=[2, 1]).generate(9, SIZES)
    found = [pair[::-1] for split in SPLITS for pair in pairs_of(dataset, split)]
    assert sorted(found) == sorted(ROMAN.items())
    with pytest.raises(DatasetError, match=r"pairs.tsv, line 2: expected 2 columns with tabs between, got 1: 'c'"):
        of_tsv("a\tb\nc\n", columns=[1, 2]).generate(9, SIZES)


def test_over_long_pairs_are_left_out_by_choice_and_counted():
    made = of_tsv(tsv(dict.fromkeys(ROMAN, "1")), max_length=4, too_long="leave_out")
    found = [pair for split in SPLITS for pair in pairs_of(made.generate(4, SIZES), split)]
    kept = [(source, "1") for source in ROMAN if len(source) <= 4]
    assert sorted(found) == sorted(kept)
    assert made.remarks() == (f"pairs.tsv: {39 - len(kept)} of 39 pairs left out, longer than max_length 4",)
    with pytest.raises(
        DatasetError, match=r"line 18: the source has 5 .* more than max_length 4; raise it, or write too"
    ):
        of_tsv(tsv(ROMAN), max_length=4).generate(4, SIZES)
    with pytest.raises(DatasetError, match="pairs.tsv: every pair is longer than max_length 1; raise it"):
        of_tsv("aa\tb\n", max_length=1, too_long="leave_out").generate(1, SIZES)


def test_capitals_count_by_choice():
    capital = {source.upper(): target for source, target in ROMAN.items()}
    assert of_tsv(tsv(capital), lower_case=True).generate(9, SIZES).input_tokens[3:] == ("i", "v", "x")
    assert of_tsv(tsv(capital)).generate(9, SIZES).input_tokens[3:] == ("I", "V", "X")


def test_at_most_so_many_to_train_on():
    made = of_tsv(tsv(ROMAN), max_train=5, min_count=1)
    dataset = made.generate(9, SIZES)
    assert [len(split.inputs) for split in dataset.splits.values()] == [5, 8, 8]
    assert made.remarks() == ("18 train pairs left out, beyond max_train 5",)
    train = dataset.splits["train"]
    for ids, tokens in ((train.inputs, dataset.input_tokens), (train.targets, dataset.target_tokens)):
        assert {*np.unique(ids)} - {PAD, EOS} == {*range(4, len(tokens))}  # none but what is trained on and <unk>
    with pytest.raises(DatasetError, match=r"token that the training split lacks: .*; leave it out, .*raise max_train"):
        of_tsv(tsv(ROMAN), max_train=5).generate(9, SIZES)


def test_what_moves_to_training_is_left_out_beyond_max_train():
    lines = {f"{one} {two} x{i}": "a" for i, (one, two) in enumerate(itertools.product("abcdef", repeat=2))}
    lines |= {f"{source}y": target for source, target in lines.items()}  # reads the same, as every last word is rare
    made = of_tsv(tsv(lines), unit="word", max_train=20, min_count=2)
    dataset = made.generate(9, SIZES)
    assert len(dataset.splits["train"].inputs) == 20
    read = sources_read(dataset)
    assert sum(map(len, read.values())) == len(set.union(*read.values()))
    capped, moved, beyond = made.remarks()
    assert capped == "23 train pairs left out, beyond max_train 20"
    assert int(moved.split()[0]) >= int(beyond.split()[0]) > 0
    assert beyond.endswith("of those that moved left out, beyond max_train 20")
    assert sum(len(split.inputs) for split in dataset.splits.values()) == 72 - 23 - int(beyond.split()[0])


FIELDS = (
    "generator: pairs\nseed: 0\ndata_file: pairs.tsv\n"
    "max_length: 9\nmin_count: 0\nmax_evaluated: null\nshares: {train: 0.6, validation: 0.2, test: 0.2}\n"
)


def test_what_is_loaded_is_what_was_generated(config_path, tmp_path):
    made = of_tsv(tsv(ROMAN)).generate(9, SIZES)
    prepare_dataset("mine", config_path("mine", FIELDS + "unit: character\n"), (), SIZES, tmp_path / "mine")
    loaded = load_dataset(tmp_path / "mine", None)
    assert loaded == dataclasses.replace(made, name="mine", splits=loaded.splits)
    assert pairs_of(loaded, "test") == pairs_of(made, "test")


def test_relative_paths_begin_at_the_project_wherever_the_program_runs(config_path, tmp_path, monkeypatch):
    made = of_tsv(tsv(ROMAN)).generate(9, SIZES)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    generator = read_generator(config_path("mine", FIELDS + "unit: character\n"))
    assert generator.generate(9, SIZES).digest == made.digest
    assert list(generator.source()["files"]) == ["pairs.tsv"]


def test_an_unknown_unit(config_path):
    with pytest.raises(ConfigError, match=r"mine.yaml.unit: unknown value 'words'; did you mean 'word'"):
        read_generator(config_path("mine", FIELDS + "unit: words\n"))
