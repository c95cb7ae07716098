"""params.yaml and configs/, read strictly into frozen dataclasses."""

from pipeline.config.digests import keep_listed, write_digest, write_requests
from pipeline.config.params import Params, Resources, Scale, Sizes, Tracking, load_params, load_scale, seeds_of
from pipeline.config.paths import Paths, check_tree, digest_of_file, whole_file, write_whole
from pipeline.config.strict import Checked, InvalidFieldError, build, read_yaml, require, require_names
from pipeline.config.study import RawSetting, Selection, Study, expand, lengths_of, load_study

__all__ = [
    "Checked",
    "InvalidFieldError",
    "Params",
    "Paths",
    "RawSetting",
    "Resources",
    "Scale",
    "Selection",
    "Sizes",
    "Study",
    "Tracking",
    "build",
    "check_tree",
    "digest_of_file",
    "expand",
    "keep_listed",
    "lengths_of",
    "load_params",
    "load_scale",
    "load_study",
    "read_yaml",
    "require",
    "require_names",
    "seeds_of",
    "whole_file",
    "write_digest",
    "write_requests",
    "write_whole",
]
