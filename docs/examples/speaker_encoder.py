"""Trace a model that nobody here wrote: Resemblyzer's speaker encoder, trained weights included.

    pip install Resemblyzer
    python docs/examples/speaker_encoder.py speaker_encoder.png

It reads 1.6 s of a spectrogram with three layers of 256 LSTM units and answers with its last hidden state, as a vector
of the speaker. How many frames back does that vector still depend on what was heard?
"""

from __future__ import annotations

import sys

import torch

from pipeline.trace import Traced, trace

NUM_VOICES, NUM_FRAMES, NUM_BANDS = 8, 160, 40


def voices() -> torch.Tensor:
    """Return spectrograms of made-up voices, (voices, frames, mel bands): two formants that wander in noise."""
    draw = torch.Generator().manual_seed(0)
    wander = torch.randn(NUM_VOICES, NUM_FRAMES, 2, generator=draw).cumsum(dim=1) * 0.4
    formants = torch.tensor([8.0, 20.0]) + 4 * torch.randn(NUM_VOICES, 1, 2, generator=draw) + wander
    distance = torch.arange(NUM_BANDS)[:, None] - formants[:, :, None]
    loudness = torch.exp(-0.1 * distance.square()).sum(dim=3)
    return loudness + 0.02 * torch.rand(NUM_VOICES, NUM_FRAMES, NUM_BANDS, generator=draw)


def main(encoder: torch.nn.Module, path: str | None = None) -> Traced:
    """Return the trace of how alike the voices sound to an encoder; save its figure where a path is given."""
    with trace(encoder, float64=True) as traced:
        vectors = encoder(voices())
        (vectors @ vectors.T).mean().backward()
    traced.plot(path)
    return traced


if __name__ == "__main__":
    from resemblyzer import VoiceEncoder

    main(VoiceEncoder("cpu", verbose=False), sys.argv[1])
