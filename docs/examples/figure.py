"""Which cell takes how long per training step, and whether the fastest is ahead of the next one."""

from pipeline.figures.findings import best_and_next
from pipeline.figures.frame import Axis, Dots
from pipeline.quantities.outcomes import step_time_s
from pipeline.quantities.words import number

step_time = Dots(
    name="step_time",
    rows=step_time_s,
    x=Axis(label="time of a step in s", limits=(0, None)),
    title=lambda view: best_and_next(
        step_time_s, view.rows, "step time", lambda seconds: f"{number(1000 * seconds)} ms", lead="Fastest steps"
    ),
    about="Seconds per training step of all replicas together on {dataset} at T = {T}: {seeds} with {interval}.",
)
