from __future__ import annotations

from pathlib import Path

import pytest
import yaml

FILES = sorted((Path(__file__).parents[2] / "configs" / "cluster").glob("*.yaml"))


def test_there_is_an_example() -> None:
    assert FILES


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_rays_cluster_launcher_accepts_the_file(path: Path) -> None:
    util = pytest.importorskip("ray.autoscaler._private.util")
    config = util.prepare_config(yaml.safe_load(path.read_text()))
    util.validate_config(config)
    assert config["head_node_type"] in config["available_node_types"]
