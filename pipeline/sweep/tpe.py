"""Points of a search that are proposed from results, generation by generation: the only module that imports optuna.

A generation is proposed when all points of the arm are finished, and follows from the declaration and their results
alone: a search that was killed goes on to the same points, and so does one whose results another study has trained.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.config.search import Choice, Domain, Integer, LogInteger, LogUniform, TpeSearch
from pipeline.config.study import arm_of
from pipeline.results.store import TrialStore
from pipeline.sweep.consolidate import median_scores
from pipeline.sweep.plan import Plan, Setting

ASKS_PER_POINT = 100
"""So often a proposal may be a point that is known; after that the next point that was drawn takes its place."""

Point = Mapping[str, Any]


def next_points(plan: Plan, store: TrialStore, scores: dict[str, float]) -> dict[tuple[str, str], list[Point]]:
    """Return all points of each arm whose next generation can be proposed.

    Args:
        plan: With `stored` as it is.
        store: Has the results.
        scores: Of trials, as far as they have been read; what is read is added.
    """
    arms: dict[tuple[str, str], list[Setting]] = {}
    for setting in plan.settings:
        if (search := plan.searches.get(setting.grid)) is not None:
            arms.setdefault(arm_of(setting.grid, setting.axes, search.space), []).append(setting)
    found = {}
    for arm, settings in arms.items():
        search = plan.searches[settings[0].grid]
        if len(settings) >= search.number or plan.select is None or not all(s.stored for s in settings):
            continue
        points = [{key: setting.axes[key] for key in search.space} for setting in settings]
        for setting in settings:
            if setting.trial_id not in scores and (stored := store.get(setting.trial_id)) is not None:
                scores |= median_scores(stored.tables["trials"], plan.select.metric)
        if all(setting.trial_id in scores for setting in settings):
            found[arm] = points + propose(search, points, [scores[setting.trial_id] for setting in settings])
    return found


def propose(search: TpeSearch, points: Sequence[Point], scores: Sequence[float]) -> list[Point]:
    """Return the next generation, all points different from each other and from the known ones.

    Args:
        search: Has further points.
        points: All that are finished, in order.
        scores: Of each, the lower the better; infinite where half of the seeds have no honest number.
    """
    import optuna  # which not every sweep needs

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    seed = hashlib.sha256(f"{search.seed}/{len(points)}".encode()).digest()[:4]
    sampler = optuna.samplers.TPESampler(seed=int.from_bytes(seed, "big"), n_startup_trials=0, constant_liar=True)
    study = optuna.create_study(sampler=sampler)
    space = {key: _distribution(domain) for key, domain in search.space.items()}
    for point, score in zip(points, scores, strict=True):
        values = {key: _asked(domain, point[key]) for key, domain in search.space.items()}
        study.add_trial(optuna.trial.create_trial(params=values, distributions=space, value=score))
    known, found, drawn = {repr(point) for point in points}, list[Point](), search.drawn()
    while len(found) < min(search.generation, search.number - len(points)):
        asked = (study.ask(space).params for _ in range(ASKS_PER_POINT))
        cleaned = ({key: _cleaned(domain, values[key]) for key, domain in search.space.items()} for values in asked)
        new = next(point for point in itertools.chain(cleaned, drawn) if repr(point) not in known)
        known.add(repr(new))
        found.append(new)
    return found


def _distribution(domain: Domain) -> Any:
    """Return what optuna calls a domain; of a choice the places of its values."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(domain, Choice):
        return CategoricalDistribution(tuple(range(len(domain.values))))
    if isinstance(domain, Integer | LogInteger):
        return IntDistribution(domain.low, domain.high, log=isinstance(domain, LogInteger))
    return FloatDistribution(domain.low, domain.high, log=isinstance(domain, LogUniform))


def _asked(domain: Domain, value: Any) -> Any:
    return domain.values.index(value) if isinstance(domain, Choice) else value


def _cleaned(domain: Domain, value: Any) -> Any:
    """Return the value that optuna means, with as many digits as one that is drawn."""
    if isinstance(domain, Choice):
        return domain.values[value]
    return value if isinstance(domain, Integer | LogInteger) else domain.clean(value)
