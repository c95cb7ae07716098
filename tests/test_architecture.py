"""The shape of the house: which way arrows point, and who may import what."""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CORE = ("config", "data", "core", "selftest")
LAYERS = {
    "errors": set(),
    "config": {"errors"},
    "data": {"errors", "config"},
    "core": {"errors", "config", "data"},
    "selftest": {"errors", "config", "data", "core"},
    "results": {"errors", "config", "core"},
    "quantities": {"errors", "results"},
    "figures": {"errors", "results", "quantities"},
    "claims": {"errors", "config", "results", "quantities"},
    "report": {"errors", "config", "core", "results", "quantities", "figures", "claims"},
    "stopping": set(),
    "sweep": {"errors", "config", "data", "core", "results", "quantities", "stopping"},
    "publish": {"errors", "config", "core", "results", "quantities", "figures"},
    "trace": {"errors", "config", "core", "results", "figures"},
    "loading": {"errors", "config", "results", "quantities", "figures"},
    "trained": {"errors", "config", "data", "core", "results", "sweep", "loading"},
}
LIBRARIES = {
    "ray",
    "wandb",
    "wandb_workspaces",
    "optuna",
    "dvc",
    "polars",
    "seaborn",
    "matplotlib",
    "pandas",
    "pyarrow",
}


@cache
def modules() -> tuple[Path, ...]:
    return tuple(sorted((ROOT / "pipeline").rglob("*.py")))


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def imports(path: Path) -> frozenset[str]:
    """Every imported module, full names; those under TYPE_CHECKING do not count."""
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            return
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(parsed(path))
    return frozenset(found)


def part_of(path: Path) -> str:
    return path.relative_to(ROOT / "pipeline").parts[0].removesuffix(".py")


def test_every_part_is_in_the_plan() -> None:
    assert {part_of(path) for path in modules()} - {"__init__", "__main__"} == set(LAYERS)


@pytest.mark.parametrize("part", LAYERS)
def test_arrows_point_one_way(part: str) -> None:
    for path in modules():
        if part_of(path) != part:
            continue
        used = {name.split(".")[1] for name in imports(path) if name.startswith("pipeline.")}
        assert used - {part} <= LAYERS[part], path.relative_to(ROOT)


def test_a_sweep_sees_of_quantities_the_intervals_alone() -> None:
    """Of which `dvc.yaml` makes it stale: an edit of any other quantity does not."""
    seen = {name for path in modules() if part_of(path) == "sweep" for name in imports(path)}
    quantities = {name for name in seen if name.startswith("pipeline.quantities")}
    assert {".".join(name.split(".")[:3]) for name in quantities} == {"pipeline.quantities.intervals"}


@pytest.mark.parametrize("library", ["ray", "wandb", "wandb_workspaces", "optuna"])
def test_some_libraries_are_each_imported_in_one_module(library: str) -> None:
    users = [path for path in modules() if any(name.split(".")[0] == library for name in imports(path))]
    assert len(users) == 1, [str(path.relative_to(ROOT)) for path in users]


def test_drawing_libraries_are_imported_where_figures_are_drawn() -> None:
    users = {
        part_of(path) for path in modules() if {n.split(".")[0] for n in imports(path)} & {"seaborn", "matplotlib"}
    }
    assert users == {"figures"}


def test_the_core_imports_torch_and_numpy_alone() -> None:
    for path in modules():
        if part_of(path) in CORE:
            assert not {name.split(".")[0] for name in imports(path)} & LIBRARIES, path


@pytest.mark.slow
def test_the_core_trains_where_nothing_else_is_installed(tmp_path: Path) -> None:
    program = f"""
import sys
sys.modules.update(dict.fromkeys({sorted(LIBRARIES)!r}))  # importing any of them fails, as where it is not installed
from pathlib import Path
from pipeline.config import Sizes, build
from pipeline.data import load_dataset, prepare_dataset
from pipeline.core.training import MemorySink, TrialSpec, run_trial
from tests.core.training.conftest import RAW
folder = Path({str(tmp_path)!r}) / "adding"
prepare_dataset("adding", Path("configs/datasets/adding.yaml"), [10], Sizes(64, 16, 16), folder)
result = run_trial(build(TrialSpec, RAW, "here"), load_dataset(folder, 10), MemorySink())
assert result.status == "ok", result
"""
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, timeout=120)


def test_nothing_draws_from_a_global_generator() -> None:
    """But a user's own code, which knows no other: around it torch's is forked, and is afterwards where it was."""
    for path in modules():
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.Attribute) and node.attr in {"manual_seed", "seed"}:
                allowed = {"torch.manual_seed"} if path.name == "custom.py" else set()
                drawn_from = {"torch.manual_seed", "np.random.seed", "random.seed"} - allowed
                assert ast.unparse(node) not in drawn_from, path
