"""Read dL/dh_t and dL/dc_t off any recurrent stack with taps, without a dataset or a training loop.

    python examples/tap_states.py --forget-bias 2

A tap is a zero that is added to each state; its gradient is the loss's gradient in that state. With small weights the
gradient in an LSTM's cell state falls by f = σ(b_f) per timestep of lag, which the last column checks.
"""

from __future__ import annotations

import argparse
import math

import torch

from pipeline.core.cells import States
from pipeline.core.cells.stack import RecurrentStack

BATCH, INPUT, HIDDEN = 16, 2, 32


def main(arguments: list[str] | None = None) -> None:
    """Print the norm of the gradient in each state of an LSTM, and how much of it is left after one timestep more."""
    parser = argparse.ArgumentParser(description="Print the gradient in every state of an LSTM.")
    parser.add_argument("--length", type=int, default=50, help="timesteps of the sequence")
    parser.add_argument("--forget-bias", type=float, default=2.0)
    asked = parser.parse_args(arguments)

    # A stack has the parameters of nn.LSTM: gates i, f, g, o in blocks of HIDDEN rows.
    lstm = RecurrentStack("lstm", INPUT, HIDDEN, generator=torch.Generator().manual_seed(0)).double()
    with torch.no_grad():
        for name, parameter in lstm.named_parameters():
            parameter.mul_(1e-6)
            if name.startswith("bias_ih"):
                parameter[HIDDEN : 2 * HIDDEN] += asked.forget_bias

    # One tap per layer and direction, with the shape of its states, (T, B, H).
    shape = (asked.length, BATCH, HIDDEN)
    tap_h, tap_c = (torch.zeros(shape, dtype=torch.float64, requires_grad=True) for _ in "hc")
    inputs = torch.randn(asked.length, BATCH, INPUT, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    loss = lstm(inputs, taps=[States(tap_h, tap_c)]).outputs[-1].sum()
    h_T, c_T = (grad.norm(dim=(1, 2)) for grad in torch.autograd.grad(loss, [tap_h, tap_c]))
    print("  t   ‖∂L/∂h_t‖   ‖∂L/∂c_t‖   factor")
    for t in range(asked.length - 1, -1, -max(1, asked.length // 8)):
        factor = (c_T[t] / c_T[t + 1]).item() if t + 1 < asked.length else math.nan
        print(f"{t + 1:3d}   {h_T[t]:9.3e}   {c_T[t]:9.3e}   {factor:6.4f}")
    print(f"closed form: σ({asked.forget_bias:g}) = {1 / (1 + math.exp(-asked.forget_bias)):.4f}")


if __name__ == "__main__":
    main()
