from __future__ import annotations

import dataclasses
import json
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest

from pipeline.__main__ import main
from pipeline.config import Params, Paths
from pipeline.errors import SweepError
from pipeline.results.store import TrialStore
from pipeline.sweep import executor_named, plan_study, run_sweep, upkeep
from pipeline.sweep.lease import sweep_lease
from pipeline.sweep.upkeep import export_trials, find_doomed, import_trials, list_trials, prune, verify

from .fakes import STUDY, FakeTrain, grid, sweep, write_yaml


@pytest.fixture
def swept(project: tuple[Paths, Params]) -> TrialStore:
    sweep(*project, FakeTrain(diverges_on="lstm"))
    return TrialStore.of(project[0], None)


def names(store: TrialStore, **asked: object) -> dict[str, str]:
    return {doomed.name: doomed.why for doomed in find_doomed(store, **asked)}


def test_the_list_has_a_line_for_each_trial(swept: TrialStore) -> None:
    header, *rows, totals = list_trials(swept, ["cells"]).splitlines()
    assert header.split() == ["trial", "status", "cell", "dataset", "steps", "seeds", "time", "code", "size"]
    assert len(rows) == 4
    assert all("adding, T=4" in row and "today's" in row for row in rows)
    assert totals.startswith("4 trials (2 diverged, 2 ok), ")
    with pytest.raises(SweepError, match="unknown study 'cels'; did you mean 'cells'"):
        list_trials(swept, ["cels"])


def test_a_sound_store_is_sound(swept: TrialStore) -> None:
    said: list[str] = []
    assert verify(swept, said.append) == 0
    assert said == ["4 trials read, 0 of other code than today's; 0 objects damaged"]


def test_what_is_damaged_is_named_and_left_where_it_is(swept: TrialStore, tmp_path: Path) -> None:
    first, second, *_ = sorted(swept.ids())
    store = Path(swept.url)
    (store / f"{first}.zip").write_bytes((store / f"{first}.zip").read_bytes()[:-30])
    with zipfile.ZipFile(store / f"{second}.zip") as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    content["trial.json"] = content["trial.json"].replace(b'"batch_size": 4', b'"batch_size": 5')
    with zipfile.ZipFile(store / f"{second}.zip", "w") as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    (store / f"{second}.checkpoint").write_bytes(b"half")
    before = sorted(path.name for path in store.iterdir())
    said: list[str] = []
    assert verify(swept, said.append) == 3
    text = "\n".join(said)
    assert f"damaged  {first}.zip: not a stored trial" in text
    assert f"damaged  {second}.zip: is trial " in text
    assert said[-1] == "4 trials read, 0 of other code than today's; 3 objects damaged"
    assert sorted(path.name for path in store.iterdir()) == before


def test_trials_of_a_study_go_unless_another_study_has_them(project: tuple[Paths, Params], swept: TrialStore) -> None:
    paths, params = project
    both = params.__class__(**{**vars(params), "studies": ("cells", "lstms")})
    write_yaml(paths.study_config("lstms"), {**STUDY, "grids": grid(model__cell=["lstm"]), "select": None})
    run_sweep(paths, both, "lstms", executor_named("inline", both), train=FakeTrain(diverges_on="lstm"))
    lstms = {setting.trial_id for setting in plan_study(paths, both, "lstms").trials}
    assert lstms <= swept.ids()
    swept.checkpoint("0" * 16).save(b"of no study")
    found = names(swept, studies=["cells"])
    assert found == {f"{identity}.zip": "of cells" for identity in swept.ids() - lstms}
    said: list[str] = []
    prune(swept, find_doomed(swept, studies=["cells"]), said.append, deletes=False)
    assert len(swept.ids()) == 4
    assert said[-1].endswith("would be removed: --delete removes them")
    prune(swept, find_doomed(swept, studies=["cells"]), said.append, deletes=True)
    assert swept.ids() == lstms
    assert swept.checkpoint("0" * 16).load() is not None


def test_age_is_by_the_clock_of_the_store(swept: TrialStore) -> None:
    assert names(swept, older_than_days=1) == {}
    old = f"{min(swept.ids())}.zip"
    two_days_ago = (Path(swept.url) / old).stat().st_mtime - 2 * 86_400
    os.utime(Path(swept.url) / old, (two_days_ago, two_days_ago))
    assert names(swept, older_than_days=1) == {old: "older than 1 days"}
    assert names(swept, older_than_days=3) == {}
    assert names(swept, older_than_days=1, of_other_code=True) == {}


def test_trials_of_other_code_are_found(swept: TrialStore, monkeypatch: pytest.MonkeyPatch) -> None:
    assert names(swept, of_other_code=True) == {}
    monkeypatch.setattr(
        "pipeline.sweep.upkeep.code_digest", lambda spec: "0" * 16 if spec.model.cell == "lstm" else "1"
    )
    assert set(names(swept, of_other_code=True).values()) == {"of other code"}
    assert "other" in list_trials(swept)


def test_orphans_are_what_nothing_goes_on_from(swept: TrialStore) -> None:
    ended = min(swept.ids())
    for identity in (ended, "f" * 16):
        swept.checkpoint(identity).save(b"half way")
    swept.objects.write(f"{ended}.zip.damaged", b"x")
    assert names(swept, orphans=True) == {
        f"{ended}.checkpoint": "of a trial that has ended",
        f"{ended}.zip.damaged": "quarantined",
        "f" * 16 + ".checkpoint": "no study that the store has been told of asks for it",
    }


def test_nothing_goes_while_a_study_is_swept(swept: TrialStore) -> None:
    with sweep_lease(swept, "cells"), pytest.raises(SweepError, match="'cells' is being swept by pid"):
        find_doomed(swept, orphans=True)


def test_an_export_makes_another_store(
    swept: TrialStore, tmp_path: Path, project: tuple[Paths, Params], bucket: str
) -> None:
    assert export_trials(swept, tmp_path / "a.zip") == 4
    export_trials(swept, tmp_path / "b.zip", ["cells"])
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    for url in (str(tmp_path / "elsewhere"), bucket):
        other = TrialStore(url)
        assert import_trials(other, tmp_path / "a.zip") == (4, 0)
        assert import_trials(other, tmp_path / "a.zip") == (0, 4)
        assert other.summaries() == swept.summaries()


@pytest.mark.parametrize("damage", ["none", "text", "foreign", "torn", "misnamed"])
def test_a_damaged_export_leaves_the_store_as_it_is(swept: TrialStore, tmp_path: Path, damage: str) -> None:
    file = tmp_path / "a.zip"
    export_trials(swept, file)
    with zipfile.ZipFile(file) as archive:
        trials = {name: archive.read(name) for name in archive.namelist()}
    last = max(trials)
    if damage == "none":
        file.unlink()
    elif damage == "text":
        file.write_text("no zip")
    else:
        trials |= {
            "foreign": {"../evil.zip": b"x"},
            "torn": {last: trials[last][:-9]},
            "misnamed": {"f" * 16 + ".zip": trials[last]},
        }[damage]
        with zipfile.ZipFile(file, "w") as archive:
            for name, data in trials.items():
                archive.writestr(name, data)
    other = TrialStore(tmp_path / "elsewhere")
    with pytest.raises(SweepError, match=r"a\.zip"):
        import_trials(other, file)
    assert other.ids() == frozenset()
    assert not (tmp_path / "evil.zip").exists()


def test_the_commands(swept: TrialStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def run(*arguments: str) -> tuple[int, str]:
        status = main(["store", *arguments, "--store", swept.url])
        said = capsys.readouterr()
        return status, said.out + said.err

    assert run("list", "--study", "cells")[0] == 0
    assert run("verify")[0] == 0
    status, said = run("prune")
    assert (status, "expected what to remove" in said) == (2, True)
    assert run("export", str(tmp_path / "x.zip"), "--study", "cells") == (0, f"4 trials in {tmp_path}/x.zip\n")
    assert run("prune", "--study", "cells", "--delete")[0] == 0
    assert swept.ids() == frozenset()
    assert run("import", str(tmp_path / "x.zip")) == (0, "4 trials imported, 0 were there\n")
    (Path(swept.url) / f"{min(swept.ids())}.zip").write_bytes(b"torn")
    assert run("verify")[0] == 1


def test_weights_are_verified_and_go_with_their_trial(swept: TrialStore) -> None:
    first, second, *_ = sorted(swept.ids())
    for identity in (first, second, "f" * 16):
        swept.put_weights(identity, {"readout.weight": np.ones((2, 3))}, {"model": {}})
    (Path(swept.url) / f"{second}.safetensors").write_bytes(b"none")
    said: list[str] = []
    assert verify(swept, said.append) == 1
    assert said[0].startswith(f"damaged  {second}.safetensors: not a file of safetensors")
    assert names(swept, orphans=True) == {f"{'f' * 16}.safetensors": "weights of no finished trial"}
    doomed = names(swept, studies=["cells"])
    assert {f"{first}.zip", f"{first}.safetensors", f"{second}.safetensors"} <= doomed.keys()
    assert f"{'f' * 16}.safetensors" not in doomed


def test_of_a_network_that_is_not_found_nobody_says_that_its_code_is_another(
    swept: TrialStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From another folder than the project's, where `--store` names the store."""
    summaries = swept.summaries()
    identity = min(summaries)
    spec = json.loads(summaries[identity].spec)
    spec["model"] = {"name": "custom", "import": "nowhere_to_be_found:Net"}
    own = dataclasses.replace(summaries[identity], spec=json.dumps(spec))
    assert upkeep._is_of_todays_code(own) is None
    monkeypatch.setattr("pipeline.results.catalogue.Catalogue.read", lambda self, listing: ({identity: own}, []))
    assert names(swept, of_other_code=True) == {}
