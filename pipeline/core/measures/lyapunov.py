"""Lyapunov exponents: the mean rates at which a recurrence stretches and shrinks small differences.

    Q_0 = I,   Q_t R_t = jacobian_t Q_{t-1}   (diagonal of R_t not negative),   λ_i = 1/T Σ_t ln (R_t)_ii

in nats per timestep. Σ_i λ_i is the mean of ln |det jacobian_t|. A positive λ_1 is chaos; differences, and gradients,
grow by e^λ_1 a timestep.

Shapes: R replicas, T timesteps, B batch, S rows of a Jacobian, M exponents, K chosen timesteps.

Source: Benettin, Galgani, Giorgilli and Strelcyn (1980), by QR as in Eckmann and Ruelle (1985); for recurrent networks
Vogt, Puelma Touzel, Shlizerman and Lajoie (2022). The mean-field value is of Sompolinsky, Crisanti and Sommers (1988),
in the discrete-time form of Molgedey, Schuchhardt and Schuster (1992).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor


class LyapunovSpectrum(NamedTuple):
    """Exponents in nats per timestep, averaged over examples; column i is the same direction throughout.

    Attributes:
        exponents_RM: Falling.
        standard_error_RM: Of the mean over examples; NaN where there is one.
        timesteps: After how many timesteps the running estimates were taken, counted from the first of the sequence.
        running_RKM: The estimates then, from the timesteps after the burn-in.
        running_error_RKM: Their standard errors.
    """

    exponents_RM: Tensor
    standard_error_RM: Tensor
    timesteps: tuple[int, ...]
    running_RKM: Tensor
    running_error_RKM: Tensor


def lyapunov_spectrum(
    jacobians_RTBSS: Tensor,
    *,
    burn_in: int = 0,
    num_exponents: int | None = None,
    timesteps: Sequence[int] | None = None,
) -> LyapunovSpectrum:
    """Return the Lyapunov spectrum of every replica.

    -inf is a direction that is lost for good, as where every unit of a ReLU is off.

    Args:
        jacobians_RTBSS: ∂s_t/∂s_{t-1}, in the order of time.
        burn_in: Timesteps at the start that turn the directions but do not count.
        num_exponents: M, how many of the largest; None is all S of them.
        timesteps: Where the running estimates are wanted, beyond the burn-in; None is everywhere.

    Raises:
        ValueError: If no timestep is left after the burn-in, or one that is asked for is out of range.
    """
    num_timesteps = jacobians_RTBSS.shape[1]
    chosen = tuple(range(burn_in + 1, num_timesteps + 1)) if timesteps is None else tuple(timesteps)
    if not (0 <= burn_in < num_timesteps and all(burn_in < t <= num_timesteps for t in chosen)):
        raise ValueError(f"expected 0 <= burn_in < timesteps <= {num_timesteps}, got {burn_in} and {list(chosen)}")
    replicas = [
        _spectrum(log_stretches(jacobians.double(), num_exponents)[burn_in:], burn_in, chosen)
        for jacobians in jacobians_RTBSS
    ]
    exponents, errors, running, running_errors = (torch.stack(values) for values in zip(*replicas, strict=True))
    return LyapunovSpectrum(exponents, errors, chosen, running, running_errors)


def log_stretches(jacobians: Iterable[Tensor], num_exponents: int | None = None) -> Tensor:
    """Return ln (R_t)_ii of every timestep and example, (T, B, M): their mean over time is the spectrum.

    Args:
        jacobians: (B, S, S) of one timestep after the other; they need not be in memory together.
        num_exponents: M, how many of the largest; None is all S of them.
    """
    stretches: list[Tensor] = []
    Q = None
    for jacobian_BSS in jacobians:
        if Q is None:
            num_examples, size, _ = jacobian_BSS.shape
            start = torch.eye(size, num_exponents or size, dtype=jacobian_BSS.dtype, device=jacobian_BSS.device)
            Q = start.repeat(num_examples, 1, 1)
        Q, upper = torch.linalg.qr(jacobian_BSS @ Q)
        diagonal = upper.diagonal(dim1=1, dim2=2)
        Q = Q * torch.where(diagonal < 0, -1.0, 1.0)[:, None, :]
        stretches.append(diagonal.abs().log())
    return torch.stack(stretches)


def random_network_jacobians(coupling_NN: Tensor, start_N: Tensor, num_timesteps: int) -> Iterator[Tensor]:
    """Yield ∂x_t/∂x_{t-1} = J · diag(1 - tanh² x_{t-1}), (1, N, N), along an orbit of x ← J tanh(x).

    Args:
        coupling_NN: J.
        start_N: x_0.
        num_timesteps: How many.
    """
    x = start_N
    for _ in range(num_timesteps):
        rate_N = torch.tanh(x)
        yield (coupling_NN * (1 - rate_N * rate_N))[None]
        x = coupling_NN @ rate_N


def mean_field_exponent(gain: float) -> float:
    """Return λ_1 of x ← J tanh(x), J ~ N(0, g²/N), as N grows, in nats per timestep.

        λ_1 = ½ ln χ_1,   χ_1 = g²⟨tanh'(√q z)²⟩,   q = g²⟨tanh²(√q z)⟩,   z ~ N(0, 1)

    Up to g = 1 the state dies (q = 0) and λ_1 = ln g. Measured values lie a few percent below it and approach it.

    Args:
        gain: g, above 0.
    """
    z = np.linspace(-12.0, 12.0, 4001)  # equal steps: for a function as smooth as this they are right to rounding
    weight = np.exp(-z * z / 2)
    weight /= weight.sum()

    def mean_square_rate(q: float) -> float:
        return float(weight @ np.tanh(math.sqrt(q) * z) ** 2)

    low, high = 0.0, gain * gain if gain > 1 else 0.0
    for _ in range(200):  # g²⟨tanh²(√q z)⟩ - q falls through 0 once: bisection
        middle = (low + high) / 2
        low, high = (middle, high) if gain * gain * mean_square_rate(middle) > middle else (low, middle)
    slope_squared = float(weight @ (1 - np.tanh(math.sqrt(low) * z) ** 2) ** 2)
    return math.log(gain) + math.log(slope_squared) / 2


def _spectrum(stretch_TBM: Tensor, burn_in: int, timesteps: Sequence[int]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    counts_T = torch.arange(1, len(stretch_TBM) + 1, dtype=stretch_TBM.dtype, device=stretch_TBM.device)
    running_TBM = stretch_TBM.cumsum(dim=0) / counts_T[:, None, None]
    chosen_KBM = running_TBM[[t - burn_in - 1 for t in timesteps]]
    order_M = running_TBM[-1].mean(dim=0).argsort(descending=True, stable=True)
    ends = (_over_examples(values[..., order_M]) for values in (running_TBM[-1:], chosen_KBM))
    (last_1M, last_error_1M), (running_KM, error_KM) = ends
    return last_1M[0], last_error_1M[0], running_KM, error_KM


def _over_examples(values_KBM: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean and its standard error, (K, M) each."""
    num_examples, mean_KM = values_KBM.shape[1], values_KBM.mean(dim=1)
    if num_examples == 1:
        return mean_KM, torch.full_like(mean_KM, torch.nan)
    return mean_KM, values_KBM.std(dim=1) / math.sqrt(num_examples)
