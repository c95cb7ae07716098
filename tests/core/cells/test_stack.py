"""Stacks of layers and directions against torch.nn and against single layers put together by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pipeline.core.cells import CELLS, States
from pipeline.core.cells.stack import Place, RecurrentStack, places_of, stack_states, unstack_states
from tests.core.cells.reference import IN_TORCH, in_torch
from tests.core.slowly import mostly

T, B, D, H = 7, 3, 2, 4


def stack_of(cell: str, num_layers: int, bidirectional: bool) -> RecurrentStack:
    generator = torch.Generator().manual_seed(0)
    return RecurrentStack(cell, D, H, generator, num_layers, bidirectional).double()


def randn(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("num_layers", "bidirectional"), [(1, False), (1, True), (3, False), (2, True)])
@pytest.mark.parametrize("cell", IN_TORCH)
def test_outputs_finals_and_gradients_are_those_of_torch_nn(cell: str, num_layers: int, bidirectional: bool) -> None:
    stack, x = stack_of(cell, num_layers, bidirectional), randn(T, B, D)
    theirs = in_torch(cell, D, H, num_layers, bidirectional=bidirectional)
    theirs.load_state_dict(stack.state_dict())
    stack.load_state_dict(theirs.state_dict())
    start = [
        States(*(randn(B, H, seed=10 * i + j) for j, _ in enumerate(CELLS[cell].states)))
        for i in range(len(stack.places))
    ]
    h_0, *c_0 = (torch.stack(each) for each in zip(*(states.tensors() for states in start), strict=True))
    expected, final = theirs(x, (h_0, c_0[0]) if c_0 else h_0)
    run = stack(x, start)
    torch.testing.assert_close(run.outputs, expected, rtol=1e-12, atol=1e-13)
    final_h = final[0] if c_0 else final
    torch.testing.assert_close(torch.stack([state.h for state in run.final]), final_h, rtol=1e-12, atol=1e-13)
    weights = randn(*expected.shape, seed=5)
    mine = torch.autograd.grad((run.outputs * weights).sum(), [p for _, p in stack.named_parameters()])
    named = dict(theirs.named_parameters())
    other = torch.autograd.grad((expected * weights).sum(), [named[name] for name, _ in stack.named_parameters()])
    for a, b in zip(mine, other, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("cell", mostly(CELLS, "elman", "lstm"))
def test_taps_reach_every_layer_and_direction_at_their_own_timestep(cell: str) -> None:
    """A tap at timestep t moves the loss as finite differences say: time runs the same way in all."""
    stack, x = stack_of(cell, 2, True), randn(T, B, D)
    weights = randn(T, B, stack.output_size, seed=3)
    zeros = [
        torch.zeros(T, B, H, dtype=torch.float64, requires_grad=True)
        for _ in range(len(stack.cell.states) * len(stack.places))
    ]

    def loss(taps: list[Tensor]) -> Tensor:
        return (stack(x, None, unstack_states(taps, stack.cell)).outputs * weights).sum()

    grads = torch.autograd.grad(loss(zeros), zeros)
    for number, grad in enumerate(grads):
        for t in (0, 3, T - 1):
            moved = [[zero.detach().clone() for zero in zeros] for _ in range(2)]
            moved[0][number][t, 1, 2] += 1e-5
            moved[1][number][t, 1, 2] -= 1e-5
            slope = (loss(moved[0]) - loss(moved[1])) / 2e-5
            assert slope.item() == pytest.approx(grad[t, 1, 2].item(), rel=1e-5, abs=1e-8)


def test_a_backward_layer_is_a_forward_one_on_the_sequence_turned_round() -> None:
    both = stack_of("gru", 1, True)
    alone = stack_of("gru", 1, False)
    alone.load_state_dict(
        {k.removesuffix("_reverse"): v for k, v in both.state_dict().items() if k.endswith("_reverse")}
    )
    x = randn(T, B, D)
    torch.testing.assert_close(both(x).states[1].h, alone(x.flip(0)).outputs.flip(0), rtol=1e-13, atol=0)
    assert torch.equal(both(x).final[1].h, both(x).states[1].h[0])


def test_layers_directions_and_their_parameters_have_the_names_of_torch() -> None:
    assert places_of(2, True) == (
        Place(0, "forward"), Place(0, "backward"), Place(1, "forward"), Place(1, "backward"),
    )  # fmt: skip
    assert [place.suffix for place in places_of(2, True)] == ["_l0", "_l0_reverse", "_l1", "_l1_reverse"]
    assert list(stack_of("lstm", 2, True).state_dict()) == list(nn.LSTM(D, H, 2, bidirectional=True).state_dict())


def test_states_are_stacked_and_unstacked_in_order() -> None:
    tensors = [randn(1, seed=i) for i in range(4)]
    states = unstack_states(tensors, CELLS["lstm"])
    assert [(s.h, s.c) for s in states] == [(tensors[0], tensors[1]), (tensors[2], tensors[3])]
    assert stack_states(states) == tensors


@pytest.mark.parametrize("initial", [False, True])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("cell", ["elman", "gru", "lstm"])
def test_an_empty_sequence_ends_in_its_initial_state(cell: str, bidirectional: bool, initial: bool) -> None:
    stack, x = stack_of(cell, 2, bidirectional), randn(4, 2, D)
    before = None
    if initial:
        sizes = len(stack.cell.states)
        before = [States(*(randn(2, stack.hidden_size, seed=9) for _ in range(sizes))) for _ in stack.places]
    run = stack(x, before, None, torch.tensor([0, 3]))
    alone = stack(x[:3, 1:], None if before is None else [state.map(lambda s: s[1:]) for state in before])
    for index, (final, wanted) in enumerate(zip(run.final, alone.final, strict=True)):
        for name, each in enumerate(final.tensors()):
            start = torch.zeros(stack.hidden_size) if before is None else before[index].tensors()[name][0]
            assert torch.equal(each[0], start.to(each.dtype))
            torch.testing.assert_close(each[1], wanted.tensors()[name][0], rtol=1e-12, atol=1e-13)
    total = sum(each.square().sum() for final in run.final for each in final.tensors())
    assert all(grad.isfinite().all() for grad in torch.autograd.grad(total, list(stack.parameters())))


@pytest.mark.parametrize("cell", ["lstm", "gru", "lstm_layer_norm"])
def test_pieces_of_a_pass_fuse_the_weights_once_and_are_what_one_piece_is(
    cell: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack, x = stack_of(cell, 2, False), randn(T, B, D)
    parameters = [*stack.parameters()]
    whole = stack(x)
    expected = torch.autograd.grad(whole.outputs.square().sum(), parameters)
    calls, fused = [], type(stack.cell).fused
    monkeypatch.setattr(type(stack.cell), "fused", lambda self, weights: calls.append(1) or fused(self, weights))
    made: dict[Place, Any] = {}
    outputs, states = [], None
    for piece in x.split(3):
        run = stack(piece, states, fused=made)
        outputs.append(run.outputs)
        states = list(run.final)
    assert len(calls) == (0 if stack.cell.whole_step is not None else len(stack.places))
    torch.testing.assert_close(torch.cat(outputs), whole.outputs, rtol=1e-12, atol=1e-13)
    found = torch.autograd.grad(torch.cat(outputs).square().sum(), parameters)
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-12)
