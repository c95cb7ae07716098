"""Sequence datasets: one file a generator, one folder a prepared dataset. Needs numpy only."""

from pipeline.data.dataset import (
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
from pipeline.data.generator import Generator, check_length, lengths_to_make
from pipeline.data.manifest import Manifest, Variant, read_manifest
from pipeline.data.registry import GENERATORS, read_generator
from pipeline.data.storage import load_dataset, prepare_dataset

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
