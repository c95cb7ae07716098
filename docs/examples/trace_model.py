"""The gradient in every state of one's own model: a translator of encoder, decoder cell and readout."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pipeline.trace import Traced, trace


class Translator(nn.Module):
    """Whatever one has: here a packed bidirectional encoder, and a decoder cell in a loop."""

    def __init__(self, size: int = 16) -> None:
        super().__init__()
        self.encoder = nn.LSTM(4, size, bidirectional=True, batch_first=True)
        self.decoder = nn.GRUCell(2 * size, 2 * size)
        self.readout = nn.Linear(2 * size, 3)

    def forward(self, sources: list[Tensor], num_outputs: int) -> Tensor:
        packed = nn.utils.rnn.pack_sequence(sources, enforce_sorted=False)
        _, (h, _) = self.encoder(packed)
        state = output = torch.cat([h[0], h[1]], dim=1)
        outputs = []
        for _ in range(num_outputs):
            state = self.decoder(output, state)
            output = state
            outputs.append(self.readout(state))
        return torch.stack(outputs, dim=1)


def main() -> Traced:
    """Return a trace of one backward pass, and print where the gradient is at lag 0 and at the largest lag."""
    torch.manual_seed(0)
    model, sources = Translator(), [torch.randn(length, 4) for length in (5, 12, 9)]
    targets = torch.randint(3, (3, 6))

    with trace(model) as traced:
        logits = model(sources, num_outputs=6)
        nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten()).backward()

    ends = traced.table.sort("lag").group_by("module", "direction", "state", maintain_order=True)
    for (module, direction, state), rows in ends:
        near, far = rows["log10_norm"][0], rows["log10_norm"][-1]
        print(f"{module} {direction} {state}: 10^{near:.1f} at lag 0, 10^{far:.1f} at lag {rows['lag'][-1]}")
    return traced


if __name__ == "__main__":
    main().plot("trace.png")
