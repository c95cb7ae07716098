"""Every random number of a trial comes from its seed, through a stream of its own.

Streams are pure functions of (seed, stream, counter), so there is no generator state to lose, and arms are paired: seed
3 has the same readout and the same embedding to begin with, and sees the same batches, whatever the cell between them.
"""

from __future__ import annotations

import numpy as np
import torch

STREAMS = {
    "embedding": 0,
    "recurrent": 1,
    "readout": 2,
    "data": 3,
    "input_weight": 4,
    "recurrent_weight": 5,
    "bias": 6,
    "readout_weight": 7,
    "decoder": 8,
    "decoder_embedding": 9,
    "attention": 10,
    "combine": 11,
    "features": 12,
    "begin": 13,
    "code": 14,
    "forcing": 15,
    "sample": 16,
}


def generator(seed: int, stream: str, counter: int = 0) -> torch.Generator:
    """Return a CPU generator for one purpose of one seed.

    Args:
        seed: The replica's seed, at least 0.
        stream: A key of `STREAMS`.
        counter: For instance the epoch.
    """
    entropy = np.random.SeedSequence([seed, STREAMS[stream], counter])
    return torch.Generator().manual_seed(int(entropy.generate_state(1, np.uint64)[0]))
