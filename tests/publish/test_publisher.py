from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

from pipeline.config import Paths
from pipeline.publish import Publisher
from pipeline.results import SCHEMAS
from tests.publish.conftest import (
    SPEC,
    STEPS,
    TRIAL_IDS,
    make_trial,
    params_with,
    png,
    publish,
    warnings_of,
    write_study,
)
from tests.publish.offline_run import OfflineRun, offline_folders
from tests.quantities.conftest import geometric

RUN_ID = f"cells-adding-{TRIAL_IDS[0]}"


@pytest.fixture
def publisher(paths: Paths, heatmap: list[int]) -> Iterator[Publisher]:
    publisher = Publisher(paths, params_with("offline"))
    yield publisher
    publisher.close()


def test_a_setting_is_read_back_as_it_was_published(publisher: Publisher, paths: Paths) -> None:
    publish(paths, publisher, make_trial())
    (folder,) = offline_folders(paths.root)
    read = OfflineRun(folder)
    identity = {"run_id": RUN_ID, "display_name": "lstm, T=10", "run_group": "cells", "job_type": "trial"}
    assert {key: read.run[key] for key in identity} == identity
    assert (read.run["project"], read.run["entity"]) == ("gradients", "team")
    assert {key: read.config[key] for key in SPEC} == SPEC
    facts = {"study": "cells", "grid": "adding", "trial_id": TRIAL_IDS[0], "dataset_digest": "d" * 64}
    assert {key: read.config[key] for key in facts} == facts
    assert {"glob_name": "*", "step_metric": "step"}.items() <= read.metrics[-1].items()


def test_curves_have_their_steps_and_values(publisher: Publisher, paths: Paths) -> None:
    publish(paths, publisher, make_trial(loss=2.0))
    rows = OfflineRun(*offline_folders(paths.root)).rows[:-1]
    assert [row["step"] for row in rows] == [row["_step"] for row in rows] == list(range(STEPS + 1))
    losses = {row["step"]: row["loss/validation/mean"] for row in rows if "loss/validation/mean" in row}
    three, two = geometric([2.0, 4.0, 6.0]), geometric([2.0, 4.0])  # seed 2 diverged after step 10
    assert losses == pytest.approx({0: three[0], 10: three[0], 20: two[0]})
    assert rows[20]["loss/validation/num_seeds"] == 2
    assert rows[0]["loss/validation/high"] == pytest.approx(three[2])


def test_picture_and_table_lie_in_the_last_row(publisher: Publisher, paths: Paths, heatmap: list[int]) -> None:
    publish(paths, publisher, make_trial())
    read = OfflineRun(*offline_folders(paths.root))
    assert read.media("gradient_heatmap").read_bytes().startswith(b"\x89PNG")
    assert heatmap == [60]
    seeds = json.loads(read.media("seeds").read_text())
    rows = [dict(zip(seeds["columns"], row, strict=True)) for row in seeds["data"]]
    assert [(row["seed"], row["status"]) for row in rows] == [(0, "ok"), (1, "ok"), (2, "diverged")]
    assert [row["test_loss"] for row in rows] == [0.5, 1.5, None]


def test_the_summary_has_final_means_and_the_worst_status(publisher: Publisher, paths: Paths) -> None:
    publish(paths, publisher, make_trial())
    summary = OfflineRun(*offline_folders(paths.root)).summary
    assert {"status": "diverged", "num_seeds": 3, "num_ok": 2}.items() <= summary.items()
    mean = (0.5 * 1.5) ** 0.5  # geometric, of the seeds that ended ok
    assert summary["test_loss/mean"] == pytest.approx(mean)
    assert summary["test_loss/low"] < mean < summary["test_loss/high"]
    assert not any(key.startswith("test_error") for key in summary)


def test_publishing_twice_leaves_one_folder(publisher: Publisher, paths: Paths, heatmap: list[int]) -> None:
    publish(paths, publisher, make_trial())
    folders = offline_folders(paths.root)
    publish(paths, publisher, make_trial())
    publish(paths, Publisher(paths, params_with("offline")), make_trial())
    assert offline_folders(paths.root) == folders
    assert len(heatmap) == 1


def test_changed_content_replaces_the_folder(publisher: Publisher, paths: Paths) -> None:
    publish(paths, publisher, make_trial())
    publish(paths, publisher, make_trial(loss=5.0))
    (folder,) = offline_folders(paths.root)
    assert OfflineRun(folder).rows[0]["loss/validation/mean"] == pytest.approx(geometric([5.0, 10.0, 15.0])[0])


def test_a_lost_folder_is_written_again(publisher: Publisher, paths: Paths) -> None:
    publish(paths, publisher, make_trial())
    offline_folders(paths.root)[0].rename(paths.root / "elsewhere")
    publish(paths, publisher, make_trial())
    assert len(offline_folders(paths.root)) == 1


def test_a_damaged_record_only_means_publishing_again(publisher: Publisher, paths: Paths) -> None:
    publish(paths, publisher, make_trial())
    (paths.root / "wandb" / "published" / f"{RUN_ID}.json").write_text("{")
    publish(paths, publisher, make_trial())
    assert len(offline_folders(paths.root)) == 1


def test_a_study_has_its_settings_figures_and_artifacts(publisher: Publisher, paths: Paths) -> None:
    write_study(paths, [make_trial()])
    figures, dataset = paths.reports / "site" / "figures", paths.dataset("adding")
    for folder in (figures / "cells" / "adding", figures / "cells_b" / "adding", dataset):
        folder.mkdir(parents=True)
    (figures / "cells" / "adding" / "reach.png").write_bytes(png())
    (figures / "cells_b" / "adding" / "another.png").write_bytes(png())
    (dataset / "manifest.json").write_text("{}")
    (dataset / "preview.txt").write_text("1 0 1")
    (dataset / "inputs.npy").write_bytes(b"large")
    publisher.study("cells")
    (folder,) = (folder for folder in offline_folders(paths.root) if folder.name.endswith("cells-study"))
    read = OfflineRun(folder)
    assert (read.run["run_id"], read.run["job_type"], read.run["run_group"]) == ("cells-study", "study", "cells")
    assert read.media("adding/reach").read_bytes() == png()
    assert "adding/another.path" not in read.rows[-1]
    assert json.loads(read.media("settings").read_text())["data"][0][3] == TRIAL_IDS[0]
    artifacts = {artifact["name"]: artifact for artifact in read.artifacts}
    files = {name: {entry["path"] for entry in artifacts[name]["manifest"]["contents"]} for name in artifacts}
    assert files["dataset-adding"] == {"manifest.json", "preview.txt"}
    assert files["results-cells"] == {f"{table}.parquet" for table in SCHEMAS}
    assert set(artifacts["dataset-adding"]["aliases"]) == {"latest", "d" * 16}


def test_nothing_is_written_outside_the_project(publisher: Publisher, paths: Paths) -> None:
    write_study(paths, [make_trial()])
    publisher.study("cells")
    written = {path.name for path in Path.home().rglob("*")} - {".cache", "matplotlib"}
    assert not [name for name in written if not name.startswith("fontlist")]
    assert {path.name for path in paths.root.iterdir()} == {"results", "wandb"}


def test_wandb_dir_moves_the_run_folders(
    paths: Paths, heatmap: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_DIR", str(tmp_path / "elsewhere"))
    publisher = Publisher(paths, params_with("offline"))
    publish(paths, publisher, make_trial())
    publisher.close()
    assert len(offline_folders(tmp_path / "elsewhere")) == 1
    assert {path.name for path in paths.root.iterdir()} == {"results"}


def test_a_picture_that_cannot_be_drawn_is_left_out_until_it_can(
    publisher: Publisher,
    paths: Paths,
    heatmap: list[int],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr("pipeline.publish.views._draw_heatmap", _fail)
        publish(paths, publisher, make_trial())
    assert warnings_of(caplog) == [
        f"W&B: {RUN_ID}: published without its picture 'gradient_heatmap': ValueError: no ink"
    ]
    assert "gradient_heatmap.path" not in OfflineRun(*offline_folders(paths.root)).rows[-1]
    publish(paths, publisher, make_trial())
    assert OfflineRun(*offline_folders(paths.root)).media("gradient_heatmap").is_file()


def test_a_tracker_that_fails_offline_is_a_warning(
    publisher: Publisher, paths: Paths, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("pipeline.publish.client._fill", _fail)
    publish(paths, publisher, make_trial())
    assert warnings_of(caplog) == ["W&B: cells, lstm, T=10: not published: ValueError: no ink"]
    assert publisher.num_failed == 1


def test_a_service_that_does_not_close_is_a_warning(
    publisher: Publisher, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr("pipeline.publish.client.Client.close", _fail)
        publisher.close()
    assert warnings_of(caplog) == ["W&B: did not close: ValueError: no ink"]


def test_a_trial_without_traces_of_a_recurrent_network_has_no_picture(
    publisher: Publisher, paths: Paths, heatmap: list[int]
) -> None:
    trial = make_trial()
    trial.tables["traces"] = trial.tables["traces"].with_columns(part=pl.lit("encoder"))
    publish(paths, publisher, trial)
    assert heatmap == []
    assert len(offline_folders(paths.root)) == 1


def _fail(*_: object) -> None:
    raise ValueError("no\nink")
