"""Which measurements a figure shows: of which stage of training, of which layer, of which arms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl

from pipeline.figures.words import number
from pipeline.quantities import GridTables
from pipeline.results import FINISHED

STAGES = {"initialisation": "At initialisation", "end": "At the end of training"}
MAX_PANELS = 6
"""Small multiples are at most as many."""


def compares_cells(tables: GridTables) -> bool:
    """Return whether every arm is a cell and nothing else."""
    return bool((tables.runs["arm"] == tables.runs["model.cell"]).all())


def staged(frame: pl.DataFrame) -> pl.DataFrame:
    """Return the rows of the first and the last measurement of every replica, with their `stage` beside them.

    Training ends at the last measured step of a replica; one that diverged or failed has no end.

    Args:
        frame: Columns `arm`, `seed`, `step` and `status`, of one length.
    """
    last = pl.col("step").max().over("arm", "seed")
    end = frame.filter(pl.col("step") == last, pl.col("step") > 0, pl.col("status").is_in(FINISHED))
    start = frame.filter(pl.col("step") == 0)
    return pl.concat([start.with_columns(stage=pl.lit("initialisation")), end.with_columns(stage=pl.lit("end"))])


def recurrent(frame: pl.DataFrame) -> pl.DataFrame:
    """Return the rows about networks of one recurrent stack: no inputs, and nothing of an encoder or a decoder."""
    return frame.filter(part="recurrent")


def top_forward(frame: pl.DataFrame, part: str = "recurrent") -> pl.DataFrame:
    """Return the rows of the last layer that each arm has in a part of the network, forward in time."""
    rows = frame.filter(part=part)
    return rows.filter(pl.col("layer") == pl.col("layer").max().over("arm"), pl.col("direction") == "forward")


def blocks(curves: pl.DataFrame, measures: Sequence[str] = ("sigma_max", "spectral_radius")) -> pl.DataFrame:
    """Return the rows of `curves` about blocks of the W_hh of recurrent networks.

    Beside them stand `measure`, `part` (recurrent), `layer`, `direction` and `gate`.

    The metric is «sigma_max[h]» in the first layer, forward in time; elsewhere the place stands before the gate:
    «sigma_max[l1.h]», «sigma_max[l0_reverse.f]».
    """
    form = rf"^(?<measure>{'|'.join(measures)})\[(?:l(?<layer>\d+)(?<reverse>_reverse)?\.)?(?<gate>\w+)\]$"
    told = curves.filter(pl.col("metric").str.contains(form))
    told = told.with_columns(pl.col("metric").str.extract_groups(form).alias("parts")).unnest("parts")
    backward = pl.col("reverse").is_not_null()
    direction = pl.when(backward).then(pl.lit("backward")).otherwise(pl.lit("forward"))
    told = told.with_columns(pl.col("layer").cast(pl.Int64).fill_null(0), direction=direction)
    return told.with_columns(part=pl.lit("recurrent")).drop("reverse")


def layer_told(frame: pl.DataFrame, part: str = "recurrent") -> str:
    """Return a sentence that says which layer `top_forward` chose, or nothing where there is one only."""
    rows = frame.filter(part=part)
    one = rows.is_empty() or (rows["layer"].max() == 0 and rows["direction"].n_unique() == 1)
    return "" if one else " Of several layers and directions the last layer, forward in time, is shown."


def ranked(arms: Sequence[str]) -> pl.Expr:
    """Return an expression that sorts arms as the study's file does."""
    return pl.col("arm").replace_strict(list(arms), list(range(len(arms))), default=len(arms), return_dtype=pl.Int64)


def spread(values: Mapping[str, float | None], most: int = MAX_PANELS) -> list[str]:
    """Return at most `most` names, in the order given: the extremes of `values`, and between them evenly by rank.

    A name without a finite value comes before the smallest.
    """
    if len(values) <= most:
        return list(values)
    keys = {name: -np.inf if value is None or np.isnan(value) else value for name, value in values.items()}
    order = sorted(keys, key=lambda name: keys[name])
    taken = {order[place] for place in np.linspace(0, len(order) - 1, most).round().astype(int)}
    return [name for name in values if name in taken]


def chosen_told(shown: Sequence[str], all_names: Sequence[str], by: str) -> str:
    """Return a sentence that says which arms are left out and by what the others were chosen, or nothing."""
    if len(shown) == len(all_names):
        return ""
    return f" {len(shown)} of {len(all_names)} arms are shown: the extremes by {by}, and between them evenly by rank."


def interval(row: Mapping[str, float | None], digits: int = 2) -> str:
    """Return «0.91 [0.88, 0.94]» of a row with `mean`, `low` and `high`; «0.91» of a single seed."""
    if row["low"] is None or row["high"] is None:
        return number(row["mean"], digits)
    return f"{number(row['mean'], digits)} [{number(row['low'], digits)}, {number(row['high'], digits)}]"
