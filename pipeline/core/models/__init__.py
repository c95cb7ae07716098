"""Single-network models on the recurrent core, and packs of them as one batched program."""

from pipeline.core.models.architecture import ModelSpec, check_model
from pipeline.core.models.build import build_network, count_parameters
from pipeline.core.models.interface import (
    INPUT,
    Inputs,
    Interface,
    Reading,
    StateKey,
    loss,
    map_inputs,
    num_scored,
    num_wrong,
    teacher_forced,
)
from pipeline.core.models.network import Network
from pipeline.core.models.replicas import Pass, Replicas
from pipeline.core.models.sequence import SequenceModel

__all__ = [
    "INPUT",
    "Inputs",
    "Interface",
    "ModelSpec",
    "Network",
    "Pass",
    "Reading",
    "Replicas",
    "SequenceModel",
    "StateKey",
    "build_network",
    "check_model",
    "count_parameters",
    "loss",
    "map_inputs",
    "num_scored",
    "num_wrong",
    "teacher_forced",
]
