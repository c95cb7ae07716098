"""What is measured of a replica batch, each against the exact float64 path."""

from pipeline.core.measures.attention import (
    alignment_error,
    alignment_share,
    entropy_nats,
    rank_correlation,
    within_class_share,
)
from pipeline.core.measures.gates import GateStatistic, gate_statistics, gate_values, half_life, retention
from pipeline.core.measures.gradients import (
    GradientTrace,
    Location,
    finite_difference_error,
    gradient_check_error,
    in_float64,
    local_smoothness,
    locate,
    rounding_error,
    trace_gradients,
)
from pipeline.core.measures.jacobians import singular_values_by_lag, step_jacobians
from pipeline.core.measures.lyapunov import (
    LyapunovSpectrum,
    log_stretches,
    lyapunov_spectrum,
    mean_field_exponent,
    random_network_jacobians,
)
from pipeline.core.measures.spectrum import eigenvalues, recurrent_blocks, sigma_max, spectral_radius
from pipeline.core.measures.timesteps import in_reading_order
from pipeline.core.measures.truncation_bias import TruncationBias, geometric_lengths, step_sensitivity, truncation_bias

__all__ = [
    "GateStatistic",
    "GradientTrace",
    "Location",
    "LyapunovSpectrum",
    "TruncationBias",
    "alignment_error",
    "alignment_share",
    "gradient_check_error",
    "eigenvalues",
    "entropy_nats",
    "finite_difference_error",
    "gate_statistics",
    "gate_values",
    "geometric_lengths",
    "half_life",
    "in_float64",
    "in_reading_order",
    "local_smoothness",
    "locate",
    "log_stretches",
    "lyapunov_spectrum",
    "mean_field_exponent",
    "random_network_jacobians",
    "rank_correlation",
    "recurrent_blocks",
    "retention",
    "rounding_error",
    "sigma_max",
    "singular_values_by_lag",
    "spectral_radius",
    "step_jacobians",
    "step_sensitivity",
    "trace_gradients",
    "truncation_bias",
    "within_class_share",
]
