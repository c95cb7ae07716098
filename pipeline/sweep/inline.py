"""The executor without Ray: one setting after the other in this process, for debugging and for tests."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.sweep.execution import LoadData, Watch, variant_of
from pipeline.sweep.plan import Setting
from pipeline.sweep.trial import Job, train_setting


def train_inline(settings: Sequence[Setting], job: Job, load: LoadData, watch: Watch) -> None:
    """Train `settings` in turn, telling `watch` when each starts and ends; holds one dataset at a time."""
    held, dataset = None, None
    for setting in settings:
        watch.started(setting)
        if dataset is None or variant_of(setting) != held:
            held, dataset = variant_of(setting), load(*variant_of(setting))
        watch.finished(setting, train_setting(job, setting, dataset))
