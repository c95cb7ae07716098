"""What tasks cost without memory: the baselines that datasets carry, and the same measured on generated sequences."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cache, partial

import numpy as np
import torch
from torch import Tensor

from pipeline.config import Sizes
from pipeline.core.models import ModelSpec, Replicas, SequenceModel, loss
from pipeline.core.models.initialisation import ConstantBias, Gaussian, Initialisation
from pipeline.core.training.data import interface_of, to_device
from pipeline.core.training.evaluation import evaluate
from pipeline.data import Dataset
from pipeline.data.adding import Adding
from pipeline.data.copy_memory import CopyMemory
from pipeline.data.temporal_order import TemporalOrder
from pipeline.selftest.check import Check, absolute, as_printed, relative

MEMORYLESS = {100: "0.173287", 200: "0.094520", 500: "0.039989"}
"""10 ln 8 / (T + 20) by T."""
NUM_TRAIN, NUM_TEST = 16384, 1024
NUM_COPIED = 10 * NUM_TEST
NUM_ADDING, NUM_TEMPORAL_ORDER = 40_000, 20_000
STANDARD_ERRORS = 4
ARJOVSKY = "Arjovsky, Shah and Bengio (2016), section 5.1"
HOCHREITER = "Hochreiter and Schmidhuber (1997); Var of a sum of two U(0, 1)"
PASCANU = "Pascanu, Mikolov and Bengio (2013); four classes alike"
ZERO = Initialisation(
    input=Gaussian(std=0.0),
    recurrent=Gaussian(std=0.0),
    gates={},
    bias=ConstantBias(value=0.0),
    readout=Gaussian(std=0.0),
)
"""Every weight 0: the same answer to everything."""


def checks() -> Iterator[Check]:
    """Yield the checks."""
    yield from _copy_memory()
    yield from _adding()
    yield from _temporal_order()


def _copy_memory() -> Iterator[Check]:
    @cache
    def dataset(delay: int) -> Dataset:
        return CopyMemory("copy_memory", 0, (), 8, 10).generate(delay, Sizes(NUM_TRAIN, 1, NUM_TEST))

    def baseline(delay: int) -> float:
        return _baseline(dataset(delay))

    def loss_of_alike(delay: int) -> float:
        return _loss_of(_blanks_then_alike(delay), dataset(delay))

    def loss_of_frequencies(delay: int) -> float:
        return _loss_of(_frequencies(dataset(delay)), dataset(delay))

    for delay, printed in MEMORYLESS.items():
        expected, tolerance = as_printed(printed)
        name = f"copy memory: baseline of the dataset, T={delay}"
        yield Check(name, expected, partial(baseline, delay), tolerance, ARJOVSKY)
        exact = 10 * math.log(8) / (delay + 20)
        name = f"copy memory: measured loss of blanks, then all alike, T={delay}"
        yield Check(name, exact, partial(loss_of_alike, delay), relative(1e-12), ARJOVSKY)
        name = f"copy memory: measured loss of the best memoryless answer, T={delay}"
        yield Check(name, exact, partial(loss_of_frequencies, delay), relative(_frequency_error()), ARJOVSKY)


def _frequency_error() -> float:
    """Return what the frequencies of N sequences may cost beyond ln 8, relative: 7/(2N) on average, and 4 s.e. of it.

    Their logarithms are √(7/N) off, which the test symbols average.
    """
    mean, standard_error = 7 / (2 * NUM_TRAIN), math.sqrt(7 / NUM_TRAIN / NUM_COPIED)
    return (mean + STANDARD_ERRORS * standard_error) / math.log(8)


def _blanks_then_alike(delay: int) -> Tensor:
    """Return probabilities, (T, C): the blank for sure until the marker has been seen, then each of 8 symbols alike."""
    probability_TC = torch.zeros(delay + 20, 9, dtype=torch.float64)
    probability_TC[:-10, 0] = 1.0
    probability_TC[-10:, 1:] = 1 / 8
    return probability_TC


def _frequencies(dataset: Dataset) -> Tensor:
    """Return the frequency of each class at each timestep of the training split, (T, C): the best answer there is."""
    targets = dataset.splits["train"].targets
    frequency_CT = np.stack([(targets == symbol).mean(axis=0) for symbol in range(dataset.output_size)])
    return torch.from_numpy(frequency_CT.T)


def _loss_of(probability_TC: Tensor, dataset: Dataset) -> float:
    """Return the test loss of answering with these probabilities, whatever the sequence."""
    test = to_device(dataset.splits["test"], interface_of(dataset), torch.device("cpu"))
    log_TC = probability_TC.log()
    return loss(interface_of(dataset), log_TC.expand(len(test.targets), *log_TC.shape), test.targets).item()


def _adding() -> Iterator[Check]:
    dataset = cache(lambda: Adding("adding", 0, ()).generate(10, Sizes(1, 1, NUM_ADDING)))
    yield Check("adding: baseline of the dataset", 1 / 6, lambda: _baseline(dataset()), relative(1e-12), HOCHREITER)
    # with e the error, E[e⁴] = 1/15: the squared error has variance 1/15 - 1/36
    standard_error = math.sqrt((1 / 15 - 1 / 36) / NUM_ADDING)
    name = f"adding: measured loss of answering 1 (± {STANDARD_ERRORS} s.e.)"
    tolerance = absolute(STANDARD_ERRORS * standard_error)
    yield Check(name, 1 / 6, lambda: _evaluate_constant(dataset(), 1.0)[0], tolerance, HOCHREITER)


def _temporal_order() -> Iterator[Check]:
    @cache
    def dataset() -> Dataset:
        return TemporalOrder("temporal_order", 0, (), 4).generate(10, Sizes(1, 1, NUM_TEMPORAL_ORDER))

    expected, tolerance = as_printed("1.38629")
    yield Check("temporal order: baseline of the dataset", expected, lambda: _baseline(dataset()), tolerance, PASCANU)
    name = "temporal order: measured loss of weights that are 0"
    yield Check(name, math.log(4), lambda: _evaluate_constant(dataset(), 0.0)[0], relative(1e-6), PASCANU)
    name = f"temporal order: measured error of one answer (± {STANDARD_ERRORS} s.e.)"
    tolerance = absolute(STANDARD_ERRORS * math.sqrt(0.75 * 0.25 / NUM_TEMPORAL_ORDER))
    yield Check(name, 0.75, lambda: _evaluate_constant(dataset(), 0.0)[1], tolerance, PASCANU)


def _baseline(dataset: Dataset) -> float:
    return math.nan if dataset.baseline_loss is None else dataset.baseline_loss


def _evaluate_constant(dataset: Dataset, answer: float) -> tuple[float, float]:
    """Return test loss and error of a network that always gives one answer; NaN where there is no error."""
    replicas = Replicas(
        [SequenceModel(interface_of(dataset), ModelSpec(cell="elman", hidden_size=1, initialisation=ZERO), 0)]
    )
    flat_RP = replicas.flat_RP.clone()
    replicas.named(flat_RP)["readout.bias"].fill_(answer)
    test = to_device(dataset.splits["test"], replicas.interface, torch.device("cpu"))
    losses, errors = evaluate(replicas, flat_RP, test)
    return losses.item(), _item(errors)


def _item(errors: Tensor | None) -> float:
    return math.nan if errors is None else errors.item()
