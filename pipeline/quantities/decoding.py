"""Errors of decoders: by output position and source length, teacher-forced and free-running, and the gap of the two."""

from __future__ import annotations

import polars as pl

from pipeline.quantities.grid import Grid, finished
from pipeline.quantities.quantity import quantity
from pipeline.quantities.selection import metric
from pipeline.results import FINISHED

MODES = {"teacher_forced": "teacher-forced", "free_running": "free-running"}


def decodes(grid: Grid) -> bool:
    """Return whether these networks write sequences, so that an error is of a whole sequence, free-running."""
    return not grid["breakdown"].is_empty()


def _errors_by(grid: Grid, by: str) -> pl.DataFrame:
    """Return the last breakdown of every finished replica; a place without tokens is left out."""
    rows = grid["breakdown"].filter(pl.col("status").is_in(FINISHED), pl.col("num") > 0, by=by)
    last = rows.filter(pl.col("step") == pl.col("step").max().over("arm", "seed"))
    return last.sort(grid.rank(), "mode", "at", "seed").rename({"error": "value"})


@quantity(words="token error", unit="share", bounds=(0.0, 1.0), better="lower", facets=("mode", "at"))
def error_by_position(grid: Grid) -> pl.DataFrame:
    """Share of wrong tokens at an output position (`at`, from 1) on the test sequences, of `num` tokens."""
    return _errors_by(grid, "output_position").select("arm", "seed", "mode", "at", "num", "value")


@quantity(words="sequence error", unit="share", bounds=(0.0, 1.0), better="lower", facets=("mode", "at"))
def error_by_source_length(grid: Grid) -> pl.DataFrame:
    """Share of test sequences that are not exactly right, by the length of the source (`at`), of `num` sequences."""
    return _errors_by(grid, "source_length").select("arm", "seed", "mode", "at", "num", "value")


@quantity(words="exposure gap: token error free-running minus teacher-forced", unit="share")
def exposure_gap(grid: Grid) -> pl.DataFrame:
    """Share of wrong tokens on the test sequences, free-running minus teacher-forced."""
    free, forced = (metric(grid["curves"], "token_error", split="test", mode=mode) for mode in reversed(MODES))
    pairs = free.join(forced, on=["arm", "seed"], suffix="_forced", maintain_order="left")
    gap = finished(pl.col("value") - pl.col("value_forced"))
    return pairs.sort(grid.rank(), "seed").select("arm", "seed", value=gap)


@quantity(words="exposure gap in the {half} half of the output", unit="share", facets=("half",))
def exposure_gap_by_half(grid: Grid) -> pl.DataFrame:
    """The exposure gap over the tokens of the `first` and of the `second` half of the output positions.

    Neither the first position nor the last can show growth: before the first token both decoders have read the same,
    and the last may be the end sign, which is easy. What is hard by its position is so in both modes, and drops out.
    """
    rows = error_by_position.of(grid)
    second = pl.col("at") > pl.col("at").max().over("arm") / 2
    free = pl.col("mode") == "free_running"
    num_wrong = pl.col("value") * pl.col("num")
    gap = (num_wrong.filter(free).sum() - num_wrong.filter(~free).sum()) / pl.col("num").filter(free).sum()
    halves = rows.with_columns(half=pl.when(second).then(pl.lit("second")).otherwise(pl.lit("first")))
    return halves.group_by("arm", "half", "seed", maintain_order=True).agg(value=gap)
