"""Uses of a trained language model: to continue a text, and to compute how probable a sequence is.

A language model predicts at every timestep the distribution of the next token. By the chain rule

    ln P(x_2 … x_T | x_1) = Σ_t ln P(x_t | x_1 … x_{t-1})

The first token has nothing before it, so every probability here is conditional on it: sequences that begin alike can be
compared. One network, no replica axis; its states are carried from token to token, so cost is linear in length.

Shapes: T tokens, V vocabulary, K beams.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pipeline.config.strict import InvalidFieldError, require
from pipeline.core.models.network import Network, RunOptions
from pipeline.core.models.replicas import Replicas
from pipeline.core.models.sequence import SequenceModel


def network_of(replicas: Replicas, flat_RP: Tensor, r: int) -> Network:
    """Return one network of a replica batch with weights of its own: row `r` of `flat_RP`."""
    network = copy.deepcopy(replicas.model).to(flat_RP)
    network.load_parameters({name: view[r] for name, view in replicas.named(flat_RP).items()})
    return network


@torch.no_grad()
def generate(
    model: nn.Module, prompt: Sequence[int], num_tokens: int, *, temperature: float, generator: torch.Generator
) -> list[int]:
    """Return the tokens that the model writes after `prompt`, each drawn from softmax(ln P / temperature).

    Args:
        model: A language model.
        prompt: At least one token.
        num_tokens: How many to write.
        temperature: 1 draws from P itself, below 1 likely tokens are preferred; 0 takes the likeliest one (greedy).
        generator: Where draws come from; untouched at temperature 0.

    Raises:
        InvalidFieldError: If the model is not a language model or its probabilities are not numbers, or a token or a
            number is out of range.
    """
    network, read = _language_model(model, "prompt", prompt)
    require(num_tokens >= 0, "num_tokens", "an integer of at least 0", num_tokens)
    require(temperature >= 0, "temperature", "a number of at least 0", temperature)
    states, written = list[Tensor](), list[int]()
    for _ in range(num_tokens):
        log_p_1V, states = _next(network, read, states)
        written.append(_draw(log_p_1V[0], temperature, generator))
        read = read.new_tensor([written[-1:]])
    return written


@torch.no_grad()
def beam_search(model: nn.Module, prompt: Sequence[int], num_tokens: int, num_beams: int) -> tuple[list[int], float]:
    """Return the likeliest continuation that was found, and its ln P given `prompt`, in nats.

    After every token the `num_beams` likeliest beginnings are kept. One beam is greedy; with V^(num_tokens - 1) nothing
    is dropped that could win. In between more beams mostly find better, but not always.

    Args:
        model: A language model.
        prompt: At least one token.
        num_tokens: Length of the continuation.
        num_beams: K.

    Raises:
        InvalidFieldError: If the model is not a language model or its probabilities are not numbers, or a token or a
            number is out of range.
    """
    network, read = _language_model(model, "prompt", prompt)
    require(num_tokens >= 0, "num_tokens", "an integer of at least 0", num_tokens)
    require(num_beams >= 1, "num_beams", "an integer of at least 1", num_beams)
    states = list[Tensor]()
    written_KT, total_K = read[:, :0], torch.zeros(1, dtype=torch.float64, device=read.device)
    for _ in range(num_tokens):
        log_p_KV, states = _next(network, read, states)
        totals = (total_K[:, None] + log_p_KV).flatten()
        total_K, best = totals.topk(min(num_beams, len(totals)))
        beams, tokens = best // log_p_KV.shape[1], best % log_p_KV.shape[1]
        written_KT = torch.cat([written_KT[beams], tokens[:, None]], dim=1)
        read, states = tokens[:, None], [state[beams] for state in states]
    return written_KT[0].tolist(), total_K[0].item()


@torch.no_grad()
def log_probability(model: nn.Module, tokens: Sequence[int]) -> Tensor:
    """Return ln P(x_t | x_1 … x_{t-1}) for t = 2 … T, (T - 1,), in nats; their sum is ln P(x_2 … x_T | x_1).

    Args:
        model: A language model.
        tokens: x_1 … x_T; at least one, on which all others are conditional.

    Raises:
        InvalidFieldError: If the model is not a language model or its probabilities are not numbers, or a token is
            out of range.
    """
    network, row_1T = _language_model(model, "tokens", tokens)
    log_p_TV = _log_p(network, network(row_1T).values[0])
    return log_p_TV[:-1].gather(1, row_1T[0, 1:, None]).squeeze(1)


def _next(network: SequenceModel, read: Tensor, states: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """Return ln P of the token after `read` (K, T), (K, V), and the states from which the one after that is read."""
    predicted = network(read, RunOptions(initial=states, num_scored=1))
    return _log_p(network, predicted.values[:, -1]), [state_TKH[-1] for state_TKH in predicted.states]


def _log_p(network: SequenceModel, logits_KV: Tensor) -> Tensor:
    """Return ln P, (K, V), in float64.

    Raises:
        InvalidFieldError: If a probability is not a number: a token drawn or chosen of such would mean nothing.
    """
    log_p_KV = logits_KV.double().log_softmax(dim=1)
    if bool(log_p_KV.isnan().any()):
        bad = [name for name, weights in network.named_parameters() if not bool(weights.isfinite().all())]
        what = f"{', '.join(bad)}: not finite" if bad else "finite weights, and predictions that overflow"
        raise InvalidFieldError("model", "a language model whose probabilities are numbers", what)
    return log_p_KV


def _draw(log_p_V: Tensor, temperature: float, generator: torch.Generator) -> int:
    if temperature == 0:
        return int(log_p_V.argmax())
    shares_V = ((log_p_V - log_p_V.max()) / temperature).softmax(dim=0)  # minus the maximum: nothing overflows
    return int(torch.multinomial(shares_V.to(generator.device), 1, generator=generator))


def _language_model(model: nn.Module, name: str, tokens: Sequence[int]) -> tuple[SequenceModel, Tensor]:
    """Return `model`, and token ids as a batch of one, (1, T).

    Args:
        model: Reads tokens forward in time and at each of them predicts one of the same vocabulary.
        name: Of the argument that has the tokens.
        tokens: At least one.

    Raises:
        InvalidFieldError: If model or tokens are not so.
    """
    if not isinstance(model, SequenceModel):
        raise InvalidFieldError("model", "a language model, a SequenceModel", type(model).__name__)
    interface, size = model.interface, model.interface.input_size
    kinds = (interface.input_kind, interface.target_at, interface.target_kind)
    fits = kinds == ("token", "every", "class") and size == interface.output_size
    require(fits, "model", "a language model: tokens in, at every timestep one of the same tokens out", interface)
    num_directions = model.recurrent.num_directions
    require(num_directions == 1, "model", "a language model, that reads forward in time alone", "both directions")
    require(len(tokens) > 0, name, "at least one token, on which the rest is conditional", "none")
    for position, token in enumerate(tokens, start=1):
        expected = f"an id of the vocabulary of {size} tokens, from 0 to {size - 1}"
        require(0 <= token < size, f"{name}, token {position} of {len(tokens)}", expected, token)
    return model, torch.tensor([list(tokens)], device=model.readout.weight.device)
