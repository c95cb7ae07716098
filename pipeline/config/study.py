"""A study file: one question, the settings that answer it, and how to choose between learning rates.

Every setting begins with configs/base.yaml. A study changes it (`set`) and has grids; a grid changes it further, names
arms that differ in several fields together (`variants`), and spans the product of variants, `axes` and the points of a
`search`. Keys are dotted paths into the spec, such as `model.cell`. A scale may override all of it, so that the same
study runs as a smoke test on a laptop and as published on a cluster. The later wins: base, the study's `set`, the
grid's, the scale's, the scale's changes to that grid, the variant, the axes and the search. In one of these, a key and
a part of it (`optimiser` and `optimiser.learning_rate`) are refused, in any order, and so are two settings of a grid
that are one trial. What is empty need not be written.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pipeline.config.params import require_num_seeds
from pipeline.config.paths import Paths
from pipeline.config.search import Halving, Search, TpeSearch, require_values
from pipeline.config.strict import (
    Checked,
    InvalidFieldError,
    build,
    read_yaml,
    require,
    require_apart,
    require_names,
    unknown_file,
)
from pipeline.errors import ConfigError, unknown_name

Declared = TypeVar("Declared", bound=Search | Halving)

Proposed = Mapping[tuple[str, str], Sequence[Mapping[str, Any]]]
"""The points known so far of each arm (`arm_of`) that a search proposes points for."""

VARIANT = "variant"
"""The axis that a grid's variants make; every other axis is a dotted key."""


@dataclass(frozen=True)
class Grid(Checked):
    """Settings that differ in their variant, along `axes` and by the points of `search`, all with `set` applied.

    A variant is a label, and what it changes by dotted key. `figures` are those of the report in their order; null is
    every one that applies. With `halving`, what is clearly worse than its rivals is stopped early.
    """

    figures: tuple[str, ...] | None = None
    set: Mapping[str, Any] = field(default_factory=dict)
    variants: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    axes: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    search: Search | None = None
    halving: Halving | None = None

    def __post_init__(self) -> None:
        for label, changes in self.variants.items():
            require(label != "" and label == label.strip(), "variants", "labels without blanks at the ends", label)
            require_apart(changes, f"variants.{label}")
        require_apart(self.set, "set")
        require_apart(self.axes, "axes")
        figures = self.figures or ()
        require(len({*figures}) == len(figures), "figures", "each figure once", list(figures))
        require(VARIANT not in self.axes, "axes", "dotted keys of the spec; labels belong under `variants`", VARIANT)
        _require_values(self.axes, "axes")
        for key in self.search.space if self.search else ():
            require(key not in {VARIANT, *self.axes}, "search.space", "dotted keys of the spec that are no axis", key)
        require_apart(self.varied, "search.space")
        both = isinstance(self.search, TpeSearch) and self.halving is not None
        require(not both, "halving", "no halving beside a search that waits for whole results", "tpe")

    @property
    def all_axes(self) -> dict[str, tuple[Any, ...]]:
        """The values of every axis; where there are variants, their labels are the first one."""
        labels = {VARIANT: tuple(self.variants)} if self.variants else {}
        return {**labels, **self.axes}

    @property
    def varied(self) -> tuple[str, ...]:
        """The keys of every axis, and of the space that is searched."""
        return (*self.all_axes, *(self.search.space if self.search else ()))


@dataclass(frozen=True)
class ScaleOverride(Checked):
    """What a scale changes: `set` in every grid, `grids` in one, whole `axes` of one; `skip` names grids left out.

    `num_seeds` is the study's own number, where its claims need more than others, or can do with fewer. `search` and
    `halving` have, by grid, keys of its search and halving.
    """

    set: Mapping[str, Any] = field(default_factory=dict)
    grids: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    axes: Mapping[str, Mapping[str, tuple[Any, ...]]] = field(default_factory=dict)
    search: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    halving: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    skip: tuple[str, ...] = ()
    num_seeds: int | None = None

    def __post_init__(self) -> None:
        if self.num_seeds is not None:
            require_num_seeds(self.num_seeds)
        require_apart(self.set, "set")
        for grid, changes in self.grids.items():
            require_apart(changes, f"grids.{grid}")
        for grid, axes in self.axes.items():
            _require_values(axes, f"axes.{grid}")
        require(len({*self.skip}) == len(self.skip), "skip", "each grid once", list(self.skip))


@dataclass(frozen=True)
class Selection(Checked):
    """Each arm is shown at the value of `over` with the lowest median of `metric` over seeds."""

    over: tuple[str, ...]
    metric: str


@dataclass(frozen=True)
class Study(Checked):
    """One question, as configs/studies/<name>.yaml asks it; `base` is what configs/base.yaml holds."""

    question: str
    base: Mapping[str, Any]
    grids: Mapping[str, Grid]
    claims: tuple[str, ...] = ()
    set: Mapping[str, Any] = field(default_factory=dict)
    select: Selection | None = None
    scales: Mapping[str, ScaleOverride] = field(default_factory=dict)

    def __post_init__(self) -> None:
        require_names(self.grids, "grids")
        require_names(self.scales, "scales")
        require_names(self.claims, "claims")
        require(len({*self.claims}) == len(self.claims), "claims", "each claim once", list(self.claims))
        require_apart(self.set, "set")


@dataclass(frozen=True)
class RawSetting:
    """One point of a grid: the values of its axes, and the whole spec as plain mappings (seeds not in it).

    Where the grid has variants, `axes` begins with `variant`, the label. `halving` is the grid's.
    """

    grid: str
    axes: Mapping[str, Any]
    spec: Mapping[str, Any]
    where: str
    halving: Halving | None = None


def load_study(paths: Paths, name: str) -> Study:
    """Return the study called `name`, with the names that it uses itself checked.

    Raises:
        ConfigError: If its file is missing or wrong, or an override or selection names no grid, axis or variant.
    """
    where = str(paths.study_config(name).relative_to(paths.root))
    content = read_yaml(paths.study_config(name))
    if isinstance(content, Mapping):
        if "base" in content:
            raise ConfigError(f"{where}: key 'base': every study begins with configs/base.yaml; changes go under 'set'")
        content = {**content, "base": read_yaml(paths.base)}
    study: Study = build(Study, content, where)
    if not study.grids:
        raise ConfigError(f"{where}.grids: expected at least one grid, got none")
    for scale, override in study.scales.items():
        if not paths.scale_config(scale).is_file():
            raise ConfigError(f"{where}.scales: {unknown_file('scale', paths.scale_config(scale))}")
        _check_override(study, override, f"{where}.scales.{scale}")
    axes = {axis for grid in study.grids.values() for axis in grid.varied}
    over = study.select.over if study.select else ()
    for axis in over:
        if axis not in axes:
            raise ConfigError(f"{where}.select.over: {unknown_name('axis', axis, axes)}")
    for name, grid in study.grids.items():
        for key in grid.search.space if isinstance(grid.search, TpeSearch) else ():
            if key not in over:
                expected = f"{key!r} under select.over, and a metric there: points are proposed by it"
                raise ConfigError(f"{where}.grids.{name}.search: expected {expected}; got {list(over)}")
        if grid.halving and not {*over} & {*grid.varied}:
            expected = "an axis or a searched key of the grid under select.over: settings compete with those"
            raise ConfigError(f"{where}.grids.{name}.halving: expected {expected}; got {list(over)}")
    return study


def expand(study: Study, scale: str, where: str, proposed: Proposed | None = None) -> list[RawSetting]:
    """Return every setting of `study` at `scale`, in the order of the file.

    Of a search that proposes points from results those of `proposed`, or else its first generation.

    Raises:
        ConfigError: If a dotted key runs through something that is not a mapping, or a space has too few points.
    """
    override = study.scales.get(scale, ScaleOverride())
    settings = []
    for name, grid in study.grids.items():
        if name in override.skip:
            continue
        halving = grid.halving and _changed(grid.halving, override.halving.get(name, {}), where)
        for point in _points(name, grid, override, where, proposed or {}):
            label = point.get(VARIANT)
            changes = {
                "set": study.set,
                f"grids.{name}.set": grid.set,
                f"scales.{scale}.set": override.set,
                f"scales.{scale}.grids.{name}": override.grids.get(name, {}),
                f"grids.{name}.variants.{label}": {} if label is None else grid.variants[label],
                f"grids.{name}.axes": {axis: value for axis, value in point.items() if axis != VARIANT},
            }
            spec = dict(study.base)
            for source, changed in changes.items():
                for key, value in changed.items():
                    _assign(spec, key, value, f"{where}.{source}")
            if "seeds" in spec:
                raise ConfigError(f"{where}.grids.{name}: key 'seeds': seeds are those of params.yaml, for every study")
            place = name if label is None else f"{name}[{label}]"
            place = f"{where}.grids.{place}"
            settings.append(RawSetting(grid=name, axes=point, spec=spec, where=place, halving=halving))
    return settings


def searches_of(study: Study, scale: str) -> dict[str, TpeSearch]:
    """Return the searches of a study that propose points from results, by grid, as they are at a scale."""
    override = study.scales.get(scale, ScaleOverride())
    return {
        name: _changed(grid.search, override.search.get(name, {}), name)
        for name, grid in study.grids.items()
        if isinstance(grid.search, TpeSearch) and name not in override.skip
    }


def arm_of(grid: str, axes: Mapping[str, Any], but: Collection[str]) -> tuple[str, str]:
    """Return what the settings have in common that differ in the axes `but`: what is selected over, or searched.

    That is their grid and every other axis, whose values, where they are whole objects, lack those fields too.
    """
    return grid, repr(_without(axes, tuple(f"{axis}." for axis in but)))


def _without(axes: Mapping[str, Any], but: tuple[str, ...], prefix: str = "") -> dict[str, Any]:
    return {
        key: _without(value, but, f"{prefix}{key}.") if isinstance(value, Mapping) else value
        for key, value in axes.items()
        if not f"{prefix}{key}.".startswith(but)
    }


def _points(name: str, grid: Grid, override: ScaleOverride, where: str, proposed: Proposed) -> Iterator[dict[str, Any]]:
    """Yield the values of a grid's axes, and with each of them every point of its search.

    Raises:
        ConfigError: If the space that is searched has too few points.
    """
    axes = {**grid.all_axes, **override.axes.get(name, {})}
    search = grid.search and _changed(grid.search, override.search.get(name, {}), where)
    try:
        searched = search.points() if search else [{}]
    except InvalidFieldError as error:
        place = f"{where}.grids.{name}.search.{error.field}"
        raise ConfigError(f"{place}: expected {error.expected}, got {error.got}") from None
    for values in itertools.product(*axes.values()):
        point = dict(zip(axes, values, strict=True))
        known = proposed.get(arm_of(name, point, search.space), searched) if search else searched
        for found in known:
            yield {**point, **found}


def _changed(declared: Declared, changes: Mapping[str, Any], where: str) -> Declared:
    """Return a search, or a halving, with the keys that a scale changes."""
    changed: Declared = build(type(declared), {**vars(declared), **changes}, where)
    return changed


def lengths_of(studies: Mapping[str, Study], scale: str) -> dict[str, tuple[int, ...]]:
    """Return, by dataset and sorted, every length that `studies` ask of it at `scale`, to train or to test on.

    This is why a new length is written in one place only, the study: `prepare` makes what studies ask for. A dataset
    that no study asks for is not there.

    Raises:
        ConfigError: If a length is neither null nor an integer.
    """
    lengths = defaultdict[str, set[int | None]](set)
    for name, study in studies.items():
        for setting in expand(study, scale, f"configs/studies/{name}.yaml"):
            wanted, where = setting.spec.get("dataset"), f"{setting.where}.dataset"
            if isinstance(wanted, Mapping):
                mine = lengths[str(wanted.get("name"))]
                mine.add(build(int | None, wanted.get("length"), f"{where}.length"))
                mine.update(build(tuple[int, ...], wanted.get("unseen_lengths", []), f"{where}.unseen_lengths"))
    return {dataset: tuple(sorted(each for each in mine if each is not None)) for dataset, mine in lengths.items()}


def _check_override(study: Study, override: ScaleOverride, where: str) -> None:
    """Check every name in what a scale changes.

    Raises:
        ConfigError: If a grid, axis or variant is unknown, a skipped grid is changed, or no grid is left.
    """
    for part in ("grids", "axes", "search", "halving", "skip"):
        for name in getattr(override, part):
            if name not in study.grids:
                raise ConfigError(f"{where}.{part}: {unknown_name('grid', name, study.grids)}")
            if name in override.skip and part != "skip":
                raise ConfigError(f"{where}.{part}: expected no changes to {name!r}, which this scale skips")
    for part in ("search", "halving"):
        for name, changes in getattr(override, part).items():
            if (declared := getattr(study.grids[name], part)) is None:
                raise ConfigError(f"{where}.{part}.{name}: expected a grid with a {part}; got one without")
            changed = _changed(declared, changes, f"{where}.{part}.{name}")
            for key in changed.space if part == "search" else ():
                if key not in declared.space:
                    raise ConfigError(f"{where}.search.{name}.space: {unknown_name('key', key, declared.space)}")
    if len(override.skip) == len(study.grids):
        raise ConfigError(f"{where}.skip: expected at least one grid to be left, got all: {', '.join(override.skip)}")
    for name, axes in override.axes.items():
        grid = study.grids[name]
        for axis in axes:
            if axis not in grid.all_axes:
                raise ConfigError(f"{where}.axes.{name}: {unknown_name('axis', axis, grid.all_axes)}")
        for label in axes.get(VARIANT, ()):
            if label not in tuple(grid.variants):
                raise ConfigError(f"{where}.axes.{name}.{VARIANT}: {unknown_name('variant', label, grid.variants)}")


def _require_values(axes: Mapping[str, tuple[Any, ...]], where: str) -> None:
    for axis, values in axes.items():
        require_values(values, f"{where}.{axis}")


def _assign(spec: dict[str, Any], key: str, value: Any, where: str) -> None:
    """Set a dotted key; what holds it is copied on the way, since settings share all that they do not change.

    Raises:
        ConfigError: If the key runs through what is no mapping.
    """
    *parents, last = key.split(".")
    node = spec
    for parent in parents:
        if not isinstance(held := node.get(parent, {}), Mapping):
            raise ConfigError(f"{where}: {key!r} runs through {parent!r}, which is not a mapping")
        node[parent] = node = dict(held)
    node[last] = value
