"""The dataset of docs/examples/dataset.py is found once its file lies among the others, and nothing else is edited."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

import pipeline.data
from pipeline.data import SPLITS, generators, load_dataset, prepare_dataset
from pipeline.errors import DatasetError

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "dataset.py"
CONFIG = "generator: delayed_xor\nseed: 0\nlengths: [5, 20]\n"


@pytest.fixture
def added(tmp_path, monkeypatch):
    """Put the example's file where modules of `pipeline.data` are looked for."""
    folder = tmp_path / "more"
    folder.mkdir()
    shutil.copy(EXAMPLE, folder / "delayed_xor.py")
    monkeypatch.setattr(pipeline.data, "__path__", [*pipeline.data.__path__, str(folder)])
    yield
    sys.modules.pop("pipeline.data.delayed_xor", None)


def test_the_example_is_short():
    assert len(EXAMPLE.read_text(encoding="utf-8").splitlines()) <= 25


def test_the_example_is_found_by_its_file(added):
    assert "delayed_xor" in generators()


def test_without_its_file_it_is_unknown():
    assert "delayed_xor" not in generators()


def test_the_example_is_prepared_and_loaded(added, tmp_path, config_path, sizes):
    folder = tmp_path / "data" / "delayed_xor"
    prepare_dataset("delayed_xor", config_path("delayed_xor", CONFIG), (), sizes, folder)
    dataset = load_dataset(folder, 20, unseen_lengths=(5,))
    assert (dataset.num_timesteps, dataset.unseen[5].inputs.shape) == (20, (20, 5, 1))
    for split in SPLITS:
        first, *between, last = dataset.splits[split].inputs[..., 0].T
        np.testing.assert_array_equal(dataset.splits[split].targets, first != last)
        assert not np.any(between)
    preview = (folder / "preview.txt").read_text(encoding="utf-8").splitlines()
    assert (preview[2].split()[0], preview[3].split()[0]) == ("input", "target")


def test_an_impossible_length_of_the_example(added, tmp_path, config_path, sizes):
    with pytest.raises(DatasetError, match="dataset 'delayed_xor': length 1 is impossible; there are two bits: at le"):
        prepare_dataset("delayed_xor", config_path("delayed_xor", CONFIG), (1,), sizes, tmp_path / "delayed_xor")
