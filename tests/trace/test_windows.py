from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pipeline.config.strict import InvalidFieldError
from pipeline.trace import TraceError, windows

T, B, D, H = 11, 3, 2, 4


@pytest.fixture
def lstm() -> nn.LSTM:
    torch.manual_seed(0)
    return nn.LSTM(D, H).double()


def sequence() -> Tensor:
    return torch.randn(T, B, D, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def gradient(lstm: nn.LSTM, outputs: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(outputs.square().sum(), list(lstm.parameters())))


def by_hand(lstm: nn.LSTM, start: int, stop: int, num_scored: int) -> list[Tensor]:
    state = None
    if start:
        with torch.no_grad():
            _, state = lstm(sequence()[:start])
    return gradient(lstm, lstm(sequence()[start:stop], state)[0][-num_scored:])


@pytest.mark.parametrize(("k1", "k2"), [(4, None), (4, 4), (3, 5), (2, 7), (1, 3), (5, 100), (100, None)])
def test_a_window_has_the_gradient_through_its_newest_timesteps(lstm: nn.LSTM, k1: int, k2: int | None) -> None:
    scored, weights = list[int](), 0.0
    for window in windows(sequence(), k1, k2):
        assert window.start == max(0, window.stop - (k2 or k1)) or window.stop - window.start < (k2 or k1)
        outputs = window.run(lstm)
        torch.testing.assert_close(outputs, lstm(sequence())[0][window.stop - len(outputs) : window.stop])
        torch.testing.assert_close(
            gradient(lstm, outputs), by_hand(lstm, window.start, window.stop, len(outputs)), rtol=1e-10, atol=1e-12
        )
        steps = window.of(torch.arange(T)).tolist()
        assert len(steps) == len(outputs) == window.num_scored
        scored, weights = scored + steps, weights + window.weight
    assert scored == list(range(T))
    assert weights == pytest.approx(1.0)
    assert window.final[0].shape == (1, B, H)


def test_a_window_runs_under_the_parameters_of_the_moment() -> None:
    """Updates between windows do not meet the graph of an earlier one."""
    gru = nn.GRU(D, H).double()
    optimiser = torch.optim.SGD(gru.parameters(), lr=0.1)
    for window in windows(sequence(), 2, 6):
        before = window.state
        optimiser.zero_grad()
        window.run(gru).square().mean().backward()
        optimiser.step()
        assert before is None or not before.requires_grad


def test_states_may_be_of_any_structure_and_the_batch_first() -> None:
    cell = nn.GRUCell(D, H).double()

    def model(x_BTD: Tensor, state: Any) -> tuple[Tensor, Any]:
        h, outputs = (state or {"h": [None]})["h"][0], []
        for x_t in x_BTD.unbind(1):
            h = cell(x_t, h)
            outputs.append(h)
        return torch.stack(outputs, dim=1), {"h": [h]}

    x = sequence().transpose(0, 1)
    whole, _ = model(x, None)
    for window in windows(x, 4, 6, dim=1):
        outputs = window.run(model)
        torch.testing.assert_close(outputs, window.of(whole))
        assert window.state is None or not window.state["h"][0].requires_grad
    assert window.stop == T


def test_the_bias_is_that_of_the_gradients(lstm: nn.LSTM) -> None:
    *_, window = iterate(lstm)
    before = copy.deepcopy(lstm.state_dict())
    found = window.bias(lstm, lambda outputs: outputs.square().sum(), lengths=(2, 5, T))
    flat = [torch.cat([g.flatten() for g in by_hand(lstm, T - k, T, window.num_scored)]) for k in (2, 5, T)]
    for bias, mine in zip(found, flat, strict=True):
        cosine = torch.nn.functional.cosine_similarity(mine, flat[-1], dim=0).item()
        assert bias.cosine == pytest.approx(cosine, abs=1e-12)
        assert bias.relative_error == pytest.approx(((mine - flat[-1]).norm() / flat[-1].norm()).item(), abs=1e-12)
    assert [bias.backward_length for bias in found] == [2, 5, T]
    assert found[0].relative_error > found[1].relative_error > found[2].relative_error == 0
    assert all(torch.equal(before[name], value) for name, value in lstm.state_dict().items())
    assert all(parameter.grad is None for parameter in lstm.parameters())


def iterate(lstm: nn.LSTM) -> list[Any]:
    found = []
    for window in windows(sequence(), 3, 5):
        window.run(lstm)
        found.append(window)
    return found


def test_without_lengths_the_bias_is_of_the_window_and_of_the_parameters_that_are_given(lstm: nn.LSTM) -> None:
    window = iterate(lstm)[-1]
    (bias,) = window.bias(lambda x, state: lstm(x, state), torch.sum, parameters=[lstm.weight_hh_l0])
    assert bias.backward_length == 5
    assert not math.isnan(bias.cosine)


def test_misuse_is_named(lstm: nn.LSTM) -> None:
    with pytest.raises(InvalidFieldError, match="backward_length: expected an integer of at least update_every"):
        next(windows(sequence(), 5, 3))
    with pytest.raises(TraceError, match=r"windows: expected `window\.run\(model\)` in the loop"):
        list(windows(sequence(), 5))
    window = iterate(lstm)[-1]
    with pytest.raises(TraceError, match=r"bias: expected lengths from 2 to 11, got \[1\]"):
        window.bias(lstm, torch.sum, lengths=[1])
    with pytest.raises(TraceError, match="bias: expected `parameters`, since the model is a function"):
        window.bias(lambda x, state: lstm(x, state), torch.sum)
