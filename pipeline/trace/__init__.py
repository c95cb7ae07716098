"""One's own networks: the gradient in every state, without a change of their code."""

from pipeline.trace.tracing import TraceError, Traced, trace

__all__ = ["TraceError", "Traced", "trace"]
