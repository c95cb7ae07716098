"""R networks of one architecture as one batched program, their parameters one (R, P) tensor.

`torch.vmap` over `functional_call` makes the replica axis; ordinary autograd runs outside it. One flat tensor makes
clipping, its ledger and the optimiser one operation each; a row is a replica, and rows never meet.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.func import functional_call, stack_module_state

from pipeline.cells.layer import States
from pipeline.models.sequence import Interface, SequenceModel, loss


class Replicas:
    """A pack of networks that share nothing but their shape.

    Args:
        models: One a seed, of equal architecture.
    """

    def __init__(self, models: Sequence[SequenceModel]) -> None:
        stacked, _ = stack_module_state(list(models))
        self.model: SequenceModel = models[0]
        self.interface: Interface = self.model.interface
        self.shapes = {name: tuple(tensor.shape[1:]) for name, tensor in stacked.items()}
        self.flat_RP = torch.cat([tensor.detach().flatten(1) for tensor in stacked.values()], dim=1).contiguous()

    @property
    def num_replicas(self) -> int:
        """R."""
        return self.flat_RP.shape[0]

    @property
    def num_parameters(self) -> int:
        """P, trained numbers of one network."""
        return self.flat_RP.shape[1]

    def named(self, flat_RP: Tensor) -> dict[str, Tensor]:
        """Return views of a flat tensor, parameter by parameter, (R, *shape) each."""
        sizes = [torch.Size(shape).numel() for shape in self.shapes.values()]
        parts = flat_RP.split(sizes, dim=1)
        return {name: part.unflatten(1, shape) for (name, shape), part in zip(self.shapes.items(), parts, strict=True)}

    def predict(self, parameters: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
        """Return every replica's predictions for the same inputs (B, ...), (R, ...).

        Args:
            parameters: As `named` returns them.
            inputs: (B, T, D) or (B, T).
        """
        return torch.vmap(self._call, in_dims=(0, None))(dict(parameters), inputs)

    def losses(
        self,
        parameters: Mapping[str, Tensor],
        inputs: Tensor,
        targets: Tensor,
        taps: States | None = None,
        shared: bool = False,
    ) -> Tensor:
        """Return the mean loss of every replica, (R,).

        Args:
            parameters: As `named` returns them.
            inputs: (R, B, ...), or (B, ...) if all replicas see the same.
            targets: With or without a replica axis, as `inputs`.
            taps: (R, T, B, H) each, or None.
            shared: Whether inputs and targets have no replica axis.
        """

        def one(parameters: dict[str, Tensor], inputs: Tensor, targets: Tensor, *taps: Tensor) -> Tensor:
            return loss(self.interface, self._call(parameters, inputs, *taps), targets)

        wanted = [] if taps is None else [tap for tap in taps if tap is not None]
        data_dim = None if shared else 0
        in_dims = (0, data_dim, data_dim, *(0 for _ in wanted))
        return torch.vmap(one, in_dims=in_dims)(dict(parameters), inputs, targets, *wanted)

    def _call(self, parameters: dict[str, Tensor], inputs: Tensor, *taps: Tensor) -> Tensor:
        return functional_call(self.model, parameters, (inputs, States(*taps) if taps else None))

    def gradients(
        self, flat_RP: Tensor, inputs: Tensor, targets: Tensor, shared: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Return losses (R,) and their gradients (R, P), each replica's its own."""
        leaves = {name: view.detach().requires_grad_() for name, view in self.named(flat_RP).items()}
        losses = self.losses(leaves, inputs, targets, shared=shared)
        grads = torch.autograd.grad(losses.sum(), list(leaves.values()))
        return losses.detach(), torch.cat([grad.flatten(1) for grad in grads], dim=1)

    def state_gradients(
        self, flat_RP: Tensor, inputs: Tensor, targets: Tensor, shared: bool = False
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Return dL/dh_t (and dL/dc_t), (R, T, B, H) by name, and the parameters' gradients (R, P)."""
        num_examples, num_timesteps = inputs.shape[0 if shared else 1], inputs.shape[1 if shared else 2]
        taps = self.model.zero_taps(self.num_replicas, num_timesteps, num_examples, like=flat_RP)
        leaves = {name: view.detach().requires_grad_() for name, view in self.named(flat_RP).items()}
        losses = self.losses(leaves, inputs, targets, taps, shared)
        wanted = [tap for tap in taps if tap is not None]
        grads = torch.autograd.grad(losses.sum(), [*wanted, *leaves.values()])
        states = dict(zip(self.model.state_names, grads, strict=False))
        return states, torch.cat([grad.flatten(1) for grad in grads[len(wanted) :]], dim=1)
