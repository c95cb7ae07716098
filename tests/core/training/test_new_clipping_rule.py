"""The worked example of a new clipping rule, docs/examples/clipping_rule.py, registered and trained with."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.core.training import MemorySink, run_trial
from pipeline.errors import ConfigError

EXAMPLE = Path(__file__).parents[3] / "docs" / "examples" / "clipping_rule.py"


def test_a_new_rule_is_one_declaration_that_trains_and_keeps_its_ledger(adding: Any, spec_of: Any) -> None:
    assert len(EXAMPLE.read_text().splitlines()) <= 25
    raw = {"name": "normalised", "threshold": 0.25}
    with pytest.raises(ConfigError, match=r"clipping\.name: unknown name 'normalised'"):
        spec_of(clipping=raw)
    rule = runpy.run_path(str(EXAMPLE))["Normalised"]  # defining the class registers it
    spec = spec_of(clipping=raw, training__max_steps=2)
    assert spec.clipping == rule(threshold=0.25)
    sink = MemorySink()
    result = run_trial(spec, adding, sink)
    curves = sink.tables()["curves"]
    before, after, cosine = (
        curves["value"][curves["metric"] == metric] for metric in ("grad_norm", "clipped_grad_norm", "clip_cosine")
    )
    assert len(before) == 3 * 2
    np.testing.assert_allclose(after, 0.25, rtol=1e-6)
    np.testing.assert_allclose(cosine, 1.0, rtol=1e-6)
    assert np.mean([row["clipped_share"] for row in result.rows]) == pytest.approx((before > 0.25).mean())
    with pytest.raises(ConfigError, match=r"clipping\.threshold: expected a number above 0, got -1\.0"):
        spec_of(clipping=raw | {"threshold": -1})
