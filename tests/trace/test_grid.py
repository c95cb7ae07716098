"""Traced gradients are those of a loop written by hand, whatever the options of torch's layers, and nothing changes."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules import module as nn_module
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, unpack_sequence

from pipeline.trace import trace
from tests.trace.reference import Unrolled, left_on, readout

T, B, D, H, P = 4, 3, 2, 4, 3
KINDS = {
    "lstm": lambda **options: nn.LSTM(D, H, **options),
    "lstm_proj": lambda **options: nn.LSTM(D, H, proj_size=P, **options),
    "gru": lambda **options: nn.GRU(D, H, **options),
    "tanh": lambda **options: nn.RNN(D, H, **options),
    "relu": lambda **options: nn.RNN(D, H, nonlinearity="relu", **options),
}
LENGTHS = {"sorted": [4, 3, 1], "unsorted": [1, 4, 3], "even": [4, 4, 4]}
OPTIONS = [(1 + a, b, c, a ^ b ^ c) for a, b, c in itertools.product((False, True), repeat=3)]
"""Layers, both directions, batch first, and whether states are given: any two of them in every combination."""


def inputs_of(form: str, batch_first: bool, dtype: torch.dtype) -> Tensor | PackedSequence:
    x_TBD = torch.randn(T, B, D, generator=torch.Generator().manual_seed(1)).to(dtype)
    if form == "unbatched":
        return x_TBD[:, 0]
    x = x_TBD.transpose(0, 1) if batch_first else x_TBD
    if form == "batched":
        return x
    return pack_padded_sequence(x, torch.tensor(LENGTHS[form]), batch_first, enforce_sorted=form != "unsorted")


def states_of(module: nn.RNNBase, form: str, dtype: torch.dtype) -> tuple[Tensor, ...]:
    places = module.num_layers * (2 if module.bidirectional else 1)
    shape = (places,) if form == "unbatched" else (places, B)
    generator = torch.Generator().manual_seed(2)
    sizes = [module.proj_size or H] + [H] * isinstance(module, nn.LSTM)
    return tuple(torch.randn(*shape, size, generator=generator).to(dtype).requires_grad_() for size in sizes)


def run(
    module: nn.RNNBase, x: Tensor | PackedSequence, start: Sequence[Tensor] | None
) -> tuple[list[Tensor], list[Tensor]]:
    """Return outputs of each example, (T, F), and last states, and go back from a loss of all of them."""
    given = None if start is None else tuple(start) if isinstance(module, nn.LSTM) else start[0]
    outputs, final = module(x, given)
    finals = list(final) if isinstance(final, tuple) else [final]
    if isinstance(outputs, PackedSequence):
        examples = unpack_sequence(outputs)
    else:
        examples = list(outputs.unbind(0 if module.batch_first else 1)) if outputs.dim() == 3 else [outputs]
    readout([*examples, *finals]).backward()
    return examples, finals


def taken(module: nn.Module, start: Sequence[Tensor] | None) -> list[Tensor]:
    """Return the gradients of parameters and given states, and forget them."""
    leaves = [*module.parameters(), *(start or ())]
    grads = [leaf.grad for leaf in leaves]
    for leaf in leaves:
        leaf.grad = None
    return grads  # type: ignore[return-value]


@pytest.mark.parametrize("form", ["batched", "unbatched", *LENGTHS])
@pytest.mark.parametrize("kind", KINDS)
def test_traced_gradients_are_those_of_a_loop_by_hand(kind: str, form: str) -> None:
    for num_layers, bidirectional, batch_first, is_given in OPTIONS:
        torch.manual_seed(0)
        options = {"num_layers": num_layers, "bidirectional": bidirectional, "batch_first": batch_first}
        module = KINDS[kind](**options, bias=(num_layers == 1) != bidirectional).double()
        x, dtype = inputs_of(form, batch_first, torch.float64), torch.float64
        start = states_of(module, form, dtype) if is_given else None
        plain_outputs, plain_finals = run(module, x, start)
        plain_grads = taken(module, start)
        before = left_on(module)

        with trace(module, per_example=True) as traced:
            outputs, finals = run(module, x, start)
        grads = taken(module, start)
        assert left_on(module) == before
        for mine, theirs in zip(
            [*outputs, *finals, *grads], [*plain_outputs, *plain_finals, *plain_grads], strict=True
        ):
            torch.testing.assert_close(mine, theirs, rtol=1e-11, atol=1e-13)

        unrolled = Unrolled(module)
        examples, final = unrolled(x, start)
        final = [each[:, 0] for each in final] if form == "unbatched" else final
        readout([*examples, *final]).backward()
        for mine, theirs in zip(grads, taken(module, start), strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-12)
        known = unrolled.log10_norms()
        rows = traced.table.select("layer", "direction", "state", "example", "timestep", "log10_norm").rows()
        assert {row[:-1] for row in rows} == set(known)
        worst = max(abs(10 ** (row[-1] - known[row[:-1]]) - 1) for row in rows if known[row[:-1]] > -300)
        assert worst < 1e-10
    assert not nn_module._global_forward_hooks
    assert not nn_module._global_forward_pre_hooks


@pytest.mark.filterwarnings("ignore:LSTM with projections")
@pytest.mark.parametrize("form", ["batched", "sorted"])
@pytest.mark.parametrize("kind", KINDS)
def test_in_float32_outputs_and_gradients_are_equal_within_rounding(kind: str, form: str) -> None:
    torch.manual_seed(0)
    module = KINDS[kind](num_layers=2, bidirectional=True)
    x = inputs_of(form, False, torch.float32)
    outputs, finals = run(module, x, None)
    theirs = [*outputs, *finals, *taken(module, None)]
    for float64 in (False, True):
        with trace(module, float64=float64):
            outputs, finals = run(module, x, None)
        mine = [*outputs, *finals, *taken(module, None)]
        for found, expected in zip(mine, theirs, strict=True):
            assert found.dtype == torch.float32
            torch.testing.assert_close(found, expected, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("form", ["batched", "sorted", "unsorted"])
@pytest.mark.parametrize("kind", KINDS)
def test_dropout_between_layers_falls_as_it_would(kind: str, form: str) -> None:
    module = KINDS[kind](num_layers=3, dropout=0.4, bidirectional=True).double()
    x = inputs_of(form, False, torch.float64)
    for training in (True, False):
        module.train(training)
        found = []
        for on in (False, True):
            torch.manual_seed(7)
            if on:
                with trace(module) as traced:
                    outputs, finals = run(module, x, None)
                assert len(traced.table) == T * 6 * (2 if "lstm" in kind else 1)
            else:
                outputs, finals = run(module, x, None)
            found.append([*outputs, *finals, *taken(module, None)])
        for mine, theirs in zip(*found, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-11, atol=1e-13)
