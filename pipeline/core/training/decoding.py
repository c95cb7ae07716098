"""What a decoder writes, given the true tokens and given its own, and how far each is from the target.

Both are always evaluated. A decoder that writes every token right under teacher forcing does so running free as well,
and the other way round, for then it is given the same: whole sequences have one error. What teacher forcing hides shows
token by token, after the first mistake.

Shapes: R replicas, N sequences, U output positions.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.core.models import Replicas, Seq2SeqInputs
from pipeline.core.training.data import Sequences
from pipeline.core.training.evaluation import CHUNK
from pipeline.data import EOS, PAD

TEACHER_FORCED, FREE_RUNNING = "teacher_forced", "free_running"
MODES = (TEACHER_FORCED, FREE_RUNNING)


class Decoding(NamedTuple):
    """What R decoders did with a split.

    Attributes:
        said: By mode the most probable token at every position, (R, N, U); running free, `PAD` after the first `EOS`.
        losses: By mode the cross-entropy of the true tokens in nats per token, (R,).
        targets: (N, U).
    """

    said: dict[str, Tensor]
    losses: dict[str, Tensor]
    targets: Tensor

    def wrong(self, mode: str) -> Tensor:
        """Return which tokens are not the true ones, (R, N, U); padding never is."""
        return (self.said[mode] != self.targets) & (self.targets != PAD)

    def token_error(self, mode: str) -> Tensor:
        """Return the share of wrong tokens, (R,); NaN where the loss is not finite."""
        return self._sound(self.wrong(mode).sum(dim=(1, 2)) / (self.targets != PAD).sum())

    def sequence_error(self) -> Tensor:
        """Return the share of sequences with a wrong token, (R,), running free; NaN where the loss is not finite."""
        return self._sound(self.wrong(FREE_RUNNING).any(dim=2).double().mean(dim=1))

    def by_position(self, mode: str) -> tuple[Tensor, Tensor]:
        """Return the share of wrong tokens at each output position, (R, U), and how many there are, (U,)."""
        num_U = (self.targets != PAD).sum(dim=0)
        return self.wrong(mode).sum(dim=1) / num_U, num_U

    def by_length(self, lengths_N: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the source lengths that occur, the share of sequences with a wrong token, (R, K), and their number."""
        lengths_K, place_N = lengths_N.unique(return_inverse=True)
        wrong_RN, num_K = self.wrong(FREE_RUNNING).any(dim=2).double(), place_N.bincount()
        total_RK = wrong_RN.new_zeros(len(wrong_RN), len(lengths_K)).index_add_(1, place_N, wrong_RN)
        return lengths_K, total_RK / num_K, num_K

    def _sound(self, error_R: Tensor) -> Tensor:
        return torch.where(self.losses[TEACHER_FORCED].isfinite(), error_R.double(), torch.nan)


@torch.no_grad()
def decode(replicas: Replicas, flat_RP: Tensor, split: Sequences) -> Decoding:
    """Return what every replica's decoder does with a split, in both modes.

    Args:
        replicas: The pack.
        flat_RP: Parameters.
        split: Sources and targets; every replica sees the same.
    """
    portions = [_decode_portion(replicas, flat_RP, portion) for portion in split.split(CHUNK)]
    num_tokens = (split.targets != PAD).sum()
    said = {mode: torch.cat([portion[mode][0] for portion in portions], dim=1) for mode in MODES}
    losses = {mode: torch.stack([portion[mode][1] for portion in portions]).sum(dim=0) / num_tokens for mode in MODES}
    return Decoding(said, losses, split.targets)


def _decode_portion(replicas: Replicas, flat_RP: Tensor, portion: Sequences) -> dict[str, tuple[Tensor, Tensor]]:
    """Return by mode what was said, (R, B, U), and the summed cross-entropy, (R,)."""
    inputs, parameters = portion.inputs, replicas.named(flat_RP)
    assert isinstance(inputs, Seq2SeqInputs)  # noqa: S101 - only decoders are decoded
    never = torch.zeros_like(inputs.decoder_inputs, dtype=torch.bool)
    given_RBU, said_RBU = replicas.free_running(parameters, inputs, never, shared=True)
    forced_RBUO = replicas.predict(parameters, inputs)
    free_RBUO = replicas.predict_each(parameters, Seq2SeqInputs(inputs.source, given_RBU))
    return {
        TEACHER_FORCED: (forced_RBUO.argmax(dim=-1), _summed_loss(forced_RBUO, portion.targets)),
        FREE_RUNNING: (ended(said_RBU), _summed_loss(free_RBUO, portion.targets)),
    }


def _summed_loss(logits_RBUO: Tensor, targets_BU: Tensor) -> Tensor:
    def of_one(logits_BUO: Tensor) -> Tensor:
        return F.cross_entropy(logits_BUO.flatten(0, 1), targets_BU.flatten(), ignore_index=PAD, reduction="sum")

    return torch.stack([of_one(logits_BUO).double() for logits_BUO in logits_RBUO])


def ended(said: Tensor) -> Tensor:
    """Return tokens (…, U) with `PAD` in place of all that follows the first `EOS`."""
    after = (said == EOS).cumsum(dim=-1).roll(1, dims=-1)
    after[..., 0] = 0
    return said.masked_fill(after > 0, PAD)
