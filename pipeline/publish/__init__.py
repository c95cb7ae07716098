"""Weights & Biases as a view of trials and studies: made from tables and the trial store, never in a trial's way."""

from pipeline.publish.publisher import Publisher

__all__ = ["Publisher"]
