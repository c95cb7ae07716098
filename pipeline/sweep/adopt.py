"""Trials after a refactoring: some train again under today's code, and if every row agrees the others are adopted.

An edit that changes no number changes the digest of the code all the same. Checked is bit for bit all that a
trial's tables have but where and how fast it ran; what is adopted is not checked itself, and says so in `adopted_from`.
"""

from __future__ import annotations

import contextlib
import functools
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TextIO

import numpy as np
import polars as pl

from pipeline.config import Params, Paths
from pipeline.config.strict import plain
from pipeline.core.training import run_trial
from pipeline.errors import SweepError
from pipeline.results import HOST_COLUMNS, RESUMABLE, TRIAL_TABLES
from pipeline.results.catalogue import Summary
from pipeline.results.frames import spec_columns
from pipeline.results.schema import IDENTITY_COLUMNS
from pipeline.results.store import StoredTrial, TrialStore
from pipeline.sweep.executors import Executor
from pipeline.sweep.lease import sweep_lease
from pipeline.sweep.plan import Plan, Setting
from pipeline.sweep.progress import duration_text, follow, title
from pipeline.sweep.run import current_plan, job_of, load_data
from pipeline.sweep.trial import Train


@dataclass(frozen=True)
class Candidate:
    """A setting that today's code has not trained, and the trial that older code has of the same spec and data.

    Attributes:
        setting: What today's code would train.
        older_id: Of the trial of older code; it is read when it is needed, for there may be ten thousand.
        cost_s: How long that trained.
    """

    setting: Setting
    older_id: str
    cost_s: float

    @property
    def kinds(self) -> frozenset[tuple[str, object]]:
        """What it is a case of: every name and switch of its spec, its cell, clipping and forcing among them."""
        columns = {name: column.value for name, column in spec_columns(self.setting.spec).items()}
        named = {name: value if isinstance(value, str | bool | None) else "set" for name, value in columns.items()}
        return frozenset([*named.items(), *(("measures", m) for m in self.setting.spec.diagnostics.measures)])


def adopt(
    paths: Paths,
    params: Params,
    studies: Sequence[str],
    executor: Executor,
    *,
    num_checked: int = 3,
    dry_run: bool = False,
    stream: TextIO | None = None,
    train: Train = run_trial,
) -> int:
    """Adopt the trials of older code for the settings that lack one, and return how many were adopted.

    Args:
        paths: Where the files are.
        params: What to run.
        studies: Names of studies that params.yaml lists.
        executor: Who trains: `executor_named`.
        num_checked: How many trials train again at least, the cheapest; more where they are not of every kind.
        dry_run: Only say what would train and be adopted.
        stream: Where the progress is shown; None is standard output.
        train: The training function.

    Raises:
        SweepError: If a row differs, or a trial fails: nothing is adopted. What was trained is kept, under its new id.
        StoreError: If the trial store cannot be read or written.
    """
    shown, store = stream or sys.stdout, TrialStore.of(paths, params.trial_store)
    with contextlib.ExitStack() as leases:
        for study in sorted(set(studies)):
            leases.enter_context(sweep_lease(store, study))
        settings = {s.trial_id: s for study in studies for s in current_plan(paths, params, study, store).trials}
        missing = {identity: setting for identity, setting in settings.items() if not setting.stored}
        candidates = find_candidates(store, list(missing.values()))
        checked = choose(candidates, num_checked, kinds_that_agree(store, [s for s in settings.values() if s.stored]))
        others = [candidate for candidate in candidates if candidate not in checked]
        lacking = f"{len(missing) - len(candidates)} of {len(missing)} missing trials have no older one"
        cost = duration_text(sum(candidate.cost_s for candidate in checked))
        print(f"adopt: {len(checked)} to check ({cost}), {len(others)} to adopt; {lacking}", file=shown)
        if dry_run or not candidates:
            for candidate in checked:
                print(f"{candidate.setting.trial_id}  check  {title(candidate.setting)}", file=shown)
            return 0
        _check(paths, params, store, executor, checked, shown, train)
        num_adopted = 0
        for candidate in others:
            older = store.get(candidate.older_id, quarantines=False)
            if older is None:
                print(f"adopt: trial {candidate.older_id} is damaged or gone, and not adopted", file=shown)
            else:
                store.put(under_new_identity(older, candidate.setting))
                num_adopted += 1
        print(f"adopt: all rows of {len(checked)} trials agree; {num_adopted} adopted", file=shown)
        return num_adopted


def kinds_that_agree(store: TrialStore, settings: Sequence[Setting]) -> frozenset[tuple[str, object]]:
    """Return the kinds of settings that today's code has trained as older code did: those need no second check.

    An adoption that was interrupted, or that `dvc repro` went before, has left such trials.
    """
    kinds = frozenset[tuple[str, object]]()
    for candidate in find_candidates(store, settings):
        older, newer = store.get(candidate.older_id), store.get(candidate.setting.trial_id)
        trained = newer is not None and newer.tables["trials"]["adopted_from"].is_null().all()
        if older is not None and newer is not None and trained and first_difference(older, newer) is None:
            kinds |= candidate.kinds
    return kinds


def find_candidates(store: TrialStore, wanted: Sequence[Setting]) -> list[Candidate]:
    """Return the settings of which older code has trials that agree with each other, cheapest first.

    A trial that ran out of time, or that a search stopped, is none: where it stopped says nothing about the code.
    """
    settings = {(json.dumps(plain(s.spec), sort_keys=True), s.dataset_digest): s for s in wanted}
    older: dict[tuple[str, str], list[Summary]] = {}
    for identity, summary in sorted(store.summaries().items()):
        meaning = (summary.spec, summary.dataset_digest)
        ended = not {*summary.statuses} & {*RESUMABLE}
        if ended and meaning in settings and identity != settings[meaning].trial_id:
            older.setdefault(meaning, []).append(summary)
    found = [
        Candidate(settings[meaning], trials[0].trial_id, trials[0].wall_time_s or 0.0)
        for meaning, trials in older.items()
        if _agree(store, [trial.trial_id for trial in trials])
    ]
    return sorted(found, key=lambda candidate: (candidate.cost_s, candidate.setting.trial_id))


def _agree(store: TrialStore, trial_ids: Sequence[str]) -> bool:
    """Return whether trials of the same spec and data are the same to the bit; one alone always is."""
    if len(trial_ids) == 1:
        return True
    first, *others = (store.get(identity, quarantines=False) for identity in trial_ids)
    return first is not None and all(other is not None and first_difference(first, other) is None for other in others)


def choose(
    candidates: Sequence[Candidate], num_checked: int, known: frozenset[tuple[str, object]] = frozenset()
) -> list[Candidate]:
    """Return the cheapest candidates, and further ones, cheap for what they add, until every kind is among them.

    Args:
        candidates: Cheapest first.
        num_checked: How many at least.
        known: Kinds that have been checked.
    """
    chosen = list(candidates[:num_checked])
    kinds = {candidate.setting.trial_id: candidate.kinds for candidate in candidates}
    seen = {kind for candidate in chosen for kind in kinds[candidate.setting.trial_id]} | known
    while uncovered := frozenset().union(*kinds.values()) - seen:
        best = max(candidates, key=lambda c: len(kinds[c.setting.trial_id] & uncovered) / max(c.cost_s, 1e-3))
        chosen.append(best)
        seen |= kinds[best.setting.trial_id]
    return chosen


def first_difference(older: StoredTrial, newer: StoredTrial) -> str | None:
    """Return where two trials differ first, «curves.value, row 3: 0.25, then 0.5»; None where they agree to the bit.

    Rows are compared in the order of all that is no measured number: in which they were written depends on the clock.
    """
    for table in TRIAL_TABLES:
        mine, theirs = (
            trial.tables[table].drop([*IDENTITY_COLUMNS, *HOST_COLUMNS], strict=False) for trial in (older, newer)
        )
        if mine.schema != theirs.schema or mine.height != theirs.height:
            return f"{table}: {mine.height} rows of {mine.width} columns, then {theirs.height} of {theirs.width}"
        facts = [name for name, dtype in mine.schema.items() if not dtype.is_float()]
        mine, theirs = (frame.sort(facts, nulls_last=True, maintain_order=True) for frame in (mine, theirs))
        for column in mine.columns:
            differs = _bits(mine[column]).ne_missing(_bits(theirs[column]))
            if (row := differs.arg_max()) is not None and differs[row]:
                return f"{table}.{column}, row {row}: {mine[column][row]}, then {theirs[column][row]}"
    return None


def under_new_identity(older: StoredTrial, setting: Setting) -> StoredTrial:
    """Return an older trial under the id of its setting; its rows say which code ran."""
    tables = {
        table: frame.with_columns(pl.lit(setting.trial_id, pl.String()).alias("trial_id"))
        for table, frame in older.tables.items()
    }
    ran = pl.coalesce("adopted_from", "code_digest").alias("adopted_from")
    tables["trials"] = tables["trials"].with_columns(ran, pl.lit(setting.code_digest).alias("code_digest"))
    return replace(older, trial_id=setting.trial_id, code_digest=setting.code_digest, tables=tables)


def _check(
    paths: Paths,
    params: Params,
    store: TrialStore,
    executor: Executor,
    checked: Sequence[Candidate],
    stream: TextIO,
    train: Train,
) -> None:
    """Train what is to be checked under today's code, and compare.

    Raises:
        SweepError: If a trial is not finished, or a row differs.
    """
    settings = tuple(replace(candidate.setting, stop_at=None) for candidate in checked)
    job = job_of(paths, params, store, train)
    plan = Plan(study="adopt", settings=settings, select=None, max_wall_time_s=job.max_wall_time_s)
    progress = follow(plan, stream)
    with contextlib.closing(progress):
        executor(plan.missing, job, functools.partial(load_data, paths), progress)
    for candidate in checked:
        setting = candidate.setting
        older, newer = store.read(candidate.older_id), store.get(setting.trial_id)
        if newer is None:
            outcome = progress.tally.outcomes.get(setting.trial_id)
            reason = outcome.message if outcome else "interrupted"
            raise SweepError(f"{title(setting)} (trial {setting.trial_id}): {reason}; nothing was adopted")
        if older is None or (difference := first_difference(older, newer)) is not None:
            difference = "the older one is gone" if older is None else difference
            raise SweepError(
                f"{title(setting)}: trial {candidate.older_id} of older code and {setting.trial_id} of today's "
                f"differ, {difference}; nothing was adopted, `dvc repro` trains what is missing"
            )


def _bits(series: pl.Series) -> pl.Series:
    """Return numbers as the integers of their bits: -0.0 is not 0.0, and NaN is NaN."""
    if not series.dtype.is_float():
        return series
    bits = pl.Series(series.fill_null(0.0).to_numpy().view(np.int64))
    return bits.zip_with(series.is_not_null(), pl.Series([None], dtype=pl.Int64))
