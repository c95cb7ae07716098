from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
import torch
from torch import nn

from pipeline.figures.traced import draw_traces
from pipeline.trace import Traced, TraceError, trace


def traced_gru(num_passes: int, *, per_example: bool = False) -> Traced:
    torch.manual_seed(0)
    model, x = nn.GRU(2, 4, 2).double(), torch.ones(6, 3, 2, dtype=torch.float64)
    with trace(model, per_example=per_example) as traced:
        for _ in range(num_passes):
            model(x)[0][-1].sum().backward()
    return traced


def test_a_line_is_the_norm_by_lag_of_the_newest_pass() -> None:
    table = traced_gru(1).table
    (ax,) = draw_traces(table).axes
    assert ax.get_title(loc="left") == "GRU"
    for layer, line in enumerate(ax.lines):
        drawn = dict(zip(*line.get_data(), strict=True))
        assert drawn == dict(table.filter(layer=layer).select("lag", "log10_norm").iter_rows())
    assert [text.get_text().split("  ")[0] for text in ax.get_legend().get_texts()] == ["layer 1, h", "layer 2, h"]


def test_several_passes_have_a_heat_map_beside_it() -> None:
    table = traced_gru(3).table
    lines, heat, bar = draw_traces(table).axes
    assert (heat.get_ylabel(), bar.get_ylabel()) == ("backward pass", "")
    shown = heat.collections[0].get_array().reshape(3, 6)
    assert shown[0].tolist() == table.filter(backward=1, layer=1).sort("timestep")["log10_norm"].to_list()


def test_examples_are_drawn_together() -> None:
    drawn = [
        dict(zip(*draw_traces(traced_gru(1, per_example=each).table).axes[0].lines[0].get_data(), strict=True))
        for each in (False, True)
    ]
    assert drawn[0] == pytest.approx(drawn[1], abs=1e-12)


def test_a_gradient_of_zero_is_no_point() -> None:
    table = traced_gru(1).table.with_columns(log10_norm=pl.lit(float("-inf")))
    figure = draw_traces(table)
    assert figure.get_suptitle() == "The gradient by timestep"
    assert not any(len(line.get_xdata()) for line in figure.axes[0].lines)


def test_a_figure_is_saved_by_its_ending(tmp_path: Path) -> None:
    traced = traced_gru(1)
    for ending in ("png", "svg"):
        traced.plot(tmp_path / f"trace.{ending}")
        assert (tmp_path / f"trace.{ending}").stat().st_size > 1000
    with pytest.raises(TraceError, match=r"trace\.pdf: expected a name that ends in \.png or \.svg"):
        traced.plot(tmp_path / "trace.pdf")
