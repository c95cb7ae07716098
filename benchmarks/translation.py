"""A training step of an encoder-decoder with attention: this project's replica batch against plain torch.nn, one seed.

Sources of 15 to 30 characters to targets of 11, as dates are: a bidirectional LSTM encoder, an LSTM decoder given the
true tokens, dot attention, cross-entropy over what is not padding, clip by global norm 1, Adam.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from benchmarks.plain import Step
from benchmarks.timing import time_side_by_side
from pipeline.core.attention.score import Dot
from pipeline.core.clipping import clip_by_global_norm
from pipeline.core.models import Interface, ModelSpec, Replicas, Seq2SeqInputs, build_network, teacher_forced
from pipeline.data import PAD

BATCH, SOURCE, TARGET, HIDDEN, EMBEDDING = 64, 30, 11, 64, 16
NUM_SOURCE_TOKENS, NUM_TARGET_TOKENS = 62, 14
REPLICAS = (1, 5)


def measure_all(num_repeats: int) -> list[dict[str, Any]]:
    """Return a row for each number of seeds; printed as they come."""
    contenders = {"torch.nn": torch_nn()}
    for R in REPLICAS:
        contenders |= {f"plain {R}": ours(R, trace=False), f"traced {R}": ours(R, trace=True)}
    timings = time_side_by_side(contenders, num_repeats)
    theirs, rows = timings["torch.nn"].median_s, []
    print(f"encoder-decoder with attention, milliseconds a step and seed (torch.nn {1e3 * theirs:.1f}); ratios to it")
    for R in REPLICAS:
        plain, traced = timings[f"plain {R}"].median_s / R, timings[f"traced {R}"].median_s / R
        row = {"R": R, "torch_nn_ms": 1e3 * theirs, "plain_ms": 1e3 * plain, "traced_ms": 1e3 * traced}
        rows.append(row | {"plain_vs_torch_nn": theirs / plain, "traced_vs_torch_nn": theirs / traced})
        print("  ".join(f"{key} {value:.2f}" for key, value in rows[-1].items()), flush=True)
    return rows


def batch() -> tuple[Tensor, Tensor, Tensor]:
    """Return sources (B, S), targets (B, U), and the lengths of the sources."""
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(SOURCE // 2, SOURCE + 1, (BATCH,), generator=generator)
    lengths[0] = SOURCE
    source = torch.randint(3, NUM_SOURCE_TOKENS, (BATCH, SOURCE), generator=generator)
    targets = torch.randint(3, NUM_TARGET_TOKENS, (BATCH, TARGET), generator=generator)
    return source.masked_fill(torch.arange(SOURCE) >= lengths[:, None], PAD), targets, lengths


def ours(num_replicas: int, trace: bool) -> Step:
    """Return this project's step for R seeds; with `trace`, the norm of every state's gradient is computed as well."""
    interface = Interface(
        input_kind="token",
        input_size=NUM_SOURCE_TOKENS,
        target_at="sequence",
        target_kind="class",
        output_size=NUM_TARGET_TOKENS,
        padded=True,
    )
    spec = ModelSpec.plain(
        cell="lstm", hidden_size=HIDDEN, bidirectional=True, embedding_size=EMBEDDING, attention=Dot(feeds="nothing")
    )
    replicas = Replicas([build_network(interface, spec, seed) for seed in range(num_replicas)])
    source, targets, _ = (tensor.expand(num_replicas, *tensor.shape).contiguous() for tensor in batch())
    flat, inputs = replicas.flat_RP, Seq2SeqInputs(source, teacher_forced(targets))
    optimiser = torch.optim.Adam([flat], lr=1e-3)

    def step() -> None:
        run = replicas.backpropagate(flat, inputs, targets, trace=trace)
        for grad_RTBH in run.grad_states.values():
            grad_RTBH.norm(dim=(2, 3))
        flat.grad = clip_by_global_norm(run.grad_RP, 1.0)
        optimiser.step()

    return step


class Plain(nn.Module):
    """The same network as one writes it with torch.nn."""

    def __init__(self) -> None:
        super().__init__()
        self.read, self.write = nn.Embedding(NUM_SOURCE_TOKENS, EMBEDDING), nn.Embedding(NUM_TARGET_TOKENS, EMBEDDING)
        self.encoder = nn.LSTM(EMBEDDING, HIDDEN // 2, batch_first=True, bidirectional=True)
        self.decoder = nn.LSTM(EMBEDDING, HIDDEN, batch_first=True)
        self.combine, self.readout = nn.Linear(2 * HIDDEN, HIDDEN), nn.Linear(HIDDEN, NUM_TARGET_TOKENS)

    def forward(self, source: Tensor, lengths: Tensor, given: Tensor) -> Tensor:
        """Return logits (B, U, O)."""
        packed = pack_padded_sequence(self.read(source), lengths, batch_first=True, enforce_sorted=False)
        outputs, (h, c) = self.encoder(packed)
        keys, _ = pad_packed_sequence(outputs, batch_first=True, total_length=SOURCE)
        states, _ = self.decoder(self.write(given), tuple(torch.cat([s[0], s[1]], dim=1)[None] for s in (h, c)))
        scores = (states @ keys.transpose(1, 2)).masked_fill((source == PAD)[:, None], -torch.inf)
        context = scores.softmax(dim=2) @ keys
        return self.readout(torch.tanh(self.combine(torch.cat([context, states], dim=2))))


def torch_nn() -> Step:
    """Return the step of plain torch.nn, one seed, nothing traced."""
    network, (source, targets, lengths) = Plain(), batch()
    given, parameters = teacher_forced(targets), list(network.parameters())
    optimiser = torch.optim.Adam(parameters, lr=1e-3)

    def step() -> None:
        optimiser.zero_grad()
        logits = network(source, lengths, given)
        nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=PAD).backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()

    return step
