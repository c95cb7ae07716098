"""`make soak`: a study on an emulated cluster, killed at random for ten minutes, against the same one left alone.

A head and two nodes with one processor each, begun by `ray start`, on this machine. What is killed: the worker that
trains, a node's raylet, a whole node, all nodes at once (the driver must say that it waits), the head with its GCS (so
the cluster, which is then begun anew), the driver by SIGKILL and by SIGTERM. Of seven kills each is one, in random
order; the seed is printed. What a kill ended is begun again, as a user or a supervisor would do. A study that was
finished is compared with an undisturbed run in one process, trial by trial and table by table, and begun anew. Exit
status 1 where anything differs, where the store is not in order at the end of a sweep, or where a driver ends in any
other way than it should.
"""

from __future__ import annotations

import argparse
import functools
import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import TextIO

import psutil
import yaml

from pipeline.config import Paths, Sizes, load_params, read_yaml
from pipeline.core.training import run_trial
from pipeline.data import prepare_dataset
from pipeline.results import HOST_COLUMNS, SCHEMAS, read_table
from pipeline.results.store import TrialStore
from pipeline.sweep import executor_named, run_sweep
from pipeline.sweep.adopt import first_difference
from pipeline.sweep.upkeep import verify

ROOT = Path(__file__).parents[1]
STUDY = "soak"
CELLS = ("elman", "gru", "lstm")
RATES = (0.003, 0.01, 0.03, 0.1)
CHECKPOINT_S = 0.5
PATIENCE_S = 120.0
"""For a cluster to come up, a trial to begin, a driver to end."""

WAITING, AGAIN = "; waiting for nodes", "the cluster has room again"
"""What a driver says of a cluster without nodes, and of one that has grown again."""

HEAD_GONE_AFTER_S = 5.0
"""In place of the executor's own time, which is a third of ten minutes' kills."""


def main(arguments: list[str] | None = None) -> int:
    """Soak and return the exit status."""
    parser = argparse.ArgumentParser(description="Kill a sweep on an emulated cluster, and compare what comes out.")
    parser.add_argument("seconds", type=float, nargs="?", default=600.0, help="how long things are killed")
    parser.add_argument("--seed", type=int, default=None, help="of what is killed when; printed")
    parser.add_argument("--kinds", nargs="+", choices=list(KILLS), default=list(KILLS), metavar="kind", help="of kills")
    parser.add_argument("--pace", type=float, default=6.0, help="seconds between two kills, in the mean")
    parser.add_argument("--nodes", type=int, default=2, help="of the cluster, besides its head")
    parser.add_argument("--settings", type=int, default=len(CELLS) * len(RATES), help="of the study, at most 12")
    parser.add_argument("--steps", type=int, default=2500, help="of each setting")
    asked = parser.parse_args(arguments)
    seed = secrets.randbelow(10**6) if asked.seed is None else asked.seed
    print(f"soak: seed {seed}, {asked.seconds:.0f} s", flush=True)
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # so that the cluster is ended, too
    folder = Path(tempfile.mkdtemp(prefix="soak-", dir="/tmp"))  # noqa: S108 - short enough for Ray's sockets
    try:
        with closing(Soak(folder, random.Random(seed), asked)) as soak:  # noqa: S311 - nothing secret
            wrong = soak.run(asked.seconds, asked.kinds, asked.pace)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    kills = ", ".join(f"{number} {kind}" for kind, number in sorted(soak.kills.items()))
    print(f"soak: {soak.kills.total()} kills survived ({kills}); the study was finished {soak.num_finished} times")
    print(f"soak: {wrong}; seed {seed}" if wrong else "soak: every trial and table is that of an undisturbed run")
    return 1 if wrong else 0


class Soak:
    """A cluster, a driver, and what has been done to them.

    Attributes:
        kills: How often each kind of thing was killed.
        num_finished: How often the study was swept to its end.
        is_finished: Whether it was by the last driver.
        begun: When, on the clock of this process.
    """

    def __init__(self, folder: Path, chance: random.Random, asked: argparse.Namespace) -> None:
        self.folder, self.chance, self.num_nodes = folder, chance, asked.nodes
        self.kills, self.num_finished, self.is_finished = Counter[str](), 0, False
        self.begun = time.monotonic()
        self.environment = os.environ | {
            "TMPDIR": str(folder),
            "RAY_TMPDIR": str(folder),
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "RAY_USAGE_STATS_ENABLED": "0",
            "PYTHONPATH": str(ROOT),
        }
        self.undisturbed, self.paths = (lay_out(folder / name, asked) for name in ("undisturbed", "project"))
        with (folder / "undisturbed.txt").open("w") as shown:
            sweep(self.undisturbed, "inline", shown)
        print(f"soak: {time.monotonic() - self.begun:4.0f} s, swept undisturbed", flush=True)
        self.head: subprocess.Popen[bytes] | None = None
        self.nodes: list[subprocess.Popen[bytes]] = []
        self.driver: subprocess.Popen[bytes] | None = None

    def run(self, seconds: float, kinds: list[str], pace_s: float) -> str | None:
        """Kill for so long, at least one thing of each kind, and let the study end; return what went wrong."""
        self.begin_cluster()
        order, end_s = self.deck(kinds), time.monotonic() + seconds
        while True:
            is_over = time.monotonic() > end_s and self.kills.total() >= len(kinds)
            if self.has_ended():
                if (wrong := self.look()) is not None or (is_over and self.is_finished):
                    return wrong
                self.begin_driver()
            if is_over:
                if not wait_until(self.has_ended_or_mend, 4 * PATIENCE_S):
                    return "the last sweep does not end"
                continue
            if not wait_until(lambda: self.has_ended_or_mend() or self.workers()):
                return f"nothing trains for {PATIENCE_S:.0f} s"
            time.sleep(self.chance.uniform(0.2, 1.8) * pace_s)
            if not self.has_ended():
                kind = next(order)
                KILLS[kind](self)
                self.kills[kind] += 1
                print(f"soak: {time.monotonic() - self.begun:4.0f} s, killed: {kind}", flush=True)

    def deck(self, kinds: list[str]) -> Iterator[str]:
        """Yield kinds of kills, each once in random order, and again."""
        while True:
            yield from self.chance.sample(kinds, len(kinds))

    def look(self) -> str | None:
        """Look at how the driver ended, and return what is wrong with that; a finished study is compared."""
        if self.driver is None:
            return None
        status, said = self.driver.wait(), self.said()
        self.driver, self.is_finished = None, status == 0
        if self.is_finished:
            self.num_finished += 1
            print(f"soak: {time.monotonic() - self.begun:4.0f} s, finished", flush=True)
            return divergence(self.undisturbed, self.paths)
        lines = [line for line in said.splitlines() if WAITING not in line and AGAIN not in line]
        if status not in {-signal.SIGKILL, 128 + signal.SIGTERM, 2} or len(lines) > 1:
            return f"a driver ended with status {status} and said:\n{said}"
        return None

    def begin_driver(self) -> None:
        """Sweep the study, from the start if it was finished."""
        if self.is_finished:
            shutil.rmtree(self.paths.default_store)
            self.is_finished = False
        with (self.folder / "driver.txt").open("w") as said:
            self.driver = subprocess.Popen(  # noqa: S603
                [sys.executable, "-m", "benchmarks.soak_driver", str(self.paths.root)],
                env=self.environment | {"RAY_ADDRESS": self.address},
                cwd=ROOT,
                stdout=subprocess.DEVNULL,
                stderr=said,
            )

    def said(self) -> str:
        """Return what the driver has said so far besides its progress."""
        return (self.folder / "driver.txt").read_text(encoding="utf-8")

    def has_ended(self) -> bool:
        """Return whether no driver runs."""
        return self.driver is None or self.driver.poll() is not None

    def begin_cluster(self) -> None:
        """Start a head without processors, and two nodes with one each."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{free.getsockname()[1]}"
        port = self.address.rpartition(":")[2]
        self.head = self.start("--head", f"--port={port}", "--num-cpus=0", "--include-dashboard=false")
        wait_until(lambda: self.head is not None and named(self.head, "raylet"))
        self.nodes = [self.begin_node() for _ in range(self.num_nodes)]

    def begin_node(self) -> subprocess.Popen[bytes]:
        """Start a node with one processor, which joins the cluster in some seconds."""
        return self.start(f"--address={self.address}", "--num-cpus=1")

    def has_ended_or_mend(self) -> bool:
        """Return whether no driver runs; begin a node again whose start failed, since a port was taken for instance."""
        self.nodes = [node if node.poll() is None else self.begin_node() for node in self.nodes]
        return self.has_ended()

    def start(self, *options: str) -> subprocess.Popen[bytes]:
        """Begin a node."""
        program = Path(sys.executable).with_name("ray")
        limits = ("--object-store-memory=80000000", "--min-worker-port=0", "--max-worker-port=0", "--block")
        command = [str(program), "start", *options, *limits]
        return subprocess.Popen(  # noqa: S603
            command, env=self.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )

    def workers(self) -> list[psutil.Process]:
        """Return the processes that train."""
        return [process for node in self.nodes for process in named(node, "ray::ImplicitFunc")]

    def close(self) -> None:
        """End everything, a node too that was just being begun."""
        psutil.wait_procs(kill_below(psutil.Process()), timeout=PATIENCE_S)


def kill_worker(soak: Soak) -> None:
    """Kill the process that trains one setting or several."""
    for worker in soak.workers()[:1]:
        worker.kill()


def kill_raylet(soak: Soak) -> None:
    """Kill the raylet of a node, which ends the node; another one takes its place."""
    node = soak.nodes.pop(soak.chance.randrange(soak.num_nodes))
    for raylet in named(node, "raylet"):
        raylet.kill()
    wait_until(lambda: node.poll() is not None, 20.0)
    end(node)
    soak.nodes.append(soak.begin_node())


def kill_node(soak: Soak) -> None:
    """Kill all of a node at once; another one takes its place after a while."""
    end(soak.nodes.pop(soak.chance.randrange(soak.num_nodes)))
    time.sleep(soak.chance.uniform(0.0, 2.0))
    soak.nodes.append(soak.begin_node())


def kill_all_nodes(soak: Soak) -> None:
    """Kill all nodes: the cluster has shrunk to nothing, the driver says so and waits; others take their place.

    Raises:
        SystemExit: If it says nothing.
    """
    for node in soak.nodes:
        end(node)
    soak.nodes, num_said = [], soak.said().count(WAITING)
    if not wait_until(lambda: soak.has_ended() or soak.said().count(WAITING) > num_said):
        raise SystemExit(f"soak: the driver does not say that it waits for nodes:\n{soak.said()}")
    soak.nodes = [soak.begin_node() for _ in range(soak.num_nodes)]


def kill_head(soak: Soak) -> None:
    """Kill the head with the GCS: the cluster is gone, the driver says so and ends; another cluster is begun."""
    for process in (soak.head, *soak.nodes):
        if process is not None:
            end(process)
    wait_until(soak.has_ended)
    soak.begin_cluster()


def kill_driver(soak: Soak, number: signal.Signals = signal.SIGKILL) -> None:
    """Kill or end the driver; it is run again."""
    if soak.driver is not None:
        soak.driver.send_signal(number)
        wait_until(soak.has_ended)


KILLS: dict[str, Callable[[Soak], None]] = {
    "worker": kill_worker,
    "raylet": kill_raylet,
    "node": kill_node,
    "all-nodes": kill_all_nodes,
    "head": kill_head,
    "driver": kill_driver,
    "driver-sigterm": functools.partial(kill_driver, number=signal.SIGTERM),
}


def lay_out(folder: Path, asked: argparse.Namespace) -> Paths:
    """Write a workspace with the study, and its data."""
    paths = Paths.at(folder)
    shutil.copytree(ROOT / "configs", folder / "configs")
    rates = RATES[: -(-asked.settings // len(CELLS))]
    study = {
        "question": "Is anything lost?",
        "set": {"dataset.length": 20, "model.hidden_size": 8, "training.max_steps": asked.steps},
        "grids": {"adding": {"axes": {"model.cell": [*CELLS], "optimiser.learning_rate": [*rates]}}},
    }
    params = read_yaml(ROOT / "params.yaml") | {
        "scale": "smoke",
        "seeds": {"start": 0, "count": 2},
        "datasets": ["adding"],
        "studies": [STUDY],
        "trial_store": None,
        "resources": {"cpus_per_trial": 1, "gpus_per_trial": 0, "settings_per_program": 3},
        "tracking": {"mode": "disabled", "project": STUDY, "entity": None},
    }
    for path, content in ((paths.study_config(STUDY), study), (paths.params, params)):
        path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    prepare_dataset("adding", paths.dataset_config("adding"), [20], Sizes(64, 32, 32), paths.dataset("adding"))
    return paths


def sweep(paths: Paths, executor: str, stream: TextIO | None = None) -> None:
    """Sweep the study with checkpoints in quick succession."""
    params = load_params(paths)
    train = functools.partial(run_trial, checkpoint_interval_s=CHECKPOINT_S)
    run_sweep(paths, params, STUDY, executor_named(executor, params), train=train, stream=stream)


def divergence(undisturbed: Paths, paths: Paths) -> str | None:
    """Return the first item in which two sweeps differ, or what is wrong with the second one's store."""
    stores = [TrialStore(each.default_store) for each in (undisturbed, paths)]
    if (difference := stores[0].ids() ^ stores[1].ids()) != set():
        return f"trial {min(difference)} is in one store only"
    for identity in sorted(stores[0].ids()):
        older, newer = (store.get(identity, quarantines=False) for store in stores)
        if older is None or newer is None:
            return f"trial {identity} cannot be read"
        if (found := first_difference(older, newer)) is not None:
            return f"trial {identity}: {found}"
    for table in SCHEMAS:
        frames = [
            read_table(table, each.results(STUDY)).drop(HOST_COLUMNS, strict=False) for each in (undisturbed, paths)
        ]
        if not frames[0].equals(frames[1]):
            return f"table {table} differs, its trials do not"
    left = [name for name in stores[1].objects.names() if name.endswith((".checkpoint", ".damaged"))]
    lines: list[str] = []
    if left or verify(stores[1], lines.append):
        return "; ".join(["the store is not in order", *left, *lines])
    return None


def named(process: subprocess.Popen[bytes], name: str) -> list[psutil.Process]:
    """Return the processes below one whose command begins with a file of this name, or has it as title."""
    found = []
    with suppress(psutil.Error):
        for child in psutil.Process(process.pid).children(recursive=True):
            with suppress(psutil.Error):
                if (command := child.cmdline()) and command[0].rpartition("/")[2].startswith(name):
                    found.append(child)
    return found


def kill_below(process: psutil.Process) -> list[psutil.Process]:
    """Kill all processes below one, and return them."""
    below: list[psutil.Process] = process.children(recursive=True)
    for each in below:
        with suppress(psutil.Error):
            each.kill()
    return below


def end(process: subprocess.Popen[bytes]) -> None:
    """Kill a process and all below it."""
    with suppress(psutil.Error):
        kill_below(psutil.Process(process.pid))
    process.kill()
    process.wait()


def wait_until(condition: Callable[[], object], limit_s: float = PATIENCE_S) -> bool:
    """Return whether something was so within a time."""
    end_s = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > end_s:
            return False
        time.sleep(0.1)
    return True


if __name__ == "__main__":
    sys.exit(main())
