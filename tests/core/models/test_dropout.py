"""Dropout: with given coins a hand-written loop over torch's own cells; what is drawn; and nothing in an evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pipeline.config import build
from pipeline.core.cells import CELLS
from pipeline.core.models import Interface, ModelSpec, Replicas, RunOptions, Seq2SeqInputs, SequenceModel, build_network
from pipeline.core.models.architecture import AttentionSpec
from pipeline.core.models.dropout import Coins, Dropout, LayerDropout, VariationalDropout, Zoneout, draw
from pipeline.errors import ConfigError

B, T, D, H = 3, 7, 2, 5
EVERY = Interface(input_kind="real", input_size=D, target_at="every", target_kind="value", output_size=2)
HEADS = {"name": "self", "num_heads": 1}
LAYERS = LayerDropout(rate=0.4)
VARIATIONAL = VariationalDropout(inputs=0.3, states=0.5)
ZONEOUT = {"lstm": Zoneout(hidden=0.1, cell=0.5), "gru": Zoneout(hidden=0.3, cell=0.0)}


def network(dropout: Dropout, cell: str = "lstm", **changes: Any) -> SequenceModel:
    spec = ModelSpec.plain(cell, H, **{"num_layers": 2, "dropout": dropout} | changes)
    return SequenceModel(EVERY, spec, seed=3).double()


def data(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    source = torch.Generator().manual_seed(1)
    x, y = (torch.randn(B, T, 2, generator=source, dtype=torch.float64) for _ in range(2))
    return x.to(dtype), y.to(dtype)


def coins_of(model: Any, inputs: Any, seeds: Sequence[int] = (0,), step: int = 4) -> list[Tensor]:
    drawn = draw(model.dropout_coins(inputs), seeds, step, batch=2)
    return [each.to(next(model.parameters()).dtype) for each in drawn]


def gradients(model: SequenceModel, values: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(nn.functional.mse_loss(values, data()[1]), list(model.parameters())))


def assert_same(model: SequenceModel, expected: Tensor, coins: Sequence[Tensor]) -> None:
    """The network alone, and as a replica with taps, has these predictions and their gradients."""
    x, y = data()
    predicted = model(x, RunOptions(dropout=[each[0] for each in coins])).values
    torch.testing.assert_close(predicted, expected, rtol=1e-12, atol=1e-13)
    wanted = torch.cat([grad.flatten() for grad in gradients(model, expected)])
    mine = torch.cat([grad.flatten() for grad in gradients(model, predicted)])
    torch.testing.assert_close(mine, wanted, rtol=1e-10, atol=1e-13)
    replicas = Replicas([model])
    run = replicas.backpropagate(replicas.flat_RP, x, y, RunOptions(dropout=coins), trace=True, shared=True)
    torch.testing.assert_close(run.grad_RP[0], wanted, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("bidirectional", [False, True])
def test_between_layers_each_output_is_dropped_with_a_coin_of_its_own(bidirectional: bool) -> None:
    model, (x, _) = network(LAYERS, bidirectional=bidirectional), data()
    (coins,) = drawn = coins_of(model, x)
    width = H * (2 if bidirectional else 1)
    assert coins.shape == (1, T, B, width)
    torch.testing.assert_close(coins.unique(), torch.tensor([0.0, 1 / 0.6], dtype=coins.dtype), rtol=1e-7, atol=0)
    plain = [nn.LSTM(size, H, batch_first=True, bidirectional=bidirectional).double() for size in (D, width)]
    tied = dict(model.recurrent.named_parameters())
    between = call(plain[0], tied, "0", x) * coins[0].transpose(0, 1)
    assert_same(model, model.readout(call(plain[1], tied, "1", between)), drawn)


def call(module: nn.Module, tied: dict[str, Tensor], layer: str, x: Tensor) -> Tensor:
    """A one-layer module with the weights of a layer of the stack."""
    mine = {name.replace(f"_l{layer}", "_l0"): weight for name, weight in tied.items() if f"_l{layer}" in name}
    return torch.func.functional_call(module, mine, (x,))[0]


def by_hand(
    model: SequenceModel, cell: str, x: Tensor, masks: Sequence[Tensor], fed: Sequence[Tensor], kept: Sequence[Any]
) -> Tensor:
    """A loop over torch's cells; variational masks on inputs and states, zoneout of states."""
    layer_input = x
    for layer in range(2):
        weights = {
            name.removesuffix(f"_l{layer}"): weight
            for name, weight in model.recurrent.named_parameters()
            if name.endswith(f"_l{layer}")
        }
        module = (nn.LSTMCell if cell == "lstm" else nn.GRUCell)(layer_input.shape[2], H).double()
        state = [torch.zeros(B, H, dtype=torch.float64) for _ in CELLS[cell].states]
        outputs = []
        for t in range(T):
            x_t = layer_input[:, t] * (masks[layer][0] if masks else 1.0)
            h = state[0] * (fed[layer] if fed else 1.0)
            if cell == "gru" and fed:  # torch's cell would also take the dropped h into the new one
                gi = x_t @ weights["weight_ih"].T + weights["bias_ih"]
                gh = h @ weights["weight_hh"].T + weights["bias_hh"]
                (ri, zi, ni), (rh, zh, nh) = gi.chunk(3, 1), gh.chunk(3, 1)
                z = torch.sigmoid(zi + zh)
                new = [(1 - z) * torch.tanh(ni + torch.sigmoid(ri + rh) * nh) + z * state[0]]
            else:
                given = (h, *state[1:]) if cell == "lstm" else h
                after = torch.func.functional_call(module, weights, (x_t, given))
                new = list(after) if cell == "lstm" else [after]
            if kept:
                rates = [share if isinstance(share, float) else share[t] for share in kept[layer]]
                new = [rate * old + (1 - rate) * each for rate, old, each in zip(rates, state, new, strict=True)]
            state = new
            outputs.append(state[0])
        layer_input = torch.stack(outputs, dim=1)
    return model.readout(layer_input)


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_variational_masks_hold_for_a_whole_sequence_and_leave_what_a_gate_carries(cell: str) -> None:
    model, (x, _) = network(VARIATIONAL, cell), data()
    coins = coins_of(model, x)
    assert [each.shape for each in coins] == [(1, 1, B, D), (1, 1, B, H), (1, 1, B, H), (1, 1, B, H)]
    masks, fed = [each[0] for each in coins[:2]], [each[0, 0] for each in coins[2:]]
    assert_same(model, by_hand(model, cell, x, masks, fed, []), coins)
    inputs_alone = network(VariationalDropout(inputs=0.3, states=0.0), cell)
    assert_same(inputs_alone, by_hand(inputs_alone, cell, x, masks, [], []), coins[:2])


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_zoneout_keeps_a_unit_or_on_average_a_share_of_it(cell: str) -> None:
    model, (x, _) = network(ZONEOUT[cell], cell), data()
    coins = coins_of(model, x)
    size = len(CELLS[cell].states)
    assert [each.shape for each in coins] == [(1, T, B, H)] * 2 * size
    kept = [[each[0] for each in coins[at : at + size]] for at in (0, size)]
    assert_same(model, by_hand(model, cell, x, [], [], kept), coins)
    rates = [ZONEOUT[cell].hidden, ZONEOUT[cell].cell][:size]
    assert_same(model, by_hand(model, cell, x, [], [], [rates, rates]), [])


def test_the_traced_gradients_of_zoned_out_states_are_those_of_finite_differences() -> None:
    model, (x, y) = network(ZONEOUT["lstm"]), data()
    replicas = Replicas([model])
    options = RunOptions(dropout=coins_of(model, x))
    run = replicas.backpropagate(replicas.flat_RP, x, y, options, trace=True, shared=True)
    shapes = [(1, *shape) for shape in model.tap_shapes(x)]
    for index, key in enumerate(model.state_keys):
        taps = [torch.zeros(shape, dtype=torch.float64) for shape in shapes]
        losses = []
        for sign in (1, -1):
            taps[index][0, 2, 1, 3] = sign * 1e-4
            tapped = RunOptions(dropout=options.dropout, taps=taps)
            losses.append(replicas.losses(replicas.named(replicas.flat_RP), x, y, tapped, shared=True)[0].item())
        slope = (losses[0] - losses[1]) / 2e-4
        assert run.grad_states[key][0, 2, 1, 3].item() == pytest.approx(slope, rel=1e-6, abs=1e-11)


@pytest.mark.parametrize(("cell", "hidden_size", "num_examples"), [("elman", 5, 16), ("lstm", 16, 1), ("gru", 1, 3)])
def test_a_replica_is_alone_bit_for_bit_what_it_is_among_others(cell: str, hidden_size: int, num_examples: int) -> None:
    source = torch.Generator().manual_seed(0)
    x, y = (torch.randn(3, num_examples, 6, 2, generator=source) for _ in range(2))
    for dropout in (VARIATIONAL, ZONEOUT["lstm" if cell == "lstm" else "gru"]):
        spec = ModelSpec.plain(cell, hidden_size, dropout=dropout)
        models = [SequenceModel(EVERY, spec, seed) for seed in range(3)]
        together = Replicas(models)
        coins = draw(together.model.dropout_coins(x[0]), range(3), step=0, batch=0)
        whole = together.backpropagate(together.flat_RP, x, y, RunOptions(dropout=coins))
        for r, model in enumerate(models):
            alone, mine = Replicas([model]), slice(r, r + 1)
            options = RunOptions(dropout=[each[mine] for each in coins])
            run = alone.backpropagate(alone.flat_RP, x[mine], y[mine], options)
            assert torch.equal(run.losses[0], whole.losses[r])
            assert torch.equal(run.grad_RP[0], whole.grad_RP[r])


@pytest.mark.parametrize("dropout", [LAYERS, VARIATIONAL])
def test_an_evaluation_drops_nothing(dropout: Dropout) -> None:
    x = data()[0]
    torch.testing.assert_close(
        network(dropout)(x).values, network(build(Dropout, {"name": "none"}, "none"))(x).values, rtol=0, atol=0
    )


def test_coins_are_those_of_seed_and_step_and_a_sequence_keeps_its_own() -> None:
    coins = [Coins((9, 8, 16), 0.3, 2.0), Coins((1, 8, 16), 0.9, 1.0)]
    first = draw(coins, (5, 6), step=10, batch=3)
    assert all(torch.equal(a, b) for a, b in zip(first, draw(coins, (5, 6), 10, 3), strict=True))
    alone = draw(coins, (6,), 10, 3)
    assert all(torch.equal(a[1], b[0]) for a, b in zip(first, alone, strict=True))
    later = draw(coins, (5, 6), step=11, batch=3)
    assert torch.equal(first[1], later[1])
    assert not torch.equal(first[0], later[0])
    assert not torch.equal(first[1], draw(coins, (5, 6), 10, 4)[1])
    assert not torch.equal(first[0][0], first[0][1])
    share = first[0].count_nonzero().item() / first[0].numel()
    assert abs(share - 0.3) < 4 * (0.3 * 0.7 / first[0].numel()) ** 0.5


@pytest.mark.parametrize(("feeds", "attention"), [("attentional_state", "dot"), ("nothing", "none")])
@pytest.mark.parametrize("dropout", [LAYERS, VARIATIONAL, ZONEOUT["gru"]])
def test_a_decoder_that_is_run_step_by_step_has_the_coins_of_its_timesteps(
    dropout: Dropout, feeds: str, attention: str
) -> None:
    interface = Interface(
        input_kind="token", input_size=9, target_at="sequence", target_kind="class", output_size=9, padded=True
    )
    rule = {"name": "none"} if attention == "none" else {"name": attention, "feeds": feeds}
    raw = {
        "attention": build(AttentionSpec, rule, "attention"),
        "num_layers": 2,
        "embedding_size": 4,
        "bidirectional": True,
    }
    spec = ModelSpec.plain("gru", 6, dropout=dropout, **raw)
    model = build_network(interface, spec, seed=0).double()
    source = torch.tensor([[4, 5, 6, 3], [7, 8, 3, 0]])
    inputs = Seq2SeqInputs(source, torch.tensor([[1, 4, 5], [1, 6, 7]]))
    whole = model.dropout_coins(inputs)
    assert {each.shape[0] for each in whole} <= {1, 3, 4}
    coins = coins_of(model, inputs)
    replicas = Replicas([model])
    targets = torch.tensor([[4, 5, 3], [6, 7, 3]])
    options = RunOptions(dropout=coins)
    run = replicas.backpropagate(replicas.flat_RP, inputs, targets, options, shared=True)
    direction = run.grad_RP / run.grad_RP.norm()
    losses = [
        replicas.losses(replicas.named(replicas.flat_RP + at * direction), inputs, targets, options, shared=True)[0]
        for at in (1e-6, -1e-6)
    ]
    slope = (losses[0] - losses[1]).item() / 2e-6
    assert slope == pytest.approx(run.grad_RP.norm().item(), rel=1e-6)
    assert (
        run.losses.item() != replicas.losses(replicas.named(replicas.flat_RP), inputs, targets, shared=True)[0].item()
    )


@pytest.mark.parametrize(
    ("cell", "changes", "message"),
    [
        ("lstm", {"dropout": {"name": "layers", "rate": 0.5}}, "num_layers: expected at least 2, for dropout between"),
        ("lstm", {"dropout": {"name": "layers", "rate": 1.0}}, r"dropout\.rate: expected a probability in \[0, 1\)"),
        ("lstm", {"dropout": {"name": "layer", "rate": 0.5}}, "did you mean 'layers'"),
        ("gru", {"dropout": {"name": "zoneout", "hidden": 0.1, "cell": 0.1}}, r"dropout\.cell: expected 0: the cell"),
        ("gru", {"dropout": {"name": "zoneout", "hidden": 0.0, "cell": 0.0}}, r"dropout\.hidden: expected a rate"),
        ("slstm", {"dropout": {"name": "zoneout", "hidden": 0.1, "cell": 0.1}}, "cell: expected a cell of blocks"),
        (
            "lstm_layer_norm",
            {"dropout": {"name": "variational", "inputs": 0.0, "states": 0.1}},
            "cell: expected a cell of blocks that h feeds",
        ),
        (
            "lstm",
            {"dropout": {"name": "variational", "inputs": 0.1, "states": 0.1}, "attention": HEADS},
            r"dropout\.name: expected none, where nothing recurs",
        ),
    ],
)  # fmt: skip
def test_dropout_that_does_not_fit_is_refused_by_key(cell: str, changes: dict[str, Any], message: str) -> None:
    plain = {"name": "uniform"}
    rules = {"input": plain, "recurrent": plain, "gates": {}, "bias": plain, "readout": plain}
    raw = {
        "cell": cell, "hidden_size": 4, "num_layers": 1, "bidirectional": False, "embedding_size": None,
        "attention": {"name": "none"}, "code_size": None, "initialisation": rules,
    }  # fmt: skip
    with pytest.raises(ConfigError, match=message):
        build(ModelSpec, raw | changes, "model")
