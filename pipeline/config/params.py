"""params.yaml and the scale file it names, as frozen dataclasses."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Literal

from pipeline.config.paths import Paths
from pipeline.config.strict import Checked, build, read_yaml, require, require_names, unknown_file
from pipeline.errors import ConfigError

MAX_SEEDS = 10_000
"""More replicas than this in one trial are a slip of the keyboard."""

MAX_START = 2**31
"""The largest first seed."""

MAX_SETTINGS = 1000
"""More settings than this in one program are more threads than a process should have."""

MIN_SILENCE_S = 60.0
"""Less than a slow step may take, and workers say every five seconds how far they are."""

MIN_SHARE = 0.0001
"""The smallest part of a CPU or GPU that Ray can keep apart."""


@dataclass(frozen=True)
class SeedRange(Checked):
    """Seeds `start, start+1, ...`; `count: null` means as many as the scale says."""

    start: int
    count: int | None

    def __post_init__(self) -> None:
        require(self.start >= 0, "start", "an integer of at least 0", self.start)
        expected = f"null or an integer from 1 to {MAX_SEEDS}"
        require(self.count is None or 1 <= self.count <= MAX_SEEDS, "count", expected, self.count)
        require(self.start <= MAX_START, "start", f"an integer of at most {MAX_START}", self.start)


@dataclass(frozen=True)
class Resources(Checked):
    """What one trial asks of Ray, or one program of several; fractions of a GPU let programs share one.

    At most `settings_per_program` settings that differ in what is each replica's own (first weights, optimiser,
    clipping, forcing) are trained in one program, where that pays; 1 trains each by itself. `gpus_per_trial` is a
    number, or `auto`: as many programs share a GPU as a sweep finds to fit and to pay. A worker of Ray's that has
    made no progress for `max_silence_s` seconds is killed, and its settings go on elsewhere; null lets it hang.
    """

    cpus_per_trial: float
    gpus_per_trial: Any
    settings_per_program: int = 32
    max_silence_s: float | None = 1800.0

    def __post_init__(self) -> None:
        cpus, gpus, expected = self.cpus_per_trial, self.gpus_per_trial, f"auto, 0 or a number of at least {MIN_SHARE}"
        if gpus != "auto":
            number = isinstance(gpus, int | float) and not isinstance(gpus, bool) and math.isfinite(gpus)
            require(number and (gpus == 0 or gpus >= MIN_SHARE), "gpus_per_trial", expected, gpus)
            object.__setattr__(self, "gpus_per_trial", float(gpus))
        require(cpus >= MIN_SHARE, "cpus_per_trial", f"a number of at least {MIN_SHARE}", cpus)
        most, expected = self.settings_per_program, f"an integer from 1 to {MAX_SETTINGS}"
        require(1 <= most <= MAX_SETTINGS, "settings_per_program", expected, most)
        silence, expected = self.max_silence_s, f"null or a number of seconds of at least {MIN_SILENCE_S:g}"
        require(silence is None or silence >= MIN_SILENCE_S, "max_silence_s", expected, silence)

    @property
    def uses_gpus(self) -> bool:
        """Whether trials run on GPUs."""
        return self.gpus_per_trial == "auto" or self.gpus_per_trial > 0


@dataclass(frozen=True)
class Tracking(Checked):
    """Weights & Biases: `auto` is online with a key and offline without one; `disabled` writes nothing."""

    mode: Literal["auto", "online", "offline", "disabled"]
    project: str
    entity: str | None


@dataclass(frozen=True)
class Params(Checked):
    """Everything in params.yaml; `keep_weights` keeps those of every seed's best step in the trial store."""

    scale: str
    seeds: SeedRange
    datasets: tuple[str, ...]
    studies: tuple[str, ...]
    trial_store: str | None = dataclasses.field(repr=False)  # may hold a key
    resources: Resources
    tracking: Tracking
    keep_weights: bool = False

    def __post_init__(self) -> None:
        require(self.trial_store != "", "trial_store", "null, a folder or a URL", self.trial_store)
        require_names((self.scale,), "scale")
        for field in ("datasets", "studies"):
            names = getattr(self, field)
            require(len(names) > 0, field, "at least one name", list(names))
            require(len(set(names)) == len(names), field, "each name once", list(names))
            require_names(names, field)
        expected = "another name than 'claims', which the report's metrics have for the verdicts"
        require("claims" not in self.studies, "studies", expected, "claims")


@dataclass(frozen=True)
class Sizes(Checked):
    """Sequences in each split of a generated dataset (real datasets have the size they have)."""

    num_train: int
    num_validation: int
    num_test: int

    def __post_init__(self) -> None:
        for field in ("num_train", "num_validation", "num_test"):
            require(getattr(self, field) >= 1, field, "an integer of at least 1", getattr(self, field))


def require_num_seeds(number: int) -> None:
    """Check the number of seeds that a scale, or a study at a scale, asks for.

    Raises:
        InvalidFieldError: If it is none.
    """
    require(1 <= number <= MAX_SEEDS, "num_seeds", f"an integer from 1 to {MAX_SEEDS}", number)


@dataclass(frozen=True)
class Scale(Checked):
    """How big everything is: number of seeds and sizes of the generated datasets."""

    num_seeds: int
    datasets: Sizes
    max_wall_time_s: float

    def __post_init__(self) -> None:
        require_num_seeds(self.num_seeds)
        require(self.max_wall_time_s > 0, "max_wall_time_s", "a number of seconds above 0", self.max_wall_time_s)


def load_params(paths: Paths) -> Params:
    """Return params.yaml, checked, with every study, dataset and scale it names known to exist.

    Raises:
        ConfigError: If params.yaml, or a file that it names, is missing or wrong.
    """
    if not paths.params.exists():
        raise ConfigError(f"{paths.params}: no such file; run this in the project's folder")
    params: Params = build(Params, read_yaml(paths.params), paths.params.name)
    for kind, names, path_of in (
        ("scale", (params.scale,), paths.scale_config),
        ("dataset", params.datasets, paths.dataset_config),
        ("study", params.studies, paths.study_config),
    ):
        for name in names:
            if not path_of(name).is_file():
                raise ConfigError(f"{paths.params.name}: {unknown_file(kind, path_of(name))}")
    return params


def load_scale(paths: Paths, name: str) -> Scale:
    """Return the scale called `name`.

    Raises:
        ConfigError: If its file is missing or wrong.
    """
    path = paths.scale_config(name)
    scale: Scale = build(Scale, read_yaml(path), str(path.relative_to(paths.root)))
    return scale


def seeds_of(params: Params, scale: Scale, of_study: int | None = None) -> tuple[int, ...]:
    """Return the seeds of a study's trials, from the start: `params.seeds.count`, or else as many as the scale says.

    Args:
        params: What params.yaml says.
        scale: The scale.
        of_study: How many the study asks for at this scale; None: as many as all others.
    """
    count = (of_study or scale.num_seeds) if params.seeds.count is None else params.seeds.count
    return tuple(range(params.seeds.start, params.seeds.start + count))
