"""The scheduled measurements of a trial, on a probe batch that never changes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.cells import Weights
from pipeline.cells.stack import FORWARD, Place
from pipeline.errors import PipelineError
from pipeline.measures import (
    certificate_error,
    eigenvalues,
    finite_difference_error,
    gate_statistics,
    gate_values,
    geometric_lengths,
    in_float64,
    local_smoothness,
    log_spaced_steps,
    lyapunov_spectrum,
    recurrent_blocks,
    retention,
    sigma_max,
    singular_values_by_lag,
    spectral_radius,
    step_jacobians,
    trace_gradients,
    truncation_bias,
)
from pipeline.models import Replicas
from pipeline.training.data import Sequences
from pipeline.training.rows import long_columns
from pipeline.training.sink import Sink
from pipeline.training.spec import DiagnosticsSpec

EXPLODING_NORM = 1e3
"""Of a gradient beyond which finite differences of the loss are no witness."""

NUM_JACOBIAN_EXAMPLES = 4
"""Sequences of the probe along which Jacobians are multiplied: S² numbers a timestep and sequence."""


class CertificateError(PipelineError):
    """The gradient that trains disagrees with an independent one at initialisation, where nothing excuses it."""


class Diagnostics:
    """Traces, certificates, spectra and whatever else a spec asks for, of a pack, written to a sink.

    Args:
        spec: How often, on how much, how exact, and what besides.
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
            ending: Those of them whose last measurement this is: what costs more is measured then, as at step 0.

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
        for key, norms_RT in trace.log10_norms.items():
            timesteps = np.arange(1, norms_RT.shape[1] + 1)
            axes = {"seed": self._seeds[which], "timestep": timesteps}
            self._write("traces", {"log10_norm": norms_RT[which]}, axes, step=step, **key._asdict())
        if "smoothness" in self._spec.measures:
            self._write_curve(step, "probe_grad_norm", trace.grad_RP.norm(dim=1), which)
        rare = which if step == 0 else ending
        self._write_spectrum(step, flat_RP, which, rare)
        self._write_dynamics(step, flat_RP, which, rare)
        if rare and "truncation" in self._spec.measures:
            self._write_truncation(step, flat_RP, rare)
        return errors

    def measure_update(self, step: int, before_RP: Tensor, after_RP: Tensor, which: list[int]) -> None:
        """Write how smooth the loss is along the update from `step` to the next, where the spec asks for it.

        Args:
            step: Updates made before it.
            before_RP: Parameters before it.
            after_RP: Parameters after it.
            which: Replicas whose rows are wanted.
        """
        if "smoothness" not in self._spec.measures:
            return
        smoothness_R = local_smoothness(self._replicas, before_RP, after_RP, *self._probe)
        self._write_curve(step, "local_smoothness", smoothness_R, which)

    def _check(self, told: str, errors: list[float]) -> None:
        tolerance = self._spec.certificate_tolerance
        strayed = [error for error in errors if not error <= tolerance]  # NaN strays
        if strayed:
            text = f"{told.format(strayed[0])} at step 0; diagnostics.certificate_tolerance allows {tolerance:.1e}"
            raise CertificateError(text)

    def _write_spectrum(self, step: int, flat_RP: Tensor, which: list[int], clouds: list[int]) -> None:
        for (place, gate), block_RHH in recurrent_blocks(self._replicas, flat_RP.cpu()).items():  # LAPACK serves well
            name = gate if place == Place(0, FORWARD) else f"{place.suffix.removeprefix('_')}.{gate}"
            self._write_curve(step, f"sigma_max[{name}]", _only(sigma_max, block_RHH, which), which)
            self._write_curve(step, f"spectral_radius[{name}]", _only(spectral_radius, block_RHH, which), which)
            if clouds:
                values_RH = eigenvalues(block_RHH[clouds])
                axes = {"seed": self._seeds[clouds], "index": range(values_RH.shape[1])}
                parts = {"real": values_RH.real, "imag": values_RH.imag}
                self._write("eigenvalues", parts, axes, step=step, gate=gate, **place._asdict())

    def _write_dynamics(self, step: int, flat_RP: Tensor, which: list[int], rare: list[int]) -> None:
        """Write what needs the states of the probe: gates, Jacobian products, Lyapunov exponents; forward in time."""
        wanted = {str(measure) for measure in self._spec.measures} & (
            {"gates", "jacobians", "lyapunov"} if rare else {"gates"}
        )
        if not wanted:
            return
        exact_RP, inputs = flat_RP.double(), in_float64(self._probe.inputs)
        seen, states = self._replicas.unroll(self._replicas.named(exact_RP), inputs)
        cell, per_place = self._replicas.model.recurrent.cell, len(self._replicas.model.recurrent.cell.states)
        for number, place in enumerate(self._replicas.model.recurrent.places):
            if place.direction != FORWARD:
                continue
            unrolled = (seen[number], *states[number * per_place : (number + 1) * per_place])
            if "gates" in wanted and cell.gate_values is not None:
                weights, (x, *mine) = self._of(exact_RP, place, unrolled, which)
                self._write_gates(step, place, gate_values(cell, weights, x, mine), which)
            if wanted - {"gates"}:
                few = [tensor[:, :, :NUM_JACOBIAN_EXAMPLES] for tensor in unrolled]
                weights, (x, *mine) = self._of(exact_RP, place, few, rare)
                self._write_jacobians(step, place, step_jacobians(cell, weights, x, mine), wanted, rare)

    def _of(
        self, flat_RP: Tensor, place: Place, unrolled: Iterable[Tensor], which: list[int]
    ) -> tuple[Weights, list[Tensor]]:
        """Return the weights of a place and what it was unrolled to, of some replicas."""
        weights = Weights(*(parameter[which] for parameter in self._replicas.weights(flat_RP, place)))
        return weights, [tensor[which] for tensor in unrolled]

    def _write_gates(self, step: int, place: Place, values: Mapping[str, Tensor], which: list[int]) -> None:
        keep, seeds = self._replicas.model.recurrent.cell.keep_gate, self._seeds[which]
        for gate, quantity, position, value_R in gate_statistics(values, keep):
            told: dict[str, Any] = {"gate": gate, "quantity": quantity, "position": position} | place._asdict()
            self._write("gates", {"value": value_R}, {"seed": seeds}, step=step, **told)
        if keep is not None:
            axes = {"seed": seeds, "position": np.arange(1.0, values[keep].shape[1] + 1)}
            told = {"gate": keep, "quantity": "retention"} | place._asdict()
            self._write("gates", {"value": retention(values[keep])}, axes, step=step, **told)

    def _write_jacobians(
        self, step: int, place: Place, jacobians_RTBSS: Tensor, wanted: set[str], which: list[int]
    ) -> None:
        num_timesteps, seeds = jacobians_RTBSS.shape[1], self._seeds[which]
        if "jacobians" in wanted:
            lags = geometric_lengths(num_timesteps, per_doubling=4)
            for quantity, log10_RK in singular_values_by_lag(jacobians_RTBSS, lags).items():
                axes = {"seed": seeds, "lag": lags}
                self._write(
                    "jacobians", {"log10_value": log10_RK}, axes, step=step, quantity=quantity, **place._asdict()
                )
        if "lyapunov" in wanted:
            lengths = geometric_lengths(num_timesteps, per_doubling=4)[:-1]
            spectrum = lyapunov_spectrum(jacobians_RTBSS, timesteps=lengths)
            whole = spectrum.exponents_RM[:, None], spectrum.standard_error_RM[:, None]
            largest = spectrum.running_RKM[..., :1], spectrum.running_error_RKM[..., :1]  # the convergence of one
            for timesteps, (exponents, errors) in ((lengths, largest), ([num_timesteps], whole)):
                values = {"lyapunov_nats_per_timestep": exponents, "standard_error": errors}
                axes = {"seed": seeds, "timestep": timesteps, "index": range(exponents.shape[2])}
                self._write("lyapunov", values, axes, step=step, **place._asdict())

    def _write_truncation(self, step: int, flat_RP: Tensor, which: list[int]) -> None:
        lengths = geometric_lengths(self._probe.inputs.shape[1], per_doubling=2)
        bias = truncation_bias(self._replicas, flat_RP, *self._probe, lengths)
        values = {
            "cosine": bias.cosine_RK,
            "relative_error": bias.relative_error_RK,
            "log10_phi": bias.log10_phi_RK,
            "decay_factor": bias.decay_factor_R[:, None].expand_as(bias.cosine_RK),
            "relative_bias_bound": bias.relative_bias_bound_RK,
        }
        axes = {"seed": self._seeds[which], "backward_length": lengths}
        self._write("truncation", {name: value[which] for name, value in values.items()}, axes, step=step)

    def _write_curve(self, step: int, metric: str, values_R: Tensor, which: list[int]) -> None:
        self._write("curves", {"value": values_R[which]}, {"seed": self._seeds[which]}, step=step, metric=metric)

    def _write(self, table: str, values: Mapping[str, Tensor], axes: Mapping[str, Any], **constants: Any) -> None:
        self._sink.write(table, long_columns(values, axes, **constants))


def _only(measure: Callable[[Tensor], Tensor], block_RHH: Tensor, which: list[int]) -> Tensor:
    """Return the measure of some replicas, (R,), NaN for the others, which may not be finite."""
    values_R = torch.full((len(block_RHH),), torch.nan, dtype=block_RHH.dtype)
    values_R[which] = measure(block_RHH[which])
    return values_R
