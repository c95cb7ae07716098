"""What it costs to trace somebody's own LSTM in a line: forward and backward, beside the same without a trace."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from benchmarks.plain import INPUT_SIZE, SHAPES, Step, batch
from benchmarks.timing import time_side_by_side
from pipeline.trace import trace


def measure_all(num_repeats: int) -> list[dict[str, Any]]:
    """Return a row for each shape: milliseconds of a forward and backward pass, and the ratios to the plain one."""
    names = f"{'plain':>8}{'traced':>8}{'float64':>9}{'by hand':>9}"
    print(f"{'B':>4}{'H':>5}{'T':>5} |{names} | traced/plain, by hand/traced")
    rows = []
    for shape in SHAPES:
        contenders = {"plain": plain(*shape), "traced": traced(*shape), "float64": traced(*shape, float64=True)}
        timings = time_side_by_side(contenders | {"by_hand": by_hand(*shape)}, num_repeats)
        ms = {f"{name}_ms": 1e3 * timing.median_s for name, timing in timings.items()}
        row = dict(zip("BHT", shape, strict=True)) | ms | {"num_repeats": num_repeats}
        row |= {
            "traced_vs_plain": ms["traced_ms"] / ms["plain_ms"],
            "by_hand_vs_plain": ms["by_hand_ms"] / ms["plain_ms"],
        }
        rows.append(row)
        print(
            f"{row['B']:4}{row['H']:5}{row['T']:5} |{row['plain_ms']:8.2f}{row['traced_ms']:8.2f}"
            f"{row['float64_ms']:9.2f}{row['by_hand_ms']:9.2f} |"
            f"{row['traced_vs_plain']:8.2f}{row['by_hand_ms'] / row['traced_ms']:8.2f}",
            flush=True,
        )
    return rows


def plain(B: int, H: int, T: int) -> Step:
    """Return a forward and backward pass of `nn.LSTM` with a readout."""
    model = nn.ModuleList([nn.LSTM(INPUT_SIZE, H), nn.Linear(H, 1)])
    return _passes(model, B, T)


def traced(B: int, H: int, T: int, *, float64: bool = False) -> Step:
    """Return the same within `trace`, and its table."""
    model = nn.ModuleList([nn.LSTM(INPUT_SIZE, H), nn.Linear(H, 1)])
    passes = _passes(model, B, T)

    def step() -> None:
        with trace(model, float64=float64) as found:
            passes()
        assert len(found.table) == 2 * T  # noqa: S101 - the norms are what is paid for

    return step


def _passes(model: nn.ModuleList, B: int, T: int) -> Step:
    lstm, readout = model
    inputs, targets = batch(B, T)
    x_TBD = inputs.transpose(0, 1).contiguous()

    def step() -> None:
        model.zero_grad()
        outputs, _ = lstm(x_TBD)
        nn.functional.mse_loss(readout(outputs[-1]), targets).backward()

    return step


def by_hand(B: int, H: int, T: int) -> Step:
    """Return the same as a loop over `nn.LSTMCell`, a hook on every state that keeps its gradient's norm."""
    cell, readout = nn.LSTMCell(INPUT_SIZE, H), nn.Linear(H, 1)
    inputs, targets = batch(B, T)

    def step() -> None:
        cell.zero_grad()
        readout.zero_grad()
        h, c, norms = torch.zeros(B, H), torch.zeros(B, H), list[torch.Tensor]()
        for x_t in inputs.unbind(1):
            h, c = cell(x_t, (h, c))
            for state in (h, c):
                state.register_hook(lambda grad: norms.append(grad.norm()))
        nn.functional.mse_loss(readout(h), targets).backward()
        torch.stack(norms).tolist()

    return step
