"""How many programs share a GPU with `gpus_per_trial: auto`: what fits and what pays, measured with a study's own pack.

One program alone is timed on the GPU, then two side by side, four, eight, for `PROBE_S` each, without storing anything.
The rule, in this order: so many more must fit, `FITS` of the GPU's memory at most if each needs what one alone does;
and together they must make `PAYS` times the updates per second of the best so far. The first number that fails ends it,
and the best so far is taken. Programs that share a GPU take turns, or run side by side under MPS: the measurement has
whichever is there.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Sequence
from multiprocessing.synchronize import Barrier
from typing import Any, NamedTuple

import torch

from pipeline.core.training import MemorySink, Program, run_trial
from pipeline.core.training.pack import train_pack
from pipeline.core.training.spec import TrialSpec
from pipeline.data import Dataset
from pipeline.errors import SweepError
from pipeline.sweep.workers import meanwhile

MOST_PROGRAMS = 8
PAYS = 1.1
FITS = 0.9
PROBE_S = 15.0
"""Of training, beside what a program needs to start."""

LOOK_S = 0.2
"""Between two looks at how much of the memory is in use."""

START_S = 300.0
"""For all programs to have started, the compilation of their kernels included."""


class Measured(NamedTuple):
    """What some programs made of a GPU together.

    Attributes:
        updates_per_s: Of all replicas of all programs.
        used_bytes: Of the GPU's memory at most, by all of them.
        total_bytes: Of the GPU.
    """

    updates_per_s: float
    used_bytes: int
    total_bytes: int


class Share(NamedTuple):
    """How many programs share a GPU, and the measurements behind it by number of programs."""

    num_programs: int
    measured: dict[int, Measured]

    def __str__(self) -> str:
        """Return «2 programs share a GPU (1: 120 updates/s, 2: 190, 4: 195; 3.1 of 139.0 GiB with 4)»."""
        rates = ", ".join(
            f"{number}: {each.updates_per_s:.3g}{' updates/s' if number == 1 else ''}"
            for number, each in self.measured.items()
        )
        most, last = list(self.measured.items())[-1]
        memory = f"{last.used_bytes / 2**30:.1f} of {last.total_bytes / 2**30:.1f} GiB with {most}"
        programs = "1 program has" if self.num_programs == 1 else f"{self.num_programs} programs share"
        return f"{programs} a GPU ({rates}; {memory})"


def choose(measure: Callable[[int], Measured]) -> Share:
    """Return how many programs share a GPU, by the rule above.

    Args:
        measure: Of so many programs side by side; may raise `SweepError` where they do not fit, but not of one.

    Raises:
        SweepError: If one program alone does not run.
    """
    best, measured = 1, {1: measure(1)}
    number = 2
    while number <= MOST_PROGRAMS and number * measured[1].used_bytes <= FITS * measured[1].total_bytes:
        try:
            measured[number] = measure(number)
        except SweepError:  # they need more together than alone
            break
        if measured[number].updates_per_s < PAYS * measured[best].updates_per_s:
            break
        best, number = number, 2 * number
    return Share(best, measured)


def measured_share(specs: Sequence[TrialSpec], dataset: Dataset, device: str, num_threads: int) -> Share:
    """Return how many programs of these settings share this machine's GPU; run where there is a whole one.

    Raises:
        SweepError: If one program alone does not run.
    """
    return choose(lambda number: measure(specs, dataset, device, num_threads, number))


def measure(
    specs: Sequence[TrialSpec], dataset: Dataset, device: str, num_threads: int, number: int, probe_s: float = PROBE_S
) -> Measured:
    """Return what so many programs of these settings make side by side, in processes of their own.

    Raises:
        SweepError: If one of them fails.
    """
    context = multiprocessing.get_context("spawn")
    together, told = context.Barrier(number), context.SimpleQueue()
    arguments = (list(specs), dataset, device, num_threads, probe_s, together, told)
    processes = [context.Process(target=_train, args=arguments, daemon=True) for _ in range(number)]
    before, most = _used_bytes(device)[0], [0]

    def look() -> None:
        most[0] = max(most[0], _used_bytes(device)[0] - before)

    try:
        with meanwhile(look, LOOK_S, LOOK_S):
            for process in processes:
                process.start()
            found: list[float | str] = []
            deadline = time.monotonic() + START_S + 4 * probe_s
            while len(found) < number and time.monotonic() < deadline:
                if not told.empty():
                    found.append(told.get())
                elif any(process.exitcode for process in processes):
                    break  # killed, for want of memory for instance
                else:
                    time.sleep(0.05)
    finally:
        for process in processes:
            process.kill()
    rates = [each for each in found if isinstance(each, float)]
    if len(rates) < number:
        reasons = [each for each in found if isinstance(each, str)] or ["it ended without a word"]
        raise SweepError(f"{number} programs on a GPU: {reasons[0]}")
    return Measured(sum(rates), most[0], _used_bytes(device)[1])


def _train(
    specs: list[TrialSpec],
    dataset: Dataset,
    device: str,
    num_threads: int,
    probe_s: float,
    together: Barrier,
    told: Any,
) -> None:
    """Train a pack for a while and tell its updates per second, or what went wrong."""
    num_updates = [0] * len(specs)

    def work(index: int, program: Program) -> None:
        options = {"device": device, "num_threads": num_threads, "max_wall_time_s": probe_s, "program": program}
        result = run_trial(specs[index], dataset, MemorySink(), **options)  # type: ignore[arg-type]
        num_updates[index] = sum(int(str(row["num_steps"])) for row in result.rows)

    try:
        torch.zeros(1, device=device)
        together.wait(START_S)
        started = time.perf_counter()
        train_pack(specs, work, num_threads=num_threads)
        told.put(sum(num_updates) / (time.perf_counter() - started))
    except Exception as error:  # noqa: BLE001 - whatever it is, this number of programs does not run
        told.put(f"{type(error).__name__}: {error}")


def _used_bytes(device: str) -> tuple[int, int]:
    """Return how much of the GPU's memory is in use, and how much it has; nothing of a CPU."""
    if device == "cpu":
        return 0, 0
    free, total = torch.cuda.mem_get_info()
    return total - free, total
