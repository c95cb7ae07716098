"""How often each kind of interval holds the truth: exact by enumeration for events, else simulated by the shipped code.

A *truth* is a distribution of what a seed has. The coverage of a kind is that of its intervals over samples of n seeds,
for a grid of truths; an interval that is missing holds nothing.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import polars as pl
from scipy import stats

from pipeline.quantities.intervals import (
    CONFIDENCE,
    Array,
    event_difference_limits,
    line_interval,
    mean_interval,
    paired_difference,
    ratio_half_width,
    share_interval,
    share_limits,
)

NUM_SEEDS = (3, 5, 10, 20)
MIN_MEAN, MIN_SMALLEST, HELD_FROM = 0.93, 0.85, 5
"""What the coverage of every kind is held to, from so many seeds on: its mean over truths, and its smallest."""

Truth = tuple[str, float]
"""The words of a truth, and its coverage."""

_RNG_SEED = 20


class Kind(NamedTuple):
    """A kind of interval, the grid of truths in words, and what yields each truth with its coverage.

    `is_held` is False of truths for which a kind is known not to hold: they are printed, so that a reader sees where.
    """

    name: str
    grid: str
    measure: Callable[[int, int], Iterator[Truth]]
    is_held: bool = True


def coverage(num_samples: int, num_seeds: Sequence[int] = NUM_SEEDS) -> pl.DataFrame:
    """Return a row per kind and number of seeds.

    Args:
        num_samples: So many samples are drawn of each truth, where coverage is not exact.
        num_seeds: The numbers of seeds.

    Returns:
        Columns `kind`, `grid`, `num_seeds`, `num_truths`, `mean`, `smallest`, `at` (the truth of the smallest), `holds`
        (null where nothing is promised).
    """
    rows = []
    for kind, n in itertools.product(KINDS, num_seeds):
        truths = list(kind.measure(n, num_samples))
        at, smallest = min(truths, key=lambda truth: truth[1])
        mean = math.fsum(share for _, share in truths) / len(truths)
        is_promised = kind.is_held and n >= HELD_FROM
        holds = mean >= MIN_MEAN and smallest >= MIN_SMALLEST
        rows.append(
            {
                "kind": kind.name,
                "grid": kind.grid,
                "num_seeds": n,
                "num_truths": len(truths),
                "mean": mean,
                "smallest": smallest,
                "at": at,
                "holds": holds if is_promised else None,
            }
        )
    return pl.DataFrame(rows)


def run(num_samples: int, write: Callable[[str], object] = print) -> int:
    """Print the coverage of every kind, and return the exit status: 1 if one does not hold.

    Args:
        num_samples: As for `coverage`.
        write: Takes the table, line by line.
    """
    found = coverage(num_samples)
    write(f"Coverage of {100 * CONFIDENCE:.0f} % intervals; {num_samples} samples of each truth, or exact for events.")
    for (kind, grid), rows in found.group_by("kind", "grid", maintain_order=True):
        write(f"\n{kind}\n  truths: {grid}")
        for row in rows.iter_rows(named=True):
            verdict = {True: "  holds", False: "  FAILS", None: ""}[row["holds"]]
            figures = f"mean {row['mean']:.3f}  smallest {row['smallest']:.3f}"
            write(f"  n = {row['num_seeds']:>2}  {figures}  at {row['at']}{verdict}")
    failed = found.filter(~pl.col("holds"))
    write(
        f"\n{found['holds'].sum()} hold, {failed.height} fail: a mean over truths of at least {MIN_MEAN} and a "
        f"smallest of at least {MIN_SMALLEST} are promised from {HELD_FROM} seeds on."
    )
    return 1 if failed.height else 0


def _frame(samples: Array) -> pl.DataFrame:
    """Return samples (rows) of seeds (columns) as a long table."""
    num_samples, n = samples.shape
    columns = {"sample": np.repeat(np.arange(num_samples), n), "seed": np.tile(np.arange(n), num_samples)}
    return pl.DataFrame(columns | {"value": samples.ravel()})


def _held(intervals: pl.DataFrame, truth: float) -> float:
    slack = 1e-12
    inside = (pl.col("low") <= truth + slack) & (pl.col("high") >= truth - slack)
    return float(intervals.select(inside.fill_null(value=False).mean()).item())


def _means(n: int, num_samples: int) -> Iterator[Truth]:
    rng = np.random.default_rng(_RNG_SEED)
    truths: dict[str, tuple[Callable[[tuple[int, int]], Array], float]] = {
        "normal": (rng.standard_normal, 0.0),
        "uniform": (lambda size: rng.uniform(size=size), 0.5),
        "Laplace": (lambda size: rng.laplace(size=size), 0.0),
        "gamma of shape 9": (lambda size: rng.gamma(9.0, size=size), 9.0),
    }
    for name, (draw, mean) in truths.items():
        yield name, _held(mean_interval(_frame(draw((num_samples, n))), "value", ["sample"]), mean)


def _geometric(n: int, num_samples: int) -> Iterator[Truth]:
    rng = np.random.default_rng(_RNG_SEED)
    for sigma in (0.1, 0.5, 1.0, 2.0):
        logs = np.log10(rng.lognormal(0.0, sigma, (num_samples, n)))
        yield f"lognormal, σ = {sigma:g}", _held(mean_interval(_frame(logs), "value", ["sample"]), 0.0)
    for decades in (1, 3):
        logs = np.log10(10.0 ** rng.uniform(0, decades, (num_samples, n)))
        yield f"even over {decades} decades", _held(mean_interval(_frame(logs), "value", ["sample"]), decades / 2)


def _arithmetic(n: int, num_samples: int) -> Iterator[Truth]:
    rng = np.random.default_rng(_RNG_SEED)
    for sigma in (0.5, 1.0, 2.0):
        values = rng.lognormal(0.0, sigma, (num_samples, n))
        found = mean_interval(_frame(values), "value", ["sample"])
        yield f"lognormal, σ = {sigma:g}", _held(found, math.exp(sigma**2 / 2))


def _events(n: int, num_samples: int) -> Iterator[Truth]:  # noqa: ARG001 - exact
    events = np.arange(n + 1)
    low, high = share_limits(events, np.full(n + 1, n))
    for share in np.arange(1, 100) / 100:
        inside = (low <= share) & (share <= high)
        yield f"p = {share:g}", float(stats.binom.pmf(events, n, share) @ inside)


def _event_differences(n: int, num_samples: int) -> Iterator[Truth]:  # noqa: ARG001 - exact
    tables = np.array([(a, b, c, n - a - b - c) for a, b, c in np.ndindex(n + 1, n + 1, n + 1) if a + b + c <= n])
    limits = np.array([event_difference_limits(table) for table in tables])
    shares = (0.02, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 0.98)
    for p, q, overlap in itertools.product(shares, shares, (0.0, 0.25, 0.5, 0.75, 1.0)):
        least, most = max(0.0, p + q - 1), min(p, q)
        both = least + overlap * (most - least)
        cells = np.clip([both, p - both, q - both, 1 - p - q + both], 0.0, 1.0)
        inside = (limits[:, 0] <= p - q + 1e-12) & (p - q - 1e-12 <= limits[:, 1])
        yield (
            f"p = {p}, q = {q}, both {both:.3g}",
            float(stats.multinomial.pmf(tables, n, cells / cells.sum()) @ inside),
        )


def _share_samples(rng: np.random.Generator, share: float, spread: float, many: int, size: tuple[int, int]) -> Array:
    """Return shares of `many` things that a seed has, its own probability being of a beta distribution."""
    own = rng.beta(share * spread, (1 - share) * spread, size) if spread < math.inf else np.full(size, share)
    return rng.binomial(many, own) / many


def _shares_of(truths: Sequence[tuple[float, float]], n: int, num_samples: int) -> Iterator[Truth]:
    rng = np.random.default_rng(_RNG_SEED)
    for (share, spread), many in itertools.product(truths, (4, 20, 500)):
        samples = _share_samples(rng, share, spread, many, (num_samples, n))
        found = share_interval(_frame(samples), "value", ["sample"])
        yield f"p = {share:g}, spread {spread:g}, {many} things a seed", _held(found, share)


_SPREADS = tuple((share, spread) for share in (0.05, 0.2, 0.5, 0.8) for spread in (10.0, 100.0, math.inf))
_SKEWED = ((0.02, 5.0), (0.05, 1.0), (0.05, 5.0))


def _rare_shares(n: int, num_samples: int) -> Iterator[Truth]:
    """Most samples have nothing in any seed: of seeds that are alike, and of seeds that have all or none."""
    rng, size = np.random.default_rng(_RNG_SEED), (num_samples, n)
    many = 4000
    samples = {(f"p = {p:g}, all seeds alike", p): rng.binomial(many, p, size) / many for p in (1e-5, 1e-4, 1e-3)}
    samples |= {(f"p = {p:g}, all or none", p): (rng.random(size) < p).astype(float) for p in (0.05, 0.2, 0.4)}
    for (name, share), own in samples.items():
        yield name, _held(share_interval(_frame(own), "value", ["sample"]), share)


def _step_times(rng: np.random.Generator, noise: float, num_portions: int, num_samples: int) -> tuple[Array, Array]:
    """Return the mean time of a step and its error over the mean, of portions whose true time is 1."""
    portions = 1 + noise * rng.standard_normal((num_samples, num_portions))
    means = portions.mean(axis=1)
    return means, portions.std(axis=1, ddof=1) / num_portions**0.5 / means


def _time_ratios(n: int, num_samples: int) -> Iterator[Truth]:
    rng = np.random.default_rng(_RNG_SEED)
    for others, noise in itertools.product((n, 4 * n), ((0.02, 0.02), (0.05, 0.2), (0.2, 0.05))):
        sides = [_step_times(rng, own, num, num_samples) for own, num in zip(noise, (n, others), strict=True)]
        half = ratio_half_width(np.array([error for _, error in sides]), np.array([[n], [others]]))
        found = np.log(sides[0][0] / sides[1][0])
        name = f"noise {noise[0]:g} and {noise[1]:g}, {n} and {others} portions"
        yield name, _held(pl.DataFrame({"low": found - half, "high": found + half}), 0.0)


def _criterion_times(n: int, num_samples: int) -> Iterator[Truth]:
    rng = np.random.default_rng(_RNG_SEED)
    for sigma, noise, num_portions in itertools.product((0.02, 0.3), (0.02, 0.2), (5, 20)):
        clocks = [_step_times(rng, noise, num_portions, num_samples) for _ in range(2)]
        of_clocks = ratio_half_width(np.array([error for _, error in clocks]), np.array(num_portions))
        logs = np.log(clocks[0][0] / clocks[1][0])[:, None] + sigma * rng.standard_normal((num_samples, n))
        seeds = mean_interval(_frame(logs), "value", ["sample"])
        mean, high = (seeds[name].to_numpy() for name in ("mean", "high"))
        half = np.hypot(high - mean, of_clocks)
        name = f"σ = {sigma:g} over seeds, noise {noise:g} of {num_portions} portions"
        yield name, _held(pl.DataFrame({"low": mean - half, "high": mean + half}), 0.0)


def _share_differences(n: int, num_samples: int) -> Iterator[Truth]:
    rng = np.random.default_rng(_RNG_SEED)
    for (p, q), spread, many in itertools.product(((0.2, 0.2), (0.1, 0.5), (0.5, 0.8)), (10.0, math.inf), (4, 500)):
        size = (num_samples, n)
        sides = [_share_samples(rng, share, spread, many, size) for share in (p, q)]
        limits: dict[tuple[float, ...], tuple[float, float]] = {}
        found = mean_interval(_frame(sides[0] - sides[1]), "value", ["sample"]).select("low", "high")
        low, high = (found[name].to_numpy().copy() for name in ("low", "high"))
        for sample in np.flatnonzero(np.isnan(low)):  # seeds that are all alike
            key = (*sides[0][sample], *sides[1][sample])
            if key not in limits:
                frame = pl.DataFrame(
                    {"arm": ["a"] * n + ["b"] * n, "seed": [*range(n)] * 2, "value": list(map(float, key))}
                )
                row = paired_difference(frame, "value", "arm", "a", "b", of_shares=True).row(0, named=True)
                limits[key] = row["low"], row["high"]
            low[sample], high[sample] = limits[key]
        name = f"p = {p}, q = {q}, spread {spread:g}, {many} things a seed"
        yield name, _held(pl.DataFrame({"low": low, "high": high}), p - q)


def _paired_means(n: int, num_samples: int) -> Iterator[Truth]:
    rng = np.random.default_rng(_RNG_SEED)
    for correlation, scale in itertools.product((0.0, 0.5, 0.9), (0.5, 2.0)):
        common, *own = rng.standard_normal((3, num_samples, n))
        first, second = (correlation**0.5 * common + (1 - correlation) ** 0.5 * each for each in own)
        found = mean_interval(_frame(first - (scale * second + 1)), "value", ["sample"])
        yield f"correlation {correlation}, spreads 1 and {scale}", _held(found, -1.0)


def _lines(n: int, num_samples: int) -> Iterator[Truth]:
    rng = np.random.default_rng(_RNG_SEED)
    x = np.log10(np.geomspace(10, 1000, n))
    noises: dict[str, Callable[[int], Array]] = {
        "normal": rng.standard_normal,
        "uniform": lambda size: rng.uniform(-1, 1, size),
    }
    for name, noise in noises.items():
        found = [line_interval(x, 0.8 * x + 0.1 * noise(n)) for _ in range(num_samples)]
        inside = [line is not None and line[1] <= 0.8 <= line[2] for line in found]
        yield f"{name} noise", sum(inside) / num_samples


KINDS = (
    Kind("mean: Student's t", "normal, uniform, Laplace, gamma of shape 9", _means),
    Kind("geometric mean: Student's t of logarithms", "lognormal, σ 0.1 to 2; even over 1 and 3 decades", _geometric),
    Kind("share of seeds: mid-p", "p = 0.01, 0.02, ..., 0.99; exact", _events),
    Kind(
        "share that a seed has of many things: Korn and Graubard's, mid-p",
        "p 0.05, 0.2, 0.5, 0.8; beta of p · spread and (1 - p) · spread, spread 10, 100, ∞; of 4, 20 and 500 things",
        lambda n, num_samples: _shares_of(_SPREADS, n, num_samples),
    ),
    Kind(
        "share that most seeds have nothing of: of those that are alike, mid-p of seeds",
        "p 0.00001, 0.0001, 0.001 of 4000 things in every seed; p 0.05, 0.2, 0.4 of seeds that have all or none",
        _rare_shares,
    ),
    Kind(
        "difference or ratio of means, paired: Student's t",
        "normal, correlation 0, 0.5, 0.9, spreads 1 and 0.5 or 2",
        _paired_means,
    ),
    Kind(
        "difference of shares of seeds, paired: Newcombe's, mid-p",
        "p and q of 0.02 to 0.98, from the least to the largest overlap; exact",
        _event_differences,
    ),
    Kind(
        "difference of shares that a seed has, paired: Student's t, of seeds that are alike Newcombe's",
        "p, q of (0.2, 0.2), (0.1, 0.5), (0.5, 0.8); spread 10 and ∞; of 4 and 500 things",
        _share_differences,
    ),
    Kind("slope over n points: Student's t", "normal and uniform noise", _lines),
    Kind(
        "ratio of step times over n portions: Student's t, Welch's",
        "normal noise of 2 % on both sides, of 5 and 20 %, of n and n or 4 n portions",
        _time_ratios,
    ),
    Kind(
        "ratio of times to the criterion: Student's t over seeds, with that of the clocks they share",
        "σ 0.02, 0.3 of the logarithm over seeds; noise of 2 and 20 % of 5 and 20 portions",
        _criterion_times,
    ),
    Kind(
        "NOT HELD: mean of skewed values, which are therefore logarithms here: Student's t",
        "lognormal, σ 0.5 to 2",
        _arithmetic,
        is_held=False,
    ),
    Kind(
        "NOT HELD: share near 0 in most seeds and large in a few: Korn and Graubard's, mid-p",
        "p, spread of (0.02, 5), (0.05, 1), (0.05, 5); of 4, 20 and 500 things",
        lambda n, num_samples: _shares_of(_SKEWED, n, num_samples),
        is_held=False,
    ),
)
