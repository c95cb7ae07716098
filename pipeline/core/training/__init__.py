"""Training of one setting with all its seeds: `run_trial`, or `train_networks` for the networks themselves."""

from pipeline.core.training.loop import ALONE, Program, run_trial, train_networks
from pipeline.core.training.progress import CheckpointError, CheckpointSlot, Status, TrialResult
from pipeline.core.training.rows import MemorySink
from pipeline.core.training.spec import TrialSpec, trial_id

__all__ = [
    "ALONE",
    "CheckpointError",
    "CheckpointSlot",
    "MemorySink",
    "Program",
    "Status",
    "TrialResult",
    "TrialSpec",
    "run_trial",
    "train_networks",
    "trial_id",
]
