"""Where the first number that is not finite came from."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from pipeline.models import Replicas


class Location(NamedTuple):
    """The place of a divergence.

    Attributes:
        timestep: 1..T, or None where no timestep is to blame.
        quantity: "grad_h" or "grad_c", a parameter such as "recurrent.weight_hh_l0", or "loss".
        num_nonfinite: Entries of the parameters' gradient that are not finite.
    """

    timestep: int | None
    quantity: str
    num_nonfinite: int


def locate(replicas: Replicas, flat_RP: Tensor, inputs: Tensor, targets: Tensor, replica: int) -> Location:
    """Return where the gradient of one replica stopped being finite.

    The backward pass runs from T to 1, so the first bad timestep it meets is the largest one. If every state's
    gradient is finite, a parameter is named.

    Args:
        replicas: The pack.
        flat_RP: Parameters at which the step was tried.
        inputs: The batch of that step, (R, B, ...).
        targets: Its targets.
        replica: Which one diverged.
    """
    states, grad_RP = replicas.state_gradients(flat_RP, inputs, targets)
    num_nonfinite = int((~grad_RP[replica].isfinite()).sum())
    bad = {name: ~grad[replica].isfinite().flatten(1).all(dim=1) for name, grad in states.items()}
    timesteps = {name: int(mask.nonzero().max()) + 1 for name, mask in bad.items() if bool(mask.any())}
    if timesteps:
        name = max(timesteps, key=lambda key: timesteps[key])
        return Location(timesteps[name], f"grad_{name}", num_nonfinite)
    for name, grad in replicas.named(grad_RP).items():
        if not bool(grad[replica].isfinite().all()):
            return Location(None, name, num_nonfinite)
    return Location(None, "loss", num_nonfinite)
