"""Weights & Biases as a view of finished studies: made from the tables, never in the way of a trial."""

from pipeline.publish.publisher import Publisher

__all__ = ["Publisher"]
