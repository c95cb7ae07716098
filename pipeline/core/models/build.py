"""Which network a dataset and a spec make together, and how many numbers of it are trained."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from pipeline.core.attention.score import Additive, General, NoAttention
from pipeline.core.cells import CELLS
from pipeline.core.models.architecture import ModelSpec, SelfAttention
from pipeline.core.models.autoencoder import Autoencoder
from pipeline.core.models.captioner import Captioner
from pipeline.core.models.encoder_decoder import EncoderDecoder
from pipeline.core.models.interface import Interface
from pipeline.core.models.network import Network
from pipeline.core.models.self_attention import SelfAttentionModel
from pipeline.core.models.sequence import SequenceModel


def network_class(interface: Interface, spec: ModelSpec) -> type[Network]:
    """Return the kind of network for this dataset."""
    if interface.target_at != "sequence":
        return SelfAttentionModel if isinstance(spec.attention, SelfAttention) else SequenceModel
    if not interface.decodes:
        return Autoencoder
    return Captioner if interface.input_kind == "image" else EncoderDecoder


def build_network(interface: Interface, spec: ModelSpec, seed: int) -> Network:
    """Return one network with its initial weights, a pure function of the arguments."""
    kind: Callable[[Interface, ModelSpec, int], Network] = network_class(interface, spec)
    return kind(interface, spec, seed)


def count_parameters(interface: Interface, spec: ModelSpec) -> int:
    """Return the number of trained numbers of such a network, without making it."""
    return sum(_sizes(interface, spec))


def _sizes(interface: Interface, spec: ModelSpec) -> Iterator[int]:
    """Yield the size of every part."""
    kind, H = network_class(interface, spec), spec.hidden_size
    embedding, num_directions = spec.embedding_size, 2 if spec.bidirectional else 1
    width = embedding or interface.input_size
    if interface.input_kind == "token" and embedding is not None:
        yield interface.input_size * embedding
    if kind is SelfAttentionModel:
        yield SelfAttentionModel.num_parameters(interface, spec)
    elif kind is SequenceModel:
        yield _stack_size(spec, width, H, num_directions)
        yield interface.output_size * (num_directions * H + 1)
    elif kind is Autoencoder:
        code = spec.code_size or 0
        yield _stack_size(spec, width, H, 1) + code * (H + 1) + _stack_size(spec, code, H, 1)
        yield interface.output_size * (H + 1)
    else:
        if kind is EncoderDecoder:
            yield _stack_size(spec, width, H // num_directions, num_directions)
        else:
            yield _captioner_size(spec)
        yield _decoder_size(spec, interface.output_size)


def _stack_size(spec: ModelSpec, width: int, hidden: int, num_directions: int) -> int:
    num_rows = len(CELLS[spec.cell].gates) * hidden
    widths = [width, *[num_directions * hidden] * (spec.num_layers - 1)]
    return sum(num_directions * num_rows * (width + hidden + 2) for width in widths)


def _decoder_size(spec: ModelSpec, num_tokens: int) -> int:
    H, attention, width = spec.hidden_size, spec.attention, spec.embedding_size or num_tokens
    embedding = num_tokens * (spec.embedding_size or 0)
    readout = num_tokens * (H + 1)
    if isinstance(attention, NoAttention | SelfAttention):
        return embedding + readout + _stack_size(spec, width, H, 1)
    score = H * H if isinstance(attention, General) else 0
    if isinstance(attention, Additive):
        score = attention.size * (2 * H + 1)
    fed = 0 if attention.feeds == "nothing" else H
    return embedding + readout + score + H * (2 * H + 1) + _stack_size(spec, width + fed, H, 1)


def _captioner_size(spec: ModelSpec) -> int:
    H, num_states = spec.hidden_size, spec.num_layers * len(CELLS[spec.cell].states)
    convolutions = 10 * (H // 4) + (9 * (H // 4) + 1) * (H // 2) + (9 * (H // 2) + 1) * H
    return convolutions + H * (H + 3) + num_states * H * (H + 1)
