"""How far a study is, told through the trial store: by whoever trains, to any machine that sees the store.

    .status/<study>.plan.json    by the driver, for each round of it: what is planned
    .status/<study>.json         by the driver, when it changes: what failed
    .status/<worker>.worker      by each worker, as long as it trains: see `pipeline.sweep.workers`

What is done is in the store itself, and how far a running trial is in its checkpoint. Ages are told by the clock of
the store alone: the clocks of two machines are never compared.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NoReturn, TextIO

import polars as pl
from rich.console import Console
from rich.live import Live
from rich.text import Text

from pipeline.errors import StoreError, SweepError, unknown_name
from pipeline.results.objects import now_ns as now_ns_of
from pipeline.results.running import read_running
from pipeline.results.store import TrialStore
from pipeline.sweep import workers
from pipeline.sweep.lease import driver_of
from pipeline.sweep.plan import Plan
from pipeline.sweep.progress import Tally, duration_text, title
from pipeline.sweep.workers import FOLDER, forget_dead, living, meanwhile, trained_by, word_of

WINDOW_S = 600.0
"""The rate is of so long, up to now."""

SILENCE_SHOWN_S = 60.0
"""A running trial that has written no row for so long is shown as silent."""

SHOWN = 20
"""Running trials that are listed one by one."""


@dataclass(frozen=True)
class Running:
    """A trial that trains now.

    Attributes:
        trial_id: Its id.
        title: Its setting, for people.
        host: The machine.
        pid: The process there.
        since: When the worker took it up, by the clock of its machine.
        step: Updates made, as of its last checkpoint; None before that, and where it is one of many.
        max_steps: Of how many, up to the next rung where it is to be judged.
        validation_loss: The last one, the median over seeds; None where none is known.
        silent_s: Since its worker has written a row, of this trial or another of the same program.
    """

    trial_id: str
    title: str
    host: str
    pid: int
    since: str
    step: int | None
    max_steps: int
    validation_loss: float | None
    silent_s: float


@dataclass(frozen=True)
class StudyStatus:
    """How far a study is.

    Attributes:
        study: Its name.
        num_planned: Trials of the study.
        statuses: How many ended in which way; `error` are those that failed, and have no results.
        failed: Their messages, by setting.
        running: Those that train now.
        num_halted: Trials with a checkpoint that nobody trains: they go on from there.
        driver: Who sweeps the study now; None where nobody does.
        trials_per_minute: Ended in the last minutes; None where nothing is known.
        left_s: About how long the rest takes; None where nothing is known.
    """

    study: str
    num_planned: int
    statuses: Mapping[str, int]
    failed: Mapping[str, str]
    running: Sequence[Running]
    num_halted: int
    driver: str | None
    trials_per_minute: float | None
    left_s: float | None

    @property
    def num_done(self) -> int:
        """Trials that need nothing more: all that ended but those that failed."""
        return sum(number for status, number in self.statuses.items() if status != "error")

    def to_json(self) -> str:
        """Return all of it as one line of JSON."""
        return json.dumps(asdict(self) | {"num_done": self.num_done})


@contextlib.contextmanager
def told(store: TrialStore, plans: Sequence[Plan], tally: Tally) -> Iterator[None]:
    """Tell the store how a sweep goes while the body runs; a store that is away makes no difference to the sweep.

    Args:
        store: Of the sweep.
        plans: What is swept.
        tally: What has become of it.
    """
    objects, said = store.objects.below(FOLDER), dict[str, bytes]()

    def tell() -> None:
        for plan in plans:
            failed = {
                setting.trial_id: tally.outcomes[setting.trial_id].message
                for setting in plan.trials
                if setting.trial_id in tally.outcomes and tally.outcomes[setting.trial_id].status == "error"
            }
            content = json.dumps({"failed": failed}).encode()
            if said.get(plan.study) != content:
                objects.write(f"{plan.study}.json", content)
                said[plan.study] = content

    def keep_telling() -> None:
        tell()
        for identity in list(tally.running)[:SHOWN] if tally.wants_reached else ():
            if (reached := _reached(store, identity)) is not None:
                tally.reached[identity] = reached

    forget_dead(store, now_ns_of(objects))
    for plan in plans:
        objects.write(f"{plan.study}.plan.json", _plan_bytes(plan))
    tell()
    try:
        with meanwhile(keep_telling, workers.BEAT_S, workers.BEAT_S):
            yield
    finally:
        with contextlib.suppress(StoreError):
            tell()


def studies_in(store: TrialStore) -> list[str]:
    """Return the studies that a store has been told of.

    Raises:
        StoreError: If the store cannot be read.
    """
    names = store.objects.below(FOLDER).names()
    return [name.removesuffix(".plan.json") for name in names if name.endswith(".plan.json")]


def refuse_study(store: TrialStore, study: str) -> NoReturn:
    """Say that a store has not been told of a study, and what is the nearest one of which it has.

    Raises:
        SweepError: Always.
        StoreError: If the store cannot be read.
    """
    known = studies_in(store)
    what = unknown_name("study", study, known) if known else f"no study was swept into it, so not {study!r}"
    raise SweepError(f"{store.objects.where}: {what}")


def planned_ids(store: TrialStore, study: str) -> frozenset[str]:
    """Return the trials of a study, as its last driver planned them; none where the store has not been told of it.

    Raises:
        StoreError: If the store cannot be read.
    """
    plan = word_of(store.objects.below(FOLDER).read(f"{study}.plan.json"))
    return frozenset(plan.get("trials", ()))


def read_status(store: TrialStore, study: str) -> StudyStatus:
    """Return how far a study is.

    Args:
        store: That it is swept into.
        study: Its name.

    Raises:
        SweepError: If nobody has swept that study into this store.
        StoreError: If the store cannot be read.
    """
    objects = store.objects.below(FOLDER)
    plan, told = word_of(objects.read(f"{study}.plan.json")), word_of(objects.read(f"{study}.json"))
    if not plan:
        refuse_study(store, study)
    now_ns = now_ns_of(objects)
    listing, trials = store.objects.listing(), plan["trials"]
    summaries = {identity: found for identity, found in store.catalogue.read(listing)[0].items() if identity in trials}
    limit_s = plan["max_wall_time_s"]
    done = {i for i, found in summaries.items() if found.is_final(limit_s, trials[i]["stop_at"])}
    failed = {i: message for i, message in told.get("failed", {}).items() if i in trials.keys() - done}
    statuses = Counter(summaries[identity].status for identity in done)
    if failed:
        statuses["error"] = len(failed)
    open_ids = trials.keys() - done - failed.keys()
    running = [
        _running(store, trials[identity], identity, worker, is_read=place < SHOWN)
        for place, (identity, worker) in enumerate(trained_by(living(store, now_ns), open_ids).items())
    ]
    halted = {name.removesuffix(".checkpoint") for name in listing if name.endswith(".checkpoint")}
    begun_ns = objects.listing()[f"{study}.plan.json"].modified_ns
    window_s = min(WINDOW_S, (now_ns - begun_ns) / 1e9)
    recent = [i for i in done if now_ns - listing[f"{i}.zip"].modified_ns <= window_s * 1e9]
    recent_s = sum(trials[identity]["duration_s"] for identity in recent)
    open_s = sum(trials[identity]["duration_s"] for identity in open_ids)
    return StudyStatus(
        study=study,
        num_planned=len(trials),
        statuses=dict(statuses),
        failed={_name(trials, identity): message for identity, message in failed.items()},
        running=running,
        num_halted=len(halted & open_ids - {found.trial_id for found in running}),
        driver=driver_of(store.objects, study, now_ns),
        trials_per_minute=60 * len(recent) / window_s if recent and window_s > 0 else None,
        left_s=window_s * open_s / recent_s if recent_s else None,
    )


def _name(trials: Mapping[str, Any], identity: str) -> str:
    """Return a setting's title, with its trial's id where others have the same one."""
    title = str(trials[identity]["title"])
    return title if [each["title"] for each in trials.values()].count(title) == 1 else f"{title} ({identity})"


def describe(status: StudyStatus) -> str:
    """Return the status for people: a line of counts, who drives, and a line for each running and failed trial."""
    running, num_failed = len(status.running), status.statuses.get("error", 0)
    others = sorted(status.statuses.items() - {("ok", status.statuses.get("ok")), ("error", num_failed)})
    how = f" ({', '.join(f'{number} {name}' for name, number in others)})" if others else ""
    open_ = status.num_planned - status.num_done - num_failed
    halted = [f"{status.num_halted} begun and halted"] if status.num_halted else []
    counts = [f"{status.num_done} of {status.num_planned} done{how}", f"{running} running", *halted]
    counts += [f"{open_ - running - status.num_halted} to go", f"{num_failed} failed"]
    if open_ and status.driver is not None and status.trials_per_minute is not None:
        rate = status.trials_per_minute
        counts.append(f"{rate:.0f} a minute" if rate >= 10 else f"{rate:.1f} a minute")
        counts += [f"about {duration_text(status.left_s)} left"] if status.left_s else []
    if open_ or status.driver is not None:
        counts.append(f"driver {status.driver}" if status.driver else "nobody sweeps it now")
    lines = [f"{status.study}: {', '.join(counts)}"]
    for found in status.running[:SHOWN]:
        step = "" if found.step is None else f", step {found.step} of {found.max_steps}"
        loss = "" if found.validation_loss is None else f", validation loss {found.validation_loss:.4g}"
        where = f"{found.host} (pid {found.pid}) since {found.since}"
        silent = f", no progress for {duration_text(found.silent_s)}" if found.silent_s >= SILENCE_SHOWN_S else ""
        lines.append(f"  running  {found.trial_id}  {found.title}{step}{loss}  on {where}{silent}")
    if running > SHOWN:
        lines.append(f"  running  and {running - SHOWN} more")
    lines += [f"  failed   {name}: {message}" for name, message in list(status.failed.items())[:SHOWN]]
    if len(status.failed) > SHOWN:
        lines.append(f"  failed   and {len(status.failed) - SHOWN} more")
    return "\n".join(lines)


def show(
    store: TrialStore, studies: Sequence[str], *, watches: bool, as_json: bool, stream: TextIO | None = None
) -> None:
    """Write how far studies are; again and again if asked to, in place on a terminal, until nobody sweeps them.

    Args:
        store: That they are swept into.
        studies: Their names; none are all that the store has been told of.
        watches: Whether to go on.
        as_json: Whether to write a line of JSON for each study, else what `describe` says.
        stream: Where to; None is standard output.

    Raises:
        SweepError: If a study is unknown there.
        StoreError: If the store cannot be read.
    """
    console = Console(file=stream or sys.stdout, highlight=False, soft_wrap=True)
    if not (chosen := list(studies) or studies_in(store)):
        console.print(f"{store.objects.where}: nothing has been swept into this trial store")
        return
    in_place = watches and console.is_terminal and not as_json
    with Live(console=console, auto_refresh=False) if in_place else contextlib.nullcontext() as live:
        while True:
            found = [read_status(store, study) for study in chosen]
            text = "\n".join(status.to_json() if as_json else describe(status) for status in found)
            if live is None:
                print(text, file=console.file, flush=True)
            else:
                live.update(Text(text), refresh=True)
            if not watches or all(status.driver is None for status in found):
                return
            time.sleep(workers.BEAT_S)


def _plan_bytes(plan: Plan) -> bytes:
    trials = {
        setting.trial_id: {
            "title": title(setting),
            "duration_s": setting.duration_s,
            "max_steps": setting.stop_at or setting.spec.training.max_steps,
            "stop_at": setting.stop_at,
        }
        for setting in plan.trials
    }
    return json.dumps({"max_wall_time_s": plan.max_wall_time_s, "trials": trials}).encode()


def _running(
    store: TrialStore, setting: Mapping[str, Any], identity: str, worker: Mapping[str, Any], *, is_read: bool
) -> Running:
    step, loss = (_reached(store, identity) if is_read else None) or (None, None)
    return Running(
        trial_id=identity,
        title=setting["title"],
        host=worker["host"],
        pid=worker["pid"],
        since=worker["since"],
        step=step,
        max_steps=setting["max_steps"],
        validation_loss=loss,
        silent_s=worker.get("silent_s", 0.0),
    )


def _reached(store: TrialStore, identity: str) -> tuple[int, float | None] | None:
    """Return the step of a trial's checkpoint and its last validation loss, the median over seeds."""
    trial = read_running(store, identity)
    if trial is None:
        return None
    curves = trial.tables["curves"].filter(pl.col("metric") == "loss", pl.col("split") == "validation")
    loss: Any = curves.filter(pl.col("step") == pl.col("step").max())["value"].median()
    return trial.step, loss
