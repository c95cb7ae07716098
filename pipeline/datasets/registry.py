"""Every generator by name, and the reader of a dataset's configuration file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pipeline.config.strict import build, read_yaml
from pipeline.datasets.adding import Adding
from pipeline.datasets.copy_memory import CopyMemory
from pipeline.datasets.dates import Dates
from pipeline.datasets.digit_canvases import DigitCanvases
from pipeline.datasets.digits import Digits
from pipeline.datasets.fixed_lag_copy import FixedLagCopy
from pipeline.datasets.flip_flop import FlipFlop
from pipeline.datasets.generator import Generator
from pipeline.datasets.matching_digits import MatchingDigits
from pipeline.datasets.moving_digits import MovingDigits
from pipeline.datasets.numbers import Numbers
from pipeline.datasets.parallel_text import ParallelText
from pipeline.datasets.sentences import Sentences
from pipeline.datasets.stdlib_text import StdlibText
from pipeline.datasets.sunspots import Sunspots
from pipeline.datasets.tagging import Tagging
from pipeline.datasets.temporal_order import TemporalOrder
from pipeline.datasets.transduction import Transduction
from pipeline.datasets.web_text import WebText
from pipeline.errors import ConfigError, unknown_name

GENERATORS: Mapping[str, type[Generator]] = {
    "adding": Adding,
    "copy_memory": CopyMemory,
    "dates": Dates,
    "digit_canvases": DigitCanvases,
    "digits": Digits,
    "fixed_lag_copy": FixedLagCopy,
    "flip_flop": FlipFlop,
    "matching_digits": MatchingDigits,
    "moving_digits": MovingDigits,
    "numbers": Numbers,
    "parallel_text": ParallelText,
    "sentences": Sentences,
    "stdlib_text": StdlibText,
    "sunspots": Sunspots,
    "tagging": Tagging,
    "temporal_order": TemporalOrder,
    "transduction": Transduction,
    "web_text": WebText,
}


def read_generator(config_path: Path) -> Generator:
    """Return the generator that configs/datasets/<name>.yaml describes.

    Raises:
        ConfigError: If the file is missing or wrong, or names no known generator.
    """
    where = "/".join(config_path.parts[-3:])
    config = read_yaml(config_path)
    if not isinstance(config, Mapping) or "generator" not in config:
        known = ", ".join(GENERATORS)
        raise ConfigError(f"{where}: expected a mapping with a generator, one of {known}; got {config!r}")
    if not isinstance(config["generator"], str) or config["generator"] not in GENERATORS:
        raise ConfigError(f"{where}.generator: {unknown_name('generator', config['generator'], GENERATORS)}")
    generator: Generator = build(GENERATORS[config["generator"]], config, where)
    return generator
