from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
import yaml
from torch import nn
from torch.nn.modules import module as nn_module

from pipeline.config import Paths, load_study
from pipeline.core.clipping import AutoClip, ClippingRule, GlobalNorm, StateNorm, Value
from pipeline.errors import TableError
from pipeline.figures.catalogue import FIGURES, figures_of
from pipeline.quantities import Grid, grids_of
from pipeline.report import build_report
from pipeline.results import SCHEMAS, read_table
from pipeline.trace import Bias, Recorder, TraceError, trace, write_recorded
from tests.test_architecture import ROOT

T, B = 8, 6
RULES = {"short": GlobalNorm(threshold=0.05), "cut": Value(threshold=0.002)}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.readout = nn.LSTM(2, 5, batch_first=True), nn.Linear(5, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.readout(self.rnn(x)[0][:, -1])


def net(seed: int = 0) -> Net:
    torch.manual_seed(seed)
    return Net()


def data(step: int) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(B, T, 2, generator=torch.Generator().manual_seed(step))
    return x, x[:, 2, :1]


def train(model: Net, rule: ClippingRule, recorder: Recorder | None, num_steps: int = 9) -> None:
    optimiser = torch.optim.SGD(model.parameters(), lr=0.5)
    for step in range(num_steps):
        x, y = data(step)
        optimiser.zero_grad()
        loss = nn.functional.mse_loss(model(x), y)
        loss.backward()
        if recorder is None:
            torch.nn.utils.clip_grad_norm_(model.parameters(), rule.threshold)  # type: ignore[attr-defined]
        else:
            recorder.clip_(model.parameters(), rule)
        optimiser.step()
        if recorder is not None:
            recorder.step(loss)
            if step % 4 == 0:
                recorder.log("loss", loss)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tables of two arms with three seeds each."""
    recorders = []
    for name, rule in RULES.items():
        for seed in range(3):
            model = net(seed)
            recorders.append(Recorder(model, every=4, name=name, seed=seed, settings={"optimiser.learning_rate": 0.5}))
            train(model, rule, recorders[-1])
            recorders[-1].log("loss", 0.5 + 0.1 * seed, "test")
    return write_recorded(recorders, tmp_path_factory.mktemp("project") / "results" / "mine")


@pytest.fixture(scope="module")
def grid(folder: Path) -> Grid:
    (grid,) = grids_of("mine", {table: read_table(table, folder) for table in SCHEMAS}, ())
    return grid


def test_training_is_what_it_was_without() -> None:
    plain, recorded = net(), net()
    rule = GlobalNorm(threshold=0.05)
    train(plain, rule, None)
    recorder = Recorder(recorded, every=2)
    train(recorded, rule, recorder)
    recorder.close()
    for mine, theirs in zip(recorded.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6)
    assert not nn_module._global_forward_pre_hooks


def test_the_ledger_has_every_update_in_all_and_by_parameter() -> None:
    model, rule = net(), Value(threshold=0.002)
    recorder = Recorder(model, every=None)
    before, after = [], []
    for step in range(3):
        x, y = data(step)
        model.zero_grad()
        nn.functional.mse_loss(model(x), y).backward()
        before.append({name: p.grad.double().clone() for name, p in model.named_parameters()})
        norm = recorder.clip_(model.parameters(), rule)
        after.append({name: p.grad.double().clone() for name, p in model.named_parameters()})
        recorder.step()
        whole = torch.cat([grad.flatten() for grad in before[-1].values()])
        assert norm.item() == pytest.approx(whole.norm().item(), rel=1e-6)
    rows = {(row[0], row[1]): row[2:] for row in recorder.ledger.rows()}
    assert set(rows) == {(s, name) for s in (1, 2, 3) for name in (None, *before[0])}
    for step in range(3):
        for name in (None, *before[0]):
            pairs = [torch.cat([g[n].flatten() for n in g if name in (None, n)]) for g in (before[step], after[step])]
            cosine = nn.functional.cosine_similarity(*pairs, dim=0).item()
            expected = (pairs[0].norm().item(), pairs[1].norm().item(), cosine)
            assert rows[step + 1, name] == pytest.approx(expected, rel=1e-6)


def test_a_trace_at_a_step_is_of_the_parameters_after_so_many_updates(folder: Path) -> None:
    model = net(1)
    recorder = Recorder(model, every=4)
    train(model, RULES["short"], recorder, num_steps=4)
    recorder.close()
    x, y = data(4)
    with trace(model.double(), float64=True) as traced:
        nn.functional.mse_loss(model(x.double()), y.double()).backward()
    of_arm = read_table("trials", folder).filter(pl.col("spec").str.contains("global_norm"))["trial_id"][0]
    rows = read_table("traces", folder).filter(trial_id=of_arm, seed=1)
    assert rows["step"].unique().to_list() == [0, 4, 8]
    assert rows["part"].unique().to_list() == ["recurrent"]
    for state in "hc":
        mine = rows.filter(step=4, quantity=state).sort("timestep")["log10_norm"].to_list()
        theirs = traced.table.filter(state=state).sort("timestep")["log10_norm"].to_list()
        assert mine == pytest.approx(theirs, abs=1e-4)  # two trainings, equal within rounding


def test_a_figure_of_the_pipeline_is_drawn_from_a_recorded_run(grid: Grid) -> None:
    assert (grid.arms, grid.lengths) == (("short", "cut"), [T])
    names = {frame.name for frame in figures_of(grid)}
    assert {"gradient_by_lag", "gradient_heatmap", "learning_curves", "clipping_ledger"} <= names
    figure = FIGURES["gradient_by_lag"].draw(grid)
    _, after = figure.axes
    drawn = {tuple(map(float, line.get_ydata())) for line in after.lines if len(line.get_ydata()) == T}
    traces = grid["traces"].filter(pl.col("step") == 8, arm="cut", quantity="c").sort("timestep", descending=True)
    means = traces.group_by("timestep", maintain_order=True).agg(pl.col("log10_norm").mean())["log10_norm"]
    expected = tuple((means - means[0]).to_list())
    assert any(line == pytest.approx(expected, abs=1e-9) for line in drawn)


def test_the_page_is_made_of_recorded_runs(folder: Path) -> None:
    root = folder.parents[1]
    shutil.copytree(ROOT / "configs", root / "configs")
    study = {"question": "Which rule?", "grids": {"recorded": {"figures": ["gradient_by_lag", "clipping_ledger"]}}}
    (root / "configs" / "studies" / "mine.yaml").write_text(yaml.safe_dump(study))
    paths = Paths.at(root)
    page = build_report(paths, {"mine": load_study(paths, "mine")}, "recorded")
    assert "Which rule?" in page.read_text()
    drawn = {path.stem for path in page.parent.glob("figures/mine/recorded/*.png")}
    assert {"gradient_by_lag", "clipping_ledger"} <= drawn


def test_tables_say_what_was_run_and_how_it_ended(folder: Path) -> None:
    trials = read_table("trials", folder)
    row = trials.filter(pl.col("clipping.name") == "value", seed=2).row(0, named=True)
    assert row["test_loss"] == pytest.approx(0.7)
    assert (row["num_steps"], row["status"], row["model.cell"]) == (9, "ok", "lstm")
    assert (row["optimiser.learning_rate"], row["clipping.threshold"]) == (0.5, 0.002)
    assert row["best_validation_loss"] <= row["final_validation_loss"]
    assert trials["trial_id"].n_unique() == 2


def test_settings_may_be_numbers_of_numpy_and_torch(tmp_path: Path) -> None:
    values = [
        np.float64(0.01),
        np.float32(0.5),
        np.int64(3),
        torch.tensor(2),
        np.bool_(True),
        "word",
        None,
        np.str_("a"),
    ]
    recorder = Recorder(net(), every=None, settings={f"own.{at}": value for at, value in enumerate(values)})
    recorder.step(1.0)
    row = read_table("trials", recorder.write(tmp_path / "mine")).row(0, named=True)
    names = [f"own.{at}" for at in range(len(values))]
    assert [row[name] for name in names] == [0.01, 0.5, 3, 2, True, "word", None, "a"]
    assert json.loads(row["spec"])["own.0"] == 0.01
    assert recorder.trial_id == Recorder(net(), every=None, settings={name: row[name] for name in names}).trial_id
    for value in ([1, 2], np.zeros(2), Path("a"), 1j):
        with pytest.raises(
            TraceError, match="settings: optimiser.rate: expected a number, a text, True, False or None"
        ):
            Recorder(net(), every=None, settings={"optimiser.rate": value})  # type: ignore[dict-item]
    with pytest.raises(TraceError, match=r"settings: expected dotted names, such as .*; got 'rate'"):
        Recorder(net(), every=None, settings={"rate": 0.1})


def test_a_loss_that_ends_not_finite_has_diverged(tmp_path: Path) -> None:
    recorder = Recorder(net(), every=None)
    for loss in (1.0, math.nan, 2.0, math.inf, math.nan):
        recorder.step(loss)
    row = read_table("trials", recorder.write(tmp_path / "mine")).row(0, named=True)
    assert (row["status"], row["diverged_step"]) == ("diverged", 4)


@pytest.mark.parametrize(
    ("logged", "expected"), [({1: 0.5}, None), ({0: 1.0, 1: 0.5}, True), ({0: 0.1, 1: 0.5}, False)]
)
def test_whether_training_beat_no_training_needs_a_loss_at_step_0(
    logged: dict[int, float], expected: bool | None
) -> None:
    recorder = Recorder(net(), every=None)
    for step in range(2):
        if step in logged:
            recorder.log("loss", logged[step])
        recorder.step(1.0)
    assert recorder.tables()["trials"]["beat_untrained"].to_list() == [expected]


def test_parts_are_named_and_the_bias_of_windows_is_kept() -> None:
    model = nn.ModuleDict({"a": nn.GRU(2, 3), "b": nn.GRUCell(3, 3)})
    recorder = Recorder(model, every=1, parts={"a": "encoder", "b": "decoder"}, float64=False)
    h = model["a"](torch.ones(4, 2, 2))[1][0]
    for _ in range(2):
        h = model["b"](h, h)
    h.sum().backward()
    recorder.step()
    recorder.note_bias([Bias(3, 0.9, 0.1)])
    recorder.close()
    tables = recorder.tables()
    counted = tables["traces"].group_by("part", maintain_order=True).len().rows()
    assert dict(counted) == {"encoder": 4, "decoder": 2}
    assert tables["truncation"].select("step", "backward_length", "cosine", "relative_error").rows() == [
        (1, 3, 0.9, 0.1)
    ]
    assert tables["trials"]["model.cell"].to_list() == ["gru"]


def test_a_part_has_one_name_whichever_modules_a_step_reaches() -> None:
    model = nn.ModuleDict({"a": nn.GRU(2, 3), "b": nn.GRU(2, 3)})
    recorder, x = Recorder(model, every=1), torch.ones(4, 2, 2)
    for reached in ("a", "ab"):
        sum(model[name](x)[0].sum() for name in reached).backward()
        recorder.step()
    recorder.close()
    counted = recorder.tables()["traces"].group_by("step", maintain_order=True).agg(pl.col("part").unique().sort())
    assert counted.rows() == [(0, ["a"]), (1, ["a", "b"])]


def test_a_rule_remembers() -> None:
    model, rule = nn.Linear(2, 1), AutoClip(percentile=0)
    recorder = Recorder(model, every=None)
    norms: list[float] = []
    for size in (3.0, 1.0, 2.0):
        model.zero_grad()
        (size * model(torch.ones(1, 2))).sum().backward()
        recorder.clip_(model.parameters(), rule)
        norms.append(torch.cat([p.grad.flatten() for p in model.parameters()]).norm().item())
        recorder.step()
    assert norms == pytest.approx([3 * 3**0.5, 3**0.5, 3**0.5])
    assert recorder.clip_([torch.ones(2, requires_grad=True)], rule).item() == 0


def test_groups_that_are_clipped_apart_are_one_update() -> None:
    model, other = net(), nn.Linear(1, 1)
    groups = [list(model.rnn.parameters()), [*model.readout.parameters(), *other.parameters()]]
    recorder = Recorder(model, every=None)
    x, _ = data(0)
    for step in range(3):
        model.zero_grad()
        other.zero_grad()
        other(model(x)).sum().backward()
        before = [p.grad.double().clone() for group in groups for p in group]
        if step == 1:  # an update that was skipped: what counts is the one that was made
            recorder.clip_(groups[0], Value(threshold=1e-9))
            for p, grad in zip(groups[0], before, strict=False):
                p.grad.copy_(grad)
        for group, threshold in zip(groups, (0.01, 1e9), strict=True):
            recorder.clip_(group, GlobalNorm(threshold=threshold))
        after = [p.grad.double().clone() for group in groups for p in group]
        ledger = recorder.ledger  # with what is not yet counted
        recorder.step(1.0)
        assert recorder.ledger.equals(ledger)
        whole = [torch.cat([grad.flatten() for grad in grads]) for grads in (before, after)]
        cosine = nn.functional.cosine_similarity(*whole, dim=0).item()
        (row,) = ledger.filter(pl.col("parameter").is_null(), step=step + 1).rows()
        assert row[2:] == pytest.approx((whole[0].norm().item(), whole[1].norm().item(), cosine), rel=1e-6)
    names = {None, "parameter 0", "parameter 1", *(name for name, _ in model.named_parameters())}
    assert set(recorder.ledger["parameter"]) == names
    assert len(recorder.ledger) == 3 * len(names)
    assert recorder.tables()["trials"]["clipped_share"].to_list() == [1.0]


def test_a_rule_remembers_of_each_group_by_itself() -> None:
    small, large = (torch.ones(2, requires_grad=True) for _ in range(2))
    recorder, rule = Recorder(nn.Linear(1, 1), every=None), AutoClip(percentile=0)
    for _ in range(2):
        for parameter, size in ((small, 1.0), (large, 100.0)):
            parameter.grad = torch.full((2,), size)
            recorder.clip_([parameter], rule)
        recorder.step()
    assert large.grad.tolist() == [100.0, 100.0]


def test_sequences_that_differ_in_length_end_at_one_timestep(tmp_path: Path) -> None:
    recorders, known = [], {}
    for seed, lengths in enumerate([(3, 5), (7, 2)]):
        model = net(seed)
        recorders.append(Recorder(model, every=1, seed=seed))
        for step, length in enumerate(lengths):
            x, y = data(step)
            with trace(model, float64=True) as traced:
                loss = nn.functional.mse_loss(model(x[:, :length]), y)
                loss.backward()
            known[seed, step] = traced.table.filter(state="h").sort("lag")["log10_norm"].to_list()
            recorders[-1].step(loss)
    alone = recorders[0].tables()["traces"].filter(quantity="h").group_by("step").agg(pl.col("timestep").max())
    assert alone["timestep"].to_list() == [5, 5]
    rows = read_table("traces", write_recorded(recorders, tmp_path / "mine")).filter(quantity="h")
    for (seed, step), expected in known.items():
        mine = rows.filter(seed=seed, step=step).sort("timestep", descending=True)
        assert mine["timestep"].to_list() == [7 - lag for lag in range(len(expected))]
        assert mine["log10_norm"].to_list() == pytest.approx(expected, abs=1e-9)


def test_a_study_is_called_as_its_folder_is_wherever_that_is_named_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Recorder(net(), every=None).write(".")
    assert read_table("settings", tmp_path)["study"].to_list() == [tmp_path.name]


def test_misuse_is_named(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="expected a model with nn.RNN"):
        Recorder(nn.Linear(1, 1))
    with pytest.raises(TraceError, match="every: expected an integer of at least 1, or None; got 0"):
        Recorder(net(), every=0)
    with pytest.raises(TableError, match="mine: expected at least one recorder, got none"):
        write_recorded([], tmp_path / "mine")
    with pytest.raises(TraceError, match="parts: unknown module 'rn'; did you mean 'rnn'"):
        Recorder(net(), parts={"rn": "encoder"})
    recorder = Recorder(net(), every=1)
    with pytest.raises(TraceError, match="no gradient was traced: rnn: it was not called"):
        recorder.step(1.0)
    with pytest.raises(TraceError, match="state_norm clips inside the recurrence"):
        recorder.clip_(recorder.model.parameters(), StateNorm(threshold=1.0))
    twice: Mapping[int, Recorder] = {at: Recorder(net(), every=None) for at in range(2)}
    with pytest.raises(TableError, match="two recorded runs are 'recorded' with seed 0"):
        write_recorded(list(twice.values()), tmp_path / "mine")
