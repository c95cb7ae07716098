from __future__ import annotations

import math
import re
import statistics
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
import yaml
from scipy import stats

from pipeline.claims import VERDICTS, Check, Claim, Rules, chance, judge, load_rules, verdict_of
from pipeline.config import Paths, Study, build, load_study
from pipeline.config.strict import InvalidFieldError
from pipeline.errors import ConfigError
from pipeline.quantities import CONFIDENCE, QUANTITIES, Effect, Grid
from tests.figures.conftest import grids
from tests.quantities.conftest import grid as quantity_grid
from tests.synthetic_results import END_FACTORS, START_FACTORS, Shape, write_results
from tests.test_architecture import ROOT

RULES = load_rules(Paths.at(ROOT), {})
QUICK = {"elman": 25.0, "lstm": 5.0, "gru": 5.0}


def study(**changes: object) -> Shape:
    """Five seeds, the shortest and longest length far apart; C2, C3 and C13 supported, C21 for the longest only."""
    base = {"lengths": (20, 100), "learning_rates": (0.01,), "digits_length": None, "num_seeds": 5, "patience": QUICK}
    base |= {"noise": 0.2}
    return Shape(**(base | changes))  # type: ignore[arg-type]


def twice(shape: Shape) -> list[Grid]:
    """The grids of a made-up study, once as those of `cells` and once as those of `length`."""
    return [replace(grid, study=name) for grid in grids(shape) for name in ("cells", "length")]


def verdicts(shape: Shape) -> dict[str, str]:
    """Return the verdicts of the claims whose checks the made-up study has all the numbers for."""
    found = dict(judge(RULES, twice(shape))[0].select("claim", "verdict").iter_rows())
    return {claim: found[claim] for claim in ("C2", "C3", "C13", "C21")}


def test_supported() -> None:
    assert verdicts(study()) == {
        "C2": "supported",
        "C3": "supported",
        "C13": "supported",
        "C21": "supported with a condition",
    }


def changed_ends(grid: Grid, arm: str, ended: list[bool | None]) -> Grid:
    """Return a grid in which an arm's seeds had converged or not, at every length."""
    ends = pl.col("seed").replace_strict(list(range(len(ended))), ended, return_dtype=pl.Boolean)
    runs = grid.runs.with_columns(pl.when(pl.col("arm") == arm).then(ends).otherwise("converged").alias("converged"))
    return replace(grid, runs=runs)


def test_an_arm_that_still_improves_is_not_one_that_cannot() -> None:
    ended = [True, True, False, True, True]
    improving = [changed_ends(grid, "elman", ended) for grid in twice(study())]
    found, checks = judge(RULES, improving)
    assert dict(found.select("claim", "verdict").iter_rows())["C13"] == "inconclusive"
    assert checks.filter(claim="C13")["answer"].to_list() == ["met", "undecided", "met"]
    assert checks.filter(claim="C13")["not_converged"].to_list() == ["Elman 1 of 5", "Elman 1 of 5", None]
    assert checks.filter(claim="C13")["holds"].to_list() == [False] * 3  # of shares of five seeds, and undecided
    (reason,) = found.filter(claim="C13")["reason"]
    assert reason.startswith("whether it is below 0.5 is not decided: Elman: ")
    assert reason.endswith(" (still improving: Elman 1 of 5)")


BOTH = {"met", "refuted"}
RATIO = {"ratio": {"quantity": "test_loss", "arm": "a"}, "to": {"arm": "b"}}
LENGTHS = {"difference": {"quantity": "test_error", "arm": "a"}, "to": {"length": "shortest"}}
DECAYS = {"ratio": {"quantity": "decay_factor", "arm": "a", "state": "h", "stage": "end"}, "to": {"arm": "b"}}
TIMES = {"ratio": {"quantity": "criterion_time_s", "arm": "a"}, "to": {"arm": "b"}}


@pytest.mark.parametrize(
    ("asked", "needed", "improving", "below", "above"),
    [
        # of a loss that still falls, that it is above may turn, that it is below may not; of a share that rises not so
        ({"value": {"quantity": "test_loss", "arm": "a"}}, "a", ["a"], {"refuted"}, {"met"}),
        ({"value": {"quantity": "solved", "arm": "a"}}, "a", ["a"], {"met"}, {"refuted"}),
        ({"value": {"quantity": "solved", "arm": ["a", "b"]}}, "a", ["ab"], {"met"}, {"refuted"}),
        # of two arms: as the second one gets better the ratio rises, as both do it may go either way
        (RATIO, "a", ["a", ""], {"refuted"}, {"met"}),
        (RATIO, "b", ["", "b"], {"met"}, {"refuted"}),
        (RATIO, "ab", ["a", "b"], BOTH, BOTH),
        # only what is needed, and of one arm at two lengths where it had not converged
        (RATIO, "b", ["a", ""], set(), set()),
        (RATIO, "", ["a", "b"], set(), set()),
        (LENGTHS, "a", ["a", ""], {"refuted"}, {"met"}),
        (LENGTHS, "a", ["", "a"], {"met"}, {"refuted"}),
        # training may move a gradient either way, and a time to the criterion is that of seeds that reached it
        (DECAYS, "a", ["a", ""], BOTH, BOTH),
        (TIMES, "b", ["", "b"], BOTH, BOTH),
        ({"value": {"quantity": "test_error_by_group", "arm": "a", "group": "left"}}, "a", ["a"], BOTH, BOTH),
    ],
)
def test_only_the_answer_is_withheld_that_further_training_could_turn(
    asked: dict[str, object], needed: str, improving: list[str], below: set[str], above: set[str]
) -> None:
    sides = [dict.fromkeys(arms, (1, 5)) for arms in improving]
    for threshold, withheld in (({"below": 1.0}, below), ({"above": 1.0}, above)):
        check = Check(grid="grid", needs_converged=tuple(needed), **asked, **threshold)  # type: ignore[arg-type]
        assert check.withheld(sides) == withheld


def test_what_training_can_only_improve_has_a_better_side() -> None:
    only = {name for name, quantity in QUANTITIES.items() if quantity.training == "improves"}
    assert {name for name in only if QUANTITIES[name].better is None} == set()
    losses = {"test_loss", "test_error", "test_perplexity", "test_loss_over_baseline"}
    assert only == losses | {"solved", "never_improved"}


LOSS = {"quantity": "test_loss", "arm": "lstm"}
DECAY_OF_LSTM = {"quantity": "decay_factor", "arm": "lstm", "state": "h", "stage": "end"}


@pytest.mark.parametrize(
    ("of", "needed", "answer", "holds"),
    [
        (LOSS, "lstm", "met", True),  # far below the Elman network's, it may only fall further
        (LOSS, "elman", "undecided", False),  # and only that one's may come near: a test, but not for this answer
        (DECAY_OF_LSTM, "lstm", "undecided", None),
        (DECAY_OF_LSTM, "elman", "undecided", None),
    ],
)
def test_an_answer_stands_that_further_training_could_only_confirm(
    of: dict[str, object], needed: str, answer: str, holds: bool | None
) -> None:
    side = {"below": 1.0} if of is LOSS else {"above": 1.0}
    check = Check(grid="adding", ratio=of, to={"arm": "elman"}, needs_converged=(needed,), **side)  # type: ignore[arg-type]
    claim = Claim(statement="s", study="cells", checks=(check,))
    grids = [changed_ends(grid, needed, [True, True, False, True, True]) for grid in twice(study())]
    found, checks = judge(Rules(min_seeds=3, claims={"C1": claim}), grids)
    assert (checks["answer"][0], checks["holds"][0]) == (answer, holds)
    assert checks["not_converged"][0].endswith("1 of 5")
    assert ("still improving" in (found["reason"][0] or "")) == (answer == "undecided")


def test_effects_and_ends_of_training_are_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[object] = []
    effect, improving = Check.effect, Check.improving

    def counted_effect(check: Check, grid: Grid, confidence: float = CONFIDENCE) -> Effect:
        calls.append((id(check), confidence))
        return effect(check, grid, confidence)

    def counted_improving(check: Check, grid: Grid) -> object:
        calls.append(id(check))
        return improving(check, grid)

    monkeypatch.setattr(Check, "effect", counted_effect)
    monkeypatch.setattr(Check, "improving", counted_improving)
    judge(RULES, twice(study()))
    assert len(calls) == len(set(calls)) > 0


def test_a_number_that_no_seed_has_is_named_as_such() -> None:
    checks = [
        {"quantity": "test_loss", "arm": "elmann"},
        {"quantity": "decay_factor", "arm": "elman", "state": "cc", "stage": "end"},
        {"quantity": "test_loss", "arm": "elman", "length": 77},
    ]
    for asked in checks:
        claim = Claim(statement="s", study="cells", checks=(Check(grid="adding", value=asked, above=1.0),))
        found, _ = judge(Rules(min_seeds=3, claims={"C1": claim}), twice(study()))
        assert found["verdict"].to_list() == ["inconclusive"]
        assert found["reason"][0].startswith("no seed has this number (is every arm, facet and length of it one of the")


def test_a_claim_of_what_an_arm_can_does_not_wait_for_convergence() -> None:
    improving = [changed_ends(grid, "elman", [False] * 5) for grid in twice(study())]
    found, checks = judge(RULES, improving)
    assert dict(found.select("claim", "verdict").iter_rows())["C2"] == "supported"
    assert checks.filter(claim="C2")["not_converged"].to_list() == [None, None, "Elman 5 of 5"]  # none at step 0


def test_a_diverged_seed_does_not_still_improve() -> None:
    ended = [changed_ends(grid, "elman", [None, None, True, True, True]) for grid in twice(study())]
    assert dict(judge(RULES, ended)[0].select("claim", "verdict").iter_rows())["C13"] == "supported"


def test_a_verdict_has_the_scope_of_what_was_run() -> None:
    found = judge(RULES, twice(study()))[0]
    scope = dict(found.select("claim", "scope").iter_rows())
    assert scope["C3"] == "adding (T = 100), 4 units, 1 layer, at most 40 updates, 5 seeds, cpu (x86_64)"
    assert scope["C13"].startswith("adding (T = 20, 100), ")
    assert scope["C1"] is None  # its study was not run
    smaller = judge(RULES, twice(study(num_seeds=3)))[0]
    assert "3 seeds" in smaller.filter(claim="C3")["scope"][0]


SOLVES = {"grid": "adding", "value": {"quantity": "solved", "arm": "elman"}, "below": 0.5}


def part_of(claim: dict[str, object]) -> Rules:
    whole = {"statement": "A statement.", "study": "cells", "needs": "a GPU", "checks": [SOLVES | {"role": "part"}]}
    rules: Rules = build(Rules, {"min_seeds": 3, "claims": {"C1": whole | claim}}, "claims.yaml")
    return rules


def test_what_nothing_here_can_decide_is_not_testable_and_says_what_it_needs() -> None:
    found, checks = judge(part_of({}), twice(study()))
    assert found.select("verdict", "mark", "reason").row(0) == ("not testable here", "⊘", "a GPU")
    assert checks["answer"].to_list() == ["met"]


@pytest.mark.parametrize(
    ("claim", "message"),
    [
        ({"checks": [SOLVES]}, "C1.needs: expected null where checks decide; beside it every check has the role part"),
        ({"needs": None}, "C1.checks: expected the role part only beside 'needs'"),
    ],
)
def test_what_checks_can_decide_is_not_called_untestable(claim: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        part_of(claim)


@pytest.mark.parametrize(
    ("check", "message"),
    [
        ({"needs_converged": ["elmann"]}, "needs_converged: unknown arm of this check 'elmann'; did you mean 'elman'"),
        (
            {"value": {"quantity": "num_parameters", "arm": "elman"}, "needs_converged": ["elman"]},
            "needs_converged: 'elman': expected a number that training has a part in",
        ),
    ],
)
def test_convergence_is_needed_of_arms_that_are_compared(check: dict[str, object], message: str) -> None:
    built: Check = build(Check, SOLVES | check, "here")
    with pytest.raises(ConfigError, match=f"^claims.yaml: {message}"):
        built.selections("claims.yaml")


def test_every_verdict_has_a_mark_and_a_style() -> None:
    styles = (ROOT / "pipeline" / "report" / "page.css").read_text(encoding="utf-8")
    assert len(set(VERDICTS.values())) == len(VERDICTS)
    assert all(f".verdict.{verdict.replace(' ', '-')}" in styles for verdict in VERDICTS)


def test_the_claim_of_the_contributing_guide_is_judged() -> None:
    example = yaml.safe_load((ROOT / "docs" / "examples" / "claim.yaml").read_text(encoding="utf-8"))
    rules: Rules = build(Rules, {"min_seeds": 3, "claims": example}, "claim.yaml")
    verdicts, checks = judge(rules, twice(study()))
    assert verdicts["verdict"].to_list() == ["supported"]
    assert checks["effect"][0] == pytest.approx(END_FACTORS["gru/h"] / END_FACTORS["elman/h"], rel=0.02)


def test_contradicted() -> None:
    start = START_FACTORS | {"elman/h": 1.1, "lstm/c": 0.8}
    end = END_FACTORS | {"elman/h": 0.99, "lstm/c": 0.9}
    patience = QUICK | {"elman": 4.0}
    found = verdicts(study(start_factors=start, end_factors=end, patience=patience))
    assert set(found.values()) == {"contradicted"}


def test_supported_with_a_condition() -> None:
    start = START_FACTORS | {"lstm/c": 0.5}
    end = END_FACTORS | {"elman/h": 1.05, "lstm/c": 0.985}
    assert verdicts(study(end_factors=end))["C2"] == "supported with a condition"
    found = judge(RULES, grids(study(start_factors=start)))[0].filter(claim="C3").row(0, named=True)
    assert found["verdict"] == "supported with a condition"
    assert found["reason"].startswith("After training; at initialisation")


def test_inconclusive() -> None:
    assert set(verdicts(study(num_seeds=2)).values()) == {"inconclusive"}  # fewer than min_seeds
    nobody = study(patience=QUICK | {"lstm": 90.0, "gru": 90.0})
    assert verdicts(nobody)["C13"] == "inconclusive"  # the longest length is beyond every cell: nothing to compare


def test_not_tested_is_a_row_all_the_same() -> None:
    found, checks = judge(RULES, [])
    assert found["claim"].to_list() == list(RULES.claims)
    assert checks.height == sum(len(claim.checks) for claim in RULES.claims.values())
    assert set(found["verdict"]) == set(checks["answer"]) == {"not tested"}
    assert found["effect"].is_null().all()


@pytest.mark.parametrize(
    ("answers", "verdict"),
    [
        ([("essential", "met"), ("condition", "met"), ("premise", "met")], "supported"),
        ([("essential", "met"), ("condition", "refuted")], "supported with a condition"),
        ([("essential", "refuted"), ("premise", "undecided")], "contradicted"),
        ([("essential", "met"), ("premise", "refuted")], "inconclusive"),
        ([("essential", "undecided"), ("condition", "refuted")], "inconclusive"),
        ([("essential", "not tested")], "not tested"),
        ([("part", "refuted"), ("part", "undecided")], "not testable here"),
        ([("part", "not tested")], "not tested"),
        ([("essential", "not tested"), ("condition", "not tested")], "not tested"),
        ([("essential", "met"), ("condition", "not tested")], "inconclusive"),
        ([("essential", "not tested"), ("condition", "refuted")], "inconclusive"),
        ([("essential", "refuted"), ("premise", "not tested")], "contradicted"),
    ],
)
def test_roles_decide_the_verdict(answers: list[tuple[object, object]], verdict: str) -> None:
    assert verdict_of(answers) == verdict
    assert verdict in VERDICTS


SOLVED = {"quantity": "solved", "arm": "gru"}


@pytest.mark.parametrize(
    ("interval", "side", "answer"),
    [
        ((0.1, 0.4), "below", "met"),
        ((0.6, 0.9), "below", "refuted"),
        ((0.6, 0.9), "above", "met"),
        ((0.1, 0.4), "above", "refuted"),
        ((0.4, 0.6), "above", "undecided"),
        ((0.5, 0.6), "above", "undecided"),
        ((None, None), "above", "undecided"),
    ],
)
def test_the_whole_interval_must_lie_on_one_side(
    interval: tuple[float | None, float | None], side: str, answer: str
) -> None:
    sides: dict[str, float] = {side: 0.5}
    check = Check(grid="adding", value=SOLVED, **sides)  # type: ignore[arg-type]
    assert check.answer(Effect(0.5, *interval, num_seeds=5, num_left_out=0), min_seeds=3) == answer
    assert check.answer(Effect(0.5, *interval, num_seeds=2, num_left_out=3), min_seeds=3) == "undecided"
    assert check.expected == f"{side} 0.5"


def test_value_difference_and_ratio_are_of_the_quantity_and_paired() -> None:
    (grid,) = grids(study(lengths=(20,)))
    of = {"quantity": "test_loss", "arm": "lstm"}
    losses = {arm: grid.runs.filter(arm=arm).sort("seed")["test_loss"].to_list() for arm in ("lstm", "gru")}
    pairs = list(zip(losses["lstm"], losses["gru"], strict=True))
    value = Check(grid="adding", value=of, below=1.0).effect(grid)
    ratio = Check(grid="adding", ratio=of, to={"arm": "gru"}, below=1.0).effect(grid)
    assert value.value == pytest.approx(statistics.geometric_mean(losses["lstm"]))
    assert ratio.value == pytest.approx(statistics.geometric_mean(first / second for first, second in pairs))
    assert value.num_seeds == ratio.num_seeds == 5


def test_a_check_is_measured_in_words() -> None:
    of = {"quantity": "decay_factor", "arm": "lstm", "state": "c", "stage": "end"}
    value = Check(grid="adding", value=of, below=1.0)
    ratio = Check(grid="adding", ratio=of, to={"arm": "elman", "state": "h"}, above=1.0)
    assert value.measure == "LSTM: factor of the gradient in c per timestep of lag, after training"
    assert ratio.measure == f"{value.measure}, ratio to Elman, h"


@pytest.mark.parametrize(
    ("check", "field", "expected"),
    [
        ({"below": 1.0}, "value", "exactly one of value, difference and ratio"),
        ({"value": SOLVED, "ratio": SOLVED, "to": {}, "below": 1.0}, "value", "exactly one of value, difference and"),
        ({"value": SOLVED, "to": {"arm": "lstm"}, "below": 1.0}, "to", "changes beside a difference or a ratio only"),
        ({"ratio": SOLVED, "below": 1.0}, "to", "changes beside a difference or a ratio only"),
        ({"value": SOLVED}, "below", "exactly one of below and above"),
        ({"value": SOLVED, "below": 1.0, "above": 0.0}, "below", "exactly one of below and above"),
    ],
)
def test_a_check_has_one_number_and_one_threshold(check: dict[str, object], field: str, expected: str) -> None:
    with pytest.raises(InvalidFieldError, match=f"{field}.*{expected}"):
        Check(grid="adding", **check)  # type: ignore[arg-type]


def test_each_check_is_of_its_own_grid() -> None:
    known = RULES.claims["C2"]
    places = ("adding", "nowhere", "adding")
    checks = tuple(replace(check, grid=grid) for check, grid in zip(known.checks, places, strict=True))
    found, answers = judge(Rules(3, {"C2": replace(known, checks=checks)}), twice(study()))
    assert answers["grid"].to_list() == list(places)
    assert answers["answer"].to_list() == ["met", "not tested", "met"]
    assert answers["num_seeds"].to_list() == [5, 0, 5]
    assert found["verdict"].to_list() == ["inconclusive"]


def test_effect_of_a_missing_arm_is_undecided() -> None:
    _, checks = judge(RULES, grids(study(cells=("gru",), lengths=(20,))))
    assert set(checks.filter(claim="C2")["answer"]) == {"undecided"}
    assert checks.filter(claim="C2")["num_seeds"].to_list() == [0, 0, 0]


def test_a_study_may_name_only_claims_with_a_rule() -> None:
    paths = Paths.at(ROOT)
    known = load_study(paths, "cells")
    stranger = Study(**(vars(known) | {"claims": ("C31",)}))
    with pytest.raises(ConfigError, match=r"cells.yaml: claims: unknown claim 'C31'; did you mean 'C3'\?"):
        load_rules(paths, {"cells": stranger})


def changed_rules(tmp_path: Path, claim: str, changes: dict[str, object]) -> Rules:
    """Load the project's rules with changes to one claim; a whole number is that check's changes."""
    rules = yaml.safe_load((ROOT / "configs" / "claims.yaml").read_text())
    for key, change in changes.items():
        if isinstance(key, int):
            rules["claims"][claim]["checks"][key] |= change
        else:
            rules["claims"][claim][key] = change
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "studies").symlink_to(ROOT / "configs" / "studies")
    (tmp_path / "configs" / "claims.yaml").write_text(yaml.safe_dump(rules))
    return load_rules(Paths.at(tmp_path), {"cells": load_study(Paths.at(ROOT), "cells")})


DECAY = {"quantity": "decay_factor", "arm": "elman", "state": "h", "stage": "end"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"condition": None}, "C2.condition: expected text if a check has the role condition, else none"),
        ({"checks": []}, "C2.checks: expected at least one check"),
        ({1: {"below": 1.0}}, r"C2.checks\[1\].below: expected exactly one of below and above"),
        (
            {2: {"value": DECAY | {"quantity": "decay_facto"}}},
            r"C2.checks\[2\]: unknown quantity 'decay_facto'; did you mean 'decay_factor'\?",
        ),
        (
            {1: {"value": DECAY | {"stat": "h"}}},
            r"C2.checks\[1\]: unknown facet of decay_factor 'stat'; did you mean 'state'\?",
        ),
        ({0: {"grid": "addin"}}, r"C2: unknown grid 'addin'; did you mean 'adding'\?"),
        ({0: {"rank": 1}}, r"C2.checks\[0\]: unknown key 'rank'"),
    ],
)
def test_a_claim_is_checked_when_it_is_read(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=f"^configs/claims.yaml.*claims.{message}"):
        changed_rules(tmp_path, "C2", changes)


def test_a_claim_of_no_study_is_refused_and_one_of_a_study_that_is_not_run_is_not(tmp_path: Path) -> None:
    message = (
        r"^configs/claims.yaml: claims.C13.study: unknown study 'lenght'; did you mean 'length'\? known: .*cells, "
    )
    with pytest.raises(ConfigError, match=message):
        changed_rules(tmp_path, "C13", {"study": "lenght"})
    assert load_rules(Paths.at(ROOT), {}).claims["C13"].study == "length"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("C-23", "letters, digits and _ only (such as 'C_23'), got 'C-23'"),
        ("C 23/../x", "letters, digits and _ only (such as 'C_23_x'), got 'C 23/../x'"),
        ("c1", "names that differ in more than capitals from 'C1', got 'c1'"),
    ],
)
def test_a_claim_has_a_plain_name_of_its_own(name: str, message: str) -> None:
    claim = {"statement": "s", "study": "cells", "checks": [SOLVES]}
    with pytest.raises(ConfigError, match=re.escape(f"claims.yaml.claims: expected {message}")):
        build(Rules, {"min_seeds": 3, "claims": {"C1": claim, name: claim}}, "claims.yaml")


def test_claims_are_judged_where_no_drawing_library_can_be_imported(tmp_path: Path) -> None:
    write_results(tmp_path / "cells", study())
    program = f"""
import sys
sys.modules.update(dict.fromkeys(["matplotlib", "seaborn", "wandb", "ray"]))  # importing one fails
from pathlib import Path
from pipeline.claims import judge, load_rules
from pipeline.config import Paths
from pipeline.quantities import grids_of
from pipeline.results import SCHEMAS, read_table
tables = {{name: read_table(name, Path({str(tmp_path)!r}) / "cells") for name in SCHEMAS}}
rules = load_rules(Paths.at(Path({str(ROOT)!r})), {{}})
verdicts, _ = judge(rules, grids_of("cells", tables, ["optimiser.learning_rate"]))
assert dict(verdicts.select("claim", "verdict").iter_rows())["C2"] == "supported", verdicts
"""
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, timeout=120)


STEPS = {"quantity": "step_time_s", "arm": "lstm"}


@pytest.mark.parametrize(
    ("check", "message"),
    [
        (
            {"difference": {"quantity": "test_loss", "arm": "gru"}, "to": {"arm": "lstm"}},
            "test_loss: expected a ratio in",
        ),
        ({"ratio": {"quantity": "test_loss", "arm": "gru"}, "to": {"arm": "gru"}}, "test_loss: expected another arm"),
        (
            {"ratio": {"quantity": "test_loss", "arm": "gru"}, "to": {"quantity": "test_error"}},
            "test_loss: expected another",
        ),
        (
            {"ratio": {"quantity": "test_loss", "arm": ["gru", "lstm"]}, "to": {"arm": "elman"}},
            "test_loss: expected one arm",
        ),
        ({"value": {"quantity": "test_loss"}}, "arm: expected an arm for test_loss; got None"),
        (
            {"value": {"quantity": "shrinking_share", "sigma_max": "above_1", "arm": "gru"}},
            "arm: expected no arm: shrinking_share",
        ),
        ({"value": {"quantity": "step_time_exponent", "arm": ["gru", "lstm"]}}, "step_time_exponent: expected one arm"),
        ({"value": {"quantity": "test_loss", "arm": "gru", "length": [20]}}, "length: expected longest, shortest or"),
        ({"value": {"quantity": "test_loss", "arm": "gru", "length": True}}, "length: expected longest, shortest or"),
        (
            {"value": {"quantity": "gate_mean", "arm": "gru", "gate": True, "stage": "end"}},
            "gate_mean: expected a value of",
        ),
        ({"value": STEPS}, "step_time_s: expected a ratio of two arms at one length"),
        ({"difference": STEPS, "to": {"arm": "gru"}}, "step_time_s: expected a ratio of two arms"),
        ({"ratio": STEPS, "to": {"length": "shortest"}}, "step_time_s: expected a ratio of two arms at one length"),
        (
            {"difference": {"quantity": "step_time_exponent", "arm": "gru"}, "to": {"arm": "lstm"}},
            "step_time_exponent: expected a value: its interval is not over seeds",
        ),
        ({"ratio": {"quantity": "solved", "arm": "gru"}, "to": {"arm": "lstm"}}, "solved: expected a difference in"),
        (
            {"ratio": {"quantity": "clip_cosine", "arm": "gru"}, "to": {"arm": "lstm"}},
            "clip_cosine: expected a difference in place of a ratio: its values can be negative",
        ),
    ],
)
def test_numbers_that_cannot_be_had_are_refused(check: dict[str, object], message: str) -> None:
    built: Check = build(Check, {"grid": "adding", "below": 1.0} | check, "here")
    with pytest.raises(ConfigError, match=f"^claims.yaml: {message}"):
        built.selections("claims.yaml")


def test_a_claim_that_a_study_names_is_of_that_study(tmp_path: Path) -> None:
    paths = Paths.at(ROOT)
    study_of = {name: load_study(paths, name) for name in ("cells", "length")}
    moved = {"cells": replace(study_of["cells"], claims=("C13",)), "length": study_of["length"]}
    with pytest.raises(ConfigError, match="claims.C13.study: expected 'cells', whose file names it; got 'length'"):
        load_rules(paths, moved)


def test_an_answer_holds_where_the_whole_ledger_errs_rarely() -> None:
    """Holm: of m tests the least p must lie below 5 % / m, the next one below 5 % / (m - 1), and so on."""
    values = {"a": [1.0, 1.01, 1.02], "b": [1.0, 1.3, 1.6], "c": [1.0, 3.0, 0.5], "d": [1.0, 1.0, 1.0]}
    rows = [
        {"arm": arm, "seed": seed, "test_loss": value} for arm, own in values.items() for seed, value in enumerate(own)
    ]
    ran = {"converged": pl.lit(value=True), "device": pl.lit("cpu"), "dataset.name": pl.lit("adding")}
    ran |= {f"model.{size}": pl.lit(1) for size in ("hidden_size", "num_layers")} | {"training.max_steps": pl.lit(1)}
    grid = quantity_grid(pl.DataFrame(rows).with_columns(trial_id="arm", length=pl.lit(5), status=pl.lit("ok"), **ran))
    checks = [
        Check(grid="grid", value={"quantity": "test_loss", "arm": arm}, above=above)
        for arm, above in {"a": 0.5, "b": 0.55, "c": 0.5, "d": 0.5}.items()
    ]
    claims = {f"C{n}": Claim(statement="s", study="study", checks=(check,)) for n, check in enumerate(checks)}
    _, judged = judge(Rules(min_seeds=3, claims=claims), [grid])
    assert judged["answer"].to_list() == ["met", "met", "undecided", "undecided"]
    p = [p_value(values[arm], above) for arm, above in (("a", 0.5), ("b", 0.55), ("c", 0.5))]
    assert 3 * p[0] < 0.05 < 2 * p[1] < 0.1  # b alone would do, beside a and c it does not
    assert judged["holds"].to_list() == [True, False, False, None]  # d has no interval, so it is no test
    assert "of these 3 checks with an interval" in chance(judged)
    assert "2 are decided; the answers of 1 hold" in chance(judged)


def p_value(values: list[float], above: float) -> float:
    return float(stats.ttest_1samp([math.log(value) for value in values], math.log(above)).pvalue)
