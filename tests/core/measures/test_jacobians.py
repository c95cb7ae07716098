"""Jacobians against autograd through the whole unrolled network; singular values of products that are known."""

from __future__ import annotations

import math

import mpmath  # type: ignore[import-untyped]  # comes with torch
import pytest
import torch
from torch import Tensor

from pipeline.core.cells import CELLS, States, Weights
from pipeline.core.cells.stack import Place
from pipeline.core.measures.jacobians import singular_values_by_lag, step_jacobians
from tests.core.cells.reference import FIRST_OF_EACH_FORM
from tests.core.measures.packs import batch, pack

T, H = 6, 4
F64 = torch.float64


def unrolled(cell: str, num_replicas: int = 2) -> tuple[Weights, Tensor, list[Tensor]]:
    replicas, (inputs, _) = pack(cell, num_replicas), batch(T, num_examples=3)
    flat_RP = replicas.flat_RP.double()
    _, (seen,), states = replicas.unroll(replicas.named(flat_RP), inputs.double())
    return replicas.weights(flat_RP, Place(0, "forward")), seen, states


@pytest.mark.parametrize("cell", FIRST_OF_EACH_FORM)
def test_products_are_the_jacobians_of_the_whole_unrolled_network(cell: str) -> None:
    weights, x_RTBD, states = unrolled(cell)
    jacobians = step_jacobians(CELLS[cell], weights, x_RTBD, states)
    size = H * len(states)
    assert jacobians.shape == (2, T, 3, size, size)
    lags = (1, 3, T - 1)
    found = singular_values_by_lag(jacobians, lags)
    for r in range(2):
        mine = Weights(*(weight[r] for weight in weights))
        logs, resolved = [], []
        for lag in lags:
            products = [whole(cell, mine, x_RTBD[r, :, b], [s[r, :, b] for s in states], lag) for b in range(3)]
            product_BSS = torch.stack(products)
            chain = torch.linalg.multi_dot([*jacobians[r, T - lag :, 0].flip(0), torch.eye(size, dtype=F64)])
            torch.testing.assert_close(chain, product_BSS[0], rtol=1e-10, atol=1e-14)
            singular_BS = torch.linalg.svdvals(product_BSS)
            floor_B1 = 1e-12 * singular_BS[:, :1]  # of what the singular values of one matrix in float64 can say
            logs.append(singular_BS.maximum(floor_B1).log10().mean(dim=0))
            resolved.append((singular_BS > floor_B1).all(dim=0))
        values, known, middle = torch.stack(logs), torch.stack(resolved), slice(size // 2 - 1, size // 2 + 1)
        torch.testing.assert_close(found["largest"][r], values[:, 0], rtol=1e-9, atol=1e-9)
        expected = {"smallest": values[:, -1], "median": values[:, middle].mean(dim=1)}
        sure = {"smallest": known[:, -1], "median": known[:, middle].all(dim=1)}
        for which, value in expected.items():
            mine_K, sure_K = found[which][r], sure[which]
            torch.testing.assert_close(mine_K[sure_K], value[sure_K], rtol=0, atol=1e-4)
            assert ((mine_K <= value + 1e-4) | mine_K.isnan())[~sure_K].all()
        condition_K = values[:, 0] - values[:, -1]
        torch.testing.assert_close(
            found["condition"][r][sure["smallest"]], condition_K[sure["smallest"]], rtol=0, atol=1e-4
        )


def whole(cell: str, weights: Weights, x_TD: Tensor, states: list[Tensor], lag: int) -> Tensor:
    """∂s_T/∂s_{T-lag} of one example, by autograd through all timesteps between."""

    def run(joined: Tensor) -> Tensor:
        now = States(*joined.chunk(len(states)))
        for x_t in x_TD[T - lag :]:
            now = CELLS[cell].step(x_t, now, weights)
        return torch.cat([tensor for tensor in now if tensor is not None])

    return torch.autograd.functional.jacobian(run, torch.cat([state[T - lag - 1] for state in states]))


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_the_first_timestep_starts_from_zero(cell: str) -> None:
    weights, x_RTBD, states = unrolled(cell)
    found = step_jacobians(CELLS[cell], weights, x_RTBD, states)
    zeros = [torch.zeros(1, states[0].shape[3], dtype=F64) for _ in states]
    for r in range(len(x_RTBD)):
        mine = Weights(*(weight[r].double() for weight in weights))
        one_T = torch.cat([x_RTBD[r, :1, 0].double()] * T)  # `whole` starts from the state before timestep T
        expected = whole(cell, mine, one_T, [zero.expand(T, -1) for zero in zeros], lag=1)
        torch.testing.assert_close(found[r, 0, 0], expected, rtol=1e-13, atol=1e-15)


def test_a_replica_in_a_pack_equals_the_replica_alone() -> None:
    weights, x_RTBD, states = unrolled("lstm", num_replicas=3)
    packed = step_jacobians(CELLS["lstm"], weights, x_RTBD, states)
    one = slice(1, 2)
    alone = step_jacobians(CELLS["lstm"], Weights(*(w[one] for w in weights)), x_RTBD[one], [s[one] for s in states])
    assert torch.equal(packed[one], alone)
    for name, values in singular_values_by_lag(packed, [1, T]).items():
        torch.testing.assert_close(
            values[one], singular_values_by_lag(alone, [1, T])[name], rtol=0, atol=0, equal_nan=True
        )


def random_orthogonal(size: int, generator: torch.Generator) -> Tensor:
    return torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=F64)).Q


def chain(values: list[float], num_timesteps: int, seed: int = 0) -> Tensor:
    """J_t = Q_t diag(values) Q_{t-1}ᵀ: the product over k timesteps has singular values values^k."""
    generator = torch.Generator().manual_seed(seed)
    frames = [random_orthogonal(len(values), generator) for _ in range(num_timesteps + 1)]
    diagonal = torch.tensor(values, dtype=F64)
    return torch.stack([(new * diagonal) @ old.T for old, new in zip(frames, frames[1:], strict=False)])[None, :, None]


def test_orthogonal_jacobians_leave_all_lengths_alone() -> None:
    found = singular_values_by_lag(chain([1.0] * 8, 300), [1, 10, 300])
    for values in found.values():
        torch.testing.assert_close(values, torch.zeros(1, 3, dtype=F64), rtol=0, atol=1e-12)


@pytest.mark.parametrize("a", [0.05, -0.9, 1.0, 1.1, 20.0])
def test_a_scalar_chain_is_a_power(a: float) -> None:
    found = singular_values_by_lag(torch.full((1, 400, 1, 1, 1), a, dtype=F64), [1, 100, 400])  # 1e±520 at the ends
    expected = torch.tensor([[1.0, 100.0, 400.0]], dtype=F64) * math.log10(abs(a))
    for quantity in ("largest", "median", "smallest"):
        torch.testing.assert_close(found[quantity], expected, rtol=1e-12, atol=1e-12)
    assert found["condition"].abs().max() < 1e-9


def test_known_singular_values_far_below_the_resolution_of_a_product() -> None:
    values, lags = [2.0, 1.0, 0.3, 0.01], [1, 5, 200, 1000]
    found = singular_values_by_lag(chain(values, 1000), lags)
    lengths = torch.tensor([lags], dtype=F64)
    torch.testing.assert_close(found["largest"], lengths * math.log10(2.0), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(found["smallest"], lengths * -2.0, rtol=1e-6, atol=1e-6)  # 1e-2000 of 1e301
    torch.testing.assert_close(found["condition"], lengths * (2 + math.log10(2.0)), rtol=1e-6, atol=1e-6)
    middle = (lengths * math.log10(0.3) / 2)[:, :2]
    torch.testing.assert_close(found["median"][:, :2], middle, rtol=0, atol=1e-3)
    assert found["median"][0, 2:].isnan().all()


@pytest.mark.parametrize("values", [[1.0, 0.999, 0.1], [1.0, 0.101, 0.1]])
def test_the_median_is_found_from_the_end_that_it_is_near_to(values: list[float]) -> None:
    found = singular_values_by_lag(chain(values, 60), [60])
    assert found["median"].item() == pytest.approx(60 * math.log10(values[1]), abs=1e-6)


def test_every_median_is_right_or_nan() -> None:
    values, lags = [1.0, 0.5, 0.25], list(range(1, 101))
    found = singular_values_by_lag(chain(values, 100), lags)["median"][0]
    expected = torch.tensor(lags, dtype=F64) * math.log10(0.5)
    known = ~found.isnan()
    assert known[:25].all()
    assert not known[60:].any()
    assert (found - expected)[known].abs().max() < 1e-3


@pytest.mark.parametrize("seed", range(3))
def test_random_products_agree_with_two_hundred_digits(seed: int) -> None:
    """Rows from 1e-6 to 1, as of gates that are nearly shut: every value is right or NaN, and both ends are right."""
    generator = torch.Generator().manual_seed(seed)
    rows = 10.0 ** (-6 * torch.rand(40, 4, 1, generator=generator, dtype=F64))
    jacobians = rows * torch.randn(40, 4, 4, generator=generator, dtype=F64)
    lags = [1, 2, 5, 10, 20, 40]
    found = singular_values_by_lag(jacobians[None, :, None], lags)
    with mpmath.workdps(400):
        product = mpmath.eye(4)
        for lag in range(1, 41):
            product = product * mpmath.matrix(jacobians[40 - lag].tolist())
            if lag not in lags:
                continue
            logs = sorted((float(mpmath.log10(s)) for s in mpmath.svd_r(product, compute_uv=False)), reverse=True)
            index = lags.index(lag)
            assert found["largest"][0, index].item() == pytest.approx(logs[0], abs=1e-3)
            assert found["smallest"][0, index].item() == pytest.approx(logs[-1], abs=1e-3)
            median = found["median"][0, index].item()
            assert math.isnan(median) or median == pytest.approx((logs[1] + logs[2]) / 2, abs=1e-3)
    assert not found["median"][0, :1].isnan().any()


def test_a_unit_that_is_off_makes_the_smallest_exactly_zero() -> None:
    jacobians = chain([1.0, 0.5, 0.25], 8)
    jacobians[0, 4, 0, 1] = 0.0
    jacobians[0, 1, 0, :2] = 0.0
    found = singular_values_by_lag(jacobians, [3, 4, 7, 8])
    assert found["smallest"].isneginf().tolist() == [[False, True, True, True]]
    assert found["condition"].isposinf().tolist() == [[False, True, True, True]]
    assert found["median"].isneginf().tolist() == [[False, False, True, True]]
    assert found["largest"].isfinite().all()


def test_nothing_left_and_nothing_known() -> None:
    dead = singular_values_by_lag(torch.zeros(1, 3, 2, 4, 4, dtype=F64), [3])
    assert dead["largest"].item() == dead["smallest"].item() == -math.inf
    jacobians = chain([1.0, 0.5, 0.25], 8).repeat(2, 1, 1, 1, 1)
    jacobians[0, 2, 0, 0, 0] = math.inf
    found = singular_values_by_lag(jacobians, [4, 8])
    for values in found.values():
        assert values.isnan().tolist() == [[False, True], [False, False]]


def test_a_matrix_singular_up_to_rounding_has_no_smallest() -> None:
    generator = torch.Generator().manual_seed(1)
    low_rank = torch.randn(5, 4, generator=generator, dtype=F64) @ torch.randn(4, 5, generator=generator, dtype=F64)
    found = singular_values_by_lag(low_rank[None, None, None], [1])
    assert found["smallest"].isnan().all()
    assert found["largest"].isfinite().all()


def test_a_lag_beyond_the_sequence_is_refused() -> None:
    with pytest.raises(ValueError, match="expected lags from 1 to 8, got \\[1, 9\\]"):
        singular_values_by_lag(chain([1.0, 0.5], 8), [1, 9])
