"""Clipping of gradients: the rules that studies may name, at work per replica, each with a ledger of what it did.

A rule is its function and its variant, both in `rules.py`: adding one touches that file alone.
"""

from pipeline.core.training.clipping.clipper import Clipper, Ledger, Shapes, compare, cosine, norms
from pipeline.core.training.clipping.rules import Clipping, clip_by_global_norm

__all__ = ["Clipper", "Clipping", "Ledger", "Shapes", "clip_by_global_norm", "compare", "cosine", "norms"]
