"""Derivatives of derivatives through a stack, every transform of torch.func, and stacks that are copied and pickled."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, jvp, vjp, vmap

from pipeline.config.strict import InvalidFieldError
from pipeline.core.cells import CELLS, States
from pipeline.core.cells.stack import RecurrentStack
from tests.core.cells.reference import FIRST_OF_EACH_FORM, IN_TORCH, in_torch
from tests.core.slowly import mostly

T, B, D, H = 6, 3, 2, 4
in_torch_too = pytest.mark.parametrize("cell", IN_TORCH)
every_cell = pytest.mark.parametrize("cell", FIRST_OF_EACH_FORM)
# torch itself warns of what it does
forward_mode = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")
shapes = pytest.mark.parametrize(("num_layers", "bidirectional"), [(1, False), (2, True)])


def randn(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def stack_of(cell: str, num_layers: int = 1, bidirectional: bool = False) -> RecurrentStack:
    generator = torch.Generator().manual_seed(0)
    return RecurrentStack(cell, D, H, generator, num_layers, bidirectional).double()


def twins(cell: str, num_layers: int, bidirectional: bool) -> tuple[RecurrentStack, nn.Module]:
    """A stack, and torch's layers with the same weights; both map (T, B, D) to outputs."""
    stack = stack_of(cell, num_layers, bidirectional)
    theirs = in_torch(cell, D, H, num_layers, bidirectional=bidirectional)
    theirs.load_state_dict(stack.state_dict())
    return stack, theirs


def outputs_of(module: nn.Module, x: Tensor) -> Tensor:
    found = module(x)
    return found.outputs if isinstance(module, RecurrentStack) else found[0]


def close(mine: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-12)


def named(module: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.detach() for name, parameter in module.named_parameters()}


def loss_of(module: nn.Module) -> Callable[[dict[str, Tensor], Tensor], Tensor]:
    """A scalar that is curved in outputs, as a function of parameters and inputs."""

    def loss(parameters: dict[str, Tensor], x: Tensor) -> Tensor:
        found = functional_call(module, parameters, (x,))
        outputs = found.outputs if isinstance(module, RecurrentStack) else found[0]
        return (outputs.sin() * torch.arange(1.0, T + 1, dtype=torch.float64)[:, None, None]).sum()

    return loss


# Ordinary autograd


@in_torch_too
@shapes
def test_grad_of_grad_in_weights_and_inputs_is_torch_nns(cell: str, num_layers: int, bidirectional: bool) -> None:
    """A gradient penalty, mixed derivatives included: d/d(x, θ) of ‖dL/dx‖² + ‖dL/dθ‖²."""
    results = []
    for module in twins(cell, num_layers, bidirectional):
        x = randn(T, B, D).requires_grad_()
        parameters = dict(module.named_parameters())
        wanted = [x, *(parameters[name] for name in sorted(parameters))]
        first = torch.autograd.grad(outputs_of(module, x).sin().sum(), wanted, create_graph=True)
        penalty = sum(each.square().sum() for each in first)
        second = torch.autograd.grad(penalty, wanted, create_graph=True)
        third = torch.autograd.grad(sum(each.sum() for each in second), wanted)
        results.append([*first, *second, *third])
    for mine, theirs in zip(*results, strict=True):
        close(mine, theirs)


@in_torch_too
@shapes
def test_a_hessian_vector_product_is_that_of_torch_nn(cell: str, num_layers: int, bidirectional: bool) -> None:
    results = []
    for module in twins(cell, num_layers, bidirectional):
        parameters = dict(module.named_parameters())
        wanted = [parameters[name] for name in sorted(parameters)]
        vectors = [randn(*each.shape, seed=seed) for seed, each in enumerate(wanted)]
        x = randn(T, B, D)  # a constant: what is kept of it is its copy
        first = torch.autograd.grad(outputs_of(module, x).sin().sum(), wanted, create_graph=True)
        slope = sum((each * vector).sum() for each, vector in zip(first, vectors, strict=True))
        results.append(torch.autograd.grad(slope, wanted))
    for mine, theirs in zip(*results, strict=True):
        close(mine, theirs)


@every_cell
def test_the_differentiable_gradient_is_the_fast_one_for_every_input_state_and_tap(cell: str) -> None:
    stack, size = stack_of(cell), len(CELLS[cell].states)
    x, *start = (randn(*shape, seed=seed).requires_grad_() for seed, shape in enumerate([(T, B, D), *[(B, H)] * size]))
    taps = [randn(T, B, H, seed=9 + seed).mul(0.1).requires_grad_() for seed in range(size)]
    run = stack(x, [States(*start)], [States(*taps)])
    total = sum((state.sin() * randn(T, B, H, seed=7)).sum() for state in run.states[0].tensors())
    wanted = [x, *start, *taps, *stack.parameters()]
    fast = torch.autograd.grad(total, wanted, retain_graph=True)
    slow = torch.autograd.grad(total, wanted, create_graph=True)
    for a, b in zip(fast, slow, strict=True):
        assert b.requires_grad or cell in {"elman_linear"} or not b.any()
        close(b, a)


@every_cell
def test_second_derivatives_agree_with_finite_differences_of_the_fast_gradient(cell: str) -> None:
    stack, x, vector = stack_of(cell), randn(T, B, D).requires_grad_(), randn(T, B, D, seed=5)

    def gradient(at: Tensor, create_graph: bool = False) -> Tensor:
        at = at if at.requires_grad else at.requires_grad_()
        return torch.autograd.grad(stack(at).outputs.sin().sum(), at, create_graph=create_graph)[0]

    (product,) = torch.autograd.grad((gradient(x, create_graph=True) * vector).sum(), x)
    step = 2e-6
    moved = [gradient((x + sign * step * vector).detach()) for sign in (1, -1)]
    torch.testing.assert_close(product, (moved[0] - moved[1]) / (2 * step), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("cell", ["elman", "lstm", "gru"])
def test_a_stack_that_is_run_in_pieces_with_shared_weights_has_the_second_derivatives_of_one_run(cell: str) -> None:
    """The state that enters the second piece was made by the same weights: that path counts once."""
    stack, x = stack_of(cell), randn(T, B, D)
    results = []
    for pieces in ([T], [2, 4], [1] * T):
        state, outputs = None, []
        for piece in x.split(pieces):
            run = stack(piece, state)
            state = list(run.final)
            outputs.append(run.outputs)
        parameters = list(stack.parameters())
        first = torch.autograd.grad(torch.cat(outputs).sin().sum(), parameters, create_graph=True)
        results.append([*first, *torch.autograd.grad(sum(each.square().sum() for each in first), parameters)])
    for other in results[1:]:
        for mine, theirs in zip(other, results[0], strict=True):
            close(mine, theirs)


def test_gradients_batched_by_autograd_are_those_one_by_one() -> None:
    stack, x, directions = stack_of("lstm"), randn(T, B, D).requires_grad_(), randn(5, T, B, H, seed=2)
    outputs = stack(x).outputs
    (batched,) = torch.autograd.grad(outputs, x, directions, is_grads_batched=True, retain_graph=True)
    for mine, direction in zip(batched, directions, strict=True):
        close(mine, torch.autograd.grad(outputs, x, direction, retain_graph=True)[0])


# torch.func


@in_torch_too
@shapes
def test_transforms_of_torch_func_are_those_of_torch_nn(cell: str, num_layers: int, bidirectional: bool) -> None:
    stack, theirs = twins(cell, num_layers, bidirectional)
    x, direction = randn(T, B, D), randn(T, B, D, seed=3)
    results = []
    for module in (stack, theirs):
        loss, parameters = loss_of(module), named(module)
        of_inputs = grad(loss, argnums=1)
        in_weights = grad(loss)(parameters, x)
        mixed = grad(lambda p, loss=loss: grad(loss, argnums=1)(p, x).square().sum())(parameters)
        along = vjp(lambda at, loss=of_inputs, p=parameters: loss(p, at), x)[1](direction)[0]  # H v
        jacobian = jacrev(lambda at, module=module: outputs_of(module, at).sum(dim=(1, 2)))(x)
        results.append([*in_weights.values(), *mixed.values(), along, jacobian, of_inputs(parameters, x)])
    for mine, other in zip(*results, strict=True):
        close(mine, other)


@forward_mode
@pytest.mark.parametrize("cell", mostly(CELLS, "gru_reset_before", "lstm", "lru"))
def test_forward_mode_is_reverse_mode_the_other_way_round(cell: str) -> None:
    stack, x, direction = stack_of(cell, 2, True), randn(T, B, D), randn(T, B, D, seed=3)

    def outputs(at: Tensor) -> Tensor:
        return stack(at).outputs

    value, tangent = jvp(outputs, (x,), (direction,))
    close(value, outputs(x))
    jacobian = jacrev(outputs)(x)
    close(tangent, torch.einsum("tbfuvd,uvd->tbf", jacobian, direction))
    close(jacfwd(outputs)(x), jacobian)
    with forward_ad.dual_level():
        dual = outputs(forward_ad.make_dual(x, direction))
        close(forward_ad.unpack_dual(dual).tangent, tangent)


@forward_mode
@pytest.mark.parametrize("cell", ["elman", "lstm", "gru"])
def test_a_hessian_of_torch_func_is_that_of_autograd(cell: str) -> None:
    stack, start = stack_of(cell), randn(T, 1, D)

    def loss(x: Tensor) -> Tensor:
        return stack(x).outputs.sin().sum()

    expected = torch.autograd.functional.hessian(loss, start)
    close(hessian(loss)(start), expected)
    close(jacrev(jacrev(loss))(start), expected)
    vectorised = torch.autograd.functional.hessian(loss, start, vectorize=True)
    close(vectorised, expected)


@pytest.mark.parametrize("cell", ["elman", "lstm", "gru"])
def test_gradients_of_each_example_by_vmap_are_those_one_by_one(cell: str) -> None:
    stack = stack_of(cell)
    loss, parameters, x = loss_of(stack), named(stack), randn(T, B, D)
    together = vmap(grad(loss), in_dims=(None, 1))(parameters, x.unsqueeze(2))
    inside = jacrev(lambda p: vmap(lambda x_TD: loss(p, x_TD[:, None]), in_dims=1)(x))(parameters)  # vmap within
    for b in range(B):
        alone = grad(loss)(parameters, x[:, b : b + 1])
        for name, expected in alone.items():
            close(together[name][b], expected)
            close(inside[name][b], expected)


def test_a_gradient_that_is_clipped_inside_is_not_differentiated_again() -> None:
    stack, x = stack_of("lstm"), randn(T, B, D).requires_grad_()
    clipped = stack(x, state_threshold=0.1).outputs.sum()
    with pytest.raises(InvalidFieldError, match="state_threshold: expected None here: a gradient that is clipped"):
        torch.autograd.grad(clipped, x, create_graph=True)
    with pytest.raises(InvalidFieldError, match="state_threshold: expected None here: a gradient that is clipped"):
        grad(lambda at: stack(at, state_threshold=0.1).outputs.sum())(x.detach())


# Copies


def pickled(stack: RecurrentStack) -> RecurrentStack:
    copied: RecurrentStack = pickle.loads(pickle.dumps(stack))  # noqa: S301 - our own
    return copied


def saved(stack: RecurrentStack) -> RecurrentStack:
    buffer = io.BytesIO()
    torch.save(stack, buffer)
    buffer.seek(0)
    loaded: RecurrentStack = torch.load(buffer, weights_only=False)
    return loaded


@every_cell
@pytest.mark.parametrize("copied", [pickled, saved, copy.deepcopy])
def test_a_stack_that_has_run_can_be_copied_and_goes_on_as_itself(
    copied: Callable[[RecurrentStack], RecurrentStack], cell: str
) -> None:
    stack, x = stack_of(cell, 2, True), randn(T, B, D)
    expected = stack(x).outputs
    other = copied(stack)
    assert torch.equal(other(x).outputs, expected)
    assert other.cell is CELLS[cell]
    assert all(a is not b for a, b in zip(other.parameters(), stack.parameters(), strict=True))
