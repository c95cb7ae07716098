"""Clipping by global norm, g · min(1, δ/‖g‖), and its misprint in one set of lecture notes, g · max(1, δ/‖g‖).

Side by side on a gradient of norm 5 and on one of norm ½, with δ = 1: the rule shrinks the first and leaves the
second; the misprint leaves the first and enlarges the second.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch

from pipeline.core.training.clipping.rules import GlobalNorm, GlobalNormMax
from pipeline.selftest.check import Check, relative
from pipeline.selftest.networks import F64

GRADIENTS = ((3.0, 4.0), (0.3, 0.4))
THRESHOLD = 1.0
RULE, MISPRINT = GlobalNorm("global_norm", THRESHOLD), GlobalNormMax("global_norm_max", THRESHOLD)
CLIPPED = (("min, the rule", RULE, (1.0, 0.5)), ("max, the misprint", MISPRINT, (5.0, 1.0)))
"""Norms of the two gradients afterwards."""
SOURCE = "Pascanu, Mikolov and Bengio (2013), algorithm 1"


def checks() -> Iterator[Check]:
    """Yield the checks."""
    for label, rule, norms in CLIPPED:
        for r, norm in enumerate(norms):
            before = sum(entry * entry for entry in GRADIENTS[r]) ** 0.5
            name = f"clipping ({label}): ‖g‖={before:g} becomes, δ={THRESHOLD:g}"
            yield Check(name, norm, partial(_clip, rule, r, "norm"), relative(1e-12), SOURCE)
            name = f"clipping ({label}): cosine with g, ‖g‖={before:g}"
            yield Check(name, 1.0, partial(_clip, rule, r, "cosine"), relative(1e-12), SOURCE)


def _clip(rule: GlobalNorm | GlobalNormMax, r: int, what: str) -> float:
    grad_RP = torch.tensor(GRADIENTS, dtype=F64)
    clipper = rule.clipper({"weight": (2,)}, len(grad_RP), grad_RP.device)
    clipped_RP, ledger = clipper.clip(grad_RP, torch.zeros_like(grad_RP))
    return clipped_RP[r].norm().item() if what == "norm" else ledger.clip_cosine[r].item()
