"""Clones of the project as it lies here, in temporary folders, and commands that run in them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from tests.test_architecture import ROOT

LIMIT_S = 540
CACHES = ("gradient-dynamics", "matplotlib")
"""Folders of the user's cache that a clone's home has as well: compiled loops, which loops alone decide; fonts."""


class Clone:
    """What a user gets who clones the project; commands see the clone's code, and neither W&B keys nor a cluster."""

    def __init__(self, folder: Path, home: Path) -> None:
        self.folder, self.home = folder, home
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("WANDB_", "RAY_", "DVC_"))}
        self.environment = kept | {
            "HOME": str(home),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(folder),  # the code of the clone, not of the installed project
            "DVC_NO_ANALYTICS": "1",
            "DVC_SITE_CACHE_DIR": str(home / "dvc"),
            "GIT_CONFIG_GLOBAL": str(home / "gitconfig"),
            "XDG_CACHE_HOME": str(home / ".cache"),
        }
        (home / ".cache").mkdir(exist_ok=True)
        for name in CACHES:
            if not (link := home / ".cache" / name).exists():
                cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / name
                cache.mkdir(parents=True, exist_ok=True)
                link.symlink_to(cache)

    @classmethod
    def of_project(cls, folder: Path, home: Path) -> Clone:
        """Copy what git would commit, without dvc.lock, and commit it at scale smoke."""
        clone = cls(folder, home)
        listing = ("git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard")
        for name in clone.run(*listing).split("\0"):
            if name and (ROOT / name).is_file() and name != "dvc.lock":
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, folder / name)
        clone.edit("params.yaml", scale="smoke")
        for key, value in (("user.email", "somebody@example.org"), ("user.name", "Somebody")):
            clone.run("git", "config", "--global", key, value)
        clone.run("git", "init", "-q")
        clone.commit("A clone")
        return clone

    def run(self, *command: str, check: bool = True) -> str:
        """Return what a command printed."""
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=self.environment,
            timeout=LIMIT_S,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        assert not check or done.returncode == 0, done.stdout
        return done.stdout

    def commit(self, subject: str) -> None:
        """Commit everything that git does not ignore."""
        self.run("git", "add", "--all")
        self.run("git", "commit", "-qm", subject)

    def write(self, name: str, content: Any) -> None:
        """Make a YAML file."""
        (self.folder / name).write_text(yaml.safe_dump(content, sort_keys=False))

    def edit(self, name: str, **changed: Any) -> None:
        """Change keys of a YAML file."""
        path = self.folder / name
        path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | changed, sort_keys=False))
