"""Training of one setting with all its seeds: `run_trial`, or `train_networks` for the networks themselves."""

from pipeline.core.training.checkpoint import CheckpointError, CheckpointSlot
from pipeline.core.training.outcome import Status, TrialResult
from pipeline.core.training.sink import MemorySink, Sink
from pipeline.core.training.spec import TRIAL_VERSION, TrialSpec, canonical, trial_id
from pipeline.core.training.trial import run_trial, train_networks

__all__ = [
    "TRIAL_VERSION",
    "CheckpointError",
    "CheckpointSlot",
    "MemorySink",
    "Sink",
    "Status",
    "TrialResult",
    "TrialSpec",
    "canonical",
    "run_trial",
    "train_networks",
    "trial_id",
]
