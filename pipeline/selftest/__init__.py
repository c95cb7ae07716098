"""The self-test: numbers that are known in closed form, measured by the code that ships."""

from pipeline.selftest.check import Check, Outcome, Tolerance, absolute, as_printed, at_least, at_most, relative
from pipeline.selftest.run import every_check, run, select

__all__ = [
    "Check",
    "Outcome",
    "Tolerance",
    "absolute",
    "as_printed",
    "at_least",
    "at_most",
    "every_check",
    "relative",
    "run",
    "select",
]
