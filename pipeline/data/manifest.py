"""manifest.json: what a prepared dataset consists of, with a checksum of every file, read strictly."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.config.params import Sizes
from pipeline.config.strict import build, require
from pipeline.data.dataset import SPLITS, Task
from pipeline.errors import ConfigError, DatasetError

FORMAT_VERSION = 3
MANIFEST = "manifest.json"
PREVIEW = "preview.txt"
ROLES = ("inputs", "targets")
ALIGNMENT = "alignment"
"""The role of a third array, in datasets whose alignment is known."""


def array_path(length: int, split: str, role: str) -> str:
    """Return where an array lies below the dataset's folder."""
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
    """A dataset at one length: its task, the digest of its data, and its files by path below the dataset's folder."""

    digest: str
    files: Mapping[str, ArrayFile]

    def __post_init__(self) -> None:
        expected = [array_path(self.length, split, role) for split in SPLITS for role in self.roles]
        require(sorted(self.files) == sorted(expected), "files", f"the files {expected}", sorted(self.files))

    @property
    def roles(self) -> tuple[str, ...]:
        """What the arrays of a split are."""
        return (*ROLES, ALIGNMENT) if array_path(self.length, SPLITS[0], ALIGNMENT) in self.files else ROLES

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
    """All of manifest.json. `source` says where data that are not generated come from."""

    format_version: int
    name: str
    generator: str
    config: Mapping[str, Any]
    seed: int
    sizes: Sizes
    source: Mapping[str, Any]
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
        if wanted is None:
            raise DatasetError(f"dataset {self.name!r}: length null, but it has no natural one; {self._known()}")
        if str(wanted) not in self.variants:
            raise DatasetError(f"dataset {self.name!r}: length {wanted} is not prepared; {self._known()}")
        return self.variants[str(wanted)]

    def _known(self) -> str:
        again = f"`python stages/prepare.py {self.name}` prepares what studies ask for"
        return f"known: {', '.join(map(str, self.lengths))} ({again})"


def write_manifest(manifest: Manifest, folder: Path) -> None:
    """Write `<folder>/manifest.json`; the same manifest gives the same bytes."""
    text = json.dumps(dataclasses.asdict(manifest), indent=2, allow_nan=False)
    (folder / MANIFEST).write_text(text + "\n", encoding="utf-8")


def read_manifest(folder: Path) -> Manifest:
    """Return the manifest in `folder`, which bears the dataset's name, without touching the arrays.

    Raises:
        DatasetError: If it is missing, damaged, of another format or of another dataset.
    """
    path = folder / MANIFEST
    content = _read_json(path)
    version = content.get("format_version") if isinstance(content, Mapping) else None
    if version != FORMAT_VERSION:
        raise DatasetError(f"{path}: expected format_version {FORMAT_VERSION}, got {version!r}; {mend(folder)}")
    try:
        manifest: Manifest = build(Manifest, content, str(path))
    except ConfigError as error:
        raise DatasetError(f"{error}; {mend(folder)}") from None
    if manifest.name != folder.name:
        raise DatasetError(f"{path}: expected the manifest of {folder.name!r}, got that of {manifest.name!r}")
    return manifest


def mend(folder: Path) -> str:
    """Return the end of a message about damaged files: the command that makes them anew."""
    return f"`python stages/prepare.py {folder.name}` makes it anew"


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise DatasetError(f"{path}: no such file; {mend(path.parent)}") from None
    except ValueError as error:  # neither UTF-8 nor JSON
        raise DatasetError(f"{path}: not valid JSON ({error}); {mend(path.parent)}") from None
