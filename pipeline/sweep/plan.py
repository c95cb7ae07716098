"""The plan of a study: every setting as a checked spec with its trial id, and which of them are still to train.

Everything that can be wrong is found here, before a second of training.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, get_type_hints

import polars as pl

from pipeline.config import (
    Params,
    Paths,
    RawSetting,
    Selection,
    Study,
    build,
    expand,
    load_scale,
    load_study,
    seeds_of,
)
from pipeline.config.search import Halving, TpeSearch
from pipeline.config.strict import InvalidFieldError, plain, unknown_file
from pipeline.config.study import VARIANT, Proposed, searches_of
from pipeline.core.identity import code_digest
from pipeline.core.models import CustomModel
from pipeline.core.training.data import interface_of
from pipeline.core.training.spec import TrialSpec, check_fit, trial_id
from pipeline.data import Manifest, Variant, combined_digest, read_manifest
from pipeline.errors import ConfigError, DatasetError, unknown_name
from pipeline.results.schema import TRIALS
from pipeline.sweep.estimate import Workload, duration_s, memory_bytes

_PARTS = get_type_hints(TrialSpec)
_SHORT_NAMES = {"dataset.length": "T", "model.hidden_size": "H", "optimiser.learning_rate": "lr"}
_FIRST_IN_LABELS = (VARIANT, "model.cell", "model", "dataset.name", "dataset", "dataset.length")


@dataclass(frozen=True)
class Setting:
    """One point of a study, ready to train.

    Attributes:
        grid: Name of its grid in the study.
        position: Place in the plan, from 0, in the order of the study's file.
        axes: The values that set it apart in its grid, by dotted key; `variant` first where the grid has variants.
        label: The same for people: `lstm, T=100, lr=0.003`.
        spec: What to train.
        trial_id: Made from spec and data; two settings that ask the same share it.
        dataset_digest: Of the data that the spec names.
        code_digest: Of the code that the spec uses.
        stored: Whether the trial store has it.
        duration_s: A rough guess of the training time on one core; 0 where nobody asks.
        memory_bytes: About what it needs; 0 likewise.
        halving: Of its grid; None where every setting trains to its end.
        stop_at: Steps after which it stops to be judged, or was stopped for good; None is its end.
    """

    grid: str
    position: int
    axes: Mapping[str, Any]
    label: str
    spec: TrialSpec
    trial_id: str
    dataset_digest: str
    code_digest: str
    stored: bool = False
    duration_s: float = 0.0
    memory_bytes: int = 0
    halving: Halving | None = None
    stop_at: int | None = None


@dataclass(frozen=True)
class Plan:
    """Every setting of a study in the order of its file, how the study selects among them, and a trial's time limit.

    `searches` has, by grid, those that propose further settings once these are finished.
    """

    study: str
    settings: tuple[Setting, ...]
    select: Selection | None
    max_wall_time_s: float
    searches: Mapping[str, TpeSearch] = field(default_factory=dict)

    @property
    def trials(self) -> tuple[Setting, ...]:
        """One setting for each trial id, the first that has it."""
        return tuple({setting.trial_id: setting for setting in reversed(self.settings)}.values())[::-1]

    @property
    def missing(self) -> tuple[Setting, ...]:
        """What is to train, longest first: the last ones to finish are then short and no core waits for long."""
        return tuple(sorted((s for s in self.trials if not s.stored), key=lambda s: -s.duration_s))

    def with_stored(self, stored_ids: Collection[str]) -> Plan:
        """Return the plan with `stored` set anew."""
        settings = tuple(replace(s, stored=s.trial_id in stored_ids) for s in self.settings)
        return replace(self, settings=settings)

    def digest(self) -> dict[str, Any]:
        """Return all that the tables of the study follow from besides the code: two equal ones need no second sweep."""
        return {
            "study": self.study,
            "select": None if self.select is None else asdict(self.select),
            "max_wall_time_s": self.max_wall_time_s,
            **({"searches": {grid: asdict(search) for grid, search in self.searches.items()}} if self.searches else {}),
            "settings": [
                {
                    "grid": setting.grid,
                    "axes": dict(setting.axes),
                    "trial_id": setting.trial_id,
                    "dataset_digest": setting.dataset_digest,
                    "spec": plain(setting.spec),
                    **({"halving": asdict(setting.halving)} if setting.halving else {}),
                }
                for setting in self.settings
            ],
        }


def check_listed(paths: Paths, params: Params, study: str) -> None:
    """Check that params.yaml lists a study.

    Raises:
        ConfigError: If it does not.
    """
    if study not in params.studies:
        raise ConfigError(f"{paths.params.name}: studies: {unknown_name('study', study, params.studies)}")


def plan_study(
    paths: Paths,
    params: Params,
    name: str,
    memory_limit_bytes: int | None = None,
    proposed: Proposed | None = None,
    stored: Collection[str] = (),
) -> Plan:
    """Return the plan of study `name` at the scale of `params`, as if nothing were stored.

    Args:
        paths: Where the files are.
        params: What to run; must list the study and its datasets.
        name: The study.
        memory_limit_bytes: Refuse a trial that needs more; None where the memory is another machine's.
        proposed: The points known so far of searches that propose them from results; None is their first generation.
        stored: Trials that will not be trained, whatever memory they need.

    Raises:
        ConfigError: If the study or one of its settings is impossible, two settings of a grid are one trial, or a
            dataset of it is not listed.
        DatasetError: If a dataset is not prepared, or not at the length asked.
    """
    check_listed(paths, params, name)
    study, scale = load_study(paths, name), load_scale(paths, params.scale)
    override = study.scales.get(params.scale)
    seeds = seeds_of(params, scale, override.num_seeds if override else None)
    where = str(paths.study_config(name).relative_to(paths.root))
    _check_selection(study, where)
    manifests: dict[str, Manifest] = {}
    settings: list[Setting] = []
    names: dict[tuple[str, str], Setting] = {}
    parts: dict[tuple[str, str], Any] = {}
    costs: dict[tuple[int, ...], tuple[int, float]] = {}
    for raw in expand(study, params.scale, where, proposed):
        spec = _spec({**raw.spec, "seeds": seeds}, raw.where, parts)
        manifest = _manifest(paths, params, spec.dataset.name, raw.where, manifests)
        variant = _variant(manifest, spec.dataset.length, f"{raw.where}.dataset.length")
        unseen = [
            _variant(manifest, length, f"{raw.where}.dataset.unseen_lengths") for length in spec.dataset.unseen_lengths
        ]
        _check_fit(spec, variant, raw.where)
        needed_bytes, needed_s = _cost(spec, variant, costs)
        _check_halving(spec, variant, raw)
        digest = combined_digest([variant.digest, *(other.digest for other in unseen)])
        code = code_digest(spec)
        setting = Setting(
            grid=raw.grid,
            position=len(settings),
            axes=raw.axes,
            label=label_of(raw),
            spec=spec,
            trial_id=trial_id(spec, digest, code),
            dataset_digest=digest,
            code_digest=code,
            duration_s=needed_s,
            memory_bytes=needed_bytes,
            halving=raw.halving,
        )
        if setting.trial_id not in stored:
            _check_memory(spec, needed_bytes, memory_limit_bytes, raw.where)
        if (other := names.setdefault((raw.grid, setting.trial_id), setting)) is not setting:
            what = f"expected settings that differ, {other.label!r} and {setting.label!r} are one trial"
            raise ConfigError(f"{raw.where}: {what}: what sets them apart is set again by something later")
        settings.append(setting)
    return Plan(
        study=name,
        settings=tuple(settings),
        select=study.select,
        max_wall_time_s=scale.max_wall_time_s,
        searches=searches_of(study, params.scale),
    )


def _check_halving(spec: TrialSpec, variant: Variant, raw: RawSetting) -> None:
    """Check that a setting which is halved has rungs, at which it is evaluated, and seeds to judge it by.

    Raises:
        ConfigError: If not.
    """
    if (halving := raw.halving) is None:
        return
    where, training = f"{raw.where}.halving", spec.training
    if halving.first >= training.max_steps:
        expected = f"fewer steps than training.max_steps ({training.max_steps})"
        raise ConfigError(f"{where}.first: expected {expected}; got {halving.first}")
    if halving.first % training.evaluate_every:
        expected = f"a multiple of training.evaluate_every ({training.evaluate_every})"
        raise ConfigError(f"{where}.first: expected {expected}; got {halving.first}")
    if halving.metric == "best_validation_error" and interface_of(variant).target_kind != "class":
        expected = "a metric of losses: the targets are real, so there is no error"
        raise ConfigError(f"{where}.metric: expected {expected} (dataset {spec.dataset.name!r}); got {halving.metric}")
    if len(spec.seeds) < 2:
        raise ConfigError(f"{where}: expected at least 2 seeds, of which there is an interval; got {len(spec.seeds)}")


def label_of(raw: RawSetting) -> str:
    """Return «clip + Ω, lstm, T=100, lr=0.003» from the axes of a setting; the grid's name where it has none."""
    first = [axis for axis in _FIRST_IN_LABELS if axis in raw.axes]
    order = [*first, *(axis for axis in raw.axes if axis not in first)]
    return ", ".join(_part_of_label(axis, raw.axes[axis]) for axis in order) or raw.grid


def _part_of_label(axis: str, value: Any) -> str:
    """Return «lstm», «T=100»; of a whole object its name, or its fields where it has none."""
    if isinstance(value, Mapping):
        return str(value.get("name") or ", ".join(_part_of_label(f"{axis}.{key}", part) for key, part in value.items()))
    return value if isinstance(value, str) else f"{_SHORT_NAMES.get(axis, axis.rpartition('.')[2])}={value}"


def _check_selection(study: Study, where: str) -> None:
    metrics = [name for name, dtype in TRIALS.items() if dtype == pl.Float64]
    if study.select is not None and study.select.metric not in metrics:
        raise ConfigError(f"{where}.select.metric: {unknown_name('metric', study.select.metric, metrics)}")


def _manifest(paths: Paths, params: Params, name: str, where: str, known: dict[str, Manifest]) -> Manifest:
    """Return the manifest of a dataset, read once; a folder that params.yaml does not list does not count.

    Such a folder may be a left-over that no other clone has.

    Raises:
        ConfigError: If there is no such dataset, or params.yaml does not list it.
        DatasetError: If it is not prepared.
    """
    if not (config := paths.dataset_config(name)).is_file():
        raise ConfigError(f"{where}.dataset.name: {unknown_file('dataset', config)}")
    if name not in params.datasets:
        listed = ", ".join(params.datasets)
        raise ConfigError(f"{where}.dataset.name: expected a dataset that params.yaml lists, {listed}; got {name!r}")
    if not paths.dataset(name).is_dir():
        raise DatasetError(f"{paths.dataset(name)}: dataset {name!r} is not prepared; run `dvc repro prepare@{name}`")
    if name not in known:
        known[name] = read_manifest(paths.dataset(name))
    return known[name]


def _variant(manifest: Manifest, length: int | None, where: str) -> Variant:
    try:
        return manifest.variant(length)
    except DatasetError as error:
        raise DatasetError(f"{where}: {error}; `dvc repro prepare@{manifest.name}`") from None


def _check_fit(spec: TrialSpec, variant: Variant, where: str) -> None:
    """Check a spec against its data.

    Raises:
        ConfigError: If the data cannot feed such a trial.
    """
    try:
        check_fit(spec, variant.num_sequences, interface_of(variant), variant.num_timesteps)
    except InvalidFieldError as error:
        raise ConfigError(
            f"{where}.{error.field}: expected {error.expected} (dataset {spec.dataset.name!r}); got {error.got!r}"
        ) from None


def _check_memory(spec: TrialSpec, needed: int, limit: int | None, where: str) -> None:
    """Check what a trial needs against what there is.

    Raises:
        ConfigError: If the machine cannot hold it.
    """
    if limit is not None and needed > limit:
        model, size, what = spec.model, "", f"{len(spec.seeds)} replicas"
        if not isinstance(model, CustomModel):
            size, what = ".hidden_size", f"{what} with {model.hidden_size} hidden units"
        raise ConfigError(
            f"{where}.model{size}: expected a trial that fits into the {limit / 2**30:.1f} GiB "
            f"of memory that are free; {what} need about {needed / 2**30:.1f} GiB"
        )


def _spec(raw: Mapping[str, Any], where: str, known: dict[tuple[str, str], Any]) -> TrialSpec:
    """Return the checked spec of a setting; of ten thousand few parts differ, and each is built and checked once.

    Raises:
        ConfigError: If it is none.
    """
    parts = dict(raw)
    for name, part in raw.items():
        if name in _PARTS and isinstance(part, Mapping):
            key = (name, repr(part))
            if key not in known:
                known[key] = build(_PARTS[name], part, f"{where}.{name}")
            parts[name] = known[key]
    spec: TrialSpec = build(TrialSpec, parts, where)
    return spec


def _cost(spec: TrialSpec, variant: Variant, known: dict[tuple[int, ...], tuple[int, float]]) -> tuple[int, float]:
    """Return the bytes and seconds that a trial needs; `known` has them by the ids of parts that live as long."""
    key = (id(spec.model), id(spec.training), id(spec.diagnostics), id(variant))
    if key not in known:
        num_timesteps = variant.num_timesteps + variant.num_written
        work = Workload(num_timesteps, interface_of(variant), variant.num_bytes, variant.num_written)
        known[key] = memory_bytes(spec, work), duration_s(spec, work)
    return known[key]
