"""Names of arms, numbers, intervals and outcomes as text."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import polars as pl

_NAMES = {
    "elman": "Elman",
    "elman_linear": "Elman (linear)",
    "elman_sigmoid": "Elman (sigmoid)",
    "elman_relu": "Elman (ReLU)",
    "elman_leaky_relu": "Elman (leaky ReLU)",
    "lstm": "LSTM",
    "gru": "GRU",
    "lstm_peephole": "peephole LSTM",
    "lstm_coupled": "coupled LSTM",
    "lstm_layer_norm": "layer-norm LSTM",
    "slstm": "sLSTM",
    "janet": "JANET",
    "gru_reset_before": "GRU (reset before)",
    "ugrnn": "UGRNN",
    "min_gru": "minGRU",
    "min_lstm": "minLSTM",
    "ind_rnn": "IndRNN",
    "antisymmetric": "antisymmetric RNN",
    "antisymmetric_gated": "antisymmetric RNN (gated)",
    "lru": "LRU",
    "cornn": "coRNN",
    "unicornn": "UnICORNN",
    "lem": "LEM",
}
_ENDED = {
    "diverged": "diverged",
    "censored": "stopped by the search",
    "timed_out": "ran out of time",
    "error": "failed with an error",
}
INTERVAL = "95 % interval"


def name_of(arm: str) -> str:
    """Return «LSTM» for the cell, «LSTM, threshold=1.0» for an arm with more axes; a variant's label stays as it is."""
    return ", ".join(_NAMES.get(part, part) for part in arm.split(", "))


def quoted(arm: str) -> str:
    """Return the name of an arm, that of several words in guillemets."""
    return f"«{name_of(arm)}»" if " " in arm else name_of(arm)


def with_article(arm: str) -> str:
    """Return «the LSTM», «the Elman network»; a variant's label has no article; a label of several words is quoted."""
    name = quoted(arm)
    if " " in arm or arm not in _NAMES:
        return name
    return f"the {name} network" if arm.startswith("elman") else f"the {name}"


def number(value: float | None, digits: int = 3) -> str:
    """Return a value with `digits` significant digits, or «n/a» where there is none."""
    if value is None or math.isnan(value):
        return "n/a"
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    if 1e-3 <= abs(value) < 10**5:
        rounded = float(f"{abs(value):.{digits - 1}e}")  # 0.9999 is 1.00
        places = max(0, digits - 1 - math.floor(math.log10(rounded)))
        return f"{value:.{places}f}"
    return f"{value:.{digits - 1}e}"


def count(amount: int, noun: str) -> str:
    """Return «1 seed», «5 seeds»."""
    return f"{amount} {noun}" if amount == 1 else f"{amount} {noun}s"


def join(parts: Sequence[str]) -> str:
    """Return «a, b and c»."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def join_first(parts: Sequence[str], most: int = 3) -> str:
    """Return «a, b and c»; «a, b and 4 others» of more than `most`."""
    if len(parts) <= most:
        return join(parts)
    return f"{', '.join(parts[: most - 1])} and {len(parts) - most + 1} others"


def seeds_of(frame: pl.DataFrame) -> str:
    """Return «5 seeds» of a frame with a `num_seeds` column; «3 to 5 seeds» where they differ."""
    low, high = frame["num_seeds"].min(), frame["num_seeds"].max()
    if frame.is_empty() or not isinstance(low, int) or not isinstance(high, int):
        return "no seeds"
    return count(high, "seed") if low == high else f"{low} to {high} seeds"


def outcomes(runs: pl.DataFrame, treatment: str) -> str:
    """Return what happened to replicas that did not end `ok`, and what the figure does with them."""
    bad = runs.filter(pl.col("status") != "ok")
    if bad.is_empty():
        return "The only replica ended ok." if runs.height == 1 else f"All {runs.height} replicas ended ok."
    parts = [
        f"{bad.filter(pl.col('status') == status).height} {ending}"
        for status, ending in _ENDED.items()
        if status in bad["status"]
    ]
    return f"Of {count(runs.height, 'replica')}, {join(parts)}: {treatment}."


def left_out(frame: pl.DataFrame) -> str:
    """Return how many values of a drawn table were not finite, or nothing."""
    total = int(frame["num_nonfinite"].sum())
    return (
        f" {count(total, 'value')} that {'is' if total == 1 else 'are'} not finite left out of means." if total else ""
    )


def interval(row: Mapping[str, float | None], digits: int = 2, *, scale: float = 1.0) -> str:
    """Return «0.91 [0.88, 0.94]» of a row with `mean`, `low` and `high`, times `scale`; «0.91» without an interval.

    Where both ends are the value itself, it is exact: «0.91 (exact)».
    """
    mean, low, high = (None if row[side] is None else scale * row[side] for side in ("mean", "low", "high"))  # type: ignore[operator]
    if low is None or high is None:
        return number(mean, digits)
    if low == high:
        return f"{number(mean, digits)} (exact)"
    return f"{number(mean, digits)} [{number(low, digits)}, {number(high, digits)}]"


def capitalised(text: str) -> str:
    """Return the text with its first letter large and every other one as it is."""
    return text[:1].upper() + text[1:]
