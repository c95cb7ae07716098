"""Train published protocols at their published size on this machine; tables and figures go to reports/replications/.

    python stages/replicate.py [pascanu aicher] [--executor ray|inline]

Each is one grid of a study at the cluster scale with five seeds, in a workspace of its own (.replications/), so that
the datasets and results of params.yaml stay as they are. Trials are kept in the project's store: run again, only what
is missing trains.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
import yaml

from pipeline.config import Paths, read_yaml
from pipeline.errors import PipelineError
from pipeline.figures import influence_balancing
from pipeline.figures.style import to_svg_and_png
from pipeline.selftest.influence_balancing import k_step_gradient, training_path

ROOT = Path(__file__).resolve().parent.parent
NUM_SEEDS = 5


class Protocol(NamedTuple):
    """A published experiment: the study and grid that hold its settings, and the dataset that it trains on."""

    study: str
    grid: str
    dataset: str


PROTOCOLS = {
    "pascanu": Protocol("clipping", "temporal_order", "temporal_order"),
    "aicher": Protocol("truncation", "aicher", "fixed_lag_copy_published"),
}


def main(arguments: list[str] | None = None) -> int:
    """Run the protocols named on the command line, or all; return the exit status."""
    parser = argparse.ArgumentParser(description="Train published protocols at their published size.")
    parser.add_argument("protocols", nargs="*", choices=[*PROTOCOLS, []], metavar="|".join(PROTOCOLS))
    parser.add_argument("--executor", choices=("ray", "inline"), default="ray", help="inline: in this process, no Ray")
    asked = parser.parse_args(arguments)
    chosen = {name: PROTOCOLS[name] for name in asked.protocols or PROTOCOLS}
    try:
        workspace = lay_out(Paths.at(ROOT), chosen)
    except PipelineError as error:
        print(f"replicate: {error}", file=sys.stderr)
        return 2
    commands = [["prepare.py", protocol.dataset, "--project", "."] for protocol in chosen.values()]
    commands += [["sweep.py", protocol.study, "--executor", asked.executor] for protocol in chosen.values()]
    for script, *rest in [*commands, ["report.py"]]:
        done = subprocess.run([sys.executable, ROOT / "stages" / script, *rest], cwd=workspace.root, check=False)  # noqa: S603
        if done.returncode:
            return done.returncode
    folder = Paths.at(ROOT).reports / "replications"
    copy_evidence(workspace, folder)
    balance_influences(folder)
    print(f"replicate: {folder.relative_to(ROOT)}/index.html")
    return 0


def lay_out(project: Paths, protocols: dict[str, Protocol]) -> Paths:
    """Write the workspace's params.yaml and configs, each study cut down to its one grid, and return its paths."""
    workspace = Paths.at(project.root / ".replications")
    shutil.rmtree(workspace.root / "configs", ignore_errors=True)
    shutil.copytree(project.root / "configs", workspace.root / "configs")
    params = read_yaml(project.params) | {
        "scale": "cluster",
        "seeds": {"start": 0, "count": NUM_SEEDS},
        "datasets": [protocol.dataset for protocol in protocols.values()],
        "studies": [protocol.study for protocol in protocols.values()],
        "trial_store": str(project.default_store),
    }
    _write(workspace.params, params)
    for protocol in protocols.values():
        _write(
            workspace.study_config(protocol.study),
            cut_down(read_yaml(project.study_config(protocol.study)), protocol.grid),
        )
    return workspace


def cut_down(study: dict[str, Any], grid: str) -> dict[str, Any]:
    """Return a study's file with one grid left, at the cluster scale alone."""
    scale = study["scales"].get("cluster", {"set": {}, "grids": {}, "axes": {}})
    kept = {
        part: {name: changes for name, changes in scale[part].items() if name == grid} for part in ("grids", "axes")
    }
    scales = {"cluster": {"set": scale["set"], **kept, "skip": []}}
    return study | {"claims": [], "grids": {grid: study["grids"][grid]}, "scales": scales}


def copy_evidence(workspace: Paths, folder: Path) -> None:
    """Put the workspace's report where it is kept: tables, figures and the page."""
    for part in ("tables", "figures"):
        shutil.copytree(workspace.reports / part, folder / part, dirs_exist_ok=True)
    shutil.copyfile(workspace.reports / "index.html", folder / "index.html")


def balance_influences(folder: Path) -> None:
    """Write table and figure of Tallec and Ollivier's system, whose truncated gradient has the wrong sign."""
    lengths = range(1, 101)
    gradients = pl.DataFrame({"backward_length": lengths, "gradient": [k_step_gradient(K) for K in lengths]})
    found = {K: training_path(K) for K in (10, 20, 30, 100)}
    paths = pl.concat(
        pl.DataFrame({"backward_length": K, "step": range(len(path)), "theta": path}) for K, path in found.items()
    )
    gradients.write_csv(folder / "tables" / "influence_balancing_gradients.csv")
    paths.write_csv(folder / "tables" / "influence_balancing_paths.csv")
    svg, png = to_svg_and_png(influence_balancing.draw(gradients, paths))
    (folder / "figures" / "influence_balancing.svg").write_bytes(svg)
    (folder / "figures" / "influence_balancing.png").write_bytes(png)
    print(
        f"influence balancing: {influence_balancing.title(gradients, paths)}. "
        f"{influence_balancing.caption(gradients, paths)}"
    )


def _write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
