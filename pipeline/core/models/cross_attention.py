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

import torch
from torch import Tensor

from pipeline.core.cells.stack import last_of
from pipeline.core.models.architecture import ModelSpec
from pipeline.core.models.captioner import ImageReader
from pipeline.core.models.encoder_decoder import AttendingStack
from pipeline.core.models.initialisation import readout_of
from pipeline.core.models.interface import Described, Interface
from pipeline.core.models.network import Network, NetworkRun


class CrossAttentionModel(Network):
    """One network that reads a text of an image and answers with a class; see `Network` for the arguments."""

    def __init__(self, interface: Interface, spec: ModelSpec, seed: int) -> None:
        super().__init__(interface, spec, seed)
        self.image = ImageReader(spec, seed)
        self.recurrent = AttendingStack("recurrent", self.input_size, spec, seed)
        self.readout = readout_of(self.recurrent.size, interface.output_size, spec.initialisation, seed)

    def predict(self, inputs: Described, run: NetworkRun) -> tuple[Tensor, Tensor | None]:
        """Return the logits of each text, (B, O), and the attention weights of every word, (B, T, L)."""
        x_BTD = run.tap(self.encode(inputs.source))
        seen_BTH, weights_BTL = self.recurrent.read(x_BTD, self.image(inputs.images), run)
        last_BH = last_of(seen_BTH.transpose(0, 1), torch.zeros_like(seen_BTH[:, 0]), self.lengths(inputs.source))
        return self.readout(last_BH), weights_BTL
