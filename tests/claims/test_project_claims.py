"""The project's own rules: every check can be answered by the study that it names, before a second of training."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache

import pytest

from pipeline.claims import Check, load_rules
from pipeline.config import Paths, build, expand, load_params, load_scale, load_study
from pipeline.core.cells import CELLS
from pipeline.core.measures.truncation_bias import geometric_lengths
from pipeline.core.training import TrialSpec
from pipeline.data.tagging import CONTEXTS
from pipeline.quantities import Grid
from stages import check as stage
from tests.test_architecture import ROOT

PATHS = Paths.at(ROOT)
RULES = load_rules(PATHS, {})
STUDIES = {name: load_study(PATHS, name) for name in load_params(PATHS).studies}
CLAIMS = [f"C{number}" for number in range(1, 31)]
"""Those of the lecture notes, from C23 on of papers, and C29 and C30 of the cross-attention of the notes."""

CHECKS = [
    pytest.param(claim.study, check, id=f"{name}-{index}")
    for name, claim in RULES.claims.items()
    for index, check in enumerate(claim.checks)
]
ALIGNED = {"copying", "dates"}
"""Datasets of decoders, with a known alignment."""
GROUPS = {"tagging": CONTEXTS, "described_digits": ("place", "relation")}
"""Kinds of token that errors are told for."""


@cache
def planned(name: str) -> dict[str, tuple[Grid, Mapping[str, list[TrialSpec]]]]:
    """Return the grids of a study at laptop scale as they would be if every trial failed, and each arm's specs."""
    specs = [build(TrialSpec, {**raw.spec, "seeds": [0]}, raw.where) for raw in expand(STUDIES[name], "laptop", name)]
    found = {}
    for grid in stage.planned(name, STUDIES[name], "laptop", name):
        arms: dict[str, list[TrialSpec]] = {}
        for arm, position in grid.settings.select("arm", "position").iter_rows():
            arms.setdefault(arm, []).append(specs[position])
        found[grid.name] = (grid, arms)
    return found


def named_arms(check: Check) -> set[str]:
    return {arm for selection in check.selections("") for arm in selection.arms}


def test_every_claim_of_notes_and_papers_has_a_rule() -> None:
    assert list(RULES.claims) == CLAIMS


def test_every_claim_is_named_by_the_study_that_tests_it_and_by_no_other() -> None:
    tested = {claim: [name for name, study in STUDIES.items() if claim in study.claims] for claim in RULES.claims}
    assert tested == {name: [claim.study] for name, claim in RULES.claims.items()}


@pytest.mark.parametrize(("study", "check"), CHECKS)
def test_study_grid_and_arms_of_a_check_exist(study: str, check: Check) -> None:
    assert study in STUDIES
    assert check.grid in planned(study)
    grid, arms = planned(study)[check.grid]
    assert set(grid.arms) == set(arms)
    assert named_arms(check) <= set(arms)


@pytest.mark.parametrize(("study", "check"), CHECKS)
def test_what_a_check_measures_is_measured(study: str, check: Check) -> None:
    grid, arms = planned(study)[check.grid]
    selections = check.selections("")
    specs = [spec for arm in named_arms(check) for spec in arms[arm]]
    longest = [spec for spec in specs if spec.dataset.length in {None, grid.lengths[-1]}]
    assert longest or not specs
    if len({selection.length for selection in selections}) > 1:
        assert len(grid.lengths) >= 2
    for selection in selections:
        facets = selection.where
        match selection.quantity.name:
            case "solved" | "criterion_time_s" | "criterion_step":
                assert all(spec.training.stop_below is not None for spec in specs)
            case "step_time_exponent":
                assert len(grid.lengths) >= 3
            case "step_time_s":  # timed portions
                assert all(2 * spec.training.evaluate_every <= spec.training.max_steps for spec in specs)
            case "test_error_by_group":
                assert all(facets["group"] in GROUPS[spec.dataset.name] for spec in longest)
            case "alignment_error" | "alignment_share":
                known = ALIGNED | {"described_digits"}
                assert all(spec.model.attention.name != "none" and spec.dataset.name in known for spec in longest)
            case "within_class_share" | "similarity_rank_correlation":
                assert all(spec.model.attention.name != "none" for spec in longest)
                assert all(spec.dataset.name == "matching_digits" for spec in longest)
            case "exposure_gap" | "exposed":
                assert all(spec.dataset.name in ALIGNED for spec in longest)
            case "unseen_over_baseline":
                assert all(max(spec.dataset.unseen_lengths) > grid.lengths[-1] for spec in longest)
            case "gate_mean" | "retention_factor":
                assert all("gates" in spec.diagnostics.measures for spec in specs)
                assert all(facets["gate"] in CELLS[spec.model.cell].gates for spec in specs)
            case "truncation_error" | "truncation_cosine":
                assert all("truncation" in spec.diagnostics.measures for spec in specs)
                assert facets["backward_length"] in geometric_lengths(grid.lengths[-1])
        if facets.get("state") == "c":
            assert all(spec.model.cell == "lstm" for arm in selection.arms for spec in arms[arm])


@pytest.mark.parametrize(("study", "check"), CHECKS)
def test_a_check_is_said_without_raw_names(study: str, check: Check) -> None:
    assert study
    assert not re.search(r"[a-z]_[a-z]|None|\[|\{", check.measure), check.measure


@pytest.mark.parametrize("scale", ["laptop", "cluster"])
def test_a_scale_has_seeds_enough_for_a_verdict(scale: str) -> None:
    assert 2 <= RULES.min_seeds <= load_scale(PATHS, scale).num_seeds
