"""Time of a training step against sequence length: recurrences, whose timesteps follow one another, and self-attention.

All are one layer of the same width with a readout at the last timestep, one seed, forward and back, on one core. There
nothing runs beside anything, so what shows is the work; the disadvantage of the recurrence is in parallel hardware.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.contenders import ours
from benchmarks.plain import batch
from benchmarks.timing import time_side_by_side

WIDTH, BATCH, LENGTHS = 64, 16, (64, 128, 256, 512)


def measure_all(num_repeats: int) -> list[dict[str, Any]]:
    """Return a row for each length: milliseconds a step of each contender; printed as they come."""
    print(f"milliseconds a training step against T (B={BATCH}, width {WIDTH}, one seed): elman, lstm, self-attention")
    rows = []
    for length in LENGTHS:
        contenders = {cell: ours(cell, BATCH, WIDTH, length, 1, False) for cell in ("elman", "lstm")}
        contenders["self_attention"] = self_attention(length)
        timings = time_side_by_side(contenders, num_repeats)
        rows.append({"T": length} | {f"{name}_ms": 1e3 * timing.median_s for name, timing in timings.items()})
        print("  ".join(f"{key} {value:.2f}" for key, value in rows[-1].items()), flush=True)
    return rows


def self_attention(length: int) -> Callable[[], None]:
    """Return the step of one causal self-attention layer in torch.nn."""
    embed, attend, readout = nn.Linear(2, WIDTH), nn.MultiheadAttention(WIDTH, 1, batch_first=True), nn.Linear(WIDTH, 1)
    parameters = [*embed.parameters(), *attend.parameters(), *readout.parameters()]
    mask = nn.Transformer.generate_square_subsequent_mask(length)
    inputs, targets = batch(BATCH, length)
    optimiser = torch.optim.Adam(parameters, lr=1e-3)

    def step() -> None:
        optimiser.zero_grad()
        x = embed(inputs)
        outputs: Tensor = attend(x, x, x, attn_mask=mask, need_weights=False, is_causal=True)[0]
        nn.functional.mse_loss(readout(outputs[:, -1]), targets).backward()
        optimiser.step()

    return step
