"""What decoders write: errors by output position and source length, free-running and teacher-forced, and repetition."""

from __future__ import annotations

import polars as pl

from pipeline.quantities.grid import Grid, finished, of_every_replica
from pipeline.quantities.outcomes import test_error
from pipeline.quantities.quantity import quantity
from pipeline.quantities.selection import metric
from pipeline.results import FINISHED

MODES = {"teacher_forced": "teacher-forced", "free_running": "free-running"}

MAX_BINS = 8
"""More source lengths than these are put into bins of about as many sequences each."""

RUN = 4
"""Tokens of a run: the more of a text's runs are distinct, the less it repeats itself."""

_BIN = ("source_length", "shortest", "longest")


def decodes(grid: Grid) -> bool:
    """Return whether these networks write sequences, so that an error is of a whole sequence, free-running."""
    return not grid["breakdown"].is_empty()


def _errors_by(grid: Grid, by: str) -> pl.DataFrame:
    """Return the last breakdown of every replica, null of one that did not finish; no place without tokens."""
    rows = grid["breakdown"].filter(pl.col("num") > 0, by=by)
    last = rows.filter(pl.col("step") == pl.col("step").max().over("arm", "seed"))
    known = last.select("arm", "seed", "mode", "at", "num", value=finished("error"))
    return of_every_replica(grid, known, "mode", "at").sort(grid.rank(), "mode", "at", "seed")


@quantity(words="token error", scale="share", better="lower", facets=("mode", "at"))
def error_by_position(grid: Grid) -> pl.DataFrame:
    """Share of wrong tokens at an output position (`at`, from 1) on the test sequences, of `num` tokens."""
    return _errors_by(grid, "output_position")


@quantity(words="sequence error", scale="share", better="lower", facets=("mode", "at"))
def error_by_source_length(grid: Grid) -> pl.DataFrame:
    """Share of test sequences that are not exactly right, by the length of the source (`at`), of `num` sequences."""
    return _errors_by(grid, "source_length")


@quantity(words="sequence error", scale="share", better="lower", facets=_BIN, across_lengths=True)
def sequence_error_by_bin(grid: Grid) -> pl.DataFrame:
    """Share of test sequences that are not exactly right, free-running, by the length of the source.

    Where networks were trained at several lengths, each is tested at its own. Else the lengths among the test sequences
    stand alone, or in `MAX_BINS` bins: `source_length` is the mean length of a bin from `shortest` to `longest`.
    """
    if trains_by_length(grid):
        rows = test_error.of(grid).with_columns(shortest="length", longest="length")
        rows = rows.with_columns(source_length=pl.col("length").cast(pl.Float64))
    else:
        rows = _in_bins(error_by_source_length.of(grid.at("longest")).filter(mode="free_running"))
        rows = rows.with_columns(length=pl.lit(grid.lengths[-1], pl.Int64))
    return rows.select("length", "arm", *_BIN, "seed", "value").sort(grid.rank(), "source_length", "seed")


def trains_by_length(grid: Grid) -> bool:
    """Return whether the length of the source is an axis of the grid."""
    return grid.runs["dataset.length"].drop_nulls().n_unique() > 1


def _in_bins(rows: pl.DataFrame) -> pl.DataFrame:
    """Return the errors of each replica by bins of source length, weighted by their numbers of sequences."""
    counts = rows.group_by("at").agg(pl.col("num").max()).sort("at")
    middle = (pl.col("num").cum_sum() - pl.col("num") / 2) / pl.col("num").sum()
    place = (middle * MAX_BINS).floor() if counts.height > MAX_BINS else pl.col("at")
    length = (pl.col("at") * pl.col("num")).sum().over("bin") / pl.col("num").sum().over("bin")
    bins = counts.with_columns(bin=place).with_columns(
        source_length=length, shortest=pl.col("at").min().over("bin"), longest=pl.col("at").max().over("bin")
    )
    weighted = (pl.col("value") * pl.col("num")).sum() / pl.col("num").sum()
    error = pl.when(pl.col("value").is_not_null().all()).then(weighted)
    return rows.join(bins.drop("num"), on="at").group_by("arm", *_BIN, "seed").agg(value=error)


@quantity(words="exposure gap: token error free-running minus teacher-forced", bounds=(-1.0, 1.0))
def exposure_gap(grid: Grid) -> pl.DataFrame:
    """Share of wrong tokens on the test sequences, free-running minus teacher-forced."""
    free, forced = (metric(grid["curves"], "token_error", split="test", mode=mode) for mode in reversed(MODES))
    pairs = free.join(forced, on=["arm", "seed"], suffix="_forced", maintain_order="left")
    gaps = pairs.select("arm", "seed", value=finished(pl.col("value") - pl.col("value_forced")))
    return of_every_replica(grid, gaps).sort(grid.rank(), "seed")


@quantity(words="share of seeds whose exposure gap exceeds a token in a hundred", scale="event")
def exposed(grid: Grid) -> pl.DataFrame:
    """Whether a seed's exposure gap is above 0.01; null of one that did not finish."""
    return exposure_gap.of(grid).with_columns(pl.col("value") > 0.01)


@quantity(words="share of distinct runs in {sequence} text", scale="share", facets=("sequence",))
def distinct_runs(grid: Grid) -> pl.DataFrame:
    """Share of the runs of `RUN` tokens that are distinct within a text, by how tokens are chosen (`sequence`).

    Mean over the texts that a replica wrote after its prompts; a text shorter than a run has none, and a replica that
    did not finish has null.
    """
    text = ["arm", "seed", "example", "sequence"]
    rows = grid["tokens"].filter(pl.col("status").is_in(FINISHED))
    last = prompted(rows.filter(pl.col("step") == pl.col("step").max().over("arm", "seed")))
    tokens = last.filter(pl.col("sequence") != "prompt").sort(grid.rank(), *text[1:], "position")
    run = pl.concat_str([pl.col("token").shift(-k).over(text) for k in range(RUN)], separator="\0")
    runs = tokens.with_columns(run=run).drop_nulls("run").group_by(text, maintain_order=True)
    shares = runs.agg(value=pl.col("run").n_unique() / pl.len())
    means = shares.group_by("arm", "seed", "sequence", maintain_order=True).agg(pl.col("value").mean())
    return of_every_replica(grid, means, "sequence")


def prompted(tokens: pl.DataFrame) -> pl.DataFrame:
    """Return the tokens of prompts and of what follows them."""
    keys = tokens.filter(sequence="prompt").select("arm", "seed", "step", "example").unique()
    return tokens.join(keys, on=keys.columns, maintain_order="left")
