"""Sweeps: a study's plan, who trains what the trial store lacks, and the tables that come out."""

from pipeline.sweep.adopt import adopt
from pipeline.sweep.executors import cluster_address, executor_named
from pipeline.sweep.plan import Plan, Setting, plan_study
from pipeline.sweep.rerun import rerun
from pipeline.sweep.run import current_plan, describe_plan, run_sweep, train_together

__all__ = [
    "Plan",
    "Setting",
    "adopt",
    "cluster_address",
    "current_plan",
    "describe_plan",
    "executor_named",
    "plan_study",
    "rerun",
    "run_sweep",
    "train_together",
]
