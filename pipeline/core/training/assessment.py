"""How good replicas are on sequences that they do not train on: validation on the way, tests at the end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import Tensor

from pipeline.core.models import Replicas
from pipeline.core.training.data import Sequences
from pipeline.core.training.decoding import FREE_RUNNING, MODES, TEACHER_FORCED, decode
from pipeline.core.training.evaluation import error_on_tokens, evaluate
from pipeline.core.training.examples import Examples, write_breakdown
from pipeline.core.training.rows import CurveWriter

if TYPE_CHECKING:
    from pipeline.data import Dataset


class Assessment:
    """Scores a pack on the splits of a dataset, and writes what is more than a loss and an error.

    Args:
        replicas: The pack.
        dataset: What is known of the data besides.
        splits: Validation and test among them.
        unseen: Test splits of other lengths.
        curves: Where the rows go.
    """

    def __init__(
        self,
        replicas: Replicas,
        dataset: Dataset,
        splits: Mapping[str, Sequences],
        unseen: Mapping[int, Sequences],
        curves: CurveWriter,
    ) -> None:
        self._replicas, self._dataset, self._splits, self._unseen = replicas, dataset, splits, unseen
        self._curves = curves

    def score(self, name: str, flat_RP: Tensor, which: list[int], step: int) -> tuple[Tensor, Tensor | None]:
        """Return loss and error of every replica on a split, (R,); of decoders, forced, and of whole sequences, free.

        What decoders do else is written.

        Args:
            name: Of the split.
            flat_RP: Parameters.
            which: Replicas whose rows are wanted.
            step: Under which they stand.
        """
        split = self._splits[name]
        if not self._replicas.interface.decodes:
            return evaluate(self._replicas, flat_RP, split)
        decoding = decode(self._replicas, flat_RP, split)
        self._curves.write(step, "loss", decoding.losses[FREE_RUNNING], which, split=name, mode=FREE_RUNNING)
        for mode in MODES:
            self._curves.write(step, "token_error", decoding.token_error(mode), which, split=name, mode=mode)
        if name == "test":
            write_breakdown(self._curves.sink, decoding, split, self._curves.seeds[which], which, step)
        return decoding.losses[TEACHER_FORCED], decoding.sequence_error()

    def test_further(self, flat_RP: Tensor, tested: list[int], sound: list[int], step: int) -> None:
        """Write what is tested besides: unseen lengths, kinds of token, and a few examples to look at.

        Args:
            flat_RP: Parameters.
            tested: Replicas that have results.
            sound: Those among them that did not diverge later; examples are theirs.
            step: Under which the rows stand.
        """
        for length, split in self._unseen.items():
            losses, errors = evaluate(self._replicas, flat_RP, split)
            if self._replicas.interface.decodes:
                errors = decode(self._replicas, flat_RP, split).sequence_error()
            self._curves.write(step, "loss", losses, tested, split="test", tested_length=length)
            if errors is not None:
                self._curves.write(step, "error", errors, tested, split="test", tested_length=length)
        groups, test = self._dataset.token_groups or {}, self._splits["test"]
        for group, errors in error_on_tokens(self._replicas, flat_RP, test, groups).items():
            self._curves.write(step, "error", errors, tested, split="test", group=group)
        Examples(self._curves, self._replicas, flat_RP, self._dataset, test, sound, step).write()
