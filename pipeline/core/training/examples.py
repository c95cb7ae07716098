"""What trained networks do with a few test sequences, for people to look at: texts, attention maps, images, samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.core.models import Described, Replicas, Seq2SeqInputs, SequenceModel, generator, lengths_of, source_of
from pipeline.core.models.generation import beam_search, generate, network_of
from pipeline.core.training.data import Sequences, aligned_on
from pipeline.core.training.evaluation import FREE_RUNNING, decode
from pipeline.core.training.rows import Column, RowWriter, long_columns
from pipeline.data import PAD, Dataset

NUM_EXAMPLES = 6
PROMPT_LENGTH, SAMPLE_LENGTH = 20, 120
TEMPERATURE, NUM_BEAMS = 0.7, 4


@dataclass(frozen=True, kw_only=True)
class Examples:
    """Writes what replicas do with the first test sequences.

    Attributes:
        replicas: The replica batch.
        flat_QP: Parameters of those in `which`.
        dataset: What it was trained on.
        test: The test split.
        rows: Knows the seeds, and where rows go.
        which: Replicas that have results and did not diverge; at least one.
        step: Under which the rows stand.
    """

    replicas: Replicas
    flat_QP: Tensor
    dataset: Dataset
    test: Sequences
    rows: RowWriter
    which: list[int]
    step: int
    num_examples: int = NUM_EXAMPLES

    @property
    def _sequences(self) -> Sequences:
        return self.test.take(slice(self.num_examples))

    def write(self) -> None:
        """Write what there is to see of this kind of network."""
        interface = self.replicas.interface
        if interface.decodes:
            self._write_decoding()
        elif interface.describes:
            self._write_described()
        elif interface.target_at == "sequence" and self.dataset.frame_shape is not None:
            self._write_frames()
        elif isinstance(self.replicas.model, SequenceModel) and self._is_language_model():
            self._write_samples()

    def _write_decoding(self) -> None:
        inputs, targets = self._sequences
        assert isinstance(inputs, Seq2SeqInputs)  # noqa: S101 - so decoders are
        written = decode(self.replicas, self.flat_QP, self._sequences).tokens[FREE_RUNNING]
        words, letters = self.dataset.target_tokens, self.dataset.input_tokens
        for q, r in enumerate(self.which):
            for example in range(len(targets)):
                if letters is not None:
                    self._write_tokens(r, example, "source", inputs.source[example], letters)
                self._write_tokens(r, example, "target", targets[example], words)
                self._write_tokens(r, example, FREE_RUNNING, written[q, example], words)
        if inputs.source.is_floating_point():
            self._write_images("input", inputs.source[:, None])
        if self.replicas.model.attends:
            self.write_maps()

    def _write_described(self) -> None:
        """Write the words of each text, the class that is meant and the one that is answered, and the image."""
        inputs, targets = self._sequences
        assert isinstance(inputs, Described)  # noqa: S101 - so texts of images are
        answers_QB = self.replicas.predict(self.replicas.named(self.flat_QP), inputs).argmax(dim=-1)
        words, classes = self.dataset.input_tokens, self.dataset.target_tokens
        for q, r in enumerate(self.which):
            for example in range(len(targets)):
                self._write_tokens(r, example, "words", inputs.source[example], words)
                self._write_tokens(r, example, "class", targets[example, None], classes, padded=False)
                self._write_tokens(r, example, "answer", answers_QB[q, example, None], classes, padded=False)
        self._write_images("input", inputs.images[:, None])
        if self.replicas.model.attends:
            self.write_maps()

    def _write_tokens(
        self, r: int, example: int, sequence: str, ids: Tensor, texts: Sequence[str] | None, *, padded: bool = True
    ) -> None:
        kept = [token for token in ids.tolist() if token != PAD or not (padded and self.dataset.padded)]
        shown = [str(token) if texts is None else texts[token] for token in kept]
        if shown:
            columns: dict[str, Column] = {
                "seed": int(self.rows.seeds[r]),
                "example": example,
                "sequence": sequence,
                "step": self.step,
                "position": np.arange(1, len(shown) + 1),
                "token": np.array(shown),
            }
            self.rows.sink.write("tokens", columns)

    def write_maps(self) -> None:
        """Write where the networks, which attend, look: from each output token, or each timestep or word."""
        inputs, targets = self._sequences
        source, seen = source_of(inputs), inputs.images if isinstance(inputs, Described) else source_of(inputs)
        weights_QBUS = self.replicas.attend(self.replicas.named(self.flat_QP), inputs).double()
        aligned = aligned_on(self.dataset.splits["test"], self.num_examples, targets.device)
        whole = not self.dataset.padded or seen.dim() > 2  # noqa: PLR2004 - an image
        lengths = [weights_QBUS.shape[3]] * len(targets) if whole else lengths_of(source).tolist()
        written = lengths
        if isinstance(inputs, Seq2SeqInputs):
            written = (targets != PAD).sum(dim=1).tolist()
        elif isinstance(inputs, Described):
            written = lengths_of(source).tolist()
        for example, (num_outputs, stop) in enumerate(zip(written, lengths, strict=True)):
            shown = weights_QBUS[:, example, :num_outputs, :stop]
            nowhere = torch.zeros_like(shown, dtype=torch.bool)
            known = nowhere if aligned is None else aligned[example, :num_outputs, :stop].expand_as(shown)
            axes = {"output_position": range(1, num_outputs + 1), "source_position": range(1, stop + 1)}
            columns = {"weight": shown, "aligned": known}
            self.rows.write("attention", columns, self.which, axes, example=example, step=self.step)

    def _write_frames(self) -> None:
        inputs, shape = self._sequences.inputs, self.dataset.frame_shape
        drawn_QBTD = self.replicas.predict(self.replicas.named(self.flat_QP[:1]), inputs)
        assert isinstance(inputs, Tensor)  # noqa: S101 - so autoencoders' are
        assert shape is not None  # noqa: S101 - `write` has looked
        self._write_images("input", inputs.unflatten(2, shape))
        self._write_images("reconstruction", drawn_QBTD[0].unflatten(2, shape))

    def _write_images(self, image: str, frames_BThw: Tensor) -> None:
        """Write images of the first tested replica, or what it was shown."""
        num_examples, num_frames, height, width = frames_BThw.shape
        axes: dict[str, Any] = {
            "example": range(num_examples),
            "frame": np.arange(1, num_frames + 1),
            "row": range(height),
            "column": range(width),
        }
        seed = int(self.rows.seeds[self.which[0]])
        self.rows.sink.write(
            "images", long_columns({"brightness": frames_BThw.double()}, axes, image=image, seed=seed, step=self.step)
        )

    def _is_language_model(self) -> bool:
        """Return whether the networks are language models whose tokens have texts."""
        if (stack := self.replicas.model.stacks.get("recurrent")) is None:
            return False
        interface = self.replicas.interface
        next_token = interface.target_at == "every" and interface.input_size == interface.output_size
        texts = self.dataset.input_tokens
        same = texts is not None and texts == self.dataset.target_tokens
        return next_token and same and stack.num_directions == 1 and not interface.padded

    def _write_samples(self) -> None:
        """Write what the first tested network makes of the beginnings of a few test sequences."""
        r, texts = self.which[0], self.dataset.input_tokens
        network = network_of(self.replicas, self.flat_QP, 0).cpu()
        assert isinstance(self._sequences.inputs, Tensor)  # noqa: S101 - so language models' are
        for example, row in enumerate(self._sequences.inputs[: NUM_EXAMPLES // 2].tolist()):
            prompt, draws = row[:PROMPT_LENGTH], generator(int(self.rows.seeds[r]), "sample", example)
            asked = {"model": network, "prompt": prompt, "num_tokens": SAMPLE_LENGTH, "generator": draws}
            written = {
                "prompt": prompt,
                "greedy": generate(**asked, temperature=0.0),
                f"sample (temperature {TEMPERATURE})": generate(**asked, temperature=TEMPERATURE),
                f"beam ({NUM_BEAMS})": beam_search(network, prompt, SAMPLE_LENGTH, NUM_BEAMS)[0],
            }
            for sequence, ids in written.items():
                self._write_tokens(r, example, sequence, torch.tensor(ids), texts)
