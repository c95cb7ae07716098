"""What one writes by hand: torch's recurrent layers as a loop over timesteps, with every state's gradient."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

Key = tuple[int, str, str]
"""Layer, direction and state."""


def step(module: nn.Module, x: Tensor, state: list[Tensor], weights: Sequence[Tensor | None]) -> list[Tensor]:
    """Return the states after a timestep of one example; weights in torch's order, biases None where there are none."""
    w_ih, w_hh, b_ih, b_hh, w_hr = weights
    a_x = w_ih @ x + (0 if b_ih is None else b_ih)
    a_h = w_hh @ state[0] + (0 if b_hh is None else b_hh)
    if "LSTM" in type(module).__name__:
        i, f, g, o = (a_x + a_h).chunk(4)
        c = f.sigmoid() * state[1] + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        return [h if w_hr is None else w_hr @ h, c]
    if "GRU" in type(module).__name__:
        (r_x, z_x, n_x), (r_h, z_h, n_h) = a_x.chunk(3), a_h.chunk(3)
        r, z = (r_x + r_h).sigmoid(), (z_x + z_h).sigmoid()
        n = (n_x + r * n_h).tanh()
        return [(1 - z) * n + z * state[0]]
    function = torch.relu if module.nonlinearity == "relu" else torch.tanh
    return [function(a_x + a_h)]


class Unrolled:
    """Layers run by hand; `states` has, by layer, direction and state, a list of retained states for each example."""

    def __init__(self, module: nn.RNNBase) -> None:
        self.module = module
        self.states: dict[Key, list[list[Tensor]]] = defaultdict(list)

    def weights(self, suffix: str) -> list[Tensor | None]:
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr")
        return [getattr(self.module, name + suffix, None) for name in names]

    def example(self, x_TD: Tensor, start: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Return outputs (T, F) and the last states, (places, H) each, of one example."""
        module, final, place = self.module, [], 0
        directions = ("forward", "backward") if module.bidirectional else ("forward",)
        for layer in range(module.num_layers):
            sides = []
            for direction in directions:
                suffix = f"_l{layer}{'_reverse' if direction == 'backward' else ''}"
                state, kept = [each[place] for each in start], []
                order = range(len(x_TD)) if direction == "forward" else reversed(range(len(x_TD)))
                for t in order:
                    state = step(module, x_TD[t], state, self.weights(suffix))
                    for each in state:
                        each.retain_grad()
                    kept.append(state)
                final.append(state)
                kept = kept if direction == "forward" else kept[::-1]
                for name, states in zip("hc", zip(*kept, strict=True), strict=False):
                    self.states[layer, direction, name].append(list(states))
                sides.append(torch.stack([states[0] for states in kept]))
                place += 1
            x_TD = torch.cat(sides, dim=1)
        return x_TD, [torch.stack(each) for each in zip(*final, strict=True)]

    def __call__(self, x: Tensor | PackedSequence, start: Sequence[Tensor] | None) -> tuple[list[Tensor], list[Tensor]]:
        """Return the outputs of each example, (T, F), and the last states, (places, B, H) each."""
        module = self.module
        if isinstance(x, PackedSequence):
            padded, lengths = pad_packed_sequence(x)
        else:
            padded = x if x.dim() == 3 else x[:, None] if not module.batch_first else x[None]
            padded = padded.transpose(0, 1) if module.batch_first else padded
            lengths = torch.full((padded.shape[1],), len(padded))
        num_places = module.num_layers * (2 if module.bidirectional else 1)
        if start is None:
            sizes = [module.proj_size or module.hidden_size]
            sizes += [module.hidden_size] if isinstance(module, nn.LSTM) else []
            start = [padded.new_zeros(num_places, padded.shape[1], size) for size in sizes]
        start = [each if each.dim() == 3 else each[:, None] for each in start]
        examples = [
            self.example(padded[:length, b], [each[:, b] for each in start]) for b, length in enumerate(lengths)
        ]
        return [outputs for outputs, _ in examples], [
            torch.stack(each, dim=1) for each in zip(*(final for _, final in examples), strict=True)
        ]

    def log10_norms(self) -> dict[tuple[int, str, str, int, int], float]:
        """Return log10 of the gradient's norm by layer, direction, state, example and timestep (from 1)."""
        return {
            (*key, example, t + 1): (torch.zeros(1) if state.grad is None else state.grad.norm()).log10().item()
            for key, examples in self.states.items()
            for example, states in enumerate(examples)
            for t, state in enumerate(states)
        }


def left_on(module: nn.Module) -> dict[str, object]:
    """Return everything that could be left on a module tree: attributes, hooks, training modes, parameters by id."""
    return {
        f"{name}.{attribute}": dict(value) if isinstance(value, dict) else id(value)
        for name, part in module.named_modules()
        for attribute, value in vars(part).items()
    }


Readout = Callable[[Sequence[Tensor]], Tensor]


def readout(tensors: Sequence[Tensor]) -> Tensor:
    """Return a loss that every entry of every tensor has a weight of its own in."""
    total = torch.zeros((), dtype=tensors[0].dtype)
    for tensor in tensors:
        weights = torch.linspace(-1.0, 1.5, tensor.numel(), dtype=tensor.dtype).cos().view(tensor.shape)
        total = total + (weights * tensor + 0.1 * tensor.square()).sum()
    return total
