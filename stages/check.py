"""Check that what studies and claims name exists, so that a mistake shows before hours of training.

    python stages/check.py

The figures and claims that a study names, the grids, quantities and arms that a claim names; W&B's variables of the
environment. Writes nothing.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the tree that this file stands in, not an installed one

import polars as pl

from pipeline.claims import Rules, load_rules
from pipeline.config import Paths, Study, build, check_tree, expand, load_params, load_study
from pipeline.core.training import TrialSpec
from pipeline.errors import ConfigError, PipelineError, unknown_name
from pipeline.figures.catalogue import check_study
from pipeline.publish.mode import asked_mode
from pipeline.quantities import Grid, grids_of
from pipeline.results import SCHEMAS
from pipeline.results.frames import failed_trials_frame
from pipeline.sweep.consolidate import settings_frame
from pipeline.sweep.plan import Plan, Setting, label_of


def main(arguments: list[str] | None = None) -> int:
    """Check the project in the current folder; return the exit status, 2 for an error to mend."""
    argparse.ArgumentParser(description="Check that what studies and claims name exists.").parse_args(arguments)
    try:
        check_tree(__file__)
        check(Paths.at())
    except PipelineError as error:
        print(f"check: {error}", file=sys.stderr)
        return 2
    return 0


def check(paths: Paths) -> None:
    """Check the studies of params.yaml, and the claims that they test.

    Raises:
        ConfigError: If one names what does not exist, or `WANDB_MODE` or `WANDB_DISABLED` has an unknown value.
    """
    params = load_params(paths)
    asked_mode(params.tracking.mode, os.environ)
    studies = {name: load_study(paths, name) for name in params.studies}
    rules = load_rules(paths, studies)
    for name, study in studies.items():
        check_study(study, str(paths.study_config(name).relative_to(paths.root)))
    check_arms(paths, rules, studies, params.scale)


def check_arms(paths: Paths, rules: Rules, studies: Mapping[str, Study], scale: str) -> None:
    """Check that every arm that a claim names is one of its grid, at this scale or at another one.

    Raises:
        ConfigError: If one is not; its check would be undecided for ever.
    """
    scales = sorted(path.stem for path in paths.scale_config(scale).parent.glob("*.yaml"))
    for name, study in studies.items():
        missing = [
            (f"{paths.claims.relative_to(paths.root)}: claims.{claim}.checks[{number}]", check.grid, arm)
            for claim, rule in rules.claims.items()
            if rule.study == name
            for number, check in enumerate(rule.checks)
            for selection in check.selections("")
            for arm in selection.arms
        ]
        known: dict[str, set[str]] = {grid: set() for grid in study.grids}
        for tried in (scale, *(other for other in scales if other != scale)):
            if missing:
                for found in planned(name, study, tried, str(paths.study_config(name).relative_to(paths.root))):
                    known[found.name].update(found.arms)
            missing = [(where, grid, arm) for where, grid, arm in missing if arm not in known[grid]]
        for where, grid, arm in missing:
            raise ConfigError(f"{where}: {unknown_name(f'arm of grid {grid}', arm, sorted(known[grid]))}")


def planned(name: str, study: Study, scale: str, where: str) -> Iterator[Grid]:
    """Yield the grids of a study at a scale as if every trial had failed: their arms, without data or training.

    Raises:
        ConfigError: If a setting is impossible.
    """
    settings, trials = [], []
    for position, raw in enumerate(expand(study, scale, where)):
        spec, identity = build(TrialSpec, {**raw.spec, "seeds": [0]}, raw.where), f"trial {position}"
        settings.append(
            Setting(
                grid=raw.grid,
                position=position,
                axes=raw.axes,
                label=label_of(raw),
                spec=spec,
                trial_id=identity,
                dataset_digest="",
                code_digest="",
            )
        )
        given = {"dataset_digest": "", "code_digest": "", "message": "planned"}
        trials.append(failed_trials_frame(spec, trial_id=identity, git_revision=None, **given))
    if settings:
        plan = Plan(study=name, settings=tuple(settings), select=study.select, max_wall_time_s=0.0)
        tables = {table: pl.DataFrame(schema=schema) for table, schema in SCHEMAS.items()}
        tables["settings"] = settings_frame(plan, frozenset(range(len(settings))))
        tables["trials"] = pl.concat(trials, how="diagonal_relaxed")
        yield from grids_of(name, tables, study.select.over if study.select else ())


if __name__ == "__main__":
    sys.exit(main())
