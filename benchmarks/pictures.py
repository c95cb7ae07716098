"""The picture of what a seed costs, in the look of the report's figures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipeline.figures.style import Look, canvas, label_panels, legend_below, log_ticks, looks_of, styled

HERE, ELSEWHERE = "all seeds in one process, as trained here", "torch.nn, a process per seed"


def marginal(rows: Sequence[dict[str, Any]]) -> tuple[float, float]:
    """Return what one more seed costs, on the way from the fewest to the most: milliseconds a step, and bytes."""
    first, *_, last = sorted(rows, key=lambda row: row["R"])
    more = last["R"] - first["R"]
    milliseconds = last["R"] * last["ms"] - first["R"] * first["ms"]
    return milliseconds / more, (last["peak_bytes"] - first["peak_bytes"]) / more


def by_side(rows: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Return the rows of each side, fewest seeds first."""
    ordered = sorted(rows, key=lambda row: row["R"])
    return {
        name: [row for row in ordered if row["who"] == who] for name, who in ((HERE, "ours"), (ELSEWHERE, "torch_nn"))
    }


def title_of(rows: Sequence[dict[str, Any]]) -> str:
    """Return the finding: what one more seed costs; of processes, the time of those that disturb each other least."""
    here, there = by_side(rows).values()
    (here_ms, here_bytes), (_, there_bytes), there_ms = marginal(here), marginal(there), min(row["ms"] for row in there)
    return (
        f"One more seed: {here_ms:.1f} ms a step and {here_bytes / 2**20:.0f} MiB here; "
        f"at best {there_ms:.1f} ms and {there_bytes / 2**20:.0f} MiB as a process of its own"
    )


def caption_of(rows: Sequence[dict[str, Any]]) -> str:
    """Return what is drawn: of what network, on what, how often measured."""
    row = rows[0]
    times = (
        "Measured once" if row["num_rounds"] == 1 else f"Medians of {row['num_rounds']} rounds; bars: lowest to highest"
    )
    return (
        f"{row['cell'].upper()}, B = {row['B']}, H = {row['H']}, T = {row['T']}; all processes on one core. {times}. "
        "Time: the processor's, of all processes. Memory: peak resident sets, libraries once."
    )


@styled
def draw_seeds(rows: Sequence[dict[str, Any]]) -> Figure:
    """Return the picture: time per step and seed, and memory of all seeds, against how many there are."""
    sides = by_side(rows)
    looks = looks_of([*sides])
    figure, ((time, memory),) = canvas(title_of(rows), 1, 2, 2.5)
    for name, side in sides.items():
        _draw(time, side, looks[name], [row["ms"] for row in side])
        low, high = ([abs(row[f"{end}_ms"] - row["ms"]) for row in side] for end in ("lowest", "highest"))
        counts = [row["R"] for row in side]
        time.errorbar(
            counts, [row["ms"] for row in side], [low, high], fmt="none", ecolor=looks[name].colour, elinewidth=0.8
        )
        _draw(memory, side, looks[name], [row["peak_bytes"] / 2**30 for row in side])
    time.set_title("processor time per step and seed")
    time.set_ylabel("ms")
    time.set_ylim(bottom=0)
    memory.set_title("peak memory of all seeds")
    memory.set_ylabel("GiB")
    memory.set_yscale("log")
    log_ticks(memory, "y")
    for ax in (time, memory):
        ax.set_xscale("log")
        ax.set_xticks([row["R"] for row in sides[HERE]][::2])
        ax.xaxis.set_major_formatter("{x:g}")
        ax.set_xlabel("number of seeds")
    label_panels([time, memory])
    legend_below(figure, looks)
    return figure


def _draw(ax: Axes, side: Sequence[dict[str, Any]], look: Look, values: Sequence[float]) -> None:
    ax.plot([row["R"] for row in side], values, marker=look.marker, **look.line)
