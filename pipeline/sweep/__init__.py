"""Sweeps: a study's plan, the store of finished trials, who trains them, and the tables that come out."""

from pipeline.results.archive import StoredTrial
from pipeline.results.store import TrialStore, store_url
from pipeline.sweep.plan import Plan, Setting, check_studies, plan_study
from pipeline.sweep.run import current_plan, describe_plan, executor_named, run_sweep

__all__ = [
    "Plan",
    "Setting",
    "StoredTrial",
    "TrialStore",
    "check_studies",
    "current_plan",
    "describe_plan",
    "executor_named",
    "plan_study",
    "run_sweep",
    "store_url",
]
