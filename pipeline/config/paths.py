"""The one place that knows where every file of a project lies, and how a file is written."""

from __future__ import annotations

import contextlib
import hashlib
import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline.config.strict import require_names
from pipeline.errors import ConfigError, PipelineError


@dataclass(frozen=True)
class Paths:
    """File names below a project's root folder (absolute, since Ray workers run elsewhere).

    A name that is no plain component of a path is an `InvalidFieldError`.
    """

    root: Path

    @classmethod
    def at(cls, root: Path | str = ".") -> Paths:
        """Return the paths of the project in `root`."""
        return cls(Path(root).resolve())

    @property
    def params(self) -> Path:
        """The parameters that a user edits first."""
        return self.root / "params.yaml"

    @property
    def claims(self) -> Path:
        """The rules by which claims are judged."""
        return self.root / "configs" / "claims.yaml"

    @property
    def base(self) -> Path:
        """The setting that every study begins with."""
        return self.root / "configs" / "base.yaml"

    @property
    def home(self) -> Path:
        """The project itself, where `root` is the copy that `dvc exp run --temp` or `--queue` makes and removes."""
        for folder in (self.root, *self.root.parents):
            exps = next((above for above in folder.parents if above.parts[-3:] == (".dvc", "tmp", "exps")), None)
            if exps is not None and (folder / ".dvc").is_dir():
                return exps.parents[2] / self.root.relative_to(folder)
        return self.root

    def dataset_config(self, name: str) -> Path:
        """Return the file that describes dataset `name`."""
        return self.root / "configs" / "datasets" / f"{_plain(name, 'dataset')}.yaml"

    def study_config(self, name: str) -> Path:
        """Return the file that describes study `name`."""
        return self.root / "configs" / "studies" / f"{_plain(name, 'study')}.yaml"

    def scale_config(self, name: str) -> Path:
        """Return the file that describes scale `name`."""
        return self.root / "configs" / "scales" / f"{_plain(name, 'scale')}.yaml"

    def dataset(self, name: str) -> Path:
        """Return the folder that holds prepared dataset `name`."""
        return self.root / "data" / _plain(name, "dataset")

    def results(self, study: str) -> Path:
        """Return the folder that holds the result tables of `study`."""
        return self.root / "results" / _plain(study, "study")

    @property
    def listed_studies(self) -> Path:
        """Every study that params.yaml lists, as read: what the plans and the report depend on."""
        return self.root / "digests" / "studies.json"

    def request(self, dataset: str) -> Path:
        """Return the file that says what the studies ask of `dataset`: what `prepare` depends on."""
        return self.root / "digests" / "requests" / f"{_plain(dataset, 'dataset')}.json"

    def watched(self, dataset: str) -> Path:
        """Return the folder with a link to every file that `dataset` names: how DVC sees files that lie anywhere."""
        return self.root / "digests" / "files" / _plain(dataset, "dataset")

    def dataset_digest(self, name: str) -> Path:
        """Return the file that says what prepared dataset `name` consists of: what the plans depend on."""
        return self.root / "digests" / "data" / f"{_plain(name, 'dataset')}.json"

    def plan(self, study: str) -> Path:
        """Return the file that says what `study` trains, on which data: what its sweep depends on."""
        return self.root / "digests" / "plans" / f"{_plain(study, 'study')}.json"

    def results_digest(self, study: str) -> Path:
        """Return the file that says which tables `study` has: what the report depends on."""
        return self.root / "digests" / "results" / f"{_plain(study, 'study')}.json"

    @property
    def default_store(self) -> Path:
        """The trial store where params.yaml names none; finished trials outlive a copy that an experiment runs in."""
        return self.home / ".trials"

    @property
    def reports(self) -> Path:
        """The folder that the report stage writes."""
        return self.root / "reports"


def check_tree(script: str) -> None:
    """Refuse to run a program of one tree with the package of another: what ran would not be what is recorded.

    Args:
        script: The program's `__file__`.

    Raises:
        ConfigError: If the package was imported from elsewhere than beside the program's folder.
    """
    tree, imported = Path(script).resolve().parents[1], Path(__file__).resolve().parents[2]
    if tree != imported:
        raise ConfigError(
            f"{script}: expected the package `pipeline` of its own tree, {tree}; got {imported}, whose code would run; "
            f"run the program that stands there, or copy `pipeline` too"
        )


def _plain(name: str, kind: str) -> str:
    require_names((name,), kind)
    return name


def paths_below(folder: Path) -> list[Path]:
    """Return the files and folders below a folder, in order; what links lead to as well, once on every way down."""
    found, above = [], {folder: {folder.resolve()}}
    for top, folders, files in os.walk(folder, followlinks=True):
        here = Path(top)
        found += [here / name for name in (*folders, *files)]
        for name in [*folders]:
            own = (here / name).resolve()
            if own in above[here]:  # it is within itself
                folders.remove(name)
            above[here / name] = above[here] | {own}
    return sorted(found)


def digest_of_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes.

    Raises:
        OSError: If it cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def whole_file(path: Path, error: type[PipelineError] = PipelineError) -> Iterator[Path]:
    """Yield a temporary name to write a file to; then wait until the disk has it, and move it into place.

    Nobody sees half of it; an older file survives a failure.

    Args:
        path: The file.
        error: What is raised.

    Raises:
        PipelineError: Or the type `error`, if the file cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        yield temporary
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())  # else a power cut could leave an empty file under the final name
        os.replace(temporary, path)
    except OSError as cause:
        raise error(f"{path}: cannot be written: {cause.strerror or cause}") from cause
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def write_whole(path: Path, data: bytes, error: type[PipelineError] = PipelineError) -> None:
    """Write these bytes as a `whole_file`, whose folder is made.

    Raises:
        PipelineError: Or the type `error`, if the file cannot be written.
    """
    with whole_file(path, error) as temporary:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(data)
