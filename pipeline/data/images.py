"""A user's own images: read pixel by pixel or row by row to say their class, or seen whole to be described.

    inputs   pixels   height * width timesteps of one brightness, (N, T, 1), in reading order
             rows     height timesteps of a row, (N, height, width)
             caption  the image, (N, height, width)
    targets  pixels, rows  a class, (N,), at the last timestep; caption  the words of a caption, then EOS, (N, U)
    baseline the entropy of the training classes; the unigram entropy of the training captions, per token

Images are arrays of an NPZ archive, or files of a folder: with a folder for each class, or with captions. Brightness
is from 0 to 1 (of whole numbers from 0 to 255); images of a folder are read in shades of grey. All have one size.
Shapes: N images (with several captions, one each), T timesteps, U tokens of a caption.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np

from pipeline.config.params import Sizes
from pipeline.config.paths import paths_below
from pipeline.config.strict import require
from pipeline.data.dataset import EOS, PAD, SPLITS, UNKNOWN, UNKNOWN_CHARACTER, Dataset, Split, Task, make_task
from pipeline.data.digits import draw_images
from pipeline.data.files import checksum, read_npz, read_table, unknown
from pipeline.data.generator import import_source
from pipeline.data.labelled import Labelling, check_answers, check_classes, class_targets
from pipeline.data.own import ShortTexts, check_path
from pipeline.data.vocabulary import pad, unigram_entropy
from pipeline.errors import DatasetError

MAX_SIDE = 1024
"""Most pixels of a side: a network reads a timestep for each row at least."""
MAX_WHOLE, MAX_DEEP = 255, 65_535
ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".pgm", ".tif", ".tiff", ".webp")


class Shown(NamedTuple):
    """An image, (height, width) float32 from 0 to 1, and what it is known by."""

    pixels: np.ndarray
    name: str
    where: str


@dataclass(frozen=True, kw_only=True)
class Images(ShortTexts):
    """Images with a class each, or with captions.

    Attributes:
        image_folder: The folder of the images, in place of a `data_file`; DVC watches all that is in it.
        captions_file: A table of captions, of which an image may have several: `file`, the image's path below the
            folder or its place in the archive, from 0, and `caption`.
        read_as: What is read at a timestep; `caption`: the image is seen whole, to be described.
        images: The array of the images, of an NPZ archive, (N, height, width).
        labels: That of their classes, (N,).
    """

    image_folder: str | None = None
    captions_file: str | None = None
    read_as: Literal["pixels", "rows", "caption"] = "pixels"
    images: str = "images"
    labels: str = "labels"
    unit: Literal["character", "word"] | None = None

    wholes: ClassVar[tuple[str, ...]] = ("data_file", "image_folder")
    length_reason = "an image is as large as it is, a caption as long"
    num_drawn = 4
    what_is_divided = "images"

    def __post_init__(self) -> None:
        super().__post_init__()
        for key in ("image_folder", "captions_file"):
            check_path(key, getattr(self, key))
        if self.read_as == "caption":
            self.check_texts()
            require(self.captions_file is not None, "captions_file", "a table with columns file and caption", None)
            require(not self.given, "train_file", "null, as one table has all captions", self.train_file)
        else:
            self.check_no_texts("without read_as: caption")
            require(self.captions_file is None, "captions_file", "null, without read_as: caption", self.captions_file)
        for key, used in (("images", not self.image_folder), ("labels", not (self.image_folder or self.captions_file))):
            why = "there is no NPZ archive" if self.image_folder else "there are captions"
            require(used or getattr(self, key) == key, key, f"nothing, as {why}", getattr(self, key))

    @property
    def natural_length(self) -> int:
        """The timesteps of an image, or the most tokens of a caption and its end."""
        if self.read_as == "caption":
            return (self.max_length or 0) + 1
        height, width = self.division["train"][0].read.shape
        return height * width if self.read_as == "pixels" else height

    @cached_property
    def division(self) -> dict[str, list[Labelling[Any]]]:
        """The images of each split with their classes, or captions; of several captions of an image each stands alone.

        Raises:
            DatasetError: If a file is damaged, images differ in size, or there are too few of them, or not two classes.
        """
        if self.read_as != "caption":
            check = partial(check_classes, where=str(self.whole_path))
            parts = self.divide(self.read, lambda one: one.group, lambda one: one.answer, check)
        else:
            parts = self.divide(self.read, lambda one: one.group)
        sizes = {example.read.shape: example.where for some in parts.values() for example in some}
        if len(sizes) > 1:
            (one, where), (other, elsewhere) = list(sizes.items())[:2]
            got = f"{one[0]} x {one[1]} in {where}, {other[0]} x {other[1]} in {elsewhere}"
            raise DatasetError(f"{self.whole_path}: expected images of one size, got {got}; scale a copy of them")
        parts = self.kept(parts, "captions" if self.read_as == "caption" else "images")
        if self.read_as != "caption":
            check_answers(parts, lambda example: [example.answer], "class", self.max_train)
        return parts

    def read(self, paths: Sequence[Path]) -> list[Labelling[Any]]:
        """Return the images of an archive or a folder, each with its class or one of its captions.

        Raises:
            DatasetError: If a file is damaged, or there are no images or no classes.
        """
        path = paths[0]
        if self.captions_file is not None:
            return self._captioned(path)
        if self.image_folder is None:
            arrays = read_npz(path, [self.images, self.labels])
            shown = self._of_archive(path, arrays[self.images])
            labels = arrays[self.labels]
            if labels.shape != (len(shown),):
                got = f"{labels.shape} labels for {len(shown)} images"
                raise DatasetError(f"{path}, array {self.labels!r}: expected a label an image, got {got}")
            names = [str(label) for label in labels.tolist()]
            wheres = [f"{path}, array {self.labels!r}, image {i}" for i in range(len(names))]
        else:
            files = self._files(path)
            for file in files:
                if file.parent == path:
                    expected = "a folder for each class, with its images in it; or captions, with read_as: caption"
                    raise DatasetError(f"{file}: expected {expected}")
            if not files:
                raise DatasetError(f"{path}: expected images ({', '.join(ENDINGS)}) in folders of classes, got none")
            shown = [self._of_file(file, path) for file in files]
            names = [file.relative_to(path).parts[0] for file in files]
            wheres = [one.where for one in shown]
        for where, name in zip(wheres, names, strict=True):
            if not name.strip() or name in {UNKNOWN, UNKNOWN_CHARACTER, "nan"}:
                raise DatasetError(f"{where}: a class cannot be called {name!r}; name it otherwise")
        pairs = zip(shown, names, strict=True)
        return [Labelling(one.pixels, name, one.pixels.tobytes(), one.where) for one, name in pairs]

    def _files(self, folder: Path) -> list[Path]:
        """Return the images below a folder, in order, and note how many other files there are.

        Raises:
            DatasetError: If there is no such folder.
        """
        if not folder.is_dir():
            if folder.exists():
                raise DatasetError(f"{folder}: expected a folder of images, got a file")
            beside = (other.name for other in folder.parent.glob("*") if other.is_dir())
            raise DatasetError(f"{folder}: no such folder; {unknown('folder', folder.name, beside)}")
        below = [file for file in paths_below(folder) if not file.is_dir() or file.suffix.lower() in ENDINGS]
        images = [file for file in below if file.suffix.lower() in ENDINGS]
        if len(images) < len(below):
            kinds = ", ".join(sorted({file.suffix or file.name for file in {*below} - {*images}})[:5])
            self.notes.append(f"{folder.name}: {len(below) - len(images)} files left out that are no images: {kinds}")
        return images

    def _captioned(self, path: Path) -> list[Labelling[Any]]:
        """Return an image for each caption.

        Raises:
            DatasetError: If a caption names an image that there is not, or is too long.
        """
        table = read_table(self.folder / str(self.captions_file), ["file", "caption"])
        archived = [] if self.image_folder else self._of_archive(path, read_npz(path, [self.images])[self.images])
        files = {} if archived else {file.relative_to(path).as_posix(): file for file in self._files(path)}
        known = {one.name: one for one in archived}
        found, captions = [], table.texts("caption", name="caption")
        for row, name in enumerate(table.texts("file", name="name of an image")):
            if name not in known:
                if name not in files:
                    hint = unknown("image", name, files or known)
                    raise DatasetError(f"{table.where(row, 'file')}: no such image in {path}; {hint}")
                known[name] = self._of_file(files[name], path)
            tokens, where = self.tokens(captions[row]), table.where(row, "caption")
            if self.fits(tokens, where, "the caption"):
                found.append(Labelling(known[name].pixels, tokens, known[name].pixels.tobytes(), where))
        self.note_longer(table.path, "caption", len(found), len(table))
        num_images, num_captioned = len(files or known), len({*table.texts("file")})
        if num_captioned < num_images:
            self.notes.append(f"{path.name}: {num_images - num_captioned} of {num_images} images have no caption")
        return found

    def _of_archive(self, path: Path, images: np.ndarray) -> list[Shown]:
        """Return the images of an array.

        Raises:
            DatasetError: If it is not (N, height, width), or has values that are no brightness.
        """
        where, shape = f"{path}, array {self.images!r}", images.shape
        if images.ndim != 3 or 0 in shape or max(shape[1:]) > MAX_SIDE:  # noqa: PLR2004 - N, height, width
            expected = f"(N, height, width) with sides up to {MAX_SIDE}"
            hint = "; images.mean(axis=-1) is a copy in shades of grey" if images.ndim == 4 else ""  # noqa: PLR2004
            raise DatasetError(f"{where}: expected {expected}, got {shape}{hint}")
        whole = images.dtype.kind in "iub"
        most = 1 if images.dtype.kind == "b" or not whole else MAX_WHOLE
        if images.dtype.kind not in "iubf":
            raise DatasetError(f"{where}: expected numbers, got the type {images.dtype}")
        wrong = np.flatnonzero(~((images >= 0) & (images <= most)).reshape(len(images), -1).all(axis=1))
        if len(wrong):
            expected = f"whole numbers from 0 to {MAX_WHOLE}" if whole else "brightness from 0 to 1"
            image = images[wrong[0]]
            hint = "" if whole else f"; divide by {MAX_WHOLE}, or save whole numbers"
            got = f"{image.min()} to {image.max()}{hint}"
            raise DatasetError(f"{where}, image {wrong[0]}: expected {expected}, got {got}")
        scaled = (images / most).astype(np.float32)
        return [Shown(pixels, str(i), f"{where}, image {i}") for i, pixels in enumerate(scaled)]

    def _of_file(self, file: Path, folder: Path) -> Shown:
        """Return the image of a file.

        Raises:
            DatasetError: If it is none, is damaged, or is larger than `MAX_SIDE`.
        """
        pillow: Any = import_source("PIL.Image", "pillow", f"{file}: images are read")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                with pillow.open(file) as image:
                    if max(image.size) > MAX_SIDE:
                        got = f"{image.size[0]} x {image.size[1]}"
                        raise DatasetError(f"{file}: expected sides of at most {MAX_SIDE} pixels, got {got}")
                    if (num := getattr(image, "n_frames", 1)) > 1:
                        raise DatasetError(f"{file}: expected one picture, got {num}; save them as files of their own")
                    deep = image.mode.startswith("I;16")
                    grey = deep or image.mode in {"1", "L"}
                    if image.mode in {"I", "F"}:
                        got = "whole numbers of 32 bits" if image.mode == "I" else "fractions"
                        raise DatasetError(f"{file}: expected 8 or 16 bits a pixel, got {got}")
                    if image.has_transparency_data:
                        self.notes.append("what is transparent in images is read by its colour")
                    by_palette = isinstance(image.info.get("transparency"), bytes)  # one for each colour of it
                    opaque = image.convert("RGBA") if by_palette else image
                    pixels = np.asarray(image if deep else opaque.convert("L"), dtype=np.float32)
                    pixels /= MAX_DEEP if deep else MAX_WHOLE
        except DatasetError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever a damaged file makes of its reader
            raise DatasetError(f"{file}: not an image, or a damaged one ({str(error).splitlines()[0]})") from None
        if not grey:
            self.notes.append("coloured images are read in shades of grey")
        return Shown(pixels, str(file.relative_to(folder)), str(file))

    def make(self, length: int, sizes: Sizes) -> tuple[Task, dict[str, Split]]:
        """Return all images; `sizes` are of generated sequences and change nothing here."""
        shown = {split: np.stack([one.read for one in some]) for split, some in self.division.items()}
        if self.read_as == "caption":
            return self._described(length, shown)
        targets, names = class_targets(self.division)
        splits = {}
        for split, images in shown.items():
            read = images.reshape(len(images), -1, 1) if self.read_as == "pixels" else images
            splits[split] = Split(read, targets[split])
        return make_task(
            length,
            inputs=("real", splits["train"].inputs.shape[2]),
            targets=("class", "last", len(names)),
            baseline=(unigram_entropy(targets["train"]), "class frequencies"),
            target_tokens=names,
        ), splits

    def _described(self, length: int, shown: dict[str, np.ndarray]) -> tuple[Task, dict[str, Split]]:
        words = self.vocabulary(
            f"{self.captions_file}: captions of the training split", (one.answer for one in self.division["train"])
        )
        splits = {}
        for split in SPLITS:
            rows = [[*self.encode(one.answer, words, split, one.where), EOS] for one in self.division[split]]
            splits[split] = Split(shown[split], pad(rows, length, len(words)))
        targets = splits["train"].targets
        return make_task(
            length,
            inputs=("image", 1),
            targets=("class", "sequence", len(words)),
            baseline=(unigram_entropy(targets[targets != PAD]), "unigram"),
            padded=True,
            target_tokens=words.tokens,
        ), splits

    def source(self) -> dict[str, Any]:
        """Return the sha256 of every file, and of all images of the folder."""
        files = dict(super().source()["files"])
        if self.captions_file is not None:
            files[self.captions_file] = checksum(self.folder / self.captions_file)
        if self.image_folder is not None:
            folder = self.folder / self.image_folder
            for path in paths_below(folder):
                if path.suffix.lower() in ENDINGS:
                    files[str(Path(self.image_folder) / path.relative_to(folder))] = checksum(path)
        return {"files": files}

    def draw(self, dataset: Dataset) -> str:
        """Return images side by side, each below its class or caption."""
        train = dataset.splits["train"]
        height, width = self.division["train"][0].read.shape
        images = train.inputs[: self.num_drawn].reshape(-1, height, width)
        texts = dataset.target_tokens or ()
        labels = [
            " ".join(texts[i] for i in np.atleast_1d(t) if i > EOS or train.targets.ndim == 1) for t in train.targets
        ]
        return draw_images(images, labels[: self.num_drawn])
