"""A user's own files: read line by line, checked, and named in every message with line and column.

Texts are UTF-8; a byte order mark and a carriage return before a line feed do not count, and letters with their marks
are as NFC composes them. Tables are CSV (a comma, semicolon, tab or bar between columns, whichever gives the named
ones), Parquet or NPZ. Nothing pickled is ever loaded, and no array is unpacked before its size is known.

A file from the network is believed only once its sha256 is the expected one, and then kept under its sha256 in
$XDG_CACHE_HOME/gradient-dynamics, by default ~/.cache/gradient-dynamics. What is there is verified again, so a file
that was copied there by hand is as good as a download. Shapes: N rows.
"""

from __future__ import annotations

import csv
import difflib
import hashlib
import math
import os
import unicodedata
import zipfile
import zlib
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from io import BufferedReader
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import numpy as np

from pipeline.config.paths import digest_of_file
from pipeline.data.generator import import_source
from pipeline.errors import DatasetError

MAX_BYTES = 2_000_000_000
"""The most that is downloaded, the largest array of an NPZ archive, and the longest field of a CSV file."""
MAX_ROWS = MAX_BYTES // 8
"""The most rows of a Parquet file, of which a few bytes can stand for any number."""
CHUNK = 2**20
TIMEOUT_S = 30.0
MISSING = frozenset({"", "na", "n/a", "nan", "null", "none"})
"""What stands for a missing number in a table, in small letters."""
NOT_A_NUMBER = frozenset({"nan", "NaN", "NAN"})
"""What programs write for a missing text; Nan is a name."""
SEPARATORS = ",;\t|"
CARRIAGE_RETURNS = (
    r"expected lines that end with a line feed, got stray carriage returns; "
    r"`tr -d '\r'` mends a copy that has line feeds too, `tr '\r' '\n'` one that has none"
)
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
UNPACK, SAVE = "unpack it, and name what is in it", "save it as text"
OTHER_FORMATS = {
    b"\xff\xfe\0\0": ("UTF-32", ""),
    b"\xff\xfe": ("UTF-16", ""),
    b"\xfe\xff": ("UTF-16", ""),
    b"PK\x03\x04": ("a ZIP archive, or a file of Excel, Word or NumPy", f"{UNPACK}, or {SAVE}"),
    b"\x1f\x8b": ("gzip", UNPACK),
    b"BZh91AY": ("bzip2", UNPACK),
    b"\xfd7zXZ": ("xz", UNPACK),
    b"(\xb5/\xfd": ("zstd", UNPACK),
    b"PAR1\x15": ("Parquet", "let its name end in .parquet"),  # with how what follows begins: PAR1 may be a word
    b"\x93NUMPY": ("an array of NumPy", SAVE),
    b"\x80\x04": ("a pickle, which is never loaded", SAVE),
    b"\xd0\xcf\x11\xe0": ("a file of Excel or Word", SAVE),
    b"%PDF-": ("PDF", SAVE),
    b"version https://git-lfs.": ("a pointer of Git LFS", "`git lfs pull` brings the file"),
}
"""What is taken for a text by mistake, by its first bytes, and what to do about it."""
MAX_LISTED = 20
"""Most names that a message lists."""
MAX_NUMBER = float(np.finfo(np.float32).max)
"""The largest number that a network can read."""


def unknown(kind: str, name: object, known: Iterable[str]) -> str:
    """Return «unknown column 'Temp'; did you mean 'temp'? known: rain, temp», of many names the first ones."""
    names = sorted(known)
    by_small = {other.lower(): other for other in reversed(names)}
    near = difflib.get_close_matches(str(name).lower(), by_small, n=1, cutoff=0.6)
    hint = f"; did you mean {by_small[near[0]]!r}?" if near else ";"
    more = f" and {len(names) - MAX_LISTED} more" if len(names) > MAX_LISTED else ""
    return f"unknown {kind} {name!r}{hint} known: {', '.join(names[:MAX_LISTED])}{more}"


@contextmanager
def reading(path: Path, name: object = None) -> Iterator[BufferedReader]:
    """Open a file, which messages call `name`, or else by its path.

    Raises:
        DatasetError: If it is missing, is none, or cannot be read; the message names the nearest file beside it.
    """
    try:
        if path.exists() and not path.is_file():
            raise DatasetError(f"{path}: expected a file, got a {'folder' if path.is_dir() else 'device'}")
        with path.open("rb") as file:
            yield file
    except FileNotFoundError:
        if not path.parent.is_dir():
            raise DatasetError(f"{path}: no such file, for there is no folder {path.parent}") from None
        beside = (other.name for other in path.parent.glob("*") if other.is_file())
        raise DatasetError(f"{path}: no such file; {unknown('file', path.name, beside)}") from None
    except OSError as error:
        raise DatasetError(f"{name or path}: cannot be read: {error.strerror}") from None


def read_bytes(path: Path) -> bytes:
    """Return the content of a file.

    Raises:
        DatasetError: If it is missing or cannot be read.
    """
    with reading(path) as file:
        return file.read()


def checksum(path: Path) -> str:
    """Return the sha256 of a file.

    Raises:
        DatasetError: If it is missing or cannot be read.
    """
    with reading(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_lines(path: Path, name: object = None, *, whole: bool = True) -> Iterator[tuple[int, str]]:
    """Yield the number, from 1, and the text of every line, one at a time, with the line feed that it ends with.

    Args:
        path: The file.
        name: What messages call it; None is its path.
        whole: Whether a line comes as a whole, or in several parts where it is longer than `CHUNK` bytes.

    Raises:
        DatasetError: If the file is missing, cannot be read, is empty or not UTF-8, or has other ends of lines.
    """
    name, start, blank = name or path, 0, True
    with reading(path, name) as file:
        for number, raw in _parts_of_lines(file) if not whole else enumerate(file, start=1):
            if start == 0:
                for first, (what, remedy) in OTHER_FORMATS.items():
                    if raw.startswith(first):
                        remedy = remedy or f"`iconv -t UTF-8 -f {what}` mends a copy"
                        raise DatasetError(f"{name}, line 1: expected text in UTF-8, got {what}; {remedy}")
            line = _decode(raw.removeprefix(BYTE_ORDER_MARK) if start == 0 else raw, f"{name}, line {number}", start)
            start, blank = start + len(raw), blank and not line.strip()
            yield number, line
    if blank:
        raise DatasetError(f"{name}: expected text, got an empty file")


def _parts_of_lines(file: BufferedReader) -> Iterator[tuple[int, bytes]]:
    """Yield the number and the bytes of every line; a long one comes in parts, each but the last ends with a blank.

    No word, and no letter with its marks, is in two parts. What has no blank for long is one part nevertheless.
    """
    number, held = 1, [b""]
    while raw := file.readline(CHUNK):
        end = len(raw) if raw.endswith(b"\n") else raw.rfind(b" ") + 1
        if end:
            yield number, b"".join([*held, raw[:end]])
            held, number = [], number + raw.endswith(b"\n")
        held.append(raw[end:])
    if rest := b"".join(held):
        yield number, rest


def _decode(raw: bytes, where: str, start: int) -> str:
    """Return the text of a line that begins at byte `start` of its file.

    Raises:
        DatasetError: If it is not text in UTF-8, or has other ends of lines.
    """
    try:
        line = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        problem = f"not UTF-8 text ({error.reason} at byte {start + error.start})"
        raise DatasetError(f"{where}: {problem}; `iconv -t UTF-8 -f <its encoding>` mends a copy") from None
    if "\0" in line:
        remedy = "`iconv -t UTF-8 -f UTF-16LE` mends a copy of UTF-16"
        raise DatasetError(f"{where}: expected text in UTF-8, got a byte 0; {remedy}, else this is no text file")
    if line.endswith("\r\n"):
        line = line[:-2] + "\n"
    if "\r" in line:
        raise DatasetError(f"{where}: {CARRIAGE_RETURNS}")
    return line if line.isascii() else unicodedata.normalize("NFC", line)


def cache_path(sha256: str) -> Path:
    """Return where the file with this checksum is kept."""
    folder = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(folder) / "gradient-dynamics" / sha256


def fetch(url: str, sha256: str) -> Path:
    """Return where the file with this checksum is kept, downloaded from `url` if need be, of at most `MAX_BYTES`.

    Raises:
        DatasetError: If it is not kept and the server cannot be reached, refuses, breaks off, or sends too much or
            another file; or if it cannot be kept.
    """
    path = cache_path(sha256)
    if path.is_file() and digest_of_file(path) == sha256:
        return path
    partial = path.with_name(f".{sha256}.{os.getpid()}.part")
    try:
        partial.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            _download(url, sha256, file)
        os.replace(partial, path)
    except OSError as error:
        raise DatasetError(f"{path}: cannot be written: {error.strerror}; set XDG_CACHE_HOME elsewhere") from None
    finally:
        if partial.is_file():
            partial.unlink()
    return path


def _download(url: str, sha256: str, file: Any) -> None:
    """Write what the server sends to a file, chunk by chunk, and check what it was.

    Raises:
        DatasetError: If it is not what was expected.
    """
    digest, num_bytes = hashlib.sha256(), 0
    try:
        with urlopen(url, timeout=TIMEOUT_S) as response:  # noqa: S310 - http(s): see `Text`
            announced = response.headers.get("Content-Length", "")
            while num_bytes <= MAX_BYTES and (chunk := response.read(min(CHUNK, MAX_BYTES + 1))):
                num_bytes += len(chunk)
                digest.update(chunk)
                file.write(chunk)
    except HTTPError as error:
        error.close()
        raise DatasetError(f"{url}: the server answers {error.code} {error.reason}") from None
    except (OSError, HTTPException, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise DatasetError(f"{url}: cannot be downloaded ({reason}); or put the file at {cache_path(sha256)}") from None
    if num_bytes > MAX_BYTES:
        raise DatasetError(f"{url}: more than {MAX_BYTES} bytes, the most that is downloaded")
    if announced.isdigit() and num_bytes < int(announced):
        raise DatasetError(f"{url}: broke off after {num_bytes} of {announced} bytes; try again")
    if digest.hexdigest() != sha256:
        raise DatasetError(f"{url}: expected a file with sha256 {sha256}, got one with {digest.hexdigest()}")


@dataclass(frozen=True)
class Table:
    """Named columns of equally many rows, and where each row stands.

    Attributes:
        path: The file.
        columns: Texts of a CSV file; arrays of others, whose first axis is the rows.
        lines: The line of each row of a CSV file; None elsewhere.
    """

    path: Path
    columns: Mapping[str, Sequence[str] | np.ndarray]
    lines: Sequence[int] | None = None

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def where(self, row: int, column: str | None = None) -> str:
        """Return «file, line 7, column 'x'» of a row, from 0; rows that have no line are counted from 1."""
        place = f"row {row + 1}" if self.lines is None else f"line {self.lines[row]}"
        return f"{self.path}, {place}" + (f", column {column!r}" if column is not None else "")

    def numbers(self, column: str) -> np.ndarray:
        """Return a column as numbers, (N,) or (N, …) float64; NaN where one is missing.

        Raises:
            DatasetError: If a value is no finite number.
        """
        values = self.columns[column]
        if isinstance(values, np.ndarray) and values.dtype.kind in "biuf":
            numbers = values.astype(np.float64)
        elif isinstance(values, np.ndarray) and values.ndim > 1:
            raise DatasetError(f"{self.path}, array {column!r}: expected numbers, got texts")
        else:
            flat = array("d", (self._number(row, column, str(value)) for row, value in enumerate(values)))
            numbers = np.frombuffer(flat, dtype=np.float64) if flat else np.zeros(0)
        if (large := np.abs(numbers) > MAX_NUMBER).any():
            row, *inside = np.argwhere(large)[0].tolist()
            got = numbers[row, *inside]
            what = "infinity" if np.isinf(got) else f"{got:g}, more than {MAX_NUMBER:.2g}"
            raise DatasetError(f"{self.where(row, column)}: expected a finite number, got {what}")
        return numbers

    def _number(self, row: int, column: str, text: str) -> float:
        if text.strip().lower() in MISSING:
            return math.nan
        try:
            if "_" in text:
                raise ValueError
            return float(text)
        except ValueError:
            with_digits = any(letter.isdigit() for letter in text)
            hint = "write a decimal point, and nothing else, -1234.5" if with_digits else "a missing one is empty or NA"
            raise DatasetError(f"{self.where(row, column)}: expected a number, got {text[:60]!r}; {hint}") from None

    def texts(self, column: str, *, name: str = "text") -> list[str]:
        """Return a column as texts, white space at their ends left out.

        Raises:
            DatasetError: If one is empty; the message says what of is `name`.
        """
        values = self.columns[column]
        if isinstance(values, np.ndarray) and values.ndim > 1:
            raise DatasetError(f"{self.path}, column {column!r}: expected a {name} a row, got {values.ndim} axes")
        texts = [
            unicodedata.normalize("NFC", str(value)).strip()
            for value in (values.tolist() if isinstance(values, np.ndarray) else values)
        ]
        for row, text in enumerate(texts):
            if not text or text in NOT_A_NUMBER:
                raise DatasetError(f"{self.where(row, column)}: expected a {name}, got nothing; leave such rows out")
        return texts


def read_table(path: Path, names: Sequence[str]) -> Table:
    """Return the named columns of a CSV (.csv, .tsv, .txt), Parquet (.parquet) or NPZ (.npz) file.

    Raises:
        DatasetError: If it cannot be read, lacks a column, or its rows are ragged; no row is left out.
    """
    readers = {".csv": _read_csv, ".tsv": _read_csv, ".txt": _read_csv, ".parquet": _read_parquet, ".npz": _read_npz}
    if path.suffix.lower() not in readers:
        raise DatasetError(f"{path}: {unknown('kind of table', path.suffix, readers)}; save it as one")
    table = readers[path.suffix.lower()](path, list(dict.fromkeys(names)))
    if len(table) == 0:
        raise DatasetError(f"{path}: expected at least one row, got none below the names of the columns")
    return table


def _read_csv(path: Path, names: Sequence[str]) -> Table:
    lines = (line for _, line in read_lines(path))
    header_line = next(lines, "")
    if not header_line.strip():
        rest = "".join(lines)  # an empty file has a message of its own
        raise DatasetError(f"{path}, line 1: expected the names of the columns, got an empty line above {rest[:60]!r}")
    if header_line.count('"') % 2:
        raise DatasetError(f"{path}, line 1: a quotation mark is open at its end; names of columns stand in one line")
    headers = {separator: _fields(header_line, separator) for separator in SEPARATORS}
    separator = next((s for s, header in headers.items() if {*names} <= {*header}), None)
    if separator is None:
        separator = max(SEPARATORS, key=lambda s: len(headers[s]))
        lacking = next(name for name in names if name not in headers[separator])
        known = unknown("column", lacking, headers[separator])
        raise DatasetError(f"{path}, line 1: {known} (line 1 has the names of the columns)")
    header = headers[separator]
    for name in header:
        if header.count(name) > 1:
            raise DatasetError(f"{path}, line 1: column {name!r} appears twice; name every column once")
    columns: dict[str, list[str]] = {name: [] for name in names}
    places, numbers = [(header.index(name), columns[name]) for name in names], array("q")
    reader = csv.reader(lines, delimiter=separator, strict=True)
    line = 2
    limit = csv.field_size_limit(MAX_BYTES)  # of this program
    try:
        for row in reader:
            if len(row) != len(header):
                expected = f"{path}, line {line}: expected {len(header)} fields as in line 1"
                if not "".join(row).strip():
                    raise DatasetError(f"{expected}, got an empty line; leave it out")
                text, marks = separator.join(row), "quotation marks stand round a text that holds a separator"
                remedy = f"{marks}, numbers have a decimal point" if len(row) > len(header) else "fill it up"
                raise DatasetError(f"{expected}, got {len(row)}: {text[:60]!r}; {remedy}")
            for place, column in places:
                column.append(row[place])
            numbers.append(line)
            line = reader.line_num + 2
    except csv.Error as error:
        raise DatasetError(f"{path}, line {line}: not CSV ({error}); is a quotation mark missing?") from None
    finally:
        csv.field_size_limit(limit)
    return Table(path, columns, numbers)


def _fields(line: str, separator: str) -> list[str]:
    try:
        return [field.strip() for field in next(csv.reader([line], delimiter=separator))]
    except csv.Error:
        return []


def _read_parquet(path: Path, names: Sequence[str]) -> Table:
    polars = import_source("polars", "polars", f"{path}: Parquet is read")
    checksum(path)  # whether it is there and can be read
    try:
        known = polars.read_parquet_schema(path)
    except Exception as error:  # noqa: BLE001 - whatever a damaged file makes of its reader
        raise DatasetError(f"{path}: not a Parquet file ({str(error).splitlines()[0]})") from None
    for name in names:
        if name not in known:
            raise DatasetError(f"{path}: {unknown('column', name, known)}")
    try:
        frame = polars.read_parquet(path, columns=list(names), n_rows=MAX_ROWS + 1)
    except (Exception, polars.exceptions.PanicException) as error:  # noqa: BLE001
        raise DatasetError(f"{path}: a damaged Parquet file ({str(error).splitlines()[0]})") from None
    if len(frame) > MAX_ROWS:
        raise DatasetError(f"{path}: expected at most {MAX_ROWS} rows, got more; divide it into smaller files")
    columns: dict[str, Sequence[str] | np.ndarray] = {}
    for name in names:
        column = frame[name]
        if column.dtype.is_numeric() or column.dtype == polars.Boolean:
            integers = column.dtype.is_integer() and column.null_count() == 0
            columns[name] = column.to_numpy() if integers else column.cast(polars.Float64).to_numpy()
        elif column.dtype == polars.String or column.dtype.is_temporal() or column.dtype == polars.Categorical:
            columns[name] = ["" if value is None else str(value) for value in column.to_list()]
        else:
            raise DatasetError(f"{path}, column {name!r}: expected numbers, texts or times, got {column.dtype}")
    return Table(path, columns)


def _read_npz(path: Path, names: Sequence[str]) -> Table:
    arrays = read_npz(path, names)
    for name, values in arrays.items():
        if values.ndim == 0:
            raise DatasetError(f"{path}, array {name!r}: expected a row per example, got a single value")
        if len(values) != len(arrays[names[0]]):
            first = f"array {names[0]!r} has {len(arrays[names[0]])}"
            raise DatasetError(f"{path}: {first} rows, array {name!r} has {len(values)}; expected as many in both")
    return Table(path, arrays)


def read_npz(path: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Return the named arrays of an NPZ archive; each is checked by its header before it is unpacked.

    Raises:
        DatasetError: If the archive is damaged or lacks one, or an array holds objects (which would have to be
            unpickled) or is larger than `MAX_BYTES`.
    """
    checksum(path)  # whether it is there and can be read
    try:
        with zipfile.ZipFile(path) as archive:
            infos = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            for name in names:
                if name not in infos:
                    raise DatasetError(f"{path}: {unknown('array', name, infos)}")
            return {name: _read_array(archive, infos[name], f"{path}, array {name!r}") for name in names}
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, RuntimeError, NotImplementedError) as error:
        got = f"not an NPZ archive, or a damaged one ({str(error)[:100]})"
        raise DatasetError(f"{path}: {got}; numpy.savez writes one") from None


def _read_array(archive: zipfile.ZipFile, info: zipfile.ZipInfo, where: str) -> np.ndarray:
    if info.file_size > MAX_BYTES:
        got = f"{info.file_size} packed into {info.compress_size}"
        raise DatasetError(f"{where}: expected at most {MAX_BYTES} bytes, got {got}; divide it into smaller files")
    headers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    try:
        with archive.open(info) as file:
            version = np.lib.format.read_magic(file)
            if version not in headers:
                raise DatasetError(f"{where}: expected an array in format 1.0 or 2.0, got {version}")
            shape, _, dtype = headers[version](file)
            if dtype.hasobject or dtype.kind not in "biufU":
                what = "Python objects, which are never unpickled" if dtype.hasobject else f"the type {dtype}"
                remedy = "save numbers, or texts, as .astype(float) and .astype(str) make them"
                raise DatasetError(f"{where}: expected numbers or texts, got {what}; {remedy}")
            announced = math.prod(shape) * dtype.itemsize
            if announced != info.file_size - file.tell():
                got = f"{info.file_size - file.tell()} bytes for {announced}"
                raise DatasetError(f"{where}: a damaged array, {got} of shape {shape}")
        with archive.open(info) as file:
            return np.lib.format.read_array(file, allow_pickle=False)
    except (ValueError, MemoryError) as error:
        raise DatasetError(f"{where}: not an array ({str(error).splitlines()[0]})") from None
