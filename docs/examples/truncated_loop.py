"""Truncated backpropagation in a loop of one's own: an update every 20 timesteps, backward through the newest 60."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pipeline.trace import windows


class Forecaster(nn.Module):
    """Inputs and the state before them in, outputs and the state after them out: all that `windows` asks of a model."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.readout = nn.LSTM(1, 16, batch_first=True), nn.Linear(16, 1)

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor] | None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        outputs, state = self.lstm(x, state)
        return self.readout(outputs), state


def main(num_timesteps: int = 400) -> list[float]:
    """Return how wrong the truncated gradient was at the end of every tenth window, relative to the whole one."""
    torch.manual_seed(0)
    series = torch.sin(torch.arange(num_timesteps + 1) / 7.0)[None, :, None]
    x, y = series[:, :-1], series[:, 1:]
    model, errors = Forecaster(), []
    optimiser = torch.optim.Adam(model.parameters(), lr=0.01)
    for number, window in enumerate(windows(x, k1=20, k2=60, dim=1)):
        targets = window.of(y)
        optimiser.zero_grad()
        nn.functional.mse_loss(window.run(model), targets).backward()
        optimiser.step()
        if number % 10 == 9:  # the meter costs a pass through everything so far
            (bias,) = window.bias(model, lambda outputs: nn.functional.mse_loss(outputs, targets))  # noqa: B023
            errors.append(bias.relative_error)
    return errors


if __name__ == "__main__":
    print(main())
