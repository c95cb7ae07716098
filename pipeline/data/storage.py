"""Prepared datasets as files, data/<name>/: written whole or not at all, and verified whenever they are read.

    manifest.json                                   what the files are, with their checksums
    preview.txt                                     a few sequences for a person
    length-<length>/<split>.{inputs,targets}.npy    the arrays; <split>.alignment.npy where it is known

Nothing depends on time, machine or order: preparing twice gives the same bytes.
"""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.config.params import Sizes
from pipeline.data.dataset import SPLITS, Dataset, Split, Task, with_unseen
from pipeline.data.generator import Generator, lengths_to_make
from pipeline.data.manifest import (
    ALIGNMENT,
    FORMAT_VERSION,
    MANIFEST,
    PREVIEW,
    ROLES,
    ArrayFile,
    Manifest,
    Variant,
    array_path,
    mend,
    read_manifest,
    write_manifest,
)
from pipeline.data.registry import read_generator
from pipeline.errors import DatasetError


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
    every = lengths_to_make(name, generator, lengths)
    try:
        with _replacing(folder) as new:
            _write(name, generator, every, sizes, new)
    except OSError as error:
        raise DatasetError(f"{folder}: cannot be written: {error.strerror or error}") from error


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
    _check_names(folder, manifest)
    variant = manifest.variant(length)
    dataset = Dataset(
        **_task_of(variant),
        name=manifest.name,
        digest=variant.digest,
        splits={split: _load_split(folder, variant, split) for split in SPLITS},
    )
    others = [manifest.variant(unseen) for unseen in unseen_lengths]
    return with_unseen(dataset, {other.length: (other.digest, _load_split(folder, other, "test")) for other in others})


def _load_split(folder: Path, variant: Variant, split: str) -> Split:
    names = (array_path(variant.length, split, role) for role in variant.roles)
    return Split(*(_load_array(folder, name, variant.files[name]) for name in names))


def _write(name: str, generator: Generator, lengths: Sequence[int], sizes: Sizes, folder: Path) -> None:
    variants, preview = {}, ""
    for length in lengths:
        dataset = dataclasses.replace(generator.generate(length, sizes), name=name)
        variants[str(length)] = _write_variant(dataset, folder)
        preview = preview or f"{name}, length {length}: the first training sequences\n\n{generator.draw(dataset)}\n"
    (folder / PREVIEW).write_text(preview, encoding="utf-8")
    manifest = Manifest(
        format_version=FORMAT_VERSION,
        name=name,
        generator=generator.generator,
        config=dataclasses.asdict(generator),
        seed=generator.seed,
        sizes=sizes,
        source=generator.source(),
        natural_length=generator.natural_length,
        variants=variants,
    )
    write_manifest(manifest, folder)


def _write_variant(dataset: Dataset, folder: Path) -> Variant:
    files = {}
    (folder / f"length-{dataset.length}").mkdir()
    for split in SPLITS:
        for role in (*ROLES, ALIGNMENT):
            array: np.ndarray | None = getattr(dataset.splits[split], role)
            if array is None:
                continue
            name = array_path(dataset.length, split, role)
            np.save(folder / name, np.ascontiguousarray(array), allow_pickle=False)
            num_bytes = (folder / name).stat().st_size
            files[name] = ArrayFile(_sha256(folder / name), num_bytes, str(array.dtype), array.shape)
    return Variant(**_task_of(dataset), digest=dataset.digest, files=files)


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


def _check_names(folder: Path, manifest: Manifest) -> None:
    expected = {MANIFEST, PREVIEW, *(name for variant in manifest.variants.values() for name in variant.files)}
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}
    for name in sorted(expected - found):
        raise DatasetError(f"{folder / name}: missing; {mend(folder)}")
    for name in sorted(found - expected):
        raise DatasetError(f"{folder / name}: not a file of this dataset; move it away, or {mend(folder)}")


def _load_array(folder: Path, name: str, expected: ArrayFile) -> np.ndarray:
    path = folder / name
    num_bytes = path.stat().st_size
    if num_bytes < expected.num_bytes:
        raise DatasetError(f"{path}: truncated to {num_bytes} of {expected.num_bytes} bytes; {mend(folder)}")
    if _sha256(path) != expected.sha256:
        raise DatasetError(f"{path}: damaged, its sha256 is not that of the manifest; {mend(folder)}")
    array: np.ndarray = np.load(path, allow_pickle=False)
    for what, wanted, got in (("dtype", expected.dtype, str(array.dtype)), ("shape", expected.shape, array.shape)):
        if wanted != got:
            raise DatasetError(f"{path}: expected {what} {wanted}, got {got}; {mend(folder)}")
    return array


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
