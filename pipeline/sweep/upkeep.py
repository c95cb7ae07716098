"""Looking after a trial store: what lies there, whether it is sound, what may go, and trials on their way elsewhere."""

from __future__ import annotations

import json
import zipfile
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.config import build, whole_file
from pipeline.config.own_code import own_source, version_of
from pipeline.core.identity import code_digest
from pipeline.core.models import CustomModel
from pipeline.core.models.custom import label_of
from pipeline.core.training.spec import TrialSpec, identity_of
from pipeline.errors import PipelineError, StoreError, SweepError
from pipeline.results import RESUMABLE
from pipeline.results.catalogue import Summary
from pipeline.results.objects import Entry, now_ns
from pipeline.results.running import read_running
from pipeline.results.store import EPOCH, StoredTrial, TrialStore, weights_name
from pipeline.sweep.lease import driver_of
from pipeline.sweep.progress import duration_text
from pipeline.sweep.status import planned_ids, refuse_study, studies_in

DAY_NS = 86_400 * 10**9

LARGEST_TRIAL = 2**30
"""Bytes of one trial of an import; more is no trial."""


@dataclass(frozen=True)
class Doomed:
    """An object that may be removed, and why."""

    name: str
    size: int
    why: str


def list_trials(store: TrialStore, studies: Sequence[str] = ()) -> str:
    """Return a line for each finished trial of a store, by study where studies are named, and a line of totals.

    Raises:
        SweepError: If the store has not been told of a study.
        StoreError: If it cannot be read.
    """
    wanted, listing = _ids_of(store, studies), store.objects.listing()
    found = {i: trial for i, trial in sorted(store.catalogue.read(listing)[0].items()) if wanted is None or i in wanted}
    sizes = {identity: listing[f"{identity}.zip"].size for identity in found}
    rows = [_row(trial, sizes[identity]) for identity, trial in found.items()]
    header = ("trial", "status", "cell", "dataset", "steps", "seeds", "time", "code", "size")
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in (header, *rows)]
    statuses = ", ".join(f"{number} {name}" for name, number in sorted(Counter(row[1] for row in rows).items()))
    size = _size_text(sum(sizes.values()))
    return "\n".join([*lines, f"{len(rows)} trials{f' ({statuses})' if rows else ''}, {size}"])


def verify(store: TrialStore, say: Callable[[str], None]) -> int:
    """Read everything in a store, say what is wrong, and return how many objects are damaged; nothing is changed.

    A trial is sound if its archive and its tables are whole, and its id is that of what it says it is. Checkpoints and
    weights must be readable. Trials of other code than today's are counted: they are sound, and no plan asks for them.

    Args:
        store: What to read.
        say: Told a line for whatever is damaged, and one of totals.

    Raises:
        StoreError: If the store cannot be read.
    """
    listing, num_trials, num_older, num_damaged = store.objects.listing(), 0, 0, 0
    for name in listing:
        identity, _, kind = name.partition(".")
        wrong = None
        if kind == "zip":
            num_trials += 1
            try:
                stored = store.read(identity)
            except StoreError as error:
                wrong = str(error)
            else:
                if stored is None:
                    continue  # removed since
                wrong = _misnamed(stored)
                num_older += wrong is None and _is_of_todays_code(stored.summary) is False
        elif kind == "checkpoint" and read_running(store, identity) is None and store.objects.read(name) is not None:
            wrong = "not a readable checkpoint; its trial starts anew"
        elif kind == "safetensors":
            try:
                store.weights(identity)
            except StoreError as error:
                wrong = str(error)
        elif kind == "zip.damaged":
            wrong = "quarantined"
        if wrong is not None:
            num_damaged += 1
            say(f"damaged  {name}: {wrong.removeprefix(f'{store.objects.where}/{name}: ')}")
    say(f"{num_trials} trials read, {num_older} of other code than today's; {num_damaged} objects damaged")
    return num_damaged


def prune(store: TrialStore, doomed: Sequence[Doomed], say: Callable[[str], None], *, deletes: bool) -> None:
    """Say what may be removed from a store and why, and remove it if asked to.

    Raises:
        StoreError: If the store cannot be written.
    """
    for each in doomed:
        if deletes:
            store.objects.delete(each.name)
        say(f"{'removed ' if deletes else 'would remove'}  {each.name}  {_size_text(each.size)}  {each.why}")
    rest = "removed" if deletes else "would be removed: --delete removes them"
    say(f"{len(doomed)} objects, {_size_text(sum(each.size for each in doomed))}, {rest}")


def find_doomed(
    store: TrialStore,
    *,
    studies: Sequence[str] = (),
    older_than_days: float | None = None,
    of_other_code: bool = False,
    orphans: bool = False,
) -> list[Doomed]:
    """Return what may be removed from a store.

    Args:
        store: Where to look.
        studies: Trials and checkpoints of these studies, if no other study that the store has been told of has them.
        older_than_days: Trials written longer ago, by the clock of the store. With `studies` or `of_other_code`, only
            what is both.
        of_other_code: Trials that no plan of today's code asks for.
        orphans: Checkpoints of trials that have ended or that no study asks for, and quarantined trials.

    Raises:
        SweepError: If nothing is chosen to be removed, the store has not been told of a study, or it is being swept.
        StoreError: If it cannot be read.
    """
    if not (studies or of_other_code or orphans or older_than_days is not None):
        raise SweepError("prune: expected what to remove: --study, --older-than, --other-code or --orphans")
    time_ns, by_study = now_ns(store.objects), {study: planned_ids(store, study) for study in studies_in(store)}
    for study in by_study:
        if (driver := driver_of(store.objects, study, time_ns)) is not None:
            raise SweepError(f"study {study!r} is being swept by {driver}: nothing is removed meanwhile")
    listing = store.objects.listing()
    summaries, own = store.catalogue.read(listing)[0], _ids_of(store, studies)
    others = frozenset[str]().union(*(ids for study, ids in by_study.items() if study not in studies))
    found = dict(_orphans(store, listing, summaries, frozenset[str]().union(*by_study.values()))) if orphans else {}
    for identity, summary in summaries.items() if studies or of_other_code or older_than_days is not None else ():
        name = f"{identity}.zip"
        reasons = [f"of {', '.join(studies)}"] if studies else []
        chosen = own is None or identity in own - others
        if of_other_code:
            chosen &= _is_of_todays_code(summary) is False
            reasons.append("of other code")
        if older_than_days is not None:
            chosen &= time_ns - listing[name].modified_ns > older_than_days * DAY_NS
            reasons.append(f"older than {older_than_days:g} days")
        if chosen:
            found[name] = ", ".join(reasons)
    if studies and older_than_days is None and not of_other_code:
        halted = {f"{identity}.checkpoint" for identity in (own or frozenset()) - others}
        found |= dict.fromkeys(halted & listing.keys(), f"of {', '.join(studies)}")
    for name in [name for name in found if name.endswith(".zip")]:  # a trial's weights go with it
        if (beside := weights_name(name.removesuffix(".zip"))) in listing:
            found[beside] = found[name]
    return [Doomed(name, listing[name].size, why) for name, why in sorted(found.items())]


def export_trials(store: TrialStore, file: Path, studies: Sequence[str] = ()) -> int:
    """Write the finished trials of studies, or all, into one zip, and return how many; equal trials make equal bytes.

    Raises:
        SweepError: If the store has not been told of a study, or the file cannot be written.
        StoreError: If the store cannot be read, or a trial is damaged.
    """
    wanted = _ids_of(store, studies)
    ids = sorted(store.ids() if wanted is None else store.ids() & wanted)
    with (
        whole_file(file, SweepError) as temporary,
        zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive,
    ):
        for identity in ids:
            if (trial := store.read(identity)) is not None:
                archive.writestr(zipfile.ZipInfo(f"{identity}.zip", EPOCH), trial.to_bytes())
    return len(ids)


def import_trials(store: TrialStore, file: Path) -> tuple[int, int]:
    """Put the trials of an export into a store; return how many were new, and how many it had.

    Every trial is read and checked before the first is kept.

    Raises:
        SweepError: If the file is no export, or a trial in it is damaged or misnamed.
        StoreError: If the store cannot be written.
    """
    has, new = store.ids(), 0
    try:
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
            for name in names:
                _imported(archive, name, file)
            for name in names:
                if name.removesuffix(".zip") not in has:
                    store.put(_imported(archive, name, file))
                    new += 1
    except FileNotFoundError:
        raise SweepError(f"{file}: no such file") from None
    except (zipfile.BadZipFile, OSError, EOFError) as error:
        raise SweepError(f"{file}: not an export of trials: {error}") from None
    return new, len(names) - new


def _imported(archive: zipfile.ZipFile, name: str, file: Path) -> StoredTrial:
    identity, where = name.removesuffix(".zip"), f"{file}/{name}"
    if not name.endswith(".zip") or not identity.isalnum():
        raise SweepError(f"{file}: not an export of trials: it holds {name!r}")
    if archive.getinfo(name).file_size > LARGEST_TRIAL:
        raise SweepError(f"{where}: expected at most {LARGEST_TRIAL} bytes, got {archive.getinfo(name).file_size}")
    try:
        stored = StoredTrial.from_bytes(archive.read(name), identity, where)
    except StoreError as error:
        raise SweepError(f"{error}; nothing was imported") from None
    if (wrong := _misnamed(stored)) is not None:
        raise SweepError(f"{where}: {wrong}; nothing was imported")
    return stored


def _orphans(
    store: TrialStore, listing: Mapping[str, Entry], summaries: Mapping[str, Summary], planned: Collection[str]
) -> Iterator[tuple[str, str]]:
    for name in listing:
        identity, _, kind = name.partition(".")
        if kind in {"zip.damaged", "checkpoint.damaged"}:
            yield name, "quarantined"
        elif kind == "checkpoint" and identity in summaries:
            if not {*summaries[identity].statuses} & {
                *RESUMABLE
            }:  # whose seeds go on from it, given more time or steps
                yield name, "of a trial that has ended"
        elif kind == "safetensors" and identity not in summaries:
            yield name, "weights of no finished trial"
        elif kind == "checkpoint" and planned and identity not in planned:
            yield name, "no study that the store has been told of asks for it"


def _ids_of(store: TrialStore, studies: Sequence[str]) -> frozenset[str] | None:
    """Return the trials of studies; None, which is all, where none is named.

    Raises:
        SweepError: If the store has not been told of a study.
    """
    known = studies_in(store) if studies else ()
    for study in studies:
        if study not in known:
            refuse_study(store, study)
    return frozenset[str]().union(*(planned_ids(store, study) for study in studies)) if studies else None


def _misnamed(stored: StoredTrial) -> str | None:
    """Return what is wrong with a trial's name, which follows from what it says of itself."""
    expected = identity_of(stored.spec, stored.dataset_digest, stored.code_digest)
    return None if stored.trial_id == expected else f"is trial {expected} by what it says of itself"


def _is_of_todays_code(summary: Summary) -> bool | None:
    """Return whether the code that its spec uses is the code under which it stands.

    None where that cannot be said: a network of one's own is not found from here.
    """
    try:
        spec: TrialSpec = build(TrialSpec, json.loads(summary.spec), "stored")
        if isinstance(spec.model, CustomModel):
            module = spec.model.import_.partition(":")[0]
            if own_source(module) is None and version_of(module) is None:
                return None
        return code_digest(spec) == summary.code_digest
    except PipelineError:
        return False  # of fields that there are no more


def _row(trial: Summary, size: int) -> tuple[str, ...]:
    spec: dict[str, Any] = json.loads(trial.spec)
    dataset = spec.get("dataset", {})
    length = f", T={dataset['length']}" if dataset.get("length") else ""
    return (
        trial.trial_id,
        trial.status,
        label_of(spec.get("model", {})),
        f"{dataset.get('name')}{length}",
        str(spec.get("training", {}).get("max_steps")),
        str(len(trial.statuses)),
        "" if trial.wall_time_s is None else duration_text(trial.wall_time_s),
        {True: "today's", False: "other", None: "not found"}[_is_of_todays_code(trial)],
        _size_text(size),
    )


def _size_text(size: int) -> str:
    return f"{size / 1e3:.0f} kB" if size < 1e6 else f"{size / 1e6:.1f} MB" if size < 1e9 else f"{size / 1e9:.1f} GB"
