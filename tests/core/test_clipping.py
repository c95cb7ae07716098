"""Every clipping rule: its properties, against a slow twin written by other means, and resumed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pipeline.config import build
from pipeline.core.clipping import (
    ClippingRule,
    Ledger,
    State,
    adaptive_grad_clip,
    clip,
    clip_by_block_norm,
    clip_by_global_norm,
    clip_by_global_norm_max,
    clip_by_value,
    compare,
    insert_sorted,
    norms,
    percentile_of_sorted,
)
from pipeline.errors import ConfigError

SHAPES = {"weight_ih": (4, 2), "weight_hh": (4, 4), "bias": (4,), "readout": (1, 4), "gain": ()}
NUM_PARAMETERS = sum(math.prod(shape) for shape in SHAPES.values())

RULES: dict[str, dict[str, Any]] = {
    "none": {"name": "none"},
    "value": {"name": "value", "threshold": 0.7},
    "global_norm": {"name": "global_norm", "threshold": 2.0},
    "global_norm_max": {"name": "global_norm_max", "threshold": 2.0},
    "block_norm": {"name": "block_norm", "threshold": 1.5},
    "autoclip": {"name": "autoclip", "percentile": 40},
    "adaptive": {"name": "adaptive", "clipping": 0.3},
    "state_norm": {"name": "state_norm", "threshold": 1.0},
}
every_rule = pytest.mark.parametrize("raw", RULES.values(), ids=RULES)
every_dtype = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])


def rule(raw: dict[str, Any]) -> Any:
    return build(ClippingRule, raw, "a test")


def named(flat_RP: Tensor) -> dict[str, Tensor]:
    """The parameters that a flat tensor is made of, as views."""
    parts = flat_RP.split([math.prod(shape) for shape in SHAPES.values()], dim=1)
    return {name: part.reshape(len(part), *SHAPES[name]) for name, part in zip(SHAPES, parts, strict=True)}


class Clipper:
    """A rule at work: its state goes from update to update."""

    def __init__(self, raw: dict[str, Any], num_replicas: int) -> None:
        self.rule = rule(raw)
        self.state: State = self.rule.init({"weight": torch.zeros(num_replicas, 1)})

    def clip(self, grad_RP: Tensor, flat_RP: Tensor) -> tuple[Tensor, Ledger]:
        whole = flat_RP.shape[1] == NUM_PARAMETERS
        params = named(flat_RP) if whole else {"weight": flat_RP}
        clipped, self.state, ledger = clip(self.rule, grad_RP, self.state, params)
        return clipped, ledger


clipper = Clipper


def grads(*rows: list[float]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def updates(num: int, num_replicas: int, dtype: torch.dtype = torch.float64) -> Iterator[tuple[Tensor, Tensor]]:
    """Gradients of widely varying size, with the parameters that they are of."""
    generator = torch.Generator().manual_seed(3)
    for _ in range(num):
        shape = (num_replicas, NUM_PARAMETERS)
        size = torch.exp(torch.randn(num_replicas, 1, generator=generator, dtype=torch.float64))
        grad = size * torch.randn(shape, generator=generator, dtype=torch.float64)
        yield grad.to(dtype), torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


def parameters(grad_P: Tensor) -> list[nn.Parameter]:
    """One network's parameters, zero, with gradients: what torch.nn.utils clips."""
    made = []
    for part, shape in zip(grad_P.split([math.prod(s) for s in SHAPES.values()]), SHAPES.values(), strict=True):
        parameter = nn.Parameter(torch.zeros(shape, dtype=grad_P.dtype))
        parameter.grad = part.clone().reshape(shape)
        made.append(parameter)
    return made


def flat_gradient(parameters: list[nn.Parameter]) -> Tensor:
    return torch.cat([p.grad.flatten() for p in parameters if p.grad is not None])


# Properties


@every_dtype
@pytest.mark.parametrize(
    "clip",
    [
        lambda g, size: clip_by_value(g, 3 * size),
        lambda g, size: clip_by_global_norm(g, 10 * size),
        lambda g, size: clip_by_block_norm(g, 6 * size, named(g)),
        lambda g, size: adaptive_grad_clip(g, named(torch.ones_like(g)), 3 * size),
    ],
    ids=["value", "global_norm", "block_norm", "adaptive"],
)
def test_below_the_threshold_the_identity_above_it_shorter_and_twice_is_once(
    clip: Callable[[Tensor, float], Tensor], dtype: torch.dtype
) -> None:
    grad = torch.linspace(-2, 2, 2 * NUM_PARAMETERS, dtype=dtype).reshape(2, -1)
    below = clip(grad, 1.0)
    assert torch.equal(below, grad)
    assert not compare(grad, below).is_clipped.any()
    once = clip(grad, 0.01)
    ledger = compare(grad, once)
    assert ledger.is_clipped.all()
    twice = clip(once, 0.01)
    torch.testing.assert_close(twice, once, rtol=4 * torch.finfo(dtype).eps, atol=0)
    assert once.dtype == dtype
    assert all(column.dtype == torch.float64 for column in ledger)


def test_clip_by_global_norm_is_identity_below_threshold_and_threshold_above() -> None:
    grad = grads([0.3, 0.4], [30.0, 40.0], [0.0, 0.0])
    clipped = clip_by_global_norm(grad, 5.0)
    ledger = compare(grad, clipped)
    assert torch.equal(clipped[0], grad[0])
    assert clipped[1].norm().item() == pytest.approx(5.0)
    assert torch.equal(clipped[2], grad[2])
    twice = clip_by_global_norm(clipped, 5.0)
    torch.testing.assert_close(twice, clipped, rtol=1e-15, atol=0)
    assert ledger.grad_norm.tolist() == pytest.approx([0.5, 50.0, 0.0])
    assert ledger.clip_cosine.tolist() == pytest.approx([1.0, 1.0, 1.0])


def test_every_block_and_every_unit_ends_at_its_own_bound() -> None:
    grad = grads([3.0, 4.0, 0.03, 0.04, 10.0, 0.01])
    weights = grads([6.0, 8.0, 0.0, 0.0, 2.0, 0.0])  # norms of units 10, 0 (counts as 1e-3), 2, 0 (counts as 1e-3)
    params = {"matrix": weights[:, :4].reshape(1, 2, 2), "vector": weights[:, 4:]}
    by_block = clip_by_block_norm(grad, 1.0, params)
    assert by_block[0, :4].norm().item() == pytest.approx(1.0)
    assert by_block[0, 4:].norm().item() == pytest.approx(1.0)
    by_unit = adaptive_grad_clip(grad, params, 0.1)
    units = [by_unit[0, 0:2].norm(), by_unit[0, 2:4].norm(), by_unit[0, 4], by_unit[0, 5]]
    assert [unit.item() for unit in units] == pytest.approx([1.0, 1e-4, 0.2, 1e-4])


def test_by_norm_the_direction_stays_and_by_value_it_changes() -> None:
    grad, flat = next(updates(1, 3))
    for name in ("global_norm", "global_norm_max", "autoclip"):
        ledger = clipper(RULES[name], 3).clip(100 * grad, flat)[1]
        assert ledger.clip_cosine.tolist() == pytest.approx([1.0] * 3, abs=1e-14)
    for name in ("value", "block_norm", "adaptive"):
        ledger = clipper(RULES[name], 3).clip(100 * grad, flat)[1]
        assert (ledger.clip_cosine < 0.999).all(), name
    cut = clip_by_value(grads([3.0, 1.0]), 1.0)
    assert cut.tolist() == [[1.0, 1.0]]
    ledger = compare(grads([3.0, 1.0]), cut)
    assert ledger.clip_cosine.item() == pytest.approx(4 / math.sqrt(20))


def test_the_printed_max_makes_small_gradients_large_and_shrinks_none_the_min_shrinks_large_ones_only() -> None:
    grad, threshold = grads([0.3, 0.4], [3.0, 4.0], [30.0, 40.0], [0.0, 0.0]), 5.0
    printed, meant = clip_by_global_norm_max(grad, threshold), clip_by_global_norm(grad, threshold)
    printed_ledger, meant_ledger = compare(grad, printed), compare(grad, meant)
    assert printed_ledger.grad_norm.tolist() == pytest.approx([0.5, 5.0, 50.0, 0.0])
    assert printed_ledger.clipped_grad_norm.tolist() == pytest.approx([5.0, 5.0, 50.0, 0.0])  # max(1, δ/‖g‖)
    assert meant_ledger.clipped_grad_norm.tolist() == pytest.approx([0.5, 5.0, 5.0, 0.0])  # min(1, δ/‖g‖)
    assert torch.equal(printed[2], grad[2])
    assert torch.equal(meant[0], grad[0])
    unit = grad[:3] / grad[:3].norm(dim=1, keepdim=True)
    torch.testing.assert_close(printed[:3] / printed[:3].norm(dim=1, keepdim=True), unit)
    torch.testing.assert_close(printed[:3] + meant[:3], grad[:3] + threshold * unit)  # max + min = both arguments


def test_the_misprint_enlarges_a_float32_gradient_by_more_than_float32_can_hold() -> None:
    enlarged = clip_by_global_norm_max(torch.tensor([[3e-38, 0.0]]), 30.0)
    assert enlarged.tolist() == [[pytest.approx(30.0), 0.0]]


@every_rule
@every_dtype
def test_a_replica_in_a_pack_is_bit_for_bit_the_replica_alone(raw: dict[str, Any], dtype: torch.dtype) -> None:
    packed, alone = clipper(raw, 3), [clipper(raw, 1) for _ in range(3)]
    for grad, flat in updates(12, 3, dtype):
        clipped, ledger = packed.clip(grad, flat)
        for r, single in enumerate(alone):
            clipped_r, ledger_r = single.clip(grad[r : r + 1], flat[r : r + 1])
            assert torch.equal(clipped[r : r + 1], clipped_r)
            assert all(torch.equal(a[r : r + 1], b) for a, b in zip(ledger, ledger_r, strict=True))


@every_rule
@pytest.mark.parametrize("bad", [math.inf, -math.inf, math.nan])
def test_what_is_not_finite_passes_as_it_is_and_no_other_replica_sees_it(raw: dict[str, Any], bad: float) -> None:
    hurt, sound = clipper(raw, 3), clipper(raw, 3)
    for i, (grad, flat) in enumerate(updates(6, 3)):
        spoilt = grad.clone()
        spoilt[1, 5] = bad if i % 2 else spoilt[1, 5]
        clipped, ledger = hurt.clip(spoilt, flat)
        expected, expected_ledger = sound.clip(grad, flat)
        assert torch.equal(clipped[[0, 2]], expected[[0, 2]])
        assert all(torch.equal(a[[0, 2]], b[[0, 2]]) for a, b in zip(ledger, expected_ledger, strict=True))
        if i % 2:
            torch.testing.assert_close(clipped[1], spoilt[1], rtol=0, atol=0, equal_nan=True)
            assert not ledger.grad_norm[1].isfinite()


def test_clipping_rescues_a_float32_gradient_whose_square_overflows() -> None:
    clipped = clip_by_global_norm(torch.tensor([[3e30, 4e30]]), 1.0)
    assert norms(torch.tensor([[3e30, 4e30]])).item() == pytest.approx(5e30)
    assert clipped[0].tolist() == pytest.approx([0.6, 0.8])


EXTREMES = {
    torch.float16: [6e-8, 1e-4, 1.0, 6e4],
    torch.bfloat16: [1e-38, 1.0, 3e38],
    torch.float32: [1e-45, 1e-38, 1e-20, 1.0, 1e20, 3e38],
}
"""Sizes of entries from the smallest to the largest that each precision holds."""


def exactly_clipped(unit: list[float], bound: float) -> list[float]:
    """A vector clipped to a norm, in exact arithmetic before one rounding to float64."""
    length = math.hypot(*unit)
    return unit if length <= bound else [float(Fraction(value) * Fraction(bound) / Fraction(length)) for value in unit]


def assert_rounded_once(clipped: Tensor, exact: Tensor) -> None:
    """Every entry is the exact one in the precision of `clipped`, or (for the digits of float64) its neighbour."""
    nearest = exact.to(clipped.dtype)
    above, below = (torch.nextafter(nearest, torch.full_like(nearest, bound)) for bound in (math.inf, -math.inf))
    assert ((clipped == nearest) | (clipped == above) | (clipped == below)).all(), (clipped, nearest)
    assert (clipped == nearest).double().mean() > 0.9


@pytest.mark.parametrize("name", ["global_norm", "autoclip", "global_norm_max", "block_norm", "adaptive", "value"])
@pytest.mark.parametrize("threshold", [1e-30, 1e-6, 0.7, 1e30, 1e300])
@pytest.mark.parametrize("dtype", EXTREMES)
def test_a_scale_is_never_rounded_before_it_multiplies(dtype: torch.dtype, threshold: float, name: str) -> None:
    """Norms end at the threshold to the rounding of the entries, wherever both lie in what the precision can hold."""
    random = torch.Generator().manual_seed(0)
    for size in EXTREMES[dtype]:
        grad = (torch.rand(1, 12, generator=random, dtype=torch.float64) * size).to(dtype)
        values, params = grad[0].tolist(), {"a": torch.zeros(1, 2, 4), "b": torch.zeros(1, 4)}
        if name == "value":
            clipped, exact = clip_by_value(grad, threshold), [min(value, threshold) for value in values]
        elif name in {"global_norm", "autoclip"}:
            bound = threshold if name == "global_norm" else torch.tensor([threshold], dtype=torch.float64)
            clipped, exact = clip_by_global_norm(grad, bound), exactly_clipped(values, threshold)
        elif name == "global_norm_max":
            length = math.hypot(*values)
            exact = values if length >= threshold else [v / length * threshold for v in values]
            clipped = clip_by_global_norm_max(grad, threshold)
        elif name == "block_norm":
            clipped = clip_by_block_norm(grad, threshold, params)
            exact = exactly_clipped(values[:8], threshold) + exactly_clipped(values[8:], threshold)
        else:
            clipped = adaptive_grad_clip(grad, params, threshold)
            units = [values[:4], values[4:8], *([value] for value in values[8:])]
            exact = [value for unit in units for value in exactly_clipped(unit, threshold * 1e-3)]
        assert clipped.dtype == dtype
        assert_rounded_once(clipped[0], torch.tensor(exact, dtype=torch.float64))


def test_a_gradient_of_3e38_clipped_to_1e_minus_6_is_half_of_that_in_each_of_four_entries() -> None:
    clipped = clip_by_global_norm(torch.full((1, 4), 3e38), 1e-6)
    assert clipped.tolist() == torch.full((1, 4), 0.5e-6).tolist()
    assert norms(clipped).item() == pytest.approx(1e-6, rel=1e-7)


@pytest.mark.parametrize("dtype", EXTREMES)
def test_a_threshold_beyond_the_precision_clips_no_value(dtype: torch.dtype) -> None:
    grad = torch.tensor([[torch.finfo(dtype).max, -1.0, 0.0]], dtype=dtype)
    assert torch.equal(clip_by_value(grad, 1e300), grad)


@every_rule
def test_a_gradient_of_zero_stays_zero(raw: dict[str, Any]) -> None:
    zero = torch.zeros(2, NUM_PARAMETERS)
    clipped, ledger = clipper(raw, 2).clip(zero, zero)
    assert torch.equal(clipped, zero)
    assert torch.equal(torch.stack(tuple(ledger)), torch.tensor([[0.0, 0.0], [0.0, 0.0], [1.0, 1.0]]).double())


# Against slow twins


def slow_value(grad_P: Tensor, flat_P: Tensor) -> Tensor:
    made = parameters(grad_P)
    nn.utils.clip_grad_value_(made, RULES["value"]["threshold"])
    return flat_gradient(made)


def slow_global_norm(grad_P: Tensor, flat_P: Tensor) -> Tensor:
    made = parameters(grad_P)
    nn.utils.clip_grad_norm_(made, RULES["global_norm"]["threshold"])
    return flat_gradient(made)


def slow_block_norm(grad_P: Tensor, flat_P: Tensor) -> Tensor:
    made = parameters(grad_P)
    for parameter in made:
        nn.utils.clip_grad_norm_([parameter], RULES["block_norm"]["threshold"])
    return flat_gradient(made)


def slow_global_norm_max(grad_P: Tensor, flat_P: Tensor) -> Tensor:
    values = grad_P.tolist()
    length = math.sqrt(math.fsum(value**2 for value in values))
    scale = max(1.0, RULES["global_norm_max"]["threshold"] / length)
    return torch.tensor([scale * value for value in values], dtype=grad_P.dtype)


def slow_adaptive(grad_P: Tensor, flat_P: Tensor) -> Tensor:
    clipped, start, ratio = [], 0, RULES["adaptive"]["clipping"]
    for shape in SHAPES.values():
        per_unit = shape[1] if len(shape) == 2 else 1
        for _ in range(math.prod(shape) // per_unit):
            unit, weights = grad_P[start : start + per_unit].tolist(), flat_P[start : start + per_unit].tolist()
            largest = ratio * max(math.hypot(*weights), 1e-3)
            length = math.hypot(*unit)
            clipped += [value * largest / length if length > largest else value for value in unit]
            start += per_unit
    return torch.tensor(clipped, dtype=grad_P.dtype)


@pytest.mark.parametrize(
    ("name", "slow", "rtol"),
    [
        ("value", slow_value, 0),
        ("global_norm", slow_global_norm, 1e-10),  # torch divides by ‖g‖ + 1e-6, and ‖g‖ is above 1e5
        ("block_norm", slow_block_norm, 1e-10),
        ("global_norm_max", slow_global_norm_max, 1e-14),
        ("adaptive", slow_adaptive, 1e-14),
    ],
)
def test_each_rule_against_a_slow_twin(name: str, slow: Callable[[Tensor, Tensor], Tensor], rtol: float) -> None:
    sizes = [1e6] if "norm" in name and name != "global_norm_max" else [0.01, 1.0, 100.0]
    for grad, flat in updates(5, 3):
        for size in sizes:
            clipped, ledger = clipper(RULES[name], 3).clip(size * grad, flat)
            expected = torch.stack([slow(size * g, w) for g, w in zip(grad, flat, strict=True)])
            torch.testing.assert_close(clipped, expected, rtol=rtol, atol=0)
            assert ledger.clipped_grad_norm.tolist() == pytest.approx([row.norm().item() for row in expected], rel=1e-9)


@pytest.mark.parametrize("percentile", [0, 10, 37.5, 50, 100])
def test_autoclip_against_numpy_percentiles_of_a_list(percentile: float) -> None:
    auto = clipper({"name": "autoclip", "percentile": percentile}, 3)
    seen: list[list[float]] = [[], [], []]
    num_clipped = 0
    for grad, flat in updates(60, 3):
        clipped, ledger = auto.clip(grad, flat)
        for r in range(3):
            seen[r].append(ledger.grad_norm[r].item())
            threshold = np.percentile(seen[r], percentile)
            scale = min(1.0, threshold / seen[r][-1])
            assert torch.equal(clipped[r], grad[r] * scale)  # to the last bit
            num_clipped += scale < 1
    assert (num_clipped > 0) == (percentile < 100)


def test_autoclip_keeps_no_norm_that_is_not_finite() -> None:
    auto = clipper({"name": "autoclip", "percentile": 50}, 2)
    for norm in (math.nan, 4.0, math.inf, 8.0, math.nan):
        auto.clip(grads([norm], [1.0]), grads([0.0], [0.0]))
    clipped, _ = auto.clip(grads([60.0], [1.0]), grads([0.0], [0.0]))
    assert clipped.tolist() == [[8.0], [1.0]]  # the median of 4, 8, 60


@every_rule
def test_a_restored_clipper_goes_on_as_if_uninterrupted(raw: dict[str, Any]) -> None:
    stream = list(updates(20, 2))
    through, first, second = (clipper(raw, 2) for _ in range(3))
    for grad, flat in stream[:11]:
        through.clip(grad, flat)
        first.clip(grad, flat)
    state = first.state
    copy = tuple(value.clone() for value in state)
    for grad, flat in stream[11:]:
        first.clip(grad, flat)
    assert all(torch.equal(kept, value) for kept, value in zip(state, copy, strict=True))
    second.state = copy
    for grad, flat in stream[11:]:
        (expected, expected_ledger), (clipped, ledger) = through.clip(grad, flat), second.clip(grad, flat)
        assert torch.equal(clipped, expected)
        assert all(torch.equal(a, b) for a, b in zip(ledger, expected_ledger, strict=True))
    assert bool(state) == (raw["name"] == "autoclip")


# The history


def test_insertion_keeps_rows_sorted_with_what_is_not_finite_last() -> None:
    values = np.random.default_rng(0).integers(0, 9, (3, 40)).astype(float)  # with repetitions
    values[1, ::7] = math.nan
    values[2, ::5] = -math.inf
    history = torch.empty(3, 0, dtype=torch.float64)
    for column in values.T:
        history = insert_sorted(history, torch.tensor(column))
    expected = np.sort(np.where(np.isfinite(values), values, math.inf), axis=1)
    assert history.tolist() == expected.tolist()


@pytest.mark.parametrize("percentile", [0, 2.5, 10, 33, 50, 99.9, 100])
def test_percentile_is_numpys_to_the_last_bit(percentile: float) -> None:
    random = np.random.default_rng(1)
    for num in range(1, 40):
        values = np.sort(np.exp(random.normal(size=(2, num))), axis=1)
        padded = torch.tensor(np.concatenate([values, np.full((2, 3), math.inf)], axis=1))
        expected = np.percentile(values, percentile, axis=1)
        assert percentile_of_sorted(padded, percentile).tolist() == expected.tolist()


def test_percentile_of_nothing_is_nan() -> None:
    assert percentile_of_sorted(torch.full((2, 3), math.inf, dtype=torch.float64), 10).isnan().all()


# The ledger


@every_rule
def test_the_ledger_is_what_compare_says_of_the_two_gradients(raw: dict[str, Any]) -> None:
    rule_at_work = clipper(raw, 3)
    for grad, flat in updates(8, 3, torch.float32):
        clipped, ledger = rule_at_work.clip(grad, flat)
        assert all(torch.equal(a, b) for a, b in zip(ledger, compare(grad, clipped), strict=True))
        assert torch.equal(ledger.grad_norm, norms(grad))


def test_no_clipping_changes_nothing() -> None:
    grad = grads([30.0, 40.0])
    clipped, ledger = clipper({"name": "none"}, 1).clip(grad, grad)
    assert clipped is grad
    assert [column.item() for column in ledger] == [50.0, 50.0, 1.0]


def test_state_norm_is_left_to_the_backward_pass_and_its_ledger_compares_before_with_after() -> None:
    at_work = clipper(RULES["state_norm"], 1)
    grad, applied = grads([3.0, 4.0]), grads([3.0, 0.0])
    assert at_work.clip(grad, grad)[0] is grad
    assert [column.item() for column in compare(grad, applied)] == pytest.approx([5.0, 3.0, 0.6])


@every_rule
def test_state_norm_alone_has_a_threshold_inside_the_recurrence(raw: dict[str, Any]) -> None:
    assert rule(raw).state_threshold == (1.0 if raw["name"] == "state_norm" else None)


def test_cosine_of_opposite_and_orthogonal_gradients() -> None:
    first, second = grads([1.0, 0.0], [1.0, 0.0], [0.0, 0.0]), grads([-2.0, 0.0], [0.0, 3.0], [0.0, 0.0])
    assert compare(first, second).clip_cosine.tolist() == [-1.0, 0.0, 1.0]
    zero, sound, bad = [0.0, 0.0], [1.0, 1.0], [[math.nan, 1.0], [math.inf, 1.0]]
    assert compare(grads(zero, sound, *bad), grads(sound, zero, sound, sound)).clip_cosine.isnan().all()


# What is refused


@pytest.mark.parametrize("name", ["value", "global_norm", "global_norm_max", "block_norm", "state_norm"])
@pytest.mark.parametrize("threshold", [0, -1.0])
def test_a_threshold_is_above_0(name: str, threshold: float) -> None:
    with pytest.raises(ConfigError, match=rf"a test\.threshold: expected a finite number above 0, got {threshold:.1f}"):
        rule({"name": name, "threshold": threshold})


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"name": "autoclip", "percentile": -1}, r"a test\.percentile: expected a number in \[0, 100\], got -1\.0"),
        ({"name": "autoclip", "percentile": 100.5}, r"a test\.percentile: expected a number in \[0, 100\], got 100\.5"),
        ({"name": "adaptive", "clipping": 0}, r"a test\.clipping: expected a finite number above 0, got 0\.0"),
        ({"name": "global_norm"}, r"a test: missing key 'threshold'"),
        ({"name": "autoclp", "percentile": 10}, r"a test\.name: unknown name 'autoclp'; did you mean 'autoclip'"),
    ],
)
def test_impossible_rules_are_refused_by_key(raw: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        rule(raw)
