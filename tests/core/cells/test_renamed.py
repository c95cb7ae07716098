"""A new cell needs no test of its own: every test of a cell runs on it, whatever it is called."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from tests.test_architecture import ROOT

ROOMS = ("cells", "models", "measures")


@pytest.mark.slow
def test_the_lstm_under_another_name_passes_every_test_of_a_cell() -> None:
    plugin = ["-p", "tests.core.cells.renamed_lstm", "-p", "no:cacheprovider"]
    command = [sys.executable, "-m", "pytest", "-q", "-rN", *plugin, "-k", "renamed and not another_name"]
    run = subprocess.run(
        [*command, *(f"tests/core/{room}" for room in ROOMS)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr
    passed = re.search(r"(\d+) passed", run.stdout)
    assert passed, run.stdout
    assert int(passed[1]) >= 45  # 15 functions of this room and `models`, some of them with further parameters
