"""Images are those of their archive or folder, each in one split, with its class or its captions."""

from __future__ import annotations

import csv
import math
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest

from pipeline.config import Sizes
from pipeline.data import load_dataset, prepare_dataset, read_manifest
from pipeline.data.dataset import EOS, PAD, SPLITS, UNKNOWN, Dataset
from pipeline.data.generator import Shares
from pipeline.data.images import Images
from pipeline.errors import DatasetError

Image = pytest.importorskip("PIL.Image")

SHARES = Shares(train=0.6, validation=0.2, test=0.2)
SIZES = Sizes(1, 1, 1)
RNG = np.random.default_rng(0)
N, HEIGHT, WIDTH = 40, 3, 5
PIXELS = RNG.integers(0, 256, (N, HEIGHT, WIDTH), dtype=np.uint8)
LABELS = np.arange(N) % 4 // 3
"""A class of 30, and one of 10."""


@pytest.fixture(autouse=True)
def _beside_the_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def of_npz(pixels: np.ndarray = PIXELS, labels: np.ndarray = LABELS, **changes) -> Images:
    np.savez("a.npz", images=pixels, labels=labels)
    return Images(**({"data_file": "a.npz", "shares": SHARES} | changes))


def save(pixels: np.ndarray, path: str) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def of_folder(names: tuple[str, ...] = ("cat", "dog"), **changes) -> Images:
    for i, pixels in enumerate(PIXELS):
        save(pixels, f"pics/{names[LABELS[i]]}/{i:02d}.png")
    return Images(**({"image_folder": "pics", "shares": SHARES} | changes))


def found(dataset: Dataset, split: str) -> list[tuple[int, str]]:
    """Which of `PIXELS` each image of a split is, and its class."""
    known = {pixels.tobytes(): i for i, pixels in enumerate(PIXELS)}
    arrays = dataset.splits[split]
    images = np.rint(arrays.inputs.reshape(-1, HEIGHT, WIDTH) * 255).astype(np.uint8)
    answers = [dataset.target_tokens[i] for i in arrays.targets]
    return [(known[image.tobytes()], answer) for image, answer in zip(images, answers, strict=True)]


@pytest.mark.parametrize(("read_as", "shape"), [("pixels", (HEIGHT * WIDTH, 1)), ("rows", (HEIGHT, WIDTH))])
def test_every_image_is_in_one_split_with_its_class(read_as, shape):
    made = of_npz(read_as=read_as)
    dataset = made.generate(shape[0], SIZES)
    everything = [pair for split in SPLITS for pair in found(dataset, split)]
    assert sorted(everything) == [(i, str(label)) for i, label in enumerate(LABELS)]
    assert dataset.splits["train"].inputs.shape == (24, *shape)
    np.testing.assert_array_equal(
        dataset.splits["test"].inputs.reshape(8, HEIGHT, WIDTH),
        np.stack([PIXELS[i] for i, _ in found(dataset, "test")]).astype(np.float32) / 255,
    )
    assert made.natural_length == dataset.length == shape[0]
    assert (dataset.target_kind, dataset.target_at, dataset.output_size) == ("class", "last", 2)
    counts = Counter(answer for _, answer in found(dataset, "train"))
    assert counts == {"0": 18, "1": 6}
    assert dataset.baseline_loss == pytest.approx(-sum(n / 24 * math.log(n / 24) for n in counts.values()))


def test_classes_are_divided_alike_whatever_the_seed():
    for seed in range(5):
        dataset = of_npz(seed=seed).generate(HEIGHT * WIDTH, SIZES)
        counts = [Counter(answer for _, answer in found(dataset, split)) for split in SPLITS]
        assert counts == [{"0": 18, "1": 6}, {"0": 6, "1": 2}, {"0": 6, "1": 2}]


def test_images_that_are_the_same_belong_to_one_split():
    dataset = of_npz(np.repeat(PIXELS, 2, axis=0), np.repeat(LABELS, 2)).generate(HEIGHT * WIDTH, SIZES)
    splits = [Counter(i for i, _ in found(dataset, split)) for split in SPLITS]
    assert [len(split) for split in splits] == [24, 8, 8]
    assert {*sum(splits, Counter()).values()} == {2}


def test_at_most_so_many_are_kept_and_the_rest_is_counted():
    made = of_npz(max_train=7, max_evaluated=3)
    dataset, whole = made.generate(HEIGHT * WIDTH, SIZES), of_npz().generate(HEIGHT * WIDTH, SIZES)
    for split, num in zip(SPLITS, (7, 3, 3), strict=True):
        places = [found(whole, split).index(pair) for pair in found(dataset, split)]
        assert (len(places), places) == (num, sorted(places))
    left_out = ["17 train images", "5 validation images", "5 test images"]
    assert [remark.split(" left out")[0] for remark in made.remarks()] == left_out


def test_given_splits_stay_as_they_are():
    parts = {"a.npz": slice(20), "b.npz": slice(18, 30), "c.npz": slice(30, None)}
    for name, part in parts.items():
        np.savez(name, images=PIXELS[part], labels=LABELS[part])
    files = {"train_file": "a.npz", "validation_file": "b.npz", "test_file": "c.npz"}
    dataset = Images(**files).generate(HEIGHT * WIDTH, SIZES)
    for split, part in zip(SPLITS, parts.values(), strict=True):
        assert [i for i, _ in found(dataset, split)] == list(range(N))[part]
    assert of_npz().leaks(dataset) == {"validation": 2, "test": 0}


@pytest.mark.parametrize("pixels", [PIXELS.astype(np.int64), PIXELS / 255, (PIXELS / 255).astype(np.float32)])
def test_brightness_is_that_of_any_type(pixels):
    inputs, expected = (
        made.generate(HEIGHT * WIDTH, SIZES).splits["train"].inputs for made in (of_npz(pixels), of_npz())
    )
    np.testing.assert_allclose(inputs, expected, atol=1e-7)


# Of a folder


def test_a_folder_of_classes_is_the_archive(config_path):
    dataset = of_folder().generate(HEIGHT * WIDTH, SIZES)
    everything = [pair for split in SPLITS for pair in found(dataset, split)]
    assert sorted(everything) == [(i, ("cat", "dog")[label]) for i, label in enumerate(LABELS)]
    config = "generator: images\nimage_folder: pics\nshares: {train: 0.6, validation: 0.2, test: 0.2}\n"
    prepare_dataset("mine", config_path("mine", config), (), SIZES, Path("mine").absolute())
    assert load_dataset(Path("mine"), None).digest == dataset.digest
    manifest = read_manifest(Path("mine"))
    assert manifest.variant(15).preview.classes["train"] == {"cat": 18, "dog": 6}
    assert len(manifest.source["files"]) == N
    assert manifest.remarks == ()


def test_classes_may_be_links_to_folders_and_lead_back_to_themselves():
    expected = of_folder().generate(HEIGHT * WIDTH, SIZES).digest
    Path("pics/dog").rename("elsewhere")
    Path("pics/dog").symlink_to(Path("elsewhere").absolute())
    for link, to in (("pics/cat/up", ".."), ("elsewhere/here", ".")):
        Path(link).symlink_to(to)
    made = Images(image_folder="pics", shares=SHARES)
    assert made.generate(HEIGHT * WIDTH, SIZES).digest == expected
    assert len(made.source()["files"]) == N


def test_classes_are_the_folders_in_order():
    assert of_folder(("10", "9")).generate(HEIGHT * WIDTH, SIZES).target_tokens == ("9", "10")


def test_colours_are_read_in_shades_of_grey_and_other_files_are_counted():
    colours = RNG.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    made = of_folder(max_evaluated=None)
    save(colours, "pics/dog/0.png")
    for name in ("notes.txt", ".DS_Store"):
        Path("pics", name).write_text("no image")
    shown = next(one for one in made.read([Path("pics")]) if one.where == "pics/dog/0.png")
    expected = colours @ np.array([0.299, 0.587, 0.114]) / 255  # ITU-R 601
    np.testing.assert_allclose(shown.read, expected, atol=1.5 / 255)
    assert made.notes == [
        "pics: 2 files left out that are no images: .DS_Store, .txt",
        "coloured images are read in shades of grey",
    ]


def test_sixteen_bits_are_read_as_such():
    deep = RNG.integers(0, 65_536, (HEIGHT, WIDTH), dtype=np.uint16)
    save(deep, "pics/a/0.png")
    save(PIXELS[0], "pics/b/0.png")
    made = Images(image_folder="pics", shares=SHARES)
    shown = {one.answer: one.read for one in made.read([Path("pics")])}
    np.testing.assert_allclose(shown["a"], deep / 65_535, atol=1e-6)
    np.testing.assert_allclose(shown["b"], PIXELS[0] / 255, atol=1e-6)
    assert made.notes == []


def test_what_is_transparent_is_said():
    save(RNG.integers(0, 256, (HEIGHT, WIDTH, 4), dtype=np.uint8), "pics/a/0.png")
    made = Images(image_folder="pics", shares=SHARES)
    made.read([Path("pics")])
    assert made.notes[0] == "what is transparent in images is read by its colour"


def test_colours_of_a_palette_that_are_partly_transparent_are_read_by_their_colour():
    colours = RNG.integers(0, 256, (4, 3), dtype=np.uint8)
    places = RNG.integers(0, 4, (HEIGHT, WIDTH), dtype=np.uint8)
    image = Image.fromarray(places)
    image.putpalette(colours.ravel().tolist())
    Path("pics/a").mkdir(parents=True)
    image.save("pics/a/0.png", transparency=bytes([255, 0, 128, 7]))
    made = Images(image_folder="pics", shares=SHARES)
    (shown,) = made.read([Path("pics")])
    expected = (colours @ np.array([0.299, 0.587, 0.114]) / 255)[places]  # ITU-R 601
    np.testing.assert_allclose(shown.read, expected, atol=1.5 / 255)
    assert made.notes[0] == "what is transparent in images is read by its colour"


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (RNG.normal(size=(HEIGHT, WIDTH)).astype(np.float32), "0.tif: expected 8 or 16 bits a pixel, got fractions"),
        (
            RNG.integers(0, 9, (HEIGHT, WIDTH), dtype=np.int32),
            "0.tif: expected 8 or 16 bits a pixel, got whole numbers",
        ),
    ],
)
def test_pixels_of_which_nobody_knows_what_is_white(pixels, message):
    save(pixels, "pics/a/0.tif")
    with pytest.raises(DatasetError, match=message):
        Images(image_folder="pics", shares=SHARES).read([Path("pics")])


# With captions

WORDS = ("red", "green", "blue"), ("cat", "dog"), ("sits", "runs", "sleeps", "eats")


def captions_of(i: int) -> list[str]:
    one, two, three = (words[i // 7 % len(words)] for words in WORDS)
    return [f"a {one} {two} {three}", f"{two} {three}"][: 1 + i % 2]


def described(files=lambda i: f"{i:02d}.png", **changes) -> Images:
    with Path("captions.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["caption", "file"])
        rows.writerows([caption, files(i)] for i in range(N) for caption in captions_of(i))
    fields = {"image_folder": "pics", "captions_file": "captions.csv", "read_as": "caption", "unit": "word"}
    return Images(**(fields | {"max_length": 4, "shares": SHARES} | changes))


def in_one_folder() -> None:
    for i, pixels in enumerate(PIXELS):
        save(pixels, f"pics/{i:02d}.png")


def said(dataset: Dataset) -> list[dict[int, list[str]]]:
    """The captions of each image, by split, read off the arrays."""
    known = {pixels.tobytes(): i for i, pixels in enumerate(PIXELS)}
    splits = []
    for split in SPLITS:
        arrays, captions = dataset.splits[split], defaultdict(list)
        for image, ids in zip(np.rint(arrays.inputs * 255).astype(np.uint8), arrays.targets.tolist(), strict=True):
            end = ids.index(EOS)
            assert {*ids[end + 1 :]} <= {PAD}
            captions[known[image.tobytes()]].append(" ".join(dataset.target_tokens[token] for token in ids[:end]))
        splits.append({i: sorted(some) for i, some in captions.items()})
    return splits


def test_every_caption_is_there_with_its_image_and_all_of_an_image_in_one_split():
    in_one_folder()
    dataset = described().generate(5, SIZES)
    splits = said(dataset)
    assert [len(split) for split in splits] == [24, 8, 8]
    assert {i: some for split in splits for i, some in split.items()} == {i: sorted(captions_of(i)) for i in range(N)}
    assert (dataset.input_kind, dataset.target_at, dataset.padded, dataset.num_timesteps) == (
        "image",
        "sequence",
        True,
        5,
    )
    words = Counter(word for some in splits[0].values() for caption in some for word in [*caption.split(), "<eos>"])
    assert dataset.target_tokens == ("<pad>", "<sos>", "<eos>", UNKNOWN, *sorted({*words} - {"<eos>"}))
    total = words.total()
    assert dataset.baseline_loss == pytest.approx(-sum(n / total * math.log(n / total) for n in words.values()))


def test_captions_of_an_archive_name_places():
    in_one_folder()
    np.savez("a.npz", images=PIXELS)
    of_archive = described(files=str, image_folder=None, data_file="a.npz").generate(5, SIZES)
    assert of_archive.digest == described().generate(5, SIZES).digest


def test_rare_words_of_captions_are_unknown():
    in_one_folder()
    splits = said(described(min_count=17).generate(5, SIZES))
    counts = Counter(word for i in splits[0] for caption in captions_of(i) for word in caption.split())
    for split in splits:
        for i, some in split.items():
            whole = [[w if counts[w] >= 17 else UNKNOWN for w in caption.split()] for caption in captions_of(i)]
            assert some == sorted(map(" ".join, whole))


def test_what_of_images_and_captions_is_left_out_is_counted():
    in_one_folder()
    save(PIXELS[0], "pics/further.png")
    made = described(max_length=3, too_long="leave_out", max_train=6)
    kept = [
        len(caption.split()) for split in said(made.generate(4, SIZES)) for some in split.values() for caption in some
    ]
    assert {*kept} == {2}
    assert len(kept) < 20
    assert made.remarks() == (
        "captions.csv: 40 of 60 captions left out, longer than max_length 3",
        "pics: 1 of 41 images have no caption",
        "6 train captions left out, beyond max_train 6",
    )


def test_the_drawing_has_captions_above_images():
    in_one_folder()
    made = described()
    dataset = made.generate(5, SIZES)
    first = dataset.splits["train"].targets[0]
    caption = " ".join(dataset.target_tokens[i] for i in first if i > EOS)
    assert made.draw(dataset).splitlines()[0].startswith(caption)
