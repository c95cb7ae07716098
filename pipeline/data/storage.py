"""Prepared datasets as files, data/<name>/: written whole or not at all, and verified whenever they are read.

    manifest.json                                   what the files are, with their checksums, read strictly
    preview.txt                                     a few sequences for a person
    length-<length>/<split>.{inputs,targets}.npy    the arrays; <split>.{alignment,images}.npy where there are such

Nothing depends on time, machine or order: preparing twice gives the same bytes.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np

from pipeline.config.params import Sizes
from pipeline.config.paths import digest_of_file
from pipeline.config.strict import build, require
from pipeline.data.dataset import SPLITS, Dataset, Split, Task, combined_digest, unknown_shares
from pipeline.data.generator import read_generator
from pipeline.data.preview import Preview, preview_of
from pipeline.errors import ConfigError, DatasetError

FORMAT_VERSION = 5
MANIFEST = "manifest.json"
PREVIEW = "preview.txt"


def array_path(length: int, split: str, role: str) -> str:
    """Return where an array lies below the dataset's folder; `role` is its name in a `Split`."""
    return f"length-{length}/{split}.{role}.npy"


@dataclass(frozen=True)
class ArrayFile:
    """One .npy file: the checksum of its bytes, and what the array in it must look like."""

    sha256: str
    num_bytes: int
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Variant(Task):
    """A dataset at one length: its task, the digest of its data, and its files by path below the dataset's folder.

    Of a vocabulary that lacks tokens, `unknown_shares` says which share of each split's they are, by role.
    """

    digest: str
    unknown_shares: Mapping[str, Mapping[str, float]]
    preview: Preview
    files: Mapping[str, ArrayFile]

    def __post_init__(self) -> None:
        expected = [array_path(self.length, split, role) for split in SPLITS for role in self.roles]
        require(sorted(self.files) == sorted(expected), "files", f"the files {expected}", sorted(self.files))

    @property
    def roles(self) -> tuple[str, ...]:
        """What the arrays of a split are."""
        further = (role for role in ("alignment", "images") if array_path(self.length, "train", role) in self.files)
        return ("inputs", "targets", *further)

    @property
    def num_bytes(self) -> int:
        """Size of all files together."""
        return sum(file.num_bytes for file in self.files.values())

    @property
    def num_sequences(self) -> dict[str, int]:
        """N of each split."""
        return {split: self.files[array_path(self.length, split, "inputs")].shape[0] for split in SPLITS}

    @property
    def num_timesteps(self) -> int:
        """T, the number of timesteps of every input sequence; of an image, U of its target."""
        role = "targets" if self.input_kind == "image" else "inputs"
        return self.files[array_path(self.length, "train", role)].shape[1]

    @property
    def num_written(self) -> int:
        """U, the timesteps that a decoder writes; 0 where none does."""
        if self.target_at != "sequence":
            return 0
        return self.files[array_path(self.length, "train", "targets")].shape[1]


@dataclass(frozen=True)
class Manifest:
    """All of manifest.json.

    `source` says where data that are not generated come from; `remarks` say, in words for the screen and the page, how
    many tokens are unknown and what else of the data is not as it was given; `examples` are lines of text, the first
    training sequences of the shortest length; `seed` is 0 where nothing is drawn.
    """

    format_version: int
    name: str
    generator: str
    config: Mapping[str, Any]
    seed: int
    sizes: Sizes
    source: Mapping[str, Any]
    remarks: tuple[str, ...]
    examples: tuple[str, ...]
    natural_length: int | None
    variants: Mapping[str, Variant]

    def __post_init__(self) -> None:
        for key, variant in self.variants.items():
            require(key == str(variant.length), f"variants.{key}", "the variant of that length", variant.length)

    @property
    def lengths(self) -> tuple[int, ...]:
        """The prepared lengths, ascending."""
        return tuple(sorted(variant.length for variant in self.variants.values()))

    def variant(self, length: int | None) -> Variant:
        """Return the data at one length; null is the natural length of a dataset that has one.

        Raises:
            DatasetError: If that length is not prepared, or is null where there is no natural one.
        """
        wanted = self.natural_length if length is None else length
        if str(wanted) in self.variants:
            return self.variants[str(wanted)]
        problem = "null, but it has no natural one" if wanted is None else f"{wanted} is not prepared"
        again = f"`python stages/prepare.py {self.name}` prepares what studies ask for"
        known = f"known: {', '.join(map(str, self.lengths))} ({again})"
        raise DatasetError(f"dataset {self.name!r}: length {problem}; {known}")


def read_manifest(folder: Path) -> Manifest:
    """Return the manifest in `folder`, which bears the dataset's name, without touching the arrays.

    Raises:
        DatasetError: If it is missing, damaged, of another format or of another dataset.
    """
    path = folder / MANIFEST
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        version = content.get("format_version") if isinstance(content, Mapping) else None
        if version != FORMAT_VERSION:
            raise DatasetError(f"{path}: expected format_version {FORMAT_VERSION}, got {version!r}; {mend(folder)}")
        manifest: Manifest = build(Manifest, content, str(path))
    except (FileNotFoundError, NotADirectoryError):
        raise DatasetError(f"{path}: no such file; {mend(folder)}") from None
    except ValueError as error:  # neither UTF-8 nor JSON
        raise DatasetError(f"{path}: not valid JSON ({error}); {mend(folder)}") from None
    except ConfigError as error:
        raise DatasetError(f"{error}; {mend(folder)}") from None
    if manifest.name != folder.name:
        raise DatasetError(f"{path}: expected the manifest of {folder.name!r}, got that of {manifest.name!r}")
    return manifest


def mend(folder: Path) -> str:
    """Return the end of a message about damaged files: the command that makes them anew."""
    return f"`python stages/prepare.py {folder.name}` makes it anew"


def prepare_dataset(name: str, config_path: Path, lengths: Sequence[int], sizes: Sizes, folder: Path) -> None:
    """Make dataset `name` at every length that is asked for or that its file lists, and write it to `folder`.

    Args:
        name: The dataset's name.
        config_path: Its file, configs/datasets/<name>.yaml.
        lengths: Lengths that studies ask for.
        sizes: Sequences in each split, where they are generated.
        folder: Where to write, data/<name>; what was there is replaced once everything is written.

    Raises:
        ConfigError: If the dataset's file is wrong.
        DatasetError: If a length is impossible, data are not at hand, or the folder cannot be written.
    """
    if folder.name != name:
        raise DatasetError(f"{folder}: expected a folder called {name!r}: readers know a dataset by its folder's name")
    generator = read_generator(config_path)
    every = generator.lengths_to_make(name, lengths)
    variants: dict[str, Variant] = {}
    examples = ""
    try:
        with _replacing(folder) as new:
            for length in every:
                dataset = dataclasses.replace(generator.generate(length, sizes), name=name)
                preview = preview_of(dataset, dataset.splits, generator.leaks(dataset), generator.leaks_of)
                variants[str(length)] = _write_variant(dataset, preview, new)
                examples = examples or generator.draw(dataset)
            title = f"{name}, length {every[0]}: the first training sequences"
            (new / PREVIEW).write_text(f"{title}\n\n{examples}\n", encoding="utf-8")
            config = {"generator": generator.key(), **dataclasses.asdict(generator)}
            manifest = Manifest(
                format_version=FORMAT_VERSION,
                name=name,
                generator=generator.key(),
                config=config,
                seed=config.get("seed", 0),
                sizes=sizes,
                source=generator.source(),
                remarks=(*filter(None, map(_unknown, variants.values())), *generator.remarks()),
                examples=tuple(examples.splitlines()),
                natural_length=generator.natural_length,
                variants=variants,
            )
            text = json.dumps(dataclasses.asdict(manifest), indent=2, allow_nan=False)
            (new / MANIFEST).write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise DatasetError(f"{folder}: cannot be written: {error.strerror or error}") from error


def _write_variant(dataset: Dataset, preview: Preview, folder: Path) -> Variant:
    files = {}
    (folder / f"length-{dataset.length}").mkdir()
    for split in SPLITS:
        for role, array in dataset.splits[split].arrays.items():
            name = array_path(dataset.length, split, role)
            np.save(folder / name, np.ascontiguousarray(array), allow_pickle=False)
            num_bytes = (folder / name).stat().st_size
            files[name] = ArrayFile(digest_of_file(folder / name), num_bytes, str(array.dtype), array.shape)
    shares = unknown_shares(dataset, dataset.splits)
    return Variant(**_task_of(dataset), digest=dataset.digest, unknown_shares=shares, preview=preview, files=files)


def _unknown(variant: Variant) -> str:
    """Return which share of the tokens is unknown, «length 9: unknown among the inputs: 3.1 % of train, …»; or ''."""
    return "; ".join(
        f"length {variant.length}, unknown tokens among the {role}: "
        + ", ".join(f"{100 * share:.2g} % of {split}" for split, share in shares.items())
        for role, shares in variant.unknown_shares.items()
    )


def _task_of(whole: Task) -> dict[str, Any]:
    return {field.name: getattr(whole, field.name) for field in dataclasses.fields(Task)}


@contextmanager
def _replacing(folder: Path) -> Iterator[Path]:
    """Yield an empty folder beside `folder` that takes its place at the end, unless there was an exception."""
    new, old = folder.with_name(f".{folder.name}.new"), folder.with_name(f".{folder.name}.old")
    _tidy(folder, new, old)
    new.mkdir(parents=True)
    try:
        yield new
        if folder.exists():
            folder.rename(old)
        new.rename(folder)
    finally:
        _tidy(folder, new, old)


def _tidy(folder: Path, new: Path, old: Path) -> None:
    if old.exists() and not folder.exists():  # stopped between the two renames
        old.rename(folder)
    for left_over in (new, old):
        shutil.rmtree(left_over, ignore_errors=True)


def load_dataset(folder: Path, length: int | None, unseen_lengths: Sequence[int] = ()) -> Dataset:
    """Return the dataset in `folder` at one length; every array's file is verified before it is believed.

    Args:
        folder: data/<name>.
        length: A prepared length, or None where the dataset has one natural length.
        unseen_lengths: Prepared lengths whose test splits come along as `unseen`.

    Raises:
        DatasetError: If the length is not prepared, or a file is missing, damaged or foreign.
    """
    manifest = read_manifest(folder)
    expected = {MANIFEST, PREVIEW, *(name for variant in manifest.variants.values() for name in variant.files)}
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}
    for name in sorted(expected - found):
        raise DatasetError(f"{folder / name}: missing; {mend(folder)}")
    for name in sorted(found - expected):
        raise DatasetError(f"{folder / name}: not a file of this dataset; move it away, or {mend(folder)}")
    variant = manifest.variant(length)
    others = [manifest.variant(unseen) for unseen in unseen_lengths]
    return Dataset(
        **_task_of(variant),
        name=manifest.name,
        digest=combined_digest([variant.digest, *(other.digest for other in others)]),
        splits={split: _load_split(folder, variant, split) for split in SPLITS},
        unseen={other.length: _load_split(folder, other, "test") for other in others},
    )


def _load_split(folder: Path, variant: Variant, split: str) -> Split:
    """Return one split.

    Raises:
        DatasetError: If a file is not what the manifest says.
    """
    arrays = {}
    for role in variant.roles:
        name = array_path(variant.length, split, role)
        path, expected = folder / name, variant.files[name]
        num_bytes = path.stat().st_size
        if num_bytes < expected.num_bytes:
            raise DatasetError(f"{path}: truncated to {num_bytes} of {expected.num_bytes} bytes; {mend(folder)}")
        if digest_of_file(path) != expected.sha256:
            raise DatasetError(f"{path}: damaged, its sha256 is not that of the manifest; {mend(folder)}")
        try:
            array = arrays[role] = np.load(path, allow_pickle=False)
        except (ValueError, EOFError, MemoryError, SyntaxError, TokenError) as error:
            raise DatasetError(f"{path}: not an array ({str(error).splitlines()[0]}); {mend(folder)}") from None
        for what, wanted, got in (("dtype", expected.dtype, str(array.dtype)), ("shape", expected.shape, array.shape)):
            if wanted != got:
                raise DatasetError(f"{path}: expected {what} {wanted}, got {got}; {mend(folder)}")
    return Split(**arrays)
