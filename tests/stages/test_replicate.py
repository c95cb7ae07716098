"""Published protocols in workspaces of their own."""

from __future__ import annotations

import csv
import math
import re
from pathlib import Path

import polars as pl
import pytest
import yaml

from pipeline.config import Paths, build, expand, load_params, load_study
from pipeline.core.training import TrialSpec
from pipeline.results import SCHEMAS
from stages import replicate
from tests.sweep.fakes import trial_row
from tests.test_architecture import ROOT


@pytest.mark.parametrize("name", replicate.PROTOCOLS)
def test_a_workspace_holds_one_grid_at_the_cluster_scale(name: str, tmp_path: Path) -> None:
    project, protocol = Paths.at(tmp_path / "project"), replicate.PROTOCOLS[name]
    project.root.mkdir()
    for part in ("configs", "params.yaml"):
        (project.root / part).symlink_to(ROOT / part)
    workspace = replicate.lay_out(project, name, protocol)
    params = load_params(workspace)
    assert (params.scale, params.studies, params.datasets) == ("cluster", (protocol.study,), (protocol.dataset,))
    assert params.trial_store == str(project.default_store)
    settings = expand(load_study(workspace, protocol.study), "cluster", "here")
    whole = expand(load_study(Paths.at(ROOT), protocol.study), "cluster", "here")
    assert [s.spec for s in settings] == [s.spec for s in whole if s.grid == protocol.grid]
    assert {build(TrialSpec, {**s.spec, "seeds": [0]}, s.where).dataset.name for s in settings} == {protocol.dataset}


def test_a_study_without_an_override_for_the_cluster_is_cut_down_too() -> None:
    study = {"claims": ["C1"], "grids": {"a": {"set": {}}, "b": {}}}
    cut = {"claims": ["C1"], "grids": {"a": {"set": {}}}, "scales": {"cluster": {}}}
    assert replicate.cut_down(study, "a") == cut
    study["scales"] = {"smoke": {}, "cluster": {"axes": {"a": {"x": [1]}, "b": {"x": [2]}}, "skip": ["b"]}}
    assert replicate.cut_down(study, "a") == cut | {"scales": {"cluster": {"axes": {"a": {"x": [1]}}}}}


def test_the_table_of_seeds_names_what_was_tested_besides() -> None:
    rows = [trial_row(seed, 0.5) | {"test_loss": 1.0 + seed, "test_error": 0.5} for seed in (0, 1)]
    about = {"trial_id": "a", "dataset_digest": "d", "spec": "{}", "hostname": None, "git_revision": None}
    about |= {"code_digest": "c", "adopted_from": None}
    setting = {"study": "s", "grid": "g", "position": 0, "trial_id": "a", "label": "K = 5", "selected": True}
    facts = [
        {"metric": "loss", "split": "test", "tested_length": 1000, "value": 2.0},
        {"metric": "error", "split": "test", "group": "recalled", "value": 0.25},
        {"metric": "loss", "split": "validation", "value": 9.0},
        {"metric": "token_error", "split": "test", "mode": "free_running", "value": 9.0},
    ]
    curves = [{"trial_id": "a", "seed": seed, "step": 9} | fact for fact in facts for seed in (0, 1)]
    rows_of = {"trials": [row | about for row in rows], "settings": [setting], "curves": curves}
    tables = {table: pl.DataFrame(made, schema=SCHEMAS[table]) for table, made in rows_of.items()}
    seeds = replicate.seeds_table(tables)
    assert seeds["label"].to_list() == ["K = 5", "K = 5"]
    assert [name for name in seeds.columns if "[" in name] == [
        "test_loss[T=1000]",
        "test_error[recalled]",
        "test_perplexity[T=1000]",
    ]
    assert seeds["test_error[recalled]"].to_list() == [0.25, 0.25]
    assert seeds["test_perplexity"].to_list() == pytest.approx([math.exp(1.0), math.exp(2.0)])


def test_what_is_kept_replaces_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "old.png").write_bytes(b"of an earlier run")
    replicate.keep(tmp_path, {"path": ("It goes down", "One line.", b"png")}, {"seeds": pl.DataFrame({"seed": [0]})})
    names = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.*")}
    assert names == {"README.md", "pictures/path.png", "tables/seeds.csv"}
    text = (tmp_path / "README.md").read_text()
    assert "## It goes down\n\n![It goes down](pictures/path.png)\n\nOne line.\n" in text


@pytest.mark.parametrize("name", [*replicate.PROTOCOLS, replicate.INFLUENCE])
def test_what_is_kept_is_small(name: str) -> None:
    """Git has the README, its pictures and small tables of a replication, nothing else."""
    folder = ROOT / "reports" / "replications" / name
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".md", ".png", ".csv"}
    assert max(path.stat().st_size for path in files) < 250_000
    pictures = {f"pictures/{path.name}" for path in (folder / "pictures").iterdir()}
    assert set(re.findall(r"!\[.*\]\((.*)\)", (folder / "README.md").read_text())) == pictures


def test_an_unknown_protocol_is_a_sentence_and_status_2(capsys: pytest.CaptureFixture) -> None:
    assert replicate.main(["pascanuu"]) == 2
    assert "unknown protocol 'pascanuu'; did you mean 'pascanu'?" in capsys.readouterr().err


def test_what_is_kept_as_evidence_says_what_the_readme_says() -> None:
    """The committed tables: at least four of five seeds of clip + Ω solve temporal order, none of the others."""
    with (ROOT / "reports" / "replications" / "pascanu" / "tables" / "seeds.csv").open() as lines:
        rows = list(csv.DictReader(lines))
    solved = {
        arm: [row["criterion_step"] != "" for row in rows if row["label"] == arm] for arm in ("SGD", "clip", "clip + Ω")
    }
    assert {arm: len(seeds) for arm, seeds in solved.items()} == {"SGD": 5, "clip": 5, "clip + Ω": 5}
    assert sum(solved["clip + Ω"]) >= 4
    assert not any(solved["SGD"] + solved["clip"])
    study = yaml.safe_load((ROOT / "configs" / "studies" / "clipping.yaml").read_text())
    assert study["scales"]["cluster"]["grids"]["temporal_order"] == {"dataset.length": 50, "training.max_steps": 20000}


def test_too_short_a_truncation_sticks_and_longer_ones_learn_the_copy() -> None:
    """The committed tables: with K = 5 the perplexity stays near 1.65, with K of 10 and more it comes near 1.04."""
    with (ROOT / "reports" / "replications" / "aicher" / "tables" / "seeds.csv").open() as lines:
        rows = list(csv.DictReader(lines))
    found: dict[str, list[float]] = {}
    for row in rows:
        found.setdefault(row["label"], []).append(float(row["test_perplexity[T=1000]"]))
    assert {label: len(values) for label, values in found.items()} == {"K = 5": 5, "K = 10": 5, "K = 20": 5}
    assert all(1.6 < value < 1.7 for value in found["K = 5"])
    assert all(1.0 < value < 1.1 for label in ("K = 10", "K = 20") for value in found[label])
