"""Networks on the recurrent core: which one a dataset and a spec make together, and replica batches of them.

target at the last or at every timestep   `SequenceModel`, or with `attention: self` `SelfAttentionModel`
                                          or, of a series that it generates, `GeneratingModel`
                                          or, of an image that the tokens speak of, `CrossAttentionModel`
a sequence of tokens                      `EncoderDecoder`, from an image `Captioner`
a sequence of frames                      `Autoencoder`

or a module of one's own, `CustomNetwork`, where the target is at the last or at every timestep.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

import torch

from pipeline.core.models.architecture import ModelSpec, SelfAttention, check_model
from pipeline.core.models.captioner import Captioner
from pipeline.core.models.cross_attention import CrossAttentionModel
from pipeline.core.models.custom import CustomModel, CustomNetwork, check_custom, count_custom
from pipeline.core.models.encoder_decoder import EncoderDecoder
from pipeline.core.models.generating import GeneratingModel
from pipeline.core.models.initialisation import PLAIN, generator
from pipeline.core.models.interface import (
    INPUT,
    Described,
    Inputs,
    Interface,
    Seq2SeqInputs,
    StateKey,
    lengths_of,
    loss,
    map_inputs,
    num_scored,
    num_wrong,
    source_of,
    teacher_forced,
    wrong,
)
from pipeline.core.models.network import Network, RunOptions
from pipeline.core.models.replicas import Pass, Replicas
from pipeline.core.models.self_attention import SelfAttentionModel
from pipeline.core.models.sequence import Autoencoder, SequenceModel

__all__ = [
    "INPUT",
    "AnyModel",
    "CustomModel",
    "Described",
    "Inputs",
    "Interface",
    "ModelSpec",
    "Network",
    "Pass",
    "Replicas",
    "RunOptions",
    "Seq2SeqInputs",
    "SequenceModel",
    "StateKey",
    "build_network",
    "check_custom",
    "check_model",
    "count_parameters",
    "generator",
    "lengths_of",
    "loss",
    "map_inputs",
    "network_class",
    "num_scored",
    "num_wrong",
    "source_of",
    "teacher_forced",
    "wrong",
]


AnyModel = ModelSpec | CustomModel
"""The variants that a spec may name."""


def network_class(interface: Interface, spec: AnyModel) -> type[Network]:
    """Return the kind of network for this dataset."""
    if isinstance(spec, CustomModel):
        return CustomNetwork
    if interface.describes:
        return CrossAttentionModel
    if interface.target_at != "sequence":
        if spec.generates is not None:
            return GeneratingModel
        return SelfAttentionModel if isinstance(spec.attention, SelfAttention) else SequenceModel
    if not interface.decodes:
        return Autoencoder
    return Captioner if interface.input_kind == "image" else EncoderDecoder


def build_network(interface: Interface, spec: AnyModel, seed: int) -> Network:
    """Return one network with its initial weights, a pure function of the arguments."""
    kind: Callable[[Interface, AnyModel, int], Network] = network_class(interface, spec)
    return kind(interface, spec, seed)


def count_parameters(interface: Interface, spec: AnyModel) -> int:
    """Return the number of trained numbers of such a network."""
    if isinstance(spec, CustomModel):
        return count_custom(interface, spec)
    return _count(interface, dataclasses.replace(spec, initialisation=PLAIN))


@functools.cache
def _count(interface: Interface, spec: ModelSpec) -> int:
    """Return the count of a network built without memory for its parameters; the settings of a study share it."""
    with torch.device("meta"):
        network = build_network(interface, spec, seed=0)
    return sum(parameter.numel() for parameter in network.parameters())
