"""A trial of the result tables, trained once more: from a number of the report back to the rows that it came from."""

from __future__ import annotations

import difflib
import json
import sys
import tempfile
from dataclasses import replace
from typing import TextIO

import polars as pl

from pipeline.config import Params, Paths, build
from pipeline.core.identity import code_digest
from pipeline.core.training import run_trial
from pipeline.core.training.spec import TrialSpec, trial_id
from pipeline.errors import SweepError, unknown_name
from pipeline.results import RESUMABLE, TRIAL_TABLES, read_table
from pipeline.results.store import StoredTrial, TrialStore
from pipeline.sweep.adopt import first_difference
from pipeline.sweep.plan import Setting
from pipeline.sweep.run import job_of, load_data
from pipeline.sweep.trial import Train, train_setting

_PLACE = ("device", "kernel", "torch_version", "python_version", "code_digest")
_SHOWN = ("status", "num_steps", "best_validation_loss", "test_loss", "test_error")


def rerun(
    paths: Paths, params: Params, identity: str, *, stream: TextIO | None = None, train: Train = run_trial
) -> bool:
    """Train a trial again from its row alone, into no store, and return whether all rows come out the same to the bit.

    Compared is all but where and how fast it ran. What is asked of it stands in its row, the column `spec`, so that a
    study which has changed since does not matter.

    Args:
        paths: Where results and data are.
        params: What to run: its studies' results are searched, its resources used.
        identity: The trial's id.
        stream: Where rows are shown; None is standard output.
        train: The training function.

    Raises:
        SweepError: If no result table has the trial, it left nothing to compare, its data are others, or it fails.
        TableError: If a result table is damaged.
        DatasetError: If its data are not prepared.
    """
    shown = stream or sys.stdout
    study, label, older = trial_of_results(paths, params, identity)
    identity = older.trial_id
    row = older.tables["trials"].row(0, named=True)
    statuses = set(older.tables["trials"]["status"])
    if found := statuses & {"error", *RESUMABLE}:
        raise SweepError(
            f"trial {identity}: expected replicas that ended ok or diverged; got {', '.join(sorted(found))}"
        )
    spec: TrialSpec = build(TrialSpec, older.spec, f"trial {identity}: spec")
    dataset = load_data(paths, spec.dataset)
    if dataset.digest != older.dataset_digest:
        expected = f"expected data of digest {older.dataset_digest}; got {dataset.digest}"
        raise SweepError(f"trial {identity}: {paths.dataset(spec.dataset.name)}: {expected}: other data, other numbers")
    code = code_digest(spec)
    setting = Setting(
        grid=study,
        position=0,
        axes={},
        label=label,
        spec=spec,
        trial_id=trial_id(spec, dataset.digest),
        dataset_digest=dataset.digest,
        code_digest=code,
    )
    print(f"rerun: {study}: {label} (trial {identity}), {len(spec.seeds)} seeds", file=shown)
    if setting.trial_id != identity:
        where = f"; `git checkout {row['git_revision']}` has that" if row["git_revision"] else ""
        print(f"the code has changed since: digest {code}, then {row['code_digest']}{where}", file=shown)
    with tempfile.TemporaryDirectory() as folder:
        store = TrialStore(folder)
        outcome = train_setting(job_of(paths, params, store, train), setting, dataset)
        newer = store.get(setting.trial_id)
    if newer is None:
        raise SweepError(f"trial {identity}: {outcome.message}")
    for then, now in zip(_shown_rows(older), _shown_rows(newer), strict=False):
        print(f"then {then}\nnow  {now}", file=shown)
    difference = first_difference(_own(older), _own(newer))
    if difference is None:
        print(f"all rows of {len(TRIAL_TABLES)} tables agree to the bit", file=shown)
        return True
    differs = [name for name in _PLACE if row[name] != newer.tables["trials"][name][0]]
    hint = f" (another {', '.join(differs)})" if differs else ""
    print(f"the rows differ{hint}: {difference}", file=shown)
    return False


def trial_of_results(paths: Paths, params: Params, identity: str) -> tuple[str, str, StoredTrial]:
    """Return study and label of a trial, and what the result tables have of it.

    Args:
        paths: Where results are.
        params: Names the studies.
        identity: The trial's id, or what no other one's begins with.

    Raises:
        SweepError: If none has it.
        TableError: If a table is damaged.
    """
    found, known = dict[str, tuple[str, str]](), list[str]()
    for study in params.studies:
        if (paths.results(study) / "settings.parquet").is_file():
            settings = read_table("settings", paths.results(study))
            known += settings["trial_id"].to_list()
            mine = settings.filter(pl.col("trial_id").str.starts_with(identity))
            found = {trial: (study, label) for trial, label in mine.select("trial_id", "label").iter_rows()} | found
    where = "results of the studies that params.yaml lists"
    if not found:
        nearest = difflib.get_close_matches(identity, sorted(set(known)), n=3, cutoff=0.0)
        raise SweepError(f"{where}: {unknown_name('trial', identity, nearest)}" if known else f"{where}: none is there")
    if len(found) > 1:
        raise SweepError(f"{where}: {len(found)} trials begin with {identity!r}: {', '.join(sorted(found)[:5])}, …")
    ((whole, (study, label)),) = found.items()
    tables = {table: read_table(table, paths.results(study)).filter(trial_id=whole) for table in TRIAL_TABLES}
    row = tables["trials"].row(0, named=True)
    stored = StoredTrial(
        trial_id=whole,
        spec=json.loads(row["spec"]),
        dataset_digest=row["dataset_digest"],
        code_digest=row["code_digest"],
        facts={"git_revision": row["git_revision"]},
        tables=tables,
    )
    return study, label, stored


def _own(trial: StoredTrial) -> StoredTrial:
    """Return the trial without columns of `trials` that other specs have and its own leaves empty."""
    trials = trial.tables["trials"]
    mine = [name for name in trials.columns if "." not in name or trials[name].is_not_null().any()]
    return replace(trial, tables={**trial.tables, "trials": trials.select(sorted(mine))})


def _shown_rows(trial: StoredTrial) -> list[str]:
    rows = trial.tables["trials"].sort("seed").select("seed", *_SHOWN).iter_rows(named=True)
    return [", ".join(f"{name} {value}" for name, value in row.items() if value is not None) for row in rows]
