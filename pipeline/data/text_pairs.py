"""A user's pairs of texts, read from two files or from a table, line by line; a mistake is named with file and line.

Files are UTF-8. A line ends with a line feed (a carriage return before it, and a byte order mark, do not count), and
white space at either end of a text does not count. Paths are relative to the current folder.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, NamedTuple

from pipeline.errors import DatasetError, unknown_name

Unit = Literal["character", "word"]


class Text(NamedTuple):
    """One side of a pair: its tokens, and the file and line (from 1) that it is from."""

    tokens: tuple[str, ...]
    path: Path
    line: int

    @property
    def where(self) -> str:
        """File and line, for an error."""
        return f"{self.path}, line {self.line}"


class Pair(NamedTuple):
    """What is read, and what is to be answered."""

    source: Text
    target: Text


def read_two_files(source: Path, target: Path, unit: Unit) -> list[Pair]:
    """Return the pairs of two files, of which each line belongs to the line with the same number in the other.

    Raises:
        DatasetError: If a file cannot be read, is not UTF-8, or has another number of lines than the other.
    """
    sources, targets = read_lines(source), read_lines(target)
    if len(sources) != len(targets):
        message = f"{source} has {len(sources)} lines, {target} has {len(targets)}; expected as many in both"
        raise DatasetError(message)
    lines = enumerate(zip(sources, targets, strict=True), start=1)
    return [Pair(Text(_split(one, unit), source, i), Text(_split(other, unit), target, i)) for i, (one, other) in lines]


def read_tsv(path: Path, unit: Unit) -> list[Pair]:
    """Return the pairs of a table without a head: a source, a tab and a target in every line.

    Raises:
        DatasetError: If the file cannot be read, is not UTF-8, or a line has not exactly two columns.
    """
    pairs = []
    for i, line in enumerate(read_lines(path), start=1):
        columns = [Text(_split(column, unit), path, i) for column in line.split("\t")]
        if len(columns) != 2:
            expected = "two columns, source and target with a tab between"
            raise DatasetError(f"{path}, line {i}: expected {expected}, got {len(columns)}")
        pairs.append(Pair(*columns))
    return pairs


def read_lines(path: Path) -> list[str]:
    """Return the lines of a text file, without their ends.

    Raises:
        DatasetError: If the file is missing, cannot be read, or is not UTF-8.
    """
    content = read_bytes(path)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise DatasetError(f"{path}, line {line}: not UTF-8 text ({error.reason})") from None
    return [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")]


def read_bytes(path: Path) -> bytes:
    """Return the content of a file.

    Raises:
        DatasetError: If it is missing or cannot be read; the message names the nearest file beside it.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError:
        beside = [other.name for other in path.parent.glob("*") if other.is_file()]
        raise DatasetError(f"{path}: no such file; {unknown_name('file', path.name, beside)}") from None
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read: {error.strerror}") from None


def check_lengths(pairs: list[Pair], unit: Unit, max_length: int) -> None:
    """Refuse pairs of which a side is empty or too long.

    Raises:
        DatasetError: At the first such text; the message names file and line.
    """
    for pair in pairs:
        for side, text in pair._asdict().items():
            if not text.tokens:
                raise DatasetError(f"{text.where}: the {side} is empty; expected at least one {unit}")
            if len(text.tokens) > max_length:
                got = f"the {side} has {len(text.tokens)} {unit}s"
                raise DatasetError(f"{text.where}: {got}, more than max_length {max_length}")


def _split(text: str, unit: Unit) -> tuple[str, ...]:
    return tuple(text.split() if unit == "word" else text.strip())
