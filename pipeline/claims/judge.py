"""Claims and their verdicts: rules from configs/claims.yaml, effects from tables, nothing from hindsight."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import polars as pl

from pipeline.claims.effects import AnyEffect, Effect
from pipeline.config import Paths, Study, build, read_yaml, require
from pipeline.errors import ConfigError, unknown_name
from pipeline.quantities import GridTables

VERDICTS = ("supported", "supported with a condition", "contradicted", "inconclusive", "not tested")

_CHECKS: dict[str, pl.DataType] = {
    "claim": pl.String(),
    "role": pl.String(),
    "grid": pl.String(),
    "measure": pl.String(),
    "expected": pl.String(),
    "answer": pl.String(),
    "effect": pl.Float64(),
    "low": pl.Float64(),
    "high": pl.Float64(),
    "num_seeds": pl.Int64(),
    "num_left_out": pl.Int64(),
}
_VERDICTS: dict[str, pl.DataType] = {
    "claim": pl.String(),
    "statement": pl.String(),
    "study": pl.String(),
    "verdict": pl.String(),
}
_VERDICTS |= {"condition": pl.String()} | {name: _CHECKS[name] for name in ("measure", "effect", "low", "high")}
_VERDICTS |= {"num_seeds": pl.Int64()}


@dataclass(frozen=True)
class Check:
    """One comparison of an effect in a grid with a threshold, and what its answer means for the claim."""

    role: Literal["essential", "condition", "premise"]
    grid: str
    effect: AnyEffect
    expected: Literal["below", "above"]
    threshold: float

    def answer(self, effect: Effect, min_seeds: int) -> str:
        """Return `met`, `refuted` or `undecided`: on which side of the threshold the whole interval lies."""
        if effect.low is None or effect.high is None or effect.num_seeds < min_seeds:
            return "undecided"
        below, above = effect.high < self.threshold, effect.low > self.threshold
        met, refuted = (below, above) if self.expected == "below" else (above, below)
        return "met" if met else "refuted" if refuted else "undecided"


@dataclass(frozen=True)
class Claim:
    """A statement, the study that tests it, and its checks."""

    statement: str
    study: str
    condition: str | None
    checks: tuple[Check, ...]

    def __post_init__(self) -> None:
        conditional = any(check.role == "condition" for check in self.checks)
        require(len(self.checks) > 0, "checks", "at least one check", [])
        require(conditional == (self.condition is not None), "condition", _CONDITION_RULE, self.condition)


_CONDITION_RULE = "text if a check has the role condition, else null"


@dataclass(frozen=True)
class Rules:
    """Everything in configs/claims.yaml."""

    min_seeds: int
    claims: Mapping[str, Claim]


def load_rules(paths: Paths, studies: Mapping[str, Study]) -> Rules:
    """Return the rules, with a rule for every claim that a study names.

    Raises:
        ConfigError: If the file is missing or wrong, has no rule for a claim of a study, or names no grid of one.
    """
    where = str(paths.claims.relative_to(paths.root))
    rules: Rules = build(Rules, read_yaml(paths.claims), where)
    for name, study in studies.items():
        for claim in study.claims:
            if claim not in rules.claims:
                file = paths.study_config(name).relative_to(paths.root)
                raise ConfigError(f"{file}: claims: {unknown_name('claim', claim, rules.claims)}; rules are in {where}")
    for name, rule in rules.claims.items():
        for check in rule.checks if rule.study in studies else ():
            known = studies[rule.study].grids
            if check.grid not in known:
                raise ConfigError(f"{where}: claims.{name}: {unknown_name('grid', check.grid, known)}")
    return rules


def judge(rules: Rules, grids: Iterable[GridTables]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return a row for each claim with its verdict, and a row for each check with its answer.

    A claim whose study or grid was not run is `not tested`, and has its row all the same.
    """
    known = {(tables.study, tables.grid): tables for tables in grids}
    verdicts, checks = [], []
    for name, claim in rules.claims.items():
        rows = [_checked(name, check, known.get((claim.study, check.grid)), rules.min_seeds) for check in claim.checks]
        verdict = verdict_of([(row["role"], row["answer"]) for row in rows])
        first = {key: rows[0][key] for key in ("measure", "effect", "low", "high", "num_seeds")}
        condition = claim.condition if verdict == "supported with a condition" else None
        told = {"statement": claim.statement, "study": claim.study, "verdict": verdict, "condition": condition}
        verdicts.append({"claim": name} | told | first)
        checks += rows
    return pl.DataFrame(verdicts, schema=_VERDICTS), pl.DataFrame(checks, schema=_CHECKS)


def verdict_of(answers: Sequence[tuple[object, object]]) -> str:
    """Return the verdict that (role, answer) pairs lead to: see the head of configs/claims.yaml."""
    if all(answer == "not tested" for _, answer in answers):
        return "not tested"
    if ("essential", "refuted") in answers:
        return "contradicted"
    if ("premise", "refuted") in answers or any(answer in {"undecided", "not tested"} for _, answer in answers):
        return "inconclusive"
    return "supported with a condition" if ("condition", "refuted") in answers else "supported"


def _checked(claim: str, check: Check, tables: GridTables | None, min_seeds: int) -> dict[str, object]:
    effect = Effect(None, None, None, 0, 0) if tables is None else check.effect.of(tables)
    return {
        "claim": claim,
        "role": check.role,
        "grid": check.grid,
        "measure": check.effect.said,
        "expected": f"{check.expected} {check.threshold:g}",
        "answer": "not tested" if tables is None else check.answer(effect, min_seeds),
        "effect": effect.value,
        "low": effect.low,
        "high": effect.high,
        "num_seeds": effect.num_seeds,
        "num_left_out": effect.num_left_out,
    }
