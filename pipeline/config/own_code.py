"""Code of a user's own: where a module's source lies, and which modules of the user's own it is made of.

A module is a user's own where its file lies outside the folders in which Python keeps what is installed. An installed
package counts by its version; of the standard library nothing counts.
"""

from __future__ import annotations

import ast
import functools
import importlib.metadata
import importlib.util
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

INSTALLED = tuple({Path(sysconfig.get_path(kind)).resolve() for kind in ("stdlib", "platstdlib", "purelib", "platlib")})
"""Where this Python keeps what is installed; another's keeps it in folders of these names."""
INSTALLED_NAMES = {"site-packages", "dist-packages"}


@functools.cache
def top_folders(top: str) -> tuple[Path, ...]:
    """Return the folders in which a top-level module or package of a user's own lies; none for what is installed."""
    try:
        found = None if top in sys.stdlib_module_names else importlib.util.find_spec(top)
    except (ImportError, ValueError):  # __main__, for instance
        found = None
    if found is None:
        return ()
    places = [Path(place) for place in found.submodule_search_locations or [found.origin or ""]]
    folders = tuple(place.resolve().parent for place in places if place != Path())
    return tuple(
        folder
        for folder in folders
        if not INSTALLED_NAMES & {*folder.parts} and not any(folder.is_relative_to(one) for one in INSTALLED)
    )


def own_source(module: str) -> Path | None:
    """Return the file of a module of a user's own; None for one that is installed, or that there is not."""
    top, *parts = module.split(".")
    for folder in top_folders(top):
        for path in (folder.joinpath(top, *parts, "__init__.py"), folder.joinpath(top, *parts).with_suffix(".py")):
            if path.is_file():
                return path
    return None


def version_of(module: str) -> str | None:
    """Return name and version of the installed package that a module belongs to."""
    names = importlib.metadata.packages_distributions().get(module.partition(".")[0], [])
    return " ".join(f"{name} {importlib.metadata.version(name)}" for name in sorted(set(names))) or None


def own_files(module: str) -> dict[str, Path]:
    """Return the files of the user's own modules that a module is made of, itself among them, by their names."""
    found: dict[str, Path] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name in found or (path := own_source(name)) is None:
            continue
        found[name] = path
        is_package = path.name == "__init__.py"
        waiting += [name if is_package else name.rpartition(".")[0]]
        try:
            tree = ast.parse(path.read_bytes())
        except (SyntaxError, ValueError, OSError):  # `plan` says so
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                waiting += [alias.name for alias in node.names]
            for _, source in imports_of(node, name, is_package):
                waiting += [source[0], ".".join(filter(None, source))]
    return found


def imports_of(node: ast.AST, module: str, is_package: bool) -> Iterator[tuple[str, tuple[str, str]]]:
    """Yield the names that an import in a module binds, and where they come from: a module, and a name there or ""."""
    if isinstance(node, ast.Import):
        for alias in node.names:
            top = alias.name.partition(".")[0]
            yield (alias.asname, (alias.name, "")) if alias.asname else (top, (top, ""))
    elif isinstance(node, ast.ImportFrom):
        parts = module.split(".")
        above = ".".join(parts[: len(parts) - node.level + is_package]) if node.level else ""
        source = ".".join(part for part in (above, node.module) if part)
        for alias in node.names:
            yield alias.asname or alias.name, (source, alias.name)
