"""Mappings in, frozen dataclasses out: every key must be known and of the declared type.

Nothing is repaired, and a key may be absent only where the dataclass declares a default. A mistake is a `ConfigError`
that names the file, the dotted key, what was expected, what came, and the nearest valid name.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
import re
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml

from pipeline.errors import ConfigError, unknown_name

T = TypeVar("T")


class InvalidFieldError(ValueError):
    """Raised by a dataclass's `__post_init__` when one field is out of its range."""

    def __init__(self, field: str, expected: str, got: object) -> None:
        super().__init__(f"{field}: expected {expected}, got {got!r}")
        self.field, self.expected, self.got = field, expected, got


def require(condition: bool, field: str, expected: str, got: object) -> None:
    """Raise `InvalidFieldError` unless `condition` holds; `build` adds the file and the dotted key.

    Raises:
        InvalidFieldError: If `condition` is false.
    """
    if not condition:
        raise InvalidFieldError(field, expected, got)


def read_yaml(path: Path) -> Any:
    """Return the content of a YAML file; a repeated key is an error, not an overwrite.

    Raises:
        ConfigError: If the file is missing, not UTF-8, not YAML, or repeats a key.
    """
    try:
        return yaml.load(path.read_text(encoding="utf-8"), Loader=_UniqueKeyLoader)  # noqa: S506
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; {unknown_file('name', path)}") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start})") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {error}") from None


def unknown_file(kind: str, path: Path) -> str:
    """Return «unknown study 'cels'; did you mean 'cells'? known: ...», where the files beside `path` are known."""
    return unknown_name(kind, path.stem, (other.stem for other in path.parent.glob(f"*{path.suffix}")))


def build(cls: Any, value: object, where: str) -> Any:
    """Return `value` as an instance of `cls`, checked field by field.

    Args:
        cls: A frozen dataclass, a union of dataclasses told apart by a `name: Literal[...]` field, an abstract class,
            which stands for the union of its subclasses, or a plain type (`int`, `float`, `str`, `bool`, `Literal`,
            `X | None`, `tuple[X, ...]`, `Mapping`).
        value: What a YAML file holds there.
        where: File and dotted key, for the error.

    Raises:
        ConfigError: If a key is unknown or missing, or a value has the wrong type or range.
    """
    if dataclasses.is_dataclass(cls):
        return _build_dataclass(cls, value, where)
    if inspect.isabstract(cls):
        return _build_union(tuple(cls.__subclasses__()), value, where)
    origin, args = get_origin(cls), get_args(cls)
    if origin in (Union, types.UnionType):
        return _build_union(args, value, where)
    if origin is Literal:
        if value not in args or isinstance(value, bool) != isinstance(args[0], bool):
            raise ConfigError(f"{where}: {unknown_name('value', value, map(str, args))}")
        return value
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise ConfigError(f"{where}: expected a list, got {value!r}")
        return tuple(build(args[0], item, f"{where}[{i}]") for i, item in enumerate(value))
    if cls is Any:
        return value
    if origin is not None and issubclass(origin, Mapping):
        if not isinstance(value, Mapping):
            raise ConfigError(f"{where}: expected a mapping, got {value!r}")
        for key in value:
            if not isinstance(key, str):
                raise ConfigError(f"{where}: expected text as a key, got {key!r}")
        return {key: build(args[1], item, f"{where}.{key}") for key, item in value.items()}
    return _build_scalar(cls, value, where)


def _build_dataclass(cls: Any, value: object, where: str) -> Any:
    fields = dataclasses.fields(cls)
    names = [field.name for field in fields]
    if not isinstance(value, Mapping):
        raise ConfigError(f"{where}: expected a mapping with keys {names}, got {value!r}")
    for key in value:
        if key not in names:
            raise ConfigError(f"{where}: {unknown_name('key', key, names)}")
    hints, given = get_type_hints(cls), {}
    for field in fields:
        if field.name in value:
            given[field.name] = build(hints[field.name], value[field.name], f"{where}.{field.name}")
        elif field.default is field.default_factory is dataclasses.MISSING:
            raise ConfigError(f"{where}: missing key {field.name!r} ({_type_name(hints[field.name])})")
    try:
        return cls(**given)
    except InvalidFieldError as error:
        raise ConfigError(f"{where}.{error.field}: expected {error.expected}, got {error.got!r}") from None


def _build_union(args: tuple[Any, ...], value: object, where: str) -> Any:
    if value is None and type(None) in args:
        return None
    variants = [arg for arg in args if arg is not type(None)]
    if len(variants) == 1:
        return build(variants[0], value, where)
    if not all(dataclasses.is_dataclass(variant) for variant in variants):
        raise TypeError(f"{where}: a union of plain types cannot be told apart")  # a programmer's error
    by_name = {get_args(get_type_hints(variant)["name"])[0]: variant for variant in variants}
    if not isinstance(value, Mapping) or not isinstance(value.get("name"), str):
        raise ConfigError(
            f"{where}: expected a mapping with a name, one of {', '.join(sorted(by_name))}; got {value!r}"
        )
    if value["name"] not in by_name:
        raise ConfigError(f"{where}.name: {unknown_name('name', value['name'], by_name)}")
    return build(by_name[value["name"]], value, where)


def _build_scalar(cls: type, value: object, where: str) -> Any:
    if cls is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{where}: expected {'a finite number' if cls is float else _type_name(cls)}, got {value}")
    if isinstance(value, cls) and isinstance(value, bool) == (cls is bool):
        return value
    hint = ""
    if cls in (int, float) and isinstance(value, str):
        is_number = re.fullmatch(r"[+-]?\d*\.?\d+([eE][+-]?\d+)?", value) is not None
        hint = f" (YAML reads {value} as text; write 1.0e-3 with a point and a sign)" if is_number else ""
    raise ConfigError(f"{where}: expected {_type_name(cls)}, got {value!r}{hint}")


def _type_name(cls: Any) -> str:
    if dataclasses.is_dataclass(cls):
        return "a mapping"
    plain = {int: "an integer", float: "a number", str: "text", bool: "true or false"}
    return plain.get(cls) or str(cls).replace("typing.", "").replace("collections.abc.", "")


class _UniqueKeyLoader(yaml.SafeLoader):
    """A safe loader that refuses a mapping with the same key twice."""


def _unique_mapping(loader: _UniqueKeyLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    loader.flatten_mapping(node)
    seen: set[Any] = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node)
        if not isinstance(key, str | int | float | bool):
            raise yaml.constructor.ConstructorError(None, None, "a key must be plain text", key_node.start_mark)
        if key in seen:
            raise yaml.constructor.ConstructorError(None, None, f"key {key!r} appears twice", key_node.start_mark)
        seen.add(key)
    return yaml.SafeLoader.construct_mapping(loader, node)


_UniqueKeyLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _unique_mapping)
