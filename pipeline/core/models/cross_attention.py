"""A text that speaks of an image: recurrent layers read the words, and each state looks at the cells of the image.

    a_1 .. a_L = features of the cells of a grid, as the captioner's
    h_0 = tanh(W_init mean of a)
    h_t = recurrence(e_t, h_{t-1})                 with what attention feeds beside e_t, if it feeds anything
    weight_tl = softmax over l of score(h_t, a_l),   context_t = Σ_l weight_tl a_l
    h̃_t = tanh(W_c [context_t; h_t])               h_t itself without attention
    logits = readout(h̃_T)                          T the last word of each text

Words and cells are two kinds of data, compared in one space: queries are states of the text, keys and values cells of
the image (cross-attention). Only the last word's look is in the answer, unless looks are fed into the recurrence: then
a text may look at one thing in order to find another. Without attention the image is known from h_0 alone.

Source: the attention of Xu et al. (2015) and Luong, Pham and Manning (2015), with a text that is read in place of one
that is written. Shapes: B batch, T words, L cells row by row, D embedding, H hidden, O classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pipeline.core.attention.score import Attended, Attention, DecoderAttention, Feeding
from pipeline.core.cells import CELLS, States
from pipeline.core.cells.stack import RecurrentStack, last_of, unstack_states
from pipeline.core.models.architecture import ModelSpec
from pipeline.core.models.captioner import FeatureMap
from pipeline.core.models.initialisation import generator, initialise_stack, linear, readout_of
from pipeline.core.models.interface import Described, Interface
from pipeline.core.models.network import Network, NetworkRun


class CrossAttentionModel(Network):
    """One network that reads a text of an image and answers with a class; see `Network` for the arguments."""

    def __init__(self, interface: Interface, spec: ModelSpec, seed: int) -> None:
        super().__init__(interface, spec, seed)
        size = spec.hidden_size * CELLS[spec.cell].num_outputs
        attention = spec.attention if isinstance(spec.attention, DecoderAttention) else None
        self.feeds: Feeding = "nothing" if attention is None else attention.feeds
        width = self.input_size + (0 if self.feeds == "nothing" else size)
        self.features = FeatureMap(size, generator(seed, "features"))
        num_states = spec.num_layers * len(CELLS[spec.cell].states)
        self.begin = linear(size, num_states * spec.hidden_size, generator(seed, "begin"))
        start = generator(seed, "recurrent")
        self.recurrent = RecurrentStack(spec.cell, width, spec.hidden_size, start, spec.num_layers)
        initialise_stack(self.recurrent, spec.initialisation, seed)
        self.attention = self.combine = None
        if attention is not None:
            self.attention = Attention(attention, size, generator(seed, "attention"))
            self.combine = linear(2 * size, size, generator(seed, "combine"))
        self.readout = readout_of(size, interface.output_size, spec.initialisation, seed)

    def predict(self, inputs: Described, run: NetworkRun) -> tuple[Tensor, Tensor | None]:
        """Return the logits of each text, (B, O), and the attention weights of every word, (B, T, L)."""
        cells_BLH, x_BTD = self.features(inputs.images), run.tap(self.encode(inputs.source))
        first = torch.tanh(self.begin(cells_BLH.mean(dim=1))).split(self.recurrent.hidden_size, dim=1)
        initial = unstack_states(first, self.recurrent.cell)
        if self.feeds == "nothing":
            outputs_TBH = run.recur("recurrent", x_BTD.transpose(0, 1), initial).outputs
            seen_BTH, weights_BTL = self._look(outputs_TBH.transpose(0, 1), cells_BLH)
        else:
            seen_BTH, weights_BTL = self._word_by_word(x_BTD, initial, cells_BLH, run)
        last_BH = last_of(seen_BTH.transpose(0, 1), torch.zeros_like(seen_BTH[:, 0]), self.lengths(inputs.source))
        return self.readout(last_BH), weights_BTL

    def _word_by_word(
        self, x_BTD: Tensor, states: Sequence[States], cells_BLH: Tensor, run: NetworkRun
    ) -> tuple[Tensor, Tensor | None]:
        """Return h̃, (B, T, H), and the weights, where each look enters the recurrence."""
        assert self.attention is not None  # noqa: S101 - what is fed is attention's
        projected_BLK, seen, weights = self.attention.project(cells_BLH), list[Tensor](), list[Tensor]()
        for t in range(x_BTD.shape[1]):
            attended = None
            if self.feeds == "context":
                query_B1H = self.recurrent.cell.seen(states[-1])[:, None].contiguous()
                attended = self.attention(query_B1H, cells_BLH, None, projected_BLK)
                fed_BH = attended.context_BUH[:, 0]
            else:
                fed_BH = seen[-1][:, 0] if seen else torch.zeros_like(cells_BLH[:, 0])
            recurrent = run.recur("recurrent", torch.cat([x_BTD[:, t], fed_BH], dim=1)[None], states)
            states = recurrent.final
            seen_B1H, weights_B1L = self._look(recurrent.outputs.transpose(0, 1), cells_BLH, attended, projected_BLK)
            seen.append(seen_B1H)
            weights += [] if weights_B1L is None else [weights_B1L]
        return torch.cat(seen, dim=1), torch.cat(weights, dim=1)

    def _look(
        self, h_BTH: Tensor, cells_BLH: Tensor, attended: Attended | None = None, projected_BLK: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Return h̃, (B, T, H), and the weights; `attended` is from the query h_{t-1}, None for the query h_t."""
        h_BTH = h_BTH.contiguous()  # a product with a transposed view of a replica batch is another one
        if self.attention is None or self.combine is None:
            return h_BTH, None
        attended = attended or self.attention(h_BTH, cells_BLH, None, projected_BLK)
        return torch.tanh(self.combine(torch.cat([attended.context_BUH, h_BTH], dim=2))), attended.weights_BUS
