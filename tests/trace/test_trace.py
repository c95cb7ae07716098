"""A trace in use: cells, several calls, what cannot be traced, precision, and that nothing stays."""

from __future__ import annotations

import contextlib
import copy
import gc
import math
import weakref
from collections.abc import Callable

import polars as pl
import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules import module as nn_module
from torch.overrides import _get_current_function_mode_stack
from torch.utils.checkpoint import checkpoint

from pipeline.trace import TraceError, trace
from tests.trace.reference import left_on, step

B, D, H, T = 3, 2, 4, 5
CELLS = {
    "lstm": nn.LSTMCell,
    "gru": nn.GRUCell,
    "tanh": nn.RNNCell,
    "relu": lambda *sizes, **options: nn.RNNCell(*sizes, nonlinearity="relu", **options),
}


@pytest.fixture(autouse=True)
def nothing_stays() -> None:
    yield  # type: ignore[misc]
    assert not nn_module._global_forward_hooks
    assert not nn_module._global_forward_pre_hooks
    assert not nn_module._global_forward_hooks_always_called
    assert not _get_current_function_mode_stack()


def drawn(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def norms(table: pl.DataFrame, **of: object) -> list[float]:
    return table.filter(**of).sort("timestep")["log10_norm"].to_list()


def by_hand(cell: nn.Module, x_TBD: Tensor) -> tuple[list[list[Tensor]], Tensor]:
    """Return the retained states of a cell's loop written by hand, example by example, and the last h."""
    weights = [getattr(cell, name, None) for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr")]
    states, last = [], []
    for b in range(x_TBD.shape[1]):
        state = [x_TBD.new_zeros(H)] * (2 if isinstance(cell, nn.LSTMCell) else 1)
        for t, x_t in enumerate(x_TBD[:, b]):
            state = step(cell, x_t, state, weights)
            for each in state:
                each.retain_grad()
            states += [[] for _ in range(t + 1 - len(states))]
            states[t].append(state)
        last.append(state[0])
    return states, torch.stack(last)


def log10_by_hand(states: list[list[list[Tensor]]], which: int) -> list[float]:
    return [torch.stack([of_b[which].grad for of_b in of_t]).norm().log10().item() for of_t in states]


# Cells in a loop


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("name", CELLS)
def test_a_cell_in_a_loop_is_one_call_over_time(name: str, bias: bool) -> None:
    torch.manual_seed(0)
    cell, x = CELLS[name](D, H, bias=bias).double(), drawn(T, B, D)

    def loop() -> Tensor:
        state = None
        for x_t in x:
            state = cell(x_t, state)
        h = state[0] if isinstance(state, tuple) else state
        h.square().sum().backward()
        return h

    plain = loop()
    expected = [parameter.grad for parameter in cell.parameters()]
    cell.zero_grad()
    with trace(cell) as traced:
        found = loop()
    torch.testing.assert_close(found, plain, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close([p.grad for p in cell.parameters()], expected, rtol=1e-11, atol=1e-13)
    states, last = by_hand(cell, x)
    last.square().sum().backward()
    assert traced.table["call"].unique().to_list() == [1]
    for which, state in enumerate("hc" if name == "lstm" else "h"):
        assert norms(traced.table, state=state) == pytest.approx(log10_by_hand(states, which), abs=1e-10)
    assert traced.table.filter(state="h")["lag"].to_list() == [4, 3, 2, 1, 0]


def test_a_cell_without_a_batch_and_of_each_example() -> None:
    cell, x = nn.GRUCell(D, H).double(), drawn(T, B, D)
    with trace(cell, per_example=True) as whole:
        h = None
        for x_t in x:
            h = cell(x_t, h)
        h.sum().backward()
    for b in range(B):
        with trace(cell) as traced:
            h = None
            for x_t in x[:, b]:
                h = cell(x_t, h)
            h.sum().backward()
        assert norms(traced.table) == pytest.approx(norms(whole.table, example=b), abs=1e-12)


def test_two_loops_over_one_cell_in_a_forward_are_two_calls() -> None:
    cell, start = nn.GRUCell(D, H).double(), nn.Linear(1, H).double()
    with trace(nn.ModuleList([cell, start])) as traced:
        loss = torch.zeros((), dtype=torch.float64)
        for length in (2, 4):
            h = start(torch.ones(B, 1, dtype=torch.float64))  # a state with a history of its own
            for x_t in drawn(length, B, D):
                h = torch.relu(cell(x_t, h)) * 0.9  # what lies between two timesteps may be anything
            loss = loss + h.sum()
        loss.backward()
    assert traced.table.group_by("call", maintain_order=True).len().rows() == [(1, 2), (2, 4)]


# Several calls


class Translator(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.GRU(D, H, batch_first=True), nn.GRU(H, H, batch_first=True)

    def forward(self, x: Tensor, num_outputs: int = 4) -> Tensor:
        _, state = self.encoder(x)
        output, outputs = state.transpose(0, 1), []
        for _ in range(num_outputs):
            output, state = self.decoder(output, state)
            outputs.append(output)
        return torch.cat(outputs, dim=1)


def test_an_encoder_and_a_decoder_that_is_run_a_timestep_at_a_time() -> None:
    torch.manual_seed(0)
    model = Translator().double()
    x = drawn(B, T, D)
    with trace(model) as traced:
        model(x).square().sum().backward()
    counted = traced.table.group_by("module", "call").len().sort("module").rows()
    assert counted == [("decoder", 1, 4), ("encoder", 1, 5)]
    at_end, at_start = norms(traced.table, module="encoder")[-1], norms(traced.table, module="decoder")[0]
    _, encoded = model.encoder(x)
    output, first = model.decoder(encoded.transpose(0, 1), encoded)
    outputs, state = [output], first
    for each in (encoded, output, first):
        each.retain_grad()
    for _ in range(3):
        output, state = model.decoder(output, state)
        outputs.append(output)
    torch.cat(outputs, dim=1).square().sum().backward()
    assert at_end == pytest.approx(encoded.grad.norm().log10().item(), abs=1e-12)
    whole = first.grad + outputs[0].grad.transpose(0, 1)  # one state, which torch returns twice
    assert at_start == pytest.approx(whole.norm().log10().item(), abs=1e-12)


def test_windows_with_a_detached_state_are_calls_of_their_own() -> None:
    lstm = nn.LSTM(D, H).double()
    with trace(lstm) as traced:
        state, loss = None, torch.zeros((), dtype=torch.float64)
        for window in drawn(6, B, D).split(2):
            outputs, state = lstm(window, state)
            state = tuple(each.detach() for each in state)
            loss = loss + outputs.square().sum()
        loss.backward()
    assert traced.table.group_by("call", maintain_order=True).len().rows() == [(1, 4), (2, 4), (3, 4)]


def test_a_state_that_is_carried_with_its_history_goes_on_with_the_call() -> None:
    lstm, x = nn.LSTM(D, H, 2).double(), drawn(6, B, D)
    with trace(lstm) as whole:
        lstm(x)[0].square().sum().backward()
    with trace(lstm) as traced:
        state, loss = None, torch.zeros((), dtype=torch.float64)
        for window in x.split(2):
            outputs, state = lstm(window, state)
            loss = loss + outputs.square().sum()
        loss.backward()
    keys = ["module", "layer", "direction", "state", "call", "timestep", "lag"]
    assert traced.table.select(keys).equals(whole.table.select(keys))
    assert traced.table["log10_norm"].to_list() == pytest.approx(whole.table["log10_norm"].to_list(), abs=1e-11)


def test_calls_that_branch_from_one_state_begin_at_one_timestep() -> None:
    lstm, cell, x = nn.LSTM(D, H).double(), nn.GRUCell(D, H).double(), drawn(6, B, D)
    with trace(nn.ModuleList([lstm, cell])) as traced:
        _, state = lstm(x[:3])
        h = cell(x[0])
        loss = sum(lstm(x[3:], state)[0].sum() + cell(x[1], cell(x[0], h)).sum() for _ in range(2))
        loss.backward()
    of_h = traced.table.filter(state="h").group_by("module", "call", maintain_order=True)
    assert sorted(of_h.agg("timestep").rows()) == [
        ("0", 1, [1, 2, 3, 4, 5, 6]),
        ("0", 2, [4, 5, 6]),
        ("1", 1, [1, 2, 3]),
        ("1", 2, [2, 3]),
    ]
    whole, branch = (norms(traced.table, module="0", state="h", call=call) for call in (1, 2))
    assert branch == pytest.approx(whole[3:], abs=1e-12)


class Packing(nn.GRU):
    def forward(self, x: list[Tensor]) -> Tensor:
        return super().forward(nn.utils.rnn.pack_sequence(x, enforce_sorted=False))[1]


def test_examples_of_a_pack_are_in_their_own_order_however_it_is_given() -> None:
    inside = Packing(D, H).double()
    plain = nn.GRU(D, H).double()
    plain.load_state_dict(inside.state_dict())
    examples = [drawn(n, D, seed=n) for n in (2, 4, 3)]
    pack = nn.utils.rnn.pack_sequence(examples, enforce_sorted=False)
    tables = []
    for model, run in (
        (plain, lambda: plain(pack)[1]),
        (plain, lambda: plain(input=pack)[1]),
        (inside, lambda: inside(examples)),
    ):
        with trace(model, per_example=True) as traced:
            run().sum().backward()
        tables.append(traced.table.group_by("example", maintain_order=True).agg("timestep").rows())
    assert tables == [[(0, [1, 2]), (1, [1, 2, 3, 4]), (2, [1, 2, 3])]] * 3


def test_a_call_from_the_last_states_of_a_ragged_pack_leaves_its_timesteps_alone() -> None:
    lstm, tables = nn.LSTM(D, H).double(), []
    pack = nn.utils.rnn.pack_sequence([drawn(n, D, seed=n) for n in (4, 2)])
    for goes_on in (False, True):
        with trace(lstm, per_example=True) as traced:
            _, state = lstm(pack)
            if goes_on:
                _, state = lstm(drawn(3, 2, D), state)
            state[0].sum().backward()
        tables.append(traced.table.filter(call=1).drop("log10_norm"))
    assert tables[0].equals(tables[1])
    assert traced.table.filter(pl.col("call") > 1)["lag"].unique().to_list() == [0, 1, 2]


def test_a_module_that_is_used_twice_and_one_with_two_names() -> None:
    gru = nn.GRU(D, D).double()
    model = nn.ModuleDict({"first": gru, "again": gru})
    with trace(model) as traced:
        outputs, _ = model["first"](drawn(T, B, D))
        model["again"](outputs)[0].sum().backward()
    assert traced.table.group_by("module", "call", maintain_order=True).len().rows() == [
        ("first", 1, T),
        ("first", 2, T),
    ]


def test_every_backward_pass_is_counted() -> None:
    rnn = nn.RNN(D, H).double()
    with trace(rnn) as traced:
        for _ in range(3):
            rnn(drawn(T, B, D))[0].sum().backward()
        loss = rnn(drawn(T, B, D))[0].sum()
        loss.backward(retain_graph=True)
        (3 * loss).backward()
    assert traced.table["backward"].unique().to_list() == [1, 2, 3, 4, 5]
    assert traced.table["call"].unique().to_list() == [1]
    four, five = (norms(traced.table, backward=number) for number in (4, 5))
    assert [b - a for a, b in zip(four, five, strict=True)] == pytest.approx([math.log10(3)] * T, abs=1e-12)


def test_the_backward_pass_may_follow_the_with() -> None:
    rnn = nn.RNN(D, H)
    with trace(rnn) as traced:
        loss = rnn(torch.ones(T, B, D))[0].sum()
    loss.backward()
    assert len(traced.table) == T


def test_a_second_derivative_goes_through() -> None:
    lstm = nn.LSTM(D, H).double()

    def penalty() -> Tensor:
        loss = lstm(drawn(T, B, D))[0].square().sum()
        grads = torch.autograd.grad(loss, list(lstm.parameters()), create_graph=True)
        (loss + sum(grad.square().sum() for grad in grads)).backward()
        return lstm.weight_hh_l0.grad

    expected = penalty().clone()
    lstm.zero_grad()
    with trace(lstm) as traced:
        torch.testing.assert_close(penalty(), expected, rtol=1e-9, atol=1e-11)
    assert len(traced.table) == 2 * T  # of the second pass: the first was asked for the parameters' gradients alone


def test_a_checkpointed_module_is_traced() -> None:
    gru, x = nn.GRU(D, H).double(), drawn(T, B, D).requires_grad_()
    with trace(gru) as plain:
        gru(x)[0].sum().backward()
    with trace(gru) as traced:
        checkpoint(lambda x: gru(x)[0], x, use_reentrant=False).sum().backward()
    assert norms(traced.table) == pytest.approx(norms(plain.table), abs=1e-12)


# Ragged packs


def test_sequences_of_a_pack_end_together() -> None:
    lstm = nn.LSTM(D, H).double()
    pack = nn.utils.rnn.pack_sequence([drawn(n, D, seed=n) for n in (2, 4)], enforce_sorted=False)
    with trace(lstm) as traced, trace(lstm, per_example=True) as each:
        lstm(pack)[1][0].sum().backward()
    rows = each.table.filter(state="h")
    places = [(0, 1, 1), (0, 2, 0), *((1, timestep, 4 - timestep) for timestep in (1, 2, 3, 4))]
    assert rows.select("example", "timestep", "lag").rows() == places
    joined = rows.group_by("lag").agg(norm=(10 ** (2 * pl.col("log10_norm"))).sum().log10() / 2).sort("lag")
    whole = traced.table.filter(state="h").sort("lag")
    assert whole["timestep"].to_list() == [4, 3, 2, 1]
    assert whole["log10_norm"].to_list() == pytest.approx(joined["norm"].to_list(), abs=1e-12)


# Precision


def test_in_float64_a_vanished_gradient_of_a_float32_model_is_a_number() -> None:
    torch.manual_seed(0)
    lstm, cell = nn.LSTM(D, H), nn.LSTMCell(D, H)
    for module in (lstm, cell):
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.mul_(0.01)
    x = torch.ones(150, B, D)

    def loop(module: nn.Module, x: Tensor) -> None:
        state = None
        for x_t in x:
            state = module(x_t, state)
        state[0].sum().backward()

    runs: dict[nn.Module, Callable[[nn.Module, Tensor], None]] = {
        lstm: lambda module, x: module(x)[1][0].sum().backward(),
        cell: loop,
    }
    for module, run in runs.items():
        exact = copy.deepcopy(module).double()
        with trace(exact) as reference:
            run(exact, x.double())
        with trace(module, float64=True) as traced:
            run(module, x)
        expected = reference.table["log10_norm"].to_list()
        assert min(expected) < -40  # float32 has nothing there
        assert traced.table["log10_norm"].to_list() == pytest.approx(expected, abs=1e-10)
        with trace(module) as rounded:
            run(module, x)
        near = [(a, b) for a, b in zip(rounded.table["log10_norm"], expected, strict=True) if b > -30]
        assert all(abs(a - b) < 1e-5 for a, b in near)


def test_a_state_changed_in_place_is_taken_as_it_is() -> None:
    cell = nn.GRUCell(D, H)
    found = []
    for float64 in (False, True):
        with trace(cell, float64=float64), torch.enable_grad():
            h = cell(torch.ones(B, D))
            h *= 0.5
            found.append(cell(torch.ones(B, D), h))
    torch.testing.assert_close(*found, rtol=1e-5, atol=1e-6)


def in_two_windows(change: Callable[[Tensor], object], *, keeps: bool = False) -> dict[bool, list[Tensor | None]]:
    """Return the gradients of parameters and of h, which changes between two calls, by whether it is traced."""
    found = {}
    for traces in (False, True):
        torch.manual_seed(0)
        cell, loss = nn.LSTMCell(D, H), torch.zeros(())
        with trace(cell, float64=True) if traces else contextlib.nullcontext():
            h, c = cell(torch.ones(B, D))
            loss = loss + 3 * h.sum()
            change(h)
            c.detach_()
            loss = loss + cell(torch.ones(B, D), (h, c))[0].square().sum()
            loss.backward()
        found[traces] = [*(parameter.grad for parameter in cell.parameters()), h.grad if keeps else None]
    return found


CHANGES: dict[str, Callable[[Tensor], object]] = {
    "detach_": Tensor.detach_,
    "register_hook": lambda h: h.register_hook(lambda grad: 100 * grad),
    "data": lambda h: h.data.zero_(),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_is_done_to_a_state_without_a_new_version_counts_in_float64(change: str) -> None:
    found = in_two_windows(CHANGES[change])
    torch.testing.assert_close(found[True], found[False], rtol=1e-5, atol=1e-6)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
def test_a_state_that_is_told_to_keep_its_gradient_has_it_in_float64() -> None:
    found = in_two_windows(Tensor.retain_grad, keeps=True)
    torch.testing.assert_close(found[True], found[False], rtol=1e-5, atol=1e-6)
    assert found[True][-1] is not None


def test_windows_that_are_detached_in_place_go_backward_one_by_one_in_float64() -> None:
    lstm, state = nn.LSTM(D, H), None
    with trace(lstm, float64=True) as traced:
        for window in drawn(4, B, D).float().split(2):
            outputs, state = lstm(window, state)
            outputs.square().sum().backward()
            for each in state:
                each.detach_()
    assert traced.table["backward"].unique().to_list() == [1, 2]


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_outputs_may_be_changed_in_place(kind: type[nn.RNNBase], batch_first: bool) -> None:
    model, x, found = kind(D, H, batch_first=batch_first).double(), drawn(T, B, D), []
    for on in (contextlib.nullcontext(), trace(model)):
        model.zero_grad()
        with on:
            outputs, _ = model(x)
            outputs.mul_(x.ge(0)[..., :1])
            outputs.square().sum().backward()
        found.append([outputs, *(parameter.grad for parameter in model.parameters())])
    torch.testing.assert_close(*found, rtol=1e-11, atol=1e-13)


def test_threads_share_the_examples() -> None:
    torch.manual_seed(0)
    module, x = nn.LSTM(D, H, 2, proj_size=3), torch.randn(T, 32, D)
    found, threads = [], torch.get_num_threads()
    try:
        for number in (1, 2, 4):
            torch.set_num_threads(number)
            module.zero_grad()
            with trace(module, per_example=True) as traced:
                outputs, _ = module(x)
                outputs.square().sum().backward()
            found.append([outputs, module.weight_hr_l0.grad, torch.tensor(traced.table["log10_norm"].to_list())])
    finally:
        torch.set_num_threads(threads)
    for mine in found[1:]:
        torch.testing.assert_close(mine, found[0], rtol=1e-5, atol=1e-6)


def test_under_autocast_a_recurrence_runs_in_float32() -> None:
    model, x = nn.LSTM(D, H), torch.ones(T, B, D)
    expected, _ = model(x)
    with trace(model) as traced, torch.autocast("cpu", dtype=torch.bfloat16):
        outputs, _ = model(x.bfloat16())
        outputs.sum().backward()
    assert outputs.dtype == torch.float32
    torch.testing.assert_close(outputs, expected, rtol=1e-5, atol=1e-6)
    assert len(traced.table) == 2 * T


def test_a_model_in_bfloat16_stays_one() -> None:
    model = nn.GRU(D, H).bfloat16()
    with trace(model) as traced:
        outputs, _ = model(torch.ones(T, B, D, dtype=torch.bfloat16))
        outputs.sum().backward()
    assert (outputs.dtype, model.weight_hh_l0.grad.dtype) == (torch.bfloat16, torch.bfloat16)
    assert len(traced.table) == T


# What stays, and what nests


def test_nothing_stays_after_an_exception_either() -> None:
    model = nn.Sequential(nn.LSTM(D, H))
    before = left_on(model)
    with pytest.raises(RuntimeError, match="input.size"), trace(model):
        model(torch.ones(T, B, D + 1))
    assert left_on(model) == before
    with pytest.raises(ZeroDivisionError), trace(model):
        model(torch.ones(T, B, D))[0].sum() / (1 // 0)
    assert left_on(model) == before
    copied = copy.deepcopy(model)
    assert copied(torch.ones(T, B, D))[0].shape == (T, B, H)


class Interrupted(nn.GRU):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        raise KeyboardInterrupt


def test_an_interrupted_forward_leaves_nothing_and_traces_nothing_more() -> None:
    model = nn.ModuleDict({"gru": nn.GRU(D, H), "never": Interrupted(D, H)})
    with trace(model["gru"]) as outer:
        with pytest.raises(KeyboardInterrupt), trace(model) as inner:
            model["never"](torch.ones(T, B, D))
        model["gru"](torch.ones(T, B, D))[0].sum().backward()
    assert not _get_current_function_mode_stack()
    assert len(outer.table) == T
    with pytest.raises(TraceError, match="no gradient was traced: gru: it was not called"):
        _ = inner.table


def test_nested_traces_each_see_what_is_in_their_model() -> None:
    model = nn.ModuleDict({"a": nn.RNN(D, H), "b": nn.RNN(D, H)}).double()
    with trace(model) as outer, trace(model["a"]) as inner:
        (model["a"](drawn(T, B, D))[0].sum() + model["b"](drawn(T, B, D))[0].sum()).backward()
    assert outer.table["module"].unique(maintain_order=True).to_list() == ["a", "b"]
    assert norms(inner.table, module="RNN") == norms(outer.table, module="a")


def test_another_model_is_not_traced() -> None:
    mine, other = nn.RNN(D, H), nn.RNN(D, H)
    with trace(mine) as traced:
        other(torch.ones(T, B, D))[0].sum().backward()
        mine(torch.ones(T, B, D))[0].sum().backward()
    assert traced.table["backward"].to_list() == [1] * T


def test_a_copy_made_inside_is_another_model() -> None:
    model = nn.RNN(D, H)
    with pytest.warns(UserWarning, match="RNN: it was not called"), trace(model):
        copy.deepcopy(model)(torch.ones(T, B, D))[0].sum().backward()


def test_a_trace_that_is_entered_again_goes_on() -> None:
    model = nn.RNN(D, H)
    traced = trace(model)
    for _ in range(2):
        with traced:
            model(torch.ones(T, B, D))[0].sum().backward()
    assert traced.table["backward"].unique().to_list() == [1, 2]


def test_graphs_are_not_kept() -> None:
    model = nn.LSTM(D, H)
    with trace(model, float64=True) as traced:
        outputs, _ = model(torch.ones(T, B, D))
        outputs.sum().backward()
        node = weakref.ref(outputs)
    del outputs
    gc.collect()
    assert node() is None
    assert len(traced.table) == 2 * T


# What cannot be traced


def test_without_gradients_there_is_no_table_and_it_says_so() -> None:
    model = nn.LSTM(D, H)
    with pytest.warns(UserWarning, match="LSTM: it ran under torch.no_grad"), trace(model) as traced, torch.no_grad():
        outputs, _ = model(torch.ones(T, B, D))
    assert torch.equal(outputs, model(torch.ones(T, B, D))[0])
    with pytest.raises(TraceError, match="no gradient was traced: LSTM: it ran under torch.no_grad"):
        _ = traced.table
    with trace(model) as traced:
        model(torch.ones(T, B, D))
    with pytest.raises(TraceError, match="no backward pass has reached a traced call"):
        _ = traced.table


def test_what_is_frozen_and_what_is_transformed_runs_as_ever() -> None:
    model = nn.GRU(D, H).requires_grad_(requires_grad=False)
    with pytest.warns(UserWarning, match="nothing in it requires a gradient"), trace(model):
        assert not model(torch.ones(T, B, D))[0].requires_grad
    cell = nn.RNNCell(D, H)
    with pytest.warns(UserWarning, match=r"it ran inside a transform of torch\.func"), trace(cell):
        torch.func.grad(lambda x: cell(x).sum())(torch.ones(B, D))


class OwnForward(nn.LSTM):
    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x @ self.weight_ih_l0[:H].T)


class Through(nn.LSTM):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(2 * x)[0]


class MyGRU(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x


def test_a_forward_of_ones_own_is_named_and_one_that_ends_in_torchs_is_traced() -> None:
    model = nn.ModuleDict({"own": OwnForward(D, H), "through": Through(D, H), "cell": MyGRU()})
    named = r"cell: MyGRU \(tests\.trace.*; own: OwnForward\.forward does not end"
    with pytest.warns(UserWarning, match=named), trace(model) as traced:
        (model["own"](torch.ones(T, B, D)).sum() + model["through"](torch.ones(T, B, D)).sum()).backward()
    assert traced.table["module"].unique().to_list() == ["through"]
    assert set(traced.untraced) == {"own", "cell"}


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_models_that_cannot_be_traced_are_refused_by_name() -> None:
    with pytest.raises(TraceError, match=r"expected a model with nn\.RNN.*: Linear has none"):
        trace(nn.Linear(1, 1))
    with pytest.raises(TraceError, match=r"0: MyGRU \(tests.trace.test_trace\) is none of torch.nn's"):
        trace(nn.Sequential(MyGRU()))
    with pytest.raises(TraceError, match="0: LSTM .* is none of torch.nn's"):
        trace(torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.LSTM(D, H)), {nn.LSTM}))
    with pytest.raises(TraceError, match="LSTM .a scripted module. is none of torch.nn's"):
        trace(torch.jit.script(nn.LSTM(D, H)))
    with pytest.raises(TraceError, match="expected a model that is not compiled"):
        trace(torch.compile(nn.LSTM(D, H)))


class Read(nn.Module):
    def __init__(self, kind: type[nn.Module]) -> None:
        super().__init__()
        self.recurrence, self.readout = kind(D, H), nn.Linear(H, 1)

    def forward(self, x: Tensor) -> Tensor:
        if isinstance(self.recurrence, nn.RNNBase):
            return self.readout(self.recurrence(x)[0])
        h = None
        for x_t in x:
            h = self.recurrence(x_t, h)
        return self.readout(h)


def compiled(model: Read, which: str) -> Callable[[Tensor], Tensor]:
    """Return a model of which a part, or a function around which, is compiled."""
    if which == "function":
        return torch.compile(lambda x: model(x), backend="eager")
    if which == "readout":
        model.readout = torch.compile(model.readout, backend="eager")
    else:
        model.readout.compile(backend="eager", fullgraph=True)
    return model


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("which", ["function", "readout", "readout, in place"])
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRUCell])
def test_a_model_beside_whose_recurrence_something_is_compiled_is_traced(kind: type[nn.Module], which: str) -> None:
    model, x = Read(kind).double(), drawn(T, B, D)
    with trace(model) as plain:
        model(x).sum().backward()
    expected = [parameter.grad for parameter in model.parameters()]
    model.zero_grad()
    torch.compiler.reset()
    run = compiled(model, which)
    with trace(model) as traced:
        run(x).sum().backward()
    torch.testing.assert_close([parameter.grad for parameter in model.parameters()], expected, rtol=1e-11, atol=1e-13)
    assert norms(traced.table, state="h") == pytest.approx(norms(plain.table, state="h"), abs=1e-12)


@pytest.mark.parametrize("part", ["model", "recurrence"])
def test_a_recurrence_that_is_compiled_in_place_is_refused(part: str) -> None:
    model = Read(nn.LSTM)
    (model if part == "model" else model.recurrence).compile(backend="eager")
    name = "Read" if part == "model" else "recurrence"
    with pytest.raises(TraceError, match=f"{name}: expected a model that is not compiled: trace the one that"):
        trace(model)


def test_torchs_own_errors_stay() -> None:
    cell = nn.RNNCell(D, H)
    with pytest.raises(RuntimeError, match="dtype"), trace(cell):
        cell(torch.ones(B, D, dtype=torch.float64))
