"""A new clipping rule: the direction alone, g ← δ g/‖g‖, whatever the size of the gradient."""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from pipeline.config.strict import require
from pipeline.core.clipping import ClippingRule, Params, State, norms


@dataclass(frozen=True, kw_only=True)
class Normalised(ClippingRule):
    """Normalise the gradient of each replica to norm δ (Hazan, Levy and Shalev-Shwartz, 2015)."""

    name: Literal["normalised"] = "normalised"
    threshold: float

    def __post_init__(self) -> None:
        require(self.threshold > 0, "threshold", "a number above 0", self.threshold)

    def update(self, grad_RP: Tensor, state: State, params: Params) -> tuple[Tensor, State]:
        """Return the gradient scaled to the threshold; a gradient of zero stays zero."""
        return grad_RP * (self.threshold / norms(grad_RP).clamp(min=1e-30))[:, None].to(grad_RP.dtype), state
