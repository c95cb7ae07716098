"""The scheduled measurements of a trial, on a probe batch that never changes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pipeline.core.cells import Cell, Weights
from pipeline.core.cells.stack import FORWARD, Place, unstack_states
from pipeline.core.measures.attention import (
    alignment_error,
    alignment_share,
    entropy_nats,
    mean_over_tokens,
    rank_correlation,
    within_class_share,
)
from pipeline.core.measures.gates import gate_statistics, gate_values, retention
from pipeline.core.measures.gradients import (
    finite_difference_error,
    gradient_check_error,
    in_float64,
    local_smoothness,
    rounding_error,
    trace_gradients,
)
from pipeline.core.measures.jacobians import singular_values_by_lag, step_jacobians
from pipeline.core.measures.lyapunov import lyapunov_spectrum
from pipeline.core.measures.orbit import free_orbits
from pipeline.core.measures.spectrum import eigenvalues, recurrent_blocks, sigma_max, spectral_radius
from pipeline.core.measures.truncation_bias import geometric_lengths, truncation_bias
from pipeline.core.models import Replicas, Seq2SeqInputs, source_of
from pipeline.core.training.data import Sequences
from pipeline.core.training.rows import RowWriter
from pipeline.core.training.spec import DiagnosticsSpec
from pipeline.data import PAD
from pipeline.errors import ConfigError, PipelineError

EXPLODING_NORM = 1e3
"""Of a gradient beyond which finite differences of the loss are no witness."""

CHAOTIC = 1e-4
"""Of a gradient that moves as much when its weights move by a float32 rounding: some thousand times what they do."""

NUM_JACOBIAN_EXAMPLES = 4
"""Sequences of the probe along which Jacobians are multiplied: S² numbers a timestep and sequence."""


class GradientCheckError(PipelineError):
    """The gradient that trains disagrees with an independent one at initialisation, where nothing excuses it."""


@dataclass(frozen=True, kw_only=True)
class Diagnostics:
    """Traces, gradient checks, spectra and whatever else a spec asks for, of a replica batch, written to a sink.

    Its methods take the step, counted in updates made so far, the parameters, (R, P), and the replicas, Q of them, that
    are to be measured.

    Attributes:
        spec: How exact, and what besides.
        replicas: The replica batch.
        probe: The batch, the same for all replicas and steps.
        alignment: Which source positions each output token, or word of a text, of the probe is made from, (B, U, S);
            which timesteps are alike, for self-attention. None where it is not known.
        rows: Where they go.

    Raises:
        ConfigError: If the alignment is over other source positions than the network attends to.
    """

    spec: DiagnosticsSpec
    replicas: Replicas
    probe: Sequences
    alignment: Tensor | None
    rows: RowWriter

    def __post_init__(self) -> None:
        if self.alignment is None or not self.replicas.model.attends:
            return
        flat_RP = self.replicas.flat_RP.to(self.probe.targets.device)
        weights_RBUS = self.replicas.attend(self.replicas.named(flat_RP), self.probe.inputs)
        if self.alignment.shape != weights_RBUS.shape[1:]:
            known, seen = self.alignment.shape[2], weights_RBUS.shape[3]
            found = f"dataset: its alignment is over {known} source positions, the network attends to {seen}"
            raise ConfigError(f"{found} (the cells of an image are 4 x 4 pixels)")

    def measure(self, step: int, flat_RP: Tensor, which: list[int]) -> list[float]:
        """Write the scheduled rows of a step; return the gradient check errors of the replicas in `which`.

        Raises:
            GradientCheckError: If at step 0 the training path's gradient is further from the float64 one than allowed,
                or that one from finite differences, and the network does not amplify rounding as much.
        """
        flat_QP = flat_RP[which]
        trace = trace_gradients(self.replicas, flat_QP, *self.probe)
        fast = self.replicas.backpropagate(flat_QP, *self.probe, shared=True)
        error_Q = gradient_check_error(fast.grad_RP, trace.grad_RP)
        if step == 0:
            self._check_gradients(flat_QP, trace.grad_RP, error_Q, which)
        for key, norms_QT in trace.log10_norms.items():
            axes = {"timestep": np.arange(1, norms_QT.shape[1] + 1)}
            self.rows.write("traces", {"log10_norm": norms_QT}, which, axes, step=step, **key._asdict())
        if "smoothness" in self.spec.measures:
            self.rows.curve(step, "probe_grad_norm", trace.grad_RP.norm(dim=1), which)
        for block, block_QHH in recurrent_blocks(self.replicas, flat_QP.cpu()).items():  # LAPACK serves well
            facts = {"part": block.part, "gate": block.gate, **block.place._asdict()}
            self.rows.curve(step, "sigma_max", sigma_max(block_QHH), which, **facts)
            self.rows.curve(step, "spectral_radius", spectral_radius(block_QHH), which, **facts)
        if self.replicas.model.attends:
            self._measure_attention(step, flat_QP, which)
        if "gates" in self.spec.measures:
            for place, weights, (x, *states) in self._unrolled(flat_QP):
                values = gate_values(self._cell, weights, x, states)
                self._write_gates(step, place, values, which)
        return error_Q.tolist()

    def measure_expensive(self, step: int, flat_RP: Tensor, which: list[int]) -> None:
        """Write what costs more and is measured at step 0 and where a replica ends."""
        flat_QP = flat_RP[which]
        for (part, place, gate), block_QHH in recurrent_blocks(self.replicas, flat_QP.cpu()).items():
            values_QH = eigenvalues(block_QHH)
            parts, axes = {"real": values_QH.real, "imag": values_QH.imag}, {"index": range(values_QH.shape[1])}
            self.rows.write("eigenvalues", parts, which, axes, step=step, part=part, gate=gate, **place._asdict())
        if "jacobians" in self.spec.measures or "lyapunov" in self.spec.measures:
            for place, weights, unrolled in self._unrolled(flat_QP):
                x, *states = (tensor[:, :, :NUM_JACOBIAN_EXAMPLES] for tensor in unrolled)
                self._write_jacobians(step, place, step_jacobians(self._cell, weights, x, states), which)
        if "truncation" in self.spec.measures:
            self._write_truncation(step, flat_QP, which)

    def measure_orbit(self, step: int, flat_RP: Tensor, which: list[int], test: Sequences) -> None:
        """Write how far the orbits that networks generate lie from the test series, where the spec asks for it."""
        if "orbit" in self.spec.measures:
            orbit = free_orbits(self.replicas, flat_RP[which], test.targets)
            self.rows.curve(step, "state_space_divergence", orbit.divergence_R, which)
            self.rows.curve(step, "orbit_exponent", orbit.exponent_R, which)

    def measure_update(self, step: int, before_RP: Tensor, after_RP: Tensor, which: list[int]) -> None:
        """Write how smooth the loss is along the update from `step` to the next, where the spec asks for it."""
        if "smoothness" not in self.spec.measures:
            return
        smoothness_Q = local_smoothness(self.replicas, before_RP[which], after_RP[which], *self.probe)
        self.rows.curve(step, "local_smoothness", smoothness_Q, which)

    def _check_gradients(self, flat_QP: Tensor, exact_QP: Tensor, error_Q: Tensor, which: list[int]) -> None:
        """Check both gradients at initialisation, replica by replica, against independent ones.

        A chaotic network amplifies the rounding of its weights to float32 as it does that of the training path: there a
        difference says nothing, up to a hundred times what rounding the weights does, which is measured.

        Raises:
            GradientCheckError: If one strays further than the tolerance, and the network is not chaotic.
        """
        differences_Q = finite_difference_error(self.replicas, flat_QP, exact_QP, *self.probe)
        exploding_Q = exact_QP.norm(dim=1) >= EXPLODING_NORM
        for text, strayed_Q in (
            ("the training gradient is {:.1e} (relative) from the float64 gradient", error_Q),
            (
                "the float64 gradient is {:.1e} (relative) from finite differences of the loss",
                differences_Q.masked_fill(exploding_Q, 0.0),
            ),
        ):
            tolerance = self.spec.gradient_check_tolerance
            suspects = [q for q in range(len(which)) if not strayed_Q[q] <= tolerance]  # NaN strays
            if not suspects:
                continue
            amplified_Q = rounding_error(self.replicas, flat_QP, *self.probe)
            guilty = [q for q in suspects if amplified_Q[q] < CHAOTIC or not strayed_Q[q] <= 100 * amplified_Q[q]]
            if guilty:
                found = f"{text.format(strayed_Q[guilty[0]])} at step 0, seed {self.rows.seeds[which[guilty[0]]]}"
                raise GradientCheckError(f"{found}; diagnostics.gradient_check_tolerance allows {tolerance:.1e}")

    def _measure_attention(self, step: int, flat_QP: Tensor, which: list[int]) -> None:
        """Write attention entropy, and alignment error or similarity to the inputs as far as an alignment is known."""
        inputs, targets = self.probe
        weights_QBUS = self.replicas.attend(self.replicas.named(flat_QP.double()), in_float64(inputs))
        aligned, entropy_QBU = self.alignment, entropy_nats(weights_QBUS)
        written = isinstance(inputs, Seq2SeqInputs)
        asking_BU = targets != PAD if written else self.replicas.interface.mask(source_of(inputs))
        asking_BU = torch.ones_like(entropy_QBU[0], dtype=torch.bool) if asking_BU is None else asking_BU
        measured = {"attention_entropy_nats": mean_over_tokens(entropy_QBU, asking_BU)}
        if aligned is not None and not isinstance(inputs, Tensor):
            measured["alignment_error"] = alignment_error(weights_QBUS, aligned)
            measured["alignment_share"] = alignment_share(weights_QBUS, aligned)
        elif aligned is not None and isinstance(inputs, Tensor):  # which timesteps are of one class
            itself = torch.eye(aligned.shape[1], dtype=torch.bool, device=aligned.device)
            measured["within_class_share"] = within_class_share(weights_QBUS, aligned | itself)
            real = inputs.double()
            similarity = torch.nn.functional.cosine_similarity(real[:, :, None], real[:, None], dim=-1)
            measured["similarity_rank_correlation"] = rank_correlation(weights_QBUS, similarity)
        for metric, values_Q in measured.items():
            self.rows.curve(step, metric, values_Q, which)

    @property
    def _cell(self) -> Cell:
        """Of a network with one recurrent stack."""
        return self.replicas.model.stacks["recurrent"].cell

    def _unrolled(self, flat_QP: Tensor) -> Iterator[tuple[Place, Weights, list[Tensor]]]:
        """Yield each layer forward in time, its weights, and its inputs and states on the probe, in float64."""
        exact_QP, inputs = flat_QP.double(), self.probe.inputs
        assert isinstance(inputs, Tensor)  # noqa: S101 - `check_fit` has seen to it
        _, seen, states = self.replicas.unroll(self.replicas.named(exact_QP), in_float64(inputs))
        places = self.replicas.model.stacks["recurrent"].places
        for place, x_QTBD, mine in zip(places, seen, unstack_states(states, self._cell), strict=True):
            if place.direction == FORWARD:
                yield place, self.replicas.weights(exact_QP, place), [x_QTBD, *mine.tensors()]

    def _write_gates(self, step: int, place: Place, values: Mapping[str, Tensor], which: list[int]) -> None:
        keep, facts = self._cell.keep_gate, {"step": step, "part": "recurrent", **place._asdict()}
        for gate, quantity, position, value_R in gate_statistics(values, keep, self._cell.keeps_when_open):
            self.rows.write(
                "gates", {"value": value_R}, which, {}, **facts, gate=gate, quantity=quantity, position=position
            )
        if keep is not None:
            share_QTBH = values[keep] if self._cell.keeps_when_open else 1 - values[keep]
            lags = {"position": np.arange(1.0, share_QTBH.shape[1] + 1)}
            kept = {"value": retention(share_QTBH)}
            self.rows.write("gates", kept, which, lags, **facts, gate=keep, quantity="retention")

    def _write_jacobians(self, step: int, place: Place, jacobians_RTBSS: Tensor, which: list[int]) -> None:
        num_timesteps, facts = jacobians_RTBSS.shape[1], {"step": step, "part": "recurrent", **place._asdict()}
        lags = geometric_lengths(num_timesteps, per_doubling=4)
        if "jacobians" in self.spec.measures:
            for quantity, log10_RK in singular_values_by_lag(jacobians_RTBSS, lags).items():
                values = {"log10_value": log10_RK}
                self.rows.write("jacobians", values, which, {"lag": lags}, **facts, quantity=quantity)
        if "lyapunov" in self.spec.measures:
            spectrum = lyapunov_spectrum(jacobians_RTBSS, timesteps=lags[:-1])
            whole = spectrum.exponents_RM[:, None], spectrum.standard_error_RM[:, None]
            largest = spectrum.running_RKM[..., :1], spectrum.running_error_RKM[..., :1]  # the convergence of one
            for timesteps, (exponents, errors) in ((lags[:-1], largest), ([num_timesteps], whole)):
                values = {"lyapunov_nats_per_timestep": exponents, "standard_error": errors}
                axes = {"timestep": timesteps, "index": range(exponents.shape[2])}
                self.rows.write("lyapunov", values, which, axes, **facts)

    def _write_truncation(self, step: int, flat_QP: Tensor, which: list[int]) -> None:
        inputs, targets = self.probe
        assert isinstance(inputs, Tensor)  # noqa: S101 - `check_fit` has seen to it
        lengths = geometric_lengths(inputs.shape[1], per_doubling=2)
        bias = truncation_bias(self.replicas, flat_QP, inputs, targets, lengths)
        values = {
            "cosine": bias.cosine_RK,
            "relative_error": bias.relative_error_RK,
            "log10_phi": bias.log10_phi_RK,
            "decay_factor": bias.decay_factor_R[:, None].expand_as(bias.cosine_RK),
            "relative_bias_bound": bias.relative_bias_bound_RK,
        }
        self.rows.write("truncation", values, which, {"backward_length": lengths}, step=step)
