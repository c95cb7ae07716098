"""Mappings in, frozen dataclasses out: every key must be known and of the declared type.

Nothing is repaired, and a key may be absent only where the dataclass declares a default. A mistake is a `ConfigError`
that names the file, the dotted key, what was expected, what came, and the nearest valid name. What is made in Python
is checked as strictly as what is read from a file: see `Checked`.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import math
import re
import types
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml

from pipeline.errors import ConfigError, unknown_name

T = TypeVar("T")

MAX_NAME = 100
"""Letters of a name: file systems allow 255 to a file's, and more is added."""

MAX_NODES = 1_000_000
"""Values of a YAML file, aliases counted where they stand: a few lines of aliases of aliases can stand for billions."""


class InvalidFieldError(ConfigError, ValueError):
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


def option(default: Any) -> Any:
    """Return a field that need not be written, and that `plain` leaves out where it has its default.

    So an option that is added later leaves what is without it as it was: its meaning, its id, its columns.
    """
    return dataclasses.field(default=default, metadata={"option": True})


def key_of(field: dataclasses.Field[Any]) -> str:
    """Return what a field is called in a file: its name, or the word of Python that it cannot have as one."""
    return str(field.metadata.get("key", field.name))


def is_left_out(field: dataclasses.Field[Any], value: object) -> bool:
    """Return whether a field is an `option` that has its default."""
    return bool(field.metadata.get("option")) and value == field.default


def plain(value: Any) -> Any:
    """Return a dataclass, and what is in it, as plain mappings and tuples, without options that have their defaults."""
    if dataclasses.is_dataclass(value):
        pairs = ((field, getattr(value, field.name)) for field in dataclasses.fields(value))
        return {key_of(field): plain(part) for field, part in pairs if not is_left_out(field, part)}
    if isinstance(value, Mapping):
        return {key: plain(part) for key, part in value.items()}
    return tuple(plain(part) for part in value) if isinstance(value, tuple) else value


def require_names(names: Iterable[str], field: str) -> None:
    """Check that names which become a part of a path, a lock, an id or an anchor are plain components, each its own.

    Letters, digits and underscores only. So no name leaves its folder, `-`, `/` and `.` can join names to ids and file
    names of which no two are alike, and no name is another one on a disk that takes capitals for small letters.

    Raises:
        InvalidFieldError: If a name has anything else in it, or two are one.
    """
    seen: dict[str, str] = {}
    for name in names:
        plain = re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_")
        hint = f" (such as {plain!r})" if plain else ""
        require(re.fullmatch(r"[A-Za-z0-9_]+", name) is not None, field, f"letters, digits and _ only{hint}", name)
        require(len(name) <= MAX_NAME, field, f"at most {MAX_NAME} letters and digits", name)
        other = seen.setdefault(name.lower(), name)
        require(other == name, field, f"names that differ in more than capitals from {other!r}", name)


def require_apart(keys: Iterable[str], field: str) -> None:
    """Check dotted keys that stand side by side: none is a part of what another one sets as a whole.

    Raises:
        InvalidFieldError: If one is, for either could be meant to win.
    """
    listed = list(keys)
    for whole in listed:
        for part in listed:
            expected = f"either {whole!r} as a whole or parts of it, not both"
            require(not part.startswith(f"{whole}."), field, expected, part)


def read_yaml(path: Path) -> Any:
    """Return the content of a YAML file; a repeated key is an error at any depth, not an overwrite.

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
    except (ValueError, LookupError, AttributeError, TypeError) as error:  # a date or a tagged number that is none
        raise ConfigError(f"{path}: not valid YAML: {error}") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = "" if mark is None else f" (line {mark.line + 1})"
        raise ConfigError(f"{path}: not valid YAML: {error.problem or error.context}{line}") from None
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"{path}: not valid YAML: {error}") from None


def unknown_file(kind: str, path: Path) -> str:
    """Return «unknown study 'cels'; did you mean 'cells'? known: ...», where the files beside `path` are known."""
    return unknown_name(kind, path.stem, (other.stem for other in path.parent.glob(f"*{path.suffix}")))


def build(cls: Any, value: object, where: str) -> Any:
    """Return `value` as an instance of `cls`, checked field by field.

    Args:
        cls: A frozen dataclass, a union of dataclasses told apart by a `name: Literal[...]` field (which one of
            them may leave out, where it is an `option` there), an abstract class,
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
    if isinstance(value, cls):
        if not isinstance(value, Checked):  # those were checked as they were made
            conform(value, f"{where}.")
        return value
    fields = dataclasses.fields(cls)
    names = [key_of(field) for field in fields]
    if not isinstance(value, Mapping):
        raise ConfigError(f"{where}: expected a mapping with keys {names}, got {value!r}")
    for key in value:
        if key not in names:
            raise ConfigError(f"{where}: {unknown_name('key', key, names)}")
    hints, given = _hints_of(cls), {}
    for field in fields:
        if (key := key_of(field)) in value:
            given[field.name] = build(hints[field.name], value[key], f"{where}.{key}")
        elif field.default is field.default_factory is dataclasses.MISSING:
            raise ConfigError(f"{where}: missing key {key!r} ({_type_name(hints[field.name])})")
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
    if isinstance(value, tuple(variants)):
        return _build_dataclass(type(value), value, where)
    by_name = {get_args(_hints_of(variant)["name"])[0]: variant for variant in variants}
    unnamed = [variant for variant in variants if variant.__dataclass_fields__["name"].metadata.get("option")]
    if unnamed and isinstance(value, Mapping) and "name" not in value:
        return build(unnamed[0], value, where)
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
    origin, args = get_origin(cls), get_args(cls)
    if origin in (Union, types.UnionType):
        named = ["null" if arg is type(None) else _type_name(arg) for arg in args]
        return " or ".join(dict.fromkeys(sorted(named, key=lambda name: name != "null")))
    if origin is Literal:
        return " or ".join(map(str, args))
    if origin is tuple:
        return f"a list, each {_type_name(args[0])}"
    plain = {int: "an integer", float: "a number", str: "text", bool: "true or false", Any: "anything"}
    return plain.get(cls, "a mapping")


def conform(instance: Any, where: str = "") -> None:
    """Check the fields of a dataclass, and of those in it, as `build` checks those of a mapping.

    A whole number becomes a float where a number is declared, and a list a tuple, as those of a file do: the same
    meaning has the same trial id.

    Args:
        instance: A frozen dataclass.
        where: What stands before the fields' names in a message.

    Raises:
        ConfigError: If a value does not have its declared type, or is not finite.
    """
    cls: Any = type(instance)
    hints = _hints_of(cls)
    for field in dataclasses.fields(instance):
        value = build(hints[field.name], getattr(instance, field.name), f"{where}{key_of(field)}")
        object.__setattr__(instance, field.name, value)


@functools.cache
def _hints_of(cls: Any) -> dict[str, Any]:
    return get_type_hints(cls)


class Checked:
    """Base of the dataclasses that a file can hold: made in Python, their fields have their declared types as well.

    The types come before the bounds of `__post_init__`, which may then compare what it is given.
    """

    def __init_subclass__(cls, **options: Any) -> None:
        """Let the types be checked before whatever `__post_init__` the subclass has."""
        super().__init_subclass__(**options)
        bounds: Callable[[Any], None] = cls.__post_init__
        if not hasattr(bounds, "checks_types"):

            @functools.wraps(bounds)
            def types_and_bounds(self: Any) -> None:
                conform(self)
                bounds(self)

            types_and_bounds.checks_types = True  # type: ignore[attr-defined]
            cls.__post_init__ = types_and_bounds  # type: ignore[method-assign]

    def __post_init__(self) -> None:
        """Check nothing more: a dataclass without bounds."""


class _UniqueKeyLoader(yaml.SafeLoader):
    """A safe loader that refuses a mapping with the same key twice, and a file of more than `MAX_NODES` values."""

    def construct_document(self, node: yaml.Node) -> Any:
        """Return what a document's nodes stand for."""
        _num_nodes(node, {})
        return super().construct_document(node)


def _num_nodes(node: yaml.Node, known: dict[yaml.Node, int]) -> int:
    """Return how many values a node stands for, itself among them.

    Args:
        node: A node.
        known: Those that have been counted.

    Raises:
        yaml.constructor.ConstructorError: If there are more than `MAX_NODES`; without end, if it holds itself.
    """
    if node not in known:
        known[node] = MAX_NODES + 1  # while it is being counted
        below = node.value if isinstance(node, yaml.CollectionNode) else []
        parts = [part for entry in below for part in (entry if isinstance(entry, tuple) else [entry])]
        known[node] = 1 + sum(_num_nodes(part, known) for part in parts)
    if known[node] > MAX_NODES:
        problem = f"expected at most {MAX_NODES} values, aliases counted where they stand, got more"
        raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
    return known[node]


def _unique_mapping(loader: _UniqueKeyLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    loader.flatten_mapping(node)
    lines: dict[Any, int] = {}
    for key_node, _ in node.value:
        key = loader.construct_object(key_node)
        if not isinstance(key, str | int | float | bool):
            raise yaml.constructor.ConstructorError(None, None, "a key must be plain text", key_node.start_mark)
        if key in lines:
            problem = f"key {key!r} appears twice, first in line {lines[key]}"
            raise yaml.constructor.ConstructorError(None, None, problem, key_node.start_mark)
        lines[key] = key_node.start_mark.line + 1
    return yaml.SafeLoader.construct_mapping(loader, node)


_UniqueKeyLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _unique_mapping)
