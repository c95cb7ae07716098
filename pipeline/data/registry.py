"""Every generator by name, and the reader of a dataset's configuration file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pipeline.config.strict import build, read_yaml
from pipeline.data.adding import Adding
from pipeline.data.copy_memory import CopyMemory
from pipeline.data.dates import Dates
from pipeline.data.digit_canvases import DigitCanvases
from pipeline.data.digits import Digits
from pipeline.data.fixed_lag_copy import FixedLagCopy
from pipeline.data.flip_flop import FlipFlop
from pipeline.data.generator import Generator
from pipeline.data.matching_digits import MatchingDigits
from pipeline.data.moving_digits import MovingDigits
from pipeline.data.numbers import Numbers
from pipeline.data.parallel_text import ParallelText
from pipeline.data.sentences import Sentences
from pipeline.data.stdlib_text import StdlibText
from pipeline.data.sunspots import Sunspots
from pipeline.data.tagging import Tagging
from pipeline.data.temporal_order import TemporalOrder
from pipeline.data.transduction import Transduction
from pipeline.data.web_text import WebText
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
