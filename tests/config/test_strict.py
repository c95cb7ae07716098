"""Strict building of dataclasses: every mistake is named with its file, its key and what was expected."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from pipeline.config import Checked, Paths, build, read_yaml, require, require_names
from pipeline.errors import ConfigError


@dataclass(frozen=True)
class Circle:
    name: Literal["circle"]
    radius: float

    def __post_init__(self) -> None:
        require(self.radius > 0, "radius", "a number above 0", self.radius)


@dataclass(frozen=True)
class Square:
    name: Literal["square"]
    side: int


@dataclass(frozen=True)
class Drawing:
    title: str
    shape: Circle | Square
    sizes: tuple[int, ...]
    visible: bool
    scale: float | None
    notes: Mapping[str, str]
    mode: Literal["ink", "pencil"]


GOOD: dict[str, Any] = {
    "title": "a",
    "shape": {"name": "circle", "radius": 2},
    "sizes": [1, 2],
    "visible": False,
    "scale": None,
    "notes": {"a": "b"},
    "mode": "ink",
}


def test_a_good_mapping_becomes_the_dataclass() -> None:
    drawing = build(Drawing, GOOD, "f.yaml")
    assert drawing == Drawing("a", Circle("circle", 2.0), (1, 2), False, None, {"a": "b"}, "ink")
    assert isinstance(drawing.shape.radius, float)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"titel": "a"}, r"f\.yaml: unknown key 'titel'; did you mean 'title'\? known: mode, notes"),
        ({"title": None}, r"f\.yaml\.title: expected text, got None"),
        ({"title": 3}, r"f\.yaml\.title: expected text, got 3"),
        ({"visible": 1}, r"f\.yaml\.visible: expected true or false, got 1"),
        ({"sizes": 3}, r"f\.yaml\.sizes: expected a list, got 3"),
        ({"sizes": [1, "2"]}, r"f\.yaml\.sizes\[1\]: expected an integer, got '2'"),
        ({"sizes": [True]}, r"f\.yaml\.sizes\[0\]: expected an integer, got True"),
        ({"scale": "1e-3"}, r"f\.yaml\.scale: expected a number, got '1e-3' \(YAML reads 1e-3 as text; write 1\.0e-3"),
        ({"scale": "big"}, r"f\.yaml\.scale: expected a number, got 'big'$"),
        ({"notes": {"a": 1}}, r"f\.yaml\.notes\.a: expected text, got 1"),
        ({"notes": {1: "a"}}, r"f\.yaml\.notes: expected text as a key, got 1"),
        ({"notes": []}, r"f\.yaml\.notes: expected a mapping, got \[\]"),
        ({"mode": "inc"}, r"f\.yaml\.mode: unknown value 'inc'; did you mean 'ink'\? known: ink, pencil"),
        ({"shape": "circle"}, r"f\.yaml\.shape: expected a mapping with a name, one of circle, square; got 'circle'"),
        (
            {"shape": {"name": ["circle"]}},
            r"f\.yaml\.shape: expected a mapping with a name, one of circle, square; got",
        ),
        ({"scale": float("nan")}, r"f\.yaml\.scale: expected a finite number, got nan"),
        ({"scale": float("inf")}, r"f\.yaml\.scale: expected a finite number, got inf"),
        ({"sizes": [float("inf")]}, r"f\.yaml\.sizes\[0\]: expected an integer, got inf"),
        ({"shape": {"name": "cirle"}}, r"f\.yaml\.shape\.name: unknown name 'cirle'; did you mean 'circle'\?"),
        ({"shape": {"name": "circle"}}, r"f\.yaml\.shape: missing key 'radius' \(a number\)"),
        ({"shape": {"name": "circle", "side": 1}}, r"f\.yaml\.shape: unknown key 'side'; known: name, radius"),
        ({"shape": {"name": "circle", "radius": -1}}, r"f\.yaml\.shape\.radius: expected a number above 0, got -1\.0"),
    ],
)
def test_mistakes_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(Drawing, GOOD | changes, "f.yaml")


@dataclass(frozen=True)
class Page:
    drawing: str
    margin: int
    notes: Mapping[str, str] = field(default_factory=dict)
    colour: str | None = None


def test_only_a_field_with_a_default_may_be_absent() -> None:
    assert build(Page, {"drawing": "a", "margin": 1}, "f.yaml") == Page("a", 1)
    assert build(Page, {"drawing": "a", "margin": 1, "colour": "red"}, "f.yaml").colour == "red"
    with pytest.raises(ConfigError, match=r"f\.yaml: missing key 'margin' \(an integer\)"):
        build(Page, {"drawing": "a"}, "f.yaml")
    with pytest.raises(ConfigError, match=r"f\.yaml: unknown key 'color'; did you mean 'colour'"):
        build(Page, {"drawing": "a", "margin": 1, "color": "red"}, "f.yaml")
    with pytest.raises(ConfigError, match=r"f\.yaml\.notes: expected a mapping, got None"):
        build(Page, {"drawing": "a", "margin": 1, "notes": None}, "f.yaml")


def test_a_missing_key_and_something_that_is_no_mapping() -> None:
    with pytest.raises(ConfigError, match=r"f\.yaml: missing key 'mode'"):
        build(Drawing, {key: value for key, value in GOOD.items() if key != "mode"}, "f.yaml")
    with pytest.raises(ConfigError, match=r"f\.yaml: expected a mapping with keys .*, got None"):
        build(Drawing, None, "f.yaml")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a: 1\na: 2\n", r"bad\.yaml: not valid YAML: key 'a' appears twice"),
        (b"a: [1\n", r"bad\.yaml: not valid YAML"),
        (b"a: \xff\n", r"bad\.yaml: not UTF-8 text \(invalid start byte at byte 3\)"),
    ],
)
def test_unreadable_yaml_is_named(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        read_yaml(tmp_path / "bad.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", r"key 'a' appears twice, first in line 1 \(line 3\)"),
        (
            "a:\n  b:\n    - {c: 1}\n    - {c: 1, d: 2,\n       c: 2}\n",
            r"key 'c' appears twice, first in line 4 \(line 5\)",
        ),
        ("? [1]\n: 2\n", r"a key must be plain text \(line 1\)"),
    ],
)
def test_a_repeated_key_is_refused_at_any_depth_with_file_and_line(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "f.yaml").write_text(text)
    with pytest.raises(ConfigError, match=rf"f\.yaml: not valid YAML: {message}"):
        read_yaml(tmp_path / "f.yaml")


@dataclass(frozen=True)
class Frame(Checked):
    shape: Circle | Square
    width: float
    sizes: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        require(self.width > 0, "width", "a number above 0", self.width)


@dataclass(frozen=True)
class WideFrame(Frame):
    depth: int = 1


CIRCLE = Circle("circle", 1.0)


@pytest.mark.parametrize("cls", [Frame, WideFrame])
@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"width": True}, r"^width: expected a number, got True"),
        ({"width": "2"}, r"^width: expected a number, got '2'"),
        ({"width": float("nan")}, r"^width: expected a finite number, got nan"),
        ({"width": float("inf")}, r"^width: expected a finite number, got inf"),
        ({"width": -1}, r"^width: expected a number above 0, got -1\.0"),
        ({"sizes": 3}, r"^sizes: expected a list, got 3"),
        ({"sizes": (1, False)}, r"^sizes\[1\]: expected an integer, got False"),
        ({"shape": Circle("circle", True)}, r"^shape\.radius: expected a number, got True"),
        ({"shape": None}, r"^shape: expected a mapping with a name"),
    ],
)
def test_what_is_made_in_python_is_checked_as_what_is_read(cls: Any, fields: dict[str, Any], message: str) -> None:
    given = {"shape": CIRCLE, "width": 1.0} | fields
    with pytest.raises(ConfigError, match=message):
        cls(**given)


def test_what_is_made_in_python_equals_what_is_read() -> None:
    made = Frame(CIRCLE, 2, [1, 2])  # type: ignore[arg-type]
    read = build(Frame, {"shape": {"name": "circle", "radius": 1}, "width": 2, "sizes": [1, 2]}, "f.yaml")
    assert repr(made) == repr(read)


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/b", "../a", "/a", "a-b", "a.b", "a b", "a*", "[a]", "é", "a\n", "a%b"]
)
def test_a_name_is_one_plain_component(name: str) -> None:
    with pytest.raises(ConfigError, match="names: expected letters, digits and _ only"):
        require_names(["cells", name], "names")
    with pytest.raises(ConfigError, match="expected letters, digits and _ only"):
        Paths.at(".").results(name)


def test_names_differ_in_more_than_capitals() -> None:
    with pytest.raises(
        ConfigError, match="names: expected names that differ in more than capitals from 'cells', got 'Cells'"
    ):
        require_names(["cells", "Cells"], "names")


def test_a_missing_file_suggests_its_neighbour(tmp_path: Path) -> None:
    (tmp_path / "laptop.yaml").write_text("a: 1\n")
    with pytest.raises(ConfigError, match=r"lptop\.yaml: no such file; unknown name 'lptop'; did you mean 'laptop'"):
        read_yaml(tmp_path / "lptop.yaml")


def test_nested_keys_are_checked_for_repetition_too(tmp_path: Path) -> None:
    (tmp_path / "f.yaml").write_text("base: &base {a: 1}\nother:\n  <<: *base\n  b: {c: 1, c: 2}\n")
    with pytest.raises(ConfigError, match="key 'c' appears twice"):
        read_yaml(tmp_path / "f.yaml")
    (tmp_path / "f.yaml").write_text("base: &base {a: 1}\nother:\n  <<: *base\n  b: 2\n")
    assert read_yaml(tmp_path / "f.yaml")["other"] == {"a": 1, "b": 2}
