"""Which network a dataset and a spec make, how many numbers it has, what is refused; five shapes that learn."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

from pipeline.config.strict import InvalidFieldError
from pipeline.core.attention.score import Additive, Dot, General
from pipeline.core.models import (
    Described,
    Inputs,
    Interface,
    ModelSpec,
    Replicas,
    RunOptions,
    Seq2SeqInputs,
    build_network,
    check_model,
    count_parameters,
    network_class,
    teacher_forced,
)  # fmt: skip
from pipeline.core.models.architecture import SelfAttention
from pipeline.core.models.captioner import Captioner
from pipeline.core.models.cross_attention import CrossAttentionModel
from pipeline.core.models.encoder_decoder import EncoderDecoder
from pipeline.core.models.initialisation import PLAIN, Orthogonal, SpectralRadius
from pipeline.core.models.self_attention import SelfAttentionModel
from pipeline.core.models.sequence import Autoencoder, SequenceModel
from tests.core.cells.reference import FIRST_OF_EACH_FORM

H = 8
ONE = Interface(input_kind="real", input_size=3, target_at="last", target_kind="class", output_size=4)
LAST = Interface(input_kind="token", input_size=7, target_at="last", target_kind="class", output_size=4, padded=True)
EVERY = Interface(input_kind="token", input_size=7, target_at="every", target_kind="class", output_size=5, padded=True)
DELAYED = Interface(
    input_kind="token", input_size=7, target_at="sequence", target_kind="class", output_size=6, padded=True
)
IMAGE = Interface(
    input_kind="image", input_size=1, target_at="sequence", target_kind="class", output_size=6, padded=True
)
FRAMES = Interface(input_kind="real", input_size=9, target_at="sequence", target_kind="value", output_size=9)
SPOKEN_OF = dataclasses.replace(LAST, describes=True)
SELF = SelfAttention(num_heads=2)
DOT = Dot(feeds="nothing")


def spec_of(**changes: Any) -> ModelSpec:
    return dataclasses.replace(ModelSpec.plain(cell="lstm", hidden_size=H), **changes)


MADE: list[tuple[Interface, dict[str, Any], type]] = [
    (ONE, {}, SequenceModel),
    (LAST, {"bidirectional": True, "embedding_size": 3, "num_layers": 3}, SequenceModel),
    (EVERY, {"attention": SELF, "num_layers": 2, "embedding_size": 3}, SelfAttentionModel),
    (ONE, {"attention": SELF}, SelfAttentionModel),
    (DELAYED, {}, EncoderDecoder),
    (DELAYED, {"attention": DOT, "bidirectional": True, "num_layers": 2}, EncoderDecoder),
    (DELAYED, {"attention": Dot(feeds="context"), "embedding_size": 3}, EncoderDecoder),
    (DELAYED, {"attention": General(feeds="attentional_state"), "num_layers": 3}, EncoderDecoder),
    (DELAYED, {"attention": Additive(feeds="context", size=5), "bidirectional": True}, EncoderDecoder),
    (IMAGE, {}, Captioner),
    (IMAGE, {"attention": Additive(feeds="context", size=5), "num_layers": 2, "embedding_size": 3}, Captioner),
    (IMAGE, {"attention": General(feeds="nothing"), "hidden_size": 10}, Captioner),  # 10 is no multiple of 4
    (SPOKEN_OF, {}, CrossAttentionModel),
    (SPOKEN_OF, {"attention": Dot(feeds="attentional_state"), "embedding_size": 3}, CrossAttentionModel),
    (SPOKEN_OF, {"attention": Additive(feeds="context", size=5), "num_layers": 2}, CrossAttentionModel),
    (FRAMES, {"code_size": 2}, Autoencoder),
    (FRAMES, {"code_size": 5, "num_layers": 2}, Autoencoder),
]


@pytest.mark.parametrize("cell", FIRST_OF_EACH_FORM)
@pytest.mark.parametrize(("interface", "changes", "kind"), MADE)
def test_parameters_are_counted_without_making_the_network(
    interface: Interface, changes: dict[str, Any], kind: type, cell: str
) -> None:
    spec = spec_of(cell=cell, **changes)
    check_model(spec, interface)
    network = build_network(interface, spec, 0)
    assert type(network) is network_class(interface, spec) is kind
    assert count_parameters(interface, spec) == sum(parameter.numel() for parameter in network.parameters())


def test_parameters_of_a_network_too_large_for_this_machine_are_counted() -> None:
    H = 100_000
    rules = dataclasses.replace(PLAIN, recurrent=Orthogonal(gain=1.0), gates={"f": SpectralRadius(radius=1.0)})
    spec = spec_of(hidden_size=H, num_layers=2, initialisation=rules)
    expected = 4 * H * (3 + H + 2) + 4 * H * (H + H + 2) + 4 * (H + 1)
    assert count_parameters(ONE, spec) == expected


@pytest.mark.parametrize(
    ("interface", "changes", "options", "told"),
    [
        (EVERY, {"attention": SELF}, RunOptions(state_threshold=1.0), "options state_threshold .* SelfAttentionModel"),
        (ONE, {"attention": SELF}, RunOptions(initial=[torch.zeros(6, H)]), "options initial .* SelfAttentionModel"),
        (DELAYED, {}, RunOptions(initial=[torch.zeros(6, H)], num_scored=1), "options initial, num_scored .* Encoder"),
        (FRAMES, {"code_size": 2}, RunOptions(num_scored=1), "options num_scored .* Autoencoder"),
    ],
)
def test_options_that_a_network_cannot_be_run_with_are_refused(
    interface: Interface, changes: dict[str, Any], options: RunOptions, told: str
) -> None:
    network = build_network(interface, spec_of(**changes), 0)
    with pytest.raises(ValueError, match=f"expected none of the {told}"):
        network(torch.zeros(6, 5), options)


@pytest.mark.parametrize(("interface", "changes", "kind"), MADE)
def test_a_network_is_a_pure_function_of_its_seed(interface: Interface, changes: dict[str, Any], kind: type) -> None:
    first, again, other = (build_network(interface, spec_of(**changes), seed).state_dict() for seed in (3, 3, 4))
    for name, value in first.items():
        assert torch.equal(value, again[name]), name
        assert not value.any() or not torch.isclose(value, other[name]).all(), name


@pytest.mark.parametrize(
    ("interface", "changes", "told"),
    [
        (
            DELAYED,
            {"attention": SELF},
            r"model\.attention\.name: expected none, dot, general or additive, .*got 'self'",
        ),
        (IMAGE, {"attention": SELF}, r"model\.attention\.name: expected none, dot, general or additive"),
        (ONE, {"attention": DOT}, r"model\.attention\.name: expected none or self: nothing is decoded .*got 'dot'"),
        (EVERY, {"attention": DOT}, r"model\.attention\.name: expected none or self: nothing is decoded"),
        (FRAMES, {"attention": SELF, "code_size": 2}, r"model\.attention\.name: expected none: nothing is decoded"),
        (FRAMES, {}, r"model\.code_size: expected an integer of at least 1, for an autoencoder's code, got None"),
        (ONE, {"code_size": 2}, r"model\.code_size: expected null: nothing is coded, .* got 2"),
        (DELAYED, {"code_size": 2}, r"model\.code_size: expected null: nothing is coded"),
        (ONE, {"embedding_size": 3}, r"model\.embedding_size: expected null, for the real inputs, got 3"),
        (FRAMES, {"embedding_size": 3, "code_size": 2}, r"model\.embedding_size: expected null"),
        (
            EVERY,
            {"attention": SelfAttention(num_heads=3)},
            r"num_heads: expected a divisor of hidden_size \(8\), got 3",
        ),
        (DELAYED, {"bidirectional": True, "hidden_size": 7}, r"model\.hidden_size: expected an even number: .* got 7"),
        (IMAGE, {"bidirectional": True}, r"model\.bidirectional: expected false: an image is not read both ways"),
        (FRAMES, {"bidirectional": True, "code_size": 2}, r"model\.bidirectional: expected false: an autoencoder"),
        (SPOKEN_OF, {"attention": SELF}, r"model\.attention\.name: expected none, dot, general or additive"),
        (
            SPOKEN_OF,
            {"bidirectional": True},
            r"model\.bidirectional: expected false: a text of an image is not",
        ),
        (SPOKEN_OF, {"hidden_size": 3}, r"model\.hidden_size: expected an integer of at least 4.*got 3"),
        (SPOKEN_OF, {"code_size": 2}, r"model\.code_size: expected null: nothing is coded"),
        (SPOKEN_OF, {"generates": 2}, r"model\.generates: expected null: only a series of real numbers is generated"),
        (IMAGE, {"hidden_size": 3}, r"model\.hidden_size: expected an integer of at least 4.*got 3"),
    ],
)
def test_networks_that_cannot_be_are_refused(interface: Interface, changes: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidFieldError, match=told):
        check_model(spec_of(**changes), interface)


def draw(*shape: int, high: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(len(shape) + high)
    return torch.randint(3, high, shape, generator=generator) if high else torch.rand(shape, generator=generator)


SENTENCE = torch.randint(3, 6, (6, 4), generator=torch.Generator().manual_seed(1))
FIVE: dict[str, tuple[Interface, dict[str, Any], Inputs, Tensor]] = {
    "one-to-one": (ONE, {}, draw(6, 1, 3), torch.tensor([0, 1, 2, 3, 0, 1])),
    "one-to-many": (IMAGE, {}, Seq2SeqInputs(draw(6, 8, 8), teacher_forced(SENTENCE)), SENTENCE),
    "many-to-one": (LAST, {}, draw(6, 5, high=7), torch.tensor([0, 1, 2, 3, 0, 1])),
    "many-to-many in step": (EVERY, {"bidirectional": True}, draw(6, 5, high=7), draw(6, 5, high=5)),
    "many-to-many delayed": (DELAYED, {}, Seq2SeqInputs(draw(6, 5, high=7), teacher_forced(SENTENCE)), SENTENCE),
}


@pytest.mark.parametrize("shape", FIVE)
def test_each_shape_of_input_and_output_learns(shape: str) -> None:
    interface, changes, inputs, targets = FIVE[shape]
    spec = spec_of(**changes)
    check_model(spec, interface)
    replicas = Replicas([build_network(interface, spec, seed) for seed in range(2)])
    flat, losses = replicas.flat_RP, list[Tensor]()
    for _ in range(20):
        run = replicas.backpropagate(flat, inputs, targets, shared=True)
        loss, grad = run.losses, run.grad_RP
        losses.append(loss)
        flat = flat - 0.3 * grad
    assert all((after < before).all() for before, after in zip(losses, losses[1:], strict=False))


def source_of(interface: Interface) -> Tensor:
    if interface.input_kind == "image":
        return draw(2, 16, 16)
    return draw(2, 6, high=7) if interface.input_kind == "token" else draw(2, 6, interface.input_size)


@pytest.mark.parametrize(("interface", "changes", "kind"), MADE)
@pytest.mark.parametrize("cell", ["lru", "slstm"])
def test_every_network_reads_all_that_a_cell_puts_out(
    cell: str, interface: Interface, changes: dict[str, Any], kind: type
) -> None:
    """Each parameter moves the answer: of a cell with two outputs, and of one with four states."""
    network, source = build_network(interface, spec_of(cell=cell, **changes), 0), source_of(interface)
    decodes = kind in {EncoderDecoder, Captioner}
    inputs = Seq2SeqInputs(source, draw(2, 4, high=6)) if decodes else source
    inputs = Described(source, draw(2, 16, 16)) if kind is CrossAttentionModel else inputs
    answer = network(inputs).values
    assert answer.isfinite().all()
    grads = torch.autograd.grad(answer.sin().sum(), list(network.parameters()), allow_unused=True)
    assert all(grad is not None and grad.isfinite().all() and grad.any() for grad in grads)
