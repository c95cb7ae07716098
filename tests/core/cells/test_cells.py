"""Every cell against two independent routes (a hand-unrolled loop, torch.nn), finite differences and closed forms."""

import math

import pytest
import torch
from torch import Tensor, nn

from pipeline.core.cells import CELLS, States
from pipeline.core.cells.stack import RecurrentStack
from tests.core.cells.reference import FIRST_OF_EACH_FORM, IN_TORCH, in_torch, stacked, unrolled, zero_states
from tests.core.slowly import mostly

T, B, D, H = 9, 3, 2, 5
TOLERANCE = 1e-10  # relative, float64


def layer_of(name: str, seed: int = 0, input_size: int = D, hidden_size: int = H) -> RecurrentStack:
    return RecurrentStack(name, input_size, hidden_size, torch.Generator().manual_seed(seed)).double()


def run(
    layer: RecurrentStack, x: Tensor, initial: States | None = None, taps: States | None = None
) -> tuple[States, States]:
    """States at every timestep and the final ones of a stack of one layer."""
    found = layer(x, None if initial is None else [initial], None if taps is None else [taps])
    return found.states[0], found.final[0]


def randn(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def initial_states(name: str) -> States:
    return States(*(randn(B, H, seed=2 + i) for i, _ in enumerate(CELLS[name].states)))


def relative_error(actual: Tensor, expected: Tensor) -> float:
    return ((actual - expected).norm() / expected.norm()).item()


def leaves(states: States) -> list[Tensor]:
    return [tensor.requires_grad_() for tensor in states.tensors()]


@pytest.mark.parametrize("name", FIRST_OF_EACH_FORM)
def test_values_and_every_gradient_agree_with_a_hand_unrolled_loop(name: str) -> None:
    layer, x, initial = layer_of(name), randn(T, B, D).requires_grad_(), initial_states(name)
    weights = randn(T, B, H, seed=4)  # so that every timestep has a direct gradient of its own
    wanted = [x, *layer.parameters(), *leaves(initial)]

    examples = unrolled(name, layer, x, initial)
    expected_h = stacked(examples, "h", gradient=False)
    expected = torch.autograd.grad((expected_h * weights).sum(), wanted)  # fills the retained gradients too

    taps = zero_states(name, T, B, H)
    tapped = leaves(taps)
    states, _ = run(layer, x, initial, taps=taps)
    actual = torch.autograd.grad((states.h * weights).sum(), [*wanted, *tapped])

    assert relative_error(states.h, expected_h) < TOLERANCE
    for mine, theirs in zip(actual[: len(wanted)], expected, strict=True):
        assert relative_error(mine, theirs) < TOLERANCE
    of_states = torch.stack([stacked(examples, which, gradient=True) for which in CELLS[name].states])
    for t in range(T):  # states together: in one that the loss does not depend on there is rounding alone
        assert relative_error(torch.stack(actual[len(wanted) :])[:, t], of_states[:, t]) < TOLERANCE, f"dL/ds_{t + 1}"


@pytest.mark.parametrize("name", IN_TORCH)
def test_values_and_gradients_agree_with_torch_nn_and_weights_are_exchangeable(name: str) -> None:
    layer, x, theirs = layer_of(name), randn(T, B, D), in_torch(name, D, H)
    theirs.load_state_dict(layer.state_dict())
    layer.load_state_dict(theirs.state_dict())
    weights, initial = randn(T, B, H, seed=4), initial_states(name)
    start = initial.map(lambda state: state[None]).tensors()
    expected_h, expected_final = theirs(x, start if len(start) > 1 else start[0])
    states, final = run(layer, x, initial)
    expected = torch.autograd.grad((expected_h * weights).sum(), list(theirs.parameters()))
    actual = torch.autograd.grad((states.h * weights).sum(), list(layer.parameters()))
    assert relative_error(states.h, expected_h) < TOLERANCE
    for mine, other in zip(actual, expected, strict=True):
        assert relative_error(mine, other) < TOLERANCE
    finals = expected_final if len(start) > 1 else (expected_final,)
    for mine_final, other_final in zip(final.tensors(), finals, strict=True):
        assert relative_error(mine_final, other_final[0]) < TOLERANCE


@pytest.mark.parametrize("name", mostly(CELLS, "elman", "gru"))
def test_gradcheck(name: str) -> None:
    layer, x, initial = layer_of(name), randn(4, 2, D).requires_grad_(), initial_states(name)
    initial = initial.map(lambda state: state[:2].clone())
    taps = States(*(randn(4, 2, H, seed=6 + i) * 0.1 for i, _ in enumerate(CELLS[name].states)))
    arguments = [*leaves(initial), *leaves(taps)]
    names = [key for key, _ in layer.named_parameters()]

    def function(x: Tensor, *arguments: Tensor) -> tuple[Tensor, ...]:
        half = len(CELLS[name].states)
        parameters = dict(zip(names, arguments[2 * half :], strict=True))
        call = (x, [States(*arguments[:half])], [States(*arguments[half : 2 * half])])
        return torch.func.functional_call(layer, parameters, call).states[0].tensors()

    assert torch.autograd.gradcheck(function, (x, *arguments, *layer.parameters()))


@pytest.mark.parametrize("a", [0.5, -0.9, 1.1])
def test_scalar_linear_network_loses_a_factor_a_each_timestep(a: float) -> None:
    layer = layer_of("elman_linear", input_size=1, hidden_size=1)
    with torch.no_grad():
        layer.weight_hh_l0.fill_(a)
    tap = torch.zeros(40, 1, 1, dtype=torch.float64, requires_grad=True)
    states, _ = run(layer, randn(40, 1, 1), taps=States(tap))
    (gradient,) = torch.autograd.grad(states.h[-1].sum(), [tap])
    for k in range(40):
        assert gradient[-1 - k].item() == pytest.approx(a**k, rel=1e-12)


def test_orthogonal_linear_network_keeps_the_norm_of_the_gradient() -> None:
    layer = layer_of("elman_linear", hidden_size=16)
    with torch.no_grad():
        nn.init.orthogonal_(layer.weight_hh_l0, generator=torch.Generator().manual_seed(5))
    tap = torch.zeros(200, B, 16, dtype=torch.float64, requires_grad=True)
    states, _ = run(layer, randn(200, B, D), taps=States(tap))
    (gradient,) = torch.autograd.grad((states.h[-1] ** 2).sum(), [tap])
    norms = gradient.flatten(1).norm(dim=1)
    assert torch.allclose(norms, norms[-1].expand(200), rtol=1e-12, atol=0)


@pytest.mark.parametrize(("bias", "half_life"), [(0.0, 1.00), (1.0, 2.21), (2.0, 5.46), (3.0, 14.27), (5.0, 103.2)])
def test_lstm_with_small_weights_loses_the_cell_gradient_at_the_rate_of_its_forget_gate(
    bias: float, half_life: float
) -> None:
    layer = layer_of("lstm")
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.mul_(1e-9)
        layer.bias_hh_l0[H : 2 * H] = bias
    tap_h, tap_c = (torch.zeros(30, 1, H, dtype=torch.float64, requires_grad=True) for _ in range(2))
    states, _ = run(layer, randn(30, 1, D), taps=States(tap_h, tap_c))
    (gradient,) = torch.autograd.grad(states.c[-1].sum(), [tap_c])
    factor = (gradient[0].norm() / gradient[20].norm()).item() ** (1 / 20)
    assert factor == pytest.approx(1 / (1 + math.exp(-bias)), rel=1e-6)
    assert math.log(0.5) / math.log(factor) == pytest.approx(half_life, rel=5e-3)


@pytest.mark.parametrize("name", mostly(CELLS, "elman", "lstm", "lem"))
def test_no_gradient_asked_gives_the_same_states(name: str) -> None:
    layer, x = layer_of(name), randn(T, B, D)
    with torch.no_grad():
        quiet, quiet_final = run(layer, x)
    states, final = run(layer, x)
    for mine, expected in zip(
        [*quiet.tensors(), *quiet_final.tensors()], [*states.tensors(), *final.tensors()], strict=True
    ):
        assert torch.equal(mine, expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", CELLS)
def test_final_state_continues_the_sequence(name: str, dtype: torch.dtype) -> None:
    layer, x = layer_of(name).to(dtype), randn(T, B, D).to(dtype)
    whole, _ = run(layer, x)
    first, middle = run(layer, x[:4])
    second, _ = run(layer, x[4:], middle)
    joined = torch.cat([first.h, second.h])
    if CELLS[name].whole_step is None:
        assert torch.equal(joined, whole.h)
    else:  # torch's products round otherwise where a state lies otherwise in memory, on some processors
        rounding = 4 * torch.finfo(dtype).eps
        torch.testing.assert_close(joined, whole.h, rtol=rounding, atol=rounding)


@pytest.mark.parametrize("name", CELLS)
def test_one_step_of_the_textbook_is_one_timestep_of_the_loops(name: str) -> None:
    layer, x, initial = layer_of(name), randn(1, B, D), initial_states(name)
    states, _ = run(layer, x, initial)
    for b in range(B):
        before = initial.map(lambda state, b=b: state[b])  # type: ignore[misc]
        after = CELLS[name].step(x[0, b], before, layer.weights(layer.places[0]))
        for mine, expected in zip(after.tensors(), states.tensors(), strict=True):
            torch.testing.assert_close(mine, expected[0, b], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", [name for name, cell in CELLS.items() if cell.derivative is not None])
def test_derivative_of_the_nonlinearity_is_its_finite_difference(name: str) -> None:
    layer, x, cell = layer_of(name, input_size=H), randn(1, 1, H), CELLS[name]
    weights = layer.weights(layer.places[0])._replace(weight_ih=torch.eye(H, dtype=torch.float64))
    zero = States(torch.zeros(H, dtype=torch.float64))
    up, down = (cell.step(x[0, 0] + e, zero, weights).h for e in (1e-6, -1e-6))
    assert cell.derivative is not None
    expected = cell.derivative(cell.step(x[0, 0], zero, weights).h)
    torch.testing.assert_close((up - down) / 2e-6, expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", CELLS)
def test_clipping_inside_the_recurrence_is_a_loop_that_clips_each_examples_gradient(name: str) -> None:
    layer, x, threshold = layer_of(name), randn(T, B, D), 0.05
    weights = randn(T, B, H, seed=4)
    found = layer(x, state_threshold=threshold)
    actual = torch.autograd.grad((found.states[0].h * weights).sum(), list(layer.parameters()))

    def clip(grad: Tensor) -> Tensor:
        return grad * (threshold / grad.norm()).clamp(max=1.0)

    total = torch.zeros((), dtype=torch.float64)
    for b in range(B):
        states = zero_states(name, H)
        for t in range(T):
            states = CELLS[name].step(x[t, b], states, layer.weights(layer.places[0]))
            states.h.register_hook(clip)
            total = total + (states.h * weights[t, b]).sum()
    expected = torch.autograd.grad(total, list(layer.parameters()))
    for mine, theirs in zip(actual, expected, strict=True):
        assert relative_error(mine, theirs) < TOLERANCE
    loose = layer(x, state_threshold=1e9)
    untouched = torch.autograd.grad((layer(x).states[0].h * weights).sum(), list(layer.parameters()))
    same = torch.autograd.grad((loose.states[0].h * weights).sum(), list(layer.parameters()))
    assert all(torch.equal(a, b) for a, b in zip(same, untouched, strict=True))


@pytest.mark.parametrize("name", CELLS)
def test_the_scale_of_a_gradient_clipped_inside_is_never_rounded_before_it_multiplies(name: str) -> None:
    """dL/dh_T is 3e38 in each of four units of float32; clipped to 1e-6 it is half of that in each."""
    layer = layer_of(name, hidden_size=4).float()
    taps = States(*(torch.zeros(2, B, 4, requires_grad=True) for _ in CELLS[name].states))
    h = layer(torch.zeros(2, B, D), None, [taps], state_threshold=1e-6).states[0].h
    (grad_h,) = torch.autograd.grad(h[-1], taps.h, torch.full((B, 4), 3e38))
    assert torch.equal(grad_h[-1], torch.full((B, 4), 0.5e-6))
