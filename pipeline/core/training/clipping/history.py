"""The history of a number, sorted, row by row: what a running percentile needs, exactly.

Legend: R rows, N numbers seen so far; infinities at a row's end stand for what was not finite and does not count.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import pad


def insert_sorted(sorted_RN: Tensor, values_R: Tensor) -> Tensor:
    """Return each row with its value inserted in order, (R, N+1); one that is not finite goes last, as infinity.

    Entry i of a new row is the value, held between the entries i-1 and i of the old row.
    """
    values_R = torch.where(values_R.isfinite(), values_R, math.inf)
    below, above = pad(sorted_RN, (1, 0), value=-math.inf), pad(sorted_RN, (0, 1), value=math.inf)
    return torch.clamp(values_R[:, None], below, above)


def percentile_of_sorted(sorted_RN: Tensor, percentile: float) -> Tensor:
    """Return a percentile of the finite numbers of each row, (R,), linear between them; NaN where there are none.

    It equals `numpy.percentile` to the last bit, so it is worked out in numpy's order.

    Args:
        sorted_RN: As `insert_sorted` returns it, float64, N at least 1.
        percentile: In [0, 100].
    """
    last_R1 = torch.searchsorted(sorted_RN, torch.full_like(sorted_RN[:, :1], math.inf)) - 1
    place_R1 = last_R1.double() * (percentile / 100)
    left_R1 = place_R1.floor().long().clamp(min=0)
    right_R1 = (left_R1 + 1).minimum(last_R1).clamp(min=0)
    left, right = sorted_RN.gather(1, left_R1), sorted_RN.gather(1, right_R1)
    share, gap = place_R1 - left_R1, right - left
    return torch.where(share < 0.5, left + gap * share, right - gap * (1 - share)).squeeze(1)
