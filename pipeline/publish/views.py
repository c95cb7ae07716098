"""What W&B shows, as plain data: a run per setting and one per study, made from result tables and quantities alone.

A view has two digests. `rows_digest` is over the history, the one thing that W&B can only append to. `digest` is
over everything, so that a view which says nothing new is not sent again.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from pipeline.config import Paths, digest_of_file
from pipeline.core.models.custom import label_of
from pipeline.publish.media import Medium, Picture, media_of, shown_steps
from pipeline.quantities import Grid, grids_of, mean_interval
from pipeline.quantities.gradients import decay_factor
from pipeline.quantities.settings import OF_METRIC, SUMMARISED, settings_table
from pipeline.results import CURVE_FACTS, SCHEMAS, TRIAL_TABLES, read_table
from pipeline.results.schema import IDENTITY_COLUMNS, TRIALS

if TYPE_CHECKING:
    from pipeline.results.running import RunningTrial

MAX_POINTS = 300
"""A chart has at most about so many steps; more of them would tell W&B's charts apart from none."""

MAX_NAME, MAX_TAG = 64, 64
"""Characters of a name and of a tag; W&B takes 64 of a tag, and 128 of an artifact's name and of an id."""

MAX_INPUTS = 500
"""A study's run says of so many trials that it is made of them; the `settings` table has all."""

OF_EVERY_SEED = ("loss/validation", "grad_norm")
"""Charts that each seed has a line in, too."""

DATASET_FILES = ("manifest.*", "preview*")
"""What stands for a dataset in W&B: never the arrays, which its digest names and `prepare` makes again."""

_IDENTITY = ("dataset_digest", *IDENTITY_COLUMNS)
_SPECTRA = ("sigma_max", "spectral_radius")


@dataclass(frozen=True, kw_only=True)
class Files:
    """An artifact: files with a name, a type, aliases and what is known of them; `texts` are files made here."""

    name: str
    type: str
    paths: tuple[Path, ...] = ()
    texts: Mapping[str, str] = field(default_factory=dict)
    aliases: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class RunView:
    """One W&B run, complete, or as far as its trial has come.

    Attributes:
        rows: The history, each with its `step`; the position in the sequence is W&B's own `_step`.
        media: By step what belongs to its row besides numbers.
        tables: Shown once, in a row after the history, as `pictures` are.
        inputs: Artifacts that it was made of.
        artifacts: Those that it made.
        code_digest: Of the code that its trial stands under; None of a run that is no trial's.
        complete: Whether no row follows.
    """

    run_id: str
    name: str
    group: str
    job_type: str
    tags: tuple[str, ...] = ()
    config: Mapping[str, Any]
    rows: Sequence[Mapping[str, float]] = ()
    media: Mapping[int, Mapping[str, Medium]] = field(default_factory=dict)
    media_source: str = ""
    summary: Mapping[str, Any]
    tables: Mapping[str, pl.DataFrame] = field(default_factory=dict)
    pictures: Mapping[str, Picture] = field(default_factory=dict)
    inputs: Sequence[Files] = ()
    artifacts: Sequence[Files] = ()
    code_digest: str | None = None
    complete: bool = True

    @cached_property
    def rows_digest(self) -> str:
        """SHA-256 of the history."""
        return digest_of(self.rows)

    @cached_property
    def shown_digest(self) -> str:
        """SHA-256 of what stands in the row after the history."""
        tables = {name: [table.columns, table.rows()] for name, table in self.tables.items()}
        return digest_of({"tables": tables, "pictures": {name: it.source for name, it in self.pictures.items()}})

    @cached_property
    def digest(self) -> str:
        """SHA-256 of everything that the run shows."""
        files = [
            vars(files) | {"paths": [digest_of_file(path) for path in files.paths]}
            for files in (*self.inputs, *self.artifacts)
        ]
        return digest_of(
            {
                "run": [self.run_id, self.name, self.group, self.job_type, self.tags],
                "config": self.config,
                "rows": self.rows_digest,
                "media": self.media_source,
                "summary": self.summary,
                "shown": self.shown_digest,
                "artifacts": files,
            }
        )


def short(name: str, most: int = MAX_NAME) -> str:
    """Return a name of at most `most` characters: a longer one ends in a digest of all of it."""
    return name if len(name) <= most else f"{name[: most - 9]}-{digest_of(name)[:8]}"


def run_id_of(study: str, grid: str, trial_id: str) -> str:
    """Return the id of the run of a setting; settings that share a trial have a run each."""
    return f"{short(f'{study}-{grid}', MAX_NAME - len(trial_id) - 1)}-{trial_id}"


def digest_of(content: Any) -> str:
    """Return the SHA-256 of `content` as canonical JSON; NaN and infinities are written as such."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def digest_of_frame(frame: pl.DataFrame) -> str:
    """Return the SHA-256 of a frame's values, whatever the order of its rows."""
    return hashlib.sha256(frame.sort(frame.columns).write_csv().encode()).hexdigest()


def views_of(paths: Paths, study: str, positions: Collection[int] | None = None) -> Iterator[RunView]:
    """Yield the W&B run of every setting of a study that has a finished trial, in the order of the plan, then its own.

    Where `positions` are given, of the settings at these places in the plan alone.

    A trial that ended in an error has nothing to show beyond its row in the table of settings.

    Raises:
        TableError: If a table is missing, damaged or has other columns.
    """
    tables = {table: read_table(table, paths.results(study)) for table in SCHEMAS}
    parts = {table: tables[table].partition_by("trial_id", as_dict=True) for table in TRIAL_TABLES}
    for place, setting in enumerate(tables["settings"].sort("position").iter_slices(1)):
        if positions is not None and place not in positions:
            continue
        key = (setting["trial_id"][0],)
        of_trial = {table: parts[table].get(key, tables[table].clear()) for table in TRIAL_TABLES}
        if "error" not in of_trial["trials"]["status"]:
            yield view_of_setting(paths, setting, of_trial)
    yield _view_of_study(paths, study, tables)


def view_of_setting(paths: Paths, setting: pl.DataFrame, tables: Mapping[str, pl.DataFrame]) -> RunView:
    """Return the run of one setting, from its row of `settings` and the tables of its trial alone.

    So it is the same whether a follower makes it when the trial ends, or its study is published later.
    """
    row, trials, curves = setting.row(0, named=True), tables["trials"].sort("seed"), tables["curves"]
    (grid,) = grids_of(row["study"], {**tables, "settings": setting.with_columns(selected=True)}, ())
    spec = json.loads(trials["spec"][0])
    ends = (tables[table]["step"].max() for table in ("traces", "attention", "gates"))
    pictures = {}
    if "recurrent" in tables["traces"]["part"]:  # what the heat map is of
        pictures["gradient_heatmap"] = Picture(digest_of_frame(tables["traces"]), lambda: _draw_heatmap(grid))
    return _view_of_trial(
        row,
        spec,
        {column: trials[column][0] for column in _IDENTITY},
        rows=history(curves, spec),
        media=media_of(tables, {*shown_steps(spec), *(end for end in ends if isinstance(end, int))}),
        media_source=digest_of([digest_of_frame(tables[table]) for table in ("traces", "attention", "gates")]),
        summary=_summary(grid) | _tested(curves),
        tables={"seeds": trials.select(column for column in TRIALS if column not in _IDENTITY)},
        pictures=pictures,
        inputs=(*_datasets(paths, trials), _code(trials)),
        artifacts=(_trial(trials),),
    )


def view_of_running(setting: pl.DataFrame, spec: Mapping[str, Any], found: RunningTrial) -> RunView:
    """Return the run of one setting as far as its trial has come: a beginning of what `view_of_setting` will return.

    Args:
        setting: Its row of `settings`.
        spec: What it trains, as plain mappings.
        found: What is known of it before its last step, which is not over.
    """
    over = {table: found.tables[table].filter(pl.col("step") < found.step) for table in found.tables}
    identity = {"trial_id": found.trial_id, "code_digest": found.code_digest}
    return _view_of_trial(
        setting.row(0, named=True),
        spec,
        identity,
        rows=history(over["curves"], spec, until=found.step),
        media=media_of(over, (step for step in shown_steps(spec) if step < found.step)),
        summary={"status": "training", "trained_steps": found.step},
        complete=False,
    )


def _view_of_trial(row: Mapping[str, Any], spec: Mapping[str, Any], facts: Mapping[str, Any], **shown: Any) -> RunView:
    """Return the run of a setting: what it is called and what it was asked to train."""
    named = {key: row[key] for key in ("study", "grid", "label")}
    task = spec["dataset"]["name"]
    tags = (row["study"], label_of(spec["model"]), task)
    return RunView(
        run_id=run_id_of(row["study"], row["grid"], row["trial_id"]),
        name=row["label"],
        group=short(row["study"]),
        job_type="trial",
        tags=tuple(dict.fromkeys(short(tag, MAX_TAG) for tag in tags)),
        config={**spec, **named, **facts},
        code_digest=facts["code_digest"],
        **shown,
    )


def _draw_heatmap(grid: Grid) -> bytes:
    from pipeline.figures.gradients import gradient_heatmap
    from pipeline.figures.style import to_png

    return to_png(gradient_heatmap.draw(grid))


def _view_of_study(paths: Paths, study: str, tables: Mapping[str, pl.DataFrame]) -> RunView:
    """Return the run of a whole study: its settings, the report's figures, and its tables, made of its trials."""
    settings, trials = tables["settings"], tables["trials"]
    statuses = trials.group_by("status").len().sort("status")
    counts = {"num_settings": settings.height, "num_trials": trials["trial_id"].n_unique()}
    folder = paths.reports / "site" / "figures" / study
    figures = {path.relative_to(folder).with_suffix("").as_posix(): path for path in sorted(folder.glob("*/*.png"))}
    finished = trials.filter((pl.col("status") != "error").all().over("trial_id")).partition_by("trial_id")
    return RunView(
        run_id=f"{short(study)}-study",
        name=study,
        group=short(study),
        job_type="study",
        tags=(short(study, MAX_TAG),),
        config={"study": study, "grids": settings["grid"].unique(maintain_order=True).to_list()},
        summary=counts | {f"num_seeds/{status}": count for status, count in statuses.iter_rows()},
        tables={"settings": settings},
        pictures={name: Picture(digest_of_file(path), path.read_bytes) for name, path in figures.items()},
        inputs=(*_datasets(paths, trials), *(_trial(rows.sort("seed")) for rows in finished[:MAX_INPUTS])),
        artifacts=(_results(paths, study),),
    )


def view_of_report(paths: Paths, studies: Sequence[str]) -> RunView | None:
    """Return the run of the report, made of the tables of its studies; None where there is no report."""
    files = [paths.reports / "README.md", paths.reports / "metrics.json", *sorted(paths.reports.glob("tables/*.csv"))]
    present = tuple(path for path in files if path.is_file())
    if not present:
        return None
    digest = digest_of([digest_of_file(path) for path in present])
    pictures = sorted((paths.reports / "pictures").glob("*.png"))
    claims = paths.reports / "tables" / "claims.csv"
    ledger = {"ledger": pl.read_csv(claims, infer_schema=False)} if claims.is_file() else {}
    verdicts = ledger["ledger"]["verdict"].value_counts().sort("verdict").rows() if ledger else []
    return RunView(
        run_id="report",
        name="report",
        group="report",
        job_type="report",
        config={"studies": list(studies)},
        summary={f"claims/{verdict}": count for verdict, count in verdicts},
        tables=ledger,
        pictures={f"studies/{path.stem}": Picture(digest_of_file(path), path.read_bytes) for path in pictures},
        inputs=tuple(_results(paths, study) for study in studies),
        artifacts=(Files(name="report", type="report", paths=present, aliases=(digest[:16],)),),
    )


def _datasets(paths: Paths, trials: pl.DataFrame) -> Iterator[Files]:
    """Yield an artifact per dataset: its manifest and preview, with the digests of its variants as aliases.

    None where the dataset is not here: tables come by `dvc pull`, too.
    """
    used = trials.select("dataset.name", "dataset.length", "dataset_digest").unique().sort(pl.all())
    for (name,), variants in used.group_by("dataset.name", maintain_order=True):
        folder = paths.dataset(str(name))
        files = {path for pattern in DATASET_FILES for path in folder.glob(pattern) if path.is_file()}
        known = variants.select(length="dataset.length", digest="dataset_digest").to_dicts()
        if files:
            yield Files(
                name=f"dataset-{short(str(name))}",
                type="dataset",
                paths=tuple(sorted(files)),
                aliases=tuple(dict.fromkeys(variant["digest"][:16] for variant in known)),
                metadata={"variants": known},
            )


def _code(trials: pl.DataFrame) -> Files:
    """Return the artifact that says which code a trial stands under, and which revision of it ran."""
    said = {name: trials[name][0] for name in ("code_digest", "adopted_from", "git_revision")}
    aliases = tuple(str(said[name])[:16] for name in ("code_digest", "git_revision") if said[name])
    return Files(
        name="code", type="code", texts={"code.json": json.dumps(said, indent=1)}, aliases=aliases, metadata=said
    )


def _trial(trials: pl.DataFrame) -> Files:
    """Return the artifact of a trial: what it was asked, and how each of its seeds ended."""
    identity = trials["trial_id"][0]
    spec = json.loads(trials["spec"][0])
    ended = trials.select(column for column in TRIALS if column not in {*_IDENTITY, "spec"})
    known = {column: trials[column][0] for column in _IDENTITY}
    content = known | {"spec": spec, "seeds": [_plain(row) for row in ended.iter_rows(named=True)]}
    return Files(
        name=f"trial-{identity}",
        type="trial",
        texts={"trial.json": json.dumps(content, indent=1, sort_keys=True)},
        aliases=tuple(str(known[name])[:16] for name in ("code_digest", "dataset_digest") if known[name]),
        metadata=known,
    )


def _results(paths: Paths, study: str) -> Files:
    """Return the artifact of a study's tables."""
    tables = tuple(sorted(paths.results(study).glob("*.parquet")))
    digest = digest_of([digest_of_file(path) for path in tables])
    known = {"tables": [path.stem for path in tables]}
    return Files(name=f"results-{short(study)}", type="result", paths=tables, aliases=(digest[:16],), metadata=known)


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row as JSON has it: null for what is not a finite number."""
    return {name: None if isinstance(it, float) and not math.isfinite(it) else it for name, it in row.items()}


def history(curves: pl.DataFrame, spec: Mapping[str, Any], until: int | None = None) -> list[dict[str, float]]:
    """Return a row per shown step: `step`, and `<chart>/mean`, `/low`, `/high` of every metric seen there.

    A chart is the metric and what else the row says of it, «loss/validation», «sigma_max/recurrent/0/forward/h». Mean
    and 95 % interval over seeds are of the kind of the metric's quantity (`OF_METRIC`): geometric of losses and norms,
    those of a share of errors. One seed has no interval, nor has a metric of which no quantity says the kind. Where a
    seed is missing (it diverged, or reached its criterion), or has no finite value or logarithm, `<chart>/num_seeds`
    says how many are left. Charts of `OF_EVERY_SEED` have `seeds/<chart>/<seed>` beside that.

    So that a run has some dozens of metrics and no more, spectra of weights have their mean alone, and a cell with
    several gates its largest singular values alone; what was tested at the end is in the summary. Tables have all.

    Which steps are shown is known before a trial trains, so that what is seen of it while it runs is the beginning of
    what is seen of it in the end: about `MAX_POINTS` updates and as many evaluations, every traced step, the last.

    Args:
        curves: The `curves` table of one trial, or what there is of it.
        spec: Its spec, as plain mappings.
        until: The step that a trial under way has come to; None of one that has ended.
    """
    charts = _charts(curves.filter(pl.col("split").is_null() | (pl.col("split") != "test")))
    gated = pl.col("gate").drop_nulls().n_unique().over("part", "layer", "direction") > 1
    charts = charts.filter((pl.col("metric") != "spectral_radius") | gated.not_())
    charts = charts.filter(_is_shown(spec, None if until else curves["step"].max())).sort("step", "chart", "seed")
    num_seeds = len(spec["seeds"])
    rows: dict[int, dict[str, float]] = {step: {"step": step} for step in charts["step"].unique(maintain_order=True)}
    by_metric = charts.group_by("metric", maintain_order=True)
    points = [
        point for (metric,), group in by_metric for point in _over_seeds(str(metric), group).iter_rows(named=True)
    ]
    for point in sorted(points, key=lambda point: point["chart"]):
        rows[point["step"]] |= _parts(point["chart"], point, with_seeds=point["num_seeds"] < num_seeds)
    for step, seed, chart, value in charts.select("step", "seed", "chart", "value").iter_rows():
        if chart in OF_EVERY_SEED and math.isfinite(value):
            rows[step][f"seeds/{chart}/{seed}"] = value
    return list(rows.values())


def _charts(curves: pl.DataFrame) -> pl.DataFrame:
    facts = [pl.col(fact).cast(pl.String) for fact in CURVE_FACTS]
    return curves.with_columns(chart=pl.concat_str("metric", *facts, separator="/", ignore_nulls=True))


def _is_shown(spec: Mapping[str, Any], last: Any) -> pl.Expr:
    """Return whether a step is shown: it follows from the spec, but for the last one of a trial that has ended."""
    training, step = spec["training"], pl.col("step")
    updates = math.ceil(training["max_steps"] / MAX_POINTS)
    evaluations = training["evaluate_every"] * math.ceil(
        training["max_steps"] / training["evaluate_every"] / MAX_POINTS
    )
    regular = (step % updates == 0) | (step % evaluations == 0)
    return regular | step.is_in([1, *shown_steps(spec), *([] if last is None else [last])])


def _over_seeds(metric: str, rows: pl.DataFrame) -> pl.DataFrame:
    """Return mean and interval over seeds by `step` and `chart`."""
    keys, quantity, value = ["step", "chart"], OF_METRIC.get(metric), pl.col("value")
    if quantity is None:
        return mean_interval(rows, "value", keys).with_columns(low=None, high=None)
    on_scale = rows.with_columns(value.log10() if quantity.scale == "log10" else value)
    found = quantity.natural(quantity.summary(on_scale, keys))
    return found.with_columns(low=None, high=None) if metric in _SPECTRA else found


def _summary(grid: Grid) -> dict[str, Any]:
    """Return the worst status, the numbers of seeds, and every final number with its interval, of a single setting.

    What a report plots against a setting is here: `decay_factor_<state>/<stage>` is by how much the gradient changes
    per timestep of lag.
    """
    (setting,) = settings_table(grid).iter_rows(named=True)
    counts = ("num_seeds", "num_ok", "num_converged", "num_beat_untrained", "num_exploded")
    plain = ("status", *counts, "criterion_step", "clipped_share", "gradient_check_error")
    summary = {name: setting[name] for name in plain if setting[name] is not None}
    for name, quantity in SUMMARISED.items():
        for point in quantity.natural(quantity.summary(quantity.of(grid))).iter_rows(named=True):
            summary |= _parts(name, point, with_seeds=True) if point["num_seeds"] else {}
    decay = decay_factor.natural(decay_factor.summary(decay_factor.of(grid), ["stage", "state"]))
    for point in decay.iter_rows(named=True):
        name = f"decay_factor_{point['state']}/{point['stage']}"
        summary |= _parts(name, point, with_seeds=True) if point["num_seeds"] else {}
    return summary


def _tested(curves: pl.DataFrame) -> dict[str, Any]:
    """Return what was tested at the end besides loss and error: other lengths, groups and modes."""
    tested = _charts(curves.filter(split="test")).sort("chart", "seed")
    found: dict[str, Any] = {}
    for (metric,), rows in tested.group_by("metric", maintain_order=True):
        last = rows.filter(pl.col("step") == pl.col("step").max().over("chart"))
        for point in _over_seeds(str(metric), last.with_columns(step=0)).iter_rows(named=True):
            found |= _parts(point["chart"], point, with_seeds=True)
    return found


def _parts(name: str, point: Mapping[str, Any], *, with_seeds: bool) -> dict[str, float]:
    """Return `<name>/mean`, `/low`, `/high` and, if asked, `/num_seeds`; what is null is left out."""
    parts = ("mean", "low", "high", "num_seeds") if with_seeds else ("mean", "low", "high")
    return {f"{name}/{part}": value for part in parts if (value := point[part]) is not None}
