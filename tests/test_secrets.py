"""Keys that a user may have in the environment or in the URL of the trial store stand in nothing that a run leaves."""

from __future__ import annotations

import base64
import contextlib
import gzip
import io
import logging
import os
import re
import shutil
import socket
import threading
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote

import boto3
import polars as pl
import psutil
import pytest
import yaml

from pipeline.config import Paths, Sizes
from pipeline.data import prepare_dataset
from pipeline.errors import StoreError
from pipeline.results.store import TrialStore
from pipeline.sweep.trial import Job
from stages import plan, publish, report, request, sweep

ROOT = Path(__file__).parents[1]
IN_URL = ("AKIAPLANTEDINURL0000", "planted/Secret+in/the/URL0000000000000000")
IN_ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "AKIAPLANTEDINENV0000",
    "AWS_SECRET_ACCESS_KEY": "plantedSecretInTheEnvironment00000000000",
    "WANDB_API_KEY": "beef" * 10,
    "RAY_AUTH_TOKEN": "cafe" * 16,
}
PLANTED = (*IN_URL, *IN_ENVIRONMENT.values())
SIZES = {"num_train": 16, "num_validation": 8, "num_test": 8}
PICTURES = {".png", ".svg", ".ico", ".woff2"}

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of moto


def with_keys(url: str) -> str:
    """Return the URL of a trial store with the planted key and secret in it."""
    return url.replace("s3://", f"s3://{IN_URL[0]}:{quote(IN_URL[1], safe='')}@")


@pytest.fixture
def project(tmp_path: Path, bucket: str, monkeypatch: pytest.MonkeyPatch) -> Paths:
    """The study of cells, cut down to one tiny setting, its trial store in a bucket, the folder the current one."""
    home, root = tmp_path / "home", tmp_path / "project"
    home.mkdir()
    monkeypatch.setenv(
        "XDG_CACHE_HOME", os.environ.get("XDG_CACHE_HOME", str(Path.home() / ".cache"))
    )  # compiled loops
    paths = Paths.at(root)
    shutil.copytree(ROOT / "configs", root / "configs")
    tracking = {"mode": "offline", "project": "test", "entity": None}
    edit(ROOT / "params.yaml", paths.params, scale="smoke", datasets=["adding"], studies=["cells"], tracking=tracking)
    edit(paths.params, paths.params, trial_store=with_keys(bucket))
    edit(paths.scale_config("smoke"), paths.scale_config("smoke"), datasets=SIZES)
    small = {"training.batch_size": 8, "training.max_steps": 4, "training.evaluate_every": 2, "dataset.length": 5}
    small |= {"diagnostics.num_traces": 2, "diagnostics.probe_size": 4}
    grids = {"adding": {"figures": ["learning_curves"], "axes": {"model.cell": ["gru"]}}}
    study = paths.study_config("cells")
    edit(study, study, set=small, grids=grids, select=None, scales={})
    prepare_dataset("adding", paths.dataset_config("adding"), [5], Sizes(**SIZES), paths.dataset("adding"))
    monkeypatch.chdir(root)
    for name in ("RAY_ADDRESS", "WANDB_MODE", "WANDB_DISABLED", "WANDB_DIR", "WANDB_DATA_DIR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {
        **IN_ENVIRONMENT,
        "HOME": str(home),
        "WANDB_CACHE_DIR": str(home / "wandb"),
        "WANDB_ERROR_REPORTING": "false",
    }.items():
        monkeypatch.setenv(name, value)
    return paths


def edit(source: Path, target: Path, **changed: object) -> None:
    target.write_text(yaml.safe_dump({**yaml.safe_load(source.read_text()), **changed}, sort_keys=False))


def contents(name: str, data: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield what is in a file, as it is and unpacked."""
    yield name, data
    if name.endswith((".zip", ".damaged", ".checkpoint", ".npz")) and zipfile.is_zipfile(io.BytesIO(data)):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for inner in archive.namelist():
                yield from contents(f"{name}!{inner}", archive.read(inner))
    elif name.endswith(".parquet"):
        yield name, pl.read_parquet(io.BytesIO(data)).write_json().encode()
    elif name.endswith(".gz"):
        yield name, gzip.decompress(data)


def leaks(name: str, data: bytes) -> list[str]:
    """Return where one of the planted keys stands, as it is, in a URL or in base64."""
    found = []
    for part, content in contents(name, data):
        for secret in PLANTED:
            forms = (secret, quote(secret, safe=""), base64.b64encode(secret.encode()).decode().rstrip("=")[:-1])
            found += [f"{part}: {form}" for form in forms if form.encode() in content]
    return found


def in_files(folder: Path, but: Path) -> list[str]:
    files = [path for path in folder.rglob("*") if path.is_file() and path != but and path.suffix not in PICTURES]
    return [leak for path in files for leak in leaks(str(path), path.read_bytes())]


def in_bucket(url: str) -> list[str]:
    name, endpoint = url.split("/")[2], f"http://{url.split('endpoint_override=')[1].split('&')[0]}"
    client = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1")
    keys = [found["Key"] for found in client.list_objects_v2(Bucket=name)["Contents"]]
    assert sum(key.endswith(".zip") for key in keys) == 1
    return [leak for key in keys for leak in leaks(key, client.get_object(Bucket=name, Key=key)["Body"].read())]


def test_a_leak_would_be_found(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    pl.DataFrame({"x": [f"s3://{quote(IN_URL[1], safe='')}@bucket"] * 99}).write_parquet(tmp_path / "a" / "x.parquet")
    with zipfile.ZipFile(tmp_path / "y.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("trial.json", base64.b64encode(IN_ENVIRONMENT["WANDB_API_KEY"].encode()))
    found = in_files(tmp_path, tmp_path / "none")
    assert {name for name in ("x.parquet", "y.zip!trial.json") if any(name in leak for leak in found)} == {
        "x.parquet",
        "y.zip!trial.json",
    }


def test_a_sweep_its_report_and_its_runs_hold_no_key(
    project: Paths, bucket: str, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="pipeline")
    ended = threading.Event()
    with ThreadPoolExecutor(2) as beside:  # a server that is not there is tried for seconds
        unreachable = beside.submit(error_without_server, with_keys(bucket))
        heard = beside.submit(addresses_listened_at, project.root.parent / "home", ended)
        try:
            run_everything(project)
        finally:
            ended.set()
    assert heard.result() == {"127.0.0.1"}  # the server of the bucket, and nothing beyond loopback
    said = capfd.readouterr()
    assert "1 trained" in said.out
    assert leaks("said", f"{said.out} {said.err} {caplog.text}".encode()) == []
    assert in_files(project.root.parent, but=project.params) == []
    assert in_bucket(bucket) == []
    assert unreachable.result().startswith("s3://bucket-")
    assert leaks("unreachable", unreachable.result().encode()) == []


def run_everything(project: Paths) -> None:
    assert request.main([]) == plan.main([]) == 0
    assert sweep.main(["cells", "--dry-run"]) == sweep.main(["cells", "--executor", "inline"]) == 0
    assert report.main([]) == publish.main([]) == 0
    assert list(project.root.glob("wandb/offline-run-*"))
    assert (project.reports / "site" / "index.html").is_file()


def addresses_listened_at(home: Path, ended: threading.Event) -> set[str]:
    """Return where this process, and those that it starts in that home, wait for connections while something runs."""
    found = set()
    while not ended.wait(0.5):
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.pid == os.getpid() or process.environ().get("HOME") == str(home):
                    sockets = process.net_connections("inet")
                    found |= {each.laddr.ip for each in sockets if each.status == psutil.CONN_LISTEN}
    return found


def error_without_server(url: str) -> str:
    """Return what a store says whose server is not there."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        nobody = f"127.0.0.1:{closed.getsockname()[1]}"
    with pytest.raises(StoreError) as caught:
        TrialStore(re.sub(r"127\.0\.0\.1:\d+", nobody, url)).probe_writable()
    return str(caught.value)


@pytest.fixture
def keys_count(bucket: str) -> Iterator[Callable[[], None]]:
    """A function after which the server refuses keys that it does not know; before, it takes any."""

    def ask(num_free: bytes) -> None:
        host = bucket.split("endpoint_override=")[1].split("&")[0]
        plain = {"Content-Type": "text/plain"}
        asked = urllib.request.Request(f"http://{host}/moto-api/reset-auth", data=num_free, headers=plain)
        urllib.request.urlopen(asked).close()

    yield lambda: ask(b"0")
    ask(b"inf")


def test_a_sweep_that_fails_tells_no_key(
    project: Paths, bucket: str, capfd: pytest.CaptureFixture[str], keys_count: Callable[[], None]
) -> None:
    url = with_keys(bucket)
    stores = {
        "no such bucket": url.replace("/trials?", "-of-others/trials?"),
        "no such option": f"{url}&colour=green",
        "wrong key": url,
    }
    for what, store in stores.items():
        if what == "wrong key":
            keys_count()
        edit(project.params, project.params, trial_store=store)
        assert sweep.main(["cells", "--executor", "inline"]) == 2, what
        said = capfd.readouterr()
        assert "sweep: s3://bucket-" in said.err, what
        assert "Traceback" not in said.err, what
        assert leaks(what, f"{said.out} {said.err}".encode()) == []


def test_dvc_keeps_no_trial_store_and_a_job_does_not_show_its_own(bucket: str) -> None:
    """What dvc.yaml lists under params stands in dvc.lock, which Git keeps."""
    for name, stage in yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"].items():
        assert "trial_store" not in stage.get("do", stage).get("params", []), name
    job = Job(with_keys(bucket), None, "cpu", 1, 1.0)
    assert leaks("job", repr(job).encode()) == []
