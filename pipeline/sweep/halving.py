"""Successive halving over settings with seeds: how far each setting of a search is trained, rung by rung.

Settings compete that the study selects among: those of a grid that agree on every axis but the ones under
`select.over`. At a rung, a number of steps, every setting that is still in is judged as it was after those steps, by
its mean of the metric over seeds, with the interval of `pipeline.quantities.intervals` (losses on a logarithmic scale,
errors as shares). The rule:

1. A seed is lost if it is no longer finite. A setting of which half of the seeds are lost is stopped, unless all
   settings are such: its median is infinite for good, and selection would never choose it.
2. Of the n settings that came to the rung, the n / factor with the lowest means are kept, rounded up.
3. Any other is stopped only where its interval lies wholly above that of every one that is kept. Where intervals touch,
   or one of the two is missing, as of seeds that are all alike, nobody knows which is better, and it trains on.

A setting that ended before the rung, at the criterion or out of time, competes with what it had; one whose program
failed does not compete. Rungs are synchronous: a group is judged when all of it has come so far. So who is stopped
where follows from the settings alone, not from which machine trained what first, nor from how often it was killed. What
is judged is read from the curves up to the rung, so that a setting which another study has trained further is judged as
if it had stopped there.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import polars as pl

from pipeline.config.search import Halving
from pipeline.config.study import arm_of
from pipeline.core.training.progress import ReplicaOutcome
from pipeline.core.training.spec import TrainingSpec
from pipeline.results.store import StoredTrial, TrialStore
from pipeline.sweep.plan import Plan, Setting

Scores: TypeAlias = Mapping[int, float]
"""By seed the metric at a rung; infinite where the seed is lost."""

SMALLEST = 1e-45
"""A loss of 0 counts as this, the least above 0 in float32, which has a logarithm."""


@dataclass(frozen=True)
class Judge:
    """Decides how far the settings of plans are trained, from what the store has of them.

    Attributes:
        store: Has their trials.
        seen: What was read of it, by trial id.
    """

    store: TrialStore
    seen: dict[str, StoredTrial | None] = field(default_factory=dict)

    def advance(self, plan: Plan, failed: Collection[str] = ()) -> Plan:
        """Return a plan with `stop_at` and `stored` of the settings that are halved set anew: what trains now, how far.

        What it had to train is read again.

        Args:
            plan: Of a study.
            failed: Trial ids whose program failed: they do not compete.
        """
        groups: dict[tuple[str, str], list[Setting]] = {}
        rules: dict[tuple[str, str], Halving] = {}
        over = plan.select.over if plan.select else ()
        for setting in plan.settings:
            if setting.halving is not None:
                arm = arm_of(setting.grid, setting.axes, over)
                rules[arm] = setting.halving
                groups.setdefault(arm, []).append(setting)
        if not groups:
            return plan
        for setting in plan.missing:
            self.seen.pop(setting.trial_id, None)
        stop_at: dict[int, int | None] = {}
        for arm, group in groups.items():
            competing = [setting for setting in group if setting.trial_id not in failed]
            stop_at |= {s.position: step for s, step in self._asked(competing, rules[arm], plan.max_wall_time_s)}
        asked = [replace(s, stop_at=stop_at.get(s.position)) for s in plan.settings]
        halved = {setting.trial_id for group in groups.values() for setting in group}
        settings = [
            replace(s, stored=self._is_final(s, s.stop_at, plan.max_wall_time_s)) if s.trial_id in halved else s
            for s in furthest(asked)
        ]
        return replace(plan, settings=tuple(settings))

    def _asked(
        self, group: Sequence[Setting], halving: Halving, limit_s: float
    ) -> Iterable[tuple[Setting, int | None]]:
        """Yield the settings of a group with the steps that they are to reach; None is their end."""
        alive, longest = list(group), max((s.spec.training.max_steps for s in group), default=0)
        for step in halving.rungs(longest):
            if len(alive) == 1:
                break
            stops = {s.trial_id: step if step < s.spec.training.max_steps else None for s in alive}
            if not all(self._is_final(s, stops[s.trial_id], limit_s) for s in alive):
                yield from ((s, stops[s.trial_id]) for s in alive)
                return
            gone = stopped({s.trial_id: self._scores(s, step, halving.metric) for s in alive}, halving)
            yield from ((s, stops[s.trial_id]) for s in alive if s.trial_id in gone)
            alive = [s for s in alive if s.trial_id not in gone]
        yield from ((s, None) for s in alive)

    def _is_final(self, setting: Setting, stop_at: int | None, limit_s: float) -> bool:
        found = self._read(setting.trial_id)
        return found is not None and found.summary.is_final(limit_s, stop_at)

    def _scores(self, setting: Setting, step: int, metric: str) -> Scores:
        found = self._read(setting.trial_id)
        assert found is not None  # noqa: S101 - it has come so far
        return scores_at(found, setting.spec.training, step, metric)

    def _read(self, identity: str) -> StoredTrial | None:
        """Return what is needed of a stored trial, read once."""
        if identity not in self.seen:
            if (found := self.store.get(identity)) is not None:
                curves = found.tables["curves"].filter(_JUDGED)
                found = replace(found, tables={"trials": found.tables["trials"], "curves": curves})
            self.seen[identity] = found
        return self.seen[identity]


def scores_at(trial: StoredTrial, training: TrainingSpec, step: int, metric: str) -> Scores:
    """Return by seed what `metric` was after so many steps.

    Args:
        trial: Has come so far, or ended by itself before.
        training: Of its spec.
        step: The rung.
        metric: A column of `trials` that follows from validation losses and errors.
    """
    curves = trial.tables["curves"].filter(_JUDGED, pl.col("step") <= step).sort("step")
    evaluated = {(seed, at, name): value for seed, at, name, value in curves.select(_EVALUATED).iter_rows()}
    scores = {}
    for row in trial.tables["trials"].iter_rows(named=True):
        seed, outcome, last = row["seed"], ReplicaOutcome(row["seed"]), math.inf
        for of, at, name in evaluated:
            if (of, name) == (seed, "loss"):
                last = evaluated[of, at, name]
                outcome.saw_validation(at, last, evaluated.get((of, at, "error")), training)
        is_lost = not math.isfinite(last) or (row["status"] == "diverged" and row["num_steps"] < step)
        scores[seed] = math.inf if is_lost else outcome.row(None, None, 0, training.convergence)[metric]
    return scores


_EVALUATED = ("seed", "step", "metric", "value")

_JUDGED = pl.all_horizontal(
    pl.col("metric").is_in(["loss", "error"]),
    pl.col("split") == "validation",
    *(pl.col(fact).is_null() for fact in ("mode", "group", "tested_length")),
)
"""Which rows of `curves` are the validation loss and error by which a replica is judged."""


def stopped(scores: Mapping[str, Scores], halving: Halving) -> frozenset[str]:
    """Return which of the settings that came to a rung are stopped there, by the rule at the head of this file.

    Args:
        scores: Of every setting; of equal means the first is the better one.
        halving: Metric and factor.
    """
    lost = {name for name, of in scores.items() if math.isinf(statistics.median(of.values()))}
    intervals = _intervals({name: of for name, of in scores.items() if name not in lost}, halving.metric)
    if not intervals:
        return frozenset()
    ranked = sorted(intervals, key=lambda name: intervals[name][0])
    num_kept = math.ceil(len(scores) / halving.factor)
    highs = [intervals[name][2] for name in ranked[:num_kept]]
    worse = set()
    for name in ranked[num_kept:]:
        low = intervals[name][1]
        if low is not None and all(high is not None and low > high for high in highs):
            worse.add(name)
    return frozenset(lost | worse)


def _intervals(scores: Mapping[str, Scores], metric: str) -> dict[str, tuple[float, float | None, float | None]]:
    """Return mean, low and high over the seeds of each setting that are not lost."""
    from pipeline.quantities.intervals import mean_interval, share_interval  # scipy takes its time

    rows = [(name, seed, value) for name, of in scores.items() for seed, value in of.items()]
    frame = pl.DataFrame(rows, schema={"setting": pl.String, "seed": pl.Int64, "value": pl.Float64}, orient="row")
    if metric.endswith("_error"):
        found = share_interval(frame, "value", ["setting"])
    else:
        logs = frame.with_columns(pl.col("value").clip(SMALLEST).log10())
        found = mean_interval(logs, "value", ["setting"])
    return {name: (mean, low, high) for name, mean, low, high in found.select("setting", "mean", "low", "high").rows()}


def furthest(settings: Iterable[Setting]) -> list[Setting]:
    """Return settings of which those that are one trial are trained as far as the furthest of them asks."""
    every = list(settings)
    best: dict[str, Setting] = {}
    for setting in every:
        known = best.setdefault(setting.trial_id, setting)
        if known.stop_at is not None and (setting.stop_at is None or setting.stop_at > known.stop_at):
            best[setting.trial_id] = setting
    return [replace(s, stop_at=best[s.trial_id].stop_at, stored=best[s.trial_id].stored) for s in every]
