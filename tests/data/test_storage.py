"""A prepared dataset comes back as it was made, is written whole or not at all, and is refused when damaged."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from pipeline.config import Sizes
from pipeline.data import SPLITS, load_dataset, prepare_dataset, read_generator, read_manifest, storage
from pipeline.data.storage import FORMAT_VERSION
from pipeline.errors import DatasetError

NAMES = ["adding", "copy_memory", "dates", "entities", "fixed_lag_copy", "flip_flop", "numbers", "sentiment"]
NAMES += ["stdlib_text", "tagging", "temporal_order", "transduction"]


@pytest.fixture
def prepared(tmp_path, config_path, sizes):
    """Return the folder of the adding problem at lengths 6 (its own) and 10 (asked for)."""
    folder = tmp_path / "data" / "adding"
    prepare_dataset("adding", config_path("adding"), (10,), sizes, folder)
    return folder


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def edit_manifest(folder: Path, **changes: object) -> None:
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize("name", NAMES)
def test_what_is_loaded_is_what_was_generated(name, tmp_path, config_path, sizes):
    folder = tmp_path / "data" / name
    prepare_dataset(name, config_path(name), (), sizes, folder)
    generator = read_generator(config_path(name))
    (length,) = generator.listed_lengths
    made, loaded = generator.generate(length, sizes), load_dataset(folder, length)
    assert loaded.name == name
    assert vars(loaded) | {"splits": None} == vars(made) | {"splits": None, "name": name}
    for split in SPLITS:
        assert (loaded.splits[split].alignment is None) == (made.splits[split].alignment is None)
        for role in ("inputs", "targets", *(["alignment"] if made.splits[split].alignment is not None else [])):
            made_array, loaded_array = getattr(made.splits[split], role), getattr(loaded.splits[split], role)
            np.testing.assert_array_equal(loaded_array, made_array)
            assert loaded_array.dtype == made_array.dtype
            assert loaded_array.flags.writeable


@pytest.mark.parametrize("length", [None, 64])
def test_null_is_the_natural_length(length, tmp_path, config_path, sizes):
    pytest.importorskip("sklearn")
    folder = tmp_path / "data" / "permuted_digits"
    prepare_dataset("permuted_digits", config_path("permuted_digits"), (), sizes, folder)
    dataset = load_dataset(folder, length)
    assert (dataset.name, dataset.length) == ("permuted_digits", 64)
    assert "sha256" in read_manifest(folder).source


def test_preparing_twice_gives_the_same_bytes(prepared, config_path, sizes):
    before = files_of(prepared)
    prepare_dataset("adding", config_path("adding"), (10,), sizes, prepared)
    assert files_of(prepared) == before
    assert sorted(path.name for path in prepared.parent.iterdir()) == ["adding"]


def test_a_further_length_leaves_the_others_as_they_were(prepared, config_path, sizes):
    before = files_of(prepared)
    prepare_dataset("adding", config_path("adding"), (10, 8), sizes, prepared)
    after = files_of(prepared)
    assert read_manifest(prepared).lengths == (6, 8, 10)
    for name, content in before.items():
        assert name == "manifest.json" or after[name] == content
    assert len(after) == len(before) + 6


def test_the_manifest_tells_without_loading(prepared):
    manifest = read_manifest(prepared)
    assert (manifest.name, manifest.generator, manifest.seed) == ("adding", "adding", 0)
    assert manifest.sizes == Sizes(40, 10, 20)
    assert manifest.config == {"generator": "adding", "seed": 0, "lengths": [6]}
    variant = manifest.variant(10)
    assert variant.num_bytes == sum(path.stat().st_size for path in (prepared / "length-10").iterdir())
    assert variant.files["length-10/train.inputs.npy"].shape == (40, 10, 2)
    assert variant.num_sequences == {"train": 40, "validation": 10, "test": 20}
    assert variant.num_timesteps == 10
    assert variant.digest == load_dataset(prepared, 10).digest


def test_the_preview_shows_the_shortest_length(prepared):
    text = (prepared / "preview.txt").read_text(encoding="utf-8")
    assert text.startswith("adding, length 6: the first training sequences\n\n value  0.")


def test_a_length_that_is_not_prepared(prepared):
    with pytest.raises(DatasetError, match=r"dataset 'adding': length 11 is not prepared; known: 6, 10 \(`python"):
        load_dataset(prepared, 11)


def test_null_where_there_is_no_natural_length(prepared):
    with pytest.raises(DatasetError, match="dataset 'adding': length null, but it has no natural one; known: 6, 10"):
        load_dataset(prepared, None)


def test_a_dataset_that_was_never_prepared(tmp_path):
    with pytest.raises(DatasetError, match=r"nothing/manifest.json: no such file; `python stages/prepare.py nothing`"):
        load_dataset(tmp_path / "nothing", 10)


def test_a_missing_file(prepared):
    (prepared / "length-10" / "test.targets.npy").unlink()
    with pytest.raises(DatasetError, match=r"length-10/test.targets.npy: missing; `python stages/prepare.py adding`"):
        load_dataset(prepared, 6)


def test_a_truncated_file(prepared):
    path = prepared / "length-10" / "train.inputs.npy"
    num_bytes = path.stat().st_size
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(DatasetError, match=f"train.inputs.npy: truncated to {num_bytes - 7} of {num_bytes} bytes"):
        load_dataset(prepared, 10)


@pytest.mark.parametrize("role", ["inputs", "targets"])
@pytest.mark.parametrize("split", SPLITS)
def test_one_flipped_bit(prepared, split, role):
    path = prepared / "length-10" / f"{split}.{role}.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(DatasetError, match=rf"{split}.{role}.npy: damaged, its sha256 is not that of the manifest"):
        load_dataset(prepared, 10)


def test_a_foreign_file(prepared):
    (prepared / "length-10" / "notes.txt").write_text("mine")
    with pytest.raises(DatasetError, match="length-10/notes.txt: not a file of this dataset; move it away"):
        load_dataset(prepared, 10)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((20, 10, 2), np.float64), "test.inputs.npy: expected dtype float32, got float64"),
        (np.zeros((20, 9, 2), np.float32), r"test.inputs.npy: expected shape \(20, 10, 2\), got \(20, 9, 2\)"),
    ],
)
def test_an_array_that_is_not_what_the_manifest_says(prepared, array, message):
    path = prepared / "length-10" / "test.inputs.npy"
    np.save(path, array)
    variants = json.loads((prepared / "manifest.json").read_text())["variants"]
    file = variants["10"]["files"]["length-10/test.inputs.npy"]
    file.update(sha256=hashlib.sha256(path.read_bytes()).hexdigest(), num_bytes=path.stat().st_size)
    edit_manifest(prepared, variants=variants)
    with pytest.raises(DatasetError, match=message):
        load_dataset(prepared, 10)


def test_the_manifest_of_another_dataset(prepared):
    edit_manifest(prepared, name="copy_memory")
    with pytest.raises(DatasetError, match="expected the manifest of 'adding', got that of 'copy_memory'"):
        read_manifest(prepared)


def test_another_format(prepared):
    other = FORMAT_VERSION + 1
    edit_manifest(prepared, format_version=other)
    message = rf"manifest.json: expected format_version {FORMAT_VERSION}, got {other}; `python stages"
    with pytest.raises(DatasetError, match=message):
        read_manifest(prepared)


@pytest.mark.parametrize("text", ["", "{", "\x00"])
def test_a_manifest_that_is_not_json(prepared, text):
    (prepared / "manifest.json").write_text(text)
    with pytest.raises(DatasetError, match="manifest.json: not valid JSON"):
        read_manifest(prepared)


def test_a_manifest_of_something_else(prepared):
    (prepared / "manifest.json").write_text("[1]")
    with pytest.raises(DatasetError, match=f"expected format_version {FORMAT_VERSION}, got None"):
        read_manifest(prepared)


def test_a_manifest_with_an_unknown_key(prepared):
    edit_manifest(prepared, colour="red")
    with pytest.raises(DatasetError, match="manifest.json: unknown key 'colour'.*makes it anew"):
        read_manifest(prepared)


def test_a_manifest_that_forgets_a_file(prepared):
    variants = json.loads((prepared / "manifest.json").read_text())["variants"]
    del variants["6"]["files"]["length-6/test.inputs.npy"]
    edit_manifest(prepared, variants=variants)
    with pytest.raises(DatasetError, match=r"variants.6.files: expected the files .*'length-6/test.inputs.npy'"):
        read_manifest(prepared)


def test_a_manifest_with_a_variant_under_another_length(prepared):
    variants = json.loads((prepared / "manifest.json").read_text())["variants"]
    edit_manifest(prepared, variants={"7": variants["6"]})
    with pytest.raises(DatasetError, match=r"variants.7: expected the variant of that length, got 6"):
        read_manifest(prepared)


@pytest.mark.parametrize("where", ["_write_variant", "Manifest"])
def test_a_crash_while_writing_leaves_the_old_data(prepared, config_path, sizes, monkeypatch, where):
    before = files_of(prepared)
    monkeypatch.setattr(storage, where, lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        prepare_dataset("adding", config_path("adding"), (12,), sizes, prepared)
    assert files_of(prepared) == before
    assert sorted(path.name for path in prepared.parent.iterdir()) == ["adding"]


def test_a_crash_while_moving_leaves_the_old_data(prepared, config_path, sizes, monkeypatch):
    before, rename = files_of(prepared), Path.rename

    def refuse(self: Path, target: Path) -> Path:
        if self.name == ".adding.new":
            raise OSError(28, "No space left on device")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(DatasetError, match="data/adding: cannot be written: No space left on device"):
        prepare_dataset("adding", config_path("adding"), (12,), sizes, prepared)
    assert files_of(prepared) == before


def test_what_a_killed_run_left_is_put_right(prepared, config_path, sizes):
    before = files_of(prepared)
    prepared.rename(prepared.with_name(".adding.old"))
    (prepared.with_name(".adding.new")).mkdir()
    with pytest.raises(DatasetError, match="length 1 is impossible"):
        prepare_dataset("adding", config_path("adding"), (1,), sizes, prepared)
    prepare_dataset("adding", config_path("adding"), (10,), sizes, prepared)
    assert files_of(prepared) == before
    assert sorted(path.name for path in prepared.parent.iterdir()) == ["adding"]


def test_an_impossible_length_writes_nothing(tmp_path, config_path, sizes):
    with pytest.raises(DatasetError, match="dataset 'adding': length 1 is impossible"):
        prepare_dataset("adding", config_path("adding"), (10, 1), sizes, tmp_path / "data" / "adding")
    assert not (tmp_path / "data").exists()


def test_a_folder_that_cannot_be_made(tmp_path, config_path, sizes):
    (tmp_path / "data").write_text("a file")
    with pytest.raises(DatasetError, match="data/adding: cannot be written: "):
        prepare_dataset("adding", config_path("adding"), (), sizes, tmp_path / "data" / "adding")


def test_a_folder_of_another_name(tmp_path, config_path, sizes):
    with pytest.raises(DatasetError, match="expected a folder called 'adding'"):
        prepare_dataset("adding", config_path("adding"), (), sizes, tmp_path / "data" / "sums")
