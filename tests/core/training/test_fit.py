"""What does not fit the kind of data is refused before anything is trained, by key."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from pipeline.core.training import MemorySink, run_trial
from pipeline.errors import ConfigError
from tests.core.training.conftest import SmallDataset
from tests.core.training.sequences import (
    ADDITIVE,
    LINEAR,
    canvases,
    films,
    first_letter,
    letter_before,
    reversal,
    small,
)

CODE = {"model__code_size": 2}
SELF = {"model__attention": {"name": "self", "num_heads": 2}}
TRUNCATED = {"training__truncation": {"update_every": 2, "backward_length": 2}}
OMEGA = {"regularisation": {"name": "vanishing_gradient", "weight": 1.0}, "model__cell": "elman"}
FORCED = {"training__forcing": LINEAR}


@pytest.mark.parametrize("dataset", [reversal(), canvases(), films()], ids=["reversal", "canvases", "films"])
@pytest.mark.parametrize("measure", ["gates", "jacobians", "lyapunov", "truncation"])
def test_measures_of_one_recurrent_stack_are_refused_of_two(dataset: SmallDataset, measure: str, spec_of: Any) -> None:
    code = CODE if dataset.target_kind == "value" else {}
    with pytest.raises(ConfigError, match=rf"diagnostics\.measures: expected measures of any network.*got {measure}"):
        run_trial(small(spec_of, diagnostics__measures=[measure], **code), dataset, MemorySink())


@pytest.mark.parametrize(
    ("dataset", "changes", "told"),
    [
        (reversal(), TRUNCATED, r"training\.truncation: expected null: this is not one recurrent stack"),
        (films(), TRUNCATED | CODE, r"training\.truncation: expected null: this is not one recurrent stack"),
        (first_letter(), TRUNCATED, r"training\.truncation: expected null: .*that reads sequences of one length"),
        (letter_before(), TRUNCATED, r"training\.truncation: expected null: .*that reads sequences of one length"),
        (
            first_letter(),
            {"diagnostics__measures": ["jacobians"]},
            r"diagnostics\.measures: .*one length; got jacobians",
        ),
        (letter_before(), {"diagnostics__measures": ["gates"]}, r"diagnostics\.measures: .*one length; got gates"),
        (first_letter(), FORCED, r"training\.forcing\.schedule: expected a constant 1: nothing is decoded"),
        (films(), FORCED | CODE, r"training\.forcing\.schedule: expected a constant 1: nothing is decoded"),
        (films(), {"training__stop_on": "validation_error"} | CODE, r"training\.stop_on: expected validation_loss"),
        (reversal(), SELF, r"model\.attention\.name: expected none, dot, general or additive"),
        (first_letter(), {"model__attention": ADDITIVE}, r"model\.attention\.name: expected none or self"),
        (reversal(), {"training__batch_size": 65}, r"training\.batch_size: expected at most 64, the train sequences"),
        (
            first_letter(),
            SELF | {"clipping": {"name": "state_norm", "threshold": 1.0}},
            r"clipping\.name: expected a rule outside the recurrence: self-attention has none; got state_norm",
        ),
        (reversal(), OMEGA, r"regularisation\.name: expected a rule for any network: .*got vanishing_gradient"),
        (canvases(), OMEGA, r"regularisation\.name: expected a rule for any network: .*got vanishing_gradient"),
        (films(), OMEGA | CODE, r"regularisation\.name: expected a rule for any network: .*got vanishing_gradient"),
    ],
)
def test_what_does_not_fit_the_kind_of_data_is_refused(
    dataset: SmallDataset, changes: dict[str, Any], told: str, spec_of: Any
) -> None:
    with pytest.raises(ConfigError, match=told):
        run_trial(small(spec_of, **changes), dataset, MemorySink())


@pytest.mark.parametrize(
    ("rule", "attention", "told"),
    [
        ("doubly_stochastic", {"name": "none"}, "dot, general or additive for 'doubly_stochastic', got 'none'"),
        ("vanishing_gradient", ADDITIVE, "none for 'vanishing_gradient', got 'additive'"),
    ],
)
def test_a_regulariser_says_which_attention_it_needs(rule: str, attention: Any, told: str, spec_of: Any) -> None:
    with pytest.raises(ConfigError, match=rf"model\.attention\.name: expected {told}"):
        spec_of(regularisation={"name": rule, "weight": 1.0}, model__attention=attention)


def test_the_weight_of_coverage_is_above_0(spec_of: Any) -> None:
    with pytest.raises(ConfigError, match=r"regularisation\.weight: expected a finite number above 0, got 0\.0"):
        spec_of(regularisation={"name": "doubly_stochastic", "weight": 0.0}, model__attention=ADDITIVE)


def test_an_alignment_over_other_positions_than_are_attended_to_is_refused(spec_of: Any) -> None:
    dataset = canvases()
    splits = {
        name: dataclasses.replace(split, alignment=split.alignment[..., :4]) for name, split in dataset.splits.items()
    }
    with pytest.raises(ConfigError, match="alignment is over 4 source positions, the network attends to 6"):
        run_trial(small(spec_of, model__attention=ADDITIVE), dataclasses.replace(dataset, splits=splits), MemorySink())
