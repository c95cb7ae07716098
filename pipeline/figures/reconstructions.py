"""Frames that an autoencoder read, above those that it wrote from its one state."""

from __future__ import annotations

import textwrap
from typing import Any

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipeline.figures.examples import WHOSE, as_grid, of_first_seed, of_runs, where
from pipeline.figures.stages import chosen_told, interval, ranked, spread
from pipeline.figures.style import WIDTH, canvas, styled
from pipeline.figures.words import INTERVAL, few, left_out, name_of, outcomes, seeds_of, the
from pipeline.quantities import GridTables

MAX_ARMS, MAX_EXAMPLES, MAX_FRAMES = 3, 2, 8


def applies(tables: GridTables) -> bool:
    """Return whether reconstructions were kept."""
    return "reconstruction" in of_first_seed(tables, tables.images)["image"]


def table(tables: GridTables) -> pl.DataFrame:
    """Return the pixels that are drawn: `arm`, `seed`, `example`, `image`, `frame`, `row`, `column`, `brightness`."""
    rows = of_first_seed(tables, tables.images).filter(pl.col("arm").is_in(_shown(tables)))
    examples = rows["example"].unique().sort().head(MAX_EXAMPLES)
    frames = rows["frame"].unique().sort()
    chosen = np.unique(np.linspace(0, len(frames) - 1, min(MAX_FRAMES, len(frames))).round().astype(int))
    rows = rows.filter(pl.col("example").is_in(examples.to_list()), pl.col("frame").is_in(frames[chosen].to_list()))
    keys = ["example", "image", "frame", "row", "column"]
    return rows.sort(ranked(tables.arms), *keys).select("arm", "seed", *keys, "brightness")


def errors(tables: GridTables) -> pl.DataFrame:
    """Return the mean over seeds of the test loss as a share of the baseline's, with its interval, by arm."""
    return of_runs(tables, pl.col("test_loss") / pl.col("baseline_loss"))


def title(tables: GridTables) -> str:
    """Return the error of reconstruction as a share of the baseline's, of the best arm and the worst."""
    known = errors(tables).drop_nulls("mean").sort("mean", maintain_order=True)
    if known.is_empty():
        return f"Reconstructions of {few([the(arm) for arm in _shown(tables)])}; no baseline is known"
    best, worst = ((the(known["arm"][end]), f"{100 * known['mean'][end]:.3g} %") for end in (0, -1))
    said = f"Reconstructions by {best[0]} leave {best[1]} of the baseline's error"
    return said if known.height == 1 else f"{said}, by {worst[0]} {worst[1]}"


def caption(tables: GridTables) -> str:
    """Return what is drawn, of which seed, the errors over seeds, and what is left out."""
    known, drawn = errors(tables), table(tables)
    told = "; ".join(f"{name_of(row['arm'])} {interval(row)}" for row in known.drop_nulls("mean").iter_rows(named=True))
    share = f" Test loss as a share of the baseline's, mean over {seeds_of(known)} with {INTERVAL}: {told}."
    pixels = of_first_seed(tables, tables.images)
    num_frames, num_shown = pixels["frame"].n_unique(), drawn["frame"].n_unique()
    cut = f" {num_shown} of {num_frames} frames are shown, evenly spaced." if num_shown < num_frames else ""
    return (
        f"The first test sequences of {where(tables)}, and what the decoder makes of the encoder's code: "
        f"{WHOSE}. All on one scale of brightness, that of the input.{cut}{share if told else ''}"
        f"{chosen_told(_shown(tables), _known(tables), 'test loss')} "
        f"{outcomes(tables.at_longest(tables.runs), 'diverged and failed ones are not shown')}{left_out(known)}"
    )


@styled
def draw(tables: GridTables) -> Figure:
    """Draw for each example the frames of the input, and below them those of each arm."""
    drawn, arms = table(tables), _shown(tables)
    examples, frames = (drawn[column].unique().sort().to_list() for column in ("example", "frame"))
    strips = [(example, *strip) for example in examples for strip in _strips(arms)]
    side = (WIDTH - 0.8) / len(frames) * (drawn["row"].n_unique() / drawn["column"].n_unique())
    figure, axes = canvas(title(tables), len(strips), len(frames), 0.6 + side * len(strips))
    inputs = drawn.filter(image="input")["brightness"].to_numpy()
    for row, (example, arm, image, label) in zip(axes, strips, strict=True):
        strip = drawn.filter(arm=arm, example=example, image=image)
        for ax, frame in zip(row, frames, strict=True):
            _panel(ax, as_grid(strip.filter(frame=frame), "row", "column", "brightness"), inputs.min(), inputs.max())
        row[0].set_ylabel(textwrap.fill(label, 14), rotation=0, ha="right", va="center", fontsize=7.5)
    for ax, frame in zip(axes[0], frames, strict=True):
        ax.set_title(f"frame {frame}", fontweight="normal", fontsize=7.5)
    return figure


def _strips(arms: list[str]) -> list[tuple[str, str, str]]:
    """Return the arm, image and label of each row of frames: the input, which is the same for all, comes first."""
    return [(arms[0], "input", "input"), *((arm, "reconstruction", name_of(arm)) for arm in arms)]


def _panel(ax: Axes, pixels: np.ndarray[Any, Any], low: float, high: float) -> None:
    ax.imshow(pixels, cmap="Greys", vmin=low, vmax=high, interpolation="nearest")
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(True)


def _known(tables: GridTables) -> list[str]:
    seen = of_first_seed(tables, tables.images).filter(image="reconstruction")["arm"].unique()
    return [arm for arm in tables.arms if arm in seen]


def _shown(tables: GridTables) -> list[str]:
    shares = dict(errors(tables).select("arm", "mean").iter_rows())
    return spread({arm: shares.get(arm) for arm in _known(tables)}, MAX_ARMS)
