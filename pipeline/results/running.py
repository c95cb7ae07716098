"""What is known of a trial before it has ended, read from the store: nothing that trains knows who looks on."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import polars as pl
import torch

from pipeline.core.training.rows import MemorySink
from pipeline.results.frames import long_frames
from pipeline.results.store import TrialStore


@dataclass(frozen=True)
class RunningTrial:
    """A trial under way.

    Attributes:
        trial_id: Its id.
        step: Updates made; what the tables say of every step before that is all that they ever will.
        code_digest: Of the code that trains it; None while that is not known.
        tables: All of `TRIAL_TABLES` but `trials`, as far as they are written.
    """

    trial_id: str
    step: int
    code_digest: str | None
    tables: dict[str, pl.DataFrame]


def read_running(store: TrialStore, trial_id: str) -> RunningTrial | None:
    """Return a trial as its last checkpoint has it; None where there is none, or it cannot be read.

    A checkpoint that cannot be read is the business of whoever trains: it says so, and starts anew.

    Raises:
        StoreError: If the store cannot be reached.
    """
    data = store.checkpoint(trial_id).load(quarantines=False)
    if data is None:
        return None
    try:
        content: dict[str, Any] = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        sink = MemorySink()
        sink.restore(content["rows"])
        tables = long_frames(sink.tables(), trial_id)
        return RunningTrial(trial_id, content["progress"]["state"]["step"], content["code"], tables)
    except Exception:  # torch raises many kinds for a damaged file
        return None
