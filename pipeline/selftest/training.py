"""What a training loop is made of, where it is known: baselines, clipping, forcing, initialisation, truncation, Ω."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from pipeline.config import Sizes
from pipeline.core.clipping import ClippingRule, GlobalNorm, GlobalNormMax, NoClipping, clip
from pipeline.core.models import Interface, ModelSpec, loss
from pipeline.core.models import initialisation as init
from pipeline.core.training.data import Sequences, interface_of, to_device
from pipeline.core.training.evaluation import evaluate
from pipeline.core.training.forcing import (
    Constant,
    ExponentialDecay,
    Forcing,
    InverseSigmoidDecay,
    LinearDecay,
    Schedule,
)
from pipeline.core.training.optimisers import Sgd
from pipeline.core.training.regularisation import NoRegularisation, VanishingGradient
from pipeline.core.training.schedule import Truncation
from pipeline.core.training.spec import Convergence, DatasetRef, DiagnosticsSpec, TrainingSpec, TrialSpec
from pipeline.core.training.step import Step
from pipeline.data import Dataset
from pipeline.data.memory import Adding, CopyMemory, TemporalOrder
from pipeline.selftest.check import EXACT, ROUNDING, Number, Tolerance, experiment, printed
from pipeline.selftest.networks import F64, draw, matrix, parameters, replicas_of

EQUAL = Tolerance("absolute", 0.0, "equal to the last bit")


@experiment("copy memory", source="Arjovsky, Shah and Bengio (2016), section 5.1")
def copy_memory() -> Iterator[Number]:
    """What copying T timesteps costs without memory, 10 ln 8 / (T + 20): of the dataset, and of its sequences.

    The frequencies of N sequences cost beyond ln 8, relative, 7/(2N) on average; their logarithms are √(7/N) off,
    which the test symbols average.
    """
    num_train, num_test, task = 16384, 1024, CopyMemory(seed=0, lengths=(), num_symbols=8, num_copied=10)
    beyond = 7 / (2 * num_train) + 4 * math.sqrt(7 / num_train / (10 * num_test))
    sampled = Tolerance("relative", beyond / math.log(8), "frequencies of 16384 sequences, 4 s.e.")
    for delay, text in {100: "0.173287", 200: "0.094520", 500: "0.039989"}.items():
        dataset, exact = task.generate(delay, Sizes(num_train, 1, num_test)), 10 * math.log(8) / (delay + 20)
        yield printed(f"baseline of the dataset, T={delay}", text, _baseline(dataset))
        alike_TC = torch.zeros(delay + 20, 9, dtype=F64)
        alike_TC[:-10, 0], alike_TC[-10:, 1:] = 1.0, 1 / 8
        name, measured = f"measured loss of blanks, then all alike, T={delay}", _loss_of(alike_TC, dataset)
        yield Number(name, expected=exact, measured=measured, within=EXACT)
        targets = dataset.splits["train"].targets
        frequency_TC = torch.from_numpy(np.stack([(targets == c).mean(axis=0) for c in range(9)], axis=1))
        name, measured = f"measured loss of the best memoryless answer, T={delay}", _loss_of(frequency_TC, dataset)
        yield Number(name, expected=exact, measured=measured, within=sampled)


def _loss_of(probability_TC: Tensor, dataset: Dataset) -> float:
    """Return the test loss of answering with these probabilities, whatever the sequence."""
    test = to_device(dataset.splits["test"], interface_of(dataset), torch.device("cpu"))
    log_TC = probability_TC.log()
    return loss(interface_of(dataset), log_TC.expand(len(test.targets), *log_TC.shape), test.targets).item()


@experiment("adding", source="Hochreiter and Schmidhuber (1997); Var of a sum of two U(0, 1)")
def adding() -> Iterator[Number]:
    """Answering 1 costs 1/6; with e the error, E[e⁴] = 1/15: the squared error has variance 1/15 - 1/36."""
    num_test = 40_000
    dataset = Adding(seed=0, lengths=()).generate(10, Sizes(1, 1, num_test))
    yield Number("baseline of the dataset", expected=1 / 6, measured=_baseline(dataset), within=EXACT)
    within = Tolerance("absolute", 4 * math.sqrt((1 / 15 - 1 / 36) / num_test), "4 s.e. of 40000 sequences")
    measured, _ = _evaluate_constant(dataset, 1.0)
    yield Number("measured loss of answering 1", expected=1 / 6, measured=measured, within=within)


@experiment("temporal order", source="Pascanu, Mikolov and Bengio (2013); four classes alike")
def temporal_order() -> Iterator[Number]:
    """Chance of four classes: ln 4 nats, three in four wrong."""
    num_test = 20_000
    dataset = TemporalOrder(seed=0, lengths=(), num_distractors=4).generate(10, Sizes(1, 1, num_test))
    yield printed("baseline of the dataset", "1.38629", _baseline(dataset))
    measured, error = _evaluate_constant(dataset, 0.0)
    float32 = Tolerance("relative", 1e-6, "float32")
    yield Number("measured loss of weights that are 0", expected=math.log(4), measured=measured, within=float32)
    within = Tolerance("absolute", 4 * math.sqrt(0.75 * 0.25 / num_test), "4 s.e. of 20000 sequences")
    yield Number("measured error of one answer", expected=0.75, measured=error, within=within)


def _baseline(dataset: Dataset) -> float:
    return math.nan if dataset.baseline_loss is None else dataset.baseline_loss


def _evaluate_constant(dataset: Dataset, answer: float) -> tuple[float, float]:
    """Return test loss and error of a network that always gives one answer; NaN where there is no error."""
    zero, no_bias = init.Gaussian(std=0.0), init.ConstantBias(value=0.0)
    rules = init.Initialisation(input=zero, recurrent=zero, gates={}, bias=no_bias, readout=zero)
    replicas = replicas_of("elman", 1, [rules], interface=interface_of(dataset))
    flat_RP = replicas.flat_RP.clone()
    replicas.named(flat_RP)["readout.bias"].fill_(answer)
    test = to_device(dataset.splits["test"], replicas.interface, torch.device("cpu"))
    losses, errors = evaluate(replicas, flat_RP, test)
    return losses.item(), math.nan if errors is None else errors.item()


@experiment("clipping", source="Pascanu, Mikolov and Bengio (2013), algorithm 1")
def clipping() -> Iterator[Number]:
    """Clipping by global norm, g · min(1, δ/‖g‖), and its misprint in one set of lecture notes, g · max(1, δ/‖g‖).

    Side by side on a gradient of norm 5 and on one of norm ½, with δ = 1: the rule shrinks the first and leaves the
    second; the misprint leaves the first and enlarges the second.
    """
    grad_RP = torch.tensor([[3.0, 4.0], [0.3, 0.4]], dtype=F64)
    rules: dict[str, tuple[ClippingRule, tuple[float, float]]] = {
        "min, the rule": (GlobalNorm(threshold=1.0), (1.0, 0.5)),
        "max, the misprint": (GlobalNormMax(threshold=1.0), (5.0, 1.0)),
    }
    for label, (rule, norms) in rules.items():
        params = {"weight": torch.zeros_like(grad_RP)}
        clipped_RP, _, ledger = clip(rule, grad_RP, rule.init(params), params)
        for r, before in enumerate((5, 0.5)):
            name, norm = f"{label}: ‖g‖={before:g} becomes, δ=1", clipped_RP[r].norm().item()
            yield Number(name, expected=norms[r], measured=norm, within=EXACT)
            name, cosine = f"{label}: cosine with g, ‖g‖={before:g}", ledger.clip_cosine[r].item()
            yield Number(name, expected=1.0, measured=cosine, within=EXACT)
    largest_RP = torch.full((1, 4), 3e38)
    clipped_RP, _, _ = clip(GlobalNorm(threshold=1e-6), largest_RP, (), {"weight": largest_RP})
    half, float32 = clipped_RP.double(), Tolerance("relative", 2**-24, "float32, rounded once")
    for name, measured in {"smallest": half.min(), "largest": half.max()}.items():
        name = f"float32, four times 3e38, δ=1e-6: {name} entry, δ/2"
        yield Number(name, expected=0.5e-6, measured=measured.item(), within=float32)


@experiment("scheduled sampling", source="Bengio, Vinyals, Jaitly and Shazeer (2015)")
def scheduled_sampling() -> Iterator[Number]:
    """The probability ε_i of the true token at a few steps i."""
    linear, exponential = LinearDecay(start=1.0, slope=0.01, floor=0.1), ExponentialDecay(base=0.99)
    sigmoid = InverseSigmoidDecay(scale=100.0)
    schedules: dict[str, tuple[Schedule, dict[int, float]]] = {
        "max(0.1, 1 - 0.01 i)": (linear, {0: 1.0, 50: 0.5, 1000: 0.1}),
        "0.99^i": (exponential, {0: 1.0, 100: math.exp(100 * math.log(0.99)), 100_000: 0.0}),
        "k/(k + exp(i/k)), k=100": (sigmoid, {0: 100 / 101, 461: 100 / (100 + math.exp(4.61)), 10**9: 0.0}),
    }
    for formula, (schedule, values) in schedules.items():
        for i, value in values.items():
            probability = schedule.probability(i)
            yield Number(f"{formula} at i={i}", expected=value, measured=probability, within=ROUNDING)


@experiment("chrono", source="Tallec and Ollivier (2018)")
def chrono() -> Iterator[Number]:
    """Chrono initialisation, read from networks: b_f ~ ln U[1, T_max - 1], b_i = -b_f, all else 0."""
    longest, plain, num_drawn = 199, init.Uniform(), 64 * 32
    rules = init.Initialisation(
        input=plain, recurrent=plain, gates={}, bias=init.Chrono(longest_lag=float(longest + 1)), readout=plain
    )
    replicas = replicas_of("lstm", 64, [rules] * 32)
    weights = replicas.weights(replicas.flat_RP.double(), replicas.model.stacks["recurrent"].places[0])
    i, f, g, o = (weights.bias_ih + weights.bias_hh).chunk(4, dim=1)
    times = f.exp().flatten().sort().values
    share, steps = (times - 1) / (longest - 1), torch.arange(num_drawn + 1, dtype=F64) / num_drawn
    distance = torch.maximum((share - steps[:-1]).abs(), (share - steps[1:]).abs()).max().item()
    least, most = Tolerance("at least", 1e-6, "a bound; float32"), Tolerance("at most", 1e-4, "a bound; float32")
    yield Number("smallest exp(b_f)", expected=1.0, measured=times[0].item(), within=least)
    yield Number("largest exp(b_f), T_max=200", expected=longest, measured=times[-1].item(), within=most)
    standard_errors = Tolerance("absolute", 4 * (longest - 1) / math.sqrt(12 * num_drawn), "4 s.e. of 2048 units")
    yield Number("mean exp(b_f), T_max/2", expected=100.0, measured=times.mean().item(), within=standard_errors)
    by_chance, within = 1.95 / math.sqrt(num_drawn), Tolerance("at most", 0.0, "one sample in a thousand is beyond")
    yield Number("Kolmogorov distance of exp(b_f) from uniform", expected=by_chance, measured=distance, within=within)
    yield Number("largest |b_i + b_f|", expected=0.0, measured=(i + f).abs().max().item(), within=EQUAL)
    others = torch.stack([g, o]).abs().max().item()
    yield Number("largest bias of g and o", expected=0.0, measured=others, within=EQUAL)


@experiment("TBPTT", source="Williams and Peng (1990); the sum of the losses is the loss")
def truncation() -> Iterator[Number]:
    """Truncated backpropagation with k2 over the whole sequence: its updates' gradients sum to the full gradient.

    T = 12, so that windows of 5 and of 8 leave a shorter one at the end, whose timesteps weigh no more than others.
    """
    full_P = _summed_gradient(None)
    for k1 in (1, 5, 8, 12):
        summed_P = _summed_gradient(Truncation(update_every=k1, backward_length=12))
        cosine, ratio = (summed_P @ full_P / (summed_P.norm() * full_P.norm())).item(), summed_P.norm() / full_P.norm()
        name = f"cosine of its summed gradients, k1={k1}, k2=T=12"
        yield Number(name, expected=1.0, measured=cosine, within=ROUNDING)
        name = f"their norm over the full gradient's, k1={k1}"
        yield Number(name, expected=1.0, measured=ratio.item(), within=ROUNDING)
    cut_P, within = _summed_gradient(Truncation(1, 3)), Tolerance("at least", 0.0, "the past matters here")
    name, error = "relative error where k2 cuts the past off, k1=1, k2=3", ((cut_P - full_P).norm() / full_P.norm())
    yield Number(name, expected=1e-2, measured=error.item(), within=within)


def _summed_gradient(truncation: Truncation | None) -> Tensor:
    """Return the sum of the gradients of a sequence's updates, made of the same weights by a trial's step, (P,)."""
    num_timesteps, constant = 12, Forcing(schedule=Constant(value=1.0), coin="token")
    two_inputs = Interface(input_kind="real", input_size=2, target_at="every", target_kind="value", output_size=1)
    replicas = replicas_of("lstm", 6, interface=two_inputs, num_layers=2)
    spec = TrialSpec(
        dataset=DatasetRef(name="drawn", length=num_timesteps, unseen_lengths=()),
        model=ModelSpec.plain("lstm", 6, num_layers=2),
        optimiser=Sgd(learning_rate=1.0),
        clipping=NoClipping(),
        regularisation=NoRegularisation(),
        training=TrainingSpec(
            batch_size=4,
            max_steps=num_timesteps,
            evaluate_every=1,
            stop_on="validation_loss",
            stop_below=None,
            explodes_above=None,
            convergence=Convergence(last_share=0.2, improvement=0.05),
            truncation=truncation,
            forcing=constant,
        ),
        diagnostics=DiagnosticsSpec(num_traces=2, probe_size=1, gradient_check_tolerance=1.0, measures=()),
        seeds=(0,),
    )
    train = Sequences(draw(4, num_timesteps, 2), draw(4, num_timesteps, 1, seed=1))
    step = Step(spec, replicas, train, num_timesteps)
    start_RP = 3 * replicas.flat_RP.double()  # weights large enough that the past matters
    state, summed_RP = step.start(start_RP.clone()), torch.zeros_like(start_RP)
    for _ in range(step.windows.per_batch):
        state, _ = step(state)
        summed_RP += start_RP - state.flat_RP
        state.flat_RP.copy_(start_RP)
    return summed_RP[0]


@experiment("regulariser", source="Pascanu, Mikolov and Bengio (2013), Ω")
def regulariser() -> Iterator[Number]:
    """Ω, the vanishing-gradient regulariser: an orthogonal W_hh and a linear φ keep ‖δ_t‖, so it is 0, and flat."""
    replicas, inputs, targets = replicas_of("elman_linear", 16), draw(1, 4, 30, 1), draw(1, 4, 1, seed=1)
    omega, grad_norm = dict[float, float](), dict[float, float]()
    for gain in (1.0, 0.5):
        W_hh = matrix(init.Orthogonal(gain=gain), 16, 0)
        flat_RP = parameters(replicas, W_hh=W_hh, W_ih=draw(16, 1), readout=draw(1, 16, seed=1))
        run = replicas.backpropagate(flat_RP, inputs, targets, trace=True)
        grad_RP, found = VanishingGradient(weight=4.0).penalise(replicas, flat_RP, run)
        omega[gain], grad_norm[gain] = found["omega"].item(), (grad_RP - run.grad_RP).norm().item()
    squared = Tolerance("absolute", 1e-24, "the square of float64's rounding")
    yield Number("Ω of an orthogonal linear network", expected=0.0, measured=omega[1.0], within=squared)
    yield Number("norm of its gradient", expected=0.0, measured=grad_norm[1.0], within=ROUNDING)
    name, expected = "Ω of 0.5 times such a network, (g² - 1)²", (0.5**2 - 1) ** 2
    yield Number(name, expected=expected, measured=omega[0.5], within=EXACT)


EXPERIMENTS = (copy_memory, adding, temporal_order, clipping, scheduled_sampling, chrono, truncation, regulariser)
