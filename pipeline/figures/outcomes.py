"""Figures of how trainings end: errors by arm and kind of token, losses by length, and who solves what."""

from __future__ import annotations

import itertools
import math

import polars as pl

from pipeline.figures.findings import NOTHING_FINISHED, best_and_next, extremes, with_arm
from pipeline.figures.frame import NOT_SHOWN, Axis, Dots, Lines, Panel, View, listed
from pipeline.figures.style import FAINT, Look
from pipeline.quantities import Grid, Quantity
from pipeline.quantities import outcomes as quantities
from pipeline.quantities.decoding import decodes
from pipeline.quantities.outcomes import baseline_of, compares_cells, has_classes, has_criterion, longest_solved
from pipeline.quantities.training import test_error_by_group
from pipeline.quantities.words import interval, join_first, name_of, number, seeds_of, with_article


def _percent(share: float) -> str:
    return f"{number(100 * share)} %"


def _paired_percentages(view: View) -> str:
    pairs = []
    for first, second in itertools.combinations(view.arms, 2):
        row = quantities.test_error.difference(view.rows, first, second).row(0, named=True)
        if row["low"] is not None:
            pairs.append(f"{name_of(first)} minus {name_of(second)} {interval(row, 3, scale=100)}")
    return f"Differences paired by seed, in percentage points: {'; '.join(pairs)}." if pairs else ""


error_by_cell = Dots(
    name="error_by_cell",
    applies=lambda grid: compares_cells(grid) and has_classes(grid),
    needs="arms that differ in the cell alone, on data with classes",
    rows=quantities.test_error,
    x=Axis(label="test error in %", scale="percent", limits=(0, None)),
    title=lambda view: best_and_next(
        quantities.test_error, view.rows, "test error", _percent, lead="Fewest test errors"
    ),
    about="Share of wrong classes among the test sequences of {dataset} (T = {T}), at each replica's best validation "
    "step: points are seeds, markers means over {seeds} with {interval}.",
    values=_paired_percentages,
    not_ok=NOT_SHOWN,
)


def _errors_by_kind(grid: Grid) -> pl.DataFrame:
    """Return the test errors by group, under what they are of: tokens, or the texts that have such a word."""
    of_texts = "class" in grid["tokens"]["sequence"]
    return test_error_by_group.of(grid).with_columns(
        pl.format("{} {}", "group", pl.lit("texts" if of_texts else "tokens"))
    )


def _error_by_token_finding(view: View) -> str:
    """For which kind of token the best arm differs most from the worst, seed by seed."""
    means = view.means.drop_nulls("mean")
    if means.is_empty():
        return NOTHING_FINISHED
    gaps = means.group_by("group", maintain_order=True).agg(gap=pl.col("mean").max() - pl.col("mean").min())
    group = gaps.sort("gap", descending=True, maintain_order=True)["group"][0]
    if means["arm"].n_unique() == 1:
        worst = means.sort("mean", descending=True, maintain_order=True).row(0, named=True)
        return f"Most errors of {with_article(worst['arm'])} are on {worst['group']}"
    ends = extremes(test_error_by_group, view.rows.filter(group=group))
    if ends is None or not ends[2]:
        return "Inconclusive: for no kind of token is a difference between arms established"
    best, worst, _ = ends
    shares = [f"{100 * row['mean']:.1f} % with {with_article(row['arm'])}" for row in (best, worst)]
    return f"Of the answers on {group} {shares[0]} are wrong, {shares[1]}"


error_by_token = Dots(
    name="error_by_token",
    rows=_errors_by_kind,
    quantity=test_error_by_group,
    x=Axis(label="test error in %", scale="percent", limits=(-3, 103)),
    across=("group", "{}"),
    title=_error_by_token_finding,
    about="Share of wrong answers on the test sequences of {dataset} (T = {T}), by the kind of the token or text that "
    "they answer, at each replica's best step: points are seeds, markers means over {seeds} with {interval}.",
    values=lambda view: (
        "; ".join(
            f"{group[0]}: {listed(view, rows, scale=100)} %"
            for group, rows in view.means.group_by("group", maintain_order=True)
        )
        + "."
    ),
    not_ok=NOT_SHOWN,
)


def _loss(grid: Grid) -> tuple[str, Quantity]:
    """Return the panel and the quantity of the test error, where there are classes, else of log10 of the test loss."""
    return ("error", quantities.test_error) if has_classes(grid) else ("loss", quantities.test_loss)


def _loss_rows(grid: Grid) -> pl.DataFrame:
    panel, quantity = _loss(grid)
    return quantity.of(grid).with_columns(panel=pl.lit(panel), end=pl.lit(""))


_ENDS = {
    "solved": ("reached the criterion", Look("#12416e", "none", "o")),
    "diverged": ("diverged", Look("#d1580b", "none", "X")),
    "exploded": ("exploded, recovering or not", Look("#b08000", "none", "^")),
    "timed_out": ("ran out of time", Look("#93308a", "none", "s")),
    "untrained": ("never better than untrained", Look("#5b7f3b", "none", "D")),
    "censored": ("stopped by the search", Look("#1a8f80", "none", "P")),
    "error": ("failed", Look(FAINT, "none", "v")),
}


def _ends(grid: Grid) -> pl.DataFrame:
    """Return by arm and `end` the share of seeds that ended so: solved if there is a criterion, the rest if any did.

    Those that exploded where some of them recovered: the others are those that diverged.
    """
    outcome = quantities.outcome
    parts = {
        "solved": quantities.solved.means(grid),
        "diverged": outcome.means(grid, status="diverged"),
        "exploded": quantities.exploded.means(grid),
        "timed_out": outcome.means(grid, status="timed_out"),
        "untrained": quantities.never_improved.means(grid),
        "censored": quantities.censored.means(grid),
        "error": quantities.failed.means(grid),
    }
    asked = {"solved": has_criterion(grid.runs), "untrained": bool(parts["untrained"]["mean"].gt(0).any())}
    asked["exploded"] = bool((parts["exploded"]["mean"] > parts["diverged"]["mean"]).any())
    known = [end for end in parts if asked.get(end, end in grid.runs["status"])]
    shares = [parts[end].with_columns(end=pl.lit(end), panel=pl.lit("ends")) for end in known]
    return pl.concat(shares) if shares else parts["error"].clear().with_columns(end=pl.lit(""), panel=pl.lit(""))


def _outcome_means(view: View) -> pl.DataFrame:
    losses = _loss(view.grid)[1].summary(view.rows, view.frame.keys)
    return pl.concat([losses, _ends(view.grid).select(losses.columns)])


def _outcome_finding(view: View) -> str:
    """Which arms most seeds solve; without a criterion, whether the best arm is ahead of the next one."""
    shares = view.means.filter(panel="ends")
    lost = [with_article(arm) for arm in shares.filter(pl.col("mean") > 0.5, end="diverged")["arm"]]
    tail = f"; most seeds of {join_first(lost)} diverge" if lost else ""
    solved = shares.filter(end="solved")
    if solved.is_empty():
        return f"{_best_finding(view)}{tail}"
    won = solved.filter(pl.col("mean") > 0.5).sort("mean", descending=True, maintain_order=True)["arm"].to_list()
    winners = set(won)
    others = [with_article(arm) for arm in solved["arm"] if arm not in winners]
    if not won or not others:
        return f"At T = {view.T} {'every' if won else 'no'} arm reaches the criterion with most of its seeds{tail}"
    rest = join_first(others) if len(others) <= 3 else f"{len(others)} others"
    names = join_first([with_article(arm) for arm in won])
    return f"At T = {view.T} most seeds reach the criterion with {names}, not with {rest}{tail}"


def _best_finding(view: View) -> str:
    """Among arms that have at least half of their seeds left; among all where none has."""
    panel, quantity = _loss(view.grid)
    text = _percent if has_classes(view.grid) else number
    is_left = pl.col("value").is_not_null()
    whole = view.rows.filter((2 * is_left.sum() >= pl.len()).over("arm"))
    rows = view.rows if whole["value"].drop_nulls().is_empty() else whole
    return best_and_next(quantity, rows, f"test {panel}", text, lead=f"Lowest test {panel}")


def _outcome_about(view: View) -> str:
    lead = "Test loss"
    if has_classes(view.grid):
        lead = "Share of sequences not exactly right, free-running," if decodes(view.grid) else "Share of wrong classes"
    mean, has_ends = "means" if has_classes(view.grid) else "geometric means", "ends" in view.means["panel"]
    lead = f"Left: {lead[0].lower()}{lead[1:]}" if has_ends else lead
    right = " Right: shares of seeds that ended so, with 95 % intervals." if has_ends else ""
    if "censored" in view.means["end"]:
        right += (
            " Seeds that the search stopped have no test loss, and count in another share only where that came before."
        )
    if "exploded" in view.means["end"]:
        right += " One that exploded had an evaluation far above the untrained network's loss."
    if view.grid.all_runs.height > view.grid.runs.height:
        right += " Each arm is at the setting that the study selects for it."
    seeds = seeds_of(view.means.filter(panel=_loss(view.grid)[0]).drop_nulls("mean"))
    return (
        f"{lead} on {{dataset}} at T = {{T}}, at each replica's best validation step: points are seeds, markers {mean} "
        f"over {seeds} with {{interval}}.{right}"
    )


def baseline_line(view: View, panel: Panel) -> dict[float, str]:  # noqa: ARG001 - the same in every panel
    """Return log10 of the loss without a memory, and its name; nothing where it is unknown."""
    baseline = baseline_of(view.grid)
    return {} if baseline is None else {math.log10(baseline): "baseline"}


def _is_said_elsewhere(grid: Grid) -> bool:
    return compares_cells(grid) and (error_by_cell.is_of(grid) or loss_by_length.is_of(grid))


outcome_by_arm = Dots(
    name="outcome_by_arm",
    applies=lambda grid: len(grid.arms) > 1 and not _is_said_elsewhere(grid),
    needs="several arms whose outcomes neither `error_by_cell` nor `loss_by_length` shows",
    rows=_loss_rows,
    means=_outcome_means,
    x={
        "error": Axis(label="test error in %", scale="percent"),
        "loss": Axis(label="test loss", scale="log10", lines=baseline_line),
        "ends": Axis(label="share of seeds", limits=(-0.04, 1.04)),
    },
    across=("panel", {"error": "Test error", "loss": "Test loss", "ends": "How its seeds ended"}),
    series=("end", _ENDS),
    title=_outcome_finding,
    about=_outcome_about,
    not_ok="diverged and failed ones have no test loss here",
    most=24,
)


def _points_by_length(grid: Grid) -> pl.DataFrame:
    """Return log10 of the test loss of every replica by arm and length, that of a diverged one apart."""
    keys = ["arm", "length", "seed"]
    rows = quantities.test_loss.of(grid).join(grid.runs.select(*keys, "test_loss"), on=keys)
    lost = pl.when(pl.col("status") == "diverged").then(pl.col("test_loss").log10())
    return rows.with_columns(panel=pl.lit("loss"), diverged_value=lost).sort("length", grid.rank(), "seed")


def _means_by_length(view: View) -> pl.DataFrame:
    keys = ["panel", "arm", "length"]
    means = quantities.test_loss.summary(view.rows, keys)
    if not has_criterion(view.grid.runs):
        return means
    solved = quantities.solved.of(view.grid).with_columns(panel=pl.lit("solved"))
    return pl.concat([means, quantities.solved.summary(solved, keys).select(means.columns)])


def _reach_finding(view: View) -> str:
    """Up to which length each arm learns; without a criterion, which arm has the lowest loss at the longest."""
    lengths = view.grid.lengths
    if not has_criterion(view.grid.runs):
        rows = view.rows.filter(length=lengths[-1])
        if rows["value"].drop_nulls().is_empty():
            return "Inconclusive: no replica finished training at the longest length"
        lead = f"Lowest test loss at T = {lengths[-1]}"
        return best_and_next(quantities.test_loss, rows, "test loss", number, lead=lead)
    reach, noun = longest_solved(view.grid), "cell" if compares_cells(view.grid) else "arm"
    if reach["longest_solved"].is_null().all():
        return f"No {noun} reaches the criterion with most of its seeds, not even at T = {lengths[0]}"
    if (reach["longest_solved"] == lengths[-1]).fill_null(value=False).all():
        return f"Every {noun} solves every length that was tried, up to T = {lengths[-1]}"
    reach = reach.sort("longest_solved", descending=True, nulls_last=True, maintain_order=True)
    groups = reach.group_by("longest_solved", maintain_order=True).agg("arm").rows()
    parts = [
        f"{'no length' if length is None else f'up to T = {length}'} with {join_first(list(map(with_article, arms)))}"
        for length, arms in groups
    ]
    if len(parts) > 3:  # the reaches at both ends, and how many arms lie between
        between = sum(len(arms) for _, arms in groups[1:-1])
        return f"Most seeds solve {parts[0]} to {parts[-1]}; {between} arms lie between"
    return f"Most seeds solve {', '.join(parts)}"


def _about_lengths(view: View) -> str:
    runs = view.grid.runs
    right = ""
    if has_criterion(runs):
        stopping = runs.filter(pl.col("training.stop_below").is_not_null())
        known = "training.stop_on" in runs.columns
        names: list[str] = stopping["training.stop_on"].unique().sort(descending=True).to_list() if known else []
        judged = " or ".join(name.replace("_", " ") for name in names) or "validation loss"
        right = f" Right: share of seeds whose {judged} fell below the criterion, with 95 % interval."
    seeds = seeds_of(view.means.filter(panel="loss").drop_nulls("mean"))
    return (
        f"{'Left: test' if right else 'Test'} loss on {{dataset}} after training, at each replica's best validation "
        "step; faint points are seeds, a diverged one a cross at the test loss of its best step, markers geometric "
        f"means over {seeds} with {{interval}} of log10; arms stand side by side at a length.{right}"
    )


loss_by_length = Lines(
    name="loss_by_length",
    applies=lambda grid: (
        (len(grid.lengths) > 1 or (has_criterion(grid.runs) and compares_cells(grid)))
        and bool(grid.runs["test_loss"].is_not_null().any())
    ),
    needs="several sequence lengths, or cells that could reach a criterion",
    rows=_points_by_length,
    means=_means_by_length,
    lengths="all",
    x=Axis(label="sequence length T", column="length", scale="lengths"),
    y={
        "loss": Axis(label="test loss", scale="log10", lines=baseline_line),
        "solved": Axis(label="share of seeds", limits=(-0.04, 1.04)),
    },
    across=("panel", {"loss": "Test loss", "solved": "Seeds that reached the criterion"}),
    marked=True,
    seeds=True,
    title=_reach_finding,
    about=_about_lengths,
    not_ok="a diverged one is in no mean and has not reached the criterion, and one with an error is not shown",
)


def _steps_finding(view: View) -> str:
    """The fewest and the most steps at the longest length that every arm learns, where they are told apart."""
    known = view.means.drop_nulls("mean").group_by("length").agg(arms=pl.col("arm").n_unique())
    longest: int = max(known.filter(arms=len(view.arms))["length"], default=0)
    found = extremes(quantities.criterion_step, view.rows.filter(length=longest))
    if found is None:
        return "Inconclusive: at no length does every arm reach the criterion"
    best, worst, is_apart = found
    steps = [f"{10 ** row['mean']:.0f}" for row in (best, worst)]
    finding = f"The criterion at T = {longest} takes {steps[0]} training steps {with_arm(best['arm'], view.grid)}"
    if best["arm"] == worst["arm"]:
        return finding
    if not is_apart:
        return f"Inconclusive: at T = {longest} no difference in the steps to the criterion is established"
    return f"{finding}, {steps[1]} {with_arm(worst['arm'], view.grid)}"


def _about_steps(view: View) -> str:
    missed = view.rows.filter(pl.col("value").is_null()).group_by("length", "arm").len().sort("length", "arm")
    parts = [f"{num} of {with_article(arm)} at T = {length}" for length, arm, num in missed.iter_rows()]
    never = f" Seeds that did not reach it, and are in no mean: {'; '.join(parts)}." if parts else ""
    return (
        "Training steps until the criterion was reached on {dataset}: faint points are seeds, markers geometric means "
        f"over {seeds_of(view.means.drop_nulls('mean'))} with {{interval}}; arms stand side by side at a length.{never}"
    )


criterion_by_length = Lines(
    name="criterion_by_length",
    applies=lambda grid: len(grid.lengths) > 1 and bool(grid.runs["criterion_step"].is_not_null().any()),
    needs="several sequence lengths, and seeds that reached a criterion",
    rows=lambda grid: quantities.criterion_step.of(grid).sort("length", maintain_order=True),
    quantity=quantities.criterion_step,
    lengths="all",
    x=Axis(label="sequence length T", column="length", scale="lengths"),
    y=Axis(label="training steps to the criterion", scale="log10"),
    marked=True,
    seeds=True,
    title=_steps_finding,
    about=_about_steps,
    not_ok=NOT_SHOWN,
)
