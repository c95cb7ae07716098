"""Small sizes, and small stand-ins for the files under configs/datasets."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.config import Sizes

CONFIGS = {
    "adding": "generator: adding\nseed: 0\nlengths: [6]\n",
    "copy_memory": "generator: copy_memory\nseed: 0\nlengths: [4]\nnum_symbols: 8\nnum_copied: 10\n",
    "dates": (
        "generator: dates\nseed: 0\nlocales: [en, ko]\nformats: [full, medium]\nfirst_year: 2000\nlast_year: 2009\n"
        "shares: {train: 0.8, validation: 0.1, test: 0.1}\n"
    ),
    "fixed_lag_copy": (
        "generator: fixed_lag_copy\nseed: 0\nlengths: [12]\nnum_symbols: 6\nlag: 10\nspliced: true\nnum_streams: 70\n"
    ),
    "flip_flop": (
        "generator: flip_flop\nseed: 0\nlengths: [12]\nnum_symbols: 4\nwrite_probability: 0.1\nread_probability: 0.1\n"
    ),
    "numbers": (
        "generator: numbers\nseed: 0\nlowest: 0\nhighest: 999\ntarget: words\n"
        "shares: {train: 0.8, validation: 0.1, test: 0.1}\n"
    ),
    "entities": "generator: sentences\nseed: 0\ntask: entities\nshares: {train: 0.7, validation: 0.15, test: 0.15}\n",
    "sentiment": "generator: sentences\nseed: 0\ntask: sentiment\nshares: {train: 0.7, validation: 0.15, test: 0.15}\n",
    "tagging": "generator: tagging\nseed: 0\nlengths: [12]\nnum_symbols: 4\nmax_distance: 3\n",
    "temporal_order": "generator: temporal_order\nseed: 0\nlengths: [20]\nnum_distractors: 4\n",
    "stdlib_text": (
        "generator: stdlib_text\nseed: 0\nlengths: [30]\n"
        "modules: {train: [textwrap.py, heapq.py], validation: [bisect.py], test: [queue.py]}\n"
    ),
    "permuted_digits": (
        "generator: digits\nseed: 0\npermuted: true\nshares: {train: 0.7, validation: 0.15, test: 0.15}\n"
    ),
    "transduction": "generator: transduction\nseed: 0\nlengths: [8]\noperation: sort\nnum_symbols: 4\nmin_share: 0.5\n",
    "digit_canvases": (
        "generator: digit_canvases\nseed: 0\nnum_lines: 2\nline_height: 12\nwidth: 24\nmin_digits: 1\nmax_digits: 3\n"
        "cell: 4\nshares: {train: 0.7, validation: 0.15, test: 0.15}\n"
    ),
    "described_digits": (
        "generator: described_digits\nseed: 0\nnum_lines: 2\nline_height: 12\nwidth: 24\nmin_digits: 3\nmax_digits: 4\n"
        "cell: 4\nshares: {train: 0.7, validation: 0.15, test: 0.15}\n"
    ),
    "moving_digits": (
        "generator: moving_digits\nseed: 0\nlengths: [4]\ntask: frame\nframe_side: 12\n"
        "shares: {train: 0.7, validation: 0.15, test: 0.15}\n"
    ),
    "matching_digits": (
        "generator: matching_digits\nseed: 0\nlengths: [6]\nnum_digits: 3\n"
        "shares: {train: 0.7, validation: 0.15, test: 0.15}\n"
    ),
}


@pytest.fixture
def sizes() -> Sizes:
    return Sizes(num_train=40, num_validation=10, num_test=20)


@pytest.fixture
def config_path(tmp_path: Path) -> Callable[[str], Path]:
    """Return a function that writes configs/datasets/<name>.yaml and returns its path."""

    def write(name: str, text: str | None = None) -> Path:
        path = tmp_path / "configs" / "datasets" / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(CONFIGS[name] if text is None else text, encoding="utf-8")
        return path

    return write
