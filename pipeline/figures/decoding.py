"""Figures of decoders: errors free-running and teacher-forced, by source length, and along schedules of forcing."""

from __future__ import annotations

import math

import polars as pl
from matplotlib.figure import Figure

from pipeline.figures.findings import NOTHING_FINISHED, Row, extremes, with_arm
from pipeline.figures.frame import NOT_SHOWN, Axis, Dots, Lines, Pictures, View, listed
from pipeline.figures.style import FAINT, Look, canvas, label_panels, legend_below
from pipeline.quantities import Grid
from pipeline.quantities.decoding import MODES, error_by_position, exposure_gap, sequence_error_by_bin, trains_by_length
from pipeline.quantities.training import final_free_running_error, forcing_probability, free_running_error
from pipeline.quantities.words import capitalised, interval, name_of, number, with_article

MAX_LINES = 4
"""Of more arms than these the errors along the output of some are drawn, and the gap of every one."""

_DASHES = {"free_running": "solid", "teacher_forced": (0, (3, 1.6))}


def _percent(share: float) -> str:
    """Return «3.2 %» of 0.032."""
    return f"{number(100 * share, 2)} %"


def _exposure_finding(view: View) -> str:
    """The largest and the smallest gap, where the difference between the two is established over seeds."""
    found = extremes(exposure_gap, view.rows)
    if found is None:
        return NOTHING_FINISHED
    least, most, is_apart = found

    def points(row: Row) -> str:
        return interval(row, scale=100)

    lead = "The exposure gap in token error is"
    if least["arm"] == most["arm"]:
        if most["low"] is None or most["low"] <= 0:
            return "Inconclusive: no gap between free-running and teacher-forced errors is established"
        return f"{lead} {points(most)} percentage points"
    if not is_apart:
        return "Inconclusive: no difference between arms in the exposure gap is established"
    names = [with_arm(row["arm"], view.grid) for row in (most, least)]
    return f"{lead} {points(most)} percentage points {names[0]}, {points(least)} {names[1]}"


def _mode_looks(view: View) -> dict[tuple[str, str], tuple[str, Look]]:
    """Free-running lines are solid, teacher-forced ones dashed."""
    return {
        (arm, mode): (MODES[mode], Look(look.colour, dashes, look.marker))
        for arm, look in view.looks.items()
        for mode, dashes in _DASHES.items()
    }


_POSITION, _WRONG = (
    Axis(label="output position", column="at", scale="counts"),
    Axis(label="wrong tokens in %", scale="percent", limits=(0, None)),
)
_ALONG_OUTPUT = Lines(
    name="errors_along_output",
    rows=error_by_position,
    x=_POSITION,
    y=_WRONG,
    series=("arm", "mode"),
    looks=_mode_looks,
    title=_exposure_finding,
    about="",
    most=MAX_LINES,
    rank=(lambda view: exposure_gap.by_arm(view.grid), "the gap"),
)
_GAPS = Dots(
    name="exposure_gaps",
    rows=exposure_gap,
    x=Axis(label="gap, free-running minus teacher-forced, in percentage points", scale="percent", lines={0.0: ""}),
    title=_exposure_finding,
    about="",
    most=100,
)


def _exposure_picture(view: View) -> Figure:
    """Draw errors along the output above, the gap of every arm below."""
    along, gaps = _ALONG_OUTPUT.view(view.grid), _GAPS.view(view.grid)
    below = 0.55 + 0.3 * len(gaps.shown)
    figure, axes = canvas(view.title, 2, 1, 2.9 + below, height_ratios=[2.2, below])
    for frame, own, ax in ((_ALONG_OUTPUT, along, axes[0, 0]), (_GAPS, gaps, axes[1, 0])):
        frame.fill(own, ax, {})
    _ALONG_OUTPUT.scale(along, axes[0, 0], {})
    axes[0, 0].set(title="Along the output", xlabel=_POSITION.label, ylabel=_WRONG.label)
    axes[1, 0].set_title("Exposure gap over all positions")
    arms = {name_of(arm): Look(along.looks[arm].colour, "solid", along.looks[arm].marker) for arm in along.shown}
    legend_below(figure, arms | {MODES[mode]: Look(FAINT, dashes, "") for mode, dashes in _DASHES.items()})
    label_panels(list(axes[:, 0]))
    return figure


def _exposure_table(view: View) -> pl.DataFrame:
    """Return the errors along the output of the arms that have lines, then the gaps drawn, without position."""
    along = _ALONG_OUTPUT.view(view.grid)
    return pl.concat([along.of_shown(along.means), view.of_shown(view.means)], how="diagonal")


def _exposure_values(view: View) -> str:
    along = _ALONG_OUTPUT.view(view.grid)
    some = f"Lines of {len(along.shown)} of {len(along.arms)} arms are drawn: {along.chosen}."
    chosen = some if len(along.shown) < len(along.arms) else ""
    return f"In percentage points: {listed(view, view.means, scale=100)}. {chosen}".strip()


exposure_bias = Pictures(
    name="exposure_bias",
    applies=lambda grid: not error_by_position.of(grid).is_empty(),
    needs="a decoder's errors by output position",
    rows=exposure_gap,
    picture=_exposure_picture,
    shows=_exposure_table,
    most=100,
    title=_exposure_finding,
    about="Above: share of wrong tokens at each output position on the test sequences of {dataset}, the decoder being "
    "free-running (given its own tokens, solid) or teacher-forced (given the true ones, dashed): means over {seeds}, "
    "bands the {interval}. Below: the exposure gap, the first minus the second over all positions, paired by seed: "
    "points are seeds, markers means with {interval}.",
    values=_exposure_values,
    not_ok=NOT_SHOWN,
)


def _has_lengths(grid: Grid) -> bool:
    """Whether a decoder was tested, or trained, at more than one source length."""
    tested = grid["breakdown"].filter(by="source_length", mode="free_running")
    return tested["at"].n_unique() > 1 or (trains_by_length(grid) and not tested.is_empty())


def _growths(view: View) -> pl.DataFrame:
    """Return by how much the error at the longest sources exceeds that at the shortest, paired by seed, by arm.

    Columns `arm`, `near` and `far` (mean errors of the two), `mean` (of their difference), `low`, `high`, ….
    """
    near, far = _ends(view)
    found = []
    looked_at = view.rows.filter(pl.col("arm").is_in(view.one_by_one))
    for (arm,), rows in looked_at.group_by("arm", maintain_order=True):
        levels = {name: rows.filter(source_length=end)["value"].mean() for name, end in (("near", near), ("far", far))}
        growth = sequence_error_by_bin.difference(rows, far, near, "source_length")
        known = {name: pl.lit(mean, pl.Float64) for name, mean in levels.items()}
        found.append(growth.with_columns(arm=pl.lit(arm), **known))
    return pl.concat(found)


def _ends(view: View) -> tuple[float, float]:
    """Return the mean lengths of the shortest and of the longest sources."""
    lengths = view.rows["source_length"].to_numpy()
    return (float(lengths.min()), float(lengths.max())) if len(lengths) else (math.nan, math.nan)


def _length_finding(view: View) -> str:
    """How far the error grows where it grows most, and what it is in the arm that is best at the longest."""
    return f"{view.of_few}{_growth_finding(view)}"


def _growth_finding(view: View) -> str:
    known = _growths(view).drop_nulls("mean")
    if known.is_empty():
        return NOTHING_FINISHED
    near, far = (f"{end:.0f}" for end in _ends(view))
    grown = known.filter(pl.col("low") > 0).sort("mean", descending=True, maintain_order=True)
    best = known.sort("far", maintain_order=True).row(0, named=True)
    of_best = with_arm(best["arm"], view.grid)
    if grown.is_empty():
        reason = " (one seed has no interval)" if known["num_seeds"].max() == 1 else ""
        none = f"No growth of the error from {near} to {far} source tokens is established{reason}"
        return f"{none}; {of_best} {_percent(best['far'])} of the longest are wrong"
    worst = grown.row(0, named=True)
    change = f"from {_percent(worst['near'])} at {near} source tokens to {_percent(worst['far'])} at {far}"
    finding = f"{capitalised(with_arm(worst['arm'], view.grid))} the error grows {change}"
    if best["arm"] == worst["arm"]:
        return finding
    if best["arm"] in grown["arm"]:
        return f"{finding}; {of_best} from {_percent(best['near'])} to {_percent(best['far'])}"
    most = view.means.filter(arm=best["arm"])["mean"].drop_nulls().to_numpy().max()
    return f"{finding}; {of_best} it is {_percent(most)} at most" if most else f"{finding}; {of_best} it stays at 0"


def _length_about(view: View) -> str:
    if trains_by_length(view.grid):
        where = "of networks trained at that length, on test sequences of it"
    elif (view.rows["shortest"] < view.rows["longest"]).any():
        num_bins = view.rows["source_length"].n_unique()
        where = f"in {num_bins} bins of about equally many test sequences, at their mean length"
    else:
        where = "of the test sequences of that length"
    return (
        "Share of output sequences on {dataset} that are not exactly right, the decoder being free-running, against "
        f"the length of the source, {where}; weights of the best validation step. Markers are means over {{seeds}} "
        "with {interval}; arms stand side by side."
    )


error_by_source_length = Lines(
    name="error_by_source_length",
    applies=_has_lengths,
    needs="a decoder that was tested, or trained, at more than one source length",
    lengths="all",
    rows=sequence_error_by_bin,
    x=Axis(label="source length (tokens)", column="source_length"),
    y=Axis(label="sequences not exactly right in %", scale="percent", limits=(-0.5, None)),
    marked=True,
    title=_length_finding,
    about=_length_about,
    not_ok=NOT_SHOWN,
)


def _schedule_finding(view: View) -> str:
    """The lowest and the highest error after training, where their difference is established over seeds."""
    rows = final_free_running_error.of(view.grid)
    found = extremes(final_free_running_error, rows)
    if found is None:
        return NOTHING_FINISHED
    best, worst, is_apart = found
    lead = "Free-running token error after training"
    if best["arm"] == worst["arm"]:
        return f"{lead} with {with_article(best['arm'])}: {_percent(best['mean'])}"
    if not is_apart:
        return "Inconclusive: no difference between schedules in the free-running token error is established"
    ends = [f"{_percent(row['mean'])} with {with_article(row['arm'])}" for row in (best, worst)]
    return f"{lead}: {ends[0]}, {ends[1]}"


def _schedule_values(view: View) -> str:
    schedules = view.means.filter(quantity="schedule").group_by("arm", maintain_order=True).agg("step", "mean")
    same = schedules.select("step", "mean").n_unique() < schedules.height
    errors = f"After training: {listed(view, final_free_running_error.means(view.grid), scale=100)} %."
    return f"{errors}{' Arms with the same schedule lie upon each other.' if same else ''}"


forcing_schedule = Lines(
    name="forcing_schedule",
    applies=lambda grid: (
        bool((forcing_probability.of(grid)["value"] < 1).any()) and not free_running_error.of(grid).is_empty()
    ),
    needs="a decoder that does not always read the true token",
    rows={"schedule": forcing_probability, "error": free_running_error},
    x=Axis(label="training step", column="step"),
    y={
        "schedule": Axis(label="probability ε of\nthe true token", limits=(-0.04, 1.04), band=False),
        "error": Axis(label="wrong tokens\nfree-running in %", scale="percent", limits=(0, None)),
    },
    down=("quantity", {"schedule": "", "error": ""}),
    height=2.0,
    title=_schedule_finding,
    about="Above: probability ε_i that the decoder is given the true token rather than its own in training step i, on "
    "{dataset}. Below: share of wrong tokens on the validation sequences, free-running. Means over {seeds}, bands the "
    "{interval}; a replica that stopped keeps its last measurement.",
    values=_schedule_values,
    not_ok="diverged ones count with their last weights",
)
