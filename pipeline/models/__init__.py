"""Single-network models on the recurrent core, and packs of them as one batched program."""

from pipeline.models.architecture import ModelSpec, check_model
from pipeline.models.build import build_network, count_parameters
from pipeline.models.interface import (
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
from pipeline.models.network import Network
from pipeline.models.replicas import Pass, Replicas
from pipeline.models.sequence import SequenceModel

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
