"""Tells a listener, such as W&B, of every setting whose trial is finished.

In a thread of its own: publishing may draw pictures and talk to a server, and must not keep workers waiting.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

from pipeline.results.archive import StoredTrial
from pipeline.results.store import TrialStore
from pipeline.sweep.plan import Plan, Setting

OnFinished = Callable[[Setting, StoredTrial], None]
"""Is called once for each setting of a plan whose trial is in the store, one call at a time."""


class Announcer:
    """Reads finished trials back from the store and hands them to a listener; leaving the body waits for it.

    Args:
        plan: Says which settings share a trial: each of them is announced.
        store: Holds the trials.
        on_finished: The listener, or None.
    """

    def __init__(self, plan: Plan, store: TrialStore, on_finished: OnFinished | None) -> None:
        self._plan, self._store, self._on_finished = plan, store, on_finished
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="announce")
        self._futures: list[Future[None]] = []

    def announce(self, trial_id: str) -> None:
        """Tell the listener, soon, of every setting that has this trial."""
        if self._on_finished is not None:
            self._futures.append(self._thread.submit(self._tell, trial_id, self._on_finished))

    def __enter__(self) -> Announcer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._thread.shutdown(wait=True, cancel_futures=error is not None)
        if error is None:
            for future in self._futures:
                future.result()

    def _tell(self, trial_id: str, on_finished: OnFinished) -> None:
        stored = self._store.get(trial_id)
        for setting in self._plan.settings:
            if stored is not None and setting.trial_id == trial_id:
                on_finished(setting, stored)
