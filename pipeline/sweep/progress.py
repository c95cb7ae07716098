"""How a sweep goes, for a person: a live table on a terminal, plain lines in a log."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, TextIO

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from pipeline.sweep.plan import Plan, Setting

if TYPE_CHECKING:
    from pipeline.sweep.trial import Outcome

QUIET_S = 5.0
"""Between two plain lines that only say that something started."""

SIGN_OF_LIFE_S = 60.0
"""After so long without a line, one says that the sweep is still there."""

SHOWN = 8
"""Finished settings that the live table keeps in sight, and running ones."""


class Tally:
    """What has been finished, what runs, and how long the rest may take.

    Args:
        plan: The plan, as it is before training.
        clock: Seconds, only differences count.

    Attributes:
        reached: Step and validation loss of what runs, as of the last checkpoint; `pipeline.sweep.status` fills it.
        wants_reached: Whether anybody looks at them.
    """

    def __init__(self, plan: Plan, clock: Callable[[], float] = time.monotonic) -> None:
        self.settings = {setting.trial_id: setting for setting in plan.trials}
        self.num_settings = len(plan.trials)
        self.num_stored = self.num_settings - len(plan.missing)
        self.running: dict[str, float] = {}
        self.outcomes: dict[str, Outcome] = {}
        self.reached: dict[str, tuple[int, float | None]] = {}
        self.wants_reached = False
        self._clock, self._begun = clock, clock()
        self._first_started: float | None = None
        self._asked_s = sum(setting.duration_s for setting in plan.missing)

    def started(self, setting: Setting) -> None:
        """Count a setting as running."""
        self.running[setting.trial_id] = now = self._clock()
        self._first_started = now if self._first_started is None else self._first_started

    def lost(self, setting: Setting, why: str = "") -> None:
        """Count a setting as waiting again."""
        self.running.pop(setting.trial_id, None)

    def finished(self, setting: Setting, outcome: Outcome) -> None:
        """Count a setting as finished, and keep how it ended."""
        self.outcomes[setting.trial_id] = outcome
        self.running.pop(setting.trial_id, None)

    @property
    def statuses(self) -> Counter[str]:
        """How many trained settings ended in each way."""
        return Counter(outcome.status for outcome in list(self.outcomes.values()))  # another thread may add one

    @property
    def elapsed_s(self) -> float:
        """Since the sweep began."""
        return self._clock() - self._begun

    @property
    def left_s(self) -> float:
        """About how long the rest takes, from what the finished part took; 0 while nothing is known."""
        done_s = sum(self.settings[identity].duration_s for identity in list(self.outcomes))
        if self._first_started is None or not done_s:
            return 0.0
        return (self._clock() - self._first_started) * (self._asked_s / done_s - 1)

    def place(self) -> str:
        """Return « 7/24», settings that need nothing more, stored ones included."""
        num_finished = self.num_stored + len(self.outcomes)
        return f"{num_finished:>{len(str(self.num_settings))}}/{self.num_settings}"

    def counts(self) -> str:
        """Return «2 running, 0 failed, 5 from the store, about 3 min left»."""
        counts = f"{len(self.running)} running, {self.statuses['error']} failed, {self.num_stored} from the store"
        return counts + (f", about {duration_text(self.left_s)} left" if self.left_s > 0.5 else "")

    def summary(self) -> str:
        """Return «24 settings: 5 from the store, 18 trained, 1 diverged, 0 failed, 141 s»."""
        ended = self.statuses
        words = {"censored": "at a rung", "timed_out": "out of time"}
        others = [f"{ended[status]} {text}" for status, text in words.items() if ended[status]]
        counts = [f"{self.num_stored} from the store", f"{ended['ok']} trained"]
        counts += [f"{ended['diverged']} diverged", *others, f"{ended['error']} failed"]
        return f"{self.num_settings} settings: {', '.join(counts)}, {duration_text(self.elapsed_s)}"


class LineProgress:
    """Writes a line for each finished setting, now and then one for what started, and a sign of life in between."""

    def __init__(self, tally: Tally, stream: TextIO) -> None:
        self.tally, self._stream, self._last_s = tally, stream, float("-inf")
        self._closed = threading.Event()
        threading.Thread(target=self._show_life, daemon=True).start()

    def started(self, setting: Setting) -> None:
        """Write that a setting trains, unless a line was written a moment ago."""
        self.tally.started(setting)
        if self.tally.elapsed_s - self._last_s >= QUIET_S:
            self._say(f"[{self.tally.place()}] training {title(setting)} | {self.tally.counts()}")

    def lost(self, setting: Setting, why: str = "") -> None:
        """Write that a setting's worker was lost."""
        self.tally.lost(setting)
        self._say(f"[{self.tally.place()}] {lost_text(setting, why)} | {self.tally.counts()}")

    def finished(self, setting: Setting, outcome: Outcome) -> None:
        """Write how a setting ended."""
        self.tally.finished(setting, outcome)
        self._say(f"[{self.tally.place()}] done {title(setting)}  {result_text(outcome)} | {self.tally.counts()}")

    def close(self) -> None:
        """Write the summary."""
        self._closed.set()
        self._say(self.tally.summary())

    def _show_life(self) -> None:
        while not self._closed.wait(SIGN_OF_LIFE_S):
            if self.tally.elapsed_s - self._last_s >= SIGN_OF_LIFE_S:
                self._say(f"[{self.tally.place()}] {self.tally.counts()}")

    def _say(self, line: str) -> None:
        self._last_s = self.tally.elapsed_s
        print(line, file=self._stream, flush=True)


class LiveProgress:
    """Keeps a table on the terminal: what ended last, what runs, and how far it is."""

    def __init__(self, tally: Tally, console: Console) -> None:
        self.tally, self._console = tally, console
        self.started, self.finished = tally.started, tally.finished
        tally.wants_reached = True
        self._live = Live(get_renderable=self._table, console=console, refresh_per_second=2)
        self._live.start()

    def lost(self, setting: Setting, why: str = "") -> None:
        """Write above the table that a setting's worker was lost."""
        self.tally.lost(setting)
        self._console.print(lost_text(setting, why), highlight=False, markup=False)

    def close(self) -> None:
        """Leave the last table on the screen, and the summary below it."""
        self._live.stop()
        self._console.print(self.tally.summary(), highlight=False, markup=False)

    def _table(self) -> Table:
        tally = self.tally
        caption = Text(f"[{tally.place()}] {tally.counts()}")
        table = Table("setting", "status", "step", "validation loss", "time", caption=caption)
        for identity, outcome in list(tally.outcomes.items())[-SHOWN:]:
            setting, spent = tally.settings[identity], duration_text(outcome.wall_time_s)
            table.add_row(Text(title(setting)), outcome.status, "", loss_text(outcome), spent)
        running = list(tally.running.items())
        for identity, started_at in running[:SHOWN]:
            setting, (step, loss) = tally.settings[identity], tally.reached.get(identity, (None, None))
            of = "" if step is None else f"{step} of {setting.spec.training.max_steps}"
            spent = duration_text(time.monotonic() - started_at)
            table.add_row(Text(title(setting)), "training", of, "" if loss is None else f"{loss:.4g}", spent)
        if len(running) > SHOWN:
            table.add_row(f"and {len(running) - SHOWN} more", "training", "", "", "")
        return table


Progress = LineProgress | LiveProgress


def follow(plan: Plan, stream: TextIO) -> Progress:
    """Return the progress that suits `stream`: live on a terminal, lines elsewhere."""
    tally, console = Tally(plan), Console(file=stream)
    return LiveProgress(tally, console) if console.is_terminal else LineProgress(tally, stream)


def title(setting: Setting) -> str:
    """Return «adding: lstm, T=100, lr=0.01»."""
    return setting.label if setting.label == setting.grid else f"{setting.grid}: {setting.label}"


def lost_text(setting: Setting, why: str) -> str:
    """Return «lost the worker of adding: lstm (no progress for 30 min, pid 17 on node-3): starts again»."""
    return f"lost the worker of {title(setting)}{why and f' ({why})'}: starts again"


def result_text(outcome: Outcome) -> str:
    """Return «ok  val 0.0012  12.3 s»."""
    parts = [outcome.status, loss_text(outcome) and f"val {loss_text(outcome)}", duration_text(outcome.wall_time_s)]
    return "  ".join(part for part in parts if part)


def loss_text(outcome: Outcome) -> str:
    """Return the validation loss in four digits, or nothing."""
    return "" if outcome.validation_loss is None else f"{outcome.validation_loss:.4g}"


def duration_text(seconds: float) -> str:
    """Return «12.3 s», «141 s», «7 min» or «3.2 h»."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds < 300:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
