"""The claims ledger: a check is a quantity, its value or how it compares, and the side of a threshold it must lie on.

- grid: adding
ratio: {quantity: decay_factor, arm: lstm, state: c, stage: end}
to: {arm: elman, state: h}
above: 1.0

Each check is made to err in 5 %, so a ledger of many errs somewhere. Verdicts rest on the checks one by one; beside
each stands whether its answer also holds where all of them together err with at most 5 % (`holds`, by Holm's rule).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import polars as pl

from pipeline.config import Paths, Study, build, read_yaml, require
from pipeline.errors import ConfigError, unknown_name
from pipeline.quantities import CONFIDENCE, Effect, Grid, Selection, difference_of, ratio_of, value_of
from pipeline.quantities.quantity import NOTHING
from pipeline.quantities.words import count, join, join_first, quoted

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
    "reason": pl.String(),  # the condition, what a test would need, or which checks are undecided
    "scope": pl.String(),
    **{name: _CHECKS[name] for name in ("measure", "effect", "low", "high", "num_seeds")},
}


@dataclass(frozen=True, kw_only=True)
class Check:
    """One number in a grid, compared with a threshold, and what the answer means for the claim.

    Exactly one of `value`, `difference` and `ratio` describes the number: a quantity, an arm (or several, of which the
    best is meant), a `length` (longest if absent) and a value per facet of the quantity. The
    other side of a difference or a ratio is the same with the changes in `to`. Exactly one of `below` and `above` is
    the threshold on whose expected side the whole interval must lie. Arms in `needs_converged` are those that the claim
    says cannot: while seeds of theirs still improve at their end, the check is undecided.
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
        return None

    def effect(self, grid: Grid, confidence: float = CONFIDENCE) -> Effect:
        """Return the number in a grid, with its interval over seeds."""
        sides = self.selections("")
        if self.value is not None:
            return value_of(sides[0], grid, confidence)
        return (ratio_of if self.ratio is not None else difference_of)(sides[0], sides[1], grid, confidence)

    def improving(self, grid: Grid) -> dict[str, tuple[int, int]]:
        """Return of each arm with seeds that were still improving at their end how many, and of how many.

        A replica that diverged or failed is none of them.
        """
        found: dict[str, tuple[int, int]] = {}
        for selection in self.selections(""):
            if selection.of_training:
                runs = grid.at(selection.length).runs.drop_nulls("converged")
                for arm in selection.arms or grid.arms:
                    ends = runs.filter(pl.col("arm") == arm)["converged"]
                    if not ends.all():
                        found[arm] = max(found.get(arm, (0, 0)), (int((~ends).sum()), len(ends)))
        return found

    def awaits(self, improving: Iterable[str]) -> bool:
        """Return whether one of the arms that are still improving is one of which the claim says that it cannot."""
        return not set(self.needs_converged).isdisjoint(improving)

    def answer(self, effect: Effect, min_seeds: int, improving: Iterable[str] = ()) -> str:
        """Return `met`, `refuted` or `undecided`: on which side of the threshold the whole interval lies.

        Undecided as well where one of the `improving` arms is one that the claim says cannot.
        """
        if self.awaits(improving):
            return "undecided"
        if effect.low is None or effect.high is None or effect.num_seeds < min_seeds:
            return "undecided"
        if self.below is not None:
            return "met" if effect.high < self.below else "refuted" if effect.low > self.below else "undecided"
        assert self.above is not None  # noqa: S101 - exactly one of the two is given
        return "met" if effect.low > self.above else "refuted" if effect.high < self.above else "undecided"


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


def load_rules(paths: Paths, studies: Mapping[str, Study]) -> Rules:
    """Return the rules, with a rule for every claim that a study names.

    Raises:
        ConfigError: If the file is missing or wrong, has no rule for a claim of a study, or names no grid of one, no
            quantity, or not exactly the facets of one.
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
    for name, rule in rules.claims.items():
        for number, check in enumerate(rule.checks):
            check.selections(f"{where}: claims.{name}.checks[{number}]")
            known = studies[rule.study].grids if rule.study in studies else {check.grid: None}
            if check.grid not in known:
                raise ConfigError(f"{where}: claims.{name}: {unknown_name('grid', check.grid, known)}")
    return rules


def judge(rules: Rules, grids: Iterable[Grid]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return a row per claim with its verdict, and a row per check with its answer.

    A claim whose study or grid was not run is `not tested`, and has its row all the same.
    """
    known = {(grid.study, grid.name): grid for grid in grids}
    pairs = {
        name: [(check, known.get((claim.study, check.grid))) for check in claim.checks]
        for name, claim in rules.claims.items()
    }
    holds = iter(_holding([pair for mine in pairs.values() for pair in mine], rules.min_seeds))
    verdicts, checks = [], []
    for name, claim in rules.claims.items():
        rows = [_checked(name, *pair, rules.min_seeds) | {"holds": next(holds)} for pair in pairs[name]]
        verdict = verdict_of([(row["role"], row["answer"]) for row in rows])
        reason = {
            "supported with a condition": claim.condition,
            "not testable here": claim.needs,
            "inconclusive": _undecided(rows) if verdict == "inconclusive" else None,
        }.get(verdict)
        first = {key: rows[0][key] for key in ("measure", "effect", "low", "high", "num_seeds")}
        about = {
            "statement": claim.statement,
            "study": claim.study,
            "verdict": verdict,
            "mark": VERDICTS[verdict],
            "reason": reason,
            "scope": _scope([(check, known.get((claim.study, check.grid))) for check in claim.checks]),
        }
        verdicts.append({"claim": name} | about | first)
        checks += rows
    return pl.DataFrame(verdicts, schema=_VERDICTS), pl.DataFrame(checks, schema=_CHECKS)


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


def _holding(pairs: Sequence[tuple[Check, Grid | None]], min_seeds: int) -> list[bool | None]:
    """Return for each check whether its answer holds where the whole ledger errs with at most 5 %.

    A check is a test of its threshold, at the level at which its interval leaves it out. Of m tests, r of which hold,
    the others hold at the level 0.05 / (m - r), until none is added. Null where there is no test: the number is exact,
    or has no interval, or rests on too few seeds.

    Source: Holm (1979).
    """
    effects = [None if grid is None else check.effect(grid) for check, grid in pairs]
    tests = {
        place
        for place, (check, grid) in enumerate(pairs)
        if (effect := effects[place])
        and effect.is_tested(min_seeds)
        and grid
        and not check.awaits(check.improving(grid))
    }
    holding: set[int] = set()
    while len(holding) < len(tests):
        confidence = 1 - (1 - CONFIDENCE) / (len(tests) - len(holding))
        added = {
            place
            for place in tests - holding
            if (pair := pairs[place])[1] is not None
            and pair[0].answer(pair[0].effect(pair[1], confidence), min_seeds) != "undecided"
        }
        if not added:
            break
        holding |= added
    return [place in holding if place in tests else None for place in range(len(pairs))]


def chance(checks: pl.DataFrame) -> str:
    """Return what a reader of the ledger has to expect of chance, and how many of its answers hold against that."""
    tests = checks.drop_nulls("holds")
    decided = tests.filter(pl.col("answer").is_in(["met", "refuted"]))
    expected = (1 - CONFIDENCE) * tests.height
    return (
        f"Each check is made to err in {100 * (1 - CONFIDENCE):.0f} %, and the verdicts rest on the checks one by one: "
        f"were every true value at its threshold, {expected:.1f} of these {tests.height} checks with an interval would "
        f"be decided by chance, half of them as the claim has it. {decided.height} are decided; the answers of "
        f"{int(tests['holds'].sum())} hold where all checks together err with at most "
        f"{100 * (1 - CONFIDENCE):.0f} % (Holm's rule)"
    )


def _checked(claim: str, check: Check, grid: Grid | None, min_seeds: int) -> dict[str, object]:
    effect = NOTHING if grid is None else check.effect(grid)
    improving = {} if grid is None else check.improving(grid)
    still = [f"{quoted(arm)} {few} of {of}" for arm, (few, of) in improving.items()]
    return {
        "claim": claim,
        "role": check.role,
        "grid": check.grid,
        "measure": check.measure,
        "expected": check.expected,
        "answer": "not tested" if grid is None else check.answer(effect, min_seeds, improving),
        "effect": effect.value,
        "low": effect.low,
        "high": effect.high,
        "num_seeds": effect.num_seeds,
        "num_left_out": effect.num_left_out,
        "not_converged": join_first(still) if still else None,
    }


def _undecided(rows: Iterable[Mapping[str, Any]]) -> str:
    """Return which checks leave a claim without a verdict, and why, as a sentence has it."""
    reasons = []
    for row in rows:
        if row["answer"] == "not tested":
            reasons.append(f"{row['grid']} was not run")
        elif row["role"] == "premise" and row["answer"] == "refuted":
            reasons.append(f"its premise does not hold: {row['measure']}, {row['expected']}")
        elif row["effect"] is None:
            reasons.append(
                f"no seed has this number (is every arm, facet and length of it one of the grid?): {row['measure']}"
            )
        elif row["answer"] == "undecided":
            waits = row["low"] is not None and row["holds"] is None  # it has an interval, and is no test all the same
            still = f" (still improving: {row['not_converged']})" if waits and row["not_converged"] else ""
            reasons.append(f"{row['measure']}, is not shown to be {row['expected']} or not{still}")
    return join_first(reasons)


def _scope(pairs: Iterable[tuple[Check, Grid | None]]) -> str | None:
    """Return what the checks of a claim were run on: «adding (T = 10, 100), 32 units, at most 2500 updates, ...»."""
    runs = [
        (grid if selection.over_lengths else grid.at(selection.length)).runs.filter(
            pl.col("arm").is_in(selection.arms or grid.arms)
        )
        for check, grid in pairs
        if grid is not None
        for selection in check.selections("")
    ]
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
