"""A study file: one question, the settings that answer it, and how to choose between learning rates.

A study has a `base` that every setting begins with, and grids. A grid overrides the base (`set`) and spans
the product of its `axes`; keys are dotted paths into the spec, such as `model.cell`. A scale may override
both, so that the same study runs as a smoke test on a laptop and as published on a cluster.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.config.paths import Paths
from pipeline.config.strict import build, read_yaml, require
from pipeline.errors import ConfigError, unknown_name


@dataclass(frozen=True)
class Grid:
    """Settings that differ along `axes`, all with `set` applied to the base."""

    set: Mapping[str, Any]
    axes: Mapping[str, tuple[Any, ...]]

    def __post_init__(self) -> None:
        _require_values(self.axes, "axes")


@dataclass(frozen=True)
class ScaleOverride:
    """What a scale changes: `set` after the grid's own, and whole axes, by grid."""

    set: Mapping[str, Any]
    axes: Mapping[str, Mapping[str, tuple[Any, ...]]]

    def __post_init__(self) -> None:
        for grid, axes in self.axes.items():
            _require_values(axes, f"axes.{grid}")


@dataclass(frozen=True)
class Selection:
    """Each arm is shown at the value of `over` with the lowest median of `metric` over seeds."""

    over: tuple[str, ...]
    metric: str


@dataclass(frozen=True)
class Study:
    """One question, as configs/studies/<name>.yaml asks it."""

    question: str
    claims: tuple[str, ...]
    base: Mapping[str, Any]
    grids: Mapping[str, Grid]
    select: Selection | None
    scales: Mapping[str, ScaleOverride]


@dataclass(frozen=True)
class RawSetting:
    """One point of a grid: the values of its axes, and the whole spec as plain mappings (seeds not in it)."""

    grid: str
    axes: Mapping[str, Any]
    spec: Mapping[str, Any]
    where: str


def load_study(paths: Paths, name: str) -> Study:
    """Return the study called `name`, with the names that it uses itself checked.

    Raises:
        ConfigError: If its file is missing or wrong, or an override or selection names no grid or axis.
    """
    where = str(paths.study_config(name).relative_to(paths.root))
    study: Study = build(Study, read_yaml(paths.study_config(name)), where)
    if not study.grids:
        raise ConfigError(f"{where}.grids: expected at least one grid, got none")
    for scale, override in study.scales.items():
        if not paths.scale_config(scale).is_file():
            known = (path.stem for path in paths.scale_config(scale).parent.glob("*.yaml"))
            raise ConfigError(f"{where}.scales: {unknown_name('scale', scale, known)}")
        for grid, axes in override.axes.items():
            if grid not in study.grids:
                raise ConfigError(f"{where}.scales.{scale}.axes: {unknown_name('grid', grid, study.grids)}")
            for axis in axes:
                if axis not in study.grids[grid].axes:
                    raise ConfigError(
                        f"{where}.scales.{scale}.axes.{grid}: {unknown_name('axis', axis, study.grids[grid].axes)}"
                    )
    for axis in study.select.over if study.select else ():
        axes_of_all = {axis for grid in study.grids.values() for axis in grid.axes}
        if axis not in axes_of_all:
            raise ConfigError(f"{where}.select.over: {unknown_name('axis', axis, axes_of_all)}")
    return study


def expand(study: Study, scale: str, where: str) -> list[RawSetting]:
    """Return every setting of `study` at `scale`, in the order of the file.

    Raises:
        ConfigError: If a dotted key runs through something that is not a mapping.
    """
    override = study.scales.get(scale, ScaleOverride(set={}, axes={}))
    settings = []
    for grid_name, grid in study.grids.items():
        axes = {**grid.axes, **override.axes.get(grid_name, {})}
        for values in itertools.product(*axes.values()):
            point = dict(zip(axes, values, strict=True))
            spec = copy.deepcopy(dict(study.base))
            for source, changes in (
                (f"grids.{grid_name}.set", grid.set),
                (f"scales.{scale}.set", override.set),
                (f"grids.{grid_name}.axes", point),
            ):
                for key, value in changes.items():
                    _assign(spec, key, value, f"{where}.{source}")
            settings.append(RawSetting(grid_name, point, spec, f"{where}.grids.{grid_name}"))
    return settings


def lengths_of(studies: Mapping[str, Study], scale: str, dataset: str) -> tuple[int, ...]:
    """Return, sorted, every `dataset.length` that `studies` ask of `dataset` at `scale`.

    This is why a new length is written in one place only, the study: `prepare` makes what studies ask for.

    Raises:
        ConfigError: If a length is neither null nor an integer.
    """
    lengths: set[int] = set()
    for name, study in studies.items():
        for setting in expand(study, scale, f"configs/studies/{name}.yaml"):
            wanted = setting.spec.get("dataset")
            if not isinstance(wanted, Mapping) or wanted.get("name") != dataset:
                continue
            length = build(int | None, wanted.get("length"), f"{setting.where}.dataset.length")
            if length is not None:
                lengths.add(length)
    return tuple(sorted(lengths))


def _require_values(axes: Mapping[str, tuple[Any, ...]], where: str) -> None:
    for axis, values in axes.items():
        require(len(values) > 0, f"{where}.{axis}", "at least one value", list(values))
        distinct = [value for i, value in enumerate(values) if value not in values[:i]]
        require(len(distinct) == len(values), f"{where}.{axis}", "each value once", list(values))


def _assign(spec: dict[str, Any], key: str, value: Any, where: str) -> None:
    *parents, last = key.split(".")
    node: Any = spec
    for parent in parents:
        if not isinstance(node.setdefault(parent, {}), dict):
            raise ConfigError(f"{where}: {key!r} runs through {parent!r}, which is not a mapping")
        node = node[parent]
    node[last] = copy.deepcopy(value)
