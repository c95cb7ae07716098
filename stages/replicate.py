"""Train published protocols at their published size on this machine; the evidence goes to reports/replications/<name>/.

    python stages/replicate.py [pascanu aicher influence_balancing] [--executor ray|inline]

A protocol is one grid of a study at the cluster scale with five seeds, in a workspace of its own
(.replications/<name>), so that the datasets and results of params.yaml stay as they are. Trials are kept in the
project's store: run again, only what is missing trains.
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
from pipeline.errors import ConfigError, PipelineError, unknown_name
from pipeline.figures import influence_balancing
from pipeline.figures.style import to_svg_and_png
from pipeline.results import read_table
from pipeline.selftest.influence_balancing import k_step_gradient, training_path

ROOT = Path(__file__).resolve().parent.parent
NUM_SEEDS = 5
INFLUENCE = "influence_balancing"
KEPT = (
    "status", "num_steps", "best_step", "criterion_step", "best_validation_loss", "best_validation_error",
    "test_loss", "test_error", "baseline_loss", "clipped_share", "step_time_s", "training_time_s",
)  # fmt: skip
"""Columns of `trials` that the table of seeds has."""


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
    names = (*PROTOCOLS, INFLUENCE)
    parser = argparse.ArgumentParser(description="Train published protocols at their published size.")
    parser.add_argument("protocols", nargs="*", metavar="protocol", help=f"of {', '.join(names)}; default: all")
    parser.add_argument("--executor", choices=("ray", "inline"), default="ray", help="inline: in this process, no Ray")
    asked = parser.parse_args(arguments)
    project = Paths.at(ROOT)
    for name in asked.protocols or names:
        folder = project.reports / "replications" / name
        try:
            status = (
                balance_influences(folder) if name == INFLUENCE else replicate(project, name, asked.executor, folder)
            )
        except PipelineError as error:
            print(f"replicate: {error}", file=sys.stderr)
            return 2
        if status:
            return status
        print(f"replicate: {folder.relative_to(ROOT)}")
    return 0


def replicate(project: Paths, name: str, executor: str, folder: Path) -> int:
    """Run one protocol in its workspace and keep its report in `folder`; return the exit status of its stages.

    Raises:
        ConfigError: If there is no such protocol, or its study cannot be read.
    """
    if name not in PROTOCOLS:
        raise ConfigError(unknown_name("protocol", name, (*PROTOCOLS, INFLUENCE)))
    protocol = PROTOCOLS[name]
    workspace = lay_out(project, name, protocol)
    for script, *rest in (
        ["prepare.py", protocol.dataset, "--project", "."],
        ["sweep.py", protocol.study, "--executor", executor],
        ["report.py"],
    ):
        done = subprocess.run([sys.executable, ROOT / "stages" / script, *rest], cwd=workspace.root, check=False)  # noqa: S603
        if done.returncode:
            return done.returncode
    keep(workspace, protocol, folder)
    return 0


def lay_out(project: Paths, name: str, protocol: Protocol) -> Paths:
    """Write the workspace's params.yaml and configs, its study cut down to one grid, and return its paths."""
    workspace = Paths.at(project.root / ".replications" / name)
    shutil.rmtree(workspace.root / "configs", ignore_errors=True)
    shutil.copytree(project.root / "configs", workspace.root / "configs")
    params = read_yaml(project.params) | {
        "scale": "cluster",
        "seeds": {"start": 0, "count": NUM_SEEDS},
        "datasets": [protocol.dataset],
        "studies": [protocol.study],
        "trial_store": str(project.default_store),
    }
    _write(workspace.params, params)
    _write(workspace.claims, read_yaml(project.claims) | {"claims": {}})
    _write(
        workspace.study_config(protocol.study), cut_down(read_yaml(project.study_config(protocol.study)), protocol.grid)
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


def keep(workspace: Paths, protocol: Protocol, folder: Path) -> None:
    """Put the workspace's tables, pictures and README where they are kept, and a table with a row per seed."""
    for part in ("tables", "pictures"):
        shutil.rmtree(folder / part, ignore_errors=True)
        shutil.copytree(workspace.reports / part, folder / part)
    shutil.copyfile(workspace.reports / "README.md", folder / "README.md")
    seeds_table(workspace.results(protocol.study)).write_csv(folder / "tables" / "seeds.csv")


def seeds_table(results: Path) -> pl.DataFrame:
    """Return how each seed of a study ended, and what it was tested on besides: other lengths, kinds of token.

    A column such as `test_loss[T=1000]` is for people; where classes are told apart, perplexities are added.
    """
    settings = read_table("settings", results).select("trial_id", "label", "position")
    trials = read_table("trials", results).join(settings, on="trial_id").sort("position", "seed")
    seeds = trials.select("trial_id", "label", "seed", *(name for name in KEPT if trials[name].is_not_null().any()))
    tested_on = pl.coalesce(pl.format("T={}", "tested_length"), "group")
    further = (
        read_table("curves", results)
        .filter(pl.col("split") == "test", pl.col("mode").is_null(), tested_on.is_not_null())
        .with_columns(pl.format("test_{}[{}]", "metric", tested_on).alias("column"))
    )
    if not further.is_empty():
        wide = further.pivot(on="column", index=["trial_id", "seed"], values="value", maintain_order=True)
        seeds = seeds.join(wide, on=["trial_id", "seed"], how="left", maintain_order="left")
    if "test_error" not in seeds.columns:
        return seeds
    losses = [name for name in seeds.columns if name.startswith("test_loss")]
    return seeds.with_columns(pl.col(name).exp().alias(name.replace("loss", "perplexity")) for name in losses)


def balance_influences(folder: Path) -> int:
    """Write what truncation does to Tallec and Ollivier's system, whose gradient it turns round; return 0."""
    for part in ("tables", "figures"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    lengths = range(1, 101)
    gradients = pl.DataFrame({"backward_length": lengths, "gradient": [k_step_gradient(K) for K in lengths]})
    found = {K: training_path(K) for K in (10, 20, 30, 100)}
    paths = pl.concat(
        pl.DataFrame({"backward_length": K, "step": range(len(path)), "theta": path}) for K, path in found.items()
    )
    gradients.write_csv(folder / "tables" / "gradients.csv")
    paths.write_csv(folder / "tables" / "paths.csv")
    svg, png = to_svg_and_png(influence_balancing.draw(gradients, paths))
    (folder / "figures" / "influence_balancing.svg").write_bytes(svg)
    (folder / "figures" / "influence_balancing.png").write_bytes(png)
    text = f"{influence_balancing.title(gradients, paths)}\n\n{influence_balancing.caption(gradients, paths)}\n"
    (folder / "README.txt").write_text(text, encoding="utf-8")
    return 0


def _write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
