"""What a trained decoder writes of a source: greedily for a whole batch, or the likeliest that a beam finds.

    score = ln P(target | source) / ((5 + length) / 6)^α       length with `EOS`, α the length penalty

With α = 0 it is the probability itself, which falls with every token: short texts win. Source of the penalty: Wu et al.
(2016). One network, no replica axis. Shapes: B batch, S source and U target length, K beams, O target vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from pipeline.config.strict import require
from pipeline.core.models.encoder_decoder import Memory, Seq2SeqNetwork
from pipeline.core.models.interface import Seq2SeqInputs
from pipeline.core.models.network import NO_OPTIONS, NetworkRun, RunOptions
from pipeline.data.dataset import EOS, PAD, SOS


class Written(NamedTuple):
    """A text that a decoder wrote.

    Attributes:
        tokens: Ids, without `EOS`.
        log_probability: ln P(tokens, `EOS` | source), in nats; of a text that was cut off, of its tokens.
        is_whole: Whether it ends with `EOS`, and was not cut off.
        weights_US: Of attention, a row for each token and for `EOS`; None without attention.
    """

    tokens: list[int]
    log_probability: float
    is_whole: bool
    weights_US: Tensor | None


@torch.no_grad()
def write_greedily(network: Seq2SeqNetwork, source: Tensor, max_length: int) -> list[Written]:
    """Return what the network writes of each source where it always takes the likeliest token.

    Args:
        network: Has a decoder.
        source: Symbol ids (B, S), or images (B, height, width).
        max_length: Most tokens, `EOS` among them.
    """
    require(max_length >= 1, "max_length", "an integer of at least 1", max_length)
    start = torch.full((len(source), max_length), SOS, device=source.device)
    free = RunOptions(coins=torch.zeros_like(start, dtype=torch.bool))
    predicted = network(Seq2SeqInputs(source, start), free)
    log_p_BUO = predicted.values.double().log_softmax(dim=-1)
    best_BU, said_BU = log_p_BUO.max(dim=-1)
    return [
        _cut(said, best, None if predicted.weights is None else predicted.weights[b])
        for b, (said, best) in enumerate(zip(said_BU.tolist(), best_BU.tolist(), strict=True))
    ]


def _cut(said: list[int], log_p: list[float], weights_US: Tensor | None) -> Written:
    """Return what was written up to `EOS`."""
    is_whole = EOS in said
    length = said.index(EOS) if is_whole else len(said)
    num_steps = length + is_whole
    weights = None if weights_US is None else weights_US[:num_steps]
    return Written(said[:length], sum(log_p[:num_steps]), is_whole, weights)


@torch.no_grad()
def write_by_beam(
    network: Seq2SeqNetwork, source: Tensor, max_length: int, num_beams: int, length_penalty: float = 0.0
) -> list[Written]:
    """Return the best texts of one source that a beam finds, the one of the highest score first, at most `num_beams`.

    After every token the `num_beams` likeliest beginnings are kept; a text that ends leaves the beam and is kept. The
    search ends where no beginning can come to be better than the worst that is kept, or at `max_length`.

    Args:
        network: Has a decoder.
        source: Symbol ids (1, S), or an image (1, height, width).
        max_length: Most tokens, `EOS` among them.
        num_beams: K; 1 is greedy.
        length_penalty: α, at least 0.
    """
    require(max_length >= 1, "max_length", "an integer of at least 1", max_length)
    require(num_beams >= 1, "num_beams", "an integer of at least 1", num_beams)
    require(length_penalty >= 0, "length_penalty", "a number of at least 0", length_penalty)
    memory = network.read(source, NetworkRun(network, NO_OPTIONS))
    begun_KU, total_K = source.new_full((1, 1), SOS, dtype=torch.int64), torch.zeros(1, dtype=torch.float64)
    total_K, whole = total_K.to(source.device), list[tuple[float, list[int], float]]()

    def score(total: float, length: int) -> float:
        return total / ((5 + length) / 6) ** length_penalty

    for length in range(1, max_length + 1):
        logits_KUO, _ = _decoded(network, begun_KU, memory)
        log_p_KO = logits_KUO[:, -1].double().log_softmax(dim=-1)
        ended = (total_K + log_p_KO[:, EOS]).tolist()
        whole += [
            (score(total, length), begun[1:], total) for total, begun in zip(ended, begun_KU.tolist(), strict=True)
        ]
        whole = sorted(whole, key=lambda found: -found[0])[:num_beams]
        log_p_KO[:, [PAD, SOS, EOS]] = -torch.inf
        totals = (total_K[:, None] + log_p_KO).flatten()
        total_K, best = totals.topk(min(num_beams, int(totals.isfinite().sum())))
        beams, tokens = best // log_p_KO.shape[1], best % log_p_KO.shape[1]
        begun_KU = torch.cat([begun_KU[beams], tokens[:, None]], dim=1)
        if not len(total_K) or (len(whole) == num_beams and whole[-1][0] >= score(total_K[0].item(), max_length)):
            break
    return [_with_weights(network, memory, tokens, total) for _, tokens, total in whole]


def _decoded(network: Seq2SeqNetwork, inputs_KU: Tensor, memory: Memory) -> tuple[Tensor, Tensor | None]:
    """Return logits and weights of K beginnings of texts of one source."""
    count = len(inputs_KU)
    beside = Memory(
        [states.map(lambda each: each.expand(count, -1)) for states in memory.initial],
        memory.keys_BSH.expand(count, -1, -1),
        None if memory.mask_BS is None else memory.mask_BS.expand(count, -1),
    )
    found: tuple[Tensor, Tensor | None] = network.decoder(inputs_KU, beside, NetworkRun(network, NO_OPTIONS))
    return found


def _with_weights(network: Seq2SeqNetwork, memory: Memory, tokens: Sequence[int], total: float) -> Written:
    inputs_1U = torch.tensor([[SOS, *tokens]], device=memory.keys_BSH.device)
    _, weights_1US = _decoded(network, inputs_1U, memory)
    return Written(list(tokens), total, True, None if weights_1US is None else weights_1US[0])
