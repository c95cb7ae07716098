"""Peak memory and time of truncated backpropagation on a long stream, against torch.nn's full backward pass.

Each measurement is a process of its own, so that no allocator remembers an earlier one. `peak` is what the process held
at most beyond what it held before the first update (resident set); the stream itself, a byte a token, is held before.
`kept` is counted exactly: the bytes that one update keeps for its way back.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from pipeline.core.models import Interface, ModelSpec, Replicas, RunOptions, SequenceModel
from pipeline.core.training.runtime import computing, counting_activations, peak_memory_bytes, reset_peak_memory
from pipeline.core.training.schedule import Truncation, Windows

NUM_TOKENS, HIDDEN, BATCH = 16, 128, 64
STREAMS = (500, 1000, 2000, 4000)
LENGTHS = (25, 50, 100, 200, 400)
FIXED_STREAM, FIXED_LENGTH = 4000, 50
NUM_UPDATES = 20


def measure_all() -> list[dict[str, float]]:
    """Return a row for each measurement, printing it as it comes."""
    cases = [("ours", stream, FIXED_LENGTH) for stream in STREAMS]
    cases += [("ours", FIXED_STREAM, length) for length in LENGTHS if length != FIXED_LENGTH]
    cases += [("torch_nn_full", stream, stream) for stream in STREAMS]
    print("truncated backpropagation, LSTM, one seed: peak memory beyond the start, and time of an update")
    rows = []
    for who, stream, length in cases:
        command = [sys.executable, "-m", "benchmarks.truncation", who, str(stream), str(length)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1])  # noqa: S603
        rows.append({"who": who, "stream": stream, "backward_length": length} | json.loads(done.stdout))
        row = rows[-1]
        told = f"{who:14} stream {stream:5}, k2 {length:5}: peak {row['peak_bytes'] / 2**20:7.1f} MiB"
        print(f"{told}, kept {row['kept_bytes'] / 2**20:7.1f} MiB, update {1e3 * row['update_s']:7.1f} ms", flush=True)
    return rows


def ours(stream: int, length: int) -> Callable[[int], None]:
    """Return the update of TBPTT(length, length) on one stream, state carried."""
    interface = Interface(
        input_kind="token", input_size=NUM_TOKENS, target_at="every", target_kind="class", output_size=NUM_TOKENS
    )
    replicas = Replicas([SequenceModel(interface, ModelSpec.plain(cell="lstm", hidden_size=HIDDEN), 0)])
    inputs, targets = (ids[None] for ids in _stream(stream))
    windows = Windows(Truncation(length, length), stream, "every")
    carried: list[Tensor] = []

    def update(step: int) -> None:
        nonlocal carried
        window = windows.at(step % windows.per_batch)
        seen = inputs[:, :, window.start : window.stop], targets[:, :, window.start : window.stop].long()
        initial = carried if window.start else []
        options = RunOptions(initial=initial, num_scored=window.num_scored)
        run = replicas.backpropagate(replicas.flat_RP, *seen, options)
        carried = [state[:, window.carry - 1].clone() for state in run.states]
        replicas.flat_RP -= 0.01 * run.grad_RP

    return update


def torch_nn_full(stream: int, length: int) -> Callable[[int], None]:
    """Return the update of a full backward pass through the stream in torch.nn."""
    lstm, readout = nn.LSTM(NUM_TOKENS, HIDDEN, batch_first=True), nn.Linear(HIDDEN, NUM_TOKENS)
    inputs, targets = _stream(stream)
    parameters = [*lstm.parameters(), *readout.parameters()]

    def update(step: int) -> None:
        x = nn.functional.one_hot(inputs.long(), NUM_TOKENS).float()
        logits = readout(lstm(x)[0])
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), targets.long().flatten())
        for parameter, grad in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
            parameter.data -= 0.01 * grad

    return update


def _stream(stream: int) -> tuple[Tensor, Tensor]:
    ids = torch.randint(0, NUM_TOKENS, (BATCH, stream + 1), generator=torch.Generator().manual_seed(0))
    return ids[:, :-1].to(torch.uint8), ids[:, 1:].to(torch.uint8)


def _resident_bytes() -> int:
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("VmRSS:"))
    return int(line.split()[1]) * 1024


def _main(who: str, stream: int, length: int) -> None:
    with computing(num_threads=1):
        make = {"ours": ours, "torch_nn_full": torch_nn_full}[who]
        make(4, 2)(0)  # what is loaded once is no part of the measurement; memory that would be used again is
        update = make(stream, length)
        reset_peak_memory(torch.device("cpu"))
        before, started = _resident_bytes(), time.perf_counter()
        num_updates = NUM_UPDATES if who == "ours" else 2
        for step in range(num_updates):
            update(step)
        seconds = (time.perf_counter() - started) / num_updates
        peak = peak_memory_bytes(torch.device("cpu")) - before
        kept: dict[int, int] = {}
        with counting_activations(kept):
            update(1)
    print(json.dumps({"peak_bytes": peak, "kept_bytes": sum(kept.values()), "update_s": seconds}))


if __name__ == "__main__":
    _main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
