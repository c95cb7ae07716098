"""How trainings ended: the columns of `trials`, who reached the criterion, who diverged, and the time of a step."""

from __future__ import annotations

import math
from collections.abc import Sequence

import polars as pl

from pipeline.quantities.grid import Grid, finished, once_per_grid
from pipeline.quantities.intervals import line_interval, paired_difference, ratio_half_width, t_quantile
from pipeline.quantities.quantity import NOTHING, Effect, effect_of, from_log10, quantity
from pipeline.results import FINISHED


def _column(grid: Grid, value: str | pl.Expr) -> pl.DataFrame:
    return grid.runs.select("arm", "length", "seed", "status", value=finished(value))


def _exact_column(grid: Grid, value: str | pl.Expr) -> pl.DataFrame:
    return _column(grid, value).with_columns(exact=pl.lit(value=True))


@quantity(words="test loss", scale="log10", better="lower", training="improves", across_lengths=True)
def test_loss(grid: Grid) -> pl.DataFrame:
    """log10 of the test loss at each replica's best validation step, per length."""
    return _column(grid, pl.col("test_loss").log10())


@quantity(words="test error", scale="share", better="lower", training="improves")
def test_error(grid: Grid) -> pl.DataFrame:
    """Share of wrong classes; of decoders the share of sequences that are not exactly right, free-running."""
    return _column(grid, "test_error")


@quantity(words="test perplexity", scale="log10", better="lower", training="improves")
def test_perplexity(grid: Grid) -> pl.DataFrame:
    """log10 of the exponential of the test loss, where that is nats per token."""
    return _column(grid, pl.col("test_loss") / math.log(10))


@quantity(words="test loss over the baseline's", scale="log10", better="lower", training="improves")
def test_loss_over_baseline(grid: Grid) -> pl.DataFrame:
    """log10 of the test loss over that of the best answer without a memory; null where no baseline is known."""
    return _column(grid, (pl.col("test_loss") / pl.col("baseline_loss")).log10())


@quantity(words="number of parameters", better="lower", training="none")
def num_parameters(grid: Grid) -> pl.DataFrame:
    """Entries of all weights of one network."""
    return _exact_column(grid, "num_parameters")


@quantity(words="bytes kept for the backward pass", better="lower", training="none")
def activation_bytes(grid: Grid) -> pl.DataFrame:
    """Bytes that one replica keeps from the forward to the backward pass."""
    return _exact_column(grid, "activation_bytes")


@quantity(words="steps to the criterion", scale="log10", better="lower")
def criterion_step(grid: Grid) -> pl.DataFrame:
    """log10 of the training step at which the criterion was reached; null for a seed that did not."""
    return _column(grid, pl.col("criterion_step").log10())


_ANSWERS = pl.col("status") != "error"
"""A seed whose program failed says nothing about its arm."""

_CENSORED = pl.col("status") == "censored"


def median_criterion_step() -> pl.Expr:
    """Return the median over seeds of the step at which the criterion was reached; infinite where that seed never did.

    A seed that diverged, ran out of time or was stopped by a search never did; one whose program failed is left out.
    """
    return pl.col("criterion_step").filter(_ANSWERS).cast(pl.Float64).fill_null(math.inf).median()


@quantity(
    words="share of seeds that reach the criterion",
    scale="event",
    better="higher",
    training="improves",
    across_lengths=True,
)
def solved(grid: Grid) -> pl.DataFrame:
    """Whether a seed reached the criterion; null where a search stopped it before, since it might yet have."""
    reached = pl.col("reached_criterion").fill_null(value=False)
    rows = _answer(grid, pl.when(reached | ~_CENSORED).then(reached)).sort("length", maintain_order=True)
    if "training.stop_below" in grid.runs.columns and not has_criterion(grid.runs):
        return rows.clear()  # nothing could be reached
    return rows


_ENDS = ("ok", "diverged", "timed_out")
"""How the training of a seed that answers can end."""


def _ended(status: str) -> pl.Expr:
    """Return whether a seed ended with a status; null where a search stopped it: nobody knows how it would have."""
    return pl.when(~_CENSORED).then(pl.col("status") == status)


@quantity(words="share of seeds whose outcome is {status}", scale="event", facets=("status",))
def outcome(grid: Grid) -> pl.DataFrame:
    """Whether a seed ended with a status: a row per status but `error`."""
    runs = grid.runs.filter(_ANSWERS)
    rows = [runs.select("arm", "seed", status=pl.lit(status), value=_ended(status)) for status in _ENDS]
    return pl.concat(rows)


def _answer(grid: Grid, value: str | pl.Expr) -> pl.DataFrame:
    """Return what is asked of each seed, but of those whose program failed."""
    return grid.runs.filter(_ANSWERS).select("arm", "length", "seed", value=value)


@quantity(words="share of seeds that explode, recovering or not", scale="event", better="lower")
def exploded(grid: Grid) -> pl.DataFrame:
    """Whether a validation loss was ever far above the untrained network's (`training.explodes_above`), or diverged.

    Null where a search stopped a seed that had not.
    """
    has = pl.col("exploded_step").is_not_null() | (pl.col("status") == "diverged")
    return _answer(grid, pl.when(has | ~_CENSORED).then(has))


@quantity(
    words="share of seeds that finish and were never better than untrained",
    scale="event",
    better="lower",
    training="improves",
)
def never_improved(grid: Grid) -> pl.DataFrame:
    """Whether a seed trained to its end and no evaluation was better than that of its untrained network.

    Null where a search stopped a seed before one was.
    """
    never = pl.col("status").is_in(FINISHED) & ~pl.col("beat_untrained")
    return _answer(grid, pl.when(~_CENSORED | pl.col("beat_untrained")).then(never))


@quantity(words="share of seeds that the search stopped", scale="event")
def censored(grid: Grid) -> pl.DataFrame:
    """Whether a search stopped a seed before its last step, so that nobody knows how it would have ended."""
    return _answer(grid, _CENSORED)


@quantity(words="share of seeds whose program failed", scale="event", better="lower")
def failed(grid: Grid) -> pl.DataFrame:
    """Whether the program of a seed ended with an error."""
    return grid.runs.select("arm", "seed", value=pl.col("status") == "error")


@quantity(
    words="share of seeds whose outcome in any setting is {status}",
    scale="event",
    facets=("status",),
    of_all_settings=True,
)
def outcome_of_any_setting(grid: Grid) -> pl.DataFrame:
    """Whether a seed ended with a status in one of its arm's settings: at any learning rate, selected or not.

    Null where in none that is known, and a search stopped one of them.
    """
    runs = grid.all_runs.filter(_ANSWERS)
    ends = [
        runs.group_by("arm", "seed", maintain_order=True)
        .agg(value=_ended(status).any(ignore_nulls=False))
        .with_columns(status=pl.lit(status))
        for status in _ENDS
    ]
    return pl.concat(ends)


@once_per_grid
def longest_solved(grid: Grid) -> pl.DataFrame:
    """Return for each arm the longest length that more than half of its seeds solve, as they do all shorter ones.

    A length of which that is not known, as where its trials failed, counts as not solved.

    Columns `arm` and `longest_solved` (null where not even the shortest is solved), in the order of the grid.
    """
    tried = grid.runs.select("arm", "length").unique(maintain_order=True).sort("length", maintain_order=True)
    shares = tried.join(solved.summary(solved.of(grid), ["arm", "length"]), on=["arm", "length"], how="left")
    failed = (pl.col("mean") <= 0.5).fill_null(value=True).cum_sum().over("arm", order_by="length")
    reliable = shares.filter(failed == 0)
    longest = reliable.group_by("arm").agg(longest_solved=pl.col("length").max())
    arms = grid.runs.select("arm").unique(maintain_order=True)
    return arms.join(longest, on="arm", how="left", maintain_order="left")


def has_criterion(runs: pl.DataFrame) -> bool:
    """Return whether any run could reach a criterion: whether its study sets `training.stop_below`."""
    return "training.stop_below" in runs.columns and bool(runs["training.stop_below"].is_not_null().any())


def has_classes(grid: Grid) -> bool:
    """Return whether the grid's dataset has classes, so that there is a test error."""
    return bool(grid.runs["test_error"].is_not_null().any())


def compares_cells(grid: Grid) -> bool:
    """Return whether every arm is a cell and nothing else."""
    return bool((grid.runs["arm"] == grid.runs["model.cell"]).all())


@once_per_grid
def clocks(grid: Grid) -> pl.DataFrame:
    """Return a row per arm whose training was timed in several portions.

    Columns `arm`, `step_time_s`, `error` (its standard error over portions, over the time itself) and `num_portions`.
    All seeds of a setting share one clock, which runs as long as all of them train.
    """
    runs = grid.runs.filter(pl.col("status").is_in(FINISHED)).drop_nulls("step_time_error_s")
    timed, error = (
        runs.unique("arm", keep="first", maintain_order=True),
        pl.col("step_time_error_s") / pl.col("step_time_s"),
    )
    return timed.select("arm", "step_time_s", num_portions="num_timed_portions", error=error)


def _half_width_of_clocks(grid: Grid, arms: Sequence[str], confidence: float) -> float | None:
    """Return how far the interval of a ratio of two arms' step times reaches, in decades; None without both clocks."""
    timed = clocks(grid).filter(pl.col("arm").is_in(arms), pl.col("num_portions") > 1)
    if timed.height < len(arms):
        return None
    half = float(ratio_half_width(timed["error"].to_numpy(), timed["num_portions"].to_numpy(), confidence))
    return None if math.isnan(half) else half / math.log(10)


def _within(log_ratio: float, half: float | None, num_seeds: int, num_left_out: int) -> Effect:
    low, high = (None, None) if half is None else (from_log10(log_ratio - half), from_log10(log_ratio + half))
    return Effect(from_log10(log_ratio), low, high, num_seeds, num_left_out)


def _ratio_of_step_times(grid: Grid, arm: str, than: str, confidence: float) -> Effect:
    """Return the ratio with its interval over the portions of training that were timed apart."""
    half = _half_width_of_clocks(grid, (arm, than), confidence)
    if half is None:
        return NOTHING
    times = dict(clocks(grid).select("arm", "step_time_s").iter_rows())
    runs = grid.runs.filter(pl.col("status").is_in(FINISHED))
    num_seeds = min(runs.filter(pl.col("arm") == name)["seed"].n_unique() for name in (arm, than))
    return _within(math.log10(times[arm] / times[than]), half, num_seeds, 0)


def _ratio_of_criterion_times(grid: Grid, arm: str, than: str, confidence: float) -> Effect:
    """Return the ratio paired by seed, with an interval of what differs between seeds and of what they share.

    The steps to the criterion are each seed's own, the time of a step is that of the arm's clock. The interval over
    seeds and that of the ratio of the clocks are independent, so that √(a² + b²) of their half-widths is that of both.

    Source: Zou and Donner (2008).
    """
    rows = criterion_time_s.of(grid)
    seeds = effect_of(paired_difference(rows, "value", "arm", arm, than, confidence=confidence))
    if seeds.value is None:
        return seeds
    of_clocks = _half_width_of_clocks(grid, (arm, than), confidence)
    half = None if seeds.high is None or of_clocks is None else math.hypot(seeds.high - seeds.value, of_clocks)
    return _within(seeds.value, half, seeds.num_seeds, seeds.num_left_out)


@quantity(
    words="time to the criterion in s (interval over seeds and timed portions)",
    scale="log10",
    better="lower",
    ratio=_ratio_of_criterion_times,
)
def criterion_time_s(grid: Grid) -> pl.DataFrame:
    """log10 of the seconds that the steps to the criterion take while all replicas train; null where it was not met."""
    return _column(grid, pl.col("criterion_time_s").log10())


@quantity(
    words="time of a step in s (interval over timed portions)",
    better="lower",
    training="none",
    ratio=_ratio_of_step_times,
)
def step_time_s(grid: Grid) -> pl.DataFrame:
    """Seconds per training step while all replicas train, the same for every seed of a setting."""
    return _column(grid, "step_time_s")


def step_times(grid: Grid) -> pl.DataFrame:
    """Return a summary of `step_time_s` by arm, with intervals over the portions of training that were timed apart."""
    seeds = grid.runs.filter(pl.col("status").is_in(FINISHED)).group_by("arm").agg(num_seeds=pl.col("seed").n_unique())

    def half_width(portions: int) -> float | None:
        return t_quantile(portions - 1) if portions > 1 else None

    half = pl.col("num_portions").map_elements(half_width, pl.Float64) * pl.col("error") * pl.col("step_time_s")
    mean, none = pl.col("step_time_s"), pl.lit(0, pl.Int64)
    timed = clocks(grid).join(seeds, on="arm", maintain_order="left")
    counts = {"num_seeds": pl.col("num_seeds").cast(pl.Int64), "num_nonfinite": none, "num_missing": none}
    return timed.select("arm", mean=mean, low=mean - half, high=mean + half, **counts)


@quantity(words="matrix products that wait for each other", better="lower", training="none")
def sequential_products(grid: Grid) -> pl.DataFrame:
    """The longest chain of matrix products in which each needs the one before it, of a stack of L layers.

    T + L - 1 of a recurrence, since a layer's timestep waits for the one before and for the layer below; L T of one
    that reads both ways, whose layers wait for all of the layer below. 6 L of self-attention, whatever T: queries,
    scores, weighted sum, output, and the two of the ReLU layer.
    """
    timesteps, layers = pl.col("length"), pl.col("model.num_layers")
    recurrent = pl.when("model.bidirectional").then(layers * timesteps).otherwise(timesteps + layers - 1)
    return _exact_column(grid, pl.when(pl.col("model.attention.name") == "self").then(6 * layers).otherwise(recurrent))


def _exponent_of_step_time(grid: Grid, arm: str, confidence: float) -> Effect:
    runs = grid.runs.filter(pl.col("status").is_in(FINISHED), pl.col("arm") == arm)
    times = runs.group_by("length").agg(pl.col("step_time_s").first()).sort("length")
    line = line_interval(times["length"].log10().to_numpy(), times["step_time_s"].log10().to_numpy(), confidence)
    return NOTHING if line is None else Effect(*line, num_seeds=runs["seed"].n_unique(), num_left_out=0)


@quantity(
    words="power of T with which the time of a step grows (interval over lengths)",
    across_lengths=True,
    training="none",
    effect=_exponent_of_step_time,
)
def step_time_exponent(grid: Grid) -> pl.DataFrame:
    """log10 of the step time per length: the exponent is the slope of a line through them against log10 T."""
    return grid.runs.select("arm", "length", "seed", value=finished(pl.col("step_time_s").log10()))


def baseline_of(grid: Grid) -> float | None:
    """Return the loss of an answer that remembers nothing; None where it is unknown or settings differ in it."""
    return shared_number(grid, "baseline_loss")


def shared_number(grid: Grid, column: str) -> float | None:
    """Return what stands in a column of every replica that has a number there; None where they differ or none has."""
    known = grid.runs[column].drop_nulls().unique()
    return float(known[0]) if len(known) == 1 else None
