"""What people read: the pages of the site and reports/README.md, from the same content."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import polars as pl
from markupsafe import Markup

from pipeline.claims import VERDICTS, chance
from pipeline.figures.gradients import colour_ramp, heat_maps
from pipeline.quantities import Grid
from pipeline.quantities.decoding import decodes
from pipeline.quantities.outcomes import compares_cells, has_criterion
from pipeline.quantities.selection import fewer_settings
from pipeline.quantities.words import count, name_of, number

_HERE = Path(__file__).parent
_HERO = "gradient_heatmap"

MAX_ROWS = 200
"""Of a table of settings, or of what did not end well, a page shows at most so many rows, and says of how many."""

MAX_LINES = 24
"""Of the first training sequences of a dataset."""

MAX_TRIALS = 12
"""Of the trials behind a check a page names at most so many."""


@dataclass(frozen=True, kw_only=True)
class ShownFigure:
    """A figure of the report: where its files are, and its words.

    Attributes:
        path: Of its files below the site's folder, without the ending: «figures/cells/adding/gradient_by_lag».
        num_rows: Of the table of what is drawn.
    """

    kind: str
    path: str
    title: str
    caption: str
    num_rows: int


@dataclass(frozen=True, kw_only=True)
class ShownGrid:
    """A grid of the report: its settings, its figures and what did not end ok.

    Attributes:
        remarks: On the dataset: how many tokens are unknown, and what else of it is not as it was given.
        examples: Lines that show its first training sequences.
    """

    grid: Grid
    remarks: Sequence[str]
    examples: Sequence[str]
    settings: pl.DataFrame
    figures: Sequence[ShownFigure]
    failures: Sequence[Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True)
class ShownStudy:
    """A study of the report.

    Attributes:
        facts: What repeats it, as (term, texts).
    """

    name: str
    question: str
    grids: Sequence[ShownGrid]
    facts: Sequence[tuple[str, Sequence[str]]]

    @property
    def answer(self) -> ShownFigure | None:
        """The figure that stands for the study: the first of its first grid that has any."""
        return next((figure for grid in self.grids for figure in grid.figures), None)


def content(
    scale: str,
    studies: Sequence[ShownStudy],
    verdicts: pl.DataFrame,
    checks: pl.DataFrame,
    trials: pl.DataFrame,
    facts: Mapping[str, Any],
) -> dict[str, Any]:
    """Return everything that the templates of the index and of the README name."""
    hero = _hero(studies)
    claims = [row | {"checks": _checks(checks, trials, row["claim"])} for row in verdicts.iter_rows(named=True)]
    return {
        "scale": scale,
        "studies": [_of_study(study, claims) for study in studies],
        "hero": hero,
        "headline": hero["headline"] if hero else _headline(studies),
        "claims": claims,
        "chance": chance(checks),
        "marks": VERDICTS,
        "counts": {verdict: int((verdicts["verdict"] == verdict).sum()) for verdict in VERDICTS},
        **facts,
    }


def _checks(checks: pl.DataFrame, trials: pl.DataFrame, claim: str) -> list[dict[str, Any]]:
    """Return the checks of a claim, each with the trials behind it."""
    mine = trials.filter(claim=claim)
    rows = checks.filter(claim=claim).iter_rows(named=True)
    return [
        row
        | {"trials": mine.filter(check=place).to_dicts()[:MAX_TRIALS], "num_trials": mine.filter(check=place).height}
        for place, row in enumerate(rows, start=1)
    ]


def _of_study(study: ShownStudy, claims: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what the templates name of a study."""
    mine = [claim for claim in claims if claim["study"] == study.name]
    return {
        "name": study.name,
        "question": study.question,
        "claims": mine,
        "answer": study.answer,
        "sentence": _sentence(mine, study.answer),
        "grids": [_of_grid(shown, mine) for shown in study.grids],
        "facts": study.facts,
    }


def _sentence(claims: Sequence[Mapping[str, Any]], answer: ShownFigure | None) -> str:
    """Return what the ledger answers: each claim with its verdict and headline effect; without claims the finding."""
    if not claims:
        return f"{answer.title}." if answer else "No figure could be drawn yet."
    parts = [
        f"{claim['verdict']}, {_effect(claim, claim['checks'][0])}: {claim['statement'].rstrip('.')} ({claim['claim']})"
        for claim in claims
    ]
    text = "; ".join(parts)
    return f"{text[:1].upper()}{text[1:]}."


def _effect(claim: Mapping[str, Any], check: Mapping[str, Any]) -> str:
    """Return «0.60 [0.56, 0.65] where below 1 was expected»."""
    return f"{interval(claim['effect'], claim['low'], claim['high'])} where {check['expected']} was expected"


def _of_grid(shown: ShownGrid, claims: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    grid, settings = shown.grid, shown.settings
    rows = fewer_settings(settings, MAX_ROWS)
    cited: dict[str, list[str]] = {}
    for claim in claims:
        for check in claim["checks"]:
            for trial in check["trials"]:
                cited.setdefault(trial["trial_id"], []).append(claim["claim"])
    header, cells = shown_settings(grid, rows)
    return {
        "name": grid.name,
        "dataset": grid.dataset,
        "remarks": shown.remarks,
        "examples": shown.examples[:MAX_LINES],
        "figures": shown.figures,
        "num_settings": settings.height,
        "num_arms": len(grid.arms),
        "header": header,
        "settings": [_keyed(*pair, cited) for pair in zip(cells, rows.to_dicts(), strict=True)],
        "costs": shown_costs(rows),
        "ended": _ended(settings),
        "failures": shown.failures[:MAX_ROWS],
        "num_failures": len(shown.failures),
    }


def _keyed(cells: Sequence[str], row: Mapping[str, Any], cited: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    claims = list(dict.fromkeys(cited.get(row["trial_id"], ())))
    return {"cells": cells, "trial_id": row["trial_id"], "selected": row["selected"], "claims": claims}


def _ended(settings: pl.DataFrame) -> dict[str, int]:
    """Return how many replicas of all settings of a grid ended how; some count twice.

    Where no search stopped any, nothing is said of it.
    """
    ended = {ending: int(settings[f"num_{ending}"].sum()) for ending in ENDINGS}
    return {ENDINGS[ending]: number for ending, number in ended.items() if number or ending != "censored"}


ENDINGS = {
    "seeds": "replicas",
    "ok": "ok",
    "diverged": "exploded",
    "censored": "stopped by the search",
    "timed_out": "timed out",
    "error": "failed",
    "stopped_early": "stopped early",
    "not_converged": "not converged",
}
"""What `num_<ending>` of a setting's row counts, in the page's words."""


def _headline(studies: Sequence[ShownStudy]) -> str:
    answer = next((study.answer for study in studies if study.answer), None)
    return f"{answer.title if answer else 'No gradient was traced yet'}."


def _hero(studies: Sequence[ShownStudy]) -> dict[str, Any] | None:
    """Return the heat maps of the first grid that has some, a panel per arm and state, and the sentence they show."""
    for study in studies:
        for shown in study.grids:
            figure = next((figure for figure in shown.figures if figure.kind == _HERO), None)
            if figure is not None:
                return _panels(shown.grid, figure)
    return None


def _panels(grid: Grid, figure: ShownFigure) -> dict[str, Any]:
    maps, (low, high) = heat_maps(grid)
    panels = []
    for heat in maps:
        first, last, first_after, last_after = heat.corners
        alt = (
            f"{heat.name}: the gradient norm at t = 1 is {power(first)}, at t = {heat.num_timesteps} {power(last)} "
            f"before training; after {count(heat.steps[-1], 'step')} {power(first_after)} and {power(last_after)}"
        )
        png = base64.b64encode(heat.png).decode()
        panels.append({"heat": heat, "alt": alt, "source": f"data:image/png;base64,{png}"})
    ticks = [exponent for exponent in range(math.ceil(low), math.floor(high) + 1) if exponent % _every(high - low) == 0]
    lost = {stage: sorted((after(heat), heat.name) for heat in maps) for stage, after in _LOST.items()}
    before = _range([loss for loss, _ in lost["before"]])
    (least, slow), (most, fast) = lost["after"][0], lost["after"][-1]
    ends = f"{_loss(least)} ({slow}) to {_loss(most)} ({fast})" if slow != fast else _loss(least)
    last = max(heat.num_timesteps for heat in maps)
    return {
        "figure": figure,
        "study": grid.study,
        "dataset": grid.dataset,
        "panels": panels,
        "ramp": ", ".join(colour_ramp()),
        "ticks": [{"text": power(exponent), "place": 100 * (exponent - low) / (high - low or 1)} for exponent in ticks],
        "headline": f"On its way back over {count(last - 1, 'timestep')} the gradient loses {before} decades "
        f"before training, and {ends} after it.",
    }


_LOST: dict[str, Any] = {
    "before": lambda heat: heat.corners[1] - heat.corners[0],
    "after": lambda heat: heat.corners[3] - heat.corners[2],
}
"""By how many decades the gradient at t = 1 lies below that at t = T."""


def _loss(decades: float) -> str:
    """Return a loss in two digits; «none» where it is less than a quarter of a decade, or a gain as small."""
    return "none" if abs(decades) < 0.25 else number(decades, 2)


def _every(decades: float) -> int:
    return next((step for step in (1, 2, 4, 5, 10, 20, 50) if decades / step <= 6), 100)


def _range(values: Sequence[float]) -> str:
    low, high = number(min(values), 2), number(max(values), 2)
    return low if low == high else f"{low} to {high}"


def render(template: str, context: Mapping[str, Any]) -> bytes:
    """Return a template of this folder filled in; a name that it asks for and the context lacks is an error."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE),
        autoescape=jinja2.select_autoescape(["html.jinja"]),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"interval": interval, "cell": _cell, "power": power, "number": number, "whisker": whisker}
    environment.globals |= {"axis": axis}
    return environment.get_template(template).render(**context).encode()


def asset(name: str) -> bytes:
    """Return a file of this folder that the site has as it is."""
    return (_HERE / name).read_bytes()


def interval(value: float | None, low: float | None, high: float | None, percent: bool = False) -> str:
    """Return «0.0081 [0.0070, 0.0094]», «0.13 (exact)» where both ends are the value, «n/a» where there is none.

    Without an interval the value stands alone. What lies outside 1e-3 to 1e5 is in scientific notation.

    Digits are those that the interval's half-width gives meaning to: two of its own.
    """
    if value is None:
        return "n/a"
    scale, unit = (100.0, " %") if percent else (1.0, "")
    if low is None or high is None:
        return f"{number(scale * value)}{unit}"
    if low == high:
        return f"{number(scale * value)}{unit} (exact)"
    half = scale * (high - low) / 2
    if not 1e-7 < half < math.inf or abs(scale * value) >= _LARGE:
        return f"{number(scale * value)}{unit} [{number(scale * low)}, {number(scale * high)}]"
    places = max(0, 1 - math.floor(math.log10(half)))
    return f"{scale * value:.{places}f}{unit} [{scale * low:.{places}f}, {scale * high:.{places}f}]"


_LARGE = 1e5


def power(log10: float | None) -> str:
    """Return what a logarithm is of, in scientific notation: «3.2 × 10⁻¹²», «10⁻⁴» of a whole one."""
    if log10 is None or math.isnan(log10):
        return "n/a"
    if math.isinf(log10):
        return "0" if log10 < 0 else "∞"
    whole = math.floor(log10)
    lead = f"{10 ** (log10 - whole):.1f}"
    if lead == "10.0":
        lead, whole = "1.0", whole + 1
    raised = f"10{str(whole).translate(_RAISED)}"
    return raised if float(log10).is_integer() else f"{lead} × {raised}"


_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def distance(row: Mapping[str, Any], value: float | None) -> float | None:
    """Return how far a value lies from a check's threshold, above zero on the side that the claim expects.

    Of a ratio or another positive number the natural logarithm of their ratio, of a share the difference; of any other
    number the difference relative to the threshold, unless that is zero.
    """
    threshold = row["threshold"]
    if value is None or threshold is None:
        return None
    if row["kind"] == "ratio":
        found = math.log(value / threshold) if value > 0 and threshold > 0 else -math.inf
    elif row["kind"] == "share" or threshold == 0:
        found = value - threshold
    else:
        found = (value - threshold) / abs(threshold)
    return found if row["expected"].startswith("above") else -found


FINEST, COARSEST = 1e-3, 10.0
"""Distances at which the scale of the whiskers begins to be logarithmic, and ends."""


def place(found: float) -> float:
    """Return where a distance is drawn, from -1 to 1: linear within `FINEST`, logarithmic beyond, to `COARSEST`."""
    scaled = math.log1p(abs(found) / FINEST) / math.log1p(COARSEST / FINEST)
    return math.copysign(min(1.0, scaled), found)


def whisker(row: Mapping[str, Any]) -> Markup:
    """Return the dot and whisker of a check: its effect and interval as distances from the threshold, in the middle."""
    middle, *ends = (distance(row, row[side]) for side in ("effect", "low", "high"))
    ticks = "".join(f'<path class="tick" d="M{_x(sign * at)} 2V16"/>' for sign in (-1, 1) for at in (0.01, 0.1, 1.0))
    drawn = ""
    if middle is not None:
        known = [end for end in ends if end is not None]
        if known:
            drawn = f'<path class="bar" d="M{_x(min(known))} 9H{_x(max(known))}"/>'
        drawn += f'<circle cx="{_x(middle)}" cy="9" r="3.2"/>'
    return _svg(row["answer"], 18, f'{ticks}<path class="threshold" d="M100 0V18"/>{drawn}')


def _svg(kind: str, height: int, drawn: str) -> Markup:
    size = f'viewBox="0 0 200 {height}" width="200" height="{height}"'
    lead = f'<svg class="whisker {kind}" {size} aria-hidden="true" focusable="false">'
    return Markup(f"{lead}{drawn}</svg>")  # noqa: S704 - numbers only


def axis() -> Markup:
    """Return the scale of all whiskers: distances from the threshold in the middle."""
    named = {0.0: "0"} | {sign * at: f"{'−' if sign < 0 else ''}{at:g}" for sign in (-1, 1) for at in (0.1, 1.0)}
    texts = "".join(f'<text x="{_x(at)}" y="8">{text}</text>' for at, text in named.items())
    return _svg("axis", 14, texts)


def _x(found: float) -> str:
    return f"{100 + 95 * place(found):.1f}"


def shown_settings(grid: Grid, settings: pl.DataFrame) -> tuple[list[str], list[list[str]]]:
    """Return header and cells of a table of settings: what they are, how their seeds ended, what they reached."""
    axes = [column for column in settings.columns if "." in column and settings[column].is_not_null().any()]
    classify, criterion = settings["test_error"].is_not_null().any(), has_criterion(grid.runs)
    endings = [ending for ending in ENDINGS if ending in {"seeds", "ok"} or settings[f"num_{ending}"].sum()]
    header = ["cell" if compares_cells(grid) else "arm", "T"]
    header += [axis.rpartition(".")[2].replace("_", " ") for axis in axes]
    header += [ENDINGS[ending] for ending in endings]
    header += ["test loss"]
    header += ["wrong sequences" if decodes(grid) else "test error"] * classify
    header += ["reached criterion", "median step"] * criterion
    rows = []
    for row in settings.iter_rows(named=True):
        cells = [name_of(row["arm"]), str(row["length"]), *(_text(row[axis]) for axis in axes)]
        cells += [str(row[f"num_{ending}"]) for ending in endings]
        cells += [_interval_of(row, "test_loss")]
        cells += [_interval_of(row, "test_error", percent=True)] * classify
        if criterion:
            cells += [_interval_of(row, "solved_share", percent=True)]
            cells += [_never(row) if row["criterion_step"] is None else f"{row['criterion_step']:.0f}"]
        rows.append(cells)
    return header, rows


COSTS = ("parameters", "ms per step", "s per trial", "peak memory in MB", "gradient check error")


def shown_costs(settings: pl.DataFrame) -> list[list[str]]:
    """Return for each setting its label and `COSTS`: times are of all seeds together."""
    rows = []
    for row in settings.iter_rows(named=True):
        milliseconds = None if row["step_time_s"] is None else 1000 * row["step_time_s"]
        megabytes = None if row["peak_memory_bytes"] is None else row["peak_memory_bytes"] / 1e6
        parameters = "n/a" if row["num_parameters"] is None else f"{row['num_parameters']}"
        measured = (milliseconds, row["wall_time_s"], megabytes, row["gradient_check_error"])
        rows.append([name_of(row["label"]), parameters, *(number(value, 2) for value in measured)])
    return rows


def shown_failure(failure: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row of `failures` as the page shows it."""
    places = (("step", "diverged_step"), ("timestep", "diverged_timestep"), ("in", "diverged_quantity"))
    where = ", ".join(f"{word} {failure[key]}" for word, key in places if failure[key] is not None)
    first, _, rest = (failure["status_message"] or "no message").partition("\n")
    return {
        "label": failure["label"],
        "seeds": ", ".join(str(seed) for seed in failure["seed"]),
        "status": failure["status"].replace("_", " "),
        "where": where or "unknown",
        "message": first,
        "details": rest,
        "selected": failure["selected"],
    }


def _interval_of(row: Mapping[str, Any], name: str, *, percent: bool = False) -> str:
    return interval(row[name], row[f"{name}_low"], row[f"{name}_high"], percent)


def _text(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else "n/a" if value is None else str(value)


def _never(row: Mapping[str, Any]) -> str:
    return "n/a" if row["solved_share"] is None else "not reached"


def _cell(text: str) -> str:
    """Return text that may stand in a cell of a Markdown table."""
    return text.replace("|", r"\|").replace("\n", " ").replace("_", r"\_").replace("*", r"\*")
