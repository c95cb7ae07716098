"""The effects that claims are judged by: each a number with its 95 % interval over seeds."""

from pipeline.report.effects.decay import DecayFactor, DecayFit, DecayRatio
from pipeline.report.effects.dynamics import (
    CurveDifference,
    CurveMean,
    GateMean,
    RetentionFactor,
    ShrinkingShare,
    TruncationBias,
    UnseenOverBaseline,
)
from pipeline.report.effects.effect import Effect
from pipeline.report.effects.runs import (
    LengthRatio,
    Metric,
    MetricRatio,
    OutcomeDifference,
    OutcomeShare,
    SolvedShare,
    StepTimeExponent,
    StepTimeRatio,
)

AnyEffect = (
    DecayFactor
    | DecayFit
    | DecayRatio
    | SolvedShare
    | OutcomeShare
    | OutcomeDifference
    | Metric
    | MetricRatio
    | LengthRatio
    | StepTimeExponent
    | StepTimeRatio
    | CurveMean
    | CurveDifference
    | UnseenOverBaseline
    | GateMean
    | RetentionFactor
    | TruncationBias
    | ShrinkingShare
)
"""What a check in configs/claims.yaml may measure."""

__all__ = ["AnyEffect", "Effect"]
