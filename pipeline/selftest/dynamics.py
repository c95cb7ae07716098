"""Gradients through time where they are known: linear networks, a small LSTM, bounds of tanh, random networks.

Shapes: R replicas, T timesteps, H hidden, P parameters.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor
from torch.func import functional_call, grad

from pipeline.core.cells.stack import RecurrentStack
from pipeline.core.measures.gates import gate_statistics, gate_values, retention
from pipeline.core.measures.jacobians import singular_values_by_lag
from pipeline.core.measures.lyapunov import (
    log_stretches,
    lyapunov_spectrum,
    mean_field_exponent,
    random_network_jacobians,
)
from pipeline.core.measures.spectrum import recurrent_blocks, sigma_max, spectral_radius
from pipeline.core.models import Replicas
from pipeline.core.models import initialisation as init
from pipeline.selftest.check import EXACT, ROUNDING, Number, Tolerance, experiment, printed
from pipeline.selftest.networks import (
    F64,
    REAL,
    answer_gradient,
    draw,
    first_unit,
    jacobians_of,
    log10_norms,
    matrix,
    parameters,
    replicas_of,
)

CLOSED_FORM = "closed form: a product of Jacobians"
NUM_TIMESTEPS = 101
PRODUCT = Tolerance("relative", 1e-11, "float64, a product of up to 980 factors")


@experiment("scalar linear", source=CLOSED_FORM)
def scalar_linear() -> Iterator[Number]:
    """h_t = a h_{t-1} + x_t with the loss on h_T: ‖∂L/∂h_{T-k}‖ falls as |a|^k, and the exponent is ln |a|.

    |0.5|^980 is 1e-295: near the end of float64, where float32 and squares of float64 are 0.
    """
    factors, far = (0.5, -0.9, 1.1), 980
    replicas, inputs = replicas_of("elman_linear", 1, [init.PLAIN] * len(factors)), draw(2, far + 1, 1)
    a_R11 = torch.tensor(factors, dtype=F64)[:, None, None]
    flat_RP = parameters(replicas, W_hh=a_R11, W_ih=torch.ones(1, 1), readout=torch.ones(1, 1))
    near = inputs[:, :NUM_TIMESTEPS]
    norms_RT, long_RT = (log10_norms(replicas, flat_RP, these, _far_targets(2)) for these in (near, inputs))
    exponents_RM = lyapunov_spectrum(jacobians_of(replicas, flat_RP, near)).exponents_RM
    for r, a in enumerate(factors):
        for k, norms_T in ((10, norms_RT[r]), (100, norms_RT[r])) + (((far, long_RT[r]),) if a == 0.5 else ()):
            name, ratio = f"‖∂L/∂h_T-k‖/‖∂L/∂h_T‖, a={a:g}, k={k}", 10.0 ** (norms_T[-1 - k] - norms_T[-1]).item()
            yield Number(name, expected=abs(a) ** k, measured=ratio, within=PRODUCT)
        exponent, name = exponents_RM[r, 0].item(), f"Lyapunov exponent, a={a:g}"
        yield Number(name, expected=math.log(abs(a)), measured=exponent, within=PRODUCT)


@experiment("second derivatives", source="closed form: h_T = a^(T-1) of one impulse at t = 1")
def second_derivatives() -> Iterator[Number]:
    """h_t = a h_{t-1} + x_t on an impulse: the derivatives of h_T in a, by autograd and by torch.func, to the third."""
    a, num_timesteps = 0.9, 6
    stack = RecurrentStack("elman_linear", 1, 1, torch.Generator().manual_seed(0)).double()
    impulse = torch.eye(num_timesteps, 1, dtype=F64)[:, :, None]
    fixed = {name: torch.zeros_like(parameter) for name, parameter in stack.named_parameters()}
    fixed["weight_ih_l0"] = torch.ones(1, 1, dtype=F64)

    def last_state(W_hh: Tensor) -> Tensor:
        return functional_call(stack, fixed | {"weight_hh_l0": W_hh[None, None]}, (impulse,)).outputs[-1, 0, 0]

    at, of_func = torch.tensor(a, dtype=F64, requires_grad=True), last_state
    found = last_state(at)
    for order in (1, 2, 3):
        (found,), of_func = torch.autograd.grad(found, at, create_graph=True), grad(of_func)
        exact = math.perm(num_timesteps - 1, order) * a ** (num_timesteps - 1 - order)
        yield Number(f"derivative {order} of h_6, autograd", expected=exact, measured=found.item(), within=EXACT)
        measured = of_func(at.detach()).item()
        yield Number(f"derivative {order} of h_6, torch.func", expected=exact, measured=measured, within=EXACT)


@experiment("orthogonal linear", source=CLOSED_FORM)
def orthogonal_linear() -> Iterator[Number]:
    """An orthogonal W_hh in a linear network keeps every norm: exponents 0, singular values 1."""
    replicas, inputs = replicas_of("elman_linear", 16), draw(2, NUM_TIMESTEPS, 1)
    W_hh = matrix(init.Orthogonal(gain=1.0), 16, 1)
    flat_RP = parameters(replicas, W_hh=W_hh, W_ih=draw(16, 1), readout=draw(1, 16, seed=1))
    norms_RT = log10_norms(replicas, flat_RP, inputs, _far_targets(2))
    jacobians = jacobians_of(replicas, flat_RP, inputs)
    values = singular_values_by_lag(jacobians, [NUM_TIMESTEPS - 1])
    change = (norms_RT - norms_RT[:, -1:]).abs().max().item()
    yield Number("largest change of log10 ‖∂L/∂h_t‖", expected=0.0, measured=change, within=ROUNDING)
    exponent = lyapunov_spectrum(jacobians).exponents_RM.abs().max().item()
    yield Number("largest of all |Lyapunov exponents|", expected=0.0, measured=exponent, within=ROUNDING)
    for which in ("largest", "median", "smallest"):
        name = f"{which} singular value of ∂h_T/∂h_T-100"
        yield Number(name, expected=1.0, measured=10.0 ** values[which].item(), within=PRODUCT)


def _far_targets(num_examples: int) -> Tensor:
    """Return targets far from every answer, so that no loss is near 0."""
    return torch.full((num_examples, 1), 1e3, dtype=F64)


@experiment("small LSTM", source="closed form: Gers, Schmidhuber and Cummins (2000), c_t = f c_t-1 + i g")
def small_lstm() -> Iterator[Number]:
    """The LSTM with small weights: the gradient in c_t falls by f = σ(b) per timestep, b being the forget bias.

    Its half-life, ln 0.5 / ln f timesteps, is read from the gradient trace and, independently, from the gate's values.
    """
    half_lives, num_timesteps, near, far = {0: "1.00", 1: "2.21", 2: "5.46", 3: "14.27", 5: "103.2"}, 80, 10, 60
    small, plain = init.Gaussian(std=1e-6), init.Gaussian(std=1.0)
    biases = [init.KeepBias(value=float(bias)) for bias in half_lives]
    rules = [init.Initialisation(input=small, recurrent=small, gates={}, bias=bias, readout=plain) for bias in biases]
    replicas, inputs = replicas_of("lstm", 8, rules), draw(2, num_timesteps, 1)
    flat_RP, recurrent = replicas.flat_RP.double(), replicas.model.stacks["recurrent"]
    c_RT = log10_norms(replicas, replicas.flat_RP, inputs, torch.ones(2, 1, dtype=F64), "c")
    traced = (10.0 ** ((c_RT[:, -1 - far] - c_RT[:, -1 - near]) / (far - near))).tolist()
    _, seen, states = replicas.unroll(replicas.named(flat_RP), inputs)
    gates = gate_values(recurrent.cell, replicas.weights(flat_RP, recurrent.places[0]), seen[0], states)
    (half_life,) = (row.value_R.tolist() for row in gate_statistics(gates, "f") if row.quantity == "half_life")
    kept = (10.0 ** (retention(gates["f"])[:, -1] / num_timesteps)).tolist()
    within = Tolerance("relative", 1e-5, "weights of standard deviation 1e-6 are not 0")
    for r, (bias, text) in enumerate(half_lives.items()):
        f = 1 / (1 + math.exp(-bias))
        yield Number(f"fall of ‖∂L/∂c_t‖ per timestep, σ({bias})", expected=f, measured=traced[r], within=within)
        name = f"what f keeps per timestep, σ({bias}), from its values"
        yield Number(name, expected=f, measured=kept[r], within=within)
        yield printed(f"half-life from the gradient trace, b={bias}", text, math.log(0.5) / math.log(traced[r]))
        yield printed(f"half-life from the gate statistics, b={bias}", text, half_life[r])


@experiment("singular values", source="Pascanu, Mikolov and Bengio (2013)")
def singular_values() -> Iterator[Number]:
    """The largest singular value of W_hh, for tanh, whose slope is at most γ = 1, and the sigmoid, γ = ¼.

    σ_max < 1/γ makes the gradient shrink at every timestep (sufficient for vanishing); σ_max > 1/γ does not make it
    explode (necessary, not sufficient): a Gaussian W_hh of spectral radius .7 has σ_max near 1.4, and vanishes.
    """
    bounds, start = (0.5, 0.95), torch.Generator().manual_seed(0)
    drawn = [matrix(init.ScaledGaussian(gain=1.0), 256, start) for _ in bounds]
    matrices = [W_hh * (bound / sigma_max(W_hh[None])) for W_hh, bound in zip(drawn, bounds, strict=True)]
    matrices += [matrix(init.Orthogonal(gain=0.95), 256, start)]
    matrices += [matrix(init.SpectralRadius(radius=0.7), 256, start)]
    W_ih, readout = draw(256, 1, seed=2), draw(1, 256, seed=3)
    W_ih_RHD = W_ih.repeat(4, 1, 1) / 10
    W_ih_RHD[2] = 0.0  # the orthogonal one stays at h = 0, where the slope is 1
    tanh, sigmoid = replicas_of("elman", 256, [init.PLAIN] * 4), replicas_of("elman_sigmoid", 256)
    flat_RP = parameters(tanh, W_hh=torch.stack(matrices), W_ih=W_ih_RHD, readout=readout)
    steep = parameters(sigmoid, W_hh=matrix(init.Orthogonal(gain=3.9), 256, 0), W_ih=W_ih, readout=readout)
    data = draw(4, NUM_TIMESTEPS, 1), draw(4, 1, seed=1)
    norms_RT = log10_norms(tanh, flat_RP, *data)
    largest = (10.0 ** -norms_RT.diff(dim=1).amin(dim=1)).tolist()
    of_sigmoid = 10.0 ** -log10_norms(sigmoid, steep, *data).diff().min().item()
    below = Tolerance("at most", 1e-12, "a bound; float64")
    for bound, ratio in zip(bounds, largest, strict=False):
        name = f"largest ‖δ_t-1‖/‖δ_t‖, tanh, σ_max={bound:g}"
        yield Number(name, expected=bound, measured=ratio, within=below)
    name = "largest ‖δ_t-1‖/‖δ_t‖, sigmoid, σ_max=3.9, times γ = ¼"
    yield Number(name, expected=3.9 / 4, measured=of_sigmoid, within=below)
    yield Number("the same at h=0, W_hh=0.95 · orthogonal", expected=0.95, measured=largest[2], within=EXACT)
    (block_RHH,) = recurrent_blocks(tanh, flat_RP).values()
    radius, sigma = spectral_radius(block_RHH[-1:]).item(), sigma_max(block_RHH[-1:]).item()
    yield Number("spectral radius of a Gaussian W_hh", expected=0.7, measured=radius, within=EXACT)
    near = Tolerance("relative", 0.05, "holds for N → ∞; N = 256")
    yield Number("its σ_max, near 2 · radius", expected=1.4, measured=sigma, within=near)
    left, vanished = 10.0 ** (norms_RT[-1, 0] - norms_RT[-1, -1]).item(), Tolerance("at most", 0.0, "a bound")
    yield Number("its ‖δ_T-100‖/‖δ_T‖ vanishes all the same", expected=1e-6, measured=left, within=vanished)


@experiment(
    "random network", source="Sompolinsky, Crisanti and Sommers (1988); Molgedey, Schuchhardt and Schuster (1992)"
)
def random_network() -> Iterator[Number]:
    """Random networks x ← J tanh(x), J ~ N(0, g²/N): the largest exponent against mean-field theory, λ_1 = ½ ln χ_1.

    Measured values lie below it and approach it as N grows. The Elman network h ← tanh(J h) is the same network seen
    through its rates, h = tanh(x): its exponents are those of x.
    """
    percent = Tolerance("relative", 0.08, "a few percent are left at N = 1000")
    below = Tolerance("at most", 0.0, "the theory is of N → ∞ and above")
    closer = Tolerance("at most", 0.0, "ten times the units, less than half of it")
    for gain in (1.5, 2.5):
        theory = mean_field_exponent(gain)
        small, large = (_exponents(gain, N, num_networks).mean().item() for N, num_networks in ((100, 8), (1000, 3)))
        yield Number(f"λ_1 against ½ ln χ_1, g={gain:g}, N=1000", expected=theory, measured=large, within=percent)
        yield Number(f"λ_1 is below ½ ln χ_1, g={gain:g}, N=100", expected=theory, measured=small, within=below)
        ratio = abs(large - theory) / abs(small - theory)
        yield Number(f"distance to it, N=1000 over N=100, g={gain:g}", expected=0.5, measured=ratio, within=closer)
    replicas, seeds = replicas_of("elman", 100, [init.PLAIN] * 3), range(3)
    W_hh = torch.stack([matrix(init.ScaledGaussian(gain=2.5), 100, seed) for seed in seeds])
    W_ih = torch.stack([draw(100, 1, seed=seed + 1000) for seed in seeds])
    flat_RP = parameters(replicas, W_hh=W_hh, W_ih=W_ih, readout=first_unit(100))
    inputs = torch.eye(1, 500, dtype=F64)[:, :, None]  # the first input brings h to tanh(x_0)
    spectrum = lyapunov_spectrum(jacobians_of(replicas, flat_RP, inputs), burn_in=100, num_exponents=1)
    difference = (spectrum.exponents_RM[:, 0] - _exponents(2.5, 100, 3)).mean().item()
    name, within = "λ_1 of the Elman network minus that of x, N=100", Tolerance("absolute", 0.01, "400 timesteps")
    yield Number(name, expected=0.0, measured=difference, within=within)


def _exponents(gain: float, num_units: int, num_networks: int) -> Tensor:
    """Return λ_1 of every network, (networks,), over timesteps 100 to 500."""
    exponents = []
    for seed in range(num_networks):
        coupling, start = matrix(init.ScaledGaussian(gain=gain), num_units, seed), draw(num_units, seed=seed + 1000)
        jacobians = random_network_jacobians(coupling, start, 500)
        exponents.append(log_stretches(jacobians, 1)[100:].mean())
    return torch.stack(exponents)


@experiment(
    "curse of memory",
    source="Zucchet and Orvieto (2024), «Recurrent neural networks: vanishing and exploding gradients are not the end "
    "of the story»",
)
def curse_of_memory() -> Iterator[Number]:
    """h_t = λ h_{t-1} + x_t on a stationary AR(1) input of unit variance and correlation ρ.

        E[h²]        = (1 + ρλ) / ((1 - ρλ)(1 - λ²))
        E[(dh/dλ)²]  = [(1 + λ²)(1 - λ²ρ²) + 2 (1 - λ²) λρ] / [(1 - λ²)³ (1 - λρ)²]

    Nothing is sampled: h_T and dh_T/dλ are linear in the inputs, so what they make of a unit impulse at each timestep,
    r, gives rᵀ C r with C_ij = ρ^|i-j|. One unit per impulse, each with its own λ on the diagonal of W_hh.
    """
    texts = {(0.99, 0.0): ("50.25", "2.513e5"), (0.99, 0.9): ("871.8", "4.738e6")}
    cut = Tolerance("relative", 1e-6, "earlier timesteps, which are cut off where λ^2T = 1e-14")
    num_units = 16
    one, all_units = torch.eye(num_units, dtype=F64), torch.ones(1, num_units, dtype=F64)
    network = replicas_of("elman_linear", num_units, interface=replace(REAL, input_size=num_units)).model
    for memory in (0.99, 0.9):
        num_replicas = math.ceil(math.log(1e-14) / (2 * math.log(memory)) / num_units)
        num_timesteps = num_replicas * num_units
        replicas = Replicas([network] * num_replicas)
        flat_RP = parameters(replicas, W_hh=memory * one, W_ih=one, readout=all_units)
        impulses_R1TD = torch.eye(num_timesteps, dtype=F64).unflatten(0, (num_replicas, 1, num_units)).mT
        (h_R1H,) = replicas.advance(replicas.named(flat_RP), impulses_R1TD)
        grad_RHH = replicas.named(answer_gradient(replicas, flat_RP, impulses_R1TD))["recurrent.weight_hh_l0"]
        responses = {"E[h²]": h_R1H.flatten(), "E[(dh/dλ)²]": grad_RHH.diagonal(dim1=1, dim2=2).flatten()}
        index, left = torch.arange(num_timesteps), 1 - memory**2
        for rho in (0.0, 0.9):
            product, covariance = memory * rho, torch.tensor(rho, dtype=F64) ** (index[:, None] - index).abs()
            numerator = (1 + memory**2) * (1 - product**2) + 2 * left * product
            closed = (1 + product) / ((1 - product) * left), numerator / (left**3 * (1 - product) ** 2)
            for m, (label, response) in enumerate(responses.items()):
                name, moment = f"{label}, λ={memory:g}, ρ={rho:g}", (response @ covariance @ response).item()
                yield Number(name, expected=closed[m], measured=moment, within=cut)
                if (memory, rho) in texts:
                    yield printed(f"{name}, as printed", texts[memory, rho][m], moment)


EXPERIMENTS = (
    scalar_linear,
    orthogonal_linear,
    small_lstm,
    singular_values,
    random_network,
    curse_of_memory,
    second_derivatives,
)
