"""Train a language model, let it write, and score what it wrote by the chain rule.

    python examples/write_text.py --prompt "def " --scale laptop

A sweep keeps what was measured, not the weights; `train_networks` returns the trained networks themselves.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch

from pipeline.config import Paths, build, expand, load_scale, load_study
from pipeline.core.models.generation import beam_search, generate, log_probability
from pipeline.core.training import TrialSpec, train_networks
from pipeline.data import load_dataset, prepare_dataset

ROOT = Path(__file__).resolve().parents[1]


def main(arguments: list[str] | None = None) -> None:
    """Train the first setting of the study `language_model` and print what its first seed makes of a prompt."""
    parser = argparse.ArgumentParser(description="Train a language model and let it write.")
    parser.add_argument("--prompt", default="def ")
    parser.add_argument("--scale", default="smoke", help="smoke: seconds, and nonsense; laptop: minutes")
    parser.add_argument("--tokens", type=int, default=40)
    asked = parser.parse_args(arguments)

    # A setting of a study is a plain mapping; with seeds it is a spec.
    paths = Paths.at(ROOT)
    setting = expand(load_study(paths, "language_model"), asked.scale, "configs/studies/language_model.yaml")[0]
    spec = build(TrialSpec, {**setting.spec, "seeds": [0]}, setting.where)

    name, length = spec.dataset.name, spec.dataset.length
    with tempfile.TemporaryDirectory() as folder:
        data, sizes = Path(folder) / name, load_scale(paths, asked.scale).datasets
        prepare_dataset(name, paths.dataset_config(name), [] if length is None else [length], sizes, data)
        dataset = load_dataset(data, length)
    network = train_networks(spec, dataset)[0]

    letters = dataset.input_tokens
    if letters is None:
        raise SystemExit(f"{name} has no texts for its tokens")
    prompt = [letters.index(letter) for letter in asked.prompt]
    sampled = generate(network, prompt, asked.tokens, temperature=0.7, generator=torch.Generator().manual_seed(0))
    searched = beam_search(network, prompt, asked.tokens, 4)[0]
    for how, written in (("sampled", sampled), ("beam of 4", searched)):
        nats = log_probability(network, prompt + list(written)).sum().item()
        print(f"{how}: {asked.prompt + ''.join(letters[token] for token in written)!r}, {nats:.1f} nats")


if __name__ == "__main__":
    main()
