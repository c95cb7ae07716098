"""The command line of the package: checks of its numbers, intervals and trials, trials kept in a store and in use."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import ConfigError, PipelineError, unknown_name

if TYPE_CHECKING:
    from pipeline.results.store import TrialStore


def main(arguments: list[str] | None = None) -> int:
    """Do what the arguments say; return the exit status: 1 if a check failed, 2 for an error to mend."""
    description = "Gradient dynamics: checks, and trials that are kept."
    parser = argparse.ArgumentParser(prog="python -m pipeline", description=description)
    commands = parser.add_subparsers(dest="command", required=True)

    def add(name: str, summary: str, run: Callable[[argparse.Namespace], int]) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.")
        command.set_defaults(run=run)
        return command

    selftest = add("selftest", "check every golden number of the literature through the shipped code", _selftest)
    selftest.add_argument("--only", metavar="SUBSTRING", help="only experiments with this in their name")
    coverage = add("coverage", "simulate how often each kind of interval over seeds holds the truth", _coverage)
    coverage.add_argument("--samples", metavar="NUMBER", type=_at_least(1), default=2000, help="of each truth (2000)")
    summary = "train some stored trials again after a refactoring, and adopt the others if all rows agree to the bit"
    adopt = add("adopt", summary, _adopt)
    adopt.add_argument("studies", nargs="*", metavar="study", help="default: every study of params.yaml")
    more = "train at least so many, the cheapest (default: 3); more where these are not of every cell, rule and kind"
    adopt.add_argument("--check", type=_at_least(0), default=3, metavar="N", help=more)
    adopt.add_argument("--dry-run", action="store_true", help="say what would be trained and adopted, do neither")
    adopt.add_argument("--executor", choices=("auto", "ray", "inline"), default="auto", help="as of stages/sweep.py")
    again = add("rerun", "train a trial of the result tables again, and compare its rows to the bit", _rerun)
    again.add_argument("trial", help="its id, as the report and the tables have it")
    status = add("status", "say how far the studies are that are swept into a trial store", _status)
    status.add_argument("studies", nargs="*", metavar="study", help="default: all that the store has been told of")
    store_help = "a folder or URL (default: that of params.yaml); then no project is needed"
    status.add_argument("--store", metavar="URL", help=store_help)
    status.add_argument("--watch", action="store_true", help="again every few seconds, until nobody sweeps them")
    status.add_argument("--json", action="store_true", help="one line of JSON for each study")
    _add_uses(add)
    _add_store_commands(
        add("store", "look after a trial store: what lies there, whether it is sound, what may go", _store)
    )
    chosen, rest = parser.parse_known_args(arguments)
    if not hasattr(chosen, "texts") or any(text.startswith("-") for text in rest):
        chosen = parser.parse_args(arguments)
    else:
        chosen.texts = [*chosen.texts, *rest]  # texts after an option are none to argparse
    try:
        return int(chosen.run(chosen))
    except PipelineError as error:
        print(f"{chosen.command}: {error}", file=sys.stderr)
        return 2


def _at_least(smallest: int) -> Callable[[str], int]:
    """Return what reads an integer of at least `smallest`, or says that it is none."""

    def read(text: str) -> int:
        if not text.isdecimal() or int(text) < smallest:
            raise argparse.ArgumentTypeError(f"expected an integer of at least {smallest}, got {text!r}")
        return int(text)

    return read


def _selftest(chosen: argparse.Namespace) -> int:
    from pipeline.selftest import EXPERIMENTS, run, select

    return run(select(EXPERIMENTS, chosen.only))


def _coverage(chosen: argparse.Namespace) -> int:
    from pipeline.quantities import coverage  # needs polars, which checking numbers does not

    return coverage.run(chosen.samples)


def _adopt(chosen: argparse.Namespace) -> int:
    from pipeline import sweep
    from pipeline.config import Paths, load_params

    paths = Paths.at()
    params = load_params(paths)
    for study in chosen.studies:
        if study not in params.studies:
            raise ConfigError(f"{paths.params.name}: studies: {unknown_name('study', study, params.studies)}")
    executor = sweep.executor_named(chosen.executor, params)
    studies = chosen.studies or params.studies
    sweep.adopt(paths, params, studies, executor, num_checked=chosen.check, dry_run=chosen.dry_run)
    return 0


def _rerun(chosen: argparse.Namespace) -> int:
    from pipeline import sweep
    from pipeline.config import Paths, load_params

    paths = Paths.at()
    return 0 if sweep.rerun(paths, load_params(paths), chosen.trial) else 1


def _status(chosen: argparse.Namespace) -> int:
    from pipeline.sweep import status

    try:
        status.show(_store_at(chosen.store), chosen.studies, watches=chosen.watch, as_json=chosen.json)
    except KeyboardInterrupt:  # how a watch ends
        return 128 + signal.SIGINT
    return 0


USES = {
    "translate": "write, with a trained encoder-decoder, what follows from source texts",
    "caption": "write, with a trained captioner, what images show",
    "write": "go on from a prompt with a trained language model",
    "score": "say how probable texts are to a trained language model",
    "classify": "answer sequences with a trained network that answers at their end",
    "tag": "answer every token of texts with a trained network",
}
"""What can be asked of trained networks, by their trial's id."""


def _add_uses(add: Callable[[str, str, Callable[[argparse.Namespace], int]], argparse.ArgumentParser]) -> None:
    for name, summary in USES.items():
        command = add(name, summary, _use)
        command.add_argument("trial", help="its id, or the beginning of it")
        if name == "caption":
            command.add_argument("file", type=Path, help="images, (N, height, width), as .npy")
        elif name == "write":
            command.add_argument("texts", metavar="prompt", nargs=1, help="at least one token")
            command.add_argument("--tokens", type=_at_least(1), default=200, metavar="N", help="how many follow (200)")
            command.add_argument("--temperature", type=float, default=0.7, metavar="X", help="0 is the likeliest (0.7)")
            command.add_argument("--draws", type=_at_least(0), default=0, metavar="SEED", help="of the draws (0)")
        else:
            command.add_argument("texts", metavar="text", nargs="*", help="default: one from each line that comes in")
        if name == "classify":
            spoken_of = "where texts speak of images, that of each, (N, height, width), as .npy"
            command.add_argument("--images", type=Path, metavar="FILE", help=spoken_of)
        if name in {"translate", "caption", "write"}:
            command.add_argument(
                "--beams", type=_at_least(1), metavar="K", help="the best that a beam of so many finds"
            )
        if name in {"translate", "caption"}:
            penalty = "of texts that a beam finds: 0 is none (0)"
            command.add_argument("--length-penalty", type=float, default=0.0, metavar="A", help=penalty)
        command.add_argument("--seed", type=_at_least(0), metavar="S", help="of the trial (default: the best)")
        command.add_argument("--json", action="store_true", help="all that is known, one object a line")


def _use(chosen: argparse.Namespace) -> int:
    import json

    from pipeline.trained import load_trained

    trained = load_trained(chosen.trial, chosen.seed)
    texts = getattr(chosen, "texts", None) or ([] if chosen.command == "caption" else sys.stdin.read().splitlines())
    beams = getattr(chosen, "beams", None)
    if chosen.command in {"translate", "caption"}:
        asked = texts if chosen.command == "translate" else _images(chosen.file)
        found = getattr(trained, chosen.command)(asked, beams=beams or 1, length_penalty=chosen.length_penalty)
    elif chosen.command == "write":
        how = {"temperature": chosen.temperature, "beams": beams, "seed": chosen.draws}
        found = [trained.write(texts[0], chosen.tokens, **how)]
    elif chosen.command == "classify":
        found = trained.classify(texts, chosen.images and _images(chosen.images))
    else:
        found = getattr(trained, chosen.command)(texts)
    for one in found:
        print(json.dumps(_told(one), ensure_ascii=False) if chosen.json else _line(one))
    return 0


def _images(file: Path) -> Any:
    """Return the images of a file.

    Raises:
        ConfigError: If it is missing, or not an array of numbers.
    """
    import numpy as np

    expected = f"{file}: expected an array of images as .npy"
    try:
        found = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ConfigError(f"{expected}: {error}") from None
    if not isinstance(found, np.ndarray) or found.dtype.kind not in "biuf":
        what = f"an array of {found.dtype}" if isinstance(found, np.ndarray) else "several arrays, .npz"
        raise ConfigError(f"{expected}; got {what}")
    return found


def _told(one: Any) -> Any:
    """Return an answer as JSON has it."""
    if hasattr(one, "_asdict"):
        return {name: _told(value) for name, value in one._asdict().items()}
    if isinstance(one, list | tuple):
        return [_told(part) for part in one]
    return one.tolist() if hasattr(one, "tolist") else one


def _line(one: Any) -> str:
    """Return an answer as a person reads it."""
    if isinstance(one, list):
        return " ".join(f"{token}/{answer.label}" for token, answer in one)
    if hasattr(one, "label"):
        return f"{one.label}\t{one.probability:.4f}"
    if hasattr(one, "perplexity"):
        return f"{one.log_probability:.4f} nats\t{one.num_tokens} tokens\tperplexity {one.perplexity:.4g}"
    return str(one.text)


def _add_store_commands(parser: argparse.ArgumentParser) -> None:
    kinds = parser.add_subparsers(dest="kind", required=True)

    def add(name: str, summary: str, studies: str = "") -> argparse.ArgumentParser:
        command = kinds.add_parser(name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.")
        command.add_argument("--store", metavar="URL", help="a folder or URL (default: that of params.yaml)")
        if studies:
            command.add_argument("--study", metavar="NAME", action="append", default=[], dest="studies", help=studies)
        return command

    add("list", "list the finished trials", "only of this study; again for another")
    add("verify", "read every trial and checkpoint; exit status 1 if one is damaged")
    prune = add("prune", "remove trials and checkpoints; without --delete only say which", "of this study and no other")
    prune.add_argument("--older-than", metavar="DAYS", type=_at_least(0), help="trials that were written longer ago")
    prune.add_argument("--other-code", action="store_true", help="trials that no plan of today's code asks for")
    orphans = "checkpoints that nothing goes on from, and quarantined trials"
    prune.add_argument("--orphans", action="store_true", help=orphans)
    prune.add_argument("--delete", action="store_true", help="remove them")
    export = add("export", "write finished trials into one file", "only of this study; again for another")
    export.add_argument("file", type=Path)
    add("import", "put the trials of an export into the store").add_argument("file", type=Path)


def _store(chosen: argparse.Namespace) -> int:
    from pipeline.sweep import upkeep

    store = _store_at(chosen.store)
    if chosen.kind == "list":
        print(upkeep.list_trials(store, chosen.studies))
    elif chosen.kind == "verify":
        return 1 if upkeep.verify(store, print) else 0
    elif chosen.kind == "export":
        print(f"{upkeep.export_trials(store, chosen.file, chosen.studies)} trials in {chosen.file}")
    elif chosen.kind == "import":
        new, known = upkeep.import_trials(store, chosen.file)
        print(f"{new} trials imported, {known} were there")
    else:
        doomed = upkeep.find_doomed(
            store,
            studies=chosen.studies,
            older_than_days=chosen.older_than,
            of_other_code=chosen.other_code,
            orphans=chosen.orphans,
        )
        upkeep.prune(store, doomed, print, deletes=chosen.delete)
    return 0


def _store_at(url: str | None) -> TrialStore:
    """Return the trial store of a URL, or else that of the project in the current folder."""
    from pipeline.config import Paths, load_params
    from pipeline.results.store import TrialStore

    if url is not None:
        return TrialStore(url)
    paths = Paths.at()
    return TrialStore.of(paths, load_params(paths).trial_store)


if __name__ == "__main__":
    if {*sys.argv[1:2]} & {"adopt", "rerun"}:  # they train, and Ray has ways of its own to end
        from pipeline import stopping

        stopping.watch(sys.argv[1], "what was trained to its end is kept: run again")
        stopping.run(main)
    sys.exit(main())
