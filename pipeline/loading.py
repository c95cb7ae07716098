"""A study's results in Python: tables, quantities with intervals, figures and traces.

    results = pipeline.load_results("clipping")
    results.trials                            # a polars table; `results.columns("trials")` says what is in it
    results.quantity("test_loss")             # means over seeds with their intervals, a row per grid and arm
    results.figure("gradient_by_lag")         # a matplotlib figure, as the report has it
    results.trace("e5aed06c", seed=3)         # every gradient norm that was measured of one replica

Each table is read when it is first asked for. Errors are the package's, and name what there is.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import polars as pl

from pipeline.config import Paths, load_study
from pipeline.config.study import Study
from pipeline.errors import ConfigError, TableError, unknown_name
from pipeline.figures.catalogue import FIGURES
from pipeline.figures.frame import Frame, View
from pipeline.quantities import (
    CONFIDENCE,
    QUANTITIES,
    Effect,
    Grid,
    Quantity,
    Selection,
    difference_of,
    grids_of,
    ratio_of,
    value_of,
)
from pipeline.results import SCHEMAS, read_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Length = int | Literal["longest", "shortest"]


def load_results(study: str | Path, project: str | Path | None = None) -> Results:
    """Return the results of a study: of the project that the current folder is in, or of a folder with its tables.

    Args:
        study: The study's name, or the path of its tables: a `Path`, or a text with a separator in it.
        project: The folder of params.yaml; by default the nearest one, from the tables or the current folder upward.

    Raises:
        ConfigError: If there is no such study.
        TableError: If it has no tables here, or its settings are damaged.
    """
    if isinstance(study, Path) or os.sep in study:
        folder = Path(study).expanduser().resolve()
        return Results(folder, _project(project, folder))
    paths = _project(project, Path.cwd())
    if paths is None:
        raise ConfigError(f"{Path.cwd()}: no params.yaml here or above; name the folder of the tables, or of a project")
    folder = paths.results(study)
    if not folder.is_dir():
        trained = sorted(path.name for path in folder.parent.glob("*") if path.is_dir())
        if not paths.study_config(study).is_file():
            known = {path.stem for path in paths.study_config(study).parent.glob("*.yaml")} | {*trained}
            raise ConfigError(unknown_name("study", study, known))
        beside = f"; there are those of {', '.join(trained)}" if trained else ""
        made = f"`dvc repro sweep@{study}` makes them, `dvc pull` brings them"
        raise TableError(f"{folder}: no results yet; {made}{beside}")
    return Results(folder, paths)


def _project(given: str | Path | None, start: Path) -> Paths | None:
    """Return the paths of the project that is given, or else of the nearest one from a folder upward."""
    if given is not None:
        return Paths.at(given)
    return next((Paths.at(folder) for folder in (start, *start.parents) if (folder / "params.yaml").is_file()), None)


def project_of(given: str | Path | None) -> Paths:
    """Return the paths of the project that is given, or else of the nearest one from the current folder upward.

    Raises:
        ConfigError: If there is none.
    """
    if (paths := _project(given, Path.cwd())) is None:
        raise ConfigError(f"{Path.cwd()}: no params.yaml here or above; name the folder of a project")
    return paths


class Results:
    """The tables of one study, each read when it is first asked for and checked against its schema, and what they give.

    Attributes:
        folder: Where the tables lie.
        study: The study's name, as its settings have it.
    """

    def __init__(self, folder: Path, paths: Paths | None) -> None:
        self.folder, self._paths = folder, paths
        self._read: dict[str, pl.DataFrame] = {}
        names = self.settings["study"].unique().to_list()
        if len(names) != 1:
            raise TableError(f"{folder / 'settings.parquet'}: expected the settings of one study, got {names}")
        self.study: str = names[0]

    def __repr__(self) -> str:
        sizes = self.settings.group_by("grid", maintain_order=True).len().iter_rows()
        grids = ", ".join(f"{name} ({size} setting{'s'[: size != 1]})" for name, size in sizes)
        return f"<Results of {self.study!r}: {grids}; tables {', '.join(SCHEMAS)}>"

    # Tables

    @cached_property
    def settings(self) -> pl.DataFrame:
        """A row per grid and setting of the study, with its trial and its axes."""
        return self._table("settings")

    @cached_property
    def trials(self) -> pl.DataFrame:
        """A row per trial and seed: every field of its spec, how it ended, final losses, costs, versions."""
        return self._table("trials")

    @cached_property
    def curves(self) -> pl.DataFrame:
        """A row per trial, seed, step and metric."""
        return self._table("curves")

    @cached_property
    def traces(self) -> pl.DataFrame:
        """A row per trial, seed, step, state and timestep: log10 of the gradient's norm there."""
        return self._table("traces")

    @cached_property
    def eigenvalues(self) -> pl.DataFrame:
        """A row per trial, seed, step and eigenvalue of a block of recurrent weights."""
        return self._table("eigenvalues")

    @cached_property
    def gates(self) -> pl.DataFrame:
        """A row per trial, seed, step, gate, quantity and position: how open gates are, how long they keep."""
        return self._table("gates")

    @cached_property
    def jacobians(self) -> pl.DataFrame:
        """A row per trial, seed, step, lag and quantity: singular values of ∂s_T/∂s_{T-k}."""
        return self._table("jacobians")

    @cached_property
    def lyapunov(self) -> pl.DataFrame:
        """A row per trial, seed, step, timestep and exponent."""
        return self._table("lyapunov")

    @cached_property
    def truncation(self) -> pl.DataFrame:
        """A row per trial, seed, step and backward length: how far the truncated gradient is from the full one."""
        return self._table("truncation")

    @cached_property
    def attention(self) -> pl.DataFrame:
        """A row per trial, seed, step, example, output and source position: how much weight lies there."""
        return self._table("attention")

    @cached_property
    def breakdown(self) -> pl.DataFrame:
        """A row per trial, seed, step and position or length: a decoder's errors there."""
        return self._table("breakdown")

    @cached_property
    def tokens(self) -> pl.DataFrame:
        """A row per trial, seed, step, example and token: sources, targets and what was written."""
        return self._table("tokens")

    @cached_property
    def images(self) -> pl.DataFrame:
        """A row per trial, seed, step, example and pixel: inputs and reconstructions."""
        return self._table("images")

    def columns(self, table: str) -> dict[str, str]:
        """Return what each column of a table holds, by name, with its type.

        Raises:
            ConfigError: If there is no such table.
        """
        if table not in SCHEMAS:
            raise ConfigError(unknown_name("table", table, SCHEMAS))
        meanings = meanings_of(table)
        held = "value of this axis" if table == "settings" else "field of the trial's spec"
        found: pl.DataFrame = getattr(self, table)
        return {name: f"{meanings.get(name, held)} ({dtype})" for name, dtype in found.schema.items()}

    def _table(self, name: str) -> pl.DataFrame:
        if not self.folder.is_dir():
            raise TableError(f"{self.folder}: no such folder; expected one with the tables of a study")
        return read_table(name, self.folder)

    # Grids, quantities, figures

    @cached_property
    def grids(self) -> dict[str, Grid]:
        """What each grid of the study left, by name: tables with `arm`, `length` and `status` beside every row.

        Raises:
            ConfigError: If the study's file is missing and some settings are not selected, or it is wrong.
            TableError: If a table is missing or damaged.
        """
        over = self._config.select.over if self._config is not None and self._config.select else ()
        if self._config is None and not self.settings["selected"].all():
            raise ConfigError(
                f"{self.folder}: the study selects among its settings, and its file, which says over what, is missing: "
                f"expected configs/studies/{self.study}.yaml in a project, whose folder load_results takes as `project`"
            )
        tables = {table: getattr(self, table) for table in SCHEMAS}
        return {grid.name: grid for grid in grids_of(self.study, tables, over)}

    @cached_property
    def _config(self) -> Study | None:
        """The study's file; None where there is none, as of recorded loops of one's own."""
        known = self._paths is not None and self._paths.study_config(self.study).is_file()
        return load_study(self._paths, self.study) if self._paths is not None and known else None

    def quantity(
        self, name: str, grid: str | None = None, *, length: Length | None = None, confidence: float = CONFIDENCE
    ) -> pl.DataFrame:
        """Return the mean over seeds of a quantity with its interval: a row per grid, arm and value of its facets.

        Geometric means where the quantity is on a logarithmic scale. A mean whose interval cannot be told has none.

        Args:
            name: Of the quantity, such as `test_loss` or `decay_factor`.
            grid: Of one grid; by default of all.
            length: Of the sequences; by default the longest, and every one of a quantity that has a row per length.
            confidence: In how many of such intervals the true mean lies.

        Returns:
            Columns `grid`, `arm`, the facets, `mean`, `low`, `high`, `num_seeds`, `num_nonfinite` and `num_missing`.

        Raises:
            ConfigError: If there is no such quantity, grid or length.
            TableError: If a table is missing or damaged.
        """
        chosen = self._quantity(name)
        parts = []
        for one in self._asked(grid):
            at = self._at(one, "longest" if length is None else length)
            rows = chosen.of(one if chosen.across_lengths else at)
            if chosen.across_lengths and length is not None:
                rows = rows.filter(pl.col("length").is_in(at.lengths))
            if rows.is_empty():
                continue
            if chosen.effect is not None:  # one number of all lengths: its interval is not over seeds
                arms = [(arm, *chosen.effect(one, arm, confidence)) for arm in one.present(rows)]
                names = ["arm", "mean", "low", "high", "num_seeds", "num_missing"]
                found = pl.DataFrame(arms, names, orient="row").with_columns(num_nonfinite=pl.lit(0, pl.Int64))
            else:
                by = ["arm", *(["length"] if chosen.across_lengths else []), *chosen.facets]
                found = chosen.natural(chosen.summary(rows, by, confidence=confidence))
            ordered = found.sort(one.rank(), maintain_order=True)
            parts.append(ordered.select(pl.lit(one.name).alias("grid"), pl.all()))
        if not parts:
            measured = f"grid {grid!r}" if grid else "any grid"
            raise ConfigError(f"quantity {name!r}: study {self.study!r} has no rows of it in {measured}")
        return pl.concat(parts, how="diagonal_relaxed")

    def effect(
        self,
        name: str,
        grid: str | None = None,
        *,
        to: Mapping[str, str | int] | None = None,
        confidence: float = CONFIDENCE,
        **of: str | int,
    ) -> Effect:
        """Return one number with its interval over seeds; with `to`, how it compares with another one, paired by seed.

        `results.effect("test_loss", arm="lstm", to={"arm": "elman"})` is a ratio of geometric means, since losses are
        on a logarithmic scale, and so it is of times of steps; of any other quantity it is the difference.

        Args:
            name: Of the quantity.
            grid: Of which grid; needed where the study has several.
            to: What differs on the other side: `arm`, `length`, or a facet.
            confidence: In how many of such intervals the true number lies.
            **of: `arm`, `length` (by default the longest), and a value of each facet of the quantity.

        Raises:
            ConfigError: If a name is unknown, or a facet is missing.
            TableError: If a table is missing or damaged.
        """
        chosen, grids = self._quantity(name), self._asked(grid)
        if len(grids) > 1:
            names = ", ".join(one.name for one in grids)
            raise ConfigError(f"effect of {name!r}: study {self.study!r} has several grids; name one of {names}")
        (one,) = grids
        sides = []
        for given in [of] if to is None else [of, {**of, **to}]:
            side = Selection.of({"quantity": name, **given}, f"effect of {name!r}")
            for arm in set(side.arms) - set(one.arms):
                raise ConfigError(f"effect of {name!r}: {unknown_name('arm', arm, one.arms)}")
            self._at(one, side.length)
            rows = chosen.of(one if chosen.across_lengths else one.at(side.length))
            for facet, value in side.where.items():
                if value not in (known := rows[facet].unique().to_list()):
                    raise ConfigError(f"effect of {name!r}: {unknown_name(facet, value, map(str, known))}")
            sides.append(side)
        if to is None:
            return value_of(sides[0], one, confidence)
        compare = ratio_of if chosen.scale == "log10" or chosen.ratio is not None else difference_of
        return compare(sides[0], sides[1], one, confidence)

    def view(self, figure: str, grid: str | None = None) -> View:
        """Return what a figure shows: its `title`, its `caption`, and the `means` and `rows` that are drawn.

        Args:
            figure: Its name in the report, such as `gradient_by_lag`.
            grid: Of which grid; by default of the first one for which the report draws it, or else could.

        Raises:
            ConfigError: If there is no such figure or grid, or the grid has nothing that the figure shows.
            TableError: If a table is missing or damaged.
        """
        frame, found = self._drawable(figure, grid)
        return frame.view(found)

    def figure(self, name: str, grid: str | None = None) -> Figure:
        """Return a figure as the report draws it: one of matplotlib's, which notebooks show and `savefig` writes.

        Args:
            name: Its name in the report, such as `gradient_by_lag`.
            grid: Of which grid; by default of the first one for which the report draws it, or else could.

        Raises:
            ConfigError: If there is no such figure or grid, or the grid has nothing that the figure shows.
            TableError: If a table is missing or damaged.
        """
        frame, found = self._drawable(name, grid)
        return frame.draw(found)

    def figures(self, grid: str | None = None) -> dict[str, list[str]]:
        """Return by grid the names of the figures that can be drawn of it, in the order of a report.

        Raises:
            ConfigError: If there is no such grid.
            TableError: If a table is missing or damaged.
        """
        return {one.name: [name for name in FIGURES if FIGURES[name].is_of(one)] for one in self._asked(grid)}

    def _drawable(self, name: str, grid: str | None) -> tuple[Frame, Grid]:
        if name not in FIGURES:
            raise ConfigError(unknown_name("figure", name, FIGURES))
        frame, grids = FIGURES[name], self._asked(grid)
        listed = self._config.grids if self._config is not None else {}
        wanted = {one.name: listed[one.name].figures if one.name in listed else None for one in grids}
        first = sorted(grids, key=lambda one: not (wanted[one.name] is None or name in (wanted[one.name] or ())))
        for one in first:
            if frame.is_of(one):
                return frame, one
        reasons = "; ".join(f"grid {one.name!r}: {_why_not(frame, one)}" for one in grids)
        raise ConfigError(f"figure {name!r} has nothing to show of study {self.study!r}: {reasons}")

    def _quantity(self, name: str) -> Quantity:
        if name not in QUANTITIES:
            raise ConfigError(unknown_name("quantity", name, QUANTITIES))
        return QUANTITIES[name]

    def _asked(self, grid: str | None) -> list[Grid]:
        if grid is not None and grid not in self.grids:
            raise ConfigError(f"study {self.study!r}: {unknown_name('grid', grid, self.grids)}")
        return list(self.grids.values()) if grid is None else [self.grids[grid]]

    def _at(self, grid: Grid, length: Length) -> Grid:
        if length not in ("longest", "shortest", *grid.lengths):
            lengths = ", ".join(map(str, grid.lengths))
            raise ConfigError(f"grid {grid.name!r}: no length {length!r}; known: longest, shortest, {lengths}")
        return grid.at(length)

    # One replica

    def trace(self, trial_id: str, seed: int) -> pl.DataFrame:
        """Return the gradient norm in every state of one replica, at every step at which it was traced.

        Args:
            trial_id: As `settings` and the report have it, or the digits that it begins with.
            seed: Of the replica.

        Returns:
            Columns `step`, `part`, `layer`, `direction`, `state` (h, c; x of the input), `timestep`, `lag` (timesteps
            before the last one of its part) and `log10_norm`.

        Raises:
            ConfigError: If the study has no such trial or seed.
            TableError: If nothing was traced of it, or a table is missing or damaged.
        """
        trial = self._trial(trial_id)
        runs = self.trials.filter(trial_id=trial).sort("seed")
        if seed not in runs["seed"]:
            seeds = ", ".join(map(str, runs["seed"]))
            raise ConfigError(f"trial {trial}: no seed {seed!r}; it has {seeds}")
        rows = self.traces.filter(trial_id=trial, seed=seed).rename({"quantity": "state"})
        if rows.is_empty():
            status, message = runs.filter(seed=seed).select("status", "status_message").row(0)
            ended = f"it ended with status {status}{f': {message}' if message else ''}"
            raise TableError(f"trial {trial}, seed {seed}: nothing was traced; {ended}")
        rows = rows.with_columns(lag=pl.col("timestep").max().over("part") - pl.col("timestep"))
        return rows.select("step", "part", "layer", "direction", "state", "timestep", "lag", "log10_norm")

    def _trial(self, begins: str) -> str:
        known = self.settings["trial_id"].unique(maintain_order=True).to_list()
        found = [trial for trial in known if begins and trial.startswith(begins)]
        if len(found) == 1:
            return str(found[0])
        if found:
            raise ConfigError(f"trial {begins!r}: {len(found)} of study {self.study!r} begin so; give more digits")
        close = difflib.get_close_matches(begins, known, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise ConfigError(f"study {self.study!r} has no trial {begins!r}{hint}; column trial_id of `settings` has all")


def _why_not(frame: Frame, grid: Grid) -> str:
    """Return why a figure is not drawn of a grid, in words."""
    watched = dataclasses.replace(grid.at("longest") if frame.lengths == "longest" else grid, _memo={})
    tables = _Asked(watched.long)
    watched = dataclasses.replace(watched, long=tables)
    applies = frame.applies(watched)
    if not applies or frame.view(watched).rows.is_empty():
        empty = [table for table in tables.asked if tables[table].is_empty()]
        if empty:
            return f"no rows in {', '.join(empty)}"
    if not applies:
        return f"it needs {frame.needs}"
    return f"nothing that it shows is in {', '.join(tables.asked) or 'trials'}"


class _Asked(dict[str, pl.DataFrame]):
    """Tables by name, and which of them were asked for."""

    def __init__(self, tables: Mapping[str, pl.DataFrame]) -> None:
        super().__init__(tables)
        self.asked: list[str] = []

    def __getitem__(self, table: str) -> pl.DataFrame:
        self.asked += [] if table in self.asked else [table]
        return super().__getitem__(table)


def meanings_of(table: str) -> dict[str, str]:
    """Return what each declared column of a table holds, by name."""
    return {column: _MEANINGS.get((table, column)) or _MEANINGS["", column] for column in SCHEMAS[table]}


_TEXT = """
trial_id: which trial: a digest of its spec, its data and its code
seed: which replica; the only unit of replication
step: optimiser updates done when it was measured; 0 is the untrained network
part: of the network: input, recurrent, encoder or decoder
layer: from 0, the one next to the input
direction: forward or backward in time
timestep: position in the sequence, from 1
gate: which block of recurrent weights: h of an Elman cell; i, f, g, o; r, z, n
example: which example, from 0
metric: what the value is: loss, error, token_error, grad_norm, clipped_grad_norm, clip_cosine, sigma_max, ...
split: of the data: train, validation or test; null where that does not apply
mode: of a decoder: teacher_forced or free_running; null on the loss and error by which a trial is judged
group: kind of token; null where there is none
tested_length: length that was not trained on; null at the trained one
study: name of the study
grid: name of the grid
position: place in the plan, from 0
label: the setting in words
variant: name of the variant; null where the grid has none
selected: whether the study keeps it for its arm and length
dataset_digest: of the data that it trained on
code_digest: of the code under whose identity the trial stands
adopted_from: digest of the code that ran, where that is another
spec: the whole spec as JSON
status: how the replica ended: ok, censored, timed_out, diverged or error
status_message: why, where it did not end ok
diverged_step: step at which a number was not finite, or after which it had ended exploded
diverged_timestep: timestep at which it was not finite
diverged_quantity: what was not finite
exploded_step: first evaluation far above the untrained loss, recovered from or not
num_steps: updates that were done
best_step: step of the lowest validation loss
best_validation_loss: loss of the dataset at `best_step`
best_validation_error: share in [0, 1] at `best_step`
final_validation_loss: of the last finite evaluation
beat_untrained: whether any evaluation was better than that of step 0
converged: by the spec's rule, or at the criterion; null where it diverged
test_loss: with the weights of `best_step`
test_error: share in [0, 1], with the weights of `best_step`
baseline_loss: loss of the best answer that remembers nothing; null where that is not known
series_exponent: largest Lyapunov exponent of the system that made the series, in nats per timestep, where known
reached_criterion: whether it reached the spec's criterion (`training.stop_below`)
criterion_step: step at which it did
clipped_share: share of updates whose gradient was clipped
num_parameters: of one network
activation_bytes: what the first update kept for its backward pass, per replica
gradient_check_error: relative error of the float32 gradient that trains to the float64 one
wall_time_s: seconds that the trial took, with diagnostics
training_time_s: seconds of it without diagnostics
step_time_s: seconds per update, of all replicas together, measured while all of them train
step_time_error_s: standard error of `step_time_s`
num_timed_portions: portions of training that `step_time_s` is a mean over
criterion_time_s: `criterion_step` times `step_time_s`
diagnostics_time_share: share of the time that diagnostics took
peak_memory_bytes: most memory in use: of the GPU, or else of the process
device: what it trained on
kernel: what ran the recurrence: compiled, captured, eager, or autograd
hostname: machine that trained it
torch_version: of torch
python_version: of Python
git_revision: commit that trained it; -dirty where files differed from it
curves.value: the metric's value
traces.quantity: which state: h or c; x of the input
log10_norm: log10 of the Frobenius norm over the probe batch of the loss's gradient there
eigenvalues.index: of the eigenvalue
real: its real part
imag: its imaginary part
gates.quantity: density, mean, left_saturated, right_saturated, half_life (timesteps) or retention (log10)
gates.position: of a density the middle of its bin of [0, 1]; of a retention over how many last timesteps; else 0
gates.value: the quantity's value
lag: timesteps back from the last one
jacobians.quantity: largest, median or smallest singular value, or condition, their ratio
log10_value: log10 of it
lyapunov.index: of the exponent, the largest first
lyapunov.timestep: from how many first timesteps it is estimated
lyapunov_nats_per_timestep: the exponent
standard_error: of the exponent
backward_length: timesteps that the truncated gradient goes back
cosine: between the truncated gradient and the full one
relative_error: norm of their difference over that of the full one
log10_phi: log10 of φ, how much gradient is left at that lag
decay_factor: of φ per timestep
relative_bias_bound: bound on the bias by Aicher, Foti and Fox (2019)
output_position: of the output, or of the word that is read of an image, from 1
source_position: of the source, from 1; of an image the cell of the grid, row by row
weight: attention that the output pays to the source
aligned: whether they belong together; false everywhere where that is not known
by: what errors are broken down by: output_position, or source_length
at: that position (from 1) or length
num: of how many tokens, or sequences
error: share in [0, 1] that is wrong
sequence: source, target, free_running; of a language model prompt and sample; of texts of images words, class, answer
tokens.position: in the sequence, from 1
token: the token as text
image: input or reconstruction
frame: from 1
row: from 0, the topmost
column: from 0
brightness: of the pixel
"""
_MEANINGS: dict[tuple[str, str], str] = {
    (key.rpartition(".")[0], key.rpartition(".")[2]): meaning
    for key, _, meaning in (line.partition(": ") for line in _TEXT.strip().splitlines())
}
"""What columns hold, by table and column; without a table in every table that has the column."""
