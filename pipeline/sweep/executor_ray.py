"""The executor on Ray Tune: embedded in this process, or on the cluster that RAY_ADDRESS names.

The only module that imports ray. Ray decides where a setting runs and starts it again when its worker is lost; what
is finished is decided by the trial store alone, since `Tuner.fit` also returns normally after an interrupt.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray._private import ray_constants

from pipeline.config import Resources
from pipeline.core.identity import TREE
from pipeline.errors import SweepError
from pipeline.results.store import TrialStore
from pipeline.sweep.estimate import Pack, available_memory_bytes, packs_of
from pipeline.sweep.executors import LoadData, Watch, check_share, variant_of
from pipeline.sweep.plan import Setting
from pipeline.sweep.trial import Job, Outcome, outcome_of, train_packed

MAX_FAILURES = 3
"""So often a setting starts again after its worker was lost; it goes on from its checkpoint in the trial store."""

PROBE_TIMEOUT_S = 3.0
"""For a cluster's port to answer; `ray.init` itself would wait more than 100 s."""

MAX_SOCKET_FOLDER = 30
"""Characters of the temporary folder: Ray's socket paths below it must stay under 107 bytes."""

_QUIET = {"TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1", "RAY_AIR_NEW_OUTPUT": "0", "RAY_USAGE_STATS_ENABLED": "0"}


class RayExecutor:
    """Trains settings as Ray Tune trials.

    Args:
        resources: What one trial asks for.
        address: A cluster's `host:port`, or `auto` for the one on this machine; None starts Ray here.
    """

    def __init__(self, resources: Resources, address: str | None) -> None:
        self.resources, self.address = resources, address

    def __call__(self, settings: Sequence[Setting], job: Job, load: LoadData, watch: Watch) -> None:
        """Train `settings`, in this order as far as there is room, and return when none is running.

        Raises:
            SweepError: If the cluster cannot be reached or has no room for even one trial.
        """
        with connected(self.address) as embedded, tempfile.TemporaryDirectory(prefix="tune-") as folder:
            _check_room(self.resources, embedded)
            memory = available_memory_bytes() if embedded and not self.resources.gpus_per_trial else None
            packs = packs_of(settings, self.resources.settings_per_program, _num_workers(self.resources), memory)
            by_id = {pack[0].trial_id: pack for pack in packs}
            variants = {variant_of(setting) for setting in settings}
            refs = {variant: ray.put(load(*variant)) for variant in sorted(variants, key=str)}
            work = tune.with_parameters(_work, job=job, by_id=by_id, refs=refs)
            tuner = tune.Tuner(
                tune.with_resources(work, {"cpu": self.resources.cpus_per_trial, "gpu": self.resources.gpus_per_trial}),
                param_space={"trial_id": tune.grid_search(list(by_id))},
                tune_config=tune.TuneConfig(reuse_actors=True),
                run_config=tune.RunConfig(
                    name="sweep",
                    storage_path=folder,
                    failure_config=tune.FailureConfig(max_failures=MAX_FAILURES),
                    callbacks=[_Watching(watch, by_id, job)],
                    verbose=0,
                ),
            )
            tuner.fit()


def _work(config: dict[str, Any], job: Job, by_id: dict[str, Pack], refs: dict[Any, Any]) -> None:
    """Train a pack of settings in a worker; only a few words travel back, the tables go to the store."""
    pack, outcomes = by_id[config["trial_id"]], list[dict[str, Any]]()
    train_packed(job, pack, ray.get(refs[variant_of(pack[0])]), lambda _, outcome: outcomes.append(asdict(outcome)))
    tune.report({"outcomes": outcomes})


class _Watching(tune.Callback):
    """Passes on what Tune says; a pack goes by the trial id of its first setting, since Tune's order is not ours."""

    def __init__(self, watch: Watch, by_id: dict[str, Pack], job: Job) -> None:
        self.watch, self.by_id, self.job = watch, by_id, job
        self.started_at: dict[str, float] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Leave the watcher out of the files from which Tune could resume: a sweep resumes from the trial store."""
        return {}

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Pass on that settings train, or train again after their worker was lost."""
        identity = trial.config["trial_id"]
        self.started_at[identity] = time.perf_counter()
        for setting in self.by_id[identity]:
            self.watch.started(setting)

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Pass on how settings ended: the one report of their pack."""
        outcomes = {outcome["trial_id"]: Outcome(**outcome) for outcome in result["outcomes"]}
        for setting in self.by_id[trial.config["trial_id"]]:
            self.watch.finished(setting, outcomes[setting.trial_id])

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Pass on that settings were given up: their worker was lost too often, out of memory for instance.

        Those of a pack that had ended by then are in the store.
        """
        identity = trial.config["trial_id"]
        reason = str(trial.get_error() or "no reason given").strip()
        message = f"given up after {MAX_FAILURES + 1} attempts: {reason.splitlines()[0]}"
        now, store = time.perf_counter(), TrialStore(self.job.store_url)
        for setting in self.by_id[identity]:
            outcome = Outcome(
                trial_id=setting.trial_id,
                status="error",
                message=message,
                traceback=reason,
                wall_time_s=now - self.started_at.get(identity, now),
            )
            stored = store.get(setting.trial_id) if len(self.by_id[identity]) > 1 else None
            ended = stored is not None and stored.summary.is_final(self.job.max_wall_time_s, setting.stop_at)
            self.watch.finished(setting, outcome_of(stored) if stored is not None and ended else outcome)


@contextlib.contextmanager
def connected(address: str | None) -> Iterator[bool]:
    """Connect to Ray for the body, or use the connection that there is; yields whether Ray runs on this machine only.

    Raises:
        SweepError: If nothing answers at `address`.
    """
    os.environ.update({name: value for name, value in _QUIET.items() if name not in os.environ})
    own = {"PYTHONPATH": os.pathsep.join(filter(None, (str(TREE), os.environ.get("PYTHONPATH"))))}
    options = {**_SILENT, "runtime_env": {"env_vars": own}}  # workers import the code of the driver, where they see it
    embedded = address is None
    if ray.is_initialized():
        yield embedded
        return
    folder = tempfile.mkdtemp(prefix="ray-", dir=_short_folder()) if embedded else None
    try:
        if folder is not None:
            with _own_machine_alone():
                ray.init(address="local", include_dashboard=False, _temp_dir=folder, **options)
        else:
            _join(str(address), options)
        yield embedded
    finally:
        ray.shutdown()
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _own_machine_alone() -> Iterator[None]:
    """Let Ray start where no other machine and no other user reaches it: ports on loopback, a token that nobody reads.

    Ray listens on all interfaces, unless it is told that there are no clusters, as on a Mac; and it makes the file of
    its token readable for everybody.
    """
    allowed = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = allowed
        with contextlib.suppress(OSError, RuntimeError):  # no home, or another's file
            (Path.home() / ".ray" / "auth_token").chmod(0o600)


_SILENT: dict[str, Any] = {"logging_level": "ERROR", "log_to_driver": False}


def _join(address: str, options: dict[str, Any]) -> None:
    if address.startswith("ray://"):
        raise SweepError(
            f"RAY_ADDRESS={address}: a sweep is not driven through Ray Client; on a machine of the cluster use "
            f"RAY_ADDRESS=auto, or from afar `ray job submit -- python stages/sweep.py <study>`"
        )
    if address != "auto":
        _probe(address)
    try:
        ray.init(address=address, **options)
    except (ConnectionError, RuntimeError, ValueError, ray.exceptions.AuthenticationError) as error:
        raise SweepError(
            f"RAY_ADDRESS={address}: Ray cannot be joined: {error}; is a cluster running (`ray status`), and does it "
            "want RAY_AUTH_MODE=token and its ~/.ray/auth_token? unset RAY_ADDRESS to run on this machine"
        ) from error


def _probe(address: str) -> None:
    """Wait, for a bounded time, until a server of the kind that Ray's is answers at `host:port`.

    A port may accept a connection and say nothing, and `ray.init` would wait for it without end. Ray's server speaks
    gRPC, which is HTTP/2: to a client's preface it answers with a SETTINGS frame of its own (RFC 9113, 3.4).

    Raises:
        SweepError: If the address is none, or nothing of the kind answers there.
    """
    found = re.fullmatch(r"(?P<host>[^:\[\]]+|\[[0-9A-Fa-f:.]+(?:%\w+)?\]):(?P<port>\d{1,5})", address)
    if found is None or not 0 < int(found["port"]) < 2**16:
        raise SweepError(f"RAY_ADDRESS={address}: expected host:port, such as 10.0.0.1:6379 or [::1]:6379, or auto")
    remedy = "start the cluster, or unset RAY_ADDRESS to run on this machine"
    end = time.monotonic() + PROBE_TIMEOUT_S
    try:
        with socket.create_connection((found["host"].strip("[]"), int(found["port"])), PROBE_TIMEOUT_S) as connection:
            if os.environ.get("RAY_USE_TLS", "0").lower() in {"1", "true"}:
                return  # the answer would be to a TLS handshake with the cluster's certificates
            connection.sendall(_PREFACE)
            answer = b""
            while len(answer) < _FRAME_HEADER:
                connection.settimeout(max(0.01, end - time.monotonic()))
                if not (part := connection.recv(_FRAME_HEADER)):
                    break
                answer += part
    except OSError as error:
        within = f"nothing answers there within {PROBE_TIMEOUT_S:.0f} s ({error})"
        raise SweepError(f"RAY_ADDRESS={address}: {within}; {remedy}") from error
    if answer[3:4] != _SETTINGS:
        raise SweepError(f"RAY_ADDRESS={address}: what answers there is not Ray ({answer!r}); {remedy}")


_FRAME_HEADER, _SETTINGS = 9, b"\x04"
"""Bytes before the payload of a frame of HTTP/2, of which the fourth is its type; the type of SETTINGS."""

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00" + _SETTINGS + b"\x00" * 5
"""What a client of HTTP/2 says first: the preface and empty SETTINGS."""


def _check_room(resources: Resources, embedded: bool) -> None:
    """Refuse what Ray would wait for without end; a cluster may still grow, this machine does not.

    Raises:
        SweepError: If this machine has no room for even one trial.
    """
    there: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    for key, kind, asked in (
        ("cpus_per_trial", "CPU", resources.cpus_per_trial),
        ("gpus_per_trial", "GPU", resources.gpus_per_trial),
    ):
        if embedded:
            check_share(key, kind, asked, there.get(kind, 0))


def _num_workers(resources: Resources) -> int:
    """Return how many packs the cluster, as it is now, trains at a time."""
    there: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    shares = [(there.get("CPU", 0), resources.cpus_per_trial), (there.get("GPU", 0), resources.gpus_per_trial)]
    return max(1, int(min(available / asked for available, asked in shares if asked)))


def _short_folder() -> Path:
    folder = Path(tempfile.gettempdir())
    return folder if len(str(folder)) <= MAX_SOCKET_FOLDER else Path("/tmp")  # noqa: S108
