"""The one module that imports wandb: sends a view as a run, quietly and within bounded time.

W&B can append to a history but never rewrite it, and the id of a deleted run never comes back. So a run is resumed
under its own id and only the rows beyond those on the server are logged. If what is there cannot be the beginning of
this history (the trial was trained again, by other code or with another outcome), the old run is tagged "superseded"
and the new history goes to `<id>-<digest>`: of the code, or else of its rows.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.config import Tracking
from pipeline.publish.media import Chart, Histogram, Maps, Medium
from pipeline.publish.mode import Mode
from pipeline.publish.views import Files, RunView

INIT_TIMEOUT_S = 15.0
FINISH_TIMEOUT_S = 60.0
REQUEST_TIMEOUT_S = 10.0
MAX_RETRIES = 1
MAX_STREAM_RETRIES = 4
"""Of what is streamed to a server that answers 429 or 500: nobody waits, since the next run begins where this ended."""

LIVE_INTERVAL_S = 2
"""Between two portions of a live run's history; whole seconds, for W&B cuts fractions off and takes 0 for 15."""

SUPERSEDED = "superseded"


def is_installed(module: str) -> bool:
    """Return whether a module can be imported; a folder of its name, such as that of run folders, does not count."""
    spec = importlib.util.find_spec(module)
    return spec is not None and spec.origin is not None


def is_refused(error: BaseException) -> bool:
    """Return whether the server does not take the key, so that asking again is of no use.

    wandb's API calls a server that does not answer an error of authentication, too; its cause has no response then.
    """
    import wandb

    is_answered = error.__cause__ is None or getattr(error.__cause__, "response", None) is not None
    return (isinstance(error, wandb.errors.AuthenticationError) and is_answered) or "401" in str(error)


class Client:
    """A connection to W&B, made at the first send; one service process serves all runs.

    Args:
        folder: Where run folders go, `<...>/wandb`.
        tracking: Project and entity.
        api_key: What to log in with; None where everything is offline.
    """

    def __init__(self, folder: Path, tracking: Tracking, api_key: str | None) -> None:
        self._folder, self._tracking, self._api_key = folder, tracking, api_key
        self._started = False

    def send(self, view: RunView, pictures: Mapping[str, bytes], mode: Mode, staging: Path) -> None:
        """Write `view` as a run; raises whatever wandb raises.

        Args:
            view: What to show, of a trial that has ended.
            pictures: Its pictures as PNG, those that could be drawn.
            mode: `online` or `offline`.
            staging: Where files of artifacts are copied to and wait; offline they stay until a sync.
        """
        with _environment(self._folder, staging):
            self._started = True
            run = self._open(view, mode)
            try:
                _fill(run, view, pictures)
            except Exception:
                run.finish(exit_code=1)
                raise
            run.finish()

    def open_live(self, view: RunView, staging: Path) -> LiveRun | None:
        """Return the run of a trial under way, online; None where W&B has all of it already, of an earlier training."""
        with _environment(self._folder, staging):
            self._started = True
            run = self._open(view, "online", live=True)
        return None if run is None else LiveRun(run, lambda: _environment(self._folder, staging))

    def open_api(self) -> Any:
        """Return wandb's API, logged in; raises what wandb raises where the key is refused or nobody answers."""
        import wandb

        with _environment(self._folder, self._folder / "staging"):
            self._started = True
            return wandb.Api(timeout=int(REQUEST_TIMEOUT_S), api_key=self._api_key)

    def close(self) -> None:
        """End the service process, if there is one."""
        if self._started:
            import wandb

            self._started = False
            wandb.teardown()

    def _open(self, view: RunView, mode: Mode, *, live: bool = False) -> Any:
        """Return the first run under this view's ids that is new, or whose history begins as the view's does."""
        digests = [digest for digest in (view.code_digest, view.rows_digest if view.complete else None) if digest]
        ids = [view.run_id, *(f"{view.run_id}-{digest[:8]}" for digest in dict.fromkeys(digests))]
        for run_id in ids[:-1]:
            run = self._init(view, run_id, mode, live=live)
            published = run.config.get("published")
            if published is None or _begins(published, view):
                return run
            if live and published["rows"] is not None and published.get("code") == view.code_digest:
                run.finish()  # the same trial once more: its rows are there
                return None
            run.tags = (*view.tags, SUPERSEDED)
            run.finish()
        return self._init(view, ids[-1], mode, live=live)

    def _init(self, view: RunView, run_id: str, mode: Mode, *, live: bool) -> Any:
        import wandb

        return wandb.init(
            id=run_id,
            name=view.name,
            group=view.group,
            job_type=view.job_type,
            tags=view.tags,
            project=self._tracking.project,
            entity=self._tracking.entity,
            mode=mode,
            resume="allow" if mode == "online" else None,
            reinit="create_new",
            settings=wandb.Settings(**self._settings(mode, live=live)),
        )

    def _settings(self, mode: Mode, *, live: bool) -> dict[str, Any]:
        """Return what keeps a run quiet, cheap and bounded: no console, no system metrics, few and short retries."""
        key = {"api_key": self._api_key} if mode == "online" else {}
        often = {"x_file_stream_transmit_interval": LIVE_INTERVAL_S} if live else {}
        return (
            key
            | often
            | {
                "root_dir": str(self._folder.parent),
                "use_dot_wandb": False,
                "silent": True,
                "console": "off",
                "disable_git": True,
                "disable_code": True,
                "x_disable_stats": True,
                "x_disable_meta": True,
                "x_disable_machine_info": True,
                "x_save_requirements": False,
                "init_timeout": INIT_TIMEOUT_S,
                "finish_timeout": FINISH_TIMEOUT_S,
                "finish_timeout_raises": True,
                "x_graphql_retry_max": MAX_RETRIES,
                "x_graphql_timeout_seconds": REQUEST_TIMEOUT_S,
                "x_file_transfer_retry_max": MAX_STREAM_RETRIES,
                "x_file_stream_retry_max": MAX_STREAM_RETRIES,
                "x_file_stream_retry_wait_max_seconds": REQUEST_TIMEOUT_S,
                "x_file_stream_timeout_seconds": REQUEST_TIMEOUT_S,
            }
        )


class LiveRun:
    """A run that grows while its trial trains; made by `Client.open_live`."""

    def __init__(self, run: Any, environment: Any) -> None:
        self._run, self._environment = run, environment
        self.num_logged: int = run.starting_step
        _describe(run)

    def advance(self, view: RunView) -> None:
        """Log the rows that the run does not have yet."""
        with self._environment():
            if self.num_logged == 0 or not self._run.config.get("published"):
                self._run.config.update(_config(view), allow_val_change=True)
            for position in range(self.num_logged, len(view.rows)):
                _log_row(self._run, view, position)
            self.num_logged = max(self.num_logged, len(view.rows))
            self._run.summary.update(view.summary)

    def finish(self) -> None:
        """Send what is left and let go of the run, which may be taken up again."""
        with self._environment():
            self._run.finish()


def _begins(published: Mapping[str, Any], view: RunView) -> bool:
    """Return whether what W&B has of a run is a beginning of `view`, or all of it."""
    if published["rows"] is None:  # as far as a trial had come, and it goes on bit for bit under the same code
        return bool(published.get("code") == view.code_digest)
    return view.complete and bool(published["rows"] == view.rows_digest)


def _config(view: RunView) -> dict[str, Any]:
    rows, shown = (view.rows_digest, view.shown_digest) if view.complete else (None, None)
    return {**view.config, "published": {"code": view.code_digest, "rows": rows, "shown": shown}}


def _describe(run: Any) -> None:
    run.define_metric("step", hidden=True)
    run.define_metric("*", step_metric="step")


def _fill(run: Any, view: RunView, pictures: Mapping[str, bytes]) -> None:
    """Log what the run does not have yet, then its pictures and tables as one row of their own."""
    num_logged, num_rows = run.starting_step, len(view.rows)
    published = run.config.get("published") or {}
    shown_already = num_logged > num_rows and published.get("shown") == view.shown_digest
    run.config.update(_config(view), allow_val_change=True)
    _describe(run)
    for position in range(num_logged, num_rows):
        _log_row(run, view, position)
    if (view.tables or pictures) and not shown_already:
        _show(run, view, pictures, max(num_logged, num_rows))
    run.summary.update(view.summary)
    for files in view.inputs:
        _use_artifact(run, files, view)
    for files in view.artifacts:
        _log_artifact(run, files)


def _log_row(run: Any, view: RunView, position: int) -> None:
    """Log one row of the history, and with it the media of its step."""
    row = view.rows[position]
    with tempfile.TemporaryDirectory() as folder:
        media = view.media.get(int(row["step"]), {})
        shown = {name: _shown(medium, Path(folder), place) for place, (name, medium) in enumerate(media.items())}
        run.log({**row, **shown}, step=position, commit=True)


def _shown(medium: Medium, folder: Path, place: int) -> Any:
    """Return a medium as wandb has it; pictures are written to `folder` under names that begin with `place`."""
    import wandb

    if isinstance(medium, Histogram):
        return wandb.Histogram(np_histogram=(np.array(medium.amounts), np.array(medium.edges)))
    if isinstance(medium, Maps):
        images = []
        for number, (caption, draw) in enumerate(medium.pictures):
            path = folder / f"{place}-{number}.png"
            path.write_bytes(draw())
            images.append(wandb.Image(str(path), caption=caption))
        return images
    return _stepped(medium)


def _stepped(chart: Chart) -> Any:
    """Return a line chart of a table of every step, with W&B's own slider over steps."""
    import wandb
    from wandb.plot.custom_chart import CustomChart, CustomChartSpec

    class Stepped(CustomChartSpec):
        @property
        def config_value(self) -> dict[str, Any]:
            value: dict[str, Any] = super().config_value
            fields = value["panel_config"]["userQuery"]["queryFields"][0]["fields"]
            for asked in fields:
                if asked["name"] == "summaryTable":
                    asked["name"] = "historyTable"  # of every step, where the summary has the last one
            value["panel_config"]["showStepSelector"] = True
            return value

    table = wandb.Table(columns=[*chart.rows.columns], data=[list(row) for row in chart.rows.iter_rows()])
    fields = {"x": chart.x, "y": chart.y, "stroke": chart.stroke, "title": chart.title}
    return CustomChart(table=table, spec=Stepped("wandb/line/v0", fields, {"title": chart.title}))


def _show(run: Any, view: RunView, pictures: Mapping[str, bytes], position: int) -> None:
    import wandb

    with tempfile.TemporaryDirectory() as folder:
        shown: dict[str, Any] = {"step": view.rows[-1]["step"] if view.rows else 0}
        for name, data in pictures.items():
            path = Path(folder) / f"{len(shown)}.png"  # a name of its own: `name` may have a slash
            path.write_bytes(data)
            shown[name] = wandb.Image(str(path))
        for name, table in view.tables.items():
            cells = [list(row) for row in table.iter_rows()]
            shown[name] = wandb.Table(columns=list(table.columns), data=cells, allow_mixed_types=True)
        run.log(shown, step=position)


def _use_artifact(run: Any, files: Files, view: RunView) -> None:
    """Say that a run was made of an artifact; offline, where W&B cannot, a study keeps its datasets as its own."""
    if not run.offline:
        run.use_artifact(_artifact(files), aliases=["latest", *files.aliases])
    elif view.job_type == "study" and files.type == "dataset":
        _log_artifact(run, files)


def _log_artifact(run: Any, files: Files) -> None:
    logged = run.log_artifact(_artifact(files), aliases=["latest", *files.aliases])
    if not run.offline:
        logged.wait(timeout=FINISH_TIMEOUT_S)


def _artifact(files: Files) -> Any:
    import wandb

    artifact = wandb.Artifact(files.name, files.type, metadata=dict(files.metadata))
    for path in files.paths:
        artifact.add_file(str(path), name=path.name)
    with tempfile.TemporaryDirectory() as folder:
        for name, text in files.texts.items():
            path = Path(folder) / name
            path.write_text(text, encoding="utf-8")
            artifact.add_file(str(path), name=name)  # which copies it
    return artifact


@contextlib.contextmanager
def _environment(folder: Path, staging: Path) -> Iterator[None]:
    """Keep W&B inside `folder` and silent, where the user has not said otherwise; put everything back after."""
    wanted = {
        "WANDB_DATA_DIR": str(staging),
        "WANDB_CACHE_DIR": str(folder / "cache"),
        "WANDB_CONFIG_DIR": str(folder / "config"),
        "WANDB_SILENT": "true",
        "WANDB_ERROR_REPORTING": "false",
    }
    added = {name: value for name, value in wanted.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)
