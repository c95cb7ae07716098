"""The self-test: numbers that are known in closed form, measured by the code that ships."""

from pipeline.selftest import cells, dynamics, influence_balancing, training
from pipeline.selftest.check import Experiment, Number, Tolerance, experiment, printed, run, select

EXPERIMENTS = (*dynamics.EXPERIMENTS, *cells.EXPERIMENTS, *influence_balancing.EXPERIMENTS, *training.EXPERIMENTS)
"""Every golden number of the literature, in the order in which they are printed."""

__all__ = ["EXPERIMENTS", "Experiment", "Number", "Tolerance", "experiment", "printed", "run", "select"]
