"""The scheduled measurements of a trial, on a probe batch that never changes."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.errors import PipelineError
from pipeline.measures import (
    certificate_error,
    eigenvalues,
    finite_difference_error,
    log_spaced_steps,
    recurrent_blocks,
    sigma_max,
    spectral_radius,
    trace_gradients,
)
from pipeline.models import Replicas
from pipeline.training.data import Sequences
from pipeline.training.sink import Column, Sink
from pipeline.training.spec import DiagnosticsSpec

EXPLODING_NORM = 1e3
"""Of a gradient beyond which finite differences of the loss are no witness."""


class CertificateError(PipelineError):
    """The gradient that trains disagrees with an independent one at initialisation, where nothing excuses it."""


class Diagnostics:
    """Traces, certificates and spectra of a pack, written to a sink.

    Args:
        spec: How often, on how much, and how exact.
        max_steps: The last step of the schedule.
        replicas: The pack.
        probe: The batch, the same for all replicas and steps.
        seeds: One a replica, for the rows.
        sink: Where the rows go.
    """

    def __init__(
        self,
        spec: DiagnosticsSpec,
        max_steps: int,
        replicas: Replicas,
        probe: Sequences,
        seeds: tuple[int, ...],
        sink: Sink,
    ) -> None:
        self.steps = frozenset(log_spaced_steps(max_steps, spec.num_traces))
        self._spec, self._replicas, self._probe, self._sink = spec, replicas, probe, sink
        self._seeds = np.array(seeds)

    def measure(self, step: int, flat_RP: Tensor, which: list[int], ending: list[int]) -> list[float]:
        """Write the rows of `step` for the replicas in `which`; return their certificate errors.

        Args:
            step: Updates made so far.
            flat_RP: Parameters.
            which: Replicas whose rows are wanted.
            ending: Those of them whose last measurement this is: their eigenvalues are written, as at step 0.

        Raises:
            CertificateError: If at step 0 the training path's gradient is further from the float64 one than allowed,
                or that one from finite differences.
        """
        trace = trace_gradients(self._replicas, flat_RP, *self._probe)
        _, fast_RP = self._replicas.gradients(flat_RP, *self._probe, shared=True)
        errors = certificate_error(fast_RP, trace.grad_RP)[which].tolist()
        if step == 0:
            self._check("the training gradient is {:.1e} (relative) from the float64 gradient", errors)
            differences = finite_difference_error(self._replicas, flat_RP, trace.grad_RP, *self._probe)
            smooth = [r for r in which if trace.grad_RP[r].norm() < EXPLODING_NORM]
            told = "the float64 gradient is {:.1e} (relative) from finite differences of the loss"
            self._check(told, differences[smooth].tolist())
        for quantity, norms in trace.log10_norms.items():
            self._write_trace(step, quantity, norms[which].cpu().numpy(), which)
        self._write_spectrum(step, flat_RP, which, which if step == 0 else ending)
        return errors

    def _check(self, told: str, errors: list[float]) -> None:
        tolerance = self._spec.certificate_tolerance
        strayed = [error for error in errors if not error <= tolerance]  # NaN strays
        if strayed:
            text = f"{told.format(strayed[0])} at step 0; diagnostics.certificate_tolerance allows {tolerance:.1e}"
            raise CertificateError(text)

    def _write_trace(self, step: int, quantity: str, norms: np.ndarray[Any, Any], which: list[int]) -> None:
        num_timesteps = norms.shape[1]
        columns: dict[str, Column] = {
            "seed": np.repeat(self._seeds[which], num_timesteps),
            "step": step,
            "layer": 0,
            "direction": "forward",
            "timestep": np.tile(np.arange(1, num_timesteps + 1), len(which)),
            "quantity": quantity,
            "log10_norm": norms.reshape(-1),
        }
        self._sink.write("traces", columns)

    def _write_spectrum(self, step: int, flat_RP: Tensor, which: list[int], clouds: list[int]) -> None:
        for gate, block_RHH in recurrent_blocks(self._replicas, flat_RP.cpu()).items():  # small: LAPACK serves well
            block = block_RHH[which]
            for metric, values in (("sigma_max", sigma_max(block)), ("spectral_radius", spectral_radius(block))):
                self._write_curve(step, f"{metric}[{gate}]", values, which)
            if clouds:
                self._write_eigenvalues(step, gate, eigenvalues(block_RHH[clouds]), clouds)

    def _write_curve(self, step: int, metric: str, values: Tensor, which: list[int]) -> None:
        columns: dict[str, Column] = {
            "seed": self._seeds[which],
            "step": step,
            "metric": metric,
            "value": values.numpy(),
        }
        self._sink.write("curves", columns)

    def _write_eigenvalues(self, step: int, gate: str, values_RH: Tensor, which: list[int]) -> None:
        num_values = values_RH.shape[1]
        values = torch.view_as_real(values_RH).reshape(-1, 2).numpy()
        columns: dict[str, Column] = {
            "seed": np.repeat(self._seeds[which], num_values),
            "step": step,
            "layer": 0,
            "direction": "forward",
            "gate": gate,
            "index": np.tile(np.arange(num_values), len(which)),
            "real": values[:, 0],
            "imag": values[:, 1],
        }
        self._sink.write("eigenvalues", columns)
