"""R networks of one architecture as one batched program, their parameters one (R, P) tensor.

`torch.vmap` over `functional_call` makes the replica axis; ordinary autograd runs outside it. One flat tensor makes
clipping, its ledger and the optimiser one operation each; a row is a replica, and rows never meet.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state

from pipeline.core.cells import Weights
from pipeline.core.cells.stack import Place, stack_states
from pipeline.core.models.interface import (
    Inputs,
    Interface,
    Prediction,
    Seq2SeqInputs,
    StateKey,
    coverage_penalty,
    loss,
    num_examples_of,
)
from pipeline.core.models.network import NO_OPTIONS, Network, RunOptions


class Pass(NamedTuple):
    """One pass forward and back through R replicas.

    Attributes:
        losses: Mean over examples (and scored timesteps), (R,).
        coverage: `coverage_penalty` of every replica, (R,), whatever its weight; 0 without attention.
        grad_RP: Of the parameters.
        states: Every state at every timestep, (R, T, B, H), in the order of the model's `state_keys`.
        grad_states: dL/d(state), and dL/dx, in the order of the model's `tap_keys`; empty unless traced.
    """

    losses: Tensor
    coverage: Tensor
    grad_RP: Tensor
    states: tuple[Tensor, ...]
    grad_states: tuple[Tensor, ...]


class Replicas:
    """A replica batch: networks that share nothing but their shape.

    Args:
        models: One per seed, of equal architecture.
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
            inputs: (B, T, D) or (B, T), or a source and decoder inputs.
        """
        return self._each(lambda prediction: prediction.values, parameters, inputs)

    def predict_each(self, parameters: Mapping[str, Tensor], inputs: Seq2SeqInputs) -> Tensor:
        """Return every replica's predictions, (R, ...), of one source (B, ...) and its own decoder inputs (R, B, U)."""

        def one(mine: dict[str, Tensor], source: Tensor, decoder_inputs: Tensor) -> Tensor:
            return self._call(mine, Seq2SeqInputs(source, decoder_inputs), NO_OPTIONS).values

        return torch.vmap(one, in_dims=(0, None, 0))(dict(parameters), *inputs)

    def attend(self, parameters: Mapping[str, Tensor], inputs: Inputs) -> Tensor:
        """Return every replica's attention weights, (R, B, U, S), for the same inputs; the model has attention."""
        weights: Tensor = self._each(lambda prediction: prediction.weights, parameters, inputs)
        return weights

    def unroll(self, parameters: Mapping[str, Tensor], inputs: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Return the inputs of each layer and direction, (R, T, B, D), and all states, (R, T, B, H), of a stack.

        Args:
            parameters: As `named` returns them, of networks with the part "recurrent".
            inputs: (B, T, D) or (B, T), the same for all replicas.
        """

        def unrolled(prediction: Prediction) -> tuple[list[Tensor], list[Tensor]]:
            assert prediction.run is not None  # noqa: S101 - the caller has seen to it
            return list(prediction.run.inputs), list(prediction.states)

        inputs_and_states: tuple[list[Tensor], list[Tensor]] = self._each(unrolled, parameters, inputs)
        return inputs_and_states

    def advance(self, parameters: Mapping[str, Tensor], inputs: Tensor, initial: Sequence[Tensor] = ()) -> list[Tensor]:
        """Return the states after the last timestep, (R, B, H) each, forward in time only.

        Args:
            parameters: As `named` returns them, of networks with the part "recurrent".
            inputs: Each replica's own, (R, B, ...).
            initial: States before the first timestep, (R, B, H) each in the order of `state_keys`; none for zeros.
        """

        def one(mine: dict[str, Tensor], x: Tensor, *initial: Tensor) -> list[Tensor]:
            run = self._call(mine, x, RunOptions(initial=initial)).run
            assert run is not None  # noqa: S101 - the caller has seen to it
            return stack_states(run.final)

        return torch.vmap(one)(dict(parameters), inputs, *initial)

    def free_running(
        self, parameters: Mapping[str, Tensor], inputs: Seq2SeqInputs, coins: Tensor, shared: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Return the inputs of every replica's decoder and what it wrote, (R, B, U) each; see `Decoder.free_running`.

        Args:
            parameters: As `named` returns them.
            inputs: Source and true tokens, with or without a replica axis.
            coins: Where the true token is the decoder's input, with a replica axis if the inputs have one.
            shared: Whether inputs and coins have no replica axis.
        """

        def one(mine: dict[str, Tensor], inputs: Seq2SeqInputs, coins: Tensor) -> tuple[Tensor, Tensor]:
            network = _FreeRunning(self.model)
            return functional_call(network, {f"network.{name}": value for name, value in mine.items()}, (inputs, coins))

        data_dim = None if shared else 0
        return torch.vmap(one, in_dims=(0, data_dim, data_dim))(dict(parameters), inputs, coins)

    def losses(self, parameters: Mapping[str, Tensor], inputs: Inputs, targets: Tensor, shared: bool = False) -> Tensor:
        """Return the mean loss of every replica, (R,).

        Args:
            parameters: As `named` returns them.
            inputs: (R, B, ...), or (B, ...) if all replicas see the same.
            targets: With or without a replica axis, as `inputs`.
            shared: Whether inputs and targets have no replica axis.
        """
        return self._losses_and_states(parameters, inputs, targets, NO_OPTIONS, shared)[0]

    def _losses_and_states(
        self, parameters: Mapping[str, Tensor], inputs: Inputs, targets: Tensor, options: RunOptions, shared: bool
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Return losses and coverage penalties, (R,), and all states; tensors of the options have a replica axis."""
        num_initial = len(options.initial)

        def one(
            mine: dict[str, Tensor], inputs: Inputs, targets: Tensor, *states: Tensor
        ) -> tuple[Tensor, Tensor, list[Tensor]]:
            own = dataclasses.replace(options, initial=states[:num_initial], taps=states[num_initial:])
            predicted = self._call(mine, inputs, own)
            cost = loss(self.interface, predicted.values, targets)
            coverage = torch.zeros_like(cost)
            if predicted.weights is not None and isinstance(inputs, Seq2SeqInputs):
                coverage = coverage_penalty(predicted.weights, targets, self.interface.mask(inputs.source))
            return cost, coverage, list(predicted.states)

        states, data_dim = (*options.initial, *options.taps), None if shared else 0
        in_dims = (0, data_dim, data_dim, *(0 for _ in states))
        return torch.vmap(one, in_dims=in_dims)(dict(parameters), inputs, targets, *states)

    def _each(self, pick: Callable[[Prediction], Any], parameters: Mapping[str, Tensor], inputs: Inputs) -> Any:
        """Return what `pick` takes of every replica's prediction for the same inputs, (R, ...)."""

        def one(mine: dict[str, Tensor], inputs: Inputs) -> Any:
            return pick(self._call(mine, inputs, NO_OPTIONS))

        return torch.vmap(one, in_dims=(0, None))(dict(parameters), inputs)

    def _call(self, parameters: dict[str, Tensor], inputs: Inputs, options: RunOptions) -> Prediction:
        return functional_call(self.model, parameters, (inputs, options))

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
        options: RunOptions = NO_OPTIONS,
        *,
        coverage_weight: float = 0.0,
        trace: bool = False,
        shared: bool = False,
    ) -> Pass:
        """Return losses, gradients and states of one pass forward and back; each replica's its own.

        Args:
            flat_RP: Parameters.
            inputs: (R, B, T, ...), or (B, T, ...) if all replicas see the same.
            targets: Of the scored timesteps, with or without a replica axis, as `inputs`.
            options: Of the pass, without taps; initial states have a replica axis, (R, B, H), and nothing flows back
                through them.
            coverage_weight: Of `coverage_penalty` in the gradient; in the losses it is not.
            trace: Whether the gradients of the states, and of the encoded inputs, are wanted too.
            shared: Whether inputs and targets have no replica axis.
        """
        taps = self.zero_taps(inputs, flat_RP, shared) if trace else []
        leaves = {name: view.detach().requires_grad_() for name, view in self.named(flat_RP).items()}
        tapped = dataclasses.replace(options, taps=taps)
        losses, coverage, states = self._losses_and_states(leaves, inputs, targets, tapped, shared)
        objective = losses.sum() if coverage_weight == 0.0 else (losses + coverage_weight * coverage).sum()
        grads = torch.autograd.grad(objective, [*taps, *leaves.values()])
        return Pass(
            losses=losses.detach(),
            coverage=coverage.detach(),
            grad_RP=torch.cat([grad.flatten(1) for grad in grads[len(taps) :]], dim=1),
            states=tuple(state.detach() for state in states),
            grad_states=tuple(grads[: len(taps)]),
        )

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
        """Return the parameters of one layer and direction of one of the model's stacks, (R, ...) each."""
        named = self.named(flat_RP)
        return Weights(*(named[f"{self._prefixes[part]}.{name}{place.suffix}"] for name in Weights._fields))


class _FreeRunning(nn.Module):
    """Makes a network's `free_running` what `functional_call` calls."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, inputs: Seq2SeqInputs, coins: Tensor) -> tuple[Tensor, Tensor]:
        """Return the inputs of the decoder and what it wrote."""
        read, written = self.network.free_running(inputs, coins)  # type: ignore[operator]
        return read, written
