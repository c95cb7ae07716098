"""The claims ledger: a check is a quantity, its value or how it compares, and the side of a threshold it must lie on.

- grid: adding
ratio: {quantity: decay_factor, arm: lstm, state: c, stage: end}
to: {arm: elman, state: h}
above: 1.0

Each check is made to err in 5 %, so a ledger of many errs somewhere. Verdicts rest on the checks one by one; beside
each stands whether its answer also holds where all of them together err with at most 5 % (`holds`, by Holm's rule).
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import polars as pl

from pipeline.config import Paths, Study, build, read_yaml, require, require_names
from pipeline.errors import ConfigError, unknown_name
from pipeline.quantities import CONFIDENCE, Effect, Grid, Selection, difference_of, ratio_of, value_of
from pipeline.quantities.quantity import NOTHING
from pipeline.quantities.words import count, interval, join, join_first, quoted

VERDICTS = {
    "supported": "✓",
    "supported with a condition": "◐",
    "contradicted": "✗",
    "inconclusive": "?",
    "not testable here": "⊘",
    "not tested": "–",
}
"""Every verdict with its mark, as page, README and metrics have them."""

_CHECKS: dict[str, pl.DataType] = {
    "claim": pl.String(),
    "role": pl.String(),
    "grid": pl.String(),
    "measure": pl.String(),
    "expected": pl.String(),
    "threshold": pl.Float64(),
    "kind": pl.String(),  # of the number: ratio (positive, compared by logarithms), share, or number
    "answer": pl.String(),
    "effect": pl.Float64(),
    "low": pl.Float64(),
    "high": pl.Float64(),
    "num_seeds": pl.Int64(),
    "num_left_out": pl.Int64(),
    "not_converged": pl.String(),  # which arms had seeds that were still improving, in words
    "holds": pl.Boolean(),
}
_VERDICTS: dict[str, pl.DataType] = {
    "claim": pl.String(),
    "statement": pl.String(),
    "study": pl.String(),
    "verdict": pl.String(),
    "mark": pl.String(),
    "reason": pl.String(),  # the condition, what a test would need, which checks are undecided, or contradict
    "scope": pl.String(),
    **{name: _CHECKS[name] for name in ("measure", "effect", "low", "high", "num_seeds")},
}


Improving = dict[str, tuple[int, int]]
"""Of each arm with seeds that were still improving at their end, how many, and of how many."""


@dataclass(frozen=True, kw_only=True)
class Check:
    """One number in a grid, compared with a threshold, and what the answer means for the claim.

    Exactly one of `value`, `difference` and `ratio` describes the number: a quantity, an arm (or several, of which the
    best is meant), a `length` (longest if absent) and a value per facet of the quantity. The
    other side of a difference or a ratio is the same with the changes in `to`. Exactly one of `below` and `above` is
    the threshold on whose expected side the whole interval must lie.

    Arms in `needs_converged` are those that the claim says cannot, or cannot do better. While seeds of one still
    improve at their end, the answer is withheld that further training of it could turn. Where training can only improve
    a number (`Quantity.training`), it moves the effect to the better side, or of the second of two arms to the worse
    one: an answer on that side can only be confirmed, and one on the other side is withheld. Where it may move a number
    either way (a gradient, a gate, the error on one kind of token, the time to a criterion that further seeds would
    reach later), both are.
    """

    grid: str
    role: Literal["essential", "condition", "premise", "part"] = "essential"
    value: Mapping[str, Any] | None = None
    difference: Mapping[str, Any] | None = None
    ratio: Mapping[str, Any] | None = None
    to: Mapping[str, Any] | None = None
    below: float | None = None
    above: float | None = None
    needs_converged: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        asked = [kind for kind in ("value", "difference", "ratio") if getattr(self, kind) is not None]
        require(len(asked) == 1, "value", "exactly one of value, difference and ratio", asked)
        require((self.to is None) == (asked == ["value"]), "to", "changes beside a difference or a ratio only", self.to)
        sides = [self.below, self.above]
        require(sides.count(None) == 1, "below", "exactly one of below and above", sides)

    @property
    def expected(self) -> str:
        """«below 1», «above 0.5»."""
        return f"above {self.above:g}" if self.below is None else f"below {self.below:g}"

    @property
    def kind(self) -> Literal["ratio", "share", "number"]:
        """How far the number lies from its threshold: by logarithms, in points of a share, or in its own unit."""
        scale = self.selections("")[0].quantity.scale
        if self.ratio is not None or scale == "log10":
            return "ratio"
        return "share" if scale in {"share", "event"} else "number"

    @property
    def measure(self) -> str:
        """What is measured, in words."""
        first, *others = self.selections("")
        if not others:
            return first.words
        kind = "ratio" if self.ratio is not None else "difference"
        return f"{first.words}, {kind} to {others[0].changes_from(first)}"

    def selections(self, where: str) -> list[Selection]:
        """Return the two sides of a comparison, or the one of a value.

        Raises:
            ConfigError: If one names no quantity, or not exactly its facets, or the quantity cannot be compared so.
        """
        asked = next(side for side in (self.value, self.difference, self.ratio) if side is not None)
        sides = [asked] if self.to is None else [asked, {**asked, **self.to}]
        selected = [Selection.of(side, where) for side in sides]
        if problem := self._problem(*selected):
            raise ConfigError(f"{where}: {selected[0].quantity.name}: {problem}")
        arms = [arm for selection in selected for arm in selection.arms]
        for arm in self.needs_converged:
            if arm not in arms:
                raise ConfigError(f"{where}: needs_converged: {unknown_name('arm of this check', arm, arms)}")
            if not any(selection.of_training and arm in selection.arms for selection in selected):
                raise ConfigError(f"{where}: needs_converged: {arm!r}: expected a number that training has a part in")
        return selected

    def _problem(self, first: Selection, second: Selection | None = None) -> str | None:
        """Return why this number cannot be had of this quantity, or None."""
        quantity = first.quantity
        if quantity.ratio is not None and (second is None or self.ratio is None or first.length != second.length):
            return "expected a ratio of two arms at one length: all seeds of a setting share one clock"
        if second is None:
            one = quantity.effect is None or len(first.arms) == 1
            return None if one else "expected one arm: its interval is not over seeds, so none of several is the best"
        if quantity.effect is not None:
            return "expected a value: its interval is not over seeds"
        if second.quantity != quantity or second == first:
            return "expected another arm, length or facet under 'to'"
        if len(first.arms) > 1 or len(second.arms) > 1:
            return "expected one arm on each side of a comparison"
        if quantity.scale == "log10" and self.ratio is None:
            return "expected a ratio in place of a difference: its values are logarithms"
        if self.ratio is not None and quantity.scale == "event":
            return "expected a difference in place of a ratio: it is whether something happened, 0 where it did not"
        if self.ratio is not None and quantity.bounds is not None and quantity.bounds[0] < 0:
            return "expected a difference in place of a ratio: its values can be negative"
        return None

    def effect(self, grid: Grid, confidence: float = CONFIDENCE) -> Effect:
        """Return the number in a grid, with its interval over seeds."""
        sides = self.selections("")
        if self.value is not None:
            return value_of(sides[0], grid, confidence)
        return (ratio_of if self.ratio is not None else difference_of)(sides[0], sides[1], grid, confidence)

    def improving(self, grid: Grid) -> list[Improving]:
        """Return for each side the arms with seeds that were still improving at their end.

        A replica that diverged or failed is none of them.
        """
        found: list[Improving] = []
        for selection, runs in zip(self.selections(""), _runs(self, grid), strict=True):
            found.append({})
            if selection.of_training:
                for arm in selection.arms or grid.arms:
                    ends = runs.filter(pl.col("arm") == arm)["converged"].drop_nulls()
                    if not ends.all():
                        found[-1][arm] = int((~ends).sum()), len(ends)
        return found

    def withheld(self, improving: Sequence[Improving]) -> frozenset[str]:
        """Return the answers that further training of an arm in `needs_converged` could turn."""
        answers: set[str] = set()
        for selection, arms, is_first in zip(self.selections(""), improving, (True, False), strict=False):
            if set(self.needs_converged).isdisjoint(arms):
                continue
            if selection.quantity.training == "changes":
                return frozenset({"met", "refuted"})
            falls = (selection.quantity.better == "lower") == is_first
            answers.add("met" if falls == (self.below is None) else "refuted")
        return frozenset(answers)

    def answer(self, effect: Effect, min_seeds: int, withheld: Collection[str] = ()) -> str:
        """Return `met`, `refuted` or `undecided`: on which side of the threshold the whole interval lies.

        Undecided as well where that answer is `withheld`.
        """
        if effect.low is None or effect.high is None or effect.num_seeds < min_seeds:
            return "undecided"
        threshold, sides = (self.above, ("refuted", "met")) if self.below is None else (self.below, ("met", "refuted"))
        assert threshold is not None  # noqa: S101 - exactly one of the two is given
        found = sides[0] if effect.high < threshold else sides[1] if effect.low > threshold else "undecided"
        return "undecided" if found in withheld else found


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A statement, the study that tests it, and its checks; the first check is the one that a summary shows.

    A claim that nothing here can decide says in `needs` what would decide it; its checks are then the parts of it that
    can be measured.
    """

    statement: str
    study: str
    checks: tuple[Check, ...]
    condition: str | None = None
    needs: str | None = None

    def __post_init__(self) -> None:
        deciding = [check.role for check in self.checks if check.role != "part"]
        if self.needs is None:
            require(len(deciding) == len(self.checks), "checks", "the role part only beside 'needs'", "part")
        else:
            expected = "null where checks decide; beside it every check has the role part"
            require(not deciding, "needs", expected, self.needs)
        conditional = any(check.role == "condition" for check in self.checks)
        told = "text if a check has the role condition, else none"
        require(len(self.checks) > 0, "checks", "at least one check", [])
        require(conditional == (self.condition is not None), "condition", told, self.condition)


@dataclass(frozen=True)
class Rules:
    """Everything in configs/claims.yaml."""

    min_seeds: int
    claims: Mapping[str, Claim]

    def __post_init__(self) -> None:
        require_names(self.claims, "claims")


def load_rules(paths: Paths, studies: Mapping[str, Study]) -> Rules:
    """Return the rules, with a rule for every claim that a study names.

    Raises:
        ConfigError: If the file is missing or wrong, has no rule for a claim of a study, or names no study, no grid of
            one, no quantity, or not exactly the facets of one.
    """
    where = str(paths.claims.relative_to(paths.root))
    rules: Rules = build(Rules, read_yaml(paths.claims), where)
    for name, study in studies.items():
        for claim in study.claims:
            if claim not in rules.claims:
                file = paths.study_config(name).relative_to(paths.root)
                raise ConfigError(f"{file}: claims: {unknown_name('claim', claim, rules.claims)}; rules are in {where}")
            if rules.claims[claim].study != name:
                expected = f"expected {name!r}, whose file names it; got {rules.claims[claim].study!r}"
                raise ConfigError(f"{where}: claims.{claim}.study: {expected}")
    every = {*studies, *(path.stem for path in paths.study_config("any").parent.glob("*.yaml"))}
    for name, rule in rules.claims.items():
        if rule.study not in every:
            raise ConfigError(f"{where}: claims.{name}.study: {unknown_name('study', rule.study, every)}")
        for number, check in enumerate(rule.checks):
            check.selections(f"{where}: claims.{name}.checks[{number}]")
            known = studies[rule.study].grids if rule.study in studies else {check.grid: None}
            if check.grid not in known:
                raise ConfigError(f"{where}: claims.{name}: {unknown_name('grid', check.grid, known)}")
    return rules


@dataclass(frozen=True, eq=False, kw_only=True)
class _Judged:
    """A check, and what its grid has of it, each computed once; nothing where the grid was not run."""

    check: Check
    grid: Grid | None
    effect: Effect
    improving: Sequence[Improving]
    withheld: frozenset[str]

    @classmethod
    def of(cls, check: Check, grid: Grid | None) -> _Judged:
        effect, improving = (NOTHING, []) if grid is None else (check.effect(grid), check.improving(grid))
        withheld = check.withheld(improving)
        return cls(check=check, grid=grid, effect=effect, improving=improving, withheld=withheld)

    def answer(self, min_seeds: int) -> str:
        """Return the answer at the level of one check."""
        return "not tested" if self.grid is None else self.check.answer(self.effect, min_seeds, self.withheld)

    def is_decided(self, min_seeds: int, confidence: float) -> bool:
        """Return whether there is an answer at a level of confidence of its own."""
        if self.grid is None:
            return False
        effect = self.check.effect(self.grid, confidence)
        return self.check.answer(effect, min_seeds, self.withheld) != "undecided"

    def row(self, claim: str, min_seeds: int, holds: bool | None) -> dict[str, object]:
        """Return the row of the table of checks."""
        still: Improving = {}
        for arms in self.improving:
            still |= {arm: max(found, still.get(arm, (0, 0))) for arm, found in arms.items()}
        parts = [f"{quoted(arm)} {few} of {of}" for arm, (few, of) in still.items()]
        return {
            "claim": claim,
            "role": self.check.role,
            "grid": self.check.grid,
            "measure": self.check.measure,
            "expected": self.check.expected,
            "threshold": self.check.above if self.check.below is None else self.check.below,
            "kind": self.check.kind,
            "answer": self.answer(min_seeds),
            "effect": self.effect.value,
            "low": self.effect.low,
            "high": self.effect.high,
            "num_seeds": self.effect.num_seeds,
            "num_left_out": self.effect.num_left_out,
            "not_converged": join_first(parts) if parts else None,
            "holds": holds,
        }

    def doubt(self, row: Mapping[str, Any], min_seeds: int) -> str | None:
        """Return why the check leaves its claim without a verdict, as a sentence has it; None where it does not."""
        if self.grid is None:
            return f"{self.check.grid} was not run"
        if self.check.role == "premise" and row["answer"] == "refuted":
            return f"its premise does not hold: {row['measure']}, {row['expected']}"
        if self.effect.value is None:
            return f"no seed has this number (is every arm, facet and length of it one of the grid?): {row['measure']}"
        if row["answer"] != "undecided":
            return None
        waits = self.check.answer(self.effect, min_seeds) in self.withheld
        still = f" (still improving: {row['not_converged']})" if waits else ""
        return f"whether it is {row['expected']} is not decided: {row['measure']}{still}"


def judge(rules: Rules, grids: Iterable[Grid]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return a row per claim with its verdict, and a row per check with its answer.

    A claim whose study or grid was not run is `not tested`, and has its row all the same.
    """
    known = {(grid.study, grid.name): grid for grid in grids}
    judged = {
        name: [_Judged.of(check, known.get((claim.study, check.grid))) for check in claim.checks]
        for name, claim in rules.claims.items()
    }
    holds = iter(_holding(list(itertools.chain(*judged.values())), rules.min_seeds))
    verdicts, checks = [], []
    for name, claim in rules.claims.items():
        rows = [one.row(name, rules.min_seeds, next(holds)) for one in judged[name]]
        verdict = verdict_of([(row["role"], row["answer"]) for row in rows])
        doubts = [one.doubt(row, rules.min_seeds) for one, row in zip(judged[name], rows, strict=True)]
        reason = {
            "supported with a condition": claim.condition,
            "not testable here": claim.needs,
            "contradicted": _against(rows[1:]),
            "inconclusive": join_first(list(filter(None, doubts))) if verdict == "inconclusive" else None,
        }.get(verdict)
        first = {key: rows[0][key] for key in ("measure", "effect", "low", "high", "num_seeds")}
        about = {
            "statement": claim.statement,
            "study": claim.study,
            "verdict": verdict,
            "mark": VERDICTS[verdict],
            "reason": reason,
            "scope": _scope(judged[name]),
        }
        verdicts.append({"claim": name} | about | first)
        checks += rows
    return pl.DataFrame(verdicts, schema=_VERDICTS), pl.DataFrame(checks, schema=_CHECKS)


def _against(rows: Sequence[dict[str, Any]]) -> str | None:
    """Return what the essential checks among these have found that contradict their claim; None without any."""
    refuted = [row for row in rows if (row["role"], row["answer"]) == ("essential", "refuted")]
    found = [f"{row['measure']}, is {interval(row | {'mean': row['effect']}, 3)}" for row in refuted]
    return join_first(found) if found else None


def verdict_of(answers: Sequence[tuple[object, object]]) -> str:
    """Return the verdict that (role, answer) pairs lead to: see the head of configs/claims.yaml."""
    if all(answer == "not tested" for _, answer in answers):
        return "not tested"
    if all(role == "part" for role, _ in answers):
        return "not testable here"
    if ("essential", "refuted") in answers:
        return "contradicted"
    if ("premise", "refuted") in answers or any(answer in {"undecided", "not tested"} for _, answer in answers):
        return "inconclusive"
    return "supported with a condition" if ("condition", "refuted") in answers else "supported"


def _holding(judged: Sequence[_Judged], min_seeds: int) -> list[bool | None]:
    """Return for each check whether its answer holds where the whole ledger errs with at most 5 %.

    A check is a test of its threshold, at the level at which its interval leaves it out. Of m tests, r of which hold,
    the others hold at the level 0.05 / (m - r), until none is added. Null where there is no test: the number is exact,
    or has no interval, or rests on too few seeds, or both answers are withheld.

    Source: Holm (1979).
    """
    tests = {place for place, one in enumerate(judged) if one.effect.is_tested(min_seeds) and len(one.withheld) < 2}
    holding: set[int] = set()
    while left := tests - holding:
        confidence = 1 - (1 - CONFIDENCE) / len(left)
        added = {place for place in left if judged[place].is_decided(min_seeds, confidence)}
        if not added:
            break
        holding |= added
    return [place in holding if place in tests else None for place in range(len(judged))]


def chance(checks: pl.DataFrame) -> str:
    """Return what a reader of the ledger has to expect of chance, and how many of its answers hold against that."""
    tests = checks.drop_nulls("holds")
    decided = tests.filter(pl.col("answer").is_in(["met", "refuted"]))
    expected = (1 - CONFIDENCE) * tests.height
    return (
        f"Each check is made to err in {100 * (1 - CONFIDENCE):.0f} %, and the verdicts rest on the checks one by one: "
        f"were every true value at its threshold, at most {expected:.1f} of these {tests.height} checks with an "
        f"interval would be decided by chance, half of them as the claim has it. {decided.height} are decided; the "
        f"answers of "
        f"{int(tests['holds'].sum())} hold where all checks together err with at most "
        f"{100 * (1 - CONFIDENCE):.0f} % (Holm's rule)"
    )


def trials_of(rules: Rules, grids: Iterable[Grid]) -> pl.DataFrame:
    """Return the trials behind each check: a row per claim, check (from 1) and setting whose seeds its number is of."""
    known = {(grid.study, grid.name): grid for grid in grids}
    frames = [pl.DataFrame(schema=_TRIALS)]
    for name, claim in rules.claims.items():
        for place, check in enumerate(claim.checks, start=1):
            grid = known.get((claim.study, check.grid))
            facts = {"claim": name, "check": place, "study": claim.study, "grid": check.grid}
            rows = pl.concat(_runs(check, grid), how="diagonal") if grid else pl.DataFrame(schema=_TRIALS)
            named = rows.with_columns(pl.lit(value).alias(key) for key, value in facts.items())
            frames.append(
                named.select(pl.col(key).cast(dtype) for key, dtype in _TRIALS.items()).unique(maintain_order=True)
            )
    return pl.concat(frames)


_TRIALS: dict[str, pl.DataType] = {"claim": pl.String(), "check": pl.Int64(), "study": pl.String(), "grid": pl.String()}
_TRIALS |= {"arm": pl.String(), "length": pl.Int64(), "label": pl.String(), "trial_id": pl.String()}


def _runs(check: Check, grid: Grid) -> list[pl.DataFrame]:
    """Return the rows of `trials` that the number of a check is of, a frame for each of its sides."""
    sides = []
    for selection in check.selections(""):
        mine = grid if selection.over_lengths else grid.at(selection.length)
        rows = mine.all_runs if selection.quantity.of_all_settings else mine.runs
        sides.append(rows.filter(pl.col("arm").is_in(selection.arms or grid.arms)))
    return sides


def _scope(judged: Iterable[_Judged]) -> str | None:
    """Return what the checks of a claim were run on: «adding (T = 10, 100), 32 units, at most 2500 updates, ...»."""
    runs = [run for one in judged if one.grid is not None for run in _runs(one.check, one.grid)]
    ran = pl.concat(runs, how="diagonal") if runs else pl.DataFrame()
    if ran.is_empty():
        return None
    lengths = ran.group_by("dataset.name", maintain_order=True).agg(pl.col("length").unique().sort())
    tasks = [f"{name} (T = {', '.join(map(str, lengths_T))})" for name, lengths_T in lengths.iter_rows()]
    sizes = [_range(ran["model.hidden_size"], "unit"), _range(ran["model.num_layers"], "layer")]
    budget = f"at most {max(ran['training.max_steps'])} updates"
    seeds = count(ran["seed"].n_unique(), "seed")
    return ", ".join([join(tasks), *sizes, budget, seeds, *ran["device"].drop_nulls().unique().sort()])


def _range(values: pl.Series, noun: str) -> str:
    """Return «32 units», «1 to 3 layers»."""
    low, high = int(values.min()), int(values.max())  # type: ignore[arg-type]
    return count(high, noun) if low == high else f"{low} to {high} {noun}s"
