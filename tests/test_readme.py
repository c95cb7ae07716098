"""The README's example runs as it stands, what it names exists, and it stays short."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from tests.test_architecture import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_it_is_read_in_one_go() -> None:
    assert len(README.splitlines()) <= 170


def test_the_gradient_of_a_tap_is_that_of_the_state() -> None:
    (block,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    names: dict[str, Any] = {}
    exec(block, names)
    norms = names["taps"].c.grad.double().norm(dim=(1, 2))
    assert norms.shape == (100,)
    assert (norms > 0).all()


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
