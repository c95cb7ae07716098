"""A trained network in use: the weights of a trial, and what they make of sequences that it has never seen.

    trained = pipeline.load_trained("e5aed06c")          # a trial's id, or its beginning, as report and tables have it
    trained.translate(["12 March 1999"], beams=5)        # an encoder-decoder
    trained.write("The ", 100, temperature=0.7)          # a language model
    trained.classify(["a film that nobody forgets"])     # an answer at the end
    trained.network.recurrent.state_dict()               # loads into nn.LSTM

Weights are in the trial store where params.yaml says `keep_weights: true`; else the trial trains again, bit for bit as
it did. Texts are read as the dataset's were: letter by letter, or word by word.
"""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

from pipeline.config import build, load_params
from pipeline.config.strict import plain
from pipeline.core.models import CustomModel, Described, Network, SequenceModel, build_network, generator
from pipeline.core.models.encoder_decoder import Seq2SeqNetwork
from pipeline.core.models.generation import beam_search, generate, log_probability
from pipeline.core.models.writing import Written, write_by_beam, write_greedily
from pipeline.core.training import MemorySink, run_trial
from pipeline.core.training.data import interface_of
from pipeline.core.training.spec import TrialSpec, trial_id
from pipeline.data import Dataset
from pipeline.data.dataset import EOS, PAD, SPECIAL_TOKENS, UNKNOWN, unknown_id
from pipeline.errors import ConfigError, DatasetError, StoreError, unknown_name
from pipeline.loading import project_of
from pipeline.results.store import StoredTrial, TrialStore
from pipeline.sweep.rerun import trial_of_results
from pipeline.sweep.run import load_data


class Text(NamedTuple):
    """What a network wrote.

    Attributes:
        text: Of its tokens.
        log_probability: In nats, given what it read.
        tokens: Each by itself.
        attention: Where it looked, (tokens and the end, source positions); None without attention.
        is_whole: Whether it came to an end by itself.
    """

    text: str
    log_probability: float
    tokens: tuple[str, ...]
    attention: np.ndarray[Any, Any] | None
    is_whole: bool


class Answer(NamedTuple):
    """A class, and its probability."""

    label: str
    probability: float


class Score(NamedTuple):
    """How probable a text is to a language model, all but its first token, which has nothing before it.

    Attributes:
        log_probability: In nats.
        num_tokens: That it is of.
    """

    log_probability: float
    num_tokens: int

    @property
    def perplexity(self) -> float:
        """E to the mean of -ln P over tokens."""
        return math.exp(-self.log_probability / self.num_tokens) if self.num_tokens else math.nan


def load_trained(trial: str, seed: int | None = None, project: str | Path | None = None) -> Trained:
    """Return a trained network of a project, with the weights of its best step.

    Args:
        trial: Its id, or what no other trial's begins with, as the result tables have it.
        seed: Of the trial's; by default the one with the lowest validation loss.
        project: The folder of params.yaml; by default the nearest one, from the current folder upward.

    Raises:
        ConfigError: If there is no project, or no seed of that number with results.
        SweepError: If the result tables have no trial of that name.
        DatasetError: If its data are not prepared, or are others.
        StoreError: If its weights are damaged, or were not kept and today's code is not the trial's.
    """
    paths = project_of(project)
    params = load_params(paths)
    _, _, stored = trial_of_results(paths, params, trial)
    spec: TrialSpec = build(TrialSpec, stored.spec, f"trial {stored.trial_id}: spec")
    dataset = load_data(paths, spec.dataset)
    if dataset.digest != stored.dataset_digest:
        expected = f"expected data of digest {stored.dataset_digest}; got {dataset.digest}"
        raise DatasetError(f"trial {stored.trial_id}: {paths.dataset(spec.dataset.name)}: {expected}")
    losses = dict(stored.tables["trials"].select("seed", "best_validation_loss").drop_nulls().iter_rows())
    if not losses:
        raise ConfigError(f"trial {stored.trial_id}: no seed of it has results")
    chosen = min(losses, key=lambda each: losses[each]) if seed is None else seed
    if chosen not in losses:
        raise ConfigError(f"trial {stored.trial_id}: {unknown_name('seed', chosen, map(str, losses))}")
    weights = _weights(TrialStore.of(paths, params.trial_store), stored, spec, dataset)
    network = build_network(interface_of(dataset), spec.model, chosen)
    mine = spec.seeds.index(chosen)
    network.load_parameters({name: torch.from_numpy(array[mine].copy()) for name, array in weights.items()})
    return Trained(network.eval(), spec, dataset, stored.trial_id, chosen)


def _weights(
    store: TrialStore, stored: StoredTrial, spec: TrialSpec, dataset: Dataset
) -> dict[str, np.ndarray[Any, Any]]:
    """Return a trial's weights, (R, *shape) each, from the store, or by training it again and keeping them.

    Raises:
        StoreError: If they are damaged, or were not kept and today's code is not the trial's.
    """
    known = store.weights(stored.trial_id)
    if known is not None:
        return known
    not_kept = f"trial {stored.trial_id}: its weights were not kept"
    if trial_id(spec, dataset.digest) != stored.trial_id:
        revision = stored.facts["git_revision"]
        there = f"; `git checkout {revision}` has that code" if revision else ""
        raise StoreError(f"{not_kept}, and the code has changed since: trained again they would be others{there}")
    took_s = float(stored.tables["trials"]["wall_time_s"].fill_null(0.0).to_numpy().max())
    print(f"{not_kept}, so it trains again (it took {took_s:.0f} s); params.yaml: keep_weights", file=sys.stderr)
    found = {name: tensor.numpy() for name, tensor in run_trial(spec, dataset, MemorySink()).weights.items()}
    store.put_weights(stored.trial_id, found, plain(spec))
    return found


@dataclasses.dataclass(frozen=True)
class Trained:
    """A trained network, and the data that it was trained for.

    What a network can be asked follows from its task; another question is a `ConfigError` that says which it answers.

    Attributes:
        network: On the CPU; its recurrent layers have torch's names, shapes and gate order.
        spec: What was trained.
        dataset: What on.
        trial_id: Of which trial.
        seed: Of which seed.
    """

    network: Network
    spec: TrialSpec
    dataset: Dataset
    trial_id: str
    seed: int

    def __repr__(self) -> str:
        model = self.spec.model
        name = model.label if isinstance(model, CustomModel) else f"{model.cell}, {model.hidden_size} units"
        what = f"{name}, on {self.dataset.name}"
        return f"<Trained {self.trial_id}, seed {self.seed}: {what}; it can {', '.join(self.abilities)}>"

    @cached_property
    def abilities(self) -> tuple[str, ...]:
        """The names of the methods that this network has an answer for."""
        data = self.dataset
        classes = data.target_kind == "class"
        if data.target_at == "sequence":
            return () if not classes else ("caption",) if data.input_kind == "image" else ("translate",)
        if not classes:
            return ("predict",)
        if data.target_at == "last":
            return ("classify",)
        same = data.input_kind == "token" and data.input_tokens is not None and data.input_tokens == data.target_tokens
        reads_on = isinstance(self.network, SequenceModel) and self.network.recurrent.num_directions == 1
        forward = reads_on and not data.padded
        return ("write", "score") if same and forward else ("tag",)

    def translate(
        self, texts: Sequence[str], *, beams: int = 1, length_penalty: float = 0.0, max_length: int | None = None
    ) -> list[Text]:
        """Return what the decoder writes of each source text, the best that was found.

        Args:
            texts: Sources.
            beams: 1 takes the likeliest token each time, for all texts at once.
            length_penalty: α of `pipeline.core.models.writing`, of a beam.
            max_length: Most tokens with the end; by default one and a half times what training has.
        """
        self._require("translate")
        rows = [self._read(text) for text in texts]
        longest = max(map(len, rows), default=0)
        source = torch.tensor([row + [PAD] * (longest - len(row)) for row in rows], dtype=torch.int64)
        return self._written(source, beams, length_penalty, max_length, [len(row) for row in rows])

    def caption(
        self,
        images: np.ndarray[Any, Any],
        *,
        beams: int = 1,
        length_penalty: float = 0.0,
        max_length: int | None = None,
    ) -> list[Text]:
        """Return what the decoder writes of each image, (N, height, width) as the dataset has them.

        Raises:
            ConfigError: If the images have other sizes, or the network writes no captions.
        """
        self._require("caption")
        source, shape = torch.as_tensor(np.asarray(images, dtype=np.float32)), self._inputs.shape[1:]
        if source.shape[1:] != shape:
            expected = f"(N, {shape[0]}, {shape[1]}), as {self.dataset.name} has"
            raise ConfigError(f"images: expected {expected}; got {tuple(source.shape)}")
        return self._written(source, beams, length_penalty, max_length, None)

    def write(
        self, prompt: str, num_tokens: int, *, temperature: float = 1.0, beams: int | None = None, seed: int = 0
    ) -> Text:
        """Return a text that goes on from a prompt.

        Args:
            prompt: At least one token.
            num_tokens: How many follow.
            temperature: 1 draws from what the model says, below 1 likely tokens are preferred, 0 takes the likeliest.
            beams: In place of draws the likeliest continuation that a beam of so many finds.
            seed: Of the draws.
        """
        self._require("write")
        ids = self._read(prompt)
        if beams is None:
            draws = generator(seed, "sample")
            written = generate(self.network, ids, num_tokens, temperature=temperature, generator=draws)
        else:
            written, _ = beam_search(self.network, ids, num_tokens, beams)
        after = log_probability(self.network, [*ids, *written])[len(ids) - 1 :]
        return Text(self._joined([*ids, *written]), float(after.sum()), self._texts(written), None, True)

    def score(self, texts: Sequence[str]) -> list[Score]:
        """Return how probable texts are."""
        self._require("score")
        found = [log_probability(self.network, self._read(text)) for text in texts]
        return [Score(float(each.sum()), len(each)) for each in found]

    @torch.no_grad()
    def classify(self, texts: Sequence[Any], images: np.ndarray[Any, Any] | None = None) -> list[Answer]:
        """Return the likeliest class of each sequence: texts, or arrays of real numbers (T, D), or of ids.

        Args:
            texts: The sequences.
            images: Where texts speak of images, that of each, (N, height, width) as the dataset has them.

        Raises:
            ConfigError: If the network has no classes, or texts or images are not as the dataset's are.
        """
        self._require("classify")
        if images is not None and not self._describes:
            raise ConfigError(f"images: expected none: texts of {self.dataset.name} speak of no image")
        found = []
        for inputs in self._texts_of_images(texts, images) if self._describes else map(self._batch, texts):
            probabilities = self.network(inputs).values[0].softmax(dim=-1)
            best = int(probabilities.argmax())
            found.append(Answer(self._label(best), float(probabilities[best])))
        return found

    @torch.no_grad()
    def tag(self, texts: Sequence[Any]) -> list[list[tuple[str, Answer]]]:
        """Return every token of each text with the likeliest of its classes."""
        self._require("tag")
        found = []
        for text in texts:
            batch = self._batch(text)
            probabilities = self.network(batch).values[0].softmax(dim=-1)
            answers = [Answer(self._label(int(best)), float(p[best])) for p in probabilities for best in [p.argmax()]]
            tokens = self._texts(batch[0].tolist()) if batch.dim() == 2 else map(str, range(len(answers)))  # noqa: PLR2004
            found.append(list(zip(tokens, answers, strict=True)))
        return found

    @torch.no_grad()
    def predict(self, sequences: Sequence[Any]) -> list[np.ndarray[Any, Any]]:
        """Return the numbers that follow from each sequence, (D_out,) or (T, D_out); (T, D) real numbers, or ids."""
        self._require("predict")
        return [self.network(self._batch(each)).values[0].numpy() for each in sequences]

    def save(self, file: str | Path) -> None:
        """Write the weights as a file of safetensors, under the names of the network's parameters.

        Raises:
            ConfigError: If it cannot be written.
        """
        data = save({name: tensor.contiguous() for name, tensor in self.network.state_dict().items()})
        try:
            Path(file).write_bytes(data)
        except OSError as error:
            raise ConfigError(f"{file}: cannot be written: {error.strerror or error}") from None

    def _require(self, ability: str) -> None:
        if ability not in self.abilities:
            can = ", ".join(self.abilities) or "nothing of the kind: an autoencoder draws what it has seen"
            raise ConfigError(f"trial {self.trial_id} ({self.dataset.name}): cannot {ability}; it can {can}")

    @property
    def _inputs(self) -> np.ndarray[Any, Any]:
        return self.dataset.splits["train"].inputs

    def _read(self, text: str) -> list[int]:
        """Return the ids of a text.

        Raises:
            ConfigError: If it is empty, has a token that the network has never seen, or no texts are read.
        """
        tokens = self.dataset.input_tokens
        if tokens is None:
            if self.dataset.input_kind == "token":
                raise ConfigError(f"{self.dataset.name}: its tokens have no texts; give arrays of ids")
            numbers = f"arrays of real numbers (T, {self.dataset.input_size})"
            raise ConfigError(f"{self.dataset.name}: it is read from numbers, not from texts; give {numbers}")
        ids, unknown = {token: i for i, token in enumerate(tokens)}, unknown_id(tokens)
        parts = list(text) if _are_letters(tokens) else text.split()
        if not parts:
            raise ConfigError("expected a text with at least one token, got an empty one")
        for part in parts:
            if part not in ids and unknown is None:
                raise ConfigError(f"{self.dataset.name}: {unknown_name('token', part, tokens)}")
        return [ids.get(part, unknown or 0) for part in parts]

    def _batch(self, sequence: Any) -> Tensor:
        """Return a sequence, a text or an array, as a batch of one.

        Raises:
            ConfigError: If it is not as the dataset's are.
        """
        if isinstance(sequence, str):
            return torch.tensor([self._read(sequence)])
        array = np.asarray(sequence)
        if self.dataset.input_kind == "token":
            whole = array.ndim == 1 and array.dtype.kind in "iu" and len(array)
            if not whole or array.min() < 0 or array.max() >= self.dataset.input_size:
                expected = f"a text, or ids from 0 to {self.dataset.input_size - 1}, (T,)"
                raise ConfigError(f"expected {expected}; got an array of {array.dtype}, {array.shape}")
            return torch.as_tensor(array.astype(np.int64))[None]
        if array.ndim != 2 or array.shape[1] != self.dataset.input_size or array.dtype.kind not in "iuf":  # noqa: PLR2004
            expected = f"real numbers (T, {self.dataset.input_size})"
            raise ConfigError(f"expected {expected}; got an array of {array.dtype}, {array.shape}")
        return torch.as_tensor(array.astype(np.float32))[None]

    @property
    def _describes(self) -> bool:
        return self.network.interface.describes

    def _texts_of_images(self, texts: Sequence[Any], images: np.ndarray[Any, Any] | None) -> Iterator[Described]:
        """Yield each text, with the end that texts of the dataset have, and its image as a batch of one.

        Raises:
            ConfigError: If they are not as the dataset's are.
        """
        seen = np.asarray([] if images is None else images, dtype=np.float32)
        shape = (len(texts), *(self.dataset.frame_shape or ()))
        if seen.shape != shape:
            expected = f"images: expected {shape}, that of each text, as {self.dataset.name} has"
            raise ConfigError(f"{expected}; got {'none' if images is None else seen.shape}")
        ends = [EOS] if EOS in self._inputs[0] else []
        for text, image in zip(texts, seen, strict=True):
            words = torch.tensor([[*self._read(text), *ends]]) if isinstance(text, str) else self._batch(text)
            yield Described(words, torch.from_numpy(image)[None])

    def _label(self, answer: int) -> str:
        return str(answer) if self.dataset.target_tokens is None else self.dataset.target_tokens[answer]

    @property
    def _written_tokens(self) -> tuple[str, ...] | None:
        return self.dataset.target_tokens if self.dataset.target_at == "sequence" else self.dataset.input_tokens

    def _texts(self, ids: Sequence[int]) -> tuple[str, ...]:
        tokens = self._written_tokens
        return tuple(str(i) if tokens is None else tokens[i] for i in ids)

    def _joined(self, ids: Sequence[int]) -> str:
        return ("" if _are_letters(self._written_tokens) else " ").join(self._texts(ids))

    def _written(
        self, source: Tensor, beams: int, penalty: float, max_length: int | None, lengths: list[int] | None
    ) -> list[Text]:
        network = self.network
        assert isinstance(network, Seq2SeqNetwork)  # noqa: S101 - those alone write of a source
        most = max_length or math.ceil(1.5 * self.dataset.splits["train"].targets.shape[1])
        if beams == 1:
            found = write_greedily(network, source, most) if len(source) else []
        else:
            own = [row[None] if lengths is None else row[None, : lengths[i]] for i, row in enumerate(source)]
            found = [write_by_beam(network, each, most, beams, penalty)[0] for each in own]
        return [self._text(one, None if lengths is None else lengths[i]) for i, one in enumerate(found)]

    def _text(self, one: Written, num_read: int | None) -> Text:
        weights = None if one.weights_US is None else one.weights_US[:, :num_read].numpy()
        return Text(self._joined(one.tokens), one.log_probability, self._texts(one.tokens), weights, one.is_whole)


def _are_letters(tokens: Sequence[str] | None) -> bool:
    """Return whether texts of these tokens are read letter by letter: every one that is not special is a letter."""
    return all(len(token) == 1 for token in tokens or () if token not in {*SPECIAL_TOKENS, UNKNOWN})
