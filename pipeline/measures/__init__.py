"""What is measured of a pack of replicas, each against the exact float64 path."""

from pipeline.measures.gradient_trace import (
    GradientTrace,
    certificate_error,
    finite_difference_error,
    trace_gradients,
)
from pipeline.measures.nonfinite import Location, locate
from pipeline.measures.schedule import log_spaced_steps
from pipeline.measures.spectrum import eigenvalues, recurrent_blocks, sigma_max, spectral_radius

__all__ = [
    "GradientTrace",
    "Location",
    "certificate_error",
    "eigenvalues",
    "finite_difference_error",
    "locate",
    "log_spaced_steps",
    "recurrent_blocks",
    "sigma_max",
    "spectral_radius",
    "trace_gradients",
]
