"""Sequences as rows of text, one column a timestep, folded to the width of a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

PAGE_WIDTH = 110


def draw_rows(rows: Mapping[str, Sequence[str]]) -> str:
    """Return labelled rows of equally many cells, right-aligned under each other and folded together."""
    margin = max(map(len, rows))
    width = max(len(cell) for cells in rows.values() for cell in cells)
    num_timesteps, per_line = max(map(len, rows.values())), max(1, (PAGE_WIDTH - margin) // (width + 1))
    blocks = []
    for start in range(0, num_timesteps, per_line):
        chunk = slice(start, start + per_line)
        lines = (
            f"{label:>{margin}}  " + " ".join(f"{cell:>{width}}" for cell in cells[chunk])
            for label, cells in rows.items()
        )
        blocks.append("\n".join(line.rstrip() for line in lines))
    return "\n\n".join(blocks)
