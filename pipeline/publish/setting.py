"""The view of one setting: its spec, its curves over seeds, its gradient heat map and a row for each seed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import polars as pl

from pipeline.publish.curves import history, over_seeds, spread
from pipeline.publish.view import Picture, RunView, Table, digest_of_frame
from pipeline.results import STATUSES
from pipeline.results.schema import TRIALS

FINAL_METRICS = (
    "best_validation_loss",
    "best_validation_error",
    "test_loss",
    "test_error",
    "clipped_share",
    "gradient_check_error",
)
"""Columns of `trials` that the summary shows as a mean with its interval."""

_IDENTITY = ("trial_id", "dataset_digest")


class Setting(Protocol):
    """One point of a study."""

    @property
    def grid(self) -> str:
        """The grid it belongs to."""

    @property
    def label(self) -> str:
        """A short text such as "lstm, T=100, lr=0.003"."""

    @property
    def trial_id(self) -> str:
        """The id of the trial that answers it."""


class Stored(Protocol):
    """A finished trial: its tables, and its canonical spec as nested mappings."""

    @property
    def tables(self) -> Mapping[str, pl.DataFrame]:
        """The result tables by name; rows of other trials may be among them."""

    @property
    def spec(self) -> Mapping[str, Any]:
        """What was run, seeds included."""


def view_setting(study: str, setting: Setting, stored: Stored) -> RunView:
    """Return the W&B run of one setting.

    The id names study, grid and trial: one run per setting, even where settings share a trial.
    """
    tables = {
        name: frame.filter(pl.col("trial_id") == setting.trial_id)
        for name, frame in stored.tables.items()
        if name in {"trials", "curves", "traces"}
    }
    trials, traces = tables["trials"].sort("seed"), tables.get("traces")
    facts = {"study": study, "grid": setting.grid, "label": setting.label, "trial_id": setting.trial_id}
    pictures = {}
    if traces is not None and "recurrent" in traces["part"]:  # what the heat map is of
        pictures["gradient_heatmap"] = Picture(digest_of_frame(traces), lambda: _draw_heatmap(traces))
    return RunView(
        run_id=f"{study}-{setting.grid}-{setting.trial_id}",
        name=setting.label,
        group=study,
        job_type="trial",
        config={**stored.spec, **facts, "dataset_digest": trials["dataset_digest"].item(0)},
        rows=history(tables["curves"]),
        summary=_summary(trials),
        tables={"seeds": Table.of(trials.select(column for column in TRIALS if column not in _IDENTITY))},
        pictures=pictures,
        artifacts=(),
    )


def _summary(trials: pl.DataFrame) -> dict[str, Any]:
    """Return the worst status, the number of seeds, and every final metric over the seeds that have it."""
    statuses = trials["status"].to_list()
    summary: dict[str, Any] = {
        "status": max(statuses, key=STATUSES.index),
        "num_seeds": len(statuses),
        "num_ok_seeds": statuses.count("ok"),
    }
    finals = trials.unpivot(on=FINAL_METRICS, index="seed", variable_name="metric").drop_nulls("value")
    for point in over_seeds(finals, ["metric"]).iter_rows(named=True):
        summary |= spread(point["metric"], point, show_seeds=True)
    return summary


def _draw_heatmap(traces: pl.DataFrame) -> bytes:
    from pipeline.figures.gradient_heatmap import draw_for_setting
    from pipeline.figures.style import to_png

    return to_png(draw_for_setting(traces))
