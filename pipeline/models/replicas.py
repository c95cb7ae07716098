"""R networks of one architecture as one batched program, their parameters one (R, P) tensor.

`torch.vmap` over `functional_call` makes the replica axis; ordinary autograd runs outside it. One flat tensor makes
clipping, its ledger and the optimiser one operation each; a row is a replica, and rows never meet.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.func import functional_call, stack_module_state

from pipeline.cells import Weights
from pipeline.cells.stack import Place, stack_states, unstack_states
from pipeline.models.sequence import Interface, Prediction, SequenceModel, StateKey, loss


class Pass(NamedTuple):
    """One pass forward and back through R replicas.

    Attributes:
        losses: Mean over examples (and scored timesteps), (R,).
        grad_RP: Of the parameters.
        states: Of every place at every timestep, (R, T, B, H), in the order of the model's `state_keys`.
        grad_states: dL/d(state) in the same order; empty unless it was traced.
    """

    losses: Tensor
    grad_RP: Tensor
    states: tuple[Tensor, ...]
    grad_states: tuple[Tensor, ...]


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
        return torch.vmap(lambda mine, x: self._call(mine, x).values, in_dims=(0, None))(dict(parameters), inputs)

    def unroll(self, parameters: Mapping[str, Tensor], inputs: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Return what every place saw, (R, T, B, D) each, and all states, (R, T, B, H) each, for the same inputs.

        Args:
            parameters: As `named` returns them.
            inputs: (B, T, D) or (B, T).
        """

        def one(mine: dict[str, Tensor], x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
            run = self._call(mine, x).run
            return list(run.inputs), stack_states(run.states)

        return torch.vmap(one, in_dims=(0, None))(dict(parameters), inputs)

    def advance(self, parameters: Mapping[str, Tensor], inputs: Tensor, initial: Sequence[Tensor] = ()) -> list[Tensor]:
        """Return the states after the last timestep, (R, B, H) each, forward in time only.

        Args:
            parameters: As `named` returns them.
            inputs: Each replica's own, (R, B, ...).
            initial: States before the first timestep, (R, B, H) each in the order of `state_keys`; none for zeros.
        """

        def one(mine: dict[str, Tensor], x: Tensor, *initial: Tensor) -> list[Tensor]:
            return stack_states(self._call(mine, x, initial).run.final)

        return torch.vmap(one)(dict(parameters), inputs, *initial)

    def losses(
        self,
        parameters: Mapping[str, Tensor],
        inputs: Tensor,
        targets: Tensor,
        taps: Sequence[Tensor] = (),
        shared: bool = False,
    ) -> Tensor:
        """Return the mean loss of every replica, (R,).

        Args:
            parameters: As `named` returns them.
            inputs: (R, B, ...), or (B, ...) if all replicas see the same.
            targets: With or without a replica axis, as `inputs`.
            taps: (R, T, B, H) each, in the order of `state_keys`, or none.
            shared: Whether inputs and targets have no replica axis.
        """
        return self._losses_and_states(parameters, inputs, targets, (), taps, None, None, shared)[0]

    def _losses_and_states(
        self,
        parameters: Mapping[str, Tensor],
        inputs: Tensor,
        targets: Tensor,
        initial: Sequence[Tensor],
        taps: Sequence[Tensor],
        num_scored: int | None,
        state_threshold: float | None,
        shared: bool,
    ) -> tuple[Tensor, list[Tensor]]:
        num_initial = len(initial)

        def one(
            mine: dict[str, Tensor], inputs: Tensor, targets: Tensor, *states: Tensor
        ) -> tuple[Tensor, list[Tensor]]:
            predicted = self._call(
                mine, inputs, states[:num_initial], states[num_initial:], num_scored, state_threshold
            )
            return loss(self.interface, predicted.values, targets), stack_states(predicted.run.states)

        data_dim = None if shared else 0
        in_dims = (0, data_dim, data_dim, *(0 for _ in (*initial, *taps)))
        return torch.vmap(one, in_dims=in_dims)(dict(parameters), inputs, targets, *initial, *taps)

    def _call(
        self,
        parameters: dict[str, Tensor],
        inputs: Tensor,
        initial: Sequence[Tensor] = (),
        taps: Sequence[Tensor] = (),
        num_scored: int | None = None,
        state_threshold: float | None = None,
    ) -> Prediction:
        cell = self.model.recurrent.cell
        start, tapped = (unstack_states(tensors, cell) if tensors else None for tensors in (initial, taps))
        return functional_call(self.model, parameters, (inputs, start, tapped, num_scored, state_threshold))

    def backpropagate(
        self,
        flat_RP: Tensor,
        inputs: Tensor,
        targets: Tensor,
        *,
        initial: Sequence[Tensor] = (),
        num_scored: int | None = None,
        state_threshold: float | None = None,
        trace: bool = False,
        shared: bool = False,
    ) -> Pass:
        """Return losses, gradients and states of one pass forward and back; each replica's its own.

        Args:
            flat_RP: Parameters.
            inputs: (R, B, T, ...), or (B, T, ...) if all replicas see the same.
            targets: Of the scored timesteps, with or without a replica axis, as `inputs`.
            initial: States before the first timestep, (R, B, H) each, in the order of `state_keys`; none for zeros.
                Nothing flows back through them.
            num_scored: Of targets at every timestep, how many timesteps at the end have one; None is all.
            state_threshold: Clips every example's dL/dh_t to this norm as it flows back; None leaves it alone.
            trace: Whether the gradients in the states are wanted too.
            shared: Whether inputs and targets have no replica axis.
        """
        num_examples, num_timesteps = inputs.shape[0 if shared else 1], inputs.shape[1 if shared else 2]
        taps: list[Tensor] = []
        if trace:
            taps = self.model.zero_taps(self.num_replicas, num_timesteps, num_examples, like=flat_RP)
        leaves = {name: view.detach().requires_grad_() for name, view in self.named(flat_RP).items()}
        losses, states = self._losses_and_states(
            leaves, inputs, targets, initial, taps, num_scored, state_threshold, shared
        )
        grads = torch.autograd.grad(losses.sum(), [*taps, *leaves.values()])
        grad_RP = torch.cat([grad.flatten(1) for grad in grads[len(taps) :]], dim=1)
        detached = tuple(state.detach() for state in states)
        return Pass(losses.detach(), grad_RP, detached, tuple(grads[: len(taps)]))

    def gradients(
        self, flat_RP: Tensor, inputs: Tensor, targets: Tensor, shared: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Return losses (R,) and their gradients (R, P), each replica's its own."""
        run = self.backpropagate(flat_RP, inputs, targets, shared=shared)
        return run.losses, run.grad_RP

    def state_gradients(
        self, flat_RP: Tensor, inputs: Tensor, targets: Tensor, shared: bool = False
    ) -> tuple[dict[StateKey, Tensor], Tensor]:
        """Return dL/dh_t (and dL/dc_t), (R, T, B, H) by place, and the parameters' gradients (R, P)."""
        run = self.backpropagate(flat_RP, inputs, targets, trace=True, shared=shared)
        return dict(zip(self.model.state_keys, run.grad_states, strict=True)), run.grad_RP

    def weights(self, flat_RP: Tensor, place: Place) -> Weights:
        """Return the parameters of one place of the stack, (R, ...) each."""
        named = self.named(flat_RP)
        return Weights(*(named[f"recurrent.{name}{place.suffix}"] for name in Weights._fields))
