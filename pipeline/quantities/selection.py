"""Which measurements a quantity is about: which stage of training, which layer, which metric, at which steps."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import TypeVar

import numpy as np
import polars as pl
import polars.selectors as cs

from pipeline.results import CURVE_FACTS, FINISHED

Name = TypeVar("Name", bound=Hashable)
STAGES: dict[str, str] = {"initialisation": "at initialisation", "end": "after training"}


def staged(frame: pl.DataFrame) -> pl.DataFrame:
    """Return the rows of the first and the last measurement of every replica, with their `stage` beside them.

    Training ends at the last measured step of a replica. One that diverged, failed or was stopped by a search has no
    end: the numbers of its rows there are null, so that its seed is counted as missing.

    Args:
        frame: Columns `arm`, `length`, `seed`, `step` and `status`.
    """
    last = pl.col("step").max().over("arm", "length", "seed")
    finished = pl.col("status").is_in(FINISHED)
    end = frame.filter(pl.col("step") == last, (pl.col("step") > 0) | ~finished)
    end = end.with_columns(pl.when(finished).then(cs.float() - cs.by_name("position", require_all=False)).name.keep())
    start = frame.filter(pl.col("step") == 0)
    return pl.concat([start.with_columns(stage=pl.lit("initialisation")), end.with_columns(stage=pl.lit("end"))])


def top_forward(frame: pl.DataFrame, part: str = "recurrent") -> pl.DataFrame:
    """Return the rows of the last layer that each arm has in a part of the network, forward in time."""
    rows = frame.filter(part=part)
    return rows.filter(pl.col("layer") == pl.col("layer").max().over("arm"), pl.col("direction") == "forward")


def metric(curves: pl.DataFrame, name: str, **facts: str | int) -> pl.DataFrame:
    """Return the rows of `curves` of one metric with exactly these facts: what is not named must be null.

    Args:
        curves: The table.
        name: Of the metric, such as `loss`.
        **facts: Columns among `CURVE_FACTS`, such as `split="validation"`.
    """
    nothing = [pl.col(fact).is_null() for fact in CURVE_FACTS if fact not in facts]
    return curves.filter(*nothing, metric=name, **facts)


def evenly(num: int, most: int) -> list[int]:
    """Return at most `most` of `num` places, from 0, evenly spaced, first and last included."""
    places: list[int] = np.linspace(0, num - 1, min(most, num)).round().astype(int).tolist()
    return places


def fewer_settings(rows: pl.DataFrame, most: int) -> pl.DataFrame:
    """Return at most `most` rows of settings, by `position`: `selected` ones first, and of what is too many evenly."""
    if rows.height <= most:
        return rows
    first = rows.sort("selected", descending=True, maintain_order=True)
    few = first.filter("selected") if first["selected"].sum() >= most else first
    return few[evenly(few.height, most)].sort("position")


def pick_evenly(values: Mapping[Name, float | None], most: int) -> list[Name]:
    """Return at most `most` names, in the order given: the extremes of `values`, and between them evenly by rank.

    A name without a finite value comes before the smallest.
    """
    if len(values) <= most:
        return list(values)
    keys = {name: -np.inf if value is None or np.isnan(value) else value for name, value in values.items()}
    order = sorted(keys, key=lambda name: keys[name])
    taken = {order[place] for place in evenly(len(order), most)}
    return [name for name in values if name in taken]


def thin_evenly(frame: pl.DataFrame, along: str, keys: Sequence[str], most: int) -> pl.DataFrame:
    """Return the rows of at most `most` values of `along` per group, evenly spaced by rank, first and last included.

    Args:
        frame: Any rows, with the columns `along` and `keys`.
        along: What is thinned, such as the step.
        keys: The columns that make a group.
        most: At least 2.
    """
    values = frame.select(*keys, along).unique().sort(*keys, along)
    rank, last = pl.int_range(pl.len()).over(keys), pl.len().over(keys) - 1
    bucket = (rank * (most - 1)) // last
    # A value opens a bucket if its predecessor lies in an earlier one; the last value has the last bucket to itself.
    opens = (bucket != bucket.shift(1).over(keys)).fill_null(value=True)
    kept = values.filter((last < most) | opens)
    return frame.join(kept, on=[*keys, along], how="semi", maintain_order="left", nulls_equal=True)


def on_schedule(frame: pl.DataFrame, series: Sequence[str]) -> pl.DataFrame:
    """Return `frame` with a row of every seed at every scheduled step of its trial.

    A replica that stops (at the criterion, the time limit or a divergence) keeps its last weights, so its last
    measurement stands for the steps after it. A step at which only a replica that stopped was measured is no
    scheduled step and is left out.

    Args:
        frame: Columns `trial_id`, `seed`, `step` and `series`, and any others.
        series: The columns that tell the curves of one replica apart, such as `metric`.
    """
    seen = frame.select("trial_id", "seed", "step").unique()
    scheduled = _scheduled_steps(seen)
    seeds = seen.select("trial_id", "seed").unique()
    wanted = scheduled.join(seeds, on="trial_id").sort("step")
    measured = seen.with_columns(measured_step="step").sort("step")
    wanted = wanted.join_asof(measured, on="step", by=["trial_id", "seed"], strategy="backward", check_sortedness=False)
    rows = wanted.drop_nulls("measured_step").join(
        frame.rename({"step": "measured_step"}), on=["trial_id", "seed", "measured_step"]
    )
    return rows.select(frame.columns).sort("trial_id", *series, "step", "seed")


def _scheduled_steps(seen: pl.DataFrame) -> pl.DataFrame:
    """Return the (trial_id, step) at which every seed that had not stopped was measured."""
    last = seen.group_by("trial_id", "seed").agg(last_step=pl.col("step").max())
    steps = seen.group_by("trial_id", "step").agg(num_measured=pl.len())
    training = steps.join(last, on="trial_id").filter(pl.col("last_step") >= pl.col("step"))
    alive = training.group_by("trial_id", "step").agg(num_training=pl.len())
    both = steps.join(alive, on=["trial_id", "step"])
    return both.filter(pl.col("num_measured") == pl.col("num_training")).select("trial_id", "step")
