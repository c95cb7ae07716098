"""The eager loops from graphs, against themselves, on a stand-in for a CUDA graph that a CPU can run."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from pipeline.core.cells import CELLS, Cell, captured, recurrence
from pipeline.core.cells.captured import MIN_TIMESTEPS, Captured, Graphs
from pipeline.core.cells.cell import H_AND_X, Named, Stepped
from pipeline.core.cells.recurrence import Call, Eager, Recurrence, kernel_of
from pipeline.core.cells.stack import RecurrentStack
from tests.core.cells.test_engines import Case, randn
from tests.core.slowly import slowly


def peephole(a: Named, s: Named) -> Stepped:
    f = torch.sigmoid(a.f + a.p_f * s.c)
    c = f * s.c + torch.where(a.g > 0, a.g, 0.0)
    return (torch.tanh(c), c), {"f": f}


PEEPHOLE = Cell(gates={"f": H_AND_X, "g": H_AND_X}, states=("h", "c"), pointwise=peephole, per_unit=("p_f",))
SEVERAL = pytest.mark.parametrize("cell", [CELLS["lstm"], CELLS["gru"], PEEPHOLE], ids=["lstm", "gru", "peephole"])


class Recorded(TorchDispatchMode):
    """A stand-in for a CUDA graph: the operations of some work, done again on the same tensors, without its Python."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.operations: list[tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any], Any]] = []

    def capture(self, work: Callable[[], None]) -> None:
        for _ in range(captured.NUM_WARM_UPS):
            work()
        with self:
            work()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default:
            raise RuntimeError("operation not permitted when stream is capturing")
        result = func(*args, **(kwargs or {}))
        self.operations.append((func, args, kwargs or {}, result))
        return result

    def replay(self) -> None:
        for func, args, kwargs, result in self.operations:
            again = func(*args, **kwargs)
            for before, now in zip(_tensors(result), _tensors(again), strict=True):
                if before.data_ptr() != now.data_ptr():  # neither a view nor filled in place
                    before.copy_(now)


def _tensors(value: Any) -> list[Tensor]:
    return [value] if isinstance(value, Tensor) else list(value or ())


class Forgetful(Graphs):
    """Graphs whose memory is overwritten after every pass, as by the next one."""

    num_captures = num_replays = 0

    def __len__(self) -> int:
        return len(self._passes)

    def run(self, *arguments: Any) -> bool:
        done = super().run(*arguments)
        if done:
            self.num_replays += 1
            self._memory.fill_(0xFF)  # NaN, in every precision
        return done

    def _capture(self, *arguments: Any) -> bool:
        self.num_captures += 1
        return super()._capture(*arguments)


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> Iterator[Forgetful]:
    graphs = Forgetful(Recorded)
    use(graphs, monkeypatch)
    return graphs


def use(graphs: Graphs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every recurrence run from these graphs."""
    engines: dict[Cell, Captured] = {}
    monkeypatch.setattr(
        recurrence, "engine_of", lambda cell, like: engines.setdefault(cell, Captured(Eager(cell), graphs))
    )


def eagerly(work: Callable[[], list[Tensor]]) -> list[Tensor]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recurrence, "engine_of", lambda cell, like: Eager(cell))
        return work()


def same(mine: list[Tensor], exact: list[Tensor]) -> None:
    assert len(mine) == len(exact)
    for place, (a, b) in enumerate(zip(mine, exact, strict=True)):
        assert torch.equal(a, b), place


@SEVERAL
@pytest.mark.parametrize("state_threshold", [0.5, *slowly(None)])
@pytest.mark.parametrize("dtype", [torch.float32, *slowly(torch.float64)], ids=str)
def test_a_graph_computes_what_the_loops_compute(
    cell: Cell, state_threshold: float | None, dtype: torch.dtype, graphs: Forgetful
) -> None:
    case = Case(cell, 3, 5, 2)
    exact = eagerly(lambda: case.run(dtype, state_threshold))
    for _ in range(3):
        same(case.run(dtype, state_threshold), exact)
    assert (len(graphs), graphs.num_replays) == (2, 6)


@SEVERAL
def test_other_numbers_of_the_same_shape_need_no_other_graph(cell: Cell, graphs: Forgetful) -> None:
    first, second = Case(cell, 3, 5, 2), Case(cell, 3, 5, 2)
    second.x, second.grads = first.x.flip(1), [grad.flip(1) for grad in first.grads]
    second.start = [each * 0.5 for each in first.start]
    for case in (first, second, first):
        same(case.run(torch.float32), eagerly(lambda case=case: case.run(torch.float32)))  # type: ignore[misc]
    assert graphs.num_captures <= 3  # the first capture back asks for more memory, and has the first one made anew


@pytest.mark.slow
@SEVERAL
def test_what_is_not_asked_for_makes_another_graph(cell: Cell, graphs: Forgetful) -> None:
    case = Case(cell, 3, 5, 2)
    same(case.run(torch.float32, 0.5), eagerly(lambda: case.run(torch.float32, 0.5)))
    same(case.run(torch.float32, 0.25), eagerly(lambda: case.run(torch.float32, 0.25)))
    same(case.run(torch.float32), eagerly(lambda: case.run(torch.float32)))
    H = 5
    shapes = cell.shapes(2, H)
    named = {name: randn(2, *size, seed=3) for name, size in shapes.items()}
    weight, per_unit = torch.vmap(lambda named: cell.fused(cell.weights(named)))(named)
    per_unit = per_unit.reshape(2, -1, H)

    def plainly() -> list[Tensor]:
        """Nothing is tapped, x needs no gradient, and one state reaches the loss."""
        leaf = weight.clone().requires_grad_()
        taps = [None] * len(cell.states)
        found = Recurrence.apply(Call(cell, True, None), case.x, leaf, per_unit, *case.start, *taps)
        with torch.no_grad():
            kept_nothing = Recurrence.apply(Call(cell, False, None), case.x, leaf, per_unit, *case.start, *taps)
        return [*found, *kept_nothing, *torch.autograd.grad(found[0].square().sum(), leaf)]

    same(plainly(), eagerly(plainly))
    same(plainly(), eagerly(plainly))
    assert len(graphs) == 4 + 3  # forward and three ways back; forward without taps, without what is kept, and back


class Two(nn.Module):
    """Two layers whose passes have the same shape."""

    def __init__(self, cell: str) -> None:
        super().__init__()
        self.stack = RecurrentStack(cell, 5, 5, torch.Generator().manual_seed(0), num_layers=2)

    def loss(self, x_TBD: Tensor) -> Tensor:
        return self.stack(x_TBD).outputs.square().sum()

    def gradients(self, loss: Tensor, **options: bool) -> list[Tensor]:
        return list(torch.autograd.grad(loss, list(self.parameters()), **options))


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_layers_and_batches_of_one_shape_do_not_disturb_each_other(cell: str, graphs: Forgetful) -> None:
    net, (first, second) = Two(cell), randn(2, 7, 3, 5, seed=1)

    def in_turn() -> list[Tensor]:
        return [*net.gradients(net.loss(first)), *net.gradients(net.loss(second))]

    def crosswise() -> list[Tensor]:
        losses = net.loss(first), net.loss(second)
        return [*net.gradients(losses[0]), *net.gradients(losses[1])]

    def last_first() -> list[Tensor]:
        losses = net.loss(first), net.loss(second)
        later = net.gradients(losses[1])
        return [*net.gradients(losses[0]), *later]

    def twice() -> list[Tensor]:
        loss = net.loss(first)
        once = net.gradients(loss, retain_graph=True)
        net.gradients(net.loss(second))
        same(net.gradients(loss), once)
        return [*once, *net.gradients(net.loss(second))]

    exact = eagerly(in_turn)
    for work in (in_turn, crosswise, last_first, twice):
        same(work(), exact)
    assert len(graphs) == 3  # forward; back with the gradient of x, and without


def test_changed_shapes_get_graphs_of_their_own_and_old_ones_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    graphs = Forgetful(Recorded, limit=3)
    use(graphs, monkeypatch)
    cases = [Case(CELLS["lstm"], B, H, 2, num_timesteps=T) for B, H, T in ((3, 5, 7), (1, 5, 7), (3, 4, 7), (2, 5, 9))]
    exact = [eagerly(lambda case=case: case.run(torch.float32)) for case in cases]  # type: ignore[misc]
    for _ in range(3):
        for case, each in zip(cases, exact, strict=True):
            same(case.run(torch.float32), each)
            assert len(graphs) <= 3
    known = graphs.num_captures
    same(cases[-1].run(torch.float32), exact[-1])
    assert graphs.num_captures == known


def test_the_graph_that_has_waited_longest_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    graphs = Forgetful(Recorded, limit=2)
    use(graphs, monkeypatch)

    def forward(num_examples: int) -> None:
        Recurrence.apply(
            Call(CELLS["elman"], False, None),
            torch.zeros(1, 5, num_examples, 2),
            torch.zeros(1, 3, 6),
            torch.empty(1, 0, 3),
            torch.zeros(1, num_examples, 3),
            None,
        )

    for num_examples in (9, 8, 9, 7, 9):  # the largest first: no memory is replaced
        forward(num_examples)
    assert (graphs.num_captures, graphs.num_replays) == (3, 5)  # 8 made room for 7
    forward(8)
    assert graphs.num_captures == 4
    forward(9)
    assert graphs.num_captures == 4


def test_all_graphs_use_the_memory_of_the_largest(graphs: Forgetful) -> None:
    large, small = Case(CELLS["lstm"], 9, 5, 2), Case(CELLS["lstm"], 2, 5, 2)
    large.run(torch.float32)
    memory = graphs._memory
    small.run(torch.float32)
    assert graphs._memory is memory
    assert all(
        tensor.untyped_storage().data_ptr() == memory.data_ptr()
        for known in graphs._passes.values()
        for tensor in (*known.read, *known.filled)
        if tensor is not None
    )


def test_passes_of_few_timesteps_are_not_worth_a_graph(graphs: Forgetful) -> None:
    case = Case(CELLS["lstm"], 3, 5, 2, num_timesteps=MIN_TIMESTEPS - 1)
    same(case.run(torch.float32), eagerly(lambda: case.run(torch.float32)))
    assert len(graphs) == 0


class Failing(Recorded):
    """A graph that cannot be captured once some have been."""

    left = 0

    def capture(self, work: Callable[[], None]) -> None:
        if Failing.left == 0:
            work()
            raise RuntimeError("operation not permitted when stream is capturing")
        Failing.left -= 1
        super().capture(work)


@pytest.mark.parametrize("num_good", [0, 1, 2], ids=["forward", "back", "later"])
def test_a_capture_that_fails_costs_a_line_and_no_result(
    num_good: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(Failing, "left", num_good)
    graphs = Forgetful(Failing)
    use(graphs, monkeypatch)
    case, other = Case(CELLS["gru"], 3, 5, 2), Case(CELLS["gru"], 2, 5, 2)
    with caplog.at_level(logging.WARNING):
        assert kernel_of(case.cell, case.x) == "captured"
        for each in (case, other, case):
            same(each.run(torch.float32), eagerly(lambda each=each: each.run(torch.float32)))  # type: ignore[misc]
    assert kernel_of(case.cell, case.x) == "eager"
    assert [record.getMessage() for record in caplog.records] == [
        "recurrences run launch by launch, several times slower, for a CUDA graph failed: "
        "operation not permitted when stream is capturing"
    ]
    assert len(graphs) == 0


def test_an_error_of_the_pass_itself_is_not_hidden(graphs: Forgetful) -> None:
    case = Case(CELLS["lstm"], 3, 5, 2)
    weight = torch.zeros(2, 20, 8, dtype=torch.float64)
    with pytest.raises(RuntimeError, match="dtype"):
        Recurrence.apply(Call(case.cell, True, None), case.x, weight, torch.empty(2, 0, 5), *case.start, None, None)


def test_on_a_gpu_the_loops_are_captured_and_elsewhere_not(monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeTensorMode():
        like = torch.empty(1, device="cuda")
    monkeypatch.setattr(captured.GRAPHS, "works", True)
    assert kernel_of(CELLS["lstm"], like) == "captured"
    assert kernel_of(CELLS["lstm"], torch.empty(1, dtype=torch.float64)) == "eager"
    monkeypatch.setattr(recurrence, "USE_EAGER", True)
    assert kernel_of(CELLS["lstm"], like) == "eager"


class FakeStream:
    """Counts who waits for whom."""

    def __init__(self, name: str, log: list[str]) -> None:
        self.name, self.log = name, log

    def wait_stream(self, other: FakeStream) -> None:
        self.log.append(f"{self.name} waits for {other.name}")


@pytest.mark.parametrize("fails", [False, True])
def test_torch_is_asked_to_warm_up_and_capture_on_a_stream_aside(fails: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The calls that a GPU would get, in the order in which torch's documentation has them."""
    log: list[str] = []
    main, side = FakeStream("main", log), FakeStream("side", log)

    class Noted:
        def __init__(self, what: str) -> None:
            self.what = what

        def __enter__(self) -> None:
            log.append(f"enter {self.what}")

        def __exit__(self, *_: object) -> None:
            log.append(f"leave {self.what}")

    class FakeGraph:
        def replay(self) -> None:
            log.append("replay")

    monkeypatch.setattr(torch.cuda, "CUDAGraph", FakeGraph)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: main)
    monkeypatch.setattr(captured, "_side_stream", lambda device: side)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: Noted(stream.name))
    monkeypatch.setattr(torch.cuda, "graph", lambda graph, stream: Noted(f"capture on {stream.name}"))
    graph = captured.CudaGraph(torch.device("cuda", 0))

    def work() -> None:
        log.append("work")
        if fails and log.count("work") == captured.NUM_WARM_UPS + 1:
            raise RuntimeError("not permitted")

    if fails:
        with pytest.raises(RuntimeError, match="not permitted"):
            graph.capture(work)
    else:
        graph.capture(work)
        graph.replay()
    before = ["side waits for main", "enter side", *["work"] * captured.NUM_WARM_UPS, "enter capture on side", "work"]
    assert log == [*before, "leave capture on side", "leave side", "main waits for side", *(["replay"] * (not fails))]
