"""The compiled loops against the eager ones, in float64 too, and the cache that they are kept in."""

from __future__ import annotations

import dataclasses
import gc
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.utils.checkpoint
from torch import Tensor

from pipeline.core.cells import CELLS, Cell, States, compiled, memory, recurrence
from pipeline.core.cells.cell import H_AND_X, Named, Stepped
from pipeline.core.cells.compiled import CompiledError, library_of, source_of
from pipeline.core.cells.recurrence import Call, Recurrence, kernel_of
from pipeline.core.cells.stack import RecurrentStack
from tests.core.slowly import mostly
from tests.test_architecture import ROOT

POINTWISE = [name for name, cell in CELLS.items() if cell.whole_step is None]
SIZES = [(1, 1, 1), (3, 17, 1), (17, 3, 31), (31, 31, 3)]  # B, H, D: none a multiple of a tile
R, T = 2, 7
needs_compiler = pytest.mark.skipif(compiled.compiler() is None, reason="there is no C compiler")


def randn(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


class Case:
    """A recurrence with everything that can be given to it: all states start, all are tapped, all are used."""

    def __init__(self, cell: Cell, B: int, H: int, D: int, num_replicas: int = R, num_timesteps: int = T) -> None:
        self.cell, shape = cell, (num_replicas, num_timesteps, B, H)
        self.x = randn(num_replicas, num_timesteps, B, D, seed=0)
        shapes = cell.shapes(D, H)
        self.named = {name: randn(num_replicas, *size, seed=1) * H**-0.5 for name, size in shapes.items()}
        self.start = [0.5 * randn(num_replicas, B, H, seed=2 + s) for s, _ in enumerate(cell.states)]
        self.taps = [0.1 * randn(*shape, seed=7 + s) for s, _ in enumerate(cell.states)]
        for values in (self.start, self.taps):
            values[2:3] = [
                1.0 + each.abs() for each in values[2:3]
            ]  # n is what the sLSTM divides by: a sum of exponentials
        self.grads = [randn(*shape, seed=12 + s) for s, _ in enumerate(cell.states)]

    def run(self, dtype: torch.dtype, state_threshold: float | None = None, engine: bool = True) -> list[Tensor]:
        """Return every state, and the gradients of x, of every parameter, first state and tap; by autograd or not."""
        x, *rest = (each.to(dtype).requires_grad_() for each in (self.x, *self.named.values(), *self.start, *self.taps))
        parameters, (start, taps) = rest[: len(self.named)], _halves(rest[len(self.named) :])

        def fused(*values: Tensor) -> tuple[Tensor, Tensor]:
            return self.cell.fused(self.cell.weights(dict(zip(self.named, values, strict=True))))

        weight, per_unit = torch.vmap(fused)(*parameters)
        per_unit = per_unit.reshape(len(x), len(self.cell.per_unit), start[0].shape[-1])
        call, num_states = Call(self.cell, True, state_threshold), len(start)
        states = Recurrence.apply(call, x, weight, per_unit, *start, *taps)[:num_states]
        if not engine:
            weights = [
                self.cell.weights(dict(zip(self.named, each, strict=True))) for each in zip(*parameters, strict=True)
            ]
            unrolled = [
                self.cell.unroll_flat(x[r], *(s[r] for s in start), *(tap[r] for tap in taps), *weights[r])
                for r in range(len(x))
            ]
            states = tuple(torch.stack(each) for each in zip(*unrolled, strict=True))
        found = torch.autograd.grad(states, [x, *rest], [each.to(dtype) for each in self.grads], allow_unused=True)
        return [*states, *(torch.zeros(1) if each is None else each for each in found)]


def _halves(values: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    return values[: len(values) // 2], values[len(values) // 2 :]


def close(mine: list[Tensor], exact: list[Tensor], tolerance: float) -> None:
    for place, (a, b) in enumerate(zip(mine, exact, strict=True)):
        assert (a.double() - b.double()).norm() <= tolerance * max(b.double().norm().item(), 1e-3), place


@needs_compiler
@pytest.mark.parametrize("name", POINTWISE)
@pytest.mark.parametrize("sizes", mostly(SIZES, *SIZES[1:3]), ids=str)
@pytest.mark.parametrize("state_threshold", [None, 0.5])
def test_compiled_loops_are_the_eager_ones_in_float64(
    name: str, sizes: tuple[int, int, int], state_threshold: float | None
) -> None:
    case = Case(CELLS[name], *sizes)
    assert kernel_of(case.cell, case.x) == "compiled"
    close(case.run(torch.float32, state_threshold), case.run(torch.float64, state_threshold), 1e-5)


@pytest.mark.parametrize("name", POINTWISE)
def test_eager_loops_in_float32_are_those_in_float64(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recurrence, "USE_EAGER", True)
    case = Case(CELLS[name], 3, 5, 2)
    assert kernel_of(case.cell, case.x) == "eager"
    close(case.run(torch.float32), case.run(torch.float64), 1e-5)


@pytest.mark.parametrize("name", POINTWISE)
@pytest.mark.parametrize("sizes", mostly([*SIZES, (5, 6, 2), (31, 100, 2)], (5, 6, 2)), ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_in_the_eager_loops_too_no_bit_of_a_replica_depends_on_its_place(
    name: str, sizes: tuple[int, int, int], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recurrence, "USE_EAGER", True)
    case = Case(CELLS[name], *sizes, num_replicas=5)
    together = case.run(dtype)
    for r in (1, 4):
        alone = Case(CELLS[name], *sizes, num_replicas=5)
        for values in (alone.start, alone.taps, alone.grads):
            values[:] = [each[r : r + 1].clone() for each in values]
        alone.x, alone.named = case.x[r : r + 1].clone(), {key: each[r : r + 1] for key, each in case.named.items()}
        for a, b in zip(together, alone.run(dtype), strict=True):
            assert torch.equal(a[r : r + 1], b) or a.numel() == 1


@needs_compiler
@pytest.mark.parametrize("name", ["lstm", "gru", "elman_relu"])
def test_a_replica_an_example_and_a_thread_more_change_no_bit(name: str) -> None:
    whole, alone = Case(CELLS[name], 13, 17, 3, num_replicas=3), Case(CELLS[name], 13, 17, 3, num_replicas=3)
    for key in ("x", "named", "start", "taps", "grads"):
        value = getattr(alone, key)
        cut = value[1:2] if key == "x" else [each[1:2] for each in (value.values() if key == "named" else value)]
        setattr(alone, key, dict(zip(value, cut, strict=True)) if key == "named" else cut)
    threads, together, by_itself = torch.get_num_threads(), whole.run(torch.float32), alone.run(torch.float32)
    assert all(torch.equal(a[1:2], b) for a, b in zip(together, by_itself, strict=True))
    try:
        torch.set_num_threads(2 if threads == 1 else 1)
        assert all(torch.equal(a, b) for a, b in zip(whole.run(torch.float32), together, strict=True))
    finally:
        torch.set_num_threads(threads)
    few = Case(CELLS[name], 13, 17, 3, num_replicas=3)
    few.x, few.start, few.taps, few.grads = (
        few.x[:, :, 4:5],
        *([each[..., 4:5, :] for each in values] for values in (few.start, few.taps, few.grads)),
    )
    size = len(whole.start)
    assert all(
        torch.equal(a[:, :, 4:5], b) for a, b in zip(together[:size], few.run(torch.float32)[:size], strict=True)
    )


@needs_compiler
def test_elementary_functions_are_right_to_the_last_digits_and_at_both_ends() -> None:
    x = torch.cat([torch.linspace(-30, 30, 20_001), torch.tensor([-1e-20, 1e-20, 1e-6, -200.0, 200.0, -1e30, 1e30])])

    def exponential(a: object, s: object) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
        return (torch.exp(a.h),), {}  # type: ignore[attr-defined]

    def logarithm(a: object, s: object) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
        return (torch.log(a.h),), {}  # type: ignore[attr-defined]

    def logarithm_of_one_more(a: object, s: object) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
        return (torch.log1p(a.h),), {}  # type: ignore[attr-defined]

    cells = {CELLS["elman"]: torch.tanh, CELLS["elman_sigmoid"]: torch.sigmoid}
    for pointwise, function in ((exponential, torch.exp), (logarithm, torch.log), (logarithm_of_one_more, torch.log1p)):
        cells[Cell(gates={"h": H_AND_X}, pointwise=pointwise)] = function
    for cell, function in cells.items():
        weight = torch.tensor([[[0.0, 1.0, 0.0]]])
        call, start = Call(cell, False, None), torch.zeros(1, len(x), 1)
        found, _ = Recurrence.apply(call, x[None, None, :, None], weight, torch.empty(1, 0, 1), start, None)
        exact = function(x.double())
        known = (exact.abs() > 1e-37) & (exact.abs() < 3e38)
        error = ((found[0, 0, :, 0].double() - exact) / exact)[known].abs().max()
        assert error < 4e-7, function
        assert torch.equal(found[0, 0, :, 0].isnan(), exact.isnan())
        ends = exact[-2:].float()
        torch.testing.assert_close(found[0, 0, -2:, 0], ends, rtol=4e-7, atol=0.0, equal_nan=True)


@pytest.mark.slow
@needs_compiler
@pytest.mark.parametrize("name", POINTWISE)
def test_gcc_makes_vectors_of_every_loop_over_units(name: str, tmp_path: Path) -> None:
    compiler = str(compiled.compiler())
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=True).stdout
    if "Free Software Foundation" not in version:
        pytest.skip("the compiler is not GCC, which says what it made vectors of")
    cell, written = CELLS[name], tmp_path / "loops.c"
    source = source_of(cell.derivation, len(cell.fed_by_h), len(cell.fed_by_x), cell.num_feeding)
    written.write_text(source)
    command = [
        compiler,
        *compiled.FLAGS,
        *compiled.NATIVE[1],
        "-fopt-info-vec",
        str(written),
        "-o",
        str(tmp_path / "l"),
    ]
    says = subprocess.run([*command, "-lm"], capture_output=True, text=True, check=False)
    if says.returncode:
        pytest.skip("GCC knows no native processor here")
    loops = [number for number, line in enumerate(source.splitlines(), 2) if "GCC ivdep" in line]
    assert len(loops) == 3
    assert all(f"loops.c:{number}:" in says.stderr for number in loops)


@needs_compiler
@pytest.mark.parametrize("name", POINTWISE)
@pytest.mark.parametrize("poison", [torch.nan, torch.inf])
def test_what_is_not_finite_spreads_in_its_own_example_alone(name: str, poison: float) -> None:
    case, sick = Case(CELLS[name], 5, 17, 3), Case(CELLS[name], 5, 17, 3)
    sick.x[0, 3, 2] = poison
    size = len(case.start)
    for well, ill in zip(case.run(torch.float32)[:size], sick.run(torch.float32)[:size], strict=True):
        others = [b for b in range(5) if b != 2]
        assert torch.equal(well[:, :, others], ill[:, :, others])
        assert torch.equal(well[0, :3], ill[0, :3])
        assert torch.equal(well[1], ill[1])
    if poison != poison:  # noqa: PLR0124 - NaN
        assert sick.run(torch.float32)[0][0, 3:, 2].isnan().all()


@needs_compiler
def test_inputs_taps_and_gradients_may_lie_in_any_order_of_memory() -> None:
    case, turned = Case(CELLS["lstm"], 5, 9, 3), Case(CELLS["lstm"], 5, 9, 3)
    turned.x = case.x.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0)
    turned.grads = [each.transpose(1, 3).contiguous().transpose(1, 3) for each in case.grads]
    turned.taps = [each.transpose(1, 2).contiguous().transpose(1, 2) for each in case.taps]
    assert all(torch.equal(a, b) for a, b in zip(case.run(torch.float32), turned.run(torch.float32), strict=True))
    flat, spread = Case(CELLS["lstm"], 5, 9, 3), Case(CELLS["lstm"], 5, 9, 3)
    flat.taps = [torch.tensor(0.25).expand_as(each) for each in case.taps]
    spread.taps = [torch.full_like(each, 0.25) for each in case.taps]
    assert all(torch.equal(a, b) for a, b in zip(flat.run(torch.float32), spread.run(torch.float32), strict=True))


@needs_compiler
def test_a_state_that_is_changed_in_place_is_found_out() -> None:
    case = Case(CELLS["lstm"], 3, 5, 2)
    weight = torch.randn(R, 20, 8, requires_grad=True)
    start = [torch.zeros(R, 3, 5), torch.zeros(R, 3, 5)]
    h, *_ = Recurrence.apply(Call(case.cell, True, None), case.x, weight, torch.empty(R, 0, 5), *start, None, None)
    with pytest.raises(RuntimeError, match="is a view and is being modified inplace"):
        h.mul_(2.0)


@needs_compiler
@pytest.mark.parametrize(
    ("what", "other"),
    [
        ("x", lambda x: x[..., :2]),
        ("x", lambda x: x.double()),
        ("taps", lambda taps: [tap[:, :1] for tap in taps]),
        ("taps", lambda taps: [tap.double() for tap in taps]),
        ("start", lambda start: [state[..., :3] for state in start]),
    ],
)
def test_what_does_not_go_together_is_refused_before_c_sees_it(
    what: str, other: Callable[[Any], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    case = Case(CELLS["lstm_peephole"], 3, 5, 4)
    parameters = {name: each.clone() for name, each in case.named.items()}
    weight, per_unit = torch.vmap(lambda named: case.cell.fused(case.cell.weights(named)))(parameters)
    given = {"x": case.x, "start": case.start, "taps": case.taps}
    given[what] = other(given[what])
    call = Call(case.cell, True, None)
    engine = compiled.engine(case.cell.derivation, 4, 4, 1)
    monkeypatch.setattr(recurrence, "engine_of", lambda cell, like: engine)
    with pytest.raises((ValueError, RuntimeError), match=r"expected a tensor of the shape|size of tensor"):
        call.forward(given["x"], weight, per_unit, given["start"], given["taps"])


@needs_compiler
@pytest.mark.parametrize("sizes", [(0, 5, 2, 7), (3, 5, 0, 7), (3, 5, 2, 0)])
def test_no_examples_no_inputs_and_no_timesteps_are_no_accident(sizes: tuple[int, int, int, int]) -> None:
    B, H, D, num_timesteps = sizes
    case = Case(CELLS["gru"], B, H, D, num_timesteps=num_timesteps)
    close(case.run(torch.float32), case.run(torch.float64), 1e-5)


@needs_compiler
def test_another_default_precision_changes_nothing() -> None:
    case = Case(CELLS["lstm"], 3, 17, 2)
    expected = case.run(torch.float32)
    try:
        torch.set_default_dtype(torch.float16)
        found = case.run(torch.float32)
    finally:
        torch.set_default_dtype(torch.float32)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@needs_compiler
def test_parameters_of_units_may_lie_in_any_order_of_memory() -> None:
    case = Case(CELLS["lstm_peephole"], 3, 5, 2)
    expected = case.run(torch.float32)
    case.named["weight_u"] = case.named["weight_u"].transpose(1, 2).contiguous().transpose(1, 2)
    assert all(torch.equal(a, b) for a, b in zip(case.run(torch.float32), expected, strict=True))


# Steps as users may write them


def a_cell(step: Callable[[Any, Any], tuple[Tensor, ...]], num_states: int = 2) -> Cell:
    """A cell with one gate z, of states h, c and so on."""
    names = ("h", "c", "n", "m")[:num_states]
    return Cell(gates={"z": H_AND_X}, states=names, pointwise=lambda a, s: (step(a, s), {}))


STEPS: dict[str, Callable[[Any, Any], tuple[Tensor, ...]]] = {
    "a state that is handed on": lambda a, s: (torch.tanh(a.z) + s.c, s.h),
    "a state that is the other's": lambda a, s: (s.c.clone(), torch.tanh(a.z) + s.h),
    "a delay line": lambda a, s: (torch.tanh(a.z) + s.n, s.h, s.c),
    "a straight-through estimator": lambda a, s: (a.z + (torch.sign(a.z) - a.z).detach() + s.h.detach(), a.z * s.c),
    "a copy of a block": lambda a, s: ((h := a.z.clone()), torch.tanh(h) + s.c),
    "a condition that is kept": lambda a, s: (a.z.clamp(-1, 1), torch.where((a.z > 0) & (s.c > 0), a.z, s.c)),
    "more subtracted": lambda a, s: (torch.rsub(torch.tanh(a.z), 2.0, alpha=0.3), s.c + a.z),
    "rounded down": lambda a, s: (torch.tanh(a.z) + torch.div(s.c.detach(), 0.3, rounding_mode="floor"), a.z * s.c),
    "two results at once": lambda a, s: (torch.nn.functional.logsigmoid(a.z), a.z + s.c),
    "a square": lambda a, s: (torch.tanh(a.z) ** 2, s.c * a.z),
}


@pytest.mark.parametrize("what", STEPS)
def test_a_step_as_users_write_it_has_the_gradients_of_autograd(what: str) -> None:
    num_states = 3 if what == "a delay line" else 2
    case = Case(a_cell(STEPS[what], num_states), 3, 5, 2)
    mine, exact = case.run(torch.float32), case.run(torch.float64)
    by_autograd = case.run(torch.float64, engine=False)
    close(exact, by_autograd, 1e-12)
    close(mine, exact, 1e-4)


def test_a_step_that_changes_something_in_place_is_refused() -> None:
    cell = a_cell(lambda a, s: (a.z.mul(2).add_(s.h), s.c.clone()))
    with pytest.raises(ValueError, match="expected a step that changes nothing in place, got one with aten.add_"):
        _ = cell.derivation


# The cache


def a_source() -> str:
    cell = CELLS["elman"]
    return source_of(cell.derivation, len(cell.fed_by_h), len(cell.fed_by_x), cell.num_feeding)


@pytest.mark.slow
@needs_compiler
def test_nothing_is_compiled_twice_and_nothing_is_taken_from_another_processor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Path] = []
    compile_ = compiled._compile
    monkeypatch.setattr(
        compiled, "_compile", lambda cc, source, library: made.append(library) or compile_(cc, source, library)
    )
    first = library_of(a_source(), tmp_path)
    assert library_of(a_source(), tmp_path) == first
    assert made == [first]
    assert library_of(a_source() + "\n", tmp_path) != first
    monkeypatch.setattr(compiled, "_processor", lambda: "another processor")
    assert library_of(a_source(), tmp_path) not in made[:2]
    assert len(made) == 3


AT_ONCE = """
import torch
from pipeline.core.cells import CELLS
from pipeline.core.cells.recurrence import kernel_of
print(kernel_of(CELLS["lstm"], torch.zeros(1)))
"""


def kernels(number: int, cache: Path, **environment: str) -> list[tuple[str, str]]:
    """Return what processes that start at once say of their kernel, and what they warn of."""
    known = {**os.environ, compiled.CACHE_VARIABLE: str(cache), **environment}
    command = [sys.executable, "-c", AT_ONCE]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    running = [subprocess.Popen(command, cwd=ROOT, env=known, text=True, **pipes) for _ in range(number)]  # type: ignore[call-overload]
    said = [process.communicate(timeout=120) for process in running]
    return [(out.strip(), err.strip()) for out, err in said]


@needs_compiler
@pytest.mark.slow
def test_processes_that_compile_at_once_share_one_library(tmp_path: Path) -> None:
    assert kernels(3, tmp_path) == [("compiled", "")] * 3
    assert len(list(tmp_path.glob("*.so"))) == 1
    assert not [path for path in tmp_path.iterdir() if path.suffix not in {".so", ".lock"}]


@pytest.mark.slow
def test_without_a_compiler_the_eager_loops_run_and_one_line_says_what_it_costs(tmp_path: Path) -> None:
    ((kernel, warning),) = kernels(1, tmp_path, PATH="")
    assert kernel == "eager"
    assert warning == (
        "recurrences run in torch's own operations, several times slower: there is no C compiler (cc, gcc or clang)"
    )


@needs_compiler
def test_a_step_that_has_no_form_in_c_runs_eagerly(caplog: pytest.LogCaptureFixture) -> None:
    def pointwise(a: object, s: object) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
        return (torch.erfinv(0.5 * torch.tanh(a.h)),), {}  # type: ignore[attr-defined]

    case = Case(Cell(gates={"h": H_AND_X}, pointwise=pointwise), 3, 5, 2)
    with caplog.at_level(logging.WARNING):
        assert kernel_of(case.cell, case.x) == "eager"
    assert "the operation aten.erfinv.default has no form in C" in caplog.text
    close(case.run(torch.float32), case.run(torch.float64), 1e-4)
    with pytest.raises(CompiledError, match="has no form in C"):
        source_of(case.cell.derivation, 1, 1, 1)


@needs_compiler
def test_a_compiler_that_fails_is_quoted(tmp_path: Path) -> None:
    with pytest.raises(CompiledError, match=r"failed: .*error"):
        library_of("this is not C", tmp_path)
    assert not list(tmp_path.glob("*.so"))


def test_constants_of_a_step_are_of_the_precision_and_device_of_its_states() -> None:
    def kinked(a: Named, s: Named) -> Stepped:
        return (torch.where(s.h > 0, 0.1, torch.tanh(a.h)) + torch.where(a.h > 0.1, a.h, 0.3),), {}

    case = Case(Cell(gates={"h": H_AND_X}, pointwise=kinked), 3, 5, 2, num_replicas=1)
    weights = case.cell.weights({name: value[0].double() for name, value in case.named.items()})
    h, taps = case.start[0][0].double(), case.taps[0][0].double()
    for x_BD, tap_BH in zip(case.x[0].double(), taps, strict=True):
        h = torch.vmap(lambda x_t, h: case.cell.step(x_t, States(h), weights).h)(x_BD, h) + tap_BH
    torch.testing.assert_close(case.run(torch.float64)[0][0, -1], h, rtol=0, atol=1e-14)
    for cell in (case.cell, *(CELLS[name] for name in POINTWISE)):
        derivation = cell.derivation
        for module in (derivation.stepped, derivation.forward, derivation.forward_tapped, derivation.backward):
            assert not [node for node in module.graph.nodes if "device" in node.kwargs]
    close(case.run(torch.float32), case.run(torch.float64), 1e-5)


def test_a_step_that_makes_too_few_states_is_refused() -> None:
    cell = dataclasses.replace(CELLS["elman"], states=("h", "c"))
    with pytest.raises(ValueError, match="expected a step that makes 2 states, each by itself"):
        _ = cell.derivation


@pytest.mark.slow
@needs_compiler
@pytest.mark.parametrize("content", [b"", b"not a library"])
def test_a_broken_library_is_taken_out_of_the_cache(tmp_path: Path, content: bytes) -> None:
    library = library_of(a_source(), tmp_path)
    library.write_bytes(content)
    cell = CELLS["elman"]
    with pytest.raises(CompiledError, match="is broken and was removed"):
        compiled._loaded(library, cell.derivation, 1)
    assert library_of(a_source(), tmp_path).stat().st_size > 1000


# Memory


@needs_compiler
def test_memory_is_not_lent_while_autograd_has_it() -> None:
    """A checkpoint drops the graph that it ran again and goes on with what that kept; a hook runs a pass meanwhile."""
    first, second = (RecurrentStack("lstm", 8, 8, torch.Generator().manual_seed(seed)) for seed in (0, 1))
    x, parameters = randn(6, 4, 8, seed=0), [*first.parameters(), *second.parameters()]

    def outputs(x: Tensor, hooked: bool = True) -> Tensor:
        between = first(x).outputs
        if hooked:
            between.register_hook(lambda _: first(randn(6, 4, 8, seed=1)).outputs.sum().item() and None)
        return second(between).outputs

    exact = torch.autograd.grad(outputs(x, hooked=False).sin().sum(), parameters)
    again = torch.utils.checkpoint.checkpoint(outputs, x, use_reentrant=False)
    found = torch.autograd.grad(again.sin().sum(), parameters)
    assert all(torch.equal(a, b) for a, b in zip(found, exact, strict=True))


def test_a_loan_ends_with_the_last_tensor_that_shares_it() -> None:
    loan = memory.Loan(torch.empty(0), 7, 11)
    place, part = loan.tensor.data_ptr(), loan.tensor[3:]
    del loan
    assert memory.Loan(torch.empty(0), 7, 11).tensor.data_ptr() != place
    del part
    assert memory.Loan(torch.empty(0), 7, 11).tensor.data_ptr() == place


def test_the_garbage_collector_may_return_memory_at_any_moment() -> None:
    """Also while memory is being lent: a lock that both took was a deadlock."""

    class Knot:
        pass

    for _ in range(300):
        knot = Knot()
        knot.me, knot.loan = knot, memory.Loan(torch.empty(0), 50)  # type: ignore[attr-defined]
    with memory.Loan._lock:
        gc.collect()


def test_what_was_kept_is_lent_again_and_never_to_two_at_a_time() -> None:
    like = torch.empty(0)
    first = memory.Loan(like, 3, 100)
    second = memory.Loan(like, 3, 100)
    places = {first.tensor.data_ptr(), second.tensor.data_ptr()}
    assert len(places) == 2
    del first
    third = memory.Loan(like, 100, 3)
    assert third.tensor.data_ptr() in places - {second.tensor.data_ptr()}
    assert third.tensor.shape == (100, 3)


def test_idle_memory_is_never_more_than_was_once_in_use() -> None:
    def held() -> int:
        return memory.Loan._lent + sum(each.nbytes for each in memory.Loan._idle)

    most = memory.Loan(torch.empty(0), 1 << 20)
    limit = memory.Loan._most_lent
    del most
    for size in range(1, 40):
        loan = memory.Loan(torch.empty(0), (1 << 16) + size)
        assert held() <= limit
        del loan
    assert held() <= limit
