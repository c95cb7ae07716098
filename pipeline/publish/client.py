"""The one module that imports wandb: sends a view as a run, quietly and within bounded time.

W&B can append to a history but never rewrite it, and the id of a deleted run never comes back. So a run is resumed
under its own id and only the rows beyond those on the server are logged. If the rows that are there say something
else (the trial was trained again, with another outcome), the old run is tagged "superseded" and the new history goes
to `<id>-<digest of its rows>`.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pipeline.config import Tracking
from pipeline.publish.mode import Mode
from pipeline.publish.views import Files, RunView

INIT_TIMEOUT_S = 15.0
FINISH_TIMEOUT_S = 60.0
REQUEST_TIMEOUT_S = 10.0
MAX_RETRIES = 1


def is_installed() -> bool:
    """Return whether wandb can be imported; a folder of that name, such as the run folders' own, does not count."""
    spec = importlib.util.find_spec("wandb")
    return spec is not None and spec.origin is not None


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
            view: What to show.
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

    def close(self) -> None:
        """End the service process, if there is one."""
        if self._started:
            import wandb

            self._started = False
            wandb.teardown()

    def _open(self, view: RunView, mode: Mode) -> Any:
        run = self._init(view, view.run_id, mode)
        published = run.config.get("published")
        if published is None or published["rows"] == view.rows_digest:
            return run
        run.tags = ("superseded",)
        run.finish()
        return self._init(view, f"{view.run_id}-{view.rows_digest[:8]}", mode)

    def _init(self, view: RunView, run_id: str, mode: Mode) -> Any:
        import wandb

        return wandb.init(
            id=run_id,
            name=view.name,
            group=view.group,
            job_type=view.job_type,
            project=self._tracking.project,
            entity=self._tracking.entity,
            mode=mode,
            resume="allow" if mode == "online" else None,
            reinit="create_new",
            settings=wandb.Settings(**self._settings(mode)),
        )

    def _settings(self, mode: Mode) -> dict[str, Any]:
        """Return what keeps a run quiet, cheap and bounded: no console, no system metrics, few and short retries."""
        key = {"api_key": self._api_key} if mode == "online" else {}
        return key | {
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
        }


def _fill(run: Any, view: RunView, pictures: Mapping[str, bytes]) -> None:
    """Log what the run does not have yet, then its pictures and tables as one row of their own."""
    num_logged, num_rows = run.starting_step, len(view.rows)
    published = {"rows": view.rows_digest, "view": view.digest}
    shown_already = num_logged > num_rows and run.config.get("published") == published
    run.config.update({**view.config, "published": published}, allow_val_change=True)
    run.define_metric("step", hidden=True)
    run.define_metric("*", step_metric="step")
    for position in range(num_logged, num_rows):
        run.log(view.rows[position], step=position)
    if not shown_already:
        _show(run, view, pictures, max(num_logged, num_rows))
    run.summary.update(view.summary)
    for files in view.artifacts:
        _log_artifact(run, files)


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


def _log_artifact(run: Any, files: Files) -> None:
    import wandb

    artifact = wandb.Artifact(files.name, files.type, metadata=dict(files.metadata))
    for path in files.paths:
        artifact.add_file(str(path), name=path.name)
    logged = run.log_artifact(artifact, aliases=["latest", *files.aliases])
    if not run.offline:
        logged.wait(timeout=FINISH_TIMEOUT_S)


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
