from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from pipeline.config import Paths, keep_listed, load_params, write_digest, write_requests
from pipeline.errors import ConfigError, PipelineError
from tests.sweep.fakes import STUDY, grid, write_project, write_yaml


def test_a_request_is_what_the_listed_studies_ask_of_a_dataset(tmp_path: Path) -> None:
    paths, params = write_project(tmp_path)
    write_requests(paths, params)
    expected = {"lengths": [4], "sizes": {"num_train": 8, "num_validation": 4, "num_test": 4}}
    assert json.loads(paths.request("adding").read_text()) == expected
    (study,) = json.loads(paths.listed_studies.read_text())
    assert (study["name"], study["question"], study["base"]["model"]["cell"]) == ("cells", STUDY["question"], "elman")


@pytest.mark.parametrize(
    ("changed", "request_stays", "studies_stay"),
    [
        ({}, True, True),
        ({"question": "Another question?"}, True, False),
        ({"grids": grid(model__cell=["gru"], optimiser__learning_rate=[0.1])}, True, False),
        ({"scales": {"smoke": {"set": {"dataset.length": 9}, "grids": {}, "axes": {}, "skip": []}}}, True, True),
        ({"set": STUDY["set"] | {"dataset.length": 6}}, False, False),
    ],
)
def test_digests_change_with_what_they_stand_for(
    tmp_path: Path, changed: dict[str, object], request_stays: bool, studies_stay: bool
) -> None:
    paths, params = write_project(tmp_path)
    write_yaml(paths.scale_config("smoke"), {})
    write_requests(paths, params)
    before = paths.request("adding").read_bytes(), paths.listed_studies.read_bytes()
    write_yaml(paths.study_config("cells"), {**STUDY, **changed})
    write_yaml(paths.study_config("unlisted"), {"not": "a study"})
    write_requests(paths, load_params(paths))
    assert (paths.request("adding").read_bytes() == before[0]) == request_stays
    assert (paths.listed_studies.read_bytes() == before[1]) == studies_stay


def test_a_request_changes_with_the_content_of_every_file_that_the_dataset_names(tmp_path: Path) -> None:
    paths, params = write_project(tmp_path)
    outside = tmp_path / "texts" / "b.txt"
    outside.parent.mkdir()
    write_yaml(paths.dataset_config("adding"), {"source_file": "a.txt", "target_file": str(outside), "tsv_file": None})
    seen = set()
    for first, second in (("one", "two"), ("one", "owt"), ("neo", "owt")):
        (tmp_path / "a.txt").write_text(first)
        outside.write_text(second)
        write_requests(paths, params)
        seen.add(paths.request("adding").read_bytes())
        links = {path.name: path.read_text() for path in paths.watched("adding").iterdir()}
        assert links == {"source_file=a.txt": first, "target_file=b.txt": second}
    assert len(seen) == 3
    outside.rename(tmp_path / "texts" / "b.text")
    with pytest.raises(ConfigError, match=r"adding.yaml.target_file: .*b.txt: no such file; .* did you mean 'b.text'"):
        write_requests(paths, params)
    assert not (paths.watched("adding") / "target_file=b.txt").is_symlink()


def test_a_copied_project_watches_its_own_files(tmp_path: Path) -> None:
    (tmp_path / "first").mkdir()
    paths, params = write_project(tmp_path / "first")
    (paths.root / "a.txt").write_text("one")
    write_yaml(paths.dataset_config("adding"), {"source_file": "a.txt"})
    write_requests(paths, params)
    shutil.copytree(paths.root, tmp_path / "second", symlinks=True)
    (tmp_path / "second" / "a.txt").write_text("two")
    assert (Paths(tmp_path / "second").watched("adding") / "source_file=a.txt").read_text() == "two"


def test_a_folder_in_place_of_a_file_and_a_link_that_cannot_be_made(tmp_path: Path) -> None:
    paths, params = write_project(tmp_path)
    write_yaml(paths.dataset_config("adding"), {"tsv_file": "."})
    with pytest.raises(ConfigError, match=r"adding.yaml.tsv_file: .*: cannot be read: Is a directory"):
        write_requests(paths, params)
    write_yaml(paths.dataset_config("adding"), {"tsv_file": "a\0b"})
    with pytest.raises(ConfigError, match=r"adding.yaml.tsv_file: expected the path of a file, got one with a byte 0"):
        write_requests(paths, params)
    write_yaml(paths.dataset_config("adding"), {"tsv_file": "params.yaml"})
    paths.watched("adding").parent.parent.mkdir(exist_ok=True)
    paths.watched("adding").parent.write_text("a file where the folder should be")
    with pytest.raises(
        PipelineError, match=r"digests/files/adding: cannot hold a link to .*params.yaml: Not a directory"
    ):
        write_requests(paths, params)


def test_links_of_datasets_that_are_not_listed_are_removed(tmp_path: Path) -> None:
    paths, params = write_project(tmp_path)
    paths.watched("left_over").mkdir(parents=True)
    (paths.watched("left_over") / "tsv_file=gone.tsv").symlink_to(tmp_path / "gone.tsv")
    write_requests(paths, params)
    assert not paths.watched("left_over").exists()


def test_digests_of_what_is_not_listed_are_removed(tmp_path: Path) -> None:
    paths = Paths.at(tmp_path)
    keep_listed(paths.dataset_digest, ["adding"])  # nothing is there yet
    for name in ("adding", "digits"):
        write_digest(paths.dataset_digest(name), {"name": name})
        write_digest(paths.results_digest(name), {"name": name})
    keep_listed(paths.dataset_digest, ["adding"])
    assert [path.name for path in paths.dataset_digest("any").parent.iterdir()] == ["adding.json"]
    assert paths.results_digest("digits").exists()


def test_a_digest_that_cannot_be_written_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "digests").write_text("a file where the folder should be")
    with pytest.raises(PipelineError, match=r"digests/data/adding\.json: cannot be written: "):
        write_digest(Paths.at(tmp_path).dataset_digest("adding"), {})


def test_files_of_a_list_and_of_a_folder_are_watched_one_by_one(tmp_path: Path) -> None:
    paths, params = write_project(tmp_path)
    for name in ("a.fr", "a.en", "pictures/cats/1.png", "pictures/dogs/1.png"):
        (paths.root / name).parent.mkdir(parents=True, exist_ok=True)
        (paths.root / name).write_text(name)
    (paths.root / "pictures/dogs").rename(paths.root / "dogs")
    (paths.root / "pictures/dogs").symlink_to("../dogs")
    write_yaml(paths.dataset_config("adding"), {"data_file": ["a.fr", "a.en"], "image_folder": "pictures"})
    write_requests(paths, params)
    links = {
        str(path.relative_to(paths.watched("adding"))) for path in paths.watched("adding").rglob("*") if path.is_file()
    }
    images = {"image_folder/cats/1.png", "image_folder/dogs/1.png"}
    assert links == {"data_file/0=a.fr", "data_file/1=a.en", *images}
    before = paths.request("adding").read_bytes()
    (paths.root / "pictures/dogs/1.png").write_text("other")
    write_requests(paths, params)
    assert paths.request("adding").read_bytes() != before
    (paths.root / "pictures").rename(paths.root / "pics")
    with pytest.raises(ConfigError, match=r"adding.yaml.image_folder: .*pictures: no such file"):
        write_requests(paths, params)


def test_modules_of_ones_own_networks_are_watched_and_stand_in_the_studies_digest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths, params = write_project(tmp_path)
    (tmp_path / "digest_nets.py").write_text("import torch\nimport digest_tools\n\n\ndef net():\n    return torch\n")
    (tmp_path / "digest_tools.py").write_text("LIMIT = 3\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    own = {
        "own": {"model": {"name": "custom", "import": "digest_nets:net"}},
        "missing": {"model.import": "nowhere:net"},
    }
    write_yaml(
        paths.study_config("cells"), {**STUDY, "select": None, "grids": {"mine": {"variants": {"elman": {}, **own}}}}
    )
    links = paths.watched("any").parent / "code-of-models"
    write_requests(paths, params)
    before = json.loads(paths.listed_studies.read_text())
    assert {path.name: path.resolve() for path in links.iterdir()} == {
        f"{name}.py": (tmp_path / f"{name}.py").resolve() for name in ("digest_nets", "digest_tools")
    }
    assert [*before[-1]["code"]] == ["digest_nets", "digest_tools"]
    (tmp_path / "digest_tools.py").write_text("LIMIT = 4\n")
    write_requests(paths, params)
    after = json.loads(paths.listed_studies.read_text())
    assert before[:-1] == after[:-1]
    assert before[-1]["code"]["digest_nets"] == after[-1]["code"]["digest_nets"]
    assert before[-1]["code"]["digest_tools"] != after[-1]["code"]["digest_tools"]
    write_yaml(paths.study_config("cells"), STUDY)
    write_requests(paths, params)
    assert not links.exists()
    assert len(json.loads(paths.listed_studies.read_text())) == len(before) - 1


def test_what_has_no_end_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    paths, params = write_project(tmp_path)
    os.mkfifo(tmp_path / "pipe.csv")
    for name in ("pipe.csv", "/dev/zero"):
        write_yaml(paths.dataset_config("adding"), {"data_file": name})
        with pytest.raises(ConfigError, match=rf"adding\.yaml\.data_file: .*{name}: expected a file, got what only"):
            write_requests(paths, params)
