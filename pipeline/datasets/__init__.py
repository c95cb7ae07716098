"""Sequence datasets: one file a generator, one folder a prepared dataset. Needs numpy only."""

from pipeline.datasets.dataset import (
    EOS,
    PAD,
    SOS,
    SPECIAL_TOKENS,
    SPLITS,
    Dataset,
    Split,
    Task,
    assemble,
    combined_digest,
)
from pipeline.datasets.generator import Generator, check_length, lengths_to_make
from pipeline.datasets.manifest import Manifest, Variant, read_manifest
from pipeline.datasets.registry import GENERATORS, read_generator
from pipeline.datasets.storage import load_dataset, prepare_dataset

__all__ = [
    "EOS",
    "GENERATORS",
    "PAD",
    "SOS",
    "SPECIAL_TOKENS",
    "SPLITS",
    "Dataset",
    "Generator",
    "Manifest",
    "Split",
    "Task",
    "Variant",
    "assemble",
    "check_length",
    "combined_digest",
    "lengths_to_make",
    "load_dataset",
    "prepare_dataset",
    "read_generator",
    "read_manifest",
]
