"""Sequence datasets: what they are, how they are generated, and how they are kept as files. Needs numpy only.

Import from here; the generators themselves are in modules of this folder, which `generators` finds.
"""

from pipeline.data.dataset import (
    EOS,
    PAD,
    SPLITS,
    Dataset,
    Split,
    Task,
    assemble,
    combined_digest,
    make_task,
)
from pipeline.data.generator import Sampled, generators, read_generator, stream
from pipeline.data.preview import describe
from pipeline.data.storage import Manifest, Variant, load_dataset, prepare_dataset, read_manifest

__all__ = [
    "EOS",
    "PAD",
    "SPLITS",
    "Dataset",
    "Manifest",
    "Sampled",
    "Split",
    "Task",
    "Variant",
    "assemble",
    "combined_digest",
    "describe",
    "generators",
    "load_dataset",
    "make_task",
    "prepare_dataset",
    "read_generator",
    "read_manifest",
    "stream",
]
