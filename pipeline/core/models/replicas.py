"""R networks of one architecture as one batched program, their parameters one (R, P) tensor.

`torch.vmap` over `functional_call` makes the replica axis; ordinary autograd runs outside it. One flat tensor makes
clipping, its ledger and the optimiser one operation each; a row is a replica, and rows never meet.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state

from pipeline.core.cells import Weights
from pipeline.core.cells.stack import Place, stack_states
from pipeline.core.models.interface import (
    Inputs,
    Interface,
    Prediction,
    Reading,
    StateKey,
    coverage_penalty,
    loss,
    num_examples_of,
)
from pipeline.core.models.network import Network


class Pass(NamedTuple):
    """One pass forward and back through R replicas.

    Attributes:
        losses: Mean over examples (and scored timesteps), (R,).
        coverage: The penalty of what attention left out, (R,), whether or not it is weighed; 0 without attention.
        grad_RP: Of the parameters.
        states: Of every place at every timestep, (R, T, B, H), in the order of the model's `state_keys`.
        grad_states: dL/d(state), and dL/dx, in the order of the model's `tap_keys`; empty unless it was traced.
    """

    losses: Tensor
    coverage: Tensor
    grad_RP: Tensor
    states: tuple[Tensor, ...]
    grad_states: tuple[Tensor, ...]


class Replicas:
    """A pack of networks that share nothing but their shape.

    Args:
        models: One a seed, of equal architecture.
    """

    def __init__(self, models: Sequence[Network]) -> None:
        stacked, _ = stack_module_state(list(models))
        self.model: Network = models[0]
        self.interface: Interface = self.model.interface
        self.shapes = {name: tuple(tensor.shape[1:]) for name, tensor in stacked.items()}
        self.flat_RP = torch.cat([tensor.detach().flatten(1) for tensor in stacked.values()], dim=1).contiguous()
        names = {id(module): name for name, module in self.model.named_modules()}
        self._prefixes = {part: names[id(stack)] for part, stack in self.model.stacks.items()}

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

    def predict(self, parameters: Mapping[str, Tensor], inputs: Inputs) -> Tensor:
        """Return every replica's predictions for the same inputs (B, ...), (R, ...).

        Args:
            parameters: As `named` returns them.
            inputs: (B, T, D) or (B, T), or a source with what a decoder is given.
        """
        return torch.vmap(lambda mine, x: self._call(mine, x).values, in_dims=(0, None))(dict(parameters), inputs)

    def predict_each(self, parameters: Mapping[str, Tensor], inputs: Reading) -> Tensor:
        """Return every replica's predictions, (R, ...), for one source (B, ...) and what each is given, (R, B, U)."""
        in_dims = (0, None, 0)
        return torch.vmap(lambda mine, *x: self._call(mine, Reading(*x)).values, in_dims)(dict(parameters), *inputs)

    def attend(self, parameters: Mapping[str, Tensor], inputs: Inputs) -> Tensor:
        """Return what every replica's attention looks at, (R, B, U, S); the model has attention."""

        def one(mine: dict[str, Tensor], inputs: Inputs) -> Tensor:
            weights = self._call(mine, inputs).weights
            assert weights is not None  # noqa: S101 - the caller has seen to it
            return weights

        return torch.vmap(one, in_dims=(0, None))(dict(parameters), inputs)

    def run_free(
        self, parameters: Mapping[str, Tensor], inputs: Reading, coins: Tensor, shared: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Return what every replica's decoder was given and what it said, (R, B, U) each; see `Decoder.run_free`.

        Args:
            parameters: As `named` returns them.
            inputs: Source and true tokens, with or without a replica axis.
            coins: Where the true token is given, with a replica axis if the inputs have one.
            shared: Whether inputs and coins have no replica axis.
        """

        def one(mine: dict[str, Tensor], inputs: Reading, coins: Tensor) -> tuple[Tensor, Tensor]:
            return functional_call(
                _RunningFree(self.model), {f"network.{k}": v for k, v in mine.items()}, (inputs, coins)
            )

        data_dim = None if shared else 0
        return torch.vmap(one, in_dims=(0, data_dim, data_dim))(dict(parameters), inputs, coins)

    def unroll(self, parameters: Mapping[str, Tensor], inputs: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Return what every place saw, (R, T, B, D) each, and all states, (R, T, B, H) each, for the same inputs.

        Args:
            parameters: As `named` returns them, of networks with one recurrent stack.
            inputs: (B, T, D) or (B, T).
        """

        def one(mine: dict[str, Tensor], x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
            prediction = self._call(mine, x)
            assert prediction.run is not None  # noqa: S101 - the caller has seen to it
            return list(prediction.run.inputs), list(prediction.states)

        return torch.vmap(one, in_dims=(0, None))(dict(parameters), inputs)

    def advance(self, parameters: Mapping[str, Tensor], inputs: Tensor, initial: Sequence[Tensor] = ()) -> list[Tensor]:
        """Return the states after the last timestep, (R, B, H) each, forward in time only.

        Args:
            parameters: As `named` returns them.
            inputs: Each replica's own, (R, B, ...).
            initial: States before the first timestep, (R, B, H) each in the order of `state_keys`; none for zeros.
        """

        def one(mine: dict[str, Tensor], x: Tensor, *initial: Tensor) -> list[Tensor]:
            run = self._call(mine, x, initial).run
            assert run is not None  # noqa: S101 - truncation is for networks with one recurrent stack
            return stack_states(run.final)

        return torch.vmap(one)(dict(parameters), inputs, *initial)

    def losses(
        self,
        parameters: Mapping[str, Tensor],
        inputs: Inputs,
        targets: Tensor,
        taps: Sequence[Tensor] = (),
        shared: bool = False,
    ) -> Tensor:
        """Return the mean loss of every replica, (R,).

        Args:
            parameters: As `named` returns them.
            inputs: (R, B, ...), or (B, ...) if all replicas see the same.
            targets: With or without a replica axis, as `inputs`.
            taps: (R, T, B, features) each, in the order of `tap_keys`, or none.
            shared: Whether inputs and targets have no replica axis.
        """
        return self._losses_and_states(parameters, inputs, targets, (), taps, None, None, shared)[0]

    def _losses_and_states(
        self,
        parameters: Mapping[str, Tensor],
        inputs: Inputs,
        targets: Tensor,
        initial: Sequence[Tensor],
        taps: Sequence[Tensor],
        num_scored: int | None,
        state_threshold: float | None,
        shared: bool,
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        num_initial = len(initial)

        def one(
            mine: dict[str, Tensor], inputs: Inputs, targets: Tensor, *states: Tensor
        ) -> tuple[Tensor, Tensor, list[Tensor]]:
            before, taps = states[:num_initial], states[num_initial:]
            predicted = self._call(mine, inputs, before, taps, num_scored, state_threshold)
            cost = loss(self.interface, predicted.values, targets)
            coverage = torch.zeros_like(cost)
            if predicted.weights is not None and isinstance(inputs, Reading):
                coverage = coverage_penalty(predicted.weights, targets, self.interface.mask(inputs.source))
            return cost, coverage, list(predicted.states)

        data_dim = None if shared else 0
        in_dims = (0, data_dim, data_dim, *(0 for _ in (*initial, *taps)))
        return torch.vmap(one, in_dims=in_dims)(dict(parameters), inputs, targets, *initial, *taps)

    def _call(
        self,
        parameters: dict[str, Tensor],
        inputs: Inputs,
        initial: Sequence[Tensor] = (),
        taps: Sequence[Tensor] = (),
        num_scored: int | None = None,
        state_threshold: float | None = None,
    ) -> Prediction:
        return functional_call(self.model, parameters, (inputs, initial, taps, num_scored, state_threshold))

    def zero_taps(self, inputs: Inputs, like: Tensor, shared: bool) -> list[Tensor]:
        """Return a zero for each of the model's `tap_keys`, (R, T, B, features) each, to be differentiated by.

        They are one zero, expanded: reading it costs no memory traffic.

        Args:
            inputs: With or without a replica axis.
            like: Gives type and device.
            shared: Whether the inputs have no replica axis.
        """
        num_examples, zero = num_examples_of(inputs, axis=0 if shared else 1), like.new_zeros(())
        shapes = self.model.tap_shapes(inputs)
        return [zero.expand(self.num_replicas, T, num_examples, size).requires_grad_() for T, size in shapes]

    def backpropagate(
        self,
        flat_RP: Tensor,
        inputs: Inputs,
        targets: Tensor,
        *,
        initial: Sequence[Tensor] = (),
        num_scored: int | None = None,
        state_threshold: float | None = None,
        coverage_weight: float = 0.0,
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
            coverage_weight: By what `coverage_penalty` is weighed in the gradient; in the losses it is not.
            trace: Whether the gradients in the states, and in what is read, are wanted too.
            shared: Whether inputs and targets have no replica axis.
        """
        taps = self.zero_taps(inputs, flat_RP, shared) if trace else []
        leaves = {name: view.detach().requires_grad_() for name, view in self.named(flat_RP).items()}
        losses, coverage, states = self._losses_and_states(
            leaves, inputs, targets, initial, taps, num_scored, state_threshold, shared
        )
        objective = losses.sum() if coverage_weight == 0.0 else (losses + coverage_weight * coverage).sum()
        grads = torch.autograd.grad(objective, [*taps, *leaves.values()])
        grad_RP = torch.cat([grad.flatten(1) for grad in grads[len(taps) :]], dim=1)
        detached = tuple(state.detach() for state in states)
        return Pass(losses.detach(), coverage.detach(), grad_RP, detached, tuple(grads[: len(taps)]))

    def gradients(
        self, flat_RP: Tensor, inputs: Inputs, targets: Tensor, shared: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Return losses (R,) and their gradients (R, P), each replica's its own."""
        run = self.backpropagate(flat_RP, inputs, targets, shared=shared)
        return run.losses, run.grad_RP

    def state_gradients(
        self, flat_RP: Tensor, inputs: Inputs, targets: Tensor, shared: bool = False
    ) -> tuple[dict[StateKey, Tensor], Tensor]:
        """Return dL/dh_t (and dL/dc_t, and dL/dx_t), (R, T, B, H) by key, and the parameters' gradients (R, P)."""
        run = self.backpropagate(flat_RP, inputs, targets, trace=True, shared=shared)
        return dict(zip(self.model.tap_keys, run.grad_states, strict=True)), run.grad_RP

    def weights(self, flat_RP: Tensor, place: Place, part: str = "recurrent") -> Weights:
        """Return the parameters of one place of one of the model's stacks, (R, ...) each."""
        named = self.named(flat_RP)
        return Weights(*(named[f"{self._prefixes[part]}.{name}{place.suffix}"] for name in Weights._fields))


class _RunningFree(nn.Module):
    """Makes a network's `run_free` what `functional_call` calls."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, inputs: Reading, coins: Tensor) -> tuple[Tensor, Tensor]:
        """Return what the decoder was given and what it said."""
        read, said = self.network.run_free(inputs, coins)  # type: ignore[operator]
        return read, said
