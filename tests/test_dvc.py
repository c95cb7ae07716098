"""dvc.yaml tells the truth: each stage lists its script and exactly the modules that it imports."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.test_architecture import ROOT, imports, part_of

STAGES: dict[str, dict] = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]


def definition(stage: str) -> dict:
    return STAGES[stage].get("do", STAGES[stage])


def files_of(module: str) -> list[Path]:
    """The files that importing `module` runs: itself and the packages above it."""
    parts = module.split(".")
    paths = []
    for depth in range(1, len(parts) + 1):
        stem = ROOT.joinpath(*parts[:depth])
        paths += [path for path in (stem.with_suffix(".py"), stem / "__init__.py") if path.is_file()]
    return paths


def closure(script: Path) -> set[str]:
    """The parts of `pipeline` that a script reaches."""
    reached: set[Path] = set()
    waiting = [script]
    while waiting:
        path = waiting.pop()
        if path in reached:
            continue
        reached.add(path)
        for name in imports(path):
            if name.split(".")[0] == "pipeline":
                waiting += files_of(name)
    return {part_of(path) for path in reached if path.is_relative_to(ROOT / "pipeline")} - {"__init__"}


def listed(stage: str) -> set[str]:
    deps = [Path(dep) for dep in definition(stage)["deps"]]
    return {dep.parts[1].removesuffix(".py") for dep in deps if dep.parts[0] == "pipeline"}


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_lists_its_script_and_exactly_its_modules(stage: str) -> None:
    script = definition(stage)["cmd"].split()[1]
    assert script == f"stages/{stage}.py"
    assert script in definition(stage)["deps"]
    assert listed(stage) == closure(ROOT / script)


def test_everything_listed_exists() -> None:
    for stage in STAGES:
        for dep in definition(stage)["deps"]:
            if "${" not in dep and dep not in {"data", "results"}:
                assert (ROOT / dep).exists(), dep


def test_byte_code_makes_no_stage_stale() -> None:
    ignored = (ROOT / ".dvcignore").read_text().splitlines()
    assert "__pycache__" in ignored


def test_the_lists_are_those_of_params() -> None:
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    assert STAGES["prepare"]["foreach"] == "${datasets}"
    assert STAGES["sweep"]["foreach"] == "${studies}"
    for stage in STAGES:
        for key in definition(stage)["params"]:
            assert key in params
