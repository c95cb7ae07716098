"""Small packs of networks and batches for the measures."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from pipeline.core.models import Interface, ModelSpec, Replicas, SequenceModel

REAL = Interface(input_kind="real", input_size=2, target_at="last", target_kind="value", output_size=1)
EVERY = Interface(input_kind="real", input_size=2, target_at="every", target_kind="value", output_size=1)
TOKENS = Interface(input_kind="token", input_size=5, target_at="every", target_kind="class", output_size=5)


def pack(
    cell: str,
    num_replicas: int = 3,
    hidden_size: int = 4,
    interface: Interface = REAL,
    num_layers: int = 1,
    bidirectional: bool = False,
    embedding_size: int | None = None,
) -> Replicas:
    spec = ModelSpec.plain(
        cell=cell,
        hidden_size=hidden_size,
        num_layers=num_layers,
        bidirectional=bidirectional,
        embedding_size=embedding_size,
    )
    return Replicas([SequenceModel(interface, spec, seed) for seed in range(num_replicas)])


def batch(
    num_timesteps: int, seed: int = 0, num_examples: int = 5, target_at: Literal["last", "every"] = "last"
) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shape = (num_examples, 1) if target_at == "last" else (num_examples, num_timesteps, 1)
    return torch.rand(num_examples, num_timesteps, 2, generator=generator), torch.rand(shape, generator=generator)
