"""The declared columns of every result table; checked on write and on read.

Tables are long: one row an observation, with its trial, seed and step beside it. The seed is the only unit of
replication and always a named column.
"""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from pipeline.errors import TableError

STATUSES = ("ok", "censored", "timed_out", "diverged", "error")
"""How a replica can end, mildest first, as the core has it: of several seeds the worst one speaks for a setting."""

RESUMABLE = ("censored", "timed_out")
"""Statuses of replicas that a limit stopped: given more steps or more time, they go on from their checkpoint."""

FINISHED = ("ok", "timed_out")
"""Statuses of replicas whose last weights are the end of a training; of one that a search stopped nobody knows it."""

HOST_COLUMNS: dict[str, pl.DataType] = {
    "wall_time_s": pl.Float64(),
    "training_time_s": pl.Float64(),
    "step_time_s": pl.Float64(),
    "step_time_error_s": pl.Float64(),
    "num_timed_portions": pl.Int64(),
    "criterion_time_s": pl.Float64(),
    "diagnostics_time_share": pl.Float64(),
    "peak_memory_bytes": pl.Int64(),
    "device": pl.String(),
    "kernel": pl.String(),  # what ran the recurrence: compiled, captured, eager, or autograd of a whole step
    "hostname": pl.String(),
    "torch_version": pl.String(),
    "python_version": pl.String(),
    "git_revision": pl.String(),
}
"""Columns of `trials` that say where and how fast; two runs of the same spec agree on all the others."""

IDENTITY_COLUMNS = ("trial_id", "code_digest", "adopted_from")
"""Columns that say under which code's identity a trial stands; rows that a refactoring leaves agree on all others."""

TRIALS: dict[str, pl.DataType] = {
    # what was run: one row per (trial, seed); every single field of the spec follows as a dotted column, `model.cell`
    "trial_id": pl.String(),
    "seed": pl.Int64(),
    "dataset_digest": pl.String(),
    "code_digest": pl.String(),  # of the code under whose identity the trial stands; see `pipeline.core.identity`
    "adopted_from": pl.String(),  # of the code that ran, where this is not it: see `python -m pipeline adopt`
    "spec": pl.String(),  # the whole of it as JSON: what columns cannot hold, such as lists, is in it too
    "status": pl.String(),
    "status_message": pl.String(),
    "diverged_step": pl.Int64(),
    "diverged_timestep": pl.Int64(),
    "diverged_quantity": pl.String(),
    "exploded_step": pl.Int64(),  # of the first evaluation far above the untrained loss, recovered from or not
    # how it ended; loss columns are the dataset's loss, errors are shares in [0, 1]
    "num_steps": pl.Int64(),
    "best_step": pl.Int64(),
    "best_validation_loss": pl.Float64(),
    "best_validation_error": pl.Float64(),
    "final_validation_loss": pl.Float64(),  # of the last finite evaluation
    "beat_untrained": pl.Boolean(),  # whether any evaluation was better than that of step 0
    "converged": pl.Boolean(),  # by the spec's rule, or at the criterion; null where it diverged
    "test_loss": pl.Float64(),
    "test_error": pl.Float64(),
    "baseline_loss": pl.Float64(),
    "series_exponent": pl.Float64(),
    "reached_criterion": pl.Boolean(),
    "criterion_step": pl.Int64(),
    "clipped_share": pl.Float64(),
    "num_parameters": pl.Int64(),
    "activation_bytes": pl.Int64(),
    "gradient_check_error": pl.Float64(),
} | HOST_COLUMNS

_MEASURED: dict[str, pl.DataType] = {"trial_id": pl.String(), "seed": pl.Int64(), "step": pl.Int64()}

CURVE_FACTS: dict[str, pl.DataType] = {
    "split": pl.String(),
    "mode": pl.String(),
    "group": pl.String(),
    "tested_length": pl.Int64(),
    "part": pl.String(),
    "layer": pl.Int64(),
    "direction": pl.String(),
    "gate": pl.String(),
}
"""Columns of `curves` that say what a metric is of; null where they do not apply."""

CURVES: dict[str, pl.DataType] = {
    **_MEASURED,
    "metric": pl.String(),  # loss, error, token_error; grad_norm, clipped_grad_norm, clip_cosine; sigma_max, ...
    **CURVE_FACTS,
    "value": pl.Float64(),
}

_PLACE: dict[str, pl.DataType] = {
    **_MEASURED,
    "part": pl.String(),  # of the network: recurrent where there is one stack only; else input, encoder, decoder
    "layer": pl.Int64(),
    "direction": pl.String(),
}

TRACES: dict[str, pl.DataType] = _PLACE | {
    "timestep": pl.Int64(),
    "quantity": pl.String(),
    "log10_norm": pl.Float64(),
}

EIGENVALUES: dict[str, pl.DataType] = _PLACE | {
    "gate": pl.String(),
    "index": pl.Int64(),
    "real": pl.Float64(),
    "imag": pl.Float64(),
}

GATES: dict[str, pl.DataType] = _PLACE | {
    # quantity: density (position: middle of a bin of [0, 1]), mean, left_saturated, right_saturated; of the
    # keeping gate kept (mean share), half_life (timesteps), retention (log10 of its product over the last `position`
    # timesteps)
    "gate": pl.String(),
    "quantity": pl.String(),
    "position": pl.Float64(),
    "value": pl.Float64(),
}

JACOBIANS: dict[str, pl.DataType] = _PLACE | {
    # singular values of d s_T / d s_{T-lag}: quantity largest, median, smallest, condition
    "lag": pl.Int64(),
    "quantity": pl.String(),
    "log10_value": pl.Float64(),
}

LYAPUNOV: dict[str, pl.DataType] = _PLACE | {
    # the exponents by falling size, estimated from the first `timestep` timesteps
    "index": pl.Int64(),
    "timestep": pl.Int64(),
    "lyapunov_nats_per_timestep": pl.Float64(),
    "standard_error": pl.Float64(),
}

TRUNCATION: dict[str, pl.DataType] = {
    # the gradient of the last timestep's loss, backpropagated through `backward_length` timesteps, against the full one
    **_MEASURED,
    "backward_length": pl.Int64(),
    "cosine": pl.Float64(),
    "relative_error": pl.Float64(),
    "log10_phi": pl.Float64(),
    "decay_factor": pl.Float64(),
    "relative_bias_bound": pl.Float64(),
}

ATTENTION: dict[str, pl.DataType] = {
    # what a decoder that is given the true tokens attends to while it writes; a row an output and a source position
    **_MEASURED,
    "example": pl.Int64(),
    "output_position": pl.Int64(),  # from 1
    "source_position": pl.Int64(),  # from 1; of an image the cell of the grid, row by row
    "weight": pl.Float64(),
    "aligned": pl.Boolean(),  # false everywhere where the alignment is not known
}

BREAKDOWN: dict[str, pl.DataType] = {
    # test errors of a decoder by where they are: of tokens by output position, of whole sequences by source length
    **_MEASURED,
    "mode": pl.String(),  # teacher_forced: given the true tokens; free_running: given its own
    "by": pl.String(),  # output_position (from 1), or source_length
    "at": pl.Int64(),
    "num": pl.Int64(),  # tokens, or sequences
    "error": pl.Float64(),
}

TOKENS: dict[str, pl.DataType] = {
    # examples as text, token by token
    **_MEASURED,
    "example": pl.Int64(),
    "sequence": pl.String(),  # source, target, free_running; prompt, sample (temperature 0.7); words, class, answer
    "position": pl.Int64(),  # from 1
    "token": pl.String(),
}

IMAGES: dict[str, pl.DataType] = {
    # examples as images, pixel by pixel
    **_MEASURED,
    "example": pl.Int64(),
    "image": pl.String(),  # input, reconstruction
    "frame": pl.Int64(),  # from 1
    "row": pl.Int64(),  # from 0, the topmost
    "column": pl.Int64(),  # from 0
    "brightness": pl.Float64(),
}

SETTINGS: dict[str, pl.DataType] = {
    # the plan of a study: one row per (grid, setting); its true axes follow as dotted columns
    "study": pl.String(),
    "grid": pl.String(),
    "position": pl.Int64(),
    "trial_id": pl.String(),
    "label": pl.String(),
    "variant": pl.String(),  # null where the grid has none; what a variant changes is in `trials` only
    "selected": pl.Boolean(),
}

SCHEMAS: dict[str, dict[str, pl.DataType]] = {
    "trials": TRIALS,
    "curves": CURVES,
    "traces": TRACES,
    "eigenvalues": EIGENVALUES,
    "gates": GATES,
    "jacobians": JACOBIANS,
    "lyapunov": LYAPUNOV,
    "truncation": TRUNCATION,
    "attention": ATTENTION,
    "breakdown": BREAKDOWN,
    "tokens": TOKENS,
    "images": IMAGES,
    "settings": SETTINGS,
}

TRIAL_TABLES = tuple(table for table in SCHEMAS if table != "settings")
"""The tables of a trial; `settings` belongs to a study."""

OPEN_TABLES = ("trials", "settings")
"""Tables that carry further dotted columns, the fields of the spec."""


LATER_COLUMNS = {"trials": {"num_timed_portions": pl.Int64(), "series_exponent": pl.Float64()}}
"""Columns that older code did not write; null in what it stored."""


def check(table: str, frame: pl.DataFrame, where: str) -> pl.DataFrame:
    """Return `frame` with its columns in declared order, and null in those of `LATER_COLUMNS` that it has not.

    Args:
        table: A key of `SCHEMAS`.
        frame: What is to be written, or was read.
        where: The file, for the error.

    Raises:
        TableError: If a column is missing, undeclared or of another type.
    """
    declared: Mapping[str, pl.DataType] = SCHEMAS[table]
    found = dict(frame.schema)
    if found == declared and list(found) == list(declared):
        return frame
    later = {column: dtype for column, dtype in LATER_COLUMNS.get(table, {}).items() if column not in found}
    frame = frame.with_columns(pl.lit(None, dtype).alias(column) for column, dtype in later.items())
    for column, dtype in declared.items():
        if column in later:
            continue
        if column not in found:
            raise TableError(f"{where}: table {table!r} lacks column {column!r} ({dtype})")
        if found[column] != dtype:
            raise TableError(f"{where}: {table}.{column}: expected {dtype}, got {found[column]}")
    extra = [column for column in found if column not in declared]
    undeclared = [column for column in extra if table not in OPEN_TABLES or "." not in column]
    if undeclared:
        raise TableError(f"{where}: table {table!r} has undeclared column {undeclared[0]!r}")
    return frame.select(*declared, *extra)
