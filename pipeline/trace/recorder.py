"""`Recorder`: what happens in a training loop of one's own, as tables that the pipeline's figures are made of."""

from __future__ import annotations

import hashlib
import json
import math
import platform
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
import torch
from torch import Tensor, nn

from pipeline.core import clipping
from pipeline.core.clipping import ClippingRule
from pipeline.core.training.rows import FACTS
from pipeline.errors import TableError, unknown_name
from pipeline.results import SCHEMAS, check, write_table
from pipeline.trace.tracing import TRACEABLE, Traced, TraceError
from pipeline.trace.windows import Bias

CELLS = {"LSTM": "lstm", "GRU": "gru", "RNN": "elman"}
"""The pipeline's name of torch's recurrent modules."""

PORTION = 256
"""Updates whose numbers stay on their device before they are gathered."""

_Numbers = tuple[int, tuple[tuple[str, str], ...], Tensor]
"""Of a step: metric and part of each, and their values, still on their device."""

LOSS = (("loss", ""),)
LEDGER = ("grad_norm", "clipped_grad_norm", "clip_cosine")


class _Clipped(NamedTuple):
    """What clipping did to a gradient: its norms before and after, and the dot product of both; () each, float64."""

    before: Tensor
    after: Tensor
    dot: Tensor

    @staticmethod
    def of(grad: Tensor, applied: Tensor) -> _Clipped:
        before, after = (clipping.norms(each[None])[0] for each in (grad, applied))
        return _Clipped(before, after, grad.double() @ applied.double())

    def ledger(self) -> Tensor:
        """Return the numbers of `LEDGER`, (3,); see `clipping.compare`."""
        are_zero = (self.before == 0) & (self.after == 0)
        return torch.stack([self.before, self.after, torch.where(are_zero, 1.0, self.dot / (self.before * self.after))])


class Recorder:
    """Keeps what happens in a training loop; `write` makes tables of it.

        recorder = Recorder(model, every=100)
        for x, y in batches:
            optimiser.zero_grad()
            loss = criterion(model(x), y)
            loss.backward()
            recorder.clip_(model.parameters(), GlobalNorm(threshold=1.0))
            optimiser.step()
            recorder.step(loss)
        recorder.write("results/mine")

    Steps are counted as the pipeline counts them: the first update leads from step 0 to step 1, and a trace at step s
    is of the parameters after s updates; of several backward passes before a step the newest counts, of several calls
    of a module the last. Where sequences differ in length from step to step, their ends are at one timestep, that of
    the longest. At a step with a trace the model's numbers change by rounding, see `trace`.

    Args:
        model: Whose states are traced.
        every: Trace at step 0 and every so many steps; None never does, and any model will do.
        name: What the run is called in tables and figures; runs that differ in `seed` alone share it.
        seed: Of the run.
        settings: What else sets it apart, by dotted name: `{"optimiser.learning_rate": 0.01}`.
        parts: What a recurrent module is called in the tables, by its name in the model: "encoder", "decoder". A model
            with one has the part "recurrent".
        float64: Whether traces are in float64; see `trace`.

    Raises:
        TraceError: If the model cannot be traced, `parts` names no module of it, `every` is below 1, or a setting is no
            plain value with a dotted name.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        every: int | None = 100,
        name: str = "recorded",
        seed: int = 0,
        settings: Mapping[str, bool | float | str | None] | None = None,
        parts: Mapping[str, str] | None = None,
        float64: bool = True,
    ) -> None:
        if every is not None and every < 1:
            raise TraceError(f"every: expected an integer of at least 1, or None; got {every!r}")
        self.model, self.every, self.name, self.seed = model, every, name, seed
        self.settings = {key: _plain(key, value) for key, value in (settings or {}).items()}
        self.parts, self.float64, self.num_steps = dict(parts or {}), float64, 0
        self._names: dict[Tensor, str] = {parameter: name for name, parameter in model.named_parameters()}
        self._num_own = len(self._names)
        modules = dict(model.named_modules())
        if unknown := sorted(set(self.parts) - set(modules)):
            raise TraceError(f"parts: {unknown_name('module', unknown[0], modules)}")
        self._pending: list[_Numbers] = []
        self._clipped: dict[str, _Clipped] = {}
        self._frames: dict[str, list[pl.DataFrame]] = {table: [] for table in SCHEMAS}
        self._rules: dict[tuple[str, tuple[str, ...]], tuple[ClippingRule, clipping.State]] = {}
        self._losses: dict[tuple[str, str], list[tuple[int, float]]] = {}
        self._began = time.perf_counter()
        self._traced: Traced | None = None
        self._begin()

    def clip_(self, parameters: Iterable[Tensor], rule: ClippingRule) -> Tensor:
        """Clip the gradients of parameters in place by a rule, and keep what it did, in all and by parameter.

        Several calls before a step, of an encoder and a decoder, are one update; of two for one parameter the last
        counts.

        Args:
            parameters: Those without a gradient are left out, as torch does.
            rule: Of `pipeline.core.clipping`. What it remembers of earlier updates is kept by its name and fields, and
                by the parameters.

        Returns:
            The norm of these gradients together before clipping, (), float64.

        Raises:
            TraceError: If the rule clips inside the recurrence.
        """
        if rule.state_threshold is not None:
            raise TraceError(
                f"clip_: {rule.name} clips inside the recurrence, where only the pipeline's own networks do"
            )
        given = {self._name_of(parameter): parameter for parameter in parameters}
        grads = {name: parameter.grad for name, parameter in given.items() if parameter.grad is not None}
        if not grads:
            return torch.zeros((), dtype=torch.float64)
        params = {name: given[name].detach()[None] for name in grads}
        key = (repr(rule), tuple(given))
        _, state = self._rules.get(key, (rule, None))
        grad_1P = torch.cat([grad.detach().flatten() for grad in grads.values()])[None]
        if state is None or (state and len(state[0]) != 1):
            state = rule.init(params)
        applied_1P, state, ledger = clipping.clip(rule, grad_1P, state, params)
        self._rules[key] = (rule, state)
        sizes = [grad.numel() for grad in grads.values()]
        pieces = [each[0].split(sizes) for each in (grad_1P, applied_1P)]
        if applied_1P is not grad_1P:
            for grad, applied in zip(grads.values(), pieces[1], strict=True):
                grad.copy_(applied.view_as(grad))
        for name, before, after in zip(grads, *pieces, strict=True):
            self._clipped[name] = _Clipped.of(before, after)
        return ledger.grad_norm[0]

    def step(self, loss: Tensor | float | None = None) -> None:
        """Count an update, keep its training loss, and take or begin the trace that is due; call it after the update.

        Raises:
            TraceError: If a trace was due and no backward pass reached a traced call.
        """
        self._take()
        self.num_steps += 1
        if self._clipped:
            self._pending.append(self._of_clipping(self.num_steps))
            self._clipped = {}
        if loss is not None:
            value = torch.as_tensor(loss, dtype=torch.float64).detach().reshape(1)
            self._pending.append((self.num_steps, LOSS, value))
        if len(self._pending) >= PORTION:
            self._gather()
        self._begin()

    def log(self, metric: str, value: Tensor | float, split: str = "validation") -> None:
        """Keep a number at the present step: `loss` or `error` of a split (train, validation, test), or any other."""
        number = float(value.detach() if isinstance(value, Tensor) else value)
        self._losses.setdefault((metric, split), []).append((self.num_steps, number))
        self._frames["curves"].append(_curves([self.num_steps], [metric], [number], split=[split]))

    def note_bias(self, biases: Sequence[Bias]) -> None:
        """Keep what the meter of a truncated window found, in the table `truncation`."""
        rows = {name: [each._asdict()[name] for each in biases] for name in Bias._fields}
        unknown = dict.fromkeys(("log10_phi", "decay_factor", "relative_bias_bound"), math.nan)
        self._frames["truncation"].append(_frame("truncation", rows | unknown | {"step": self.num_steps}))

    @property
    def ledger(self) -> pl.DataFrame:
        """What clipping did: `step`, `parameter` (null: all together), the norms before and after, and their cosine."""
        rows = self._joined("curves").with_columns(pl.col("metric").str.strip_prefix("parameter_"))
        rows = rows.filter(pl.col("metric").is_in(LEDGER), pl.col("split").is_null()).rename({"part": "parameter"})
        wide = rows.pivot(on="metric", index=["step", "parameter"], values="value", maintain_order=True)
        return wide.select("step", "parameter", *(name for name in LEDGER if name in wide.columns))

    @property
    def trial_id(self) -> str:
        """The same for runs that differ in their seed alone."""
        meaning = json.dumps({"name": self.name, **self._spec()}, sort_keys=True, default=str)
        return hashlib.sha256(meaning.encode()).hexdigest()[:16]

    def close(self) -> None:
        """Trace no more; `write` does it, too."""
        if self._traced is not None:
            self._traced.stop()
            self._traced = None

    def tables(self) -> dict[str, pl.DataFrame]:
        """Return the pipeline's tables of this run."""
        own = [pl.lit(self.trial_id).alias("trial_id"), pl.lit(self.seed, pl.Int64()).alias("seed")]
        tables = {
            table: check(table, self._joined(table).with_columns(own), self.name)
            for table in SCHEMAS
            if table not in {"trials", "settings"}
        }
        tables["traces"] = _ending_together(tables["traces"])
        return tables | {"trials": check("trials", self._trial(), self.name)}

    def write(self, folder: str | Path) -> Path:
        """Write the tables of this run alone, as `write_recorded` does, trace no more, and return the folder."""
        return write_recorded([self], folder)

    def _begin(self) -> None:
        if self.every is not None and self.num_steps % self.every == 0:
            self._traced = Traced(self.model, float64=self.float64)
            self._traced.start()

    def _take(self) -> None:
        """Keep the norms that were due, if any were."""
        if self._traced is None:
            return
        traced = self._traced
        self.close()
        rows = traced.table.filter(pl.col("backward") == pl.col("backward").max())
        rows = rows.filter(pl.col("call") == pl.col("call").max().over("module"))
        named = {name: self.parts.get(name, name) for name in rows["module"].unique()}
        if sum(isinstance(module, TRACEABLE) for module in self.model.modules()) == 1 and not self.parts:
            named = dict.fromkeys(named, "recurrent")
        rows = rows.with_columns(part=pl.col("module").replace_strict(named, return_dtype=pl.String()))
        columns = rows.rename({"state": "quantity"}).with_columns(step=pl.lit(self.num_steps, pl.Int64()))
        self._frames["traces"].append(columns.select(n for n in SCHEMAS["traces"] if n not in {"trial_id", "seed"}))

    def _name_of(self, parameter: Tensor) -> str:
        """Return a parameter's name in the model, or a number for what is not in it."""
        return self._names.setdefault(parameter, f"parameter {len(self._names) - self._num_own}")

    def _of_clipping(self, step: int) -> _Numbers:
        """Return what clipping has done since the last step, in all and by parameter."""
        device = next(iter(self._clipped.values())).before.device
        each = [_Clipped(*(number.to(device) for number in clipped)) for clipped in self._clipped.values()]
        before, after, dot = (torch.stack(numbers) for numbers in zip(*each, strict=True))
        whole = _Clipped(torch.linalg.vector_norm(before), torch.linalg.vector_norm(after), dot.sum())
        facts = [(metric, "") for metric in LEDGER]
        facts += [(f"parameter_{metric}", name) for name in self._clipped for metric in LEDGER]
        return step, tuple(facts), torch.cat([clipped.ledger() for clipped in (whole, *each)])

    def _gather(self) -> None:
        """Bring the numbers of updates from their device, all at once."""
        if not self._pending:
            return
        curves = _curves_of(self._pending)
        self._frames["curves"].append(curves)
        self._losses.setdefault(("loss", "train"), []).extend(
            curves.filter(metric="loss").select("step", "value").rows()
        )
        self._pending = []

    def _joined(self, table: str) -> pl.DataFrame:
        """Return a table's rows, with those of an update that is not yet counted."""
        self._gather()
        schema = {name: dtype for name, dtype in SCHEMAS[table].items() if name not in {"trial_id", "seed"}}
        is_open = table == "curves" and self._clipped
        latest = [_curves_of([self._of_clipping(self.num_steps + 1)])] if is_open else []
        return pl.concat([pl.DataFrame(schema=schema), *self._frames[table], *latest])

    def _spec(self) -> dict[str, Any]:
        """Return what the run is, by dotted name: what was given, the cell, and the clipping rule."""
        kinds = [CELLS.get(type(m).__name__.removesuffix("Cell"), "") for m in self.model.modules()]
        cells = list(dict.fromkeys(kind for kind in kinds if kind))
        spec: dict[str, Any] = {"dataset.name": "own", "dataset.length": None}
        spec |= {"model.cell": cells[0] if len(cells) == 1 else " + ".join(cells) or type(self.model).__name__}
        for rule, _ in list(self._rules.values())[-1:]:
            spec |= {f"clipping.{name}": value for name, value in vars(rule).items()}
        return spec | self.settings

    def _trial(self) -> pl.DataFrame:
        validation, training = (self._losses.get(("loss", split), []) for split in ("validation", "train"))
        finite = [(value, step) for step, value in validation if math.isfinite(value)]
        best, knows_untrained = min(finite, default=(None, None)), any(step == 0 for step, _ in validation)
        has_diverged = bool(training) and not math.isfinite(training[-1][1])
        last_finite = max((step for step, value in training if math.isfinite(value)), default=0)
        shares = self.ledger.filter(pl.col("parameter").is_null()) if self._rules else None
        wall = time.perf_counter() - self._began
        row: dict[str, Any] = {
            "trial_id": self.trial_id,
            "seed": self.seed,
            "spec": json.dumps(self._spec(), sort_keys=True),
            "status": "diverged" if has_diverged else "ok",
            "status_message": f"the training loss was {training[-1][1]:g} at the end" if has_diverged else None,
            "diverged_step": next(step for step, _ in training if step > last_finite) if has_diverged else None,
            "diverged_quantity": "loss" if has_diverged else None,
            "num_steps": self.num_steps,
            "best_step": best[1],
            "best_validation_loss": best[0],
            "final_validation_loss": finite[-1][0] if finite else None,
            "beat_untrained": best[1] > 0 if best[1] is not None and knows_untrained else None,
            "clipped_share": None if shares is None else (shares["clipped_grad_norm"] < shares["grad_norm"]).mean(),
            "num_parameters": sum(parameter.numel() for parameter in self.model.parameters()),
            "wall_time_s": wall,
            "step_time_s": wall / self.num_steps if self.num_steps else None,
            "device": str(next((parameter.device for parameter in self.model.parameters()), "cpu")),
            "torch_version": torch.__version__,
            "python_version": platform.python_version(),
        }
        for metric in ("loss", "error"):
            tested = self._losses.get((metric, "test"), [])
            row[f"test_{metric}"] = tested[-1][1] if tested else None
        frame = pl.DataFrame([dict.fromkeys(SCHEMAS["trials"]) | row], schema=SCHEMAS["trials"])
        return frame.with_columns(_literal(value).alias(name) for name, value in self._spec().items())


def write_recorded(recorders: Sequence[Recorder], folder: str | Path) -> Path:
    """Write the tables of several runs as those of one study, whose name is the folder's, and return the folder.

    Its one grid is `recorded`; every name is an arm, and runs of one name that differ in their seed are its replicas.

    Raises:
        TableError: If there is no run, two are the same trial and seed, or the folder cannot be written.
    """
    folder = Path(folder)
    if not recorders:
        raise TableError(f"{folder}: expected at least one recorder, got none")
    seen: set[tuple[str, int]] = set()
    for recorder in recorders:
        recorder.close()
        if (recorder.trial_id, recorder.seed) in seen:
            raise TableError(f"{folder}: two recorded runs are {recorder.name!r} with seed {recorder.seed}")
        seen.add((recorder.trial_id, recorder.seed))
    found = [recorder.tables() for recorder in recorders]
    tables = {table: pl.concat([each[table] for each in found], how="diagonal_relaxed") for table in found[0]}
    tables["traces"] = _ending_together(tables["traces"])
    arms = {recorder.trial_id: recorder.name for recorder in recorders}
    settings = {
        "study": (folder.resolve() if folder.name in {"", ".."} else folder).name,
        "grid": "recorded",
        "position": range(len(arms)),
        "trial_id": list(arms),
        "label": list(arms.values()),
        "variant": list(arms.values()),
        "selected": True,
    }
    tables["settings"] = pl.DataFrame(settings, schema=SCHEMAS["settings"])
    for table, frame in tables.items():
        write_table(table, frame, folder)
    return folder


def _curves(steps: Sequence[int], metrics: Sequence[str], values: Sequence[float], **facts: Any) -> pl.DataFrame:
    return _frame("curves", {"step": steps, "metric": metrics, "value": values} | dict.fromkeys(FACTS) | facts)


def _curves_of(pending: Sequence[_Numbers]) -> pl.DataFrame:
    """Return the rows of numbers of updates, brought from their device all at once."""
    values = torch.cat([values.cpu() for *_, values in pending]).tolist()
    steps = [step for step, facts, _ in pending for _ in facts]
    metrics, parts = zip(*(fact for _, facts, _ in pending for fact in facts), strict=True)
    splits = ["train" if metric == "loss" else None for metric in metrics]
    return _curves(steps, metrics, values, split=splits, part=[part or None for part in parts])


def _ending_together(traces: pl.DataFrame) -> pl.DataFrame:
    """Return traces whose sequences of a part end at one timestep: a lag is counted from there."""
    end = pl.col("timestep").max()
    later = end.over("trial_id", "part") - end.over("trial_id", "seed", "step", "part")
    return traces.with_columns(pl.col("timestep") + later)


def _frame(table: str, columns: Mapping[str, Any]) -> pl.DataFrame:
    schema = {name: dtype for name, dtype in SCHEMAS[table].items() if name not in {"trial_id", "seed"}}
    return pl.DataFrame({name: columns[name] for name in schema}, schema=schema)


def _plain(key: str, value: Any) -> bool | float | str | None:
    """Return the value of a setting, a number of NumPy or torch as Python's own.

    Raises:
        TraceError: If it is anything that a column cannot have, or its name is none of a column.
    """
    if "." not in key:
        raise TraceError(f"settings: expected dotted names, such as 'optimiser.learning_rate'; got {key!r}")
    found = value.item() if hasattr(value, "item") and getattr(value, "ndim", 0) == 0 else value
    if not any(type(found) is kind for kind in (bool, int, float, str, type(None))):
        expected = "a number, a text, True, False or None"
        raise TraceError(f"settings: {key}: expected {expected}; got {value!r} ({type(value).__name__})")
    return found


def _literal(value: Any) -> pl.Expr:
    kinds: dict[type, Callable[[], pl.DataType]] = {bool: pl.Boolean, int: pl.Int64, float: pl.Float64, str: pl.String}
    return pl.lit(value, kinds.get(type(value), pl.Int64)())
