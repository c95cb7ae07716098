"""Trained networks in use: their weights, kept or made again, and what each kind answers, in Python and by command."""

from __future__ import annotations

import dataclasses
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import pipeline
from pipeline.__main__ import main
from pipeline.config import Paths, Sizes, load_params
from pipeline.core.models import Seq2SeqInputs
from pipeline.core.models.generation import log_probability
from pipeline.core.training import train_networks
from pipeline.core.training.data import interface_of, to_device
from pipeline.core.training.spec import TrialSpec
from pipeline.data import load_dataset, prepare_dataset
from pipeline.data.dataset import EOS, SOS
from pipeline.errors import ConfigError, StoreError, SweepError
from pipeline.results import read_table, write_table
from pipeline.results.store import TrialStore
from pipeline.sweep import executor_named, run_sweep
from tests.sweep.fakes import BASE, PARAMS, SCALE, write_yaml

LETTERS = "the quick brown fox jumps over the lazy dog\n" * 60
CANVAS = {"num_lines": 2, "line_height": 12, "width": 24, "min_digits": 3, "max_digits": 4, "cell": 4}
DATASETS: dict[str, tuple[dict[str, Any], int | None]] = {
    "reversal": ({"generator": "transduction", "operation": "reverse", "num_symbols": 4, "min_share": 0.5}, 4),
    "sentiment": ({"generator": "sentences", "task": "sentiment"}, None),
    "entities": ({"generator": "sentences", "task": "entities"}, None),
    "described": ({"generator": "described_digits", **CANVAS}, None),
    "letters": ({"generator": "text", "data_file": "letters.txt", "unit": "character"}, 12),
    "adding": ({"generator": "adding"}, 6),
}
SHARES = {"train": 0.7, "validation": 0.15, "test": 0.15}
SIZES = Sizes(64, 16, 16)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Paths:
    """A project whose study `uses` has trained a network of each kind for a few steps, with the weights kept."""
    root = tmp_path_factory.mktemp("trained")
    paths = Paths.at(root)
    (root / "letters.txt").write_text(LETTERS)
    names = list(DATASETS)
    write_yaml(paths.params, PARAMS | {"datasets": names, "studies": ["uses"], "keep_weights": True})
    write_yaml(paths.scale_config("tiny"), SCALE | {"datasets": vars(SIZES)})
    write_yaml(paths.claims, {"min_seeds": 3, "claims": {"C1": {}}})
    write_yaml(paths.base, BASE)
    variants = {}
    for name, (config, length) in DATASETS.items():
        more = {} if config["generator"] == "text" else {"seed": 0}
        more |= {"lengths": [length]} if length else {}
        more |= {"shares": SHARES} if config["generator"] in {"sentences", "described_digits", "text"} else {}
        write_yaml(paths.dataset_config(name), config | more)
        prepare_dataset(name, paths.dataset_config(name), [length] if length else [], SIZES, paths.dataset(name))
        variants[name] = {"dataset": {"name": name, "length": length, "unseen_lengths": []}}
    variants["reversal"] |= {"model.attention": {"name": "dot", "feeds": "nothing"}, "model.cell": "gru"}
    variants["described"] |= {"model.attention": {"name": "dot", "feeds": "attentional_state"}}
    study = {
        "question": "What are they good for?",
        "set": {
            "model.cell": "lstm",
            "model.hidden_size": 8,
            "training.batch_size": 8,
            "training.max_steps": 12,
            "training.evaluate_every": 6,
            "diagnostics.num_traces": 2,
            "diagnostics.probe_size": 4,
        },
        "grids": {"uses": {"variants": variants}},
    }
    write_yaml(paths.study_config("uses"), study)
    params = load_params(paths)
    run_sweep(paths, params, "uses", executor_named("inline", params), stream=io.StringIO())
    return paths


def trial_of(paths: Paths, variant: str) -> str:
    return str(read_table("settings", paths.results("uses")).filter(variant=variant)["trial_id"][0])


def trained_of(paths: Paths, variant: str, seed: int | None = None) -> pipeline.Trained:
    return pipeline.load_trained(trial_of(paths, variant), seed, paths.root)


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    status = main(list(arguments))
    return status, *capsys.readouterr()


def test_kept_weights_are_those_of_the_best_step_and_load_into_torch(project: Paths, tmp_path: Path) -> None:
    trained = trained_of(project, "adding", seed=1)
    dataset = load_dataset(project.dataset("adding"), 6, ())
    expected = train_networks(trained.spec, dataset)[1].state_dict()
    mine = trained.network.state_dict()
    assert mine.keys() == expected.keys()
    assert all(torch.equal(mine[name], expected[name]) for name in mine)
    plain = nn.LSTM(2, 8, batch_first=True)
    plain.load_state_dict(trained.network.recurrent.state_dict())
    x = torch.rand(1, 6, 2)
    torch.testing.assert_close(
        trained.network(x).values, trained.network.readout(plain(x)[0][:, -1]), rtol=1e-5, atol=1e-6
    )
    trained.save(tmp_path / "weights.safetensors")
    assert all(torch.equal(tensor, mine[name]) for name, tensor in load_file(tmp_path / "weights.safetensors").items())
    with pytest.raises(ConfigError, match=r"cannot be written"):
        trained.save(tmp_path / "nowhere" / "weights.safetensors")


def test_without_a_seed_it_is_the_best_one_and_without_weights_it_trains_again(
    project: Paths, capsys: pytest.CaptureFixture[str]
) -> None:
    trial = trial_of(project, "adding")
    rows = read_table("trials", project.results("uses")).filter(trial_id=trial).sort("best_validation_loss")
    kept = trained_of(project, "adding")
    assert kept.seed == rows["seed"][0]
    store = TrialStore.of(project, None)
    store.objects.delete(f"{trial}.safetensors")
    again = pipeline.load_trained(trial[:9], project=project.root)
    assert "its weights were not kept, so it trains again" in capsys.readouterr().err
    state = kept.network.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in again.network.state_dict().items())
    assert store.weights(trial) is not None
    assert "LSTM".lower() in repr(again)


def test_a_translation_is_what_the_decoder_writes_and_attends_to(project: Paths) -> None:
    trained = trained_of(project, "reversal")
    assert trained.abilities == ("translate",)
    texts = trained.translate(["ABC", "DA"])
    letters = trained.dataset.input_tokens or ()
    source = torch.tensor([[letters.index(letter) for letter in "ABC"]])
    tokens = [SOS]
    for _ in range(20):
        best = int(trained.network(Seq2SeqInputs(source, torch.tensor([tokens]))).values[0, -1].argmax())
        if best == EOS or len(tokens) > 8:
            break
        tokens.append(best)
    assert texts[0].tokens == tuple((trained.dataset.target_tokens or ())[i] for i in tokens[1:])
    assert texts[0].attention is not None
    assert texts[0].attention.shape == (len(texts[0].tokens) + texts[0].is_whole, 3)
    np.testing.assert_allclose(texts[0].attention.sum(axis=1), 1, rtol=1e-5)
    by_beam = trained.translate(["ABC"], beams=6)
    assert by_beam[0].is_whole
    assert trained.translate([]) == []


def test_a_language_model_writes_and_scores(project: Paths) -> None:
    trained = trained_of(project, "letters")
    assert trained.abilities == ("write", "score")
    tokens = trained.dataset.input_tokens or ()
    once, again = (trained.write("the ", 15, temperature=0.5, seed=4) for _ in range(2))
    assert once == again
    assert once.text.startswith("the ")
    assert len(once.text) == 19
    ids = [tokens.index(letter) for letter in once.text]
    assert once.log_probability == pytest.approx(float(log_probability(trained.network, ids)[3:].sum()))
    beam = trained.write("the ", 5, beams=3)
    greedy = trained.write("the ", 5, temperature=0.0)
    assert beam.log_probability >= greedy.log_probability - 1e-9
    (score,) = trained.score([once.text])
    assert score.num_tokens == 18
    assert score.perplexity == pytest.approx(np.exp(-score.log_probability / 18))


def test_tokens_without_texts_are_no_language(project: Paths) -> None:
    trained = trained_of(project, "letters")
    nameless = dataclasses.replace(trained.dataset, input_tokens=None, target_tokens=None)
    assert dataclasses.replace(trained, dataset=nameless).abilities == ("tag",)


def test_answers_are_those_of_the_network(project: Paths) -> None:
    trained = trained_of(project, "sentiment")
    text = trained.dataset.splits["test"].inputs[0]
    words = " ".join((trained.dataset.input_tokens or ())[i] for i in text if i)
    (answer,) = trained.classify([words])
    values = trained.network(torch.as_tensor(text[text != 0].astype(np.int64))[None]).values[0].softmax(dim=0)
    assert answer.label == (trained.dataset.target_tokens or ())[int(values.argmax())]
    assert answer.probability == pytest.approx(values.max().item(), rel=1e-5)
    tagger = trained_of(project, "entities")
    row = tagger.dataset.splits["test"].inputs[1]
    words = " ".join((tagger.dataset.input_tokens or ())[i] for i in row if i)
    (tags,) = tagger.tag([words])
    assert [token for token, _ in tags] == words.split()
    pointer = trained_of(project, "described")
    test = pointer.dataset.splits["test"]
    sentence = [(pointer.dataset.input_tokens or ())[i] for i in test.inputs[2] if i]
    assert sentence[-1] == "<eos>"  # which a text need not have
    (answer,) = pointer.classify([" ".join(sentence[:-1])], test.images[2:3])
    inputs = to_device(test, interface_of(pointer.dataset), torch.device("cpu")).take(slice(2, 3)).inputs
    values = pointer.network(inputs).values[0].softmax(dim=0)
    assert answer.label == (pointer.dataset.target_tokens or ())[int(values.argmax())]
    assert answer.probability == pytest.approx(values.max().item(), rel=1e-5)
    ids = test.inputs[2][test.inputs[2] > 0]
    assert pointer.classify([ids], test.images[2:3]) == [answer]
    adder = trained_of(project, "adding")
    array = np.zeros((6, 2), dtype=np.float32)
    (number,) = adder.predict([array])
    assert number == pytest.approx(adder.network(torch.zeros(1, 6, 2)).values[0].detach().numpy())


def test_every_use_has_a_command(
    project: Paths, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project.root)
    status, out, _ = said(capsys, "translate", trial_of(project, "reversal"), "AB", "--json", "--beams", "2")
    told = json.loads(out)
    assert status == 0
    assert set(told) == {"text", "log_probability", "tokens", "attention", "is_whole"}
    status, out, _ = said(capsys, "write", trial_of(project, "letters")[:10], "the ", "--tokens", "7")
    assert (status, out[:4], len(out)) == (0, "the ", 12)
    status, out, _ = said(capsys, "score", trial_of(project, "letters"), "the quick")
    assert out.endswith(f"perplexity {trained_of(project, 'letters').score(['the quick'])[0].perplexity:.4g}\n")
    words = " ".join((trained_of(project, "entities").dataset.input_tokens or ())[3:6])
    status, out, _ = said(capsys, "tag", trial_of(project, "entities"), words)
    assert (status, out.count("/")) == (0, 3)
    film = (trained_of(project, "sentiment").dataset.input_tokens or ())[4]
    status, out, _ = said(capsys, "classify", trial_of(project, "sentiment"), "--seed", "1", film)
    assert out.split("\t")[0] == trained_of(project, "sentiment", 1).classify([film])[0].label
    images = trained_of(project, "described").dataset.splits["test"].images
    np.save("canvas.npy", images[:1])
    answer = trained_of(project, "described").classify(["left of seven"], images[:1])[0]
    status, out, _ = said(capsys, "classify", trial_of(project, "described"), "left of seven", "--images", "canvas.npy")
    assert (status, out) == (0, f"{answer.label}\t{answer.probability:.4f}\n")
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{film}\n{film} {film}\n"))
    status, out, _ = said(capsys, "classify", trial_of(project, "sentiment"))
    assert (status, len(out.splitlines())) == (0, 2)


def test_a_text_for_a_network_that_reads_numbers_is_refused(project: Paths) -> None:
    with pytest.raises(ConfigError, match=r"adding: it is read from numbers.*; give arrays of real numbers \(T, 2\)"):
        trained_of(project, "adding").predict(["a text"])


def of_mistakes(paths: Paths) -> list[tuple[list[str], str]]:
    reversal, letters = trial_of(paths, "reversal"), trial_of(paths, "letters")
    described, sentiment = trial_of(paths, "described"), trial_of(paths, "sentiment")
    np.save(paths.root / "wrong.npy", np.zeros((2, 24, 24)))
    (paths.root / "empty.npy").touch()
    np.savez(paths.root / "several.npz", np.zeros((2, 24, 24)))
    np.save(paths.root / "words.npy", np.array(["a", "b"]))
    return [
        (
            ["classify", described, "left of seven"],
            "images: expected (1, 24, 24), that of each text, as described has",
        ),
        (["classify", described, "below six", "--images", "wrong.npy"], "as described has; got (2, 24, 24)"),
        (["classify", described, "lift of six", "--images", "wrong.npy"], "images: expected (1, 24, 24)"),
        (
            ["classify", sentiment, "good", "--images", "wrong.npy"],
            "images: expected none: texts of sentiment speak",
        ),
        (["translate", "zzzz", "a"], "unknown trial 'zzzz'"),
        (["translate", "", "A"], "trials begin with ''"),
        (["translate", reversal, "Aq"], "reversal: unknown token 'q'"),
        (["translate", reversal, ""], "expected a text with at least one token"),
        (["translate", reversal, "A", "--beams", "2", "--length-penalty", "-1"], "length_penalty: expected a number"),
        (["translate", reversal, "A", "--seed", "9"], "unknown seed 9"),
        (["score", reversal, "a"], "cannot score; it can translate"),
        (["write", letters, "the", "--temperature", "-1"], "temperature: expected a number of at least 0"),
        (["caption", reversal, "nothing.npy"], "nothing.npy: expected an array of images"),
        (["caption", reversal, "empty.npy"], "empty.npy: expected an array of images as .npy: No data left in file"),
        (["caption", reversal, "several.npz"], "images as .npy; got several arrays, .npz"),
        (["classify", described, "a", "--images", "words.npy"], "words.npy: expected an array of images as .npy; got"),
    ]


def test_mistakes_are_one_line(
    project: Paths, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project.root)
    for arguments, message in of_mistakes(project):
        status, out, err = said(capsys, *arguments)
        assert (status, out) == (2, ""), arguments
        assert message in err, (arguments, err)
        assert err.count("\n") == 1


def test_damaged_weights_and_other_code_are_named(project: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    trial, store = trial_of(project, "entities"), TrialStore.of(project, None)
    store.objects.write(f"{trial}.safetensors", b"\x10\x00\x00\x00\x00\x00\x00\x00{nothing")
    with pytest.raises(StoreError, match=r"not a file of safetensors: .*; delete it, and it is made again"):
        pipeline.load_trained(trial, project=project.root)
    store.objects.delete(f"{trial}.safetensors")
    with monkeypatch.context() as patched:
        patched.setattr("pipeline.core.training.spec.code_digest", lambda spec: "0" * 16)
        with pytest.raises(StoreError, match=r"were not kept, and the code has changed since"):
            pipeline.load_trained(trial, project=project.root)
    table = read_table("settings", project.results("uses"))
    write_table("settings", table.head(0), project.results("uses"))
    with pytest.raises(SweepError, match="none is there"):
        pipeline.load_trained(trial, project=project.root)
    write_table("settings", table, project.results("uses"))
    assert isinstance(trained_of(project, "entities").spec, TrialSpec)
    assert pl.read_parquet(project.results("uses") / "settings.parquet").height == len(DATASETS)
