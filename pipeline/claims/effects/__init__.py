"""The effects that claims are judged by: each a number with its 95 % interval over seeds."""

from pipeline.claims.effects.decay import DecayFactor, DecayFit, DecayRatio
from pipeline.claims.effects.decoding import ExposureGap, ExposureGapDifference, ExposureGapGrowth
from pipeline.claims.effects.dynamics import (
    AttentionMean,
    CurveDifference,
    CurveMean,
    GateMean,
    RetentionFactor,
    ShrinkingShare,
    TruncationBias,
    UnseenOverBaseline,
)
from pipeline.claims.effects.effect import Effect
from pipeline.claims.effects.runs import (
    LengthDifference,
    LengthRatio,
    Metric,
    MetricDifference,
    MetricRatio,
    OutcomeDifference,
    OutcomeShare,
    SolvedShare,
)
from pipeline.claims.effects.step_times import StepTimeExponent, StepTimeRatio

AnyEffect = (
    DecayFactor
    | DecayFit
    | DecayRatio
    | SolvedShare
    | OutcomeShare
    | OutcomeDifference
    | Metric
    | MetricRatio
    | MetricDifference
    | LengthRatio
    | LengthDifference
    | StepTimeExponent
    | StepTimeRatio
    | CurveMean
    | CurveDifference
    | UnseenOverBaseline
    | GateMean
    | RetentionFactor
    | AttentionMean
    | TruncationBias
    | ShrinkingShare
    | ExposureGap
    | ExposureGapDifference
    | ExposureGapGrowth
)
"""What a check in configs/claims.yaml may measure."""

__all__ = ["AnyEffect", "Effect"]
