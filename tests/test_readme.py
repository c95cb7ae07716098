"""The README's example runs as it stands, what it names exists, its numbers are the report's, and it stays short."""

from __future__ import annotations

import csv
import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.test_architecture import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_it_is_read_in_one_go() -> None:
    assert len(README.splitlines()) <= 170


def test_a_model_is_traced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (block,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    names: dict[str, Any] = {}
    monkeypatch.chdir(tmp_path)
    exec(block, names)
    assert len(names["traced"].table) == 2 * 2 * 100  # layers, states, timesteps
    assert (tmp_path / "trace.png").stat().st_size > 10_000


def test_its_studies_are_those_of_the_project() -> None:
    section = README.split("## Studies")[1].split("\n## ")[0]
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    assert re.findall(r"^\| `(\w+)`", section, re.MULTILINE) == params["studies"]


def test_the_number_of_claims_is_that_of_the_rules() -> None:
    claims = yaml.safe_load((ROOT / "configs" / "claims.yaml").read_text(encoding="utf-8"))["claims"]
    assert f"verdicts on {len(claims)} textbook claims" in README.replace("\n", " ")


@pytest.mark.parametrize("word", ["study", "setting", "trial", "replica", "arm", "tap", "gradient check", "quantity"])
def test_the_terms_are_defined(word: str) -> None:
    assert re.search(rf"^\| {word} \| \w", README, re.MULTILINE)


CHECK = {
    (row["claim"], number): row
    for claim in [f"C{number}" for number in range(1, 31)]
    for number, row in enumerate(
        row
        for row in csv.DictReader(
            (ROOT / "reports" / "tables" / "claim_checks.csv").read_text(encoding="utf-8").splitlines()
        )
        if row["claim"] == claim
    )
}
"""The rows of the ledger, by claim and place."""

NUM_SEEDS = yaml.safe_load((ROOT / "configs" / "scales" / "laptop.yaml").read_text(encoding="utf-8"))["num_seeds"]
TWICE = 2 * NUM_SEEDS  # of the study of optimisers
METRICS = json.loads((ROOT / "reports" / "metrics.json").read_text(encoding="utf-8"))


def of_check(claim: str, number: int, printed: str, *, scale: float = 1.0) -> str:
    """What a text says of a check: its effect and interval, printed so."""
    row = CHECK[claim, number]
    return printed.format(*(scale * float(row[side] or "nan") for side in ("effect", "low", "high")))


def of_metric(printed: str, *keys: str, scale: float = 1.0) -> str:
    """What a text says of a number of metrics.json."""
    value: Any = METRICS
    for key in keys:
        value = value[key]
    return printed.format(scale * value)


def solved(*arms: str, study: str = "initialisation") -> str:
    """How many seeds of arms of the grid `adding` reach the criterion; all of these arms as many."""
    found = [METRICS[study]["adding"][arm] for arm in arms]
    (share,) = {next(row["solved_share"] for length, row in arm.items() if length[0] == "T") for arm in found}
    return f"{NUM_SEEDS * share:.0f} of {NUM_SEEDS}"


AT_START = {
    "Elman": METRICS["cells"]["adding"]["elman"]["decay_factor_h_initialisation"],
    "LSTM": METRICS["cells"]["adding"]["lstm"]["decay_factor_c_initialisation"],
    "GRU": METRICS["cells"]["adding"]["gru"]["decay_factor_h_initialisation"],
}
DECADES = sorted(-99 * math.log10(factor) for factor in AT_START.values())
SHARED = [
    of_check("C2", 0, "by a factor {0:.2f} [{1:.2f}, {2:.2f}] per timestep"),
    f"{AT_START['LSTM']:.2f} in the LSTM's cell state, {AT_START['GRU']:.2f} in the GRU",
    f"{DECADES[0]:.0f} to {DECADES[-1]:.0f} decades over 99 timesteps",
    of_check("C3", 0, "{0:.4f} [{1:.4f}, {2:.4f}] in the LSTM's cell state"),
    of_check("C1", 0, "{0:.0f} % [{1:.0f}, {2:.0f}] of such gradients shrink", scale=100),
    of_check("C1", 1, "by a factor {0:.2f} [{1:.2f}, {2:.2f}] per timestep"),
    of_check("C7", 2, "cosine {0:.2f}"),
    of_check("C4", 0, "average {0:.2f} on flip-flop"),
    of_check("C4", 1, "{0:.2f} on adding"),
    "0.997",  # what is quoted elsewhere
    of_check("C12", 0, "Adam's test loss is {0:.2f} [{1:.2f}, {2:.2f}] of plain SGD's"),
    of_check("C12", 5, f"{{0:.0f}} of {TWICE} seeds diverge", scale=TWICE),
    of_check("C12", 2, "at some learning rate, with SGD {0:.0f}:", scale=TWICE),
]
FINDINGS = {
    "README.md": SHARED,
    "docs/science.md": [
        *SHARED,
        of_metric("{:.4f} in the GRU", "cells", "adding", "gru", "decay_factor_h_end"),
        f"T = 50 with {solved('ReLU, identity', 'leaky ReLU, identity')} seeds",
        f"{solved('ReLU, orthogonal')} with orthogonal ones",
        f"tanh with {solved('tanh, identity', 'tanh, orthogonal', 'tanh, Gaussian')}",
        f"{solved('chrono', study='gates')} seeds solve T = 100",
        f"a forget bias of 1 lets {solved('forget bias 1', study='gates')}",
        of_check("C16", 0, "{0:.0f} [{1:.0f}, {2:.0f}] times the updates of those of at most 5"),
        of_check("C16", 1, "a share {0:.2f} [{1:.2f}, {2:.2f}] of them"),
        of_check("C16", 3, "no more of the longer ones come out wrong ({0:.1f} points [{1:.1f}, {2:.1f}])", scale=100),
        of_metric("at most 10 letters {:.1f} %", "attention", "copying", "none", "T10", "test_error", scale=100),
        of_metric("with dot attention {:.1f} % do", "attention", "copying", "dot", "T10", "test_error", scale=100),
        of_check("C12", 4, "a difference of {0:.0f} [{1:.0f}, {2:.0f}] points", scale=100),
        of_check("C17", 0, "{0:.0f} % [{1:.0f}, {2:.0f}] of its weight lies", scale=100),
        of_check("C19", 0, "{0:.1f} [{1:.1f}, {2:.1f}] points more often", scale=100),
        of_check("C28", 0, "{0:.1f} [{1:.1f}, {2:.1f}] nats further"),
        of_check("C29", 0, "{0:.0f} % [{1:.0f}, {2:.0f}] of the last word's weight", scale=100),
        of_check("C30", 0, "({0:.1f} points more [{1:.1f}, {2:.1f}])", scale=100),
        of_check("C29", 1, "{0:.0f} points fewer wrong answers", scale=-100),
        of_check("C19", 1, "with the linear schedule {0:.1f} [{2:.1f}, {1:.1f}] points less", scale=-100),
    ],
}
SECTIONS = {
    "README.md": ("95 % intervals. Norms", "[The science]"),
    "docs/science.md": ("## What it finds", "## The claims"),
}
"""Between which words a file's findings stand."""


@pytest.mark.parametrize("file", FINDINGS)
def test_measured_numbers_are_those_of_the_report(file: str) -> None:
    """Each number of the findings is one that the ledger or the metrics hold, as it is printed; there are no others."""
    start, end = SECTIONS[file]
    text = " ".join((ROOT / file).read_text(encoding="utf-8").split(start)[1].split(end)[0].split())
    for said in FINDINGS[file]:
        assert said in text, f"{file}: the report now says {said!r}"
    for said in FINDINGS[file]:
        text = text.replace(said, "")
    assert not re.findall(r"\d*\.\d+|\d+ %|\d+ of \d+", text), text
