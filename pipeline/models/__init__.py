"""Single-network models on the recurrent core, and packs of them as one batched program."""

from pipeline.models.architecture import ModelSpec
from pipeline.models.replicas import Pass, Replicas
from pipeline.models.sequence import Interface, SequenceModel, StateKey, count_parameters, loss, num_wrong

__all__ = [
    "Interface",
    "ModelSpec",
    "Pass",
    "Replicas",
    "SequenceModel",
    "StateKey",
    "count_parameters",
    "loss",
    "num_wrong",
]
