"""Weights & Biases as a view of finished trials: made from the tables, never in the way of a trial."""

from pipeline.tracking.publisher import Publisher
from pipeline.tracking.results import from_results

__all__ = ["Publisher", "from_results"]
