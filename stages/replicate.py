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
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the tree that this file stands in, not an installed one

import polars as pl
import yaml

from pipeline.config import Paths, check_tree, load_study, read_yaml
from pipeline.errors import ConfigError, PipelineError, unknown_name
from pipeline.figures.catalogue import figures_of
from pipeline.figures.style import to_png
from pipeline.figures.truncation import InfluenceBalancing
from pipeline.quantities import grids_of
from pipeline.quantities.selection import thin_evenly
from pipeline.quantities.settings import settings_table
from pipeline.results import SCHEMAS, read_table
from pipeline.selftest.influence_balancing import k_step_gradient, training_path

ROOT = Path(__file__).resolve().parent.parent
NUM_SEEDS = 5
INFLUENCE = "influence_balancing"
MAX_PATH_STEPS = 200
"""A path of θ is kept at so many steps."""
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
    try:
        check_tree(__file__)
        for name in asked.protocols or names:
            folder = project.reports / "replications" / name
            if name == INFLUENCE:
                balance_influences(folder)
            else:
                replicate(project, name, asked.executor, folder)
            print(f"replicate: {folder.relative_to(ROOT)}")
    except PipelineError as error:
        print(f"replicate: {error}", file=sys.stderr)
        return 2
    except subprocess.CalledProcessError as error:  # the stage has said what is wrong
        return error.returncode
    return 0


def replicate(project: Paths, name: str, executor: str, folder: Path) -> None:
    """Run one protocol in its workspace and keep its evidence in `folder`.

    Raises:
        ConfigError: If there is no such protocol, or its study cannot be read.
        CalledProcessError: If one of its stages failed.
    """
    if name not in PROTOCOLS:
        raise ConfigError(unknown_name("protocol", name, (*PROTOCOLS, INFLUENCE)))
    protocol = PROTOCOLS[name]
    workspace = lay_out(project, name, protocol)
    for script, *rest in (
        ["prepare.py", protocol.dataset, "--project", "."],
        ["sweep.py", protocol.study, "--executor", executor],
    ):
        subprocess.run([sys.executable, ROOT / "stages" / script, *rest], cwd=workspace.root, check=True)  # noqa: S603
    study = load_study(workspace, protocol.study)
    tables = {table: read_table(table, workspace.results(protocol.study)) for table in SCHEMAS}
    (grid,) = grids_of(protocol.study, tables, study.select.over if study.select else ())
    figures = {}
    for frame in figures_of(grid, study.grids[protocol.grid].figures):
        view = frame.view(grid)
        figures[frame.name] = (view.title, view.caption, to_png(frame.draw(grid)))
    keep(folder, figures, {"seeds": seeds_table(tables), "settings": settings_table(grid)})


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
    study = cut_down(read_yaml(project.study_config(protocol.study)), protocol.grid)
    for path, content in ((workspace.params, params), (workspace.study_config(protocol.study), study)):
        path.write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True), encoding="utf-8")
    return workspace


def cut_down(study: dict[str, Any], grid: str) -> dict[str, Any]:
    """Return a study's file with one grid left, at the cluster scale alone."""
    cluster = dict(study.get("scales", {}).get("cluster", {}))
    cluster.pop("skip", None)
    for part in {"grids", "axes"} & set(cluster):
        cluster[part] = {name: changes for name, changes in cluster[part].items() if name == grid}
    return study | {"grids": {grid: study["grids"][grid]}, "scales": {"cluster": cluster}}


def keep(folder: Path, figures: Mapping[str, tuple[str, str, bytes]], tables: Mapping[str, pl.DataFrame]) -> None:
    """Write README.md, pictures and tables in place of what `folder` held.

    Args:
        folder: Its name is the protocol's.
        figures: Title, caption and PNG of each by name.
        tables: By name.
    """
    shutil.rmtree(folder, ignore_errors=True)
    for part in ("pictures", "tables"):
        (folder / part).mkdir(parents=True)
    parts = [f"# {folder.name}", "Made by `make replicate`; the numbers are in [tables](tables)."]
    for name, (title, caption, picture) in figures.items():
        (folder / "pictures" / f"{name}.png").write_bytes(picture)
        parts += [f"## {title}", f"![{title}](pictures/{name}.png)", caption]
    for name, table in tables.items():
        table.write_csv(folder / "tables" / f"{name}.csv")
    (folder / "README.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def seeds_table(tables: Mapping[str, pl.DataFrame]) -> pl.DataFrame:
    """Return how each seed of a study ended, and what it was tested on besides: other lengths, kinds of token.

    A column such as `test_loss[T=1000]` is for people; where classes are told apart, perplexities are added.
    """
    settings = tables["settings"].select("trial_id", "label", "position")
    trials = tables["trials"].join(settings, on="trial_id").sort("position", "seed")
    seeds = trials.select("trial_id", "label", "seed", *(name for name in KEPT if trials[name].is_not_null().any()))
    tested_on = pl.coalesce(pl.format("T={}", "tested_length"), "group")
    further = (
        tables["curves"]
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


def balance_influences(folder: Path) -> None:
    """Keep what truncation does to Tallec and Ollivier's system, whose gradient changes sign."""
    lengths = range(1, 101)
    gradients = pl.DataFrame({"backward_length": lengths, "gradient": [k_step_gradient(K) for K in lengths]})
    found = {K: training_path(K) for K in (10, 20, 30, 100)}
    paths = pl.concat(
        pl.DataFrame({"backward_length": K, "step": range(len(path)), "theta": path}) for K, path in found.items()
    )
    figure = InfluenceBalancing(gradients, paths)
    keep(
        folder,
        {INFLUENCE: (figure.title, figure.caption, to_png(figure.draw()))},
        {"gradients": gradients, "paths": thin_evenly(paths, "step", ["backward_length"], MAX_PATH_STEPS)},
    )


if __name__ == "__main__":
    sys.exit(main())
