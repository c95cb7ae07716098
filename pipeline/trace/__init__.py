"""One's own networks and training loops: the gradient in every state, the pipeline's tables, truncated windows."""

from pipeline.trace.recorder import Recorder, write_recorded
from pipeline.trace.tracing import Traced, TraceError, trace
from pipeline.trace.windows import Bias, Window, windows

__all__ = ["Bias", "Recorder", "TraceError", "Traced", "Window", "trace", "windows", "write_recorded"]
