"""The README's examples run as they stand, and what it names exists."""

from __future__ import annotations

import csv
import dataclasses
import re
from typing import Any, Literal

import pytest
import torch

from pipeline.core.cells import CELLS, States
from pipeline.core.cells.stack import RecurrentStack
from pipeline.core.models import initialisation
from tests.core.cells import test_cells
from tests.test_architecture import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def block_with(text: str) -> str:
    (block,) = [block for block in BLOCKS if text in block]
    return block


def test_the_gradient_of_a_tap_is_that_of_the_state() -> None:
    names: dict[str, Any] = {}
    exec(block_with("RecurrentStack"), names)
    norms = names["taps"].c.grad.double().norm(dim=(1, 2))
    assert norms.shape == (100,)
    assert (norms > 0).all()


def test_the_cell_of_the_example_is_a_cell(monkeypatch: pytest.MonkeyPatch) -> None:
    names: dict[str, Any] = {}
    exec(block_with("elman_softsign"), names)
    monkeypatch.setitem(CELLS, "elman_softsign", names["CELLS"]["elman_softsign"])
    test_cells.test_values_and_every_gradient_agree_with_a_hand_unrolled_loop("elman_softsign")
    test_cells.test_gradcheck("elman_softsign")
    test_cells.test_derivative_of_the_nonlinearity_is_its_finite_difference("elman_softsign")
    stack = RecurrentStack("elman_softsign", 2, 3, torch.Generator().manual_seed(0))
    assert isinstance(stack(torch.ones(4, 1, 2)).states[0], States)


def test_the_initialisation_of_the_example_is_antisymmetric() -> None:
    names = {"dataclass": dataclasses.dataclass, "Literal": Literal, "torch": torch, "Tensor": torch.Tensor}
    exec(block_with("class Antisymmetric"), names)
    block = torch.empty(6, 6)
    names["Antisymmetric"]("antisymmetric", 2.0).fill(block, torch.Generator().manual_seed(0))  # type: ignore[operator]
    assert torch.equal(block, -block.T)
    assert block.any()
    assert hasattr(initialisation.Orthogonal, "fill")  # the same interface as the rules that ship


@pytest.mark.parametrize(
    "path", sorted(set(re.findall(r"`((?:pipeline|configs|stages|benchmarks|docs|reports)/[\w./]+)`", README)))
)
def test_every_file_that_is_named_exists(path: str) -> None:
    assert (ROOT / path).exists()


@pytest.mark.parametrize("target", sorted(set(re.findall(r"`make (\w+)`", README))))
def test_every_make_target_that_is_named_exists(target: str) -> None:
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


def test_the_verdicts_are_those_of_the_committed_report() -> None:
    with (ROOT / "reports" / "tables" / "claims.csv").open(encoding="utf-8") as lines:
        verdicts = {row["claim"]: row["verdict"] for row in csv.DictReader(lines)}
    told = dict(re.findall(r"^\| (C\d+) \|.*\| ([a-z ]+)(?:: .*)? \|$", README, re.MULTILINE))
    assert told == verdicts
