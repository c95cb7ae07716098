"""From a cell's pointwise step to one timestep forward and one backward, as graphs of elementwise operations.

The step is traced once. A tap is put on every state at the place where the state is made, so that a tap's gradient is
the total dL/ds_t, along the paths within the timestep too (from c_t to h_t). Forward and backward are then traced
together, as one graph, and cut: what is dear (σ, tanh, exp, …) is kept from forward to backward, what is cheap is
computed again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, fx
from torch.fx.experimental.proxy_tensor import make_fx

CHEAP = frozenset(
    {"add", "sub", "rsub", "mul", "neg", "div", "relu", "leaky_relu", "abs", "sign", "maximum", "minimum", "where"}
    | {"gt", "ge", "lt", "le", "eq", "ne", "clamp", "clamp_min", "clamp_max", "zeros_like", "ones_like", "full_like"}
    | {"scalar_tensor", "logical_and", "logical_not", "threshold_backward", "leaky_relu_backward", "square"}
    | {"sgn", "masked_fill", "masked_fill_"}
)
"""Operations that the backward step computes again rather than keep their values."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Derivation:
    """One timestep of a cell, forward and backward; every function is of tensors that broadcast against each other.

    Attributes:
        num_blocks: Blocks of pre-activations.
        num_per_unit: Parameters that each unit has for itself.
        num_states: States.
        num_kept: Tensors that `forward` returns for `backward`.
        stepped: (blocks, per unit, before, taps) -> after.
        forward: (blocks, per unit, before) -> after, kept.
        forward_tapped: (blocks, per unit, before, taps) -> after, kept.
        backward: (kept, per unit, before, after, gradients of after) -> gradients of blocks, per unit, before, taps.
            That of a tap is the total gradient of its state.
    """

    num_blocks: int
    num_per_unit: int
    num_states: int
    num_kept: int
    stepped: fx.GraphModule
    forward: fx.GraphModule
    forward_tapped: fx.GraphModule
    backward: fx.GraphModule


def derive(step: Callable[..., tuple[Tensor, ...]], num_blocks: int, num_per_unit: int, num_states: int) -> Derivation:
    """Return the derivation of a step, a function `(*blocks, *per unit, *states before) -> states after`.

    Raises:
        ValueError: If it is not one: two of its states are the same, or it returns another number of them.
    """
    num_inputs = num_blocks + num_per_unit + num_states
    example = [
        torch.full((2,), 0.5, dtype=torch.float32, device="cpu") for _ in range(num_inputs + 2 * num_states)
    ]  # each its own: the tracer tells by it
    plain = _traced(step, example[:num_inputs], frozenset({"alias"}))  # a detach says what is to be differentiated
    for node in plain.nodes:
        if operation(node).endswith("_"):
            raise ValueError(f"expected a step that changes nothing in place, got one with {node.target}")
    _free_constants(plain, inputs_of(plain)[-1])
    _tap(plain, num_states)
    stepped = fx.GraphModule({}, plain)

    def joint(*values: Tensor) -> tuple[Tensor, ...]:
        gradients = values[num_inputs + num_states :]
        after, pull_back, *_ = torch.func.vjp(stepped, *values[: num_inputs + num_states])
        return *after, *pull_back(gradients)

    graph = _traced(joint, example)
    inputs, outputs = inputs_of(graph), outputs_of(graph)
    _free_constants(graph, inputs[num_inputs - 1])
    taps, gradients = inputs[num_inputs : num_inputs + num_states], inputs[num_inputs + num_states :]
    after, found = outputs[:num_states], outputs[num_states:]
    behind = _reached(graph, gradients)
    kept = _kept(behind, found, known={*inputs[num_blocks:num_inputs], *after})
    forward = _cut(graph, inputs[: num_inputs + num_states], [*after, *kept])
    backward = _cut(graph, [*kept, *inputs[num_blocks:num_inputs], *after, *gradients], found)
    return Derivation(
        num_blocks=num_blocks,
        num_per_unit=num_per_unit,
        num_states=num_states,
        num_kept=len(kept),
        stepped=stepped,
        forward=fx.GraphModule({}, _without_taps(forward, len(taps))),
        forward_tapped=fx.GraphModule({}, forward),
        backward=fx.GraphModule({}, backward),
    )


def _traced(
    function: Callable[..., tuple[Tensor, ...]],
    example: Sequence[Tensor],
    copies: frozenset[str] = frozenset({"detach", "clone", "alias"}),
) -> fx.Graph:
    """Return the graph of a function, without the operations in `copies` and without what no output needs."""
    graph = make_fx(lambda *values: tuple(function(*values)))(*example).graph
    for node in list(graph.nodes):
        if operation(node) in copies:
            node.replace_all_uses_with(node.args[0])
    graph.eliminate_dead_code()
    return graph


def _free_constants(graph: fx.Graph, like: fx.Node) -> None:
    """Let the constants of a graph be of the device and precision of the state `like`, not of those of the tracing."""
    for node in list(graph.nodes):
        if operation(node) == "scalar_tensor":
            with graph.inserting_before(node):
                kept = {} if node.kwargs.get("dtype") == torch.float32 else {"dtype": node.kwargs.get("dtype")}
                free = graph.call_function(torch.ops.aten.full_like.default, (like, node.args[0]), kept)
            free.meta = node.meta
            node.replace_all_uses_with(free)
            graph.erase_node(node)


def operation(node: fx.Node) -> str:
    """Return the plain name of a node's operation, "mul" of aten.mul.Tensor; "" of inputs and outputs."""
    return str(node.target.__name__).split(".")[0] if node.op == "call_function" else ""  # type: ignore[union-attr]


def inputs_of(graph: fx.Graph) -> list[fx.Node]:
    """Return the inputs of a graph, in order."""
    return [node for node in graph.nodes if node.op == "placeholder"]


def outputs_of(graph: fx.Graph) -> list[fx.Node]:
    """Return what a graph returns, in order."""
    (output,) = (node for node in graph.nodes if node.op == "output")
    return list(output.args[0])


def _tap(graph: fx.Graph, num_states: int) -> None:
    """Add a tap to each state where it is made; taps are new inputs, after the others.

    Raises:
        ValueError: If the step does not make as many states as it has.
    """
    made, output = outputs_of(graph), next(node for node in graph.nodes if node.op == "output")
    if len(made) != num_states or len(set(made)) != num_states:
        raise ValueError(f"expected a step that makes {num_states} states, each by itself, got {made}")
    last = inputs_of(graph)[-1]
    tapped = list(made)
    for index, node in enumerate(made):
        with graph.inserting_after(last):
            last = graph.placeholder(f"tap_{index}")
        with graph.inserting_after(last if node.op == "placeholder" else node):
            total = graph.call_function(torch.ops.aten.add.Tensor, (node, last))
        tapped[index] = total
        if node.op != "placeholder":
            for user in [user for user in node.users if user not in (total, output)]:
                user.replace_input_with(node, total)
    output.args = (tuple(tapped),)
    graph.lint()


def _without_taps(graph: fx.Graph, num_taps: int) -> fx.Graph:
    plain = fx.Graph()
    made: dict[fx.Node, fx.Node] = {}
    output = plain.graph_copy(graph, made)
    plain.output(output)
    for tap in inputs_of(plain)[len(inputs_of(plain)) - num_taps :]:
        for total in list(tap.users):
            total.replace_all_uses_with(next(node for node in total.all_input_nodes if node is not tap))
            plain.erase_node(total)
        plain.erase_node(tap)
    return plain


def _reached(graph: fx.Graph, start: Sequence[fx.Node]) -> set[fx.Node]:
    """Return every node that depends on one of `start`, those included."""
    found = set(start)
    for node in graph.nodes:
        if node.op == "call_function" and any(arg in found for arg in node.all_input_nodes):
            found.add(node)
    return found


def _kept(behind: set[fx.Node], found: Sequence[fx.Node], known: set[fx.Node]) -> list[fx.Node]:
    """Return the nodes of the forward step whose values the backward step takes, in order of the graph.

    Args:
        behind: The nodes of the backward step.
        found: Its results.
        known: What the backward step has without it being kept.
    """
    kept, seen, todo = set[fx.Node](), set[fx.Node](), list(found)
    while todo:
        node = todo.pop()
        if node in seen:
            continue
        seen.add(node)
        if node in known:
            continue
        cheap = node.op != "placeholder" and (operation(node) in CHEAP or node.meta["val"].dtype == torch.bool)
        if node in behind or cheap:
            todo += node.all_input_nodes
        else:
            kept.add(node)
    return [node for node in found[0].graph.nodes if node in kept] if found else []


def _cut(graph: fx.Graph, inputs: Sequence[fx.Node], outputs: Sequence[fx.Node]) -> fx.Graph:
    """Return the part of a graph that leads from `inputs` to `outputs`."""
    part = fx.Graph()
    made = {node: part.placeholder(f"{node.name}_") for node in inputs}
    for node in graph.nodes:
        if node.op == "call_function" and node not in made and all(arg in made for arg in node.all_input_nodes):
            made[node] = part.node_copy(node, lambda arg: made[arg])
    part.output(tuple(made[node] for node in outputs))
    part.eliminate_dead_code()
    part.lint()
    return part
