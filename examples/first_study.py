"""One study at smoke scale, from its datasets to its figures, in a workspace of its own: a first look.

    python examples/first_study.py            # what `make try` runs

Nothing of the project changes: the workspace, .try/, has a params.yaml of its own with one study and the scale `smoke`,
and the stages run in it as `dvc repro` would run them. Numbers at smoke scale show that it runs, and nothing else.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

from pipeline.config import Paths, expand, load_study, read_yaml
from pipeline.config.digests import named_files

ROOT = Path(__file__).resolve().parents[1]
SCALE = "smoke"


def main(arguments: list[str] | None = None) -> int:
    """Run prepare, sweep and report for one study; return the exit status of the stage that failed, or 0."""
    parser = argparse.ArgumentParser(description="Run one study at smoke scale in a workspace of its own.")
    parser.add_argument("study", nargs="?", default="cells", help="a name under configs/studies")
    parser.add_argument("--workspace", type=Path, default=ROOT / ".try")
    asked = parser.parse_args(arguments)

    # The project's configuration, cut down to one study and the datasets that its settings name.
    workspace = Paths.at(asked.workspace)
    settings = expand(load_study(Paths.at(ROOT), asked.study), SCALE, f"configs/studies/{asked.study}.yaml")
    datasets = list(dict.fromkeys(setting.spec["dataset"]["name"] for setting in settings))
    shutil.rmtree(workspace.root / "configs", ignore_errors=True)
    shutil.copytree(ROOT / "configs", workspace.root / "configs")
    params = read_yaml(ROOT / "params.yaml")
    params |= {"scale": SCALE, "datasets": datasets, "studies": [asked.study], "trial_store": None}
    params["tracking"]["mode"] = "disabled"
    workspace.params.write_text(yaml.safe_dump(params, sort_keys=False), encoding="utf-8")

    # Files of one's own, which datasets name from the project's folder on.
    for name in datasets:
        for _, _, file in named_files(ROOT, read_yaml(workspace.dataset_config(name))):
            link = workspace.root / file.relative_to(ROOT) if file.is_relative_to(ROOT) else file
            if not link.is_file():
                link.parent.mkdir(parents=True, exist_ok=True)
                link.unlink(missing_ok=True)
                link.symlink_to(file)

    # The stages are plain programs; DVC only decides which of them are stale.
    stages = [["prepare.py", name, "--project", "."] for name in datasets]
    stages += [["sweep.py", asked.study], ["report.py"]]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    for script, *rest in stages:
        command = [sys.executable, str(ROOT / "stages" / script), *rest]
        done = subprocess.run(command, cwd=workspace.root, env=environment, check=False)  # noqa: S603
        if done.returncode:
            return done.returncode
    (page,) = workspace.reports.rglob("index.html")
    print(f"the figures are in {workspace.reports}, the page is {page}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
