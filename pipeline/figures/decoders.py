"""What figures of decoders share: which arms attend, and where errors are."""

from __future__ import annotations

import polars as pl

from pipeline.figures.stages import ranked
from pipeline.figures.words import number, the
from pipeline.quantities import GridTables
from pipeline.results import FINISHED

MODES = {"teacher_forced": "given the true tokens", "free_running": "given its own tokens"}


def attending(tables: GridTables) -> list[str]:
    """Return the arms whose decoder attends to the source."""
    known = tables.curves.filter(metric="attention_entropy_nats")["arm"].unique()
    return [arm for arm in tables.arms if arm in known]


def decodes(tables: GridTables) -> bool:
    """Return whether these networks write sequences, so that an error is of a whole sequence, running free."""
    return not tables.breakdown.is_empty()


def with_arm(arm: str, tables: GridTables) -> str:
    """Return «with dot»; «without attention» of the one arm that has none, beside others that have."""
    others = attending(tables)
    alone = len(others) == len(tables.arms) - 1 > 0 and arm not in others
    return "without attention" if alone else f"with {the(arm)}"


def errors_by(tables: GridTables, by: str) -> pl.DataFrame:
    """Return the rows of `breakdown` by output position or by source length.

    Of replicas that did not diverge, at their last step and the longest trained length; a place without tokens is left
    out.
    """
    rows = tables.at_longest(tables.breakdown).filter(pl.col("status").is_in(FINISHED), pl.col("num") > 0, by=by)
    last = rows.filter(pl.col("step") == pl.col("step").max().over("arm", "seed"))
    return last.sort(ranked(tables.arms), "mode", "at", "seed")


def percent(share: float) -> str:
    """Return «3.2 %» of 0.032."""
    return f"{number(100 * share, 2)} %"
