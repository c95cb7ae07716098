from __future__ import annotations

import argparse
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import polars as pl
import psutil
import pytest

from benchmarks import soak
from pipeline.results.store import TrialStore


@pytest.mark.timeout(600)
def test_a_sweep_survives_kills_of_what_it_stands_on() -> None:
    """The short form of `make soak`: kinds of kill, each once, then to the end, and every trial and table compared.

    Not a single node, since all of them are killed; nor a worker, or a driver that is asked to end, which have tests of
    their own.
    """
    kinds = [kind for kind in soak.KILLS if kind not in {"node", "worker", "driver-sigterm"}]
    command = [sys.executable, "-m", "benchmarks.soak", "0", "--settings", "3", "--steps", "1500", "--pace", "2"]
    command += ["--kinds", *kinds]
    done = subprocess.run(command, cwd=soak.ROOT, capture_output=True, text=True, timeout=580)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"soak: {len(kinds)} kills survived" in done.stdout
    assert done.stdout.endswith("soak: every trial and table is that of an undisturbed run\n")


def test_a_soak_that_is_asked_to_end_leaves_no_cluster() -> None:
    command = [sys.executable, "-m", "benchmarks.soak", "60", "--settings", "1", "--steps", "2"]
    with subprocess.Popen(command, cwd=soak.ROOT, stdout=subprocess.DEVNULL) as running:
        try:
            assert soak.wait_until(lambda: len(soak.named(running, "raylet")) == 3), "the head and two nodes"
            begun = psutil.Process(running.pid).children(recursive=True)
            folder = Path(next(each.environ()["RAY_TMPDIR"] for each in begun if "RAY_TMPDIR" in each.environ()))
            running.terminate()
            assert running.wait(60) == 128 + signal.SIGTERM
        finally:
            running.kill()
        gone, alive = psutil.wait_procs(begun, timeout=60)
    assert len(gone) > 2
    assert not [each for each in alive if each.status() != psutil.STATUS_ZOMBIE]
    assert not folder.exists()


def test_the_first_item_that_differs_is_named(tmp_path: Path) -> None:
    asked = argparse.Namespace(settings=3, steps=2)
    undisturbed, paths = (soak.lay_out(tmp_path / name, asked) for name in ("undisturbed", "project"))
    with (tmp_path / "shown").open("w") as shown:
        soak.sweep(undisturbed, "inline", shown)
    for folder in (undisturbed.default_store, undisturbed.results(soak.STUDY)):
        shutil.copytree(folder, paths.root / folder.relative_to(undisturbed.root))
    store = TrialStore(paths.default_store)
    assert soak.divergence(undisturbed, paths) is None
    store.checkpoint("0" * 16).save(b"forgotten")
    found = soak.divergence(undisturbed, paths)
    assert found is not None
    assert found.startswith(f"the store is not in order; {'0' * 16}.checkpoint")
    store.checkpoint("0" * 16).clear()
    identity = min(store.ids())
    trial = store.get(identity)
    assert trial is not None
    curves = trial.tables["curves"]
    value = curves["value"].to_list()
    value[2] += 1e-9
    trial.tables["curves"] = curves.with_columns(pl.Series("value", value))
    store.put(trial)
    found = soak.divergence(undisturbed, paths)
    assert found is not None
    assert found.startswith(f"trial {identity}: curves.value, row ")
    store.objects.delete(f"{identity}.zip")
    assert soak.divergence(undisturbed, paths) == f"trial {identity} is in one store only"
