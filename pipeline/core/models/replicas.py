"""R networks of one architecture as one batched program, their parameters one (R, P) tensor.

`torch.vmap` over `functional_call` makes the replica axis; ordinary autograd runs outside it. One flat tensor makes
clipping, its ledger and the optimiser one operation each; a row is a replica, and rows never meet.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.func import functional_call, stack_module_state
from torch.utils._pytree import tree_leaves, tree_map

from pipeline.core.cells import Weights
from pipeline.core.cells.stack import Place
from pipeline.core.models.interface import (
    Inputs,
    Interface,
    Prediction,
    Seq2SeqInputs,
    StateKey,
    coverage_penalty,
    loss,
)
from pipeline.core.models.network import NO_OPTIONS, Network, RunOptions, buffers_in

Result = TypeVar("Result")


class Pass(NamedTuple):
    """One pass forward and back through R replicas.

    Attributes:
        losses: Mean over examples (and scored timesteps), (R,).
        loss_weight: By what the losses were multiplied before they flowed back.
        coverage: `coverage_penalty` of every replica, (R,), whatever its weight; 0 without attention.
        grad_RP: Of the parameters.
        states: Every state at every timestep, (R, T, B, H), in the order of the model's `state_keys`.
        grad_states: dL/d(state), and dL/dx, (R, T, B, features), by the model's `tap_keys`; empty unless traced.
    """

    losses: Tensor
    loss_weight: float
    coverage: Tensor
    grad_RP: Tensor
    states: tuple[Tensor, ...]
    grad_states: dict[StateKey, Tensor]


class Replicas:
    """A replica batch: networks that share nothing but their shape.

    Args:
        models: One per seed, of equal architecture.

    Attributes:
        autocast: To which precision products outside the recurrences are rounded in passes in float32; None is none.
    """

    autocast: torch.dtype | None = None

    def __init__(self, models: Sequence[Network]) -> None:
        stacked, _ = stack_module_state(list(models))
        self.model: Network = models[0]
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

    def _each(
        self, function: Callable[..., Result], parameters: Mapping[str, Tensor], *data: Any, dims: Sequence[Any]
    ) -> Result:
        """Return `function(network, *data)` of every replica, (R, ...).

        Args:
            function: Its first argument is a replica's network, as a function of inputs and options.
            parameters: As `named` returns them.
            data: What else it is a function of, the network's inputs first.
            dims: Where each of them has its replica axis; None where all replicas see the same.
        """
        like = next(iter(parameters.values()))
        buffers = buffers_in(self.model, like.dtype)

        def one(mine: dict[str, Tensor], *data: Any) -> Result:
            return function(lambda *arguments: functional_call(self.model, mine | buffers, arguments), *data)

        if self.autocast is not None and like.dtype == torch.float32:
            rounding: Any = torch.autocast(like.device.type, self.autocast, cache_enabled=False)
        else:
            rounding = contextlib.nullcontext()
        with rounding:
            if self.model.in_turn(data[0]):
                return _in_turn(one, (dict(parameters), *data), (0, *dims))
            stacked: Result = torch.vmap(one, in_dims=(0, *dims))(dict(parameters), *data)
            return stacked

    def predict(self, parameters: Mapping[str, Tensor], inputs: Inputs) -> Tensor:
        """Return every replica's predictions for the same inputs (B, ...), (R, ...).

        Args:
            parameters: As `named` returns them.
            inputs: (B, T, D) or (B, T), or a source and decoder inputs, (B, U) or each replica's own, (R, B, U).
        """
        own = isinstance(inputs, Seq2SeqInputs) and inputs.decoder_inputs.dim() > 2  # noqa: PLR2004 - (B, U)
        dims = [Seq2SeqInputs(None, 0) if own else None]  # type: ignore[arg-type]
        return self._each(lambda network, x: network(x).values, parameters, inputs, dims=dims)

    def attend(self, parameters: Mapping[str, Tensor], inputs: Inputs) -> Tensor:
        """Return every replica's attention weights, (R, B, U, S), for the same inputs; the model has attention."""
        return self._each(lambda network, x: network(x).weights, parameters, inputs, dims=[None])

    def unroll(
        self, parameters: Mapping[str, Tensor], inputs: Tensor, options: RunOptions = NO_OPTIONS
    ) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """Return what a stack's networks say, (R, ...), the inputs of each layer and direction, and all its states.

        Both are (R, T, B, D) and (R, T, B, H) each.

        Args:
            parameters: As `named` returns them, of networks with the part "recurrent".
            inputs: (B, T, D) or (B, T), the same for all replicas.
            options: Of the pass, without tensors.
        """

        def unrolled(network: Callable[..., Any], inputs: Tensor) -> tuple[Tensor, list[Tensor], list[Tensor]]:
            prediction = network(inputs, options)
            return prediction.values, list(prediction.run.inputs), list(prediction.states)

        return self._each(unrolled, parameters, inputs, dims=[None])

    def advance(self, parameters: Mapping[str, Tensor], inputs: Tensor, initial: Sequence[Tensor] = ()) -> list[Tensor]:
        """Return the states after the last timestep, (R, B, H) each, forward in time only.

        Args:
            parameters: As `named` returns them, of networks whose states can be carried on.
            inputs: Each replica's own, (R, B, ...).
            initial: States before the first timestep, (R, B, H) each in the order of `state_keys`; none for zeros.
        """

        def advanced(network: Callable[..., Any], inputs: Tensor, *initial: Tensor) -> list[Tensor]:
            return [state[-1] for state in network(inputs, RunOptions(initial=initial)).states]

        return self._each(advanced, parameters, inputs, *initial, dims=[0] * (1 + len(initial)))

    def free_running(
        self, parameters: Mapping[str, Tensor], inputs: Seq2SeqInputs, coins: Tensor, shared: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Return the inputs of every replica's decoder and its most probable tokens, (R, B, U) each.

        Args:
            parameters: As `named` returns them.
            inputs: Source and true tokens, with or without a replica axis.
            coins: As of `RunOptions`, with a replica axis if the inputs have one.
            shared: Whether inputs and coins have no replica axis.
        """

        def decoded(network: Callable[..., Prediction], inputs: Seq2SeqInputs, coins: Tensor) -> tuple[Any, Tensor]:
            prediction = network(inputs, RunOptions(coins=coins))
            return prediction.decoder_inputs, prediction.values.argmax(dim=-1)

        dims = [None, None] if shared else [0, 0]
        return self._each(decoded, parameters, inputs, coins, dims=dims)

    def losses(
        self,
        parameters: Mapping[str, Tensor],
        inputs: Inputs,
        targets: Tensor,
        options: RunOptions = NO_OPTIONS,
        *,
        shared: bool = False,
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Return mean losses and coverage penalties, (R,), and all states; tensors of the options have a replica axis.

        The other arguments are those of `backpropagate`.
        """
        num_initial, num_taps = len(options.initial), len(options.taps)

        def scored(
            network: Callable[..., Prediction], inputs: Inputs, targets: Tensor, *states: Tensor
        ) -> tuple[Tensor, Tensor, list[Tensor]]:
            own = dataclasses.replace(
                options,
                initial=states[:num_initial],
                taps=states[num_initial : num_initial + num_taps],
                dropout=states[num_initial + num_taps :],
            )
            predicted = network(inputs, own)
            cost = loss(self.interface, predicted.values, targets)
            coverage = torch.zeros_like(cost)
            if predicted.weights is not None and isinstance(inputs, Seq2SeqInputs):
                coverage = coverage_penalty(predicted.weights, targets, self.interface.mask(inputs.source))
            return cost, coverage, list(predicted.states)

        states = (*options.initial, *options.taps, *options.dropout)
        dims = [*([None, None] if shared else [0, 0]), *([0] * len(states))]
        return self._each(scored, parameters, inputs, targets, *states, dims=dims)

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
        share_R: Tensor | None = None,
    ) -> Pass:
        """Return losses, gradients and states of one pass forward and back; each replica's its own.

        Args:
            flat_RP: Parameters, of these replicas or of some of them.
            inputs: (R, B, T, ...), or (B, T, ...) if all replicas see the same.
            targets: Of the scored timesteps, with or without a replica axis, as `inputs`.
            options: Of the pass, without taps; initial states have a replica axis, (R, B, H), and nothing flows back
                through them; coins of dropout have one, too.
            coverage_weight: Of `coverage_penalty` in the gradient; in the losses it is not.
            trace: Whether the gradients of the states, and of the encoded inputs, are wanted too.
            shared: Whether inputs and targets have no replica axis.
            share_R: Of the targets of a batch of which this is a portion: what its loss weighs in the gradient.
        """
        zero, taps = flat_RP.new_zeros(()), list[Tensor]()  # one zero, expanded: reading it costs no memory traffic
        if trace:
            shapes = self.model.tap_shapes(inputs)
            taps = [zero.expand(len(flat_RP), *shape).requires_grad_() for shape in shapes]
        leaves = {name: view.detach().requires_grad_() for name, view in self.named(flat_RP).items()}
        tapped = dataclasses.replace(options, taps=taps)
        losses, coverage, states = self.losses(leaves, inputs, targets, tapped, shared=shared)
        weighed = losses if share_R is None else losses * share_R.to(losses.dtype)
        objective = weighed.sum() if coverage_weight == 0.0 else (weighed + coverage_weight * coverage).sum()
        weight = torch.full_like(objective, options.loss_weight)
        grads = torch.autograd.grad(objective, [*taps, *leaves.values()], weight, materialize_grads=True)
        return Pass(
            losses=losses.detach(),
            loss_weight=options.loss_weight,
            coverage=coverage.detach(),
            grad_RP=torch.cat([grad.flatten(1) for grad in grads[len(taps) :]], dim=1),
            states=tuple(state.detach() for state in states),
            grad_states=dict(zip(self.model.tap_keys, grads, strict=False)) if trace else {},
        )

    def kernel(self, flat_RP: Tensor) -> str | None:
        """Return what runs the recurrences for parameters of this device and precision; None where there are none."""
        return self.model.kernel(flat_RP)

    def weights(self, flat_RP: Tensor, place: Place, part: str = "recurrent") -> Weights:
        """Return the parameters of one layer and direction of one of the model's stacks, (R, ...) each."""
        return self.model.weights(self.named(flat_RP), place, part)


def _in_turn(function: Callable[..., Result], arguments: Sequence[Any], dims: Sequence[Any]) -> Result:
    """Return what vmap over the replica axis would, from one replica after the other; the first argument has it."""

    def mine(r: int) -> list[Any]:
        pairs = zip(arguments, dims, strict=True)
        return [each if dim is None else tree_map(lambda tensor: tensor[r], each) for each, dim in pairs]

    found = [function(*mine(r)) for r in range(len(tree_leaves(arguments[0])[0]))]
    stacked: Result = tree_map(lambda *parts: torch.stack(parts), *found)
    return stacked
