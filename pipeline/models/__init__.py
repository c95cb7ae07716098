"""Single-network models on the recurrent core, and packs of them as one batched program."""

from pipeline.models.replicas import Replicas
from pipeline.models.sequence import Interface, SequenceModel, count_parameters, loss, num_wrong

__all__ = ["Interface", "Replicas", "SequenceModel", "count_parameters", "loss", "num_wrong"]
