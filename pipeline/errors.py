"""The errors that a user can cause, and the sentence that each one shows.

A stage prints a `PipelineError` without a traceback and ends with exit status 2: the message alone must
say what was expected, what came, and which file or key to change.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class PipelineError(Exception):
    """Base of every error that a user can mend; its message is all that is shown."""


class ConfigError(PipelineError):
    """A configuration file says something impossible; the message names file, key and what was expected."""


class DatasetError(PipelineError):
    """A prepared dataset is missing, damaged or foreign; the message names the file."""


class StoreError(PipelineError):
    """The trial store cannot be read or written; the message names the location."""


class SweepError(PipelineError):
    """A sweep could not start, or ended with settings that failed."""


class TableError(PipelineError):
    """A result table does not have its declared columns; the message names table and column."""


def unknown_name(kind: str, name: object, known: Iterable[str]) -> str:
    """Return «unknown cell 'gruu'; did you mean 'gru'? known: elman, gru, lstm»; where nothing is known, so much."""
    names = sorted(known) or ["none"]
    close = difflib.get_close_matches(str(name), names, n=1, cutoff=0.6)
    hint = f"; did you mean {close[0]!r}?" if close else ";"
    return f"unknown {kind} {name!r}{hint} known: {', '.join(names)}"
