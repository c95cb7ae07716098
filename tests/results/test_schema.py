from __future__ import annotations

import ast
from pathlib import Path

import polars as pl
import pytest

from pipeline.core.training.rows import FACTS
from pipeline.errors import TableError
from pipeline.results import CURVE_FACTS, FINISHED, RESUMABLE, STATUSES
from pipeline.results.schema import LATER_COLUMNS, SCHEMAS, check

ROOT = Path(__file__).parents[2]


def test_finished_replicas_have_known_statuses() -> None:
    assert set(FINISHED) == set(STATUSES) - {"censored", "diverged", "error"}
    assert set(RESUMABLE) == {"censored", "timed_out"}


def test_facts_of_curves_are_those_that_training_writes() -> None:
    assert list(CURVE_FACTS) == list(FACTS)


def test_only_the_schema_says_which_statuses_are_finished() -> None:
    said = []
    for path in sorted((ROOT / "pipeline").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.List | ast.Tuple | ast.Set):
                values = {part.value for part in node.elts if isinstance(part, ast.Constant)}
                if values == set(FINISHED):
                    said.append(str(path.relative_to(ROOT)))
    assert said == ["pipeline/results/schema.py"]


@pytest.mark.parametrize("column", SCHEMAS["trials"])
def test_a_column_that_older_code_did_not_write_is_null_and_no_other_may_be_missing(column: str) -> None:
    older = pl.DataFrame([{}], schema={name: dtype for name, dtype in SCHEMAS["trials"].items() if name != column})
    if column in LATER_COLUMNS["trials"]:
        found = check("trials", older, "trial.zip")
        assert found.schema == SCHEMAS["trials"]
        assert found[column].to_list() == [None]
    else:
        with pytest.raises(TableError, match=f"trial.zip: table 'trials' lacks column '{column}'"):
            check("trials", older, "trial.zip")
