"""The executor on Ray Tune: embedded in this process, or on the cluster that RAY_ADDRESS names.

The only module that imports ray. Ray decides where a setting runs and starts it again when its worker is lost; what
is finished is decided by the trial store alone, since `Tuner.fit` returns normally after SIGUSR1 as well.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import logging
import os
import re
import secrets
import shutil
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import psutil
import ray
from ray import tune
from ray._private import ray_constants
from ray._private import worker as ray_worker
from ray._raylet import GcsClient  # type: ignore[attr-defined]
from ray.exceptions import RayError
from ray.tune.error import TuneError

from pipeline import stopping
from pipeline.config import Resources
from pipeline.core.identity import TREE
from pipeline.core.training.spec import DatasetRef
from pipeline.errors import SweepError
from pipeline.results.store import TrialStore
from pipeline.sweep.estimate import Pack, available_memory_bytes, packs_of
from pipeline.sweep.executors import LoadData, Watch, check_share
from pipeline.sweep.gpu_share import Share, measured_share
from pipeline.sweep.plan import Setting
from pipeline.sweep.trial import Job, Outcome, outcome_of, train_packed
from pipeline.sweep.workers import Silence, meanwhile

MAX_FAILURES = 3
"""So often a setting starts again after its worker was lost; it goes on from its checkpoint in the trial store."""

PORT_TIMEOUT_S = 3.0
"""For a cluster's port to take a connection."""

PROBE_TIMEOUT_S = 8.0
"""For Ray to answer there; `ray.init` itself would wait more than 100 s."""

LOOK_S = 1.0
"""Between two looks at whether Ray still runs."""

HEAD_GONE_AFTER_S = 40.0
"""Without a cluster's head for so long a sweep ends; a head that starts anew has been waited for by then."""

AGAIN = "run again, finished trials are kept"

MAX_SOCKET_FOLDER = 30
"""Characters of the temporary folder: Ray's socket paths below it must stay under 107 bytes."""

KILL_TIMEOUT_S = 3.0
"""For a killed process to be gone."""

_QUIET = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Tune would finish what runs; here the last checkpoints are enough
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
}


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
            SweepError: If the cluster cannot be reached or has no room for even one trial, or if Ray itself fails.
        """
        with connected(self.address) as (embedded, folder), _errors_in_a_line():
            resources = self.resources
            auto = resources.gpus_per_trial == "auto"
            resources = replace(resources, gpus_per_trial=1) if auto else resources  # a whole one, to measure on
            has_room = _check_room(resources, embedded)
            wanted = {setting.spec.dataset for setting in settings}
            refs = {dataset: ray.put(load(dataset)) for dataset in sorted(wanted, key=str)}
            if auto:
                resources = _shared(resources, settings, job, refs)
            memory = available_memory_bytes() if embedded and not resources.uses_gpus else None
            packs = packs_of(settings, resources.settings_per_program, _num_workers(resources), memory)
            by_id = {pack[0].trial_id: pack for pack in packs}
            _leave_wandb_out()
            logging.getLogger("ray.tune.execution").setLevel(logging.CRITICAL)  # of lost workers our own line says
            work = tune.with_parameters(_work, job=job, by_id=by_id, refs=refs)
            watching = _Watching(watch, by_id, job, resources, is_cluster=not embedded, has_room=has_room)
            tuner = tune.Tuner(
                tune.with_resources(work, {"cpu": resources.cpus_per_trial, "gpu": resources.gpus_per_trial}),
                param_space={"trial_id": tune.grid_search(list(by_id))},
                tune_config=tune.TuneConfig(reuse_actors=True),
                run_config=tune.RunConfig(
                    name="sweep",
                    storage_path=str(folder / "tune"),
                    failure_config=tune.FailureConfig(max_failures=MAX_FAILURES),
                    callbacks=[watching],
                    verbose=0,
                ),
            )
            with watching.for_silence():
                tuner.fit()


def _shared(resources: Resources, settings: Sequence[Setting], job: Job, refs: dict[DatasetRef, Any]) -> Resources:
    """Return the resources with the share of a GPU that pays, measured on one of them with the largest pack."""
    packs = packs_of(settings, resources.settings_per_program, _num_workers(resources), None)
    pack = max(packs, key=lambda pack: sum(setting.memory_bytes for setting in pack))
    probe = ray.remote(num_cpus=resources.cpus_per_trial, num_gpus=1, max_retries=0)(measured_share)
    specs = [setting.spec for setting in pack]
    share: Share = ray.get(probe.remote(specs, refs[pack[0].spec.dataset], job.device, job.num_threads))
    print(f"sweep: resources.gpus_per_trial: auto: {share}", file=sys.stderr, flush=True)
    return replace(resources, gpus_per_trial=1 / share.num_programs)


def _work(config: dict[str, Any], job: Job, by_id: dict[str, Pack], refs: dict[DatasetRef, Any]) -> None:
    """Train a pack of settings in a worker; only a few words travel back, the tables go to the store."""
    pack, outcomes = by_id[config["trial_id"]], list[dict[str, Any]]()
    train_packed(job, pack, ray.get(refs[pack[0].spec.dataset]), lambda _, outcome: outcomes.append(asdict(outcome)))
    tune.report({"outcomes": outcomes})


class _Watching(tune.Callback):
    """Passes on what Tune says, kills workers that hang, and says when a cluster has become too small for any trial.

    A pack goes by the trial id of its first setting, since Tune's order is not ours.
    """

    def __init__(
        self,
        watch: Watch,
        by_id: dict[str, Pack],
        job: Job,
        resources: Resources,
        *,
        is_cluster: bool = False,
        has_room: bool = True,
    ) -> None:
        self.watch, self.by_id, self.job, self.resources = watch, by_id, job, resources
        self.started_at: dict[str, float] = {}
        self.hung: dict[str, str] = {}
        limit_s = resources.max_silence_s
        self.silence = None if limit_s is None else Silence(TrialStore(job.store_url), limit_s)
        self.is_cluster, self.has_room, self.looked_s = is_cluster, has_room, float("-inf")

    def __getstate__(self) -> dict[str, Any]:
        """Leave the watcher out of the files from which Tune could resume: a sweep resumes from the trial store."""
        return {}

    def for_silence(self) -> contextlib.AbstractContextManager[None]:
        """Look for workers that hang while the body runs."""
        if self.silence is None:
            return contextlib.nullcontext()
        return meanwhile(self.silence.look, self.silence.every_s, self.silence.every_s)

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Kill the workers that were found to hang, which Tune then takes for lost; say whether there is any room."""
        found = self.silence.found() if self.silence is not None else {}
        for trial in trials if found else ():
            identity, worker = trial.config["trial_id"], trial.temporary_state.ray_actor
            if worker is not None and identity in found and identity not in self.hung:
                self.hung[identity] = found[identity]
                ray.kill(worker)
        if self.is_cluster and not self.started_at and time.monotonic() - self.looked_s >= LOOK_S:
            self.looked_s, lacking = time.monotonic(), _lacking(self.resources)
            if self.has_room != (lacking is None):
                line = f"{lacking}; waiting for nodes" if lacking else "the cluster has room again"
                print(f"sweep: {line}", file=sys.stderr, flush=True)
            self.has_room = lacking is None

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Pass on that settings train, or train again after their worker was lost."""
        identity = trial.config["trial_id"]
        self.started_at[identity] = time.perf_counter()
        if self.silence is not None:
            self.silence.begun(identity)
        for setting in self.by_id[identity]:
            self.watch.started(setting)

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Pass on that a worker was lost, and with it settings that start again when there is room."""
        identity = trial.config["trial_id"]
        if identity not in self.started_at and self.is_cluster and _lacking(self.resources) is not None:
            trial.run_metadata.num_failures -= 1  # its node went before anything ran
            return
        why = self._ended(identity, is_lost=True)
        for setting in self.by_id[identity]:
            self.watch.lost(setting, why)

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Pass on how settings ended: the one report of their pack."""
        self._ended(trial.config["trial_id"])
        outcomes = {outcome["trial_id"]: Outcome(**outcome) for outcome in result["outcomes"]}
        for setting in self.by_id[trial.config["trial_id"]]:
            self.watch.finished(setting, outcomes[setting.trial_id])

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Pass on that settings were given up: their worker was lost too often, out of memory for instance.

        Those of a pack that had ended by then are in the store.
        """
        identity, now = trial.config["trial_id"], time.perf_counter()
        wall_time_s = now - self.started_at.get(identity, now)
        reason = str(trial.get_error() or "no reason given").strip()
        if why := self._ended(identity, is_lost=True):
            reason = f"{why}: killed\n{reason}"
        message = f"given up after {MAX_FAILURES + 1} attempts: {reason.splitlines()[0]}"
        store = TrialStore(self.job.store_url)
        for setting in self.by_id[identity]:
            outcome = Outcome(
                trial_id=setting.trial_id,
                status="error",
                message=message,
                traceback=reason,
                wall_time_s=wall_time_s,
            )
            stored = store.get(setting.trial_id) if len(self.by_id[identity]) > 1 else None
            ended = stored is not None and stored.summary.is_final(self.job.max_wall_time_s, setting.stop_at)
            self.watch.finished(setting, outcome_of(stored) if stored is not None and ended else outcome)

    def _ended(self, identity: str, *, is_lost: bool = False) -> str:
        """Note that a pack does not run any more, and return how it hung if its worker was killed for that."""
        self.started_at.pop(identity, None)
        if self.silence is not None:
            (self.silence.lost if is_lost else self.silence.ended)(identity)
        return self.hung.pop(identity, "")


@contextlib.contextmanager
def connected(address: str | None) -> Iterator[tuple[bool, Path]]:
    """Connect to Ray for the body, or use the connection that there is.

    Yields:
        Whether Ray runs on this machine only, and a temporary folder; in its end neither is left.

    Raises:
        SweepError: If nothing answers at `address`.
    """
    os.environ.update({name: value for name, value in _QUIET.items() if name not in os.environ})
    own = {"PYTHONPATH": os.pathsep.join(filter(None, (str(TREE), os.environ.get("PYTHONPATH"))))}
    options = {**_SILENT, "runtime_env": {"env_vars": own}}  # workers import the code of the driver, where they see it
    ray_worker.print_to_stdstream = _print_nothing  # events of lost workers and nodes: the sweep has a line for each
    embedded, is_ours = address is None, not ray.is_initialized()
    folder = Path(tempfile.mkdtemp(prefix="ray-", dir=_short_folder()))
    with stopping.finally_once_more(functools.partial(_leave, folder, is_ours)):
        if is_ours and embedded:
            _need_no_home()
            with _own_machine_alone(), _errors_in_a_line():
                ray.init(address="local", include_dashboard=False, _temp_dir=str(folder), **options)
        elif is_ours:
            _join(str(address), options)
        with _watched(folder, address) if is_ours else contextlib.nullcontext():
            yield embedded, folder


def _print_nothing(*_: object, **__: object) -> None:
    pass


@contextlib.contextmanager
def _errors_in_a_line() -> Iterator[None]:
    try:
        yield
    except (RayError, TuneError, OSError, RuntimeError, TimeoutError) as error:
        lines = str(error).strip().splitlines() or ["no reason given"]
        raise SweepError(f"Ray failed: {type(error).__name__}: {lines[0]}; {AGAIN}") from error


@contextlib.contextmanager
def _watched(folder: Path, address: str | None) -> Iterator[None]:
    """Interrupt the body when Ray itself is gone: its libraries would wait for long, and then end this process.

    Raises:
        SweepError: If it was.
        KeyboardInterrupt: If something else interrupted the body.
    """
    agents = [process for process in psutil.Process().children() if _is_below(folder, process)]
    if address is not None:  # one of the cluster's runs on this machine
        raylet = f"--raylet_socket_name={getattr(ray_worker.global_worker.node, 'raylet_socket_name', folder)}"
        agents = [process for process in psutil.process_iter() if raylet in _command(process)]
    head = ray.get_runtime_context().gcs_address if address is not None else ""
    seen = time.monotonic()

    def look() -> str | None:
        nonlocal seen
        gone = next((agent for agent in agents if not _runs(agent)), None)
        if gone is not None:
            return f"Ray's {gone_names[gone.pid]} on this machine has ended; {AGAIN}"
        if head and _answers(head):
            seen = time.monotonic()
        elif head and time.monotonic() - seen > HEAD_GONE_AFTER_S:
            return f"RAY_ADDRESS={address}: no answer from {head} for {HEAD_GONE_AFTER_S:.0f} s; {AGAIN}"
        return None

    gone_names = {agent.pid: agent.name() for agent in agents}
    with meanwhile(look, LOOK_S, LOOK_S):
        yield


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _leave(folder: Path, is_ours: bool) -> None:
    """Disconnect from Ray, end what runs of it in `folder`, and remove that.

    A process that was asked to end does not wait: a cluster notices that its driver is gone.
    """
    if is_ours and not stopping.is_asked():
        ray.shutdown()
    started = [process for process in psutil.process_iter() if _is_below(folder, process)]
    processes = started + [child for process in started for child in process.children(recursive=True)]
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(processes, timeout=KILL_TIMEOUT_S)
    shutil.rmtree(folder, ignore_errors=True)


def _leave_wandb_out() -> None:
    """Import Tune's logger for W&B, which is not used, as where W&B is not installed.

    Tune imports it to count who uses it, and W&B then makes temporary folders, which a stopped driver would leave.
    """
    if "wandb" not in sys.modules:
        sys.modules["wandb"] = None  # type: ignore[assignment]
        try:
            importlib.import_module("ray.air.integrations.wandb")
        finally:
            del sys.modules["wandb"]


def _command(process: psutil.Process) -> list[str]:
    try:
        command: list[str] = process.cmdline()
    except psutil.Error:
        return []
    return command


def _is_below(folder: Path, process: psutil.Process) -> bool:
    """Return whether a process is one of Ray's for this folder: its command names it, or as a worker it runs there."""
    try:
        return any(str(folder) in part for part in (*process.cmdline(), process.cwd()))
    except psutil.Error:
        return False


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
    """Wait, for a bounded time, until Ray answers at `host:port`; `ray.init` would wait for minutes.

    Raises:
        SweepError: If the address is none, or Ray does not answer there.
    """
    if not _ADDRESS.fullmatch(address) or not 0 < int(address.rpartition(":")[2]) < 2**16:
        raise SweepError(f"RAY_ADDRESS={address}: expected host:port, such as 10.0.0.1:6379 or [::1]:6379, or auto")
    remedy = "start the cluster, or unset RAY_ADDRESS to run on this machine"
    if not _answers(address):
        raise SweepError(f"RAY_ADDRESS={address}: nothing answers there within {PORT_TIMEOUT_S:.0f} s; {remedy}")
    asking = threading.Thread(target=_ask, args=(address,), daemon=True)
    asking.start()
    asking.join(PROBE_TIMEOUT_S)
    if asking.is_alive():
        raise SweepError(f"RAY_ADDRESS={address}: what listens there does not answer as Ray does; {remedy}")


_ADDRESS = re.compile(r"([^:\[\]]+|\[[0-9A-Fa-f:.]+(%\w+)?\]):\d{1,5}")


def _answers(address: str) -> bool:
    """Return whether a port takes connections."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), PORT_TIMEOUT_S).close()
    except OSError:
        return False
    return True


def _ask(address: str) -> None:
    """Return when Ray has answered, be it that it refuses."""
    with contextlib.suppress(Exception):
        GcsClient(address=address)


def _need_no_home() -> None:
    """Give Ray a token of its own, which it would keep in a home folder that cannot be written: in a container."""
    if {"RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & set(os.environ):
        return
    folder = Path.home() / ".ray"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError:
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)


def _check_room(resources: Resources, embedded: bool) -> bool:
    """Refuse what Ray would wait for without end; a cluster that may grow is waited for, with a line that says so.

    Returns:
        Whether there is room for a trial now.

    Raises:
        SweepError: If this machine, or every node of a cluster that does not grow, lacks what one trial asks for.
    """
    if embedded:
        there: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
        for kind, amount in _asked(resources).items():
            check_share(f"{kind.lower()}s_per_trial", kind, amount, there.get(kind, 0))
        return True
    lacking = _lacking(resources)
    if lacking is not None:
        if not _may_grow():
            raise SweepError(f"{lacking}; nothing adds nodes by itself: add one, or ask for less")
        print(f"sweep: {lacking}; waiting for the cluster to grow", file=sys.stderr, flush=True)
    return lacking is None


def _lacking(resources: Resources) -> str | None:
    """Return what no node of the cluster has of what one trial asks for, and what they have; None where one has it."""
    asked = _asked(resources)
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    if any(all(node.get(kind, 0) >= amount for kind, amount in asked.items()) for node in nodes):
        return None
    short = [kind for kind, amount in asked.items() if all(node.get(kind, 0) < amount for node in nodes)]
    has = "; ".join(_amounts({kind: node.get(kind, 0) for kind in asked}) for node in nodes) or "no node"
    key = f"resources.{(short or ['GPU'])[0].lower()}s_per_trial"
    return f"params.yaml: {key}: no node of the cluster has the {_amounts(asked)} of one trial; it has {has}"


def _asked(resources: Resources) -> dict[str, float]:
    return {"CPU": resources.cpus_per_trial, "GPU": resources.gpus_per_trial}


def _amounts(resources: dict[str, float]) -> str:
    return ", ".join(f"{amount:g} {kind}" for kind, amount in resources.items())


def _may_grow() -> bool:
    """Return whether a cluster may have an autoscaler: `ray up` leaves its configuration, KubeRay a name."""
    return Path("~/ray_bootstrap_config.yaml").expanduser().exists() or "RAY_CLUSTER_NAME" in os.environ


def _num_workers(resources: Resources) -> int:
    """Return how many packs the cluster, as it is now, trains at a time."""
    there: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    shares = [(there.get("CPU", 0), resources.cpus_per_trial), (there.get("GPU", 0), resources.gpus_per_trial)]
    return max(1, int(min(available / asked for available, asked in shares if asked)))


def _short_folder() -> Path:
    folder = Path(tempfile.gettempdir())
    return folder if len(str(folder)) <= MAX_SOCKET_FOLDER else Path("/tmp")  # noqa: S108
