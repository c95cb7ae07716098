"""Digests: small files by which DVC knows what has changed, so that no stage depends on a whole folder.

A folder such as data/ holds whatever lies there: left-overs, files of the desktop, what another branch lists. A later
stage depends on a digest instead, which follows from exactly those inputs that its result follows from:

    digests/studies.json             the studies that params.yaml lists, as read
    digests/requests/<dataset>.json  what those studies ask of a dataset         -> prepare@<dataset>
    digests/data/<dataset>.json      what was prepared, its manifest             -> plan
    digests/plans/<study>.json       settings, seeds and data of a study         -> sweep@<study>
    digests/results/<study>.json     which tables came out                       -> report

A user's own files lie anywhere, so no stage can list them. `request` keeps a link to each in digests/files and depends
on that folder: DVC follows the links, so once a file has changed it runs `request`, whose digest makes the dataset
stale. The key of a dataset's configuration that names a file, or a list of files, ends in `_file`; one that names a
folder, of which every file counts, in `_folder`. The modules of a network of one's own are linked there, too, in
digests/files/code-of-models, and their digests stand in digests/studies.json, so that the plan is made anew.

The stage that makes the folder also writes the digest, or one that runs in between and takes seconds. The same content
gives the same bytes, so a stage that runs again and finds nothing new leaves later ones fresh.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from pipeline.config.own_code import own_files
from pipeline.config.params import Params, load_scale
from pipeline.config.paths import Paths, digest_of_file, paths_below, write_whole
from pipeline.config.strict import read_yaml
from pipeline.config.study import Study, expand, lengths_of, load_study
from pipeline.errors import ConfigError, PipelineError, unknown_name

CODE = "code-of-models"
"""The folder of links to modules, beside those of datasets, whose names have no -."""


def write_digest(path: Path, content: Any) -> None:
    """Write `content` as JSON, or what comes near it (infinities, dates).

    Raises:
        PipelineError: If the file cannot be written.
    """
    write_whole(path, (json.dumps(content, indent=1, default=str) + "\n").encode())


def keep_listed(path_of: Callable[[str], Path], names: Collection[str]) -> None:
    """Remove the digests of what params.yaml no longer lists: `path_of` is `paths.dataset_digest`, or another of them.

    No stage of DVC can depend on the files of a list in params.yaml, so the next stage depends on the folder of the
    digests and cleans it. DVC hashes a dependency after the stage has run: dvc.lock never knows of a left-over, which
    a clone would not have.
    """
    for path in path_of("any").parent.glob("*.json"):
        if path.stem not in names:
            path.unlink()


def write_requests(paths: Paths, params: Params) -> None:
    """Write the listed studies as read, and for every listed dataset what they ask of it and of which files.

    Of a study's scales only the one of params.yaml counts.

    Raises:
        ConfigError: If a study, the scale or a dataset's file is wrong, or a file that a dataset names cannot be read.
        PipelineError: If a file cannot be written.
    """
    studies = {name: load_study(paths, name) for name in params.studies}
    sizes = load_scale(paths, params.scale).datasets
    for folder in paths.watched("any").parent.glob("*/"):
        if folder.is_dir() and folder.name not in params.datasets:
            shutil.rmtree(folder)
    code = _watch_code(paths, studies, params.scale)
    lengths = lengths_of(studies, params.scale)
    for dataset in params.datasets:
        asked = {"lengths": lengths.get(dataset, ()), "sizes": dataclasses.asdict(sizes)}
        files = _watch_files(paths, dataset)
        write_digest(paths.request(dataset), asked | ({"files": files} if files else {}))
    read = []
    for name, study in studies.items():
        scales = {scale: override for scale, override in study.scales.items() if scale == params.scale}
        read.append({"name": name, **dataclasses.asdict(dataclasses.replace(study, scales=scales))})
    write_digest(paths.listed_studies, [*read, {"code": code}] if code else read)
    keep_listed(paths.request, params.datasets)


def _watch_code(paths: Paths, studies: Mapping[str, Study], scale: str) -> dict[str, str]:
    """Return the sha256 of every module that networks of one's own are made of, and keep links for DVC to follow.

    What cannot be found, `plan` says.

    Raises:
        PipelineError: If a file cannot be read, or a link cannot be made.
    """
    files: dict[str, Path] = {}
    for name, study in studies.items():
        for setting in expand(study, scale, f"configs/studies/{name}.yaml"):
            model = setting.spec.get("model")
            if isinstance(model, Mapping) and isinstance(model.get("import"), str):
                files |= own_files(model["import"].partition(":")[0])
    folder = paths.watched("any").parent / CODE
    try:
        for module, path in files.items():
            _link(paths, folder / f"{module}.py", path)
        return {module: digest_of_file(path) for module, path in sorted(files.items())}
    except OSError as error:
        raise PipelineError(f"{folder}: cannot hold links to modules: {error.strerror}") from None


def _link(paths: Paths, link: Path, path: Path) -> None:
    """Make a link; in a copied project those to its own files are to the copy's."""
    link.parent.mkdir(parents=True, exist_ok=True)
    inside = path.resolve().is_relative_to(paths.root.resolve())
    link.symlink_to(os.path.relpath(path, link.parent) if inside else path)


def _watch_files(paths: Paths, dataset: str) -> dict[str, str]:
    """Return the sha256 of every file that a dataset names, by key, and keep a link to each for DVC to follow.

    Raises:
        ConfigError: If one cannot be read; its link is gone then, since DVC cannot follow it.
        PipelineError: If a link cannot be made.
    """
    config_path, folder = paths.dataset_config(dataset), paths.watched(dataset)
    config = read_yaml(config_path)
    keys = config if isinstance(config, Mapping) else {}  # what else it may be, `prepare` says
    shutil.rmtree(folder, ignore_errors=True)
    digests = {}
    for key, link_name, path in named_files(paths.root, keys):
        where = f"configs/datasets/{config_path.name}.{key.partition('/')[0]}"
        try:
            if path.is_fifo() or path.is_socket() or path.is_char_device():
                raise ConfigError(f"{where}: {path}: expected a file, got what only its writer knows the end of")
            digests[key] = digest_of_file(path)
        except FileNotFoundError:
            beside = (other.name for other in path.parent.glob("*") if other.is_file())
            raise ConfigError(f"{where}: {path}: no such file; {unknown_name('file', path.name, beside)}") from None
        except OSError as error:
            raise ConfigError(f"{where}: {path}: cannot be read: {error.strerror}") from None
        except ValueError:
            raise ConfigError(f"{where}: expected the path of a file, got one with a byte 0: {str(path)!r}") from None
        try:
            _link(paths, folder / link_name, path)
        except OSError as error:
            raise PipelineError(f"{folder}: cannot hold a link to {path}: {error.strerror}") from None
    return digests


def named_files(root: Path, config: Mapping[str, Any]) -> Iterator[tuple[str, str, Path]]:
    """Yield the files that a dataset's configuration names: key, name of the link, path."""
    for key, value in config.items():
        files = value if isinstance(value, list) else [value]
        if str(key).endswith("_file"):
            for place, file in enumerate(files):
                if isinstance(file, str):
                    one = f"{key}/{place}" if len(files) > 1 else str(key)
                    yield one, f"{one}={Path(file).name}", root / file
        elif str(key).endswith("_folder") and isinstance(value, str):
            folder = root / value
            if not folder.is_dir():
                yield str(key), str(key), folder
            for path in filter(Path.is_file, paths_below(folder)):
                one = f"{key}/{path.relative_to(folder).as_posix()}"
                yield one, one, path
