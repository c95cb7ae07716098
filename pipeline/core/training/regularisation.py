"""Terms that are added to the loss to keep gradients alive: the function, then the variants that a study names.

Legend: R replicas, T timesteps, B examples, H hidden units; δ_t = dL/dh_t of one example.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from pipeline.config.strict import Checked, require
from pipeline.core.cells import CELLS
from pipeline.core.clipping import scaled
from pipeline.core.models import ModelSpec, Pass, Replicas

MIN_SQUARED_NORM = 1e-20
"""A smaller ‖δ_t‖² says nothing about direction: the timestep's ratio counts as 1 (the authors' bound)."""


def vanishing_gradient_penalty(
    delta_RTBH: Tensor, weight_hh_RHH: Tensor, derivative_RTBH: Tensor
) -> tuple[Tensor, Tensor]:
    """Return Ω, (R,) in float64, and its gradient in W_hh, (R, H, H), of an Elman network h_t = φ(W_hh h_{t-1} + …).

    With a_t = φ'_t ∘ δ_t / ‖δ_t‖ and v_t = W_hhᵀ a_t, what is left of a unit δ_t one timestep earlier,

        Ω = mean (‖v_t‖² - 1)²,   dΩ/dW_hh = mean 4 (‖v_t‖² - 1) a_t v_tᵀ,

    each mean over all timesteps and examples with ‖δ_t‖² ≥ 1e-20; both are 0 where there are none. The gradient is
    that of the immediate dependence on W_hh: δ_t and φ'_t are constants in it. A δ_t that is not finite makes both so.

    Args:
        delta_RTBH: dL/dh_1 … dL/dh_T, L being the mean over the batch (the bound of 1e-20 depends on that).
        weight_hh_RHH: W_hh, row = output.
        derivative_RTBH: φ' at every timestep.

    Source: Pascanu, Mikolov and Bengio (2013), Ω, with the batch mean, the bound and the division by the
    number of terms of the authors' code (trainingRNNs, RNN.py); the paper's Ω is a sum over timesteps.
    """
    norm = torch.linalg.vector_norm(delta_RTBH, dim=3, dtype=torch.float64)
    counts = ~(norm.square() < MIN_SQUARED_NORM)  # NaN counts, to be seen
    scale = torch.where(counts, 1 / norm, 0.0)
    a = scaled(delta_RTBH * derivative_RTBH, scale[..., None]).flatten(1, 2)
    v = torch.bmm(a, weight_hh_RHH)  # (R, T·B, H)
    counts = counts.flatten(1)
    excess = torch.linalg.vector_norm(v, dim=2, dtype=torch.float64).square() - 1
    excess = torch.where(counts, excess, 0.0)
    num_terms = counts.sum(dim=1).clamp(min=1)
    omega = excess.square().sum(dim=1) / num_terms
    weight = 4 * excess / num_terms[:, None]
    return omega, torch.bmm(scaled(a, weight[..., None]).transpose(1, 2), v)


@dataclass(frozen=True, kw_only=True)
class NoRegularisation(Checked):
    """The loss as it is."""

    name: Literal["none"] = "none"

    traces, coverage_weight = False, 0.0

    def check(self, model: ModelSpec) -> None:
        """Accept any network."""

    def penalise(self, replicas: Replicas, flat_RP: Tensor, run: Pass) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the gradient of the loss, (R, P), and no penalty."""
        return run.grad_RP, {}


@dataclass(frozen=True, kw_only=True)
class VanishingGradient(Checked):
    """L + λ Ω with λ = `weight`, and Ω of `vanishing_gradient_penalty` (Pascanu et al., 2013, who took 4)."""

    name: Literal["vanishing_gradient"] = "vanishing_gradient"
    weight: float

    def __post_init__(self) -> None:
        require(0 < self.weight < float("inf"), "weight", "a finite number above 0", self.weight)

    traces, coverage_weight = True, 0.0
    """It needs dL/dh_t."""

    def check(self, model: ModelSpec) -> None:
        """Check that the network is one whose Jacobian is φ' W_hh: a single Elman layer, forward in time.

        Raises:
            InvalidFieldError: If it is another.
        """
        attention = model.attention.name
        require(attention == "none", "model.attention.name", "none for 'vanishing_gradient'", attention)
        elman = [name for name, cell in CELLS.items() if cell.derivative is not None]
        expected = f"a cell with h_t = φ(W_hh h_t-1 + …) ({', '.join(elman)}) for regularisation 'vanishing_gradient'"
        require(model.cell in elman, "model.cell", expected, model.cell)
        require(model.num_layers == 1, "model.num_layers", "1 for 'vanishing_gradient'", model.num_layers)
        require(not model.bidirectional, "model.bidirectional", "false for 'vanishing_gradient'", True)

    def penalise(self, replicas: Replicas, flat_RP: Tensor, run: Pass) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the gradient of L + λ Ω, (R, P), after a traced pass, and Ω, (R,), as the metric `omega`.

        Ω weighs as the loss does: of a window that scores a part of a sequence, as that part.
        """
        stack = replicas.model.stacks["recurrent"]
        derivative, (place,) = stack.cell.derivative, stack.places
        assert derivative is not None  # noqa: S101 - `check` has seen to it
        weight_RHH = replicas.weights(flat_RP, place).weight_hh
        delta_RTBH = run.grad_states[replicas.model.state_keys[0]]
        omega_R, grad_RHH = vanishing_gradient_penalty(delta_RTBH, weight_RHH, derivative(run.states[0]))
        grad_RP = run.grad_RP.clone()
        replicas.weights(grad_RP, place).weight_hh.add_(grad_RHH, alpha=self.weight * run.loss_weight)
        return grad_RP, {"omega": omega_R}


@dataclass(frozen=True, kw_only=True)
class DoublyStochastic(Checked):
    """L + λ Σ_s (1 - Σ_u weight_us)² with λ = `weight`: attention is to look at every source position once.

    Source: Xu et al. (2015), equation 14; `pipeline.core.models.interface.coverage_penalty`.
    """

    name: Literal["doubly_stochastic"] = "doubly_stochastic"
    weight: float

    def __post_init__(self) -> None:
        require(0 < self.weight < float("inf"), "weight", "a finite number above 0", self.weight)

    traces = False

    @property
    def coverage_weight(self) -> float:
        """By what the penalty is weighed in the gradient."""
        return self.weight

    def check(self, model: ModelSpec) -> None:
        """Check that a decoder attends.

        Raises:
            InvalidFieldError: If none does.
        """
        expected = "dot, general or additive for 'doubly_stochastic'"
        require(model.attention.name not in {"none", "self"}, "model.attention.name", expected, model.attention.name)

    def penalise(self, replicas: Replicas, flat_RP: Tensor, run: Pass) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the gradient, (R, P), the penalty's in it already, and the penalty, (R,), as the metric `coverage`."""
        return run.grad_RP, {"coverage": run.coverage}


Regularisation = NoRegularisation | VanishingGradient | DoublyStochastic
"""The variants that studies may name."""
