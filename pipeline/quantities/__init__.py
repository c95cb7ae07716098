"""Numbers over seeds: frames in, frames out. The seed is the only unit of replication."""

from pipeline.quantities.grid import GridTables, grids_of
from pipeline.quantities.intervals import CONFIDENCE, mean_interval, paired_difference, share_interval
from pipeline.quantities.schedule import on_schedule
from pipeline.quantities.slopes import decay_rates, line_interval

__all__ = [
    "CONFIDENCE",
    "GridTables",
    "decay_rates",
    "grids_of",
    "line_interval",
    "mean_interval",
    "on_schedule",
    "paired_difference",
    "share_interval",
]
