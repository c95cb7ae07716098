"""Measures of attention where the answer is known in closed form."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from pipeline.core.measures.attention import (
    alignment_error,
    alignment_share,
    entropy_nats,
    rank_correlation,
    within_class_share,
)

R, B, U, S = 3, 4, 5, 6


def random_weights(seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(R, B, U, S, generator=generator, dtype=torch.float64).softmax(dim=-1)


def random_alignment(share: float = 0.2, seed: int = 1) -> Tensor:
    return torch.rand(B, U, S, generator=torch.Generator().manual_seed(seed)) < share


def test_entropy_of_one_of_some_and_of_all_positions() -> None:
    weights = torch.tensor([[1.0, 0.0, 0.0, 0.0], [0.5, 0.5, 0.0, 0.0], [0.25, 0.25, 0.25, 0.25]])
    assert entropy_nats(weights).tolist() == pytest.approx([0.0, math.log(2), math.log(4)], abs=1e-15)
    padded = torch.cat([weights, torch.zeros(3, 2)], dim=1)
    assert torch.equal(entropy_nats(padded), entropy_nats(weights))


def test_alignment_of_tokens_counted_by_hand() -> None:
    """Right, wrong, of two positions, at a tie, and without an alignment, which does not count."""
    weights = torch.tensor([[[0.7, 0.2, 0.1], [0.6, 0.3, 0.1], [0.1, 0.5, 0.4], [0.4, 0.4, 0.2], [0.0, 0.0, 1.0]]])
    aligned = torch.tensor([[[1, 0, 0], [0, 1, 0], [1, 0, 1], [1, 0, 0], [0, 0, 0]]]).bool()
    assert alignment_error(weights, aligned).item() == pytest.approx(3 / 4)
    assert alignment_share(weights, aligned).item() == pytest.approx((0.7 + 0.3 + 0.5 + 0.4) / 4)


def test_alignment_is_the_mean_over_tokens_of_every_leading_axis() -> None:
    weights, aligned = random_weights(), random_alignment()
    errors, shares = alignment_error(weights, aligned), alignment_share(weights, aligned)
    assert errors.shape == shares.shape == (R,)
    places = [(b, u) for b in range(B) for u in range(U) if aligned[b, u].any()]
    assert 0 < len(places) < B * U
    for r in range(R):
        wrong = [not aligned[b, u, weights[r, b, u].argmax()] for b, u in places]
        inside = [weights[r, b, u][aligned[b, u]].sum().item() for b, u in places]
        assert errors[r].item() == pytest.approx(np.mean(wrong))
        assert shares[r].item() == pytest.approx(np.mean(inside))


def test_equal_weights_are_aligned_with_nothing() -> None:
    weights, aligned = torch.full((1, U, S), 1 / S), torch.eye(U, S).bool()[None]
    assert alignment_error(weights, aligned) == 1.0
    assert alignment_share(weights, aligned).item() == pytest.approx(1 / S)
    everything = torch.ones(1, U, S).bool()
    assert alignment_error(weights, everything) == 0.0
    assert alignment_share(weights, everything).item() == pytest.approx(1.0)


def test_rank_correlation_is_spearmans_with_ties() -> None:
    generator = torch.Generator().manual_seed(5)
    weights = torch.randint(0, 4, (R, B, U, S), generator=generator) / 4  # many ties
    similarity = torch.randint(0, 5, (B, U, S), generator=generator)
    lengths = torch.tensor([6, 4, 5, 6])
    found = rank_correlation(weights, similarity, torch.arange(S) < lengths[:, None])
    assert found.shape == (R,)
    for r in range(R):
        values = []
        for b, length in enumerate(lengths.tolist()):
            for u in range(U):
                x, y = weights[r, b, u, :length].numpy(), similarity[b, u, :length].numpy()
                if np.ptp(x) > 0 and np.ptp(y) > 0:
                    values.append(stats.spearmanr(x, y).statistic)
        assert found[r].item() == pytest.approx(np.mean(values), abs=1e-12)


def test_rank_correlation_sees_the_order_alone() -> None:
    weights = random_weights()[0]
    assert rank_correlation(weights, weights.log()).item() == pytest.approx(1.0)
    assert rank_correlation(weights, -(weights**3)).item() == pytest.approx(-1.0)
    flat = torch.full_like(weights, 1 / S)
    assert rank_correlation(flat, weights).isnan()
    some = torch.where(torch.arange(U)[:, None] == 0, weights, flat)  # tokens whose weights all tie have none
    assert rank_correlation(some, weights).item() == pytest.approx(1.0)


def test_class_share_is_1_by_chance_and_falls_with_what_stays_at_home() -> None:
    classes = torch.tensor([[0, 0, 0, 1, 1, 2], [0, 1, 0, 1, 0, 1]])
    same = classes[:, :, None] == classes[:, None]
    equal, alone = torch.full((2, 6, 6), 1 / 6), torch.eye(6).expand(2, 6, 6)
    assert within_class_share(equal, same).item() == pytest.approx(1.0)
    assert within_class_share(alone, same).item() == 0.0
    inside = same / same.sum(dim=-1, keepdim=True)  # equally within the class: 2/3 or 1/2 of it on others
    others = [2, 2, 2, 1, 1, 2, 2, 2, 2, 2, 2]
    expected = sum(n / (n + 1) for n in others) / sum(n / 6 for n in others)
    assert within_class_share(inside, same).item() == pytest.approx(expected)


def test_padded_patches_are_of_no_class() -> None:
    classes = torch.tensor([[0, 0, 1, 1], [0, 0, 0, 1]])
    same, mask = classes[:, :, None] == classes[:, None], torch.tensor([[True] * 4, [True] * 3 + [False]])
    weights = torch.randn(R, 2, 4, 4, generator=torch.Generator().manual_seed(0)).masked_fill(
        ~mask[:, None], -torch.inf
    )
    same = same & mask[:, :, None] & mask[:, None]
    found = within_class_share(weights.softmax(dim=-1), same)
    padded = within_class_share(
        torch.nn.functional.pad(weights.softmax(dim=-1), (0, 2, 0, 2)), torch.nn.functional.pad(same, (0, 2, 0, 2))
    )
    torch.testing.assert_close(found, padded, rtol=1e-12, atol=0)
    equal = mask[:, None] / mask.sum(dim=1)[:, None, None]
    assert within_class_share(equal.expand(2, 4, 4), same).item() == pytest.approx(1.0)


MEASURES = [
    lambda weights: alignment_error(weights, random_alignment()),
    lambda weights: alignment_share(weights, random_alignment()),
    lambda weights: rank_correlation(weights, random_weights(7)[0]),
    lambda weights: within_class_share(weights[..., :U], torch.ones(B, U, U).bool()),
    lambda weights: entropy_nats(weights).sum(dim=(1, 2)),
]


@pytest.mark.parametrize("measure", MEASURES)
def test_a_replica_that_is_not_finite_has_no_value_and_spoils_no_other(measure: Callable[[Tensor], Tensor]) -> None:
    weights = random_weights()
    spoilt = weights.clone()
    b, u = (int(place[0]) for place in random_alignment().any(dim=-1).nonzero(as_tuple=True))
    spoilt[1, b, u] = torch.nan
    found, clean = measure(spoilt), measure(weights)
    assert found.isnan().tolist() == [False, True, False]
    assert torch.equal(found[[0, 2]], clean[[0, 2]])


def test_without_an_aligned_token_there_is_no_alignment() -> None:
    nothing = torch.zeros(B, U, S).bool()
    assert alignment_error(random_weights(), nothing).isnan().all()
    assert alignment_share(random_weights(), nothing).isnan().all()
