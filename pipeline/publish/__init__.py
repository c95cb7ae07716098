"""Weights & Biases as a view of finished trials: made from the tables, never in the way of a trial."""

from pipeline.publish.publisher import Publisher
from pipeline.publish.results import from_results

__all__ = ["Publisher", "from_results"]
