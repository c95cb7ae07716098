"""What the gates do: their values' densities, how often they are shut or open, before and after training."""

from __future__ import annotations

import math
from typing import Any

import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipeline.figures.stages import STAGES, chosen_told, layer_told, ranked, spread, staged, top_forward
from pipeline.figures.style import FAINT, INK, Look, canvas, handle_of, label_panels, legend_below, looks_of, styled
from pipeline.figures.words import INTERVAL, few, left_out, name_of, number, outcomes, seeds_of, the
from pipeline.quantities import GridTables, mean_interval

MAX_ARMS = 4
"""So many arms share the panels of the gates."""

KEEPING = ("f", "z")
"""Gates that multiply the old state, of the LSTM and of the GRU: the others follow them in the figure."""

_ORDER = (*KEEPING, "i", "r", "o")
_NUMBERS = ("mean", "left_saturated", "right_saturated", "half_life")


def applies(tables: GridTables) -> bool:
    """Return whether densities of gates were measured."""
    return not _rows(tables, ["density"]).is_empty()


def table(tables: GridTables) -> pl.DataFrame:
    """Return the mean density over seeds by stage, arm, gate and position (the middle of a bin of [0, 1])."""
    return _means(tables, ["density"], ["position"])


def numbers(tables: GridTables) -> pl.DataFrame:
    """Return the mean over seeds with its interval of each gate's numbers, by stage, arm, gate and quantity.

    Quantities are `mean`, `left_saturated` and `right_saturated` (shares of values near 0 and near 1) and `half_life`
    (timesteps). Where a quantity was measured unit by unit, a seed counts with its mean over units.
    """
    return _means(tables, list(_NUMBERS), [])


def title(tables: GridTables) -> str:
    """Return where training lengthens or shortens the memory of the keeping gate, by its half-life."""
    lives = numbers(tables).filter(pl.col("quantity") == "half_life", pl.col("gate").is_in(KEEPING))
    wide = lives.drop_nulls("mean").pivot(on="stage", index=["arm", "gate"], values="mean", maintain_order=True)
    if not {*STAGES} <= {*wide.columns}:
        return "Half-lives of the keeping gate are not known both before and after training"
    changes = _changes(tables)
    verdicts = {"lengthens": changes.filter(pl.col("low") > 0), "shortens": changes.filter(pl.col("high") < 0)}
    unsure = changes.join(pl.concat(verdicts.values()), on="arm", how="anti", maintain_order="left")
    parts = []
    for verdict, found in verdicts.items():
        if not found.is_empty():
            parts.append(f"{verdict} the keeping gate's half-life in {few(_told(found, wide), 2)}")
    if not unsure.is_empty():
        parts.append(f"no change is established in {few([the(arm) for arm in unsure['arm']])}")
    said = "; ".join(parts)
    return f"Training {said}" if any(not found.is_empty() for found in verdicts.values()) else said.capitalize()


def caption(tables: GridTables) -> str:
    """Return what is drawn, over how many seeds, and the half-lives with their intervals."""
    drawn = table(tables)
    longest = tables.at_longest(tables.runs)
    half = numbers(tables).filter(quantity="half_life", stage="end").filter(pl.col("gate").is_in(KEEPING))
    half = half.filter(pl.col("arm").is_in(_shown(tables))).drop_nulls("low")
    told = "; ".join(
        f"{name_of(row['arm'])} {number(row['mean'], 2)} [{number(row['low'], 2)}, {number(row['high'], 2)}]"
        for row in half.iter_rows(named=True)
    )
    lives = f" Half-lives ln ½ / ln f of the keeping gate after training, {INTERVAL}: {told} timesteps." if told else ""
    return (
        f"Density of each gate on the probe batch of {tables.dataset} (T = {tables.lengths[-1]}), mean over "
        f"{seeds_of(drawn)}: faint at initialisation, full at the end of training. Last panel: share of values near 0 "
        f"(left-saturated) and near 1 (right-saturated), a line from initialisation to the end, as in Karpathy et al. "
        f"(2015).{lives}{chosen_told(_shown(tables), _known(tables), _BY)}"
        f"{layer_told(tables.at_longest(tables.gates))} "
        f"{outcomes(longest, 'diverged and failed ones have no end of training')}{left_out(drawn)}"
    )


@styled
def draw(tables: GridTables) -> Figure:
    """Draw a panel for each gate, and one of saturation."""
    arms, looks = _shown(tables), looks_of(tables.arms)
    drawn = table(tables).filter(pl.col("arm").is_in(arms))
    gates = sorted(drawn["gate"].unique(), key=lambda gate: (_ORDER.index(gate) if gate in _ORDER else 9, gate))[:5]
    num_columns = 2 if len(gates) in {1, 3} else 3
    num_rows = math.ceil((len(gates) + 1) / num_columns)
    figure, axes = canvas(title(tables), num_rows, num_columns, 0.6 + 2.1 * num_rows)
    for ax, gate in zip(axes.flat, gates, strict=False):
        for arm in arms:
            _densities(ax, drawn.filter(arm=arm, gate=gate), looks[arm])
        ax.set_title(f"gate {gate}{', keeps the state' if gate in KEEPING else ''}")
        ax.set_xlabel("value of the gate")
        ax.set_xlim(0, 1)
        ax.set_ylim(bottom=0)
        ax.set_ylabel("density")
    _saturation(axes.flat[len(gates)], numbers(tables).filter(pl.col("gate").is_in(gates)), {a: looks[a] for a in arms})
    for ax in axes.flat[len(gates) + 1 :]:
        ax.set_visible(False)
    handles = [handle_of(looks[arm], linestyle="solid") for arm in arms]
    legend_below(figure, handles, [f"{name_of(arm)}{_half_life(tables, arm)}" for arm in arms])
    label_panels(list(axes.flat[: len(gates) + 1]))
    return figure


def _densities(ax: Axes, rows: pl.DataFrame, look: Look) -> None:
    for stage in STAGES:
        line = rows.filter(pl.col("stage") == stage)
        if line.is_empty():
            continue
        middles, heights = line["position"].to_numpy(), line["mean"].fill_null(float("nan")).to_numpy()
        style: dict[str, Any] = (
            {"linewidth": 1.6, "alpha": 1.0} if stage == "end" else {"linewidth": 1.0, "alpha": 0.45}
        )
        ax.step(middles, heights, where="mid", color=look.colour, **style)
        if stage == "end":
            ax.plot(middles[::5], heights[::5], color=look.colour, linestyle="none", marker=look.marker)


def _saturation(ax: Axes, rows: pl.DataFrame, looks: dict[str, Look]) -> None:
    """Draw a letter for each gate at (share near 0, share near 1), with a line that begins at initialisation."""
    wide = rows.filter(
        pl.col("quantity").is_in(["left_saturated", "right_saturated"]), pl.col("arm").is_in(list(looks))
    )
    wide = wide.pivot(on="quantity", index=["stage", "arm", "gate"], values="mean", maintain_order=True)
    ax.plot([0, 1], [1, 0], color=INK, linewidth=0.7, linestyle=":")
    if {"left_saturated", "right_saturated"} <= {*wide.columns}:
        for (arm, gate), path in wide.group_by(["arm", "gate"], maintain_order=True):
            points = path.drop_nulls().select("left_saturated", "right_saturated").rows()
            colour = looks[str(arm)].colour
            ax.plot(*zip(*points, strict=True), color=colour, linewidth=0.8, alpha=0.5)
            ax.plot(*points[0], color=colour, marker=".", alpha=0.5)
            ax.plot(*points[-1], color=colour, marker=f"${gate}$", markersize=7, linestyle="none")
    ax.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03))
    ax.set_box_aspect(1)
    ax.set_xlabel("share near 0")
    ax.set_ylabel("share near 1")
    ax.set_title("Saturation")
    ax.annotate("0 or 1 always", (0.5, 0.5), rotation=-45, ha="left", va="bottom", fontsize=7, color=FAINT)


_BY = "half-life of the keeping gate at the end"


def _rows(tables: GridTables, quantities: list[str]) -> pl.DataFrame:
    return staged(top_forward(tables.at_longest(tables.gates))).filter(pl.col("quantity").is_in(quantities))


def _means(tables: GridTables, quantities: list[str], more: list[str]) -> pl.DataFrame:
    keys = ["stage", "arm", "gate", "quantity", *more]
    by_seed = _rows(tables, quantities).group_by(*keys, "seed", maintain_order=True).agg(pl.col("value").mean())
    means = mean_interval(by_seed, "value", keys)
    return means.sort(pl.col("stage") == "end", ranked(tables.arms), "gate", "quantity", *more)


def _changes(tables: GridTables) -> pl.DataFrame:
    """Return by arm the mean over seeds of ln(half-life at the end / at initialisation), with its interval."""
    lives = _rows(tables, ["half_life"]).filter(pl.col("gate").is_in(KEEPING))
    by_seed = lives.group_by("arm", "seed", "stage", maintain_order=True).agg(pl.col("value").mean().log())
    pairs = by_seed.pivot(on="stage", index=["arm", "seed"], values="value", maintain_order=True)
    pairs = pairs.with_columns(change=pl.col("end") - pl.col("initialisation"))
    return mean_interval(pairs, "change", ["arm"]).sort(ranked(tables.arms))


def _told(found: pl.DataFrame, wide: pl.DataFrame) -> list[str]:
    """Return the arms with their half-lives before and after."""
    rows = {row["arm"]: row for row in wide.iter_rows(named=True)}
    lives = {arm: " → ".join(number(rows[arm][stage], 2) for stage in STAGES) for arm in found["arm"]}
    return [f"{the(arm)} ({lives[arm]} timesteps)" for arm in found["arm"]]


def _half_life(tables: GridTables, arm: str) -> str:
    lives = numbers(tables).filter(arm=arm, quantity="half_life").filter(pl.col("gate").is_in(KEEPING))
    known = dict(lives.select("stage", "mean").iter_rows())
    if not known:
        return ""
    gate = lives["gate"][0]
    return f": half-life of {gate} " + " → ".join(number(known.get(stage), 2) for stage in STAGES)


def _known(tables: GridTables) -> list[str]:
    known = table(tables)["arm"].unique()
    return [arm for arm in tables.arms if arm in known]


def _shown(tables: GridTables) -> list[str]:
    lives = numbers(tables).filter(quantity="half_life", stage="end").filter(pl.col("gate").is_in(KEEPING))
    values = dict(lives.select("arm", "mean").iter_rows())
    return spread({arm: values.get(arm) for arm in _known(tables)}, MAX_ARMS)
