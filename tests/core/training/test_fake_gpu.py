"""Whole updates, evaluations and measures on tensors that claim to be on a GPU: nothing may be left on the CPU."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.core.training.fake_gpu import CASES, PLANTED
from tests.test_architecture import ROOT


@pytest.fixture(scope="module")
def errors() -> dict[str, str | None]:
    command = [sys.executable, "-m", "tests.core.training.fake_gpu"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280, check=False)
    assert run.returncode == 0, run.stderr
    found: dict[str, str | None] = json.loads(run.stdout)
    assert set(found) == set(CASES)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("case", [case for case in CASES if not case.startswith(PLANTED)])
def test_everything_stays_on_one_device(case: str, errors: dict[str, str | None]) -> None:
    assert errors[case] is None, errors[case]


@pytest.mark.slow
@pytest.mark.parametrize("case", [case for case in CASES if case.startswith(PLANTED)])
def test_what_is_left_on_the_cpu_is_found(case: str, errors: dict[str, str | None]) -> None:
    last = (errors[case] or "nothing was found").strip().splitlines()[-1]
    assert last.startswith("AssertionError"), errors[case]
    assert "cpu" in last.lower(), errors[case]
