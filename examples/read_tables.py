"""Load a study's result tables and print a number with its interval over seeds.

    python examples/read_tables.py cells --grid adding

The tables are the truth of every figure, claim and W&B run; they are plain Parquet, with every setting in columns.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import polars as pl

from pipeline.config import Paths
from pipeline.quantities import finished, mean_interval, share_interval
from pipeline.results import read_table


def main(arguments: list[str] | None = None) -> None:
    """Print test loss and the share of seeds that reached the criterion, per setting."""
    parser = argparse.ArgumentParser(description="Print what a study's tables say.")
    parser.add_argument("study", nargs="?", default="cells")
    parser.add_argument("--grid", default="adding")
    parser.add_argument("--project", type=Path, default=Path(), help="the folder of params.yaml")
    asked = parser.parse_args(arguments)

    # `settings` has a row per setting of the study; `trials` a row per trial and seed.
    folder = Paths.at(asked.project).results(asked.study)
    settings = read_table("settings", folder).filter(pl.col("grid") == asked.grid).select("trial_id", "label")
    trials = read_table("trials", folder).join(settings, on="trial_id")

    # The seed is the only unit of replication: one row per group and seed, an interval per group. A loss is positive
    # and skewed, so its mean is that of logarithms; a replica that diverged or failed is in none.
    logs = trials.select("label", "seed", log=finished(pl.col("test_loss").log10()))
    losses = mean_interval(logs, "log", by=["label"])
    solved = share_interval(trials, "reached_criterion", by=["label"])
    for row in losses.join(solved, on="label", suffix="_solved", maintain_order="left").iter_rows(named=True):
        mean, low, high = (None if row[side] is None else f"{10 ** row[side]:.3g}" for side in ("mean", "low", "high"))
        interval = "no interval" if low is None else f"[{low}, {high}]"
        reached = f"{row['num_events']} of {row['num_seeds_solved']} seeds reached the criterion"
        print(f"{row['label']}: test loss {mean} {interval}, {reached}")


if __name__ == "__main__":
    main()
