"""The documentation is true where a machine can tell: links, paths, commands, examples, verdicts. No network is used.

`python -m tests.test_docs` writes the examples of docs/examples into CONTRIBUTING.md, what the columns of the tables
hold into docs/reference/results.md, and the keys of datasets of one's own into docs/reference/configuration-data.md.
"""

from __future__ import annotations

import csv
import dataclasses
import importlib.util
import inspect
import json
import re
import tomllib
import types
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import pytest
import torch
import yaml

from docs.examples import cell, initialisation
from pipeline.config import Paths, build, expand, load_study
from pipeline.core.cells import CELLS, States
from pipeline.core.cells.stack import RecurrentStack
from pipeline.core.training import TrialSpec
from pipeline.data import generators
from pipeline.data.generator import Shares
from pipeline.data.own import OwnData
from pipeline.loading import meanings_of
from pipeline.results import SCHEMAS
from tests.core.cells import test_cells
from tests.test_architecture import ROOT

DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md")])
CONTRIBUTING, RESULTS = ROOT / "CONTRIBUTING.md", DOCS / "reference" / "results.md"
CONFIGURATION = DOCS / "reference" / "configuration-data.md"
EXAMPLES = sorted(path for path in (DOCS / "examples").iterdir() if path.suffix in {".py", ".yaml"})
SLOT = re.compile(r"(<!-- example: (?P<path>[\w/.]+) -->\n)(\n```\w+\n.*?```\n)?", re.DOTALL)
SNIPPET = re.compile(r'^--8<-- "(.+)"$', re.MULTILINE)


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def prose_of(page: Path) -> str:
    """The page with what it includes in place, and without its blocks of code."""
    text = SNIPPET.sub(lambda found: text_of(ROOT / found[1]) if found[1].endswith(".md") else "", text_of(page))
    return re.sub(r"^```[\s\S]*?^```$|^ {4,}\S.*$", "", text, flags=re.MULTILINE)


def anchors_of(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and mkdocs make them of letters, digits and blanks."""
    headings = re.findall(r"^#+ (.+)$", prose_of(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def links_of(page: Path) -> list[str]:
    return [target for target in re.findall(r"\]\(([^)\s]+)\)", prose_of(page)) if "://" not in target]


# Links, paths and commands


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_resolves(page: Path) -> None:
    for link in links_of(page):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors_of(target), link


def test_a_broken_link_would_be_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# A title, with a comma\n\n[a](#a-title-with-a-comma) [b](gone.md)\n\n    [code](c.md)\n")
    assert links_of(page) == ["#a-title-with-a-comma", "gone.md"]
    assert anchors_of(page) == {"a-title-with-a-comma"}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_path_that_is_named_exists(page: Path) -> None:
    """Of sources: what runs make (data, results, the page) is not there in a clone."""
    roots = "pipeline|configs|stages|benchmarks|docs|examples|tests"
    for path in re.findall(rf"`((?:{roots})/[\w./]*)`", prose_of(page)):
        if page.name != "CHANGELOG.md" or "/" in path.rstrip("/"):
            assert (ROOT / path).exists(), path


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_test_that_is_named_exists(page: Path) -> None:
    for path, name in re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", prose_of(page)):
        assert f"\ndef {name}(" in (ROOT / path).read_text(encoding="utf-8"), name


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_command_that_is_named_exists(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", text_of(ROOT / "Makefile"), re.MULTILINE))
    text = SNIPPET.sub("", text_of(page))
    assert set(re.findall(r"(?:`| {4})make ([a-z-]+)", text)) <= targets
    for script in re.findall(r"python ([\w/]+\.py)", text):
        assert (ROOT / script).is_file(), script


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_file_that_is_included_exists(page: Path) -> None:
    for path in SNIPPET.findall(text_of(page)):
        assert (ROOT / path).is_file(), path


def test_every_page_is_in_the_navigation_and_every_module_of_the_reference_exists() -> None:
    navigation = yaml.safe_load(text_of(ROOT / "mkdocs.yml"))["nav"]
    listed = re.findall(r"'([\w/-]+\.md)'", str(navigation))
    assert sorted(listed) == sorted(str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md"))
    modules = [name for page in DOCS.rglob("*.md") for name in re.findall(r"^::: (.+)$", text_of(page), re.MULTILINE)]
    parts = [path for path in (ROOT / "pipeline").iterdir() if path.suffix in {"", ".py"} and path.stem[0] != "_"]
    rooms = {f"pipeline.{path.stem}" for path in parts}
    assert all(importlib.util.find_spec(module) for module in modules)
    assert {".".join(module.split(".")[:2]) for module in modules} == rooms


def test_the_site_fails_on_what_is_broken() -> None:
    config = yaml.safe_load(text_of(ROOT / "mkdocs.yml"))
    assert config["strict"]
    assert set(config["validation"].values()) == {"warn"}
    assert re.search(r"^docs: .*\n\tmkdocs build --strict$", text_of(ROOT / "Makefile"), re.MULTILINE)


# Worked examples


def block_of(path: str) -> str:
    language = {".py": "python", ".yaml": "yaml"}[Path(path).suffix]
    return f"\n```{language}\n{text_of(ROOT / path)}```\n"


def with_examples(text: str) -> str:
    """CONTRIBUTING with the text of each example that exists in its slot."""
    return SLOT.sub(lambda slot: slot[1] + (block_of(slot["path"]) if (ROOT / slot["path"]).is_file() else ""), text)


def with_columns(text: str) -> str:
    """The page with a table for each result table: its columns, their types and what they hold."""
    parts = []
    for table, schema in SCHEMAS.items():
        rows = [f"| `{column}` | {schema[column]} | {meaning} |" for column, meaning in meanings_of(table).items()]
        further = {"trials": "each field of the spec", "settings": "each axis of the study"}.get(table)
        rows += [f"| `model.cell`, ... | | {further} |"] if further else []
        parts.append("\n".join([f"### {table}", "", "| column | type | holds |", "| --- | --- | --- |", *rows]))
    lead, rest = text.split("<!-- columns -->")
    return "\n\n".join([f"{lead}<!-- columns -->", *parts, f"<!-- end -->{rest.split('<!-- end -->')[1]}"])


def test_the_reference_holds_what_columns_hold() -> None:
    text = text_of(RESULTS)
    assert text == with_columns(text), "python -m tests.test_docs writes the columns into docs/reference/results.md"


def described(cls: type) -> dict[str, str]:
    """What the docstrings of a class, and of those that it is made of, say of its attributes."""
    said: dict[str, str] = {}
    for one in cls.__mro__:
        section = re.search(
            r"^Attributes:\n((?:    .+\n?)+)", inspect.cleandoc(one.__dict__.get("__doc__") or ""), re.M
        )
        for name, text in re.findall(r"^    (\w+): (.+(?:\n     .+)*)", section[1] if section else "", re.M):
            said.setdefault(name, " ".join(text.split()))
    return said


def in_words(hint: Any, key: str) -> str:
    """What may stand in a key, as one writes YAML."""
    if get_origin(hint) is Literal:
        return ", ".join(f"`{value}`" for value in get_args(hint))
    if get_origin(hint) is tuple:
        return f"list of {in_words(get_args(hint)[0], key)}s"
    if get_origin(hint) in (Union, types.UnionType):
        return " or ".join(in_words(one, key) for one in get_args(hint))
    if hint is Any:
        return "path or null" if key.endswith("_file") else "number, date or null"
    plain = {
        int: "integer",
        str: "text",
        bool: "`true`, `false`",
        type(None): "null",
        Shares: "train, validation, test",
    }
    return plain[hint]


def keys_of(cls: type, without: tuple[str, ...] = ()) -> list[str]:
    """The rows of a table of the keys of a dataset of one's own."""
    rows, hints, said = (
        ["| key | may be | default | what it is |", "| --- | --- | --- | --- |"],
        get_type_hints(cls),
        described(cls),
    )
    for field in dataclasses.fields(cls):
        if field.name not in without:
            value = list(field.default) if isinstance(field.default, tuple) else field.default
            default = "" if value is dataclasses.MISSING else f"`{json.dumps(value)}`".replace('"', "")
            rows.append(
                f"| `{field.name}` | {in_words(hints[field.name], field.name)} | {default} | {said[field.name]} |"
            )
    return rows


def with_keys(text: str) -> str:
    """The page with a table of the keys of each kind of dataset of one's own."""
    shared = tuple(field.name for field in dataclasses.fields(OwnData))
    parts = ["\n".join(["### Of every kind", "", *keys_of(OwnData)])]
    for name, cls in generators().items():
        if issubclass(cls, OwnData):
            parts.append("\n".join([f"### {name}", "", *keys_of(cls, shared)]))
    lead, rest = text.split("<!-- keys -->")
    return "\n\n".join([f"{lead}<!-- keys -->", *parts, f"<!-- end -->{rest.split('<!-- end -->')[1]}"])


def test_the_reference_holds_every_key_of_ones_own_data() -> None:
    text = text_of(CONFIGURATION)
    assert text == with_keys(text), "python -m tests.test_docs writes them into docs/reference/configuration-data.md"
    assert {f"### {name}" for name in ("series", "labelled", "text", "pairs", "tagged", "images")} <= {
        *text.splitlines()
    }


def test_contributing_holds_the_examples_as_the_tests_run_them() -> None:
    text = text_of(CONTRIBUTING)
    assert text == with_examples(text), "python -m tests.test_docs writes the examples into CONTRIBUTING.md"


@pytest.mark.parametrize("path", EXAMPLES, ids=name_of)
def test_every_example_is_shown(path: Path) -> None:
    name = name_of(path)
    slots = [slot["path"] for slot in SLOT.finditer(text_of(CONTRIBUTING))]
    included = [found for page in DOCS.rglob("*.md") for found in SNIPPET.findall(text_of(page))]
    assert path.stem == "__init__" or name in {*slots, *included}


def test_the_cell_of_the_example_is_a_cell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CELLS, "ran", cell.CELLS["ran"])
    test_cells.test_values_and_every_gradient_agree_with_a_hand_unrolled_loop("ran")
    test_cells.test_gradcheck("ran")
    test_cells.test_clipping_inside_the_recurrence_is_a_loop_that_clips_each_examples_gradient("ran")
    stack = RecurrentStack("ran", 2, 3, torch.Generator().manual_seed(0))
    assert isinstance(stack(torch.ones(4, 1, 2)).states[0], States)


def test_the_initialisation_of_the_example_is_antisymmetric() -> None:
    block = torch.empty(6, 6)
    initialisation.Antisymmetric(gain=2.0).fill(block, torch.Generator().manual_seed(0))
    assert torch.equal(block, -block.T)
    assert block.any()


@pytest.mark.parametrize(
    ("name", "num_settings"),
    [
        ("study", {"smoke": 2, "laptop": 9}),
        ("search", {"smoke": 4, "laptop": 80}),
        ("halving", {"smoke": 3, "laptop": 30}),
        ("tpe", {"smoke": 4, "laptop": 16}),
    ],
)
def test_the_studies_of_the_examples_are_some(name: str, num_settings: dict[str, int], tmp_path: Path) -> None:
    project = Paths.at(tmp_path)
    (tmp_path / "configs" / "studies").mkdir(parents=True)
    for part in ("base.yaml", "scales", "claims.yaml"):
        (tmp_path / "configs" / part).symlink_to(ROOT / "configs" / part)
    project.study_config("example").write_text(text_of(DOCS / "examples" / f"{name}.yaml"))
    study = load_study(project, "example")
    for scale, expected in num_settings.items():
        settings = expand(study, scale, "example")
        assert len({repr(build(TrialSpec, {**s.spec, "seeds": [0]}, s.where)) for s in settings}) == expected


# The science


def test_the_committed_ledger_is_that_of_the_committed_tables() -> None:
    with (ROOT / "reports" / "tables" / "claims.csv").open(encoding="utf-8") as lines:
        verdicts = {row["claim"]: row["verdict"] for row in csv.DictReader(lines)}
    ledger = text_of(ROOT / "reports" / "README.md")
    shown = dict(re.findall(r"^\| \*\*(C\d+)\*\* [^|]*\| (?:\S )?([a-z ]+)(?:: [^|]*)? \|", ledger, re.MULTILINE))
    assert shown == verdicts


# What surrounds the code


def test_continuous_integration_runs_what_the_readme_names() -> None:
    workflow: dict[str, Any] = yaml.safe_load(text_of(ROOT / ".github" / "workflows" / "ci.yml"))
    steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
    commands = [step["run"] for step in steps if "run" in step]
    assert {"make check", "make docs", "make test", "make try", "make repro"} <= set(commands)
    smoke = commands.index("sed -i 's/^scale:.*/scale: smoke/' params.yaml")
    assert smoke < commands.index("make repro")
    assert re.search(r"^scale: laptop", text_of(ROOT / "params.yaml"), re.MULTILINE)
    for step in steps:
        assert re.fullmatch(r"actions/[\w-]+@[0-9a-f]{40}", step.get("uses", "actions/none@" + 40 * "0"))
    local = text_of(ROOT / ".ci" / "run").splitlines()
    assert [line for line in local if line.startswith("make")] == ["make check", "make docs", "make test"]


def test_hooks_use_the_pinned_tools() -> None:
    repositories = yaml.safe_load(text_of(ROOT / ".pre-commit-config.yaml"))["repos"]
    hooks = {hook["id"]: repository for repository in repositories for hook in repository["hooks"]}
    assert {"ruff-check", "ruff-format", "mypy"} <= set(hooks)
    pinned = dict(re.findall(r"^([\w.-]+)==(.+)$", text_of(ROOT / "constraints.txt"), re.MULTILINE))
    assert hooks["ruff-check"]["rev"] == f"v{pinned['ruff']}"


def test_what_a_citation_says_is_what_is_released() -> None:
    citation = yaml.safe_load(text_of(ROOT / "CITATION.cff"))
    project = tomllib.loads(text_of(ROOT / "pyproject.toml"))["project"]
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    assert (citation["version"], citation["license"]) == (project["version"], project["license"])
    assert citation["authors"] == project["authors"]
    assert f"Copyright (c) 2026 {project['authors'][0]['name']}" in text_of(ROOT / "LICENSE")


def test_the_changelog_has_the_version_that_is_released() -> None:
    versions = re.findall(r"^## \[(.+?)\]", text_of(ROOT / "CHANGELOG.md"), re.MULTILINE)
    project = tomllib.loads(text_of(ROOT / "pyproject.toml"))["project"]
    assert versions[:2] == ["Unreleased", project["version"]]


def test_types_are_shipped() -> None:
    tools = tomllib.loads(text_of(ROOT / "pyproject.toml"))["tool"]
    assert (ROOT / "pipeline" / "py.typed").is_file()
    assert "py.typed" in tools["setuptools"]["package-data"]["pipeline"]


def test_the_tools_of_the_documentation_are_pinned() -> None:
    extras = tomllib.loads(text_of(ROOT / "pyproject.toml"))["project"]["optional-dependencies"]
    pinned = {name.lower() for name in re.findall(r"^([\w.-]+)==", text_of(ROOT / "constraints.txt"), re.MULTILINE)}
    assert {re.match(r"[\w-]+", name)[0] for name in extras["docs"]} <= pinned  # type: ignore[index]


if __name__ == "__main__":
    CONTRIBUTING.write_text(with_examples(text_of(CONTRIBUTING)), encoding="utf-8")
    RESULTS.write_text(with_columns(text_of(RESULTS)), encoding="utf-8")
    CONFIGURATION.write_text(with_keys(text_of(CONFIGURATION)), encoding="utf-8")
