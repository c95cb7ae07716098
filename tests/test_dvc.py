"""dvc.yaml is honest: a stage lists its script and the modules it imports, and nothing else makes it stale."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.clones import Clone
from tests.test_architecture import ROOT, imports, part_of

pytestmark = pytest.mark.timeout(600)
STAGES: dict[str, dict] = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]


def definition(stage: str) -> dict:
    return STAGES[stage].get("do", STAGES[stage])


def command(stage: str) -> str:
    """The command that makes the stage's outputs: its last; what runs before only checks."""
    commands = definition(stage)["cmd"]
    return commands if isinstance(commands, str) else commands[-1]


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
    script = command(stage).split()[1]
    assert script == f"stages/{stage}.py"
    assert script in definition(stage)["deps"]
    assert listed(stage) == closure(ROOT / script)


def test_everything_listed_exists_or_is_made_by_another_stage() -> None:
    for stage in STAGES:
        made = [out if isinstance(out, str) else next(iter(out)) for out in definition(stage)["outs"]]
        assert all(out.startswith(("data/", "digests/", "results/", "reports/")) for out in made), stage
        for dep in definition(stage)["deps"]:
            if "${" not in dep and not dep.startswith("digests/"):
                assert (ROOT / dep).exists(), dep


def test_no_stage_depends_on_a_folder_where_anything_may_lie() -> None:
    for stage in STAGES:
        assert not {"data", "results", "digests", "reports"} & set(definition(stage)["deps"]), stage


def test_byte_code_makes_no_stage_stale() -> None:
    ignored = (ROOT / ".dvcignore").read_text().splitlines()
    assert "__pycache__" in ignored


def test_the_lists_are_those_of_params() -> None:
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    assert STAGES["prepare"]["foreach"] == "${datasets}"
    assert STAGES["sweep"]["foreach"] == "${studies}"
    for stage in STAGES:
        for key in definition(stage).get("params", []):
            assert key in params


STUDIES = {"on_adding": "adding", "on_order": "temporal_order"}
"""Two studies of one setting each, and the dataset that each of them names."""

WRITE_A_REPORT = """
def build_report(paths, studies, scale):
    \"\"\"Write a report of a word, for the figures of three real ones take minutes.\"\"\"
    for name in ("site/index.html", "README.md", "pictures/a.svg", "tables/a.csv", "plots/gradient_by_lag.csv",
                 "plots/loss_by_length.csv", "plots/learning_curves.csv", "plots/ledger.csv", "headline.json",
                 "metrics.json"):
        (paths.reports / name).parent.mkdir(parents=True, exist_ok=True)
        (paths.reports / name).write_text("{}" if name.endswith(".json") else ", ".join(studies))
    return paths.reports / "site" / "index.html"
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clone]:
    """A clone in which every stage has run, with tiny studies and a remote beside it."""
    folder = tmp_path_factory.mktemp("author")
    clone = Clone.of_project(folder, tmp_path_factory.mktemp("home"))
    clone.edit("params.yaml", studies=list(STUDIES), datasets=list(STUDIES.values()))
    for name, dataset in STUDIES.items():
        clone.write(f"configs/studies/{name}.yaml", tiny_study(dataset))
    (folder / "pipeline" / "report" / "__init__.py").write_text(WRITE_A_REPORT)
    clone.run("dvc", "remote", "add", "--default", "beside", str(tmp_path_factory.mktemp("remote")))
    clone.run("dvc", "repro")
    clone.commit("Run it")
    assert stale(clone) == set()
    yield clone
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def author(made: Clone) -> Iterator[Clone]:
    """The clone where everything is up to date, also after other tests."""
    yield made
    made.run("git", "reset", "-q", "--hard")
    made.run("git", "clean", "-qfd")
    made.run("dvc", "checkout", "-q", "--force")


def tiny_study(dataset: str) -> dict[str, Any]:
    small = {"training.max_steps": 2, "training.evaluate_every": 1, "training.batch_size": 8, "model.hidden_size": 2}
    small |= {"dataset.name": dataset, "dataset.length": 50, "diagnostics.num_traces": 2, "diagnostics.probe_size": 2}
    grid = {"figures": ["learning_curves"], "set": {}, "variants": {}, "axes": {"model.cell": ["elman"]}}
    question = f"Does it learn {dataset}?"
    return {"question": question, "claims": [], "set": small, "grids": {"a": grid}, "select": None, "scales": {}}


def stale(clone: Clone) -> set[str]:
    """The stages that `dvc status` names."""
    return set(json.loads(clone.run("dvc", "status", "--json")))


def ran(repro: str) -> list[str]:
    """The stages that `dvc repro` ran, in order; one whose result lies in the cache of runs counts as well."""
    return re.findall(r"(?:Running stage|Stage) '(\S+)'(?::$| is cached)", repro, re.MULTILINE)


def test_one_digit_of_a_colour_makes_the_report_stale_and_nothing_else(author: Clone) -> None:
    style = next(
        path for path in sorted((author.folder / "pipeline" / "figures").glob("*.py")) if "#" in path.read_text()
    )
    source = style.read_text()
    colour = re.search(r"#[0-9A-Fa-f]{6}", source)
    assert colour is not None
    digit = "1" if colour[0][-1] == "0" else "0"
    style.write_text(f"{source[: colour.end() - 1]}{digit}{source[colour.end() :]}")
    assert stale(author) == {"report"}


def test_a_stray_file_makes_nothing_stale(author: Clone) -> None:
    strays = ("data/.DS_Store", "data/left_over/manifest.json", "results/notes.txt", "results/old/trials.parquet")
    strays += ("digests/data/.DS_Store", "digests/results/.adding.json.1f.tmp", "configs/studies/.cells.yaml.swp")
    try:
        for name in strays:
            (author.folder / name).parent.mkdir(exist_ok=True)
            (author.folder / name).write_text("stray")
        assert stale(author) == set()
    finally:
        for name in strays:
            (author.folder / name).unlink()


def test_a_changed_file_of_a_dataset_or_table_makes_its_own_stage_stale(author: Clone) -> None:
    (author.folder / "data" / "adding" / "stray.npy").write_text("tampered")
    table = author.folder / "results" / "on_order" / "trials.parquet"
    table.unlink()  # not written through: it may be a link to DVC's cache
    table.write_text("tampered")
    assert stale(author) == {"prepare@adding", "sweep@on_order"}


def test_other_data_make_only_the_studies_stale_that_name_them(author: Clone) -> None:
    author.edit("configs/datasets/adding.yaml", seed=1)
    assert stale(author) == {"request", "prepare@adding"}
    assert ran(author.run("dvc", "repro", "plan")) == ["request", "prepare@adding", "plan"]
    assert stale(author) == {"sweep@on_adding", "report"}


def test_another_question_makes_no_sweep_stale(author: Clone) -> None:
    author.edit("configs/studies/on_adding.yaml", question="Another?")
    author.write("configs/studies/unlisted.yaml", {"not": "a study"})
    assert ran(author.run("dvc", "repro", "plan")) == ["request", "plan"]
    assert stale(author) == {"report"}


def test_a_new_length_prepares_its_dataset_and_sweeps_its_study(author: Clone) -> None:
    small = tiny_study("adding")["set"] | {"dataset.length": 12}
    author.edit("configs/studies/on_adding.yaml", set=small)
    assert ran(author.run("dvc", "repro", "plan")) == ["request", "prepare@adding", "plan"]
    assert stale(author) == {"sweep@on_adding", "report"}


def test_more_seeds_and_other_settings_of_the_same_lengths_prepare_nothing(author: Clone) -> None:
    author.edit("configs/scales/smoke.yaml", num_seeds=3)
    others = {"optimiser.learning_rate": 0.02, "training.max_steps": 3}
    author.edit("configs/studies/on_adding.yaml", set=tiny_study("adding")["set"] | others)
    author.edit("params.yaml", resources={"cpus_per_trial": 2, "gpus_per_trial": 0})
    assert ran(author.run("dvc", "repro", "plan")) == ["request", "plan"]
    assert stale(author) == {f"sweep@{name}" for name in STUDIES} | {"report"}


def pairs(word: str) -> str:
    """A file of pairs, as long whatever the word of five letters."""
    return "".join(f"{word} {letter}{' again' * i}\t{letter}\n" for letter in "abc" for i in range(7))


def test_a_users_file_that_changes_or_goes_makes_its_dataset_stale(author: Clone, tmp_path: Path) -> None:
    beside, elsewhere = author.folder / "pairs.tsv", tmp_path / "pairs.tsv"
    shares = {"train": 0.6, "validation": 0.2, "test": 0.2}
    own = {"generator": "pairs", "max_length": 9, "shares": shares}
    for name, path in (("beside", "pairs.tsv"), ("elsewhere", str(elsewhere))):
        author.write(f"configs/datasets/{name}.yaml", own | {"data_file": path})
    for path in (beside, elsewhere):
        path.write_text(pairs("first"))
    author.edit("params.yaml", datasets=[*STUDIES.values(), "beside", "elsewhere"])
    try:
        assert ran(author.run("dvc", "repro", "plan"))[:3] == ["request", "prepare@beside", "prepare@elsewhere"]
        assert not {"request", "prepare@beside", "prepare@elsewhere"} & stale(author)
        beside.write_text(pairs("other"))  # in place, of the same size
        assert "request" in stale(author)
        assert ran(author.run("dvc", "repro", "plan"))[:3] == ["request", "prepare@beside", "plan"]
        assert "request" not in stale(author)
        (tmp_path / "new.tsv").write_text(pairs("third"))
        (tmp_path / "new.tsv").replace(elsewhere)  # as an editor saves it
        assert "request" in stale(author)
        elsewhere.unlink()
        printed = author.run("dvc", "repro", check=False)
        assert "failed to reproduce 'request'" in printed
        assert "digests/files/elsewhere/data_file=pairs.tsv" in printed
        printed = author.run("python", "stages/request.py", check=False)
        assert re.search(r"configs/datasets/elsewhere.yaml.data_file: .*pairs.tsv: no such file", printed)
        author.edit("params.yaml", datasets=list(STUDIES.values()))
        author.run("dvc", "repro", "plan")
        assert stale(author) == set()
        assert list((author.folder / "digests" / "files").glob("*/")) == []
    finally:
        for name in ("beside", "elsewhere"):
            shutil.rmtree(author.folder / "digests" / "files" / name, ignore_errors=True)


def test_a_misspelt_figure_shows_before_any_sweep_and_leaves_the_report(author: Clone) -> None:
    grids = {"a": {"figures": ["learning_curve"], "axes": {"model.cell": ["elman"]}}}
    author.edit("configs/studies/on_adding.yaml", grids=grids)
    printed = author.run("dvc", "repro", check=False)
    assert "unknown figure 'learning_curve'; did you mean 'learning_curves'?" in printed
    assert ran(printed) == ["request"]
    assert (author.folder / "reports" / "site" / "index.html").is_file()


def test_a_mistake_in_params_or_claims_shows_before_any_output_is_removed(author: Clone) -> None:
    outputs = ("digests/studies.json", "digests/requests/adding.json", "results/on_adding", "reports/site/index.html")
    style = author.folder / "pipeline" / "report" / "page.css"
    style.write_text(style.read_text() + "/* the report is stale as well */")
    author.edit("params.yaml", tracking={"mode": "bogus", "project": "p", "entity": None})
    printed = author.run("dvc", "repro", check=False)
    assert "params.yaml.tracking.mode: unknown value 'bogus'" in printed
    assert all((author.folder / name).exists() for name in outputs)
    author.run("git", "checkout", "-q", "params.yaml")
    author.edit("configs/claims.yaml", min_seeds="many")
    printed = author.run("dvc", "repro", check=False)
    assert "configs/claims.yaml.min_seeds: expected an integer, got 'many'" in printed
    assert ran(printed) == ["request"]
    assert all((author.folder / name).exists() for name in outputs)


def test_a_colleague_trains_nothing_after_a_study_and_a_dataset_were_taken_out(author: Clone, tmp_path: Path) -> None:
    kept = {name: dataset for name, dataset in STUDIES.items() if name != "on_order"}
    author.edit("params.yaml", studies=list(kept), datasets=list(kept.values()))
    assert ran(author.run("dvc", "repro")) == ["request", "plan", "report"]
    author.commit("Take a study and its dataset out")
    author.run("dvc", "push")
    colleague = Clone(tmp_path / "colleague", author.home)
    author.run("git", "clone", "-q", str(author.folder), str(colleague.folder))
    colleague.run("dvc", "pull")
    assert not (colleague.folder / ".trials").exists()
    assert stale(author) == stale(colleague) == set()
    assert ran(colleague.run("dvc", "repro")) == []
    assert {path.name for path in (colleague.folder / "results").iterdir()} >= set(kept)
    author.run("git", "reset", "-q", "--hard", "HEAD~1")
